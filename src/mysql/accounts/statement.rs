//! An account and its grants as SQL, for MySQL from 5.7 on and MariaDB from 10.4 on.
//!
//! Statements that hold a password or its hash are [`SecretString`]s; nothing of them may be shown, and the server's answer to them only
//! where it is known not to repeat them ([`bring`](super::bring)). Names are in backticks: they are read the same under every `sql_mode`.

use std::collections::BTreeSet;

use rand::seq::{IndexedRandom, SliceRandom};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::super::connect::Version;
use super::super::sql;
use super::fate::Moving;
use super::model::{AccountName, GRANT_OPTION, Limits, PROXY, Place, Requires};

/// What proves who somebody is, ready to be sent.
pub enum Proof<'a> {
    /// What a plugin compares with, in hexadecimal digits.
    Stored {
        /// The plugin.
        plugin: &'a str,
        /// The digits.
        stored: &'a SecretString,
    },
    /// A password, which the server hashes as it does by default.
    Password(&'a SecretString),
}

/// An account's name, quoted.
#[must_use]
pub fn account(name: &AccountName) -> String {
    sql::account(&name.user, &name.host)
}

/// `CREATE USER` or `ALTER USER`, with all that is not a grant.
#[must_use]
pub fn with_proof(verb: &str, moving: &Moving, proof: &Proof<'_>, version: &Version) -> SecretString {
    let mut statement = Zeroizing::new(format!("{verb} USER {} {}", account(&moving.name), *identified(proof, version)));
    statement.push_str(&around(&moving.requires, &moving.limits, version));
    if moving.expired {
        statement.push_str(" PASSWORD EXPIRE");
    }
    if moving.locked || moving.needs_password().is_some() {
        statement.push_str(" ACCOUNT LOCK");
    }
    statement.as_str().into()
}

/// `ALTER USER` for another proof alone.
#[must_use]
pub fn proof_alone(name: &AccountName, proof: &Proof<'_>, version: &Version) -> SecretString {
    Zeroizing::new(format!("ALTER USER {} {}", account(name), *identified(proof, version))).as_str().into()
}

/// `ALTER USER` for requirements and limits alone.
#[must_use]
pub fn around_alone(name: &AccountName, requires: &Requires, limits: &Limits, version: &Version) -> String {
    format!("ALTER USER {}{}", account(name), around(requires, limits, version))
}

