//! Creates accounts on the target, brings them up to date, drops them.
//!
//! In two parts, because a grant on a view or routine needs that, and a view or routine needs its definer: accounts first ([`Bringing::create`]),
//! what they may do when all objects stand ([`Bringing::grant`]). Both bring an account to its end state from wherever it is. In the end all
//! are read back; one that is not as it has to be is an error.
//!
//! An account that is there and that this run did not create is left as it is. Whoever prepared the target by hand, with new passwords and
//! other grants, did so on purpose; what it lacks of the source's grants is named.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::{ExposeSecret, SecretString};

use super::super::connect::{DEPRECATIONS, Purpose, Session};
use super::super::error::{MysqlError, Result};
use super::super::store::{Described, MysqlStore};
use super::fate::{self, Fate, Moving, Password};
use super::model::{Account, AccountName, Accounts, GRANT_OPTION, Grants, Place, list};
use super::notes::{self, Expected, Noted};
use super::read;
use super::statement::{self, Proof};
use super::terms::{self, Terms};
use crate::engine::crash;
use crate::engine::step::Epoch;
use crate::playbook::model::AccountsOption;
use crate::playbook::reference::Resolver;

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// How many accounts stand on the target that this run created.
    pub standing: u64,
    /// How many were created now.
    pub made: u64,
    /// How many were dropped because the source has them no more.
    pub dropped: u64,
    /// What is not as on the source, a line each.
    pub changes: Vec<String>,
    /// Who does not move, and why, a line each.
    pub left: Vec<String>,
    /// The statements that let clients in again, for every account whose password does not move.
    pub passwords: Vec<String>,
}

/// Refusals that do not repeat the statement.
const WORDED: [u16; 8] = [1044, 1142, 1227, 1290, 1396, 1470, 1819, 3894];

/// The server does not drop who objects belong to.
const OBJECTS_BELONG_TO_IT: u16 = 4006;

/// Both servers, ready for it.
pub struct Bringing<'a> {
    store: &'a MysqlStore,
    epoch: Epoch,
    session: Session,
    moving: Vec<Moving>,
    noted: BTreeMap<AccountName, Noted>,
    brought: Brought,
}

