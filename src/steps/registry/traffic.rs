//! Steps that move clients: routes, holding them, and the canary that sees where they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AT_THE_SWITCH, Constructor, Entry, of_step, read};
use crate::engine::step::StepError;
use crate::playbook::model::StageName::{Cutover, Prepare, Settle, Sync, Verify};
use crate::playbook::model::StoreKind;
use crate::playbook::vocabulary::{MovesClients, StepWord, arguments};
use crate::steps::deferred;
use crate::traffic::canary::{CanaryArguments, TrafficCanary};
use crate::traffic::check::{CheckArguments, TrafficCheck};
use crate::traffic::dns::arguments::{LowerArguments, RecordArguments};
use crate::traffic::dns::lower_ttl::LowerTtl;
use crate::traffic::dns::restore_ttl::RestoreTtl;
use crate::traffic::dns::switch::TrafficDns;
use crate::traffic::exec::{SwitchArguments, TrafficExec};
use crate::traffic::file::{FileArguments, TrafficFile};
use crate::traffic::haproxy::arguments::HoldArguments;
use crate::traffic::haproxy::hold::TrafficHold;
use crate::traffic::haproxy::release::{ReleaseArguments, TrafficRelease};
use crate::traffic::haproxy::switch::{SwitchArguments as ProxySwitchArguments, TrafficSwitch};
use crate::traffic::http::{HttpArguments, TrafficHttp};