fn identified(proof: &Proof<'_>, version: &Version) -> Zeroizing<String> {
    Zeroizing::new(match proof {
        Proof::Password(password) => format!("IDENTIFIED BY {}", *Zeroizing::new(sql::text(password.expose_secret()))),
        Proof::Stored { plugin, stored } => {
            let digits = stored.expose_secret();
            let bytes = Zeroizing::new(hex::decode(digits).unwrap_or_default());
            let plain = std::str::from_utf8(&bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
            let value = Zeroizing::new(plain.map_or_else(|| format!("0x{digits}"), sql::text));
            let (with, by) = if version.mariadb { ("VIA", "USING") } else { ("WITH", "AS") };
            format!("IDENTIFIED {with} {} {by} {}", sql::identifier(plugin), *value)
        }
    })
}

fn around(requires: &Requires, limits: &Limits, version: &Version) -> String {
    let requires = match requires {
        Requires::Nothing => "NONE".to_owned(),
        Requires::Ssl => "SSL".to_owned(),
        Requires::X509 => "X509".to_owned(),
        Requires::Specified { cipher, issuer, subject } => {
            let parts = [("CIPHER", cipher), ("ISSUER", issuer), ("SUBJECT", subject)];
            let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
            let parts: Vec<String> = parts.map(|(word, value)| format!("{word} {}", sql::text(value))).collect();
            if parts.is_empty() { "NONE".to_owned() } else { parts.join(" AND ") }
        }
    };
    let number = |text: &str| text.parse::<i64>().unwrap_or(0).max(0);
    let mut statement = format!(
        " REQUIRE {requires} WITH MAX_QUERIES_PER_HOUR {} MAX_UPDATES_PER_HOUR {} MAX_CONNECTIONS_PER_HOUR {} MAX_USER_CONNECTIONS {}",
        number(&limits.queries),
        number(&limits.updates),
        number(&limits.connections),
        number(&limits.user_connections)
    );
    if version.mariadb {
        let seconds = limits.statement_seconds.parse::<f64>().ok().filter(|seconds| seconds.is_finite()).unwrap_or(0.0);
        statement.push_str(&format!(" MAX_STATEMENT_TIME {seconds:.6}"));
    }
    statement
}

/// `GRANT` of these privileges at a place.
#[must_use]
pub fn grant(privileges: &BTreeSet<String>, place: &Place, to: &AccountName) -> String {
    match place {
        Place::Proxy(of) => {
            let option = if privileges.contains(GRANT_OPTION) { " WITH GRANT OPTION" } else { "" };
            format!("GRANT {PROXY} ON {} TO {}{option}", account(of), account(to))
        }
        place => format!("GRANT {} ON {} TO {}", listed(privileges, place), object(place), account(to)),
    }
}

/// `REVOKE` of these privileges at a place.
#[must_use]
pub fn revoke(privileges: &BTreeSet<String>, place: &Place, from: &AccountName) -> String {
    match place {
        Place::Proxy(of) => format!("REVOKE {PROXY} ON {} FROM {}", account(of), account(from)),
        place => format!("REVOKE {} ON {} FROM {}", listed(privileges, place), object(place), account(from)),
    }
}

fn listed(privileges: &BTreeSet<String>, place: &Place) -> String {
    let privileges: Vec<String> = privileges
        .iter()
        .map(|privilege| match place {
            Place::Column(_, _, column) => format!("{privilege} ({})", sql::identifier(column)),
            _ => privilege.clone(),
        })
        .collect();
    privileges.join(", ")
}

/// Where, as GRANT and REVOKE want it.
fn object(place: &Place) -> String {
    match place {
        Place::Column(database, table, _) => Place::Table(database.clone(), table.clone()).to_string(),
        Place::Procedure(database, name) => format!("PROCEDURE {}.{}", sql::identifier(database), sql::identifier(name)),
        Place::Function(database, name) => format!("FUNCTION {}.{}", sql::identifier(database), sql::identifier(name)),
        place => place.to_string(),
    }
}

/// What a person does to let clients in by an account that has no password anybody knows.
#[must_use]
pub fn new_password(name: &AccountName, locked: bool) -> String {
    let unlock = if locked { "" } else { " ACCOUNT UNLOCK" };
    format!("ALTER USER {} IDENTIFIED BY '<new password>'{unlock}", account(name))
}

/// A password that nobody knows: 40 characters, of every kind that a policy may ask for.
#[must_use]
pub fn random_password() -> SecretString {
    const KINDS: [&[u8]; 4] = [b"abcdefghijkmnopqrstuvwxyz", b"ABCDEFGHJKLMNPQRSTUVWXYZ", b"23456789", b"!#%+,-.:=?@^_~"];
    let mut random = rand::rng();
    let mut bytes = Zeroizing::new(Vec::with_capacity(40));
    for at in 0..40 {
        bytes.extend(KINDS[at % KINDS.len()].choose(&mut random));
    }
    bytes.shuffle(&mut random);
    // Only ASCII was chosen from.
    Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()).as_str().into()
}

#[cfg(test)]
mod tests {
    use super::super::fate::Password;
    use super::super::model::Grants;
    use super::*;

    fn name(user: &str, host: &str) -> AccountName {
        AccountName { user: user.to_owned(), host: host.to_owned() }
    }

    fn moving(password: Password) -> Moving {
        Moving {
            name: name("a`b'", "10.%"),
            password,
            requires: Requires::Specified { cipher: String::new(), issuer: "i".to_owned(), subject: "/C=x'y".to_owned() },
            limits: Limits { user_connections: "3".to_owned(), ..Limits::default() },
            locked: false,
            expired: false,
            grants: Grants::new(),
            changes: Vec::new(),
        }
    }

