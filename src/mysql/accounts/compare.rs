//! Whether the accounts that dbmove created on the target still are what they have to be.
//!
//! Compared are requirements, limits, and every privilege at every place, by the target's own tables: a grant that is missing and one too many
//! are differences alike. What is granted or revoked on the *source* since is none: `mysql.promote` brings it over at the fence. Passwords are
//! not compared: whoever owns an account may have given it another. Nor are accounts that the run did not create; each is named.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::bookkeeping;
use super::super::connect::{Purpose, Session};
use super::super::error::Result;
use super::super::store::MysqlStore;
use super::fate::Fate;
use super::model::{Account, AccountName, Requires, list};
use super::notes::{self, Expected};
use super::read;
use crate::playbook::model::AccountsOption;
use crate::verify::report::NotCompared;
use crate::verify::structure::StructureDifference;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// How many accounts were compared.
    pub accounts: u64,
    /// What differs.
    pub differences: Vec<StructureDifference>,
    /// What was not to be compared, and why.
    pub outside: Vec<NotCompared>,
}

/// Compares them. Changes nothing.
///
/// # Errors
/// If a server can't be read.
pub async fn compare(store: &Arc<MysqlStore>) -> Result<Compared> {
    let mut found = Compared::default();
    let mut outside = |object: String, why: &str| found.outside.push(NotCompared { object, why: why.to_owned() });
    if store.settings.accounts == AccountsOption::Leave {
        outside("accounts and grants".to_owned(), "the playbook leaves accounts to you (`accounts: leave`, the default)");
        return Ok(found);
    }
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let ours = bookkeeping::lease(&mut session, &store.name).await?.is_some();
    let noted = notes::all(&mut session, &store.name).await?;
    session.close().await;
    if !ours {
        outside("accounts and grants".to_owned(), "nothing on the target says which of them this run created");
        return Ok(found);
    }
    outside("passwords of accounts".to_owned(), "an account's owner may have given it another by now");
    let created: BTreeSet<&AccountName> = noted.iter().map(|noted| &noted.name).collect();
    // In whose name objects run is not asked for: at the fence every second counts, and such an account was created.
    let fates = super::fates_for(store, BTreeSet::new()).await?;
    for (name, fate) in fates.into_iter().filter(|(name, _)| !created.contains(name)) {
        let why = match fate {
            Fate::Stays { why, .. } => why,
            Fate::Moves(_) => "this run did not create it: it was on the target before, or is new on the source".to_owned(),
        };
        outside(format!("account {name}"), &why);
    }
    let there = read::accounts(&store.target).await?;
    for noted in &noted {
        let Some(expected) = &noted.expected else { continue };
        found.accounts += 1;
        found.differences.extend(differences(&noted.name, expected, there.accounts.get(&noted.name)));
    }
    Ok(found)
}

/// What differs of one account.
#[must_use]
pub fn differences(name: &AccountName, expected: &Expected, there: Option<&Account>) -> Vec<StructureDifference> {
    let wanted = expected.grants();
    let Some(there) = there else {
        let has = format!("an account with grants on {} places", wanted.len());
        return vec![StructureDifference::new(name, "account", Some(has), None)];
    };
    let mut found = around(name, expected, there);
    let places: BTreeSet<_> = wanted.keys().chain(there.grants.keys()).collect();
    for place in places {
        let (ours, theirs) = (wanted.get(place), there.grants.get(place));
        if ours != theirs {
            found.push(StructureDifference::new(name, format!("grant on {place}"), ours.map(list), theirs.map(list)));
        }
    }
    found
}

/// What differs of one account's requirements and limits.
#[must_use]
pub fn around(name: &AccountName, expected: &Expected, there: &Account) -> Vec<StructureDifference> {
    let requires = |requires: &Requires| match requires {
        Requires::Nothing => "NONE".to_owned(),
        Requires::Ssl => "SSL".to_owned(),
        Requires::X509 => "X509".to_owned(),
        Requires::Specified { cipher, issuer, subject } => format!("CIPHER '{cipher}' ISSUER '{issuer}' SUBJECT '{subject}'"),
    };
    // A server that knows no such limit prints nothing.
    let number = |text: &str| if text.is_empty() { "0".to_owned() } else { text.to_owned() };
    let (ours, theirs) = (&expected.limits, &there.limits);
    let parts = [
        ("REQUIRE", requires(&expected.requires), requires(&there.requires)),
        ("MAX_QUERIES_PER_HOUR", number(&ours.queries), number(&theirs.queries)),
        ("MAX_UPDATES_PER_HOUR", number(&ours.updates), number(&theirs.updates)),
        ("MAX_CONNECTIONS_PER_HOUR", number(&ours.connections), number(&theirs.connections)),
        ("MAX_USER_CONNECTIONS", number(&ours.user_connections), number(&theirs.user_connections)),
        ("MAX_STATEMENT_TIME", number(&ours.statement_seconds), number(&theirs.statement_seconds)),
    ];
    let differing = parts.into_iter().filter(|(_, ours, theirs)| ours != theirs);
    differing.map(|(what, ours, theirs)| StructureDifference::new(name, what, Some(ours), Some(theirs))).collect()
}
