//! Steps of a MySQL store, from the first look at it to its retirement.

use std::sync::Arc;

use super::{AT_THE_SWITCH, Constructor, Entry, from_map, of_step};
use crate::mysql::assess::acceptance;
use crate::mysql::steps;
use crate::playbook::model::StageName::{Cutover, Prepare, Settle, Sync, Verify};
use crate::playbook::model::StoreKind;
use crate::playbook::vocabulary::{MovesClients, StepWord, arguments};

/// All of them.
pub const STEPS: &[Entry] = &[
    Entry {
        word: StepWord {
            name: "mysql.assess",
            about: "Looks whether this migration can work; refuses before anything is touched.",
            store: Some(StoreKind::Mysql),
            stages: &[Prepare],
            requires_before: &[],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::assess::AssessArguments),
            check: |with| {
                let assess: steps::assess::AssessArguments = arguments(with)?;
                acceptance::check(&assess.accept)
            },
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::assess::Assess { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.prepare",
            about: "Creates databases, tables, views and routines on the target, and dbmove's own tables.",
            store: Some(StoreKind::Mysql),
            stages: &[Prepare],
            requires_before: &[],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::prepare::PrepareArguments),
            check: |with| arguments::<steps::prepare::PrepareArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::prepare::Prepare { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.replicate",
            about: "Follows the source's binary log: a service from the first copied row to the switch.",
            store: Some(StoreKind::Mysql),
            stages: &[Sync],
            requires_before: &["mysql.prepare"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::replicate::ReplicateArguments),
            check: |with| arguments::<steps::replicate::ReplicateArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::replicate::Replicate { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.snapshot",
            about: "Copies every row while it is written to, then builds indexes and foreign keys.",
            store: Some(StoreKind::Mysql),
            stages: &[Sync],
            requires_before: &["mysql.replicate"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::snapshot::SnapshotArguments),
            check: |with| arguments::<steps::snapshot::SnapshotArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::snapshot::Snapshot { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.verify",
            about: "Compares every row by content, or at the fence what changed since.",
            store: Some(StoreKind::Mysql),
            stages: &[Verify, Cutover],
            requires_before: &["mysql.snapshot"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::verify::VerifyArguments),
            check: |with| {
                let verify: steps::verify::VerifyArguments = arguments(with)?;
                verify.check().map_err(of_step)
            },
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::verify::Verify { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.fence",
            about: "Stops writes to the source, with proof.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.verify"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::fence::FenceArguments),
            check: |with| {
                let fence: steps::fence::FenceArguments = arguments(with)?;
                fence.check().map_err(of_step)
            },
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::fence::RaiseFence { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.catch_up",
            about: "Waits until the target holds every change up to the fence.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.fence"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::catch_up::CatchUpArguments),
            check: |with| arguments::<steps::catch_up::CatchUpArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::catch_up::CatchUp { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.promote",
            about: "Makes the target ready to be written: counters, following ended, triggers and events created.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.catch_up"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::promote::PromoteArguments),
            check: |with| arguments::<steps::promote::PromoteArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::promote::Promote { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.reverse",
            about: "Keeps the way back open: writes what clients write on the target to the source too, for `dbmove rollback`.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.promote"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::reverse::ReverseArguments),
            check: |with| arguments::<steps::reverse::ReverseArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, with| Ok(Arc::new(steps::reverse::Reverse { store, arguments: from_map(with)? }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.retire",
            about: "Closes the way back for good, and removes dbmove's own tables from the source, which stays read-only.",
            store: Some(StoreKind::Mysql),
            stages: &[Settle],
            requires_before: &["mysql.reverse"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::retire::RetireArguments),
            check: |with| arguments::<steps::retire::RetireArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::retire::Retire { store }))),
    },
    Entry {
        word: StepWord {
            name: "mysql.disconnect",
            about: "After the switch: closes clients' connections on the source, lets its lock go, and enables events on the target.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &["mysql.promote"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(steps::disconnect::DisconnectArguments),
            check: |with| arguments::<steps::disconnect::DisconnectArguments>(with).map(drop),
        },
        constructor: Constructor::Mysql(|store, _| Ok(Arc::new(steps::disconnect::Disconnect { store }))),
    },
];