    #[test]
    fn names_and_values_can_not_break_out() {
        let stored: SecretString = hex::encode("*16863C23B2E91537AEAEDDE9D1B40DA2A975C5DC").into();
        let plugin = "mysql_native_password";
        let account = moving(Password::Carried { plugin: plugin.to_owned(), stored: stored.clone() });
        let proof = Proof::Stored { plugin, stored: &stored };
        let around = r" REQUIRE ISSUER 'i' AND SUBJECT '/C=x\'y' WITH MAX_QUERIES_PER_HOUR 0 MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0 MAX_USER_CONNECTIONS 3";
        let made = |version: &str| with_proof("CREATE", &account, &proof, &Version::parse(version)).expose_secret().to_owned();
        assert_eq!(
            made("8.4.0"),
            format!(
                "CREATE USER `a``b'`@`10.%` IDENTIFIED WITH `mysql_native_password` AS '*16863C23B2E91537AEAEDDE9D1B40DA2A975C5DC'{around}"
            )
        );
        assert!(made("10.11.6-MariaDB").contains("IDENTIFIED VIA `mysql_native_password` USING '*1686"), "{}", made("10.11.6-MariaDB"));
        let binary: SecretString = hex::encode(b"$A$005$\x01'\xff").into();
        let proof = Proof::Stored { plugin: "caching_sha2_password", stored: &binary };
        let made = proof_alone(&name("u", "h"), &proof, &Version::parse("9.7.0"));
        assert_eq!(made.expose_secret(), "ALTER USER `u`@`h` IDENTIFIED WITH `caching_sha2_password` AS 0x244124303035240127ff");
    }

    #[test]
    fn an_account_that_needs_a_password_is_locked() {
        let account = moving(Password::Unknown { why: "a test".to_owned() });
        let password = random_password();
        let made = with_proof("CREATE", &account, &Proof::Password(&password), &Version::parse("9.7.0"));
        assert!(made.expose_secret().ends_with(" ACCOUNT LOCK"), "{}", made.expose_secret());
        assert_eq!(new_password(&account.name, false), "ALTER USER `a``b'`@`10.%` IDENTIFIED BY '<new password>' ACCOUNT UNLOCK");
    }

    #[test]
    fn a_random_password_has_characters_of_every_kind() {
        let (one, other) = (random_password(), random_password());
        let one = one.expose_secret();
        assert_ne!(one, other.expose_secret());
        assert_eq!(one.len(), 40);
        for kind in
            [char::is_lowercase as fn(char) -> bool, char::is_uppercase, |c: char| c.is_ascii_digit(), |c: char| !c.is_alphanumeric()]
        {
            assert!(one.chars().any(kind), "{one}");
        }
    }

    #[test]
    fn grants_of_every_place() {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
        let to = name("u", "%");
        let place = Place::Column("s".to_owned(), "o`d.t".to_owned(), "c,(d`".to_owned());
        assert_eq!(
            grant(&set(&["SELECT", "UPDATE"]), &place, &to),
            "GRANT SELECT (`c,(d```), UPDATE (`c,(d```) ON `s`.`o``d.t` TO `u`@`%`"
        );
        let place = Place::Function("s".to_owned(), "f".to_owned());
        assert_eq!(grant(&set(&["EXECUTE", "GRANT OPTION"]), &place, &to), "GRANT EXECUTE, GRANT OPTION ON FUNCTION `s`.`f` TO `u`@`%`");
        assert_eq!(revoke(&set(&["SUPER"]), &Place::Server, &to), "REVOKE SUPER ON *.* FROM `u`@`%`");
        let place = Place::Proxy(name("app", "%"));
        assert_eq!(grant(&set(&["PROXY", "GRANT OPTION"]), &place, &to), "GRANT PROXY ON `app`@`%` TO `u`@`%` WITH GRANT OPTION");
    }
}
