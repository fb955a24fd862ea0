//! The switch by DNS: the record that clients find their database by is changed from the source to the target.
//!
//! # What DNS can and can't do
//!
//! A name server can't hold clients, as a proxy can: it only stops telling them the old address. So between the fence and the switch their
//! writes are refused by the source, and after the switch each client comes to the target when it looks the name up again. That takes
//! up to the record's TTL, which is why it is lowered hours before, in [`lower_ttl`]. Some don't look it up again for longer (a JVM with a
//! security manager, connections that pools keep): they stay at the source, where the fence refuses what they write, until `mysql.disconnect`
//! closes their connections. No write is lost by that, but it is late.
//!
//! # What must hold
//!
//! * *Nobody's change is overwritten.* Every change carries what has to be there before it (RFC 2136 prerequisites: this one value, no other
//!   address and no CNAME beside it); the server changes all of it or nothing.
//! * *What a server answers to a change is not believed*: the record is looked at, at every server that holds the zone, and at the resolvers
//!   that clients use. The change is through when all of them show it; if one does not in time, it is put back.
//! * *The old TTL is waited out*, counted from when every server showed the lower one. The journal holds when that was, so a driver that takes
//!   over waits for the rest only. (A clock that was set back meanwhile makes it wait longer, up to the whole time once more; one that was
//!   set ahead makes it wait less, by as much.)
//! * *What was there is kept before the first effect*: value and TTL are a checkpoint, so undo brings back exactly that.
//! * *A rehearsal changes a record of its own*, under another name, or leaves the switch out with a reason.
//!
//! # Where it can go wrong
//!
//! Once the first server shows the target, clients may write there. If another server of the zone then never shows it, the switch is undone,
//! and what was written to the target in those seconds is not carried back. So all servers have to have shown the lowered TTL before (which tries
//! the same way), and have to agree right before the change. Where a crash cut the switch short it may have been hours, so there it is never undone: it
//! is done when every server of the zone shows it, and until then an error that says so.
//!
//! | file | what it is for |
//! | --- | --- |
//! | [`arguments`] | what a playbook says, and the record of a run |
//! | [`key`] | what signs changes |
//! | [`record`] | what a record says, and for how long it may be kept |
//! | [`error`] | why a server could not be asked, or did not do it |
//! | `server` | one name server: a question, a change |
//! | `authority` | all servers of a record |
//! | [`lower_ttl`] | the step `traffic.lower_ttl`, in `prepare` |
//! | [`switch`] | the step `traffic.dns`, in `cutover` |
//! | [`restore_ttl`] | the step `traffic.restore_ttl`, in `settle` |

pub mod arguments;
mod authority;
pub mod error;
pub mod key;
pub mod lower_ttl;
pub mod record;
pub mod restore_ttl;
mod server;
pub mod switch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::rr::Name;
use serde::{Deserialize, Serialize};

use crate::engine::context::StepContext;
use crate::engine::step::StepError;
use crate::hook::message::printable;
use crate::traffic::checkpoint::{keep, kept};
use arguments::{Named, OfRun, RecordArguments, Records};
use record::{Record, Ttl};

/// What `traffic.lower_ttl` found and did, as its output tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Lowered {
    /// The record's name.
    name: String,
    /// What was there before.
    before: Record,
    /// For how long clients may keep it since.
    ttl: Ttl,
}

/// The output fact that holds [`Lowered`].
const LOWERED: &str = "lowered_record";

impl Lowered {
    /// The record as it stands until the switch.
    fn record(&self) -> Record {
        Record { value: self.before.value.clone(), ttl: self.ttl }
    }

    /// What `traffic.lower_ttl` has left behind for this name in this run, if it is done.
    fn of_run(context: &StepContext, name: &Name) -> Result<Option<Lowered>, StepError> {
        for found in context.outputs.values().filter_map(|facts| facts.get(LOWERED)) {
            let lowered: Lowered = serde_json::from_value(found.clone())
                .map_err(|error| StepError::definite(format!("`{LOWERED}`, the output of `traffic.lower_ttl`, can't be read: {error}")))?;
            if lowered.name == name.to_ascii() {
                return Ok(Some(lowered));
            }
        }
        Ok(None)
    }

    /// The same, where it has to be there.
    fn needed(context: &StepContext, name: &Name) -> Result<Lowered, StepError> {
        Lowered::of_run(context, name)?.ok_or_else(|| {
            StepError::definite(format!("the TTL of `{name}` was not lowered in this run. Nothing was changed"))
                .hint("`traffic.lower_ttl` has to be done before")
        })
    }
}

/// What the steps of one store share: its records, by production's name.
#[derive(Default)]
pub struct Shared {
    records: Mutex<BTreeMap<String, Arc<Records>>>,
}

/// What makes steps share it.
pub type SharedRecords = Arc<Shared>;

impl Shared {
    /// What `traffic.lower_ttl` was told.
    fn tell(&self, records: Records) -> Arc<Records> {
        let records = Arc::new(records);
        let mut known = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(records.production.name.to_ascii(), Arc::clone(&records));
        records
    }

    /// The record that a later step means.
    fn find(&self, arguments: &RecordArguments) -> Result<Arc<Records>, StepError> {
        let known = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let names = || known.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match (&arguments.name, known.len()) {
            (_, 0) => Err(StepError::definite("the store has no `traffic.lower_ttl` before it, which says which record")
                .hint("add one in `prepare`, for the same store")),
            (None, 1) => known.values().next().cloned().ok_or_else(|| StepError::definite("there is no record")),
            (None, _) => Err(StepError::definite(format!("the store has several records: {}", names())).hint("say which with `name`")),
            (Some(written), _) => {
                let name = record::name(written).map(|name| name.to_ascii());
                name.and_then(|name| known.get(&name).cloned()).ok_or_else(|| {
                    StepError::definite(format!("`name`: no `traffic.lower_ttl` of the store is about `{}`", printable(written)))
                        .hint(format!("there is {}", names()))
                })
            }
        }
    }
}

/// The record of this run, or why there is none in a rehearsal, as the end of a step's verb.
fn named<'a>(records: &'a Records, context: &StepContext) -> Result<Result<&'a Named, String>, StepError> {
    Ok(match records.of_run(context)? {
        OfRun::Record(named) => Ok(named),
        OfRun::Skipped(reason) => Err(printable(reason)),
    })
}