impl<'a> Bringing<'a> {
    /// Reads what becomes of every account; with `accounts: leave` there is nothing to do.
    ///
    /// # Errors
    /// If a server can't be reached or does not show its accounts, or the playbook gives a password for an account that does not move.
    pub async fn open(store: &'a MysqlStore, described: &Described, epoch: Epoch) -> Result<Bringing<'a>> {
        let mut session = Session::open(&store.target, Purpose::Catalog).await?;
        let noted = notes::all(&mut session, &store.name).await?.into_iter().map(|noted| (noted.name.clone(), noted)).collect();
        let mut bringing = Bringing { store, epoch, session, moving: Vec::new(), noted, brought: Brought::default() };
        if store.settings.accounts == AccountsOption::Move {
            let definers = terms::definers(store).await?;
            let terms = Terms::read(store, described, definers).await?;
            let source = read::accounts(&store.source).await?;
            let target = read::accounts(&store.target).await?;
            bringing.choose(&source, &target, &terms)?;
        }
        Ok(bringing)
    }

    /// Who is created, and who is not and why.
    fn choose(&mut self, source: &Accounts, target: &Accounts, terms: &Terms) -> Result<()> {
        for (name, fate) in fate::all(source, terms) {
            match fate {
                Fate::Stays { why, .. } => self.brought.left.push(format!("account `{name}` does not move: {why}")),
                Fate::Moves(account) => match target.accounts.get(&name).filter(|_| !self.noted.contains_key(&name)) {
                    Some(there) => self.brought.left.push(left_alone(&account, there)),
                    None => self.moving.push(*account),
                },
            }
        }
        for (name, place) in &source.orphans {
            self.brought.left.push(format!("a grant on {place} to `{name}` does not move: the source has no such account"));
        }
        // One that moved before and is gone from the source by now is no mistake of the playbook's: at the fence it must not stop the switch.
        let moving = self.moving.iter().map(|account| account.name.to_string());
        let names: BTreeSet<String> = moving.chain(self.noted.keys().map(ToString::to_string)).collect();
        let unused: Vec<String> = terms.passwords.keys().filter(|name| !names.contains(*name)).map(|name| format!("`{name}`")).collect();
        if !unused.is_empty() {
            return Err(MysqlError::Object {
                message: format!("`passwords` of store `{}` names {}, and no account of that name moves. No account was touched", self.store.name, unused.join(", ")),
                hint: "write each as `user@host`, host patterns as on the source (`SELECT User, Host FROM mysql.user`); why an account does not move is in what `dbmove assess PLAYBOOK` says".to_owned(),
            });
        }
        Ok(())
    }

    /// Creates the accounts, without what they may do. An account that the source has no more is dropped.
    ///
    /// # Errors
    /// If one can't be created, named with the server's number of the error. The others stand.
    pub async fn create(&mut self) -> Result<()> {
        let moving: BTreeSet<&AccountName> = self.moving.iter().map(|account| &account.name).collect();
        let gone: Vec<AccountName> = self.noted.keys().filter(|name| !moving.contains(name)).cloned().collect();
        for name in gone {
            if let Some(kept) = drop_account(&mut self.session, &self.store.name, &name).await? {
                self.brought.changes.push(kept);
            } else {
                self.brought.dropped += 1;
                self.brought.changes.push(format!("account `{name}` no longer moves from the source, so it was dropped"));
            }
            self.noted.remove(&name);
        }
        let there = read::accounts(&self.store.target).await?;
        for at in 0..self.moving.len() {
            self.settle(at, &there).await?;
        }
        Ok(())
    }

    /// Brings one account to what it has to be, apart from its grants.
    async fn settle(&mut self, at: usize, there: &Accounts) -> Result<()> {
        let account = self.moving[at].clone();
        let name = &account.name;
        let there = there.accounts.get(name);
        let whole = self.noted.get(name).is_some_and(|noted| noted.expected.is_some());
        let version = self.session.version.clone();
        self.brought.changes.extend(account.changes.iter().map(|change| format!("account `{name}`: {change}")));
        if let Some(why) = account.needs_password() {
            self.brought.passwords.push(format!("{} -- {why}", statement::new_password(name, account.locked)));
        }
        match there {
            // It stands since before: its password may be another by now, by those whose account it is.
            Some(there) if whole => {
                if !same_around(&account, there) {
                    let statement = statement::around_alone(name, &account.requires, &account.limits, &version);
                    self.send(&statement, &format!("changing requirements and limits of account `{name}`")).await?;
                }
                if let Password::Carried { plugin, stored } = &account.password
                    && there.credential.stored.expose_secret() != stored.expose_secret()
                {
                    let proof = Proof::Stored { plugin, stored };
                    self.send_secret(name, &statement::proof_alone(name, &proof, &version)).await?;
                    self.brought.changes.push(format!("account `{name}`: its password is the source's again"));
                }
                return Ok(());
            }
            _ => {}
        }
        notes::write(&mut self.session, &self.store.name, self.epoch, &Noted { name: name.clone(), expected: None }).await?;
        self.noted.insert(name.clone(), Noted { name: name.clone(), expected: None });
        crash::point("accounts.noted");
        let verb = if there.is_some() { "ALTER" } else { "CREATE" };
        let statement = match &account.password {
            Password::Carried { plugin, stored } => statement::with_proof(verb, &account, &Proof::Stored { plugin, stored }, &version),
            Password::Unknown { .. } => {
                let nobody_knows = statement::random_password();
                statement::with_proof(verb, &account, &Proof::Password(&nobody_knows), &version)
            }
            Password::Given(reference) => {
                let given = reference.resolve_secret(&Resolver::default()).await.map_err(|error| MysqlError::Object {
                    message: format!("the password of account `{name}` in `passwords` of store `{}`: {error}", self.store.name),
                    hint: "the account was not created; those before it stand, and the next start goes on from here".to_owned(),
                })?;
                statement::with_proof(verb, &account, &Proof::Password(&given), &version)
            }
        };
        self.send_secret(name, &statement).await?;
        crash::point("accounts.created");
        self.brought.made += 1;
        Ok(())
    }

    /// Grants what the accounts may do, takes away what they may not, reads all of it back and notes it.
    ///
    /// # Errors
    /// If the target refuses a grant, or holds something else afterwards: every such account is named.
    pub async fn grant(mut self) -> Result<Brought> {
        let before = read::accounts(&self.store.target).await?;
        let mut refused = Vec::new();
        for account in std::mem::take(&mut self.moving) {
            let name = account.name.clone();
            let held = before.accounts.get(&name).map(|there| there.grants.clone()).unwrap_or_default();
            for (place, statement) in steps(&account.grants, &held, &name) {
                match self.send(&statement, &format!("granting on {place} to account `{name}`")).await {
                    Ok(()) => {}
                    Err(error) if error.code().is_some() && !error.transient() => refused.push(format!("  {error}")),
                    Err(error) => return Err(error),
                }
            }
            crash::point("accounts.granted");
            self.moving.push(account);
        }
        if !refused.is_empty() {
            return Err(MysqlError::Object {
                message: format!("{} grants can't be made on the target; the others stand:\n{}", refused.len(), refused.join("\n")),
                hint: "give dbmove's account on the target what is missing, WITH GRANT OPTION, or say `accounts: leave` in the playbook"
                    .to_owned(),
            });
        }
        let after = read::accounts(&self.store.target).await?;
        for account in &self.moving {
            let expected = Expected::of(account);
            let differs = super::compare::differences(&account.name, &expected, after.accounts.get(&account.name));
            if let Some(first) = differs.first() {
                return Err(MysqlError::Object {
                    message: format!("account `{}` was created on the target, and is not what it has to be: {}", account.name, first.line()),
                    hint: "somebody else changes accounts there at the same time, or the target reads grants otherwise than dbmove knows: look at `SHOW GRANTS FOR` it".to_owned(),
                });
            }
            let noted = Noted { name: account.name.clone(), expected: Some(expected) };
            notes::write(&mut self.session, &self.store.name, self.epoch, &noted).await?;
        }
        self.brought.standing = self.moving.len() as u64;
        self.session.close().await;
        Ok(self.brought)
    }

    /// Sends a statement without secrets; a warning of the server is a change.
    async fn send(&mut self, statement: &str, what: &str) -> Result<()> {
        let written = self.session.write_unchecked(statement.as_bytes(), what).await?;
        self.warned(written.warnings, what).await
    }

    async fn warned(&mut self, warnings: u16, what: &str) -> Result<()> {
        if warnings > 0 {
            let warnings = self.session.warnings().await?;
            let said = warnings.iter().filter(|(code, _)| !DEPRECATIONS.contains(code));
            self.brought.changes.extend(said.map(|(code, text)| format!("{what}: the target warns: {code} {text}")));
        }
        Ok(())
    }

    /// Sends a statement with a password or hash in it. Of the server's answer only what can't repeat it is kept.
    async fn send_secret(&mut self, name: &AccountName, statement: &SecretString) -> Result<()> {
        let what = format!("creating account `{name}`");
        match self.session.write_unchecked(statement.expose_secret().as_bytes(), &what).await {
            Ok(written) => self.warned(written.warnings, &what).await,
            Err(error) => match error.code() {
                Some(code) if !error.transient() && !WORDED.contains(&code) => Err(MysqlError::Object {
                    message: format!(
                        "account `{name}` can't be created on the target: error {code} (its words are not shown, they may hold the password)"
                    ),
                    hint: "create it there by hand; dbmove leaves an account alone that is there already".to_owned(),
                }),
                _ => Err(error),
            },
        }
    }
}

/// That an account is there already, and what it lacks.
fn left_alone(account: &Moving, there: &Account) -> String {
    let lacking: Vec<String> = account
        .grants
        .iter()
        .filter_map(|(place, granted)| {
            let held = there.grants.get(place);
            let lacking: Vec<&String> = granted.iter().filter(|privilege| !held.is_some_and(|held| held.contains(*privilege))).collect();
            (!lacking.is_empty()).then(|| format!("{} on {place}", list(lacking)))
        })
        .collect();
    let lacks =
        if lacking.is_empty() { "it has all that it has on the source".to_owned() } else { format!("it lacks {}", lacking.join("; ")) };
    format!("account `{}` was on the target before this run and is left as it is: {lacks}", account.name)
}

/// Whether requirements and limits are as they have to be.
fn same_around(account: &Moving, there: &Account) -> bool {
    super::compare::around(&account.name, &Expected::of(account), there).is_empty()
}

/// The statements that make what is held what is wanted: what is too many first, so that nothing that was just granted goes with it.
fn steps(wanted: &Grants, held: &Grants, name: &AccountName) -> Vec<(Place, String)> {
    let nothing = BTreeSet::new();
    let places: BTreeSet<&Place> = wanted.keys().chain(held.keys()).collect();
    let (mut revoked, mut granted) = (Vec::new(), Vec::new());
    for place in places {
        let (wanted, held) = (wanted.get(place).unwrap_or(&nothing), held.get(place).unwrap_or(&nothing));
        let mut extra: BTreeSet<String> = held.difference(wanted).cloned().collect();
        let mut missing: BTreeSet<String> = wanted.difference(held).cloned().collect();
        // To pass a single privilege on can't be taken back without the privilege.
        for single in extra.clone() {
            if let Some(plain) = read::passed(&single) {
                extra.remove(&single);
                extra.insert(plain.to_owned());
                missing.extend(wanted.get(plain).cloned());
            }
        }
        if matches!(place, Place::Proxy(_)) && extra.contains(GRANT_OPTION) {
            missing.clone_from(wanted);
        }
        if !extra.is_empty() {
            revoked.push((place.clone(), statement::revoke(&extra, place, name)));
        }
        if matches!(place, Place::Proxy(_)) {
            if !missing.is_empty() {
                granted.push((place.clone(), statement::grant(wanted, place, name)));
            }
            continue;
        }
        for missing in apart(missing) {
            granted.push((place.clone(), statement::grant(&missing, place, name)));
        }
    }
    revoked.into_iter().chain(granted).collect()
}

/// What can be granted by one statement each: the GRANT OPTION of a statement is one of all privileges that stand alone in it.
fn apart(missing: BTreeSet<String>) -> Vec<BTreeSet<String>> {
    let passed: BTreeSet<String> = missing.iter().filter_map(|single| read::passed(single)).map(str::to_owned).collect();
    let (alone, mut plain): (BTreeSet<String>, BTreeSet<String>) =
        missing.into_iter().filter(|single| read::passed(single).is_none()).partition(|privilege| read::stands_alone(privilege));
    let kept: BTreeSet<String> = alone.difference(&passed).cloned().collect();
    plain.retain(|privilege| !passed.contains(privilege));
    let mut passed = passed;
    if !passed.is_empty() {
        passed.insert(GRANT_OPTION.to_owned());
    }
    [plain, kept, passed].into_iter().filter(|part| !part.is_empty()).collect()
}

/// Drops an account that dbmove created, and its note. If objects that are not dbmove's belong to it the account stays: a line says so.
async fn drop_account(session: &mut Session, store: &str, name: &AccountName) -> Result<Option<String>> {
    let statement = format!("DROP USER IF EXISTS {}", statement::account(name));
    let kept = match session.run(&statement, &format!("dropping account `{name}`")).await {
        Ok(()) => None,
        Err(error) if error.code() == Some(OBJECTS_BELONG_TO_IT) => {
            Some(format!("account `{name}` was left on the target: objects there belong to it that this run did not create"))
        }
        Err(error) => return Err(error),
    };
    notes::forget(session, store, name).await?;
    Ok(kept)
}

/// Drops every account that the store's run has created; what had to stay, a line each. The source is not needed.
///
/// # Errors
/// If the target refuses it.
pub async fn drop_noted(store: &MysqlStore) -> Result<Vec<String>> {
    let mut session = Session::open(&store.target, Purpose::Catalog).await?;
    let mut kept = Vec::new();
    for noted in notes::all(&mut session, &store.name).await? {
        kept.extend(drop_account(&mut session, &store.name, &noted.name).await?);
    }
    session.close().await;
    Ok(kept)
}
