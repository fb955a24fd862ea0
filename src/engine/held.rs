//! Who lets clients' writes through again, should the driver that holds them be gone.
//!
//! Whoever holds writes notes here by whom that is lifted before it begins, and again before it calls that off. So `status` can tell what stands
//! without asking a server. What is noted says what was arranged, not what a server did.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::context::StepContext;
use super::journal::{JournalError, JournalReader};
use super::step::StepError;

/// Which writes are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Those to the source, for the switch.
    Source,
    /// Those to the target, for a rollback.
    Target,
}

impl Hold {
    /// The checkpoints' step; each is of one store.
    fn checkpoints(self) -> &'static str {
        match self {
            Hold::Source => "engine.held.source",
            Hold::Target => "engine.held.target",
        }
    }
}

/// How a hold ends without a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "lifted_by")]
pub enum Lifting {
    /// The server that is held does it.
    Itself {
        /// When, give or take what it took to arrange it.
        at: Timestamp,
    },
    /// Nobody does: clients may have been switched, and a person has to decide.
    Nobody,
    /// It was lifted.
    Driver,
}

impl Lifting {
    /// A server lifts the hold after this long; nobody does, if there is no such time.
    #[must_use]
    pub fn after(patience: Option<Duration>) -> Lifting {
        let at = patience.map(|patience| {
            let patience = SignedDuration::try_from(patience).unwrap_or(SignedDuration::MAX);
            Timestamp::now().checked_add(patience).unwrap_or(Timestamp::MAX)
        });
        at.map_or(Lifting::Nobody, |at| Lifting::Itself { at })
    }
}

/// Notes how the hold of a store's writes ends.
///
/// # Errors
/// If the journal can't be written: then nothing may be held.
pub fn note(context: &StepContext, hold: Hold, store: &str, lifting: Lifting) -> Result<(), StepError> {
    let value = serde_json::to_value(lifting)
        .map_err(|error| StepError::definite(format!("who lifts the hold of `{store}` can't be written as JSON: {error}")))?;
    context.checkpoints.save(hold.checkpoints(), store, &value)
}

/// How such holds of a run end, by the one that ends last; `None` if none was noted.
///
/// # Errors
/// If the journal can't be read.
pub fn noted(reader: &JournalReader, run: &str, hold: Hold) -> Result<Option<Lifting>, JournalError> {
    let noted = reader.checkpoints(run, hold.checkpoints())?.into_values();
    let last = |lifting: &Lifting| match lifting {
        Lifting::Driver => (0, Timestamp::MIN),
        Lifting::Itself { at } => (1, *at),
        Lifting::Nobody => (2, Timestamp::MAX),
    };
    Ok(noted.filter_map(|value| serde_json::from_value(value).ok()).max_by_key(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lifts_a_hold_is_kept_as_it_is() {
        let at = Timestamp::UNIX_EPOCH;
        for lifting in [Lifting::Itself { at }, Lifting::Nobody, Lifting::Driver] {
            assert_eq!(serde_json::from_value::<Lifting>(serde_json::to_value(lifting).unwrap()).unwrap(), lifting);
        }
        assert_eq!(Lifting::after(None), Lifting::Nobody);
        assert!(matches!(Lifting::after(Some(Duration::from_secs(45))), Lifting::Itself { at } if at > Timestamp::now()));
        assert!(matches!(Lifting::after(Some(Duration::MAX)), Lifting::Itself { .. }));
    }
}
