//! Accounts and what they may do: moved as far as the target allows, or named.
//!
//! # What must hold
//!
//! * *Moved or named.* Every account of the source either moves, or is named with the reason why it does not. Every privilege,
//!   limit or requirement that becomes something else on the target, or nothing, is named with the rule that says so ([`fate`]).
//! * *No weak door.* A password is carried as its hash where the target takes that hash, or is given by the playbook as a reference to a
//!   secret. Otherwise the account is created locked, with a long random password that nobody knows, and the statement that gives it a
//!   new one is named. No account is ever created without a password. Hashes and passwords are in no log, journal or message.
//! * *Nobody else's account is touched.* One that the target has already, and that this run did not create, is left as it is and named.
//!   What is created is noted in `_dbmove.created_account` before it is; undo drops what is noted and nothing else.
//! * *Twice is once.* Creating brings an account from whatever state a crash left it in to the one that it has to have, and reads it back.
//!   `mysql.promote` does it again at the fence: accounts created, changed or dropped on the source meanwhile follow, and what is granted on a
//!   routine that was replaced is granted anew.
//!
//! Grants are read from the servers' own tables and not from `SHOW GRANTS`: servers before 5.7 print names there without escaping them, and a
//! name with a quote, a comma or a parenthesis in it would be read as another grant.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`model`] | the words: an account, a place, what is granted there |
//! | [`read`] | the accounts of a server, of any version |
//! | [`terms`] | what the target takes, and what moves |
//! | [`fate`] | what becomes of each account, by named rules |
//! | [`statement`] | an account and its grants as SQL |
//! | [`bring`] | creates them on the target, brings them up to date, drops them |
//! | [`compare`] | whether they still are what was created |
//! | [`notes`] | what dbmove has created, on the target |

pub mod bring;
pub mod compare;
pub mod fate;
pub mod model;
pub mod notes;
pub mod read;
pub mod statement;
pub mod terms;

pub use model::AccountName;

use std::collections::BTreeSet;
use std::sync::Arc;

use super::error::Result;
use super::store::MysqlStore;
use fate::Fate;
use terms::Terms;

use crate::playbook::model::AccountsOption;

/// Everything there is to know of the accounts of a store: what becomes of each, and the lines that name what the playbook or the
/// source gets wrong. Nothing is changed.
///
/// # Errors
/// If a server can't be reached, or does not show its accounts.
pub async fn fates(store: &Arc<MysqlStore>) -> Result<Vec<(AccountName, Fate)>> {
    let definers = terms::definers(store).await?;
    fates_for(store, definers).await
}

/// The same, where it is known in whose name moved objects run.
///
/// # Errors
/// If a server can't be reached, or does not show its accounts.
pub async fn fates_for(store: &Arc<MysqlStore>, definers: BTreeSet<String>) -> Result<Vec<(AccountName, Fate)>> {
    let described = store.described().await?;
    let terms = Terms::read(store, &described, definers).await?;
    let source = read::accounts(&store.source).await?;
    Ok(fate::all(&source, &terms))
}

/// What there is to say of accounts that are left for people to create, a line each. Nothing is changed.
///
/// # Errors
/// If a server can't be reached.
pub async fn left(store: &Arc<MysqlStore>) -> Result<Vec<String>> {
    let (fates, there) = match (fates(store).await, read::accounts(&store.target).await) {
        (Ok(fates), Ok(there)) => (fates, there),
        (Err(error), _) | (_, Err(error)) if error.transient() => return Err(error),
        (Err(error), _) | (_, Err(error)) => {
            return Ok(vec![format!("which accounts the target lacks can't be said: {error}")]);
        }
    };
    let lacking = fates.iter().filter(|(name, fate)| fate.is_client() && !there.accounts.contains_key(name));
    Ok(lacking
        .map(|(account, _)| {
            format!(
                "account `{account}` is not on the target, and the playbook leaves accounts to you: create it there, with its grants, before the switch (or say `accounts: move`)"
            )
        })
        .collect())
}

/// What `mysql.prepare` is going to do with accounts, and what there is to say of it, a line each. Nothing is changed.
///
/// # Errors
/// If a server can't be reached or, with `accounts: move`, does not show its accounts.
pub async fn planned(store: &Arc<MysqlStore>) -> Result<(Vec<String>, Vec<String>)> {
    if store.settings.accounts == AccountsOption::Leave {
        return Ok((Vec::new(), left(store).await?));
    }
    let (mut lines, mut warnings) = (Vec::new(), Vec::new());
    for (name, fate) in fates(store).await? {
        match fate {
            Fate::Stays { why, .. } => warnings.push(format!("account `{name}` does not move: {why}")),
            Fate::Moves(moving) => {
                lines.push(format!("create account `{name}` with grants on {} places, unless the target has it", moving.grants.len()));
                warnings.extend(moving.changes.iter().map(|change| format!("account `{name}`: {change}")));
            }
        }
    }
    Ok((lines, warnings))
}