/// All of them.
pub const STEPS: &[Entry] = &[
    Entry {
        word: StepWord {
            name: TrafficFile::NAME,
            about: "Points clients to the target by a file they read, replaced as a whole.",
            store: None,
            stages: AT_THE_SWITCH,
            requires_before: &[],
            moves_clients: MovesClients::Always,
            arguments: || schemars::schema_for!(FileArguments),
            check: |with| {
                let file: FileArguments = arguments(with)?;
                deferred::no_references(with, &["path", "rehearsal_path"])?;
                TrafficFile::new(file).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, _| Ok(Arc::new(TrafficFile::new(read(resolved)?)?)),
            texts: &["content", "rehearsal_content"],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficExec::NAME,
            about: "Points clients to the target by a command of your own, settled by looking before and after.",
            store: None,
            stages: AT_THE_SWITCH,
            requires_before: &[],
            moves_clients: MovesClients::Always,
            arguments: || schemars::schema_for!(SwitchArguments),
            check: |with| {
                let switch: SwitchArguments = arguments(with)?;
                deferred::no_references(with, &["command", "undo", "probe", "rehearsal"])?;
                TrafficExec::new(&switch, BTreeMap::new()).map(drop).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, _| Ok(Arc::new(TrafficExec::new(&read(resolved)?, resolved.environment.clone())?)),
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficHttp::NAME,
            about: "Points clients to the target by an HTTP call of your own, settled by looking before and after.",
            store: None,
            stages: AT_THE_SWITCH,
            requires_before: &[],
            moves_clients: MovesClients::Always,
            arguments: || schemars::schema_for!(HttpArguments),
            check: |with| TrafficHttp::new(arguments(with)?).map(drop).map_err(of_step),
        },
        // What it refers to is resolved for each call.
        constructor: Constructor::Arguments { make: |resolved, _| Ok(Arc::new(TrafficHttp::new(read(resolved)?)?)), texts: &[] },
    },
    Entry {
        word: StepWord {
            name: LowerTtl::NAME,
            about: "Lets clients keep a DNS record for a short time only, and waits out the time they may have kept it for.",
            store: Some(StoreKind::Mysql),
            stages: &[Prepare, Sync, Verify],
            requires_before: &[],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(LowerArguments),
            check: |with| LowerTtl::check(&arguments(with)?).map_err(of_step),
        },
        // What it refers to is resolved for each look and change; so too for the two others.
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let target = materials.target_host(LowerTtl::NAME)?;
                Ok(Arc::new(LowerTtl::new(&read(resolved)?, target, &materials.records)?))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficDns::NAME,
            about: "Points clients to the target by a DNS record, and waits until every name server and resolver shows it.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[LowerTtl::NAME],
            moves_clients: MovesClients::Always,
            arguments: || schemars::schema_for!(RecordArguments),
            check: |with| arguments::<RecordArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let target = materials.target_host(TrafficDns::NAME)?;
                Ok(Arc::new(TrafficDns::new(&read(resolved)?, target, &materials.records)?))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: RestoreTtl::NAME,
            about: "Lets clients keep the DNS record for as long as before; behind what closes the way back.",
            store: Some(StoreKind::Mysql),
            stages: &[Settle],
            requires_before: &[TrafficDns::NAME],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(RecordArguments),
            check: |with| arguments::<RecordArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let target = materials.target_host(RestoreTtl::NAME)?;
                Ok(Arc::new(RestoreTtl::new(&read(resolved)?, target, &materials.records)?))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficHold::NAME,
            about: "New clients wait at HAProxy from here on; those connected finish what they do.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(HoldArguments),
            check: |with| {
                let hold: HoldArguments = arguments(with)?;
                TrafficHold::check(&hold).map_err(of_step)
            },
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let binding = materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.hold` works on a store: name it"))?;
                let (source, target) = (Arc::clone(&binding.source), Arc::clone(&binding.target));
                Ok(Arc::new(TrafficHold::new(&read(resolved)?, source, target, Arc::clone(&materials.hold))?))
            },
            texts: &["socket", "address", "target", "rehearsal_socket", "rehearsal_address", "rehearsal_target"],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficSwitch::NAME,
            about: "Points HAProxy to the target while clients wait, and tries that with one connection of its own.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[TrafficHold::NAME, "mysql.promote"],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(ProxySwitchArguments),
            check: |with| arguments::<ProxySwitchArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |_, materials| {
                let binding =
                    materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.switch` works on a store: name it"))?;
                let (source, target) = (Arc::clone(&binding.source), Arc::clone(&binding.target));
                Ok(Arc::new(TrafficSwitch::new(source, target, Arc::clone(&materials.hold))))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficRelease::NAME,
            about: "Lets the clients that wait at HAProxy through, to the target: the point of no return where clients are held.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[TrafficSwitch::NAME],
            moves_clients: MovesClients::Always,
            arguments: || schemars::schema_for!(ReleaseArguments),
            check: |with| arguments::<ReleaseArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |_, materials| {
                let binding =
                    materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.release` works on a store: name it"))?;
                Ok(Arc::new(TrafficRelease::new(Arc::clone(&binding.target), Arc::clone(&materials.hold))))
            },
            texts: &[],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficCanary::NAME,
            about: "Writes through the route that clients take, all the while, and so measures the write gap.",
            store: Some(StoreKind::Mysql),
            stages: AT_THE_SWITCH,
            requires_before: &[],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(CanaryArguments),
            check: |with| arguments::<CanaryArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let binding =
                    materials.binding.as_ref().ok_or_else(|| StepError::definite("`traffic.canary` works on a store: name it"))?;
                let (source, target) = (Arc::clone(&binding.source), Arc::clone(&binding.target));
                let watch = Arc::clone(&materials.watch);
                Ok(Arc::new(TrafficCanary::new(&read(resolved)?, resolved.password.clone(), source, target, watch)?))
            },
            texts: &["url", "rehearsal_url", "user"],
        },
    },
    Entry {
        word: StepWord {
            name: TrafficCheck::NAME,
            about: "After the switch: waits until the target accepts the canary through the route.",
            store: Some(StoreKind::Mysql),
            stages: &[Cutover, Settle],
            requires_before: &[TrafficCanary::NAME],
            moves_clients: MovesClients::Never,
            arguments: || schemars::schema_for!(CheckArguments),
            check: |with| arguments::<CheckArguments>(with).map(drop),
        },
        constructor: Constructor::Arguments {
            make: |resolved, materials| {
                let check = TrafficCheck::new(&read(resolved)?, Arc::clone(&materials.watch))?;
                Ok(Arc::new(check.behind(Arc::clone(&materials.hold))))
            },
            texts: &[],
        },
    },
];
