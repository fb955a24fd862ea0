//! Steps of no store.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Constructor, Entry, of_step, read};
use crate::gate::approve::{ApproveArguments, GateApprove};
use crate::hook::exec::{HookArguments, HookExec};
use crate::playbook::model::StageName::{self, Cutover, Prepare, Settle, Sync, Verify};
use crate::playbook::vocabulary::{ArgumentError, MovesClients, StepWord, arguments};
use crate::steps::deferred;

const ANYWHERE: &[StageName] = &[Prepare, Sync, Verify, Cutover, Settle];

/// All of them.
pub const STEPS: &[Entry] = &[
    Entry {
        word: StepWord {
            name: HookExec::NAME,
            about: "Runs a command of your own, without a shell; facts in DBMOVE_ variables and as JSON on stdin.",
            store: None,
            stages: ANYWHERE,
            requires_before: &[],
            moves_clients: MovesClients::Perhaps,
            arguments: || schemars::schema_for!(HookArguments),
            check: |with| {
                let hook: HookArguments = arguments(with)?;
                deferred::no_references(with, &["command", "undo", "probe"])?;
                HookExec::new(&hook, BTreeMap::new()).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, _| Ok(Arc::new(HookExec::new(&read(resolved)?, resolved.environment.clone())?)),
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: GateApprove::NAME,
            about: "Waits for a person's yes, given by `dbmove approve`; without it the run ends here with exit code 6.",
            store: None,
            stages: ANYWHERE,
            requires_before: &[],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(ApproveArguments),
            check: |with| {
                let gate: ApproveArguments = arguments(with)?;
                deferred::no_references(with, &["question"])
                    .map_err(|_| ArgumentError::field("question", "`question` is shown as it is written and can't hold a reference"))?;
                GateApprove::new(&gate).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments { make: |resolved, _| Ok(Arc::new(GateApprove::new(&read(resolved)?)?)), texts: &[] },
    },
];
