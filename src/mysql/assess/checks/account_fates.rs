//! What becomes of each account: moves as it is, moves changed, needs a password, stays.

use super::super::gather::accounts::Fates;
use super::{Check, Found, Gathered, Level, Part};
use crate::mysql::accounts::fate::{Fate, Moving};
use crate::mysql::accounts::model::{AccountName, list};
use crate::mysql::accounts::statement::new_password;
use crate::playbook::model::AccountsOption;

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "accounts-left",
        level: Level::Warn,
        about: "An account that may do something with what moves, and that the target will not have.",
        why: "Whoever comes in by it can't after the switch.",
        looks_at: &[Part::Fates],
        never_accepted: None,
        look: accounts_left,
    },
    Check {
        id: "account-password",
        level: Level::Warn,
        about: "With `accounts: move`: an account whose password does not move.",
        why: "It is created locked, with a password nobody knows, and nobody comes in by it until it gets another.",
        looks_at: &[Part::Fates],
        never_accepted: None,
        look: account_password,
    },
    Check {
        id: "account-grants",
        level: Level::Warn,
        about: "With `accounts: move`: a privilege, limit or role that becomes something else, or nothing, on the target.",
        why: "What the account did by it fails after the switch, or works otherwise.",
        looks_at: &[Part::Fates],
        never_accepted: None,
        look: account_grants,
    },
    Check {
        id: "account-fate",
        level: Level::Info,
        about: "What becomes of an account of the source.",
        why: "Every account is one of these before the night, not during it.",
        looks_at: &[Part::Fates],
        never_accepted: None,
        look: account_fate,
    },
];

const ASKED: &str = "mysql.user, db, tables_priv, columns_priv, procs_priv on the source; mysql.user, SHOW GRANTS on the target";

/// The accounts that this run would create.
fn created(fates: &Fates) -> impl Iterator<Item = &Moving> {
    let moves = fates.option == AccountsOption::Move;
    fates.all.iter().filter_map(move |(name, fate)| match fate {
        Fate::Moves(moving) if moves && !fates.on_target.contains(name) => Some(&**moving),
        _ => None,
    })
}

fn accounts_left(gathered: &Gathered) -> Vec<Found> {
    let fates = &gathered.fates;
    let lacking = fates.all.iter().filter(|(name, fate)| fate.is_client() && !fates.on_target.contains(name));
    let left = lacking.filter_map(|(name, fate)| match fate {
        Fate::Stays { why, .. } => Some((name, why.clone())),
        Fate::Moves(_) if fates.option == AccountsOption::Leave => Some((name, "the playbook leaves accounts to you".to_owned())),
        Fate::Moves(_) => None,
    });
    left.map(|(name, why)| {
        Found::new(name.to_string(), format!("the target lacks it, and it does not move: {why}"))
            .evidence(ASKED, granted(fates, name))
            .fix("create it on the target, with its grants, before the switch; or say `accounts: move` in the playbook")
    })
    .collect()
}

fn account_password(gathered: &Gathered) -> Vec<Found> {
    let needing = created(&gathered.fates).filter_map(|moving| moving.needs_password().map(|why| (moving, why)));
    needing
        .map(|(moving, why)| {
            let fix = format!(
                "`passwords: {{ \"{}\": \"${{file:PATH}}\" }}` in the playbook; or, once it is created, `{}`",
                moving.name,
                new_password(&moving.name, moving.locked)
            );
            Found::new(moving.name.to_string(), format!("{why}; it is created locked"))
                .evidence(
                    "mysql.user on the source (Password, authentication_string, plugin); information_schema.PLUGINS on the target",
                    why,
                )
                .fix(fix)
        })
        .collect()
}

fn account_grants(gathered: &Gathered) -> Vec<Found> {
    let changes = created(&gathered.fates).flat_map(|moving| moving.changes.iter().map(move |change| (moving, change)));
    let grants = changes.filter(|(_, change)| !change.starts_with("password: "));
    grants
        .map(|(moving, change)| {
            Found::new(moving.name.to_string(), change.clone())
                .evidence(ASKED, granted(&gathered.fates, &moving.name))
                .fix("if it is needed: give dbmove's account on the target the privilege WITH GRANT OPTION, or grant what stands in for it by hand")
        })
        .collect()
}

fn account_fate(gathered: &Gathered) -> Vec<Found> {
    let fates = &gathered.fates;
    fates
        .all
        .iter()
        .map(|(name, fate)| {
            let becomes = match fate {
                _ if fates.on_target.contains(name) => "the target has it already: it is left as it is there".to_owned(),
                Fate::Stays { why, .. } => format!("does not move: {why}"),
                Fate::Moves(_) if fates.option == AccountsOption::Leave => "is left to you (`accounts: leave`)".to_owned(),
                Fate::Moves(moving) => {
                    let locked = if moving.needs_password().is_some() { ", locked until it gets a password" } else { "" };
                    let changed = match moving.changes.len() {
                        0 => "as it is".to_owned(),
                        count => format!("with {count} changes"),
                    };
                    format!("moves {changed}{locked}")
                }
            };
            Found::new(name.to_string(), becomes)
                .evidence(ASKED, granted(fates, name))
                .fix("nothing, if that is as it should be; `accounts: move` or `leave` and `passwords` in the playbook decide")
        })
        .collect()
}

/// What an account would have on the target, or why that is not said.
fn granted(fates: &Fates, name: &AccountName) -> String {
    match fates.all.iter().find(|(other, _)| other == name) {
        Some((_, Fate::Moves(moving))) if !moving.grants.is_empty() => {
            moving.grants.iter().map(|(place, privileges)| format!("{} on {place}", list(privileges))).collect::<Vec<_>>().join("; ")
        }
        Some((_, Fate::Stays { why, .. })) => why.clone(),
        _ => "no privilege that moves".to_owned(),
    }
}
