//! From looks to *fired* and *quiet again*: one small machine for each guard, told the time by whoever asks.
//!
//! It keeps two rows. The row of bad looks began with the first that failed its condition and ends only with one that held it: a look that
//! could not be had proves nothing, so it does not end it. The row of good looks began with the first that held and ends with any other.
//! Beside them stands since when nothing could be seen; when that is too long, it counts as a row of bad ones that is long enough.

use std::time::{Duration, Instant};

use super::{Look, Unseen};
use crate::playbook::model::{DurationText, GuardSpec};
use crate::playbook::quantity::HumanDuration;

/// How often it is looked unless the playbook says otherwise.
pub const DEFAULT_EVERY: Duration = Duration::from_secs(5);
/// How long it has to be good to be quiet again.
pub const DEFAULT_QUIET_FOR: Duration = Duration::from_secs(30);
/// How long nothing may be seen.
pub const DEFAULT_UNSEEN_FOR: Duration = Duration::from_secs(60);

/// The durations of one guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Between two looks.
    pub every: Duration,
    /// How long it has to be bad to fire.
    pub bad_for: Duration,
    /// How long it has to be good to be quiet again.
    pub quiet_for: Duration,
    /// How long nothing may be seen before that counts as bad.
    pub unseen_for: Duration,
}

impl Terms {
    /// As the playbook says, with the defaults where it says nothing. What is no duration was refused when it was loaded.
    #[must_use]
    pub fn of(spec: &GuardSpec) -> Terms {
        let or = |text: &Option<DurationText>, default: Duration| {
            text.as_ref().and_then(|text| text.0.parse::<HumanDuration>().ok()).map_or(default, |duration| duration.0)
        };
        let bad_for = or(&spec.bad_for, Duration::ZERO);
        Terms {
            every: or(&spec.every, DEFAULT_EVERY),
            bad_for,
            quiet_for: or(&spec.quiet_for, DEFAULT_QUIET_FOR),
            // What has to be bad for an hour is not to fire after a minute of silence.
            unseen_for: or(&spec.unseen_for, DEFAULT_UNSEEN_FOR.max(bad_for)),
        }
    }
}

/// What a look led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It fires from now on; what was found.
    Fires(String),
    /// It is quiet again; what was found.
    Quiet(String),
}

/// One guard's rows.
#[derive(Clone, Debug)]
pub struct Judge {
    terms: Terms,
    fired: bool,
    bad_since: Option<Instant>,
    good_since: Option<Instant>,
    unseen_since: Option<Instant>,
}

impl Judge {
    /// A guard that was not looked at; `fired` if it stands from an earlier driver.
    #[must_use]
    pub fn new(terms: Terms, fired: bool) -> Judge {
        Judge { terms, fired, bad_since: None, good_since: None, unseen_since: None }
    }

    /// Takes a look in.
    pub fn rule(&mut self, now: Instant, look: &Result<Look, Unseen>) -> Option<Ruling> {
        let passed = |since: Option<Instant>, least: Duration| since.is_some_and(|since| now.duration_since(since) >= least);
        if look.is_ok() {
            self.unseen_since = None;
        }
        match look {
            Ok(Look::Fails(found)) => {
                self.good_since = None;
                self.bad_since.get_or_insert(now);
                if !self.fired && passed(self.bad_since, self.terms.bad_for) {
                    self.fired = true;
                    return Some(Ruling::Fires(found.clone()));
                }
            }
            Ok(Look::Holds(found)) => {
                self.bad_since = None;
                self.good_since.get_or_insert(now);
                if self.fired && passed(self.good_since, self.terms.quiet_for) {
                    self.fired = false;
                    return Some(Ruling::Quiet(found.clone()));
                }
            }
            Ok(Look::Nothing(why)) => {
                // What it fired for is gone with what there was to look at.
                (self.bad_since, self.good_since) = (None, None);
                if std::mem::take(&mut self.fired) {
                    return Some(Ruling::Quiet(why.clone()));
                }
            }
            Err(Unseen(why)) => {
                self.good_since = None;
                let since = *self.unseen_since.get_or_insert(now);
                if !self.fired && passed(Some(since), self.terms.unseen_for) {
                    self.fired = true;
                    return Some(Ruling::Fires(format!("it can't be asked, for {} now: {why}", shown(now.duration_since(since)))));
                }
            }
        }
        None
    }

    /// It is not watched where the run is now: all rows end. True if it had fired.
    pub fn rest(&mut self) -> bool {
        let fired = self.fired;
        *self = Judge::new(self.terms, false);
        fired
    }

    /// True if nothing can be seen.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        self.unseen_since.is_some()
    }
}

/// A duration in whole seconds, where it has any.
fn shown(duration: Duration) -> HumanDuration {
    HumanDuration(if duration.as_secs() > 0 { Duration::from_secs(duration.as_secs()) } else { duration })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        every: Duration::from_secs(1),
        bad_for: Duration::from_secs(10),
        quiet_for: Duration::from_secs(30),
        unseen_for: Duration::from_secs(60),
    };

    /// What a row of looks (`b`ad, `g`ood, `?` unseen, `-` nothing), one a second, led to: at which second.
    fn ruled(terms: Terms, fired: bool, looks: &str) -> Vec<(usize, &'static str)> {
        let began = Instant::now();
        let mut judge = Judge::new(terms, fired);
        let mut rulings = Vec::new();
        for (second, look) in looks.chars().enumerate() {
            let look = match look {
                'b' => Ok(Look::Fails("b".to_owned())),
                'g' => Ok(Look::Holds("g".to_owned())),
                '-' => Ok(Look::Nothing("-".to_owned())),
                _ => Err(Unseen("?".to_owned())),
            };
            match judge.rule(began + Duration::from_secs(second as u64), &look) {
                Some(Ruling::Fires(_)) => rulings.push((second, "fires")),
                Some(Ruling::Quiet(_)) => rulings.push((second, "quiet")),
                None => {}
            }
        }
        rulings
    }

    #[test]
    fn it_fires_once_and_is_quiet_once() {
        let looks = format!("gg{}{}{}", "b".repeat(20), "g".repeat(40), "b".repeat(11));
        assert_eq!(ruled(TERMS, false, &looks), [(12, "fires"), (52, "quiet"), (72, "fires")]);
        let at_once = Terms { bad_for: Duration::ZERO, ..TERMS };
        assert_eq!(ruled(at_once, false, "gbb"), [(1, "fires")]);
    }

    #[test]
    fn what_swings_neither_fires_nor_is_over() {
        assert_eq!(ruled(TERMS, false, &"bbbbbbbbbg".repeat(10)), []);
        assert_eq!(ruled(TERMS, true, &"gggggggggb".repeat(10)), []);
    }

    #[test]
    fn what_is_not_seen_is_not_taken_for_good() {
        // It ends no row of bad looks, and breaks a row of good ones.
        assert_eq!(ruled(TERMS, false, "b?????????b"), [(10, "fires")]);
        assert_eq!(ruled(TERMS, true, &format!("{}?{}", "g".repeat(29), "g".repeat(31))), [(60, "quiet")]);
        // By itself it fires in the end, and an answer in between begins it anew.
        assert_eq!(ruled(TERMS, false, &"?".repeat(70)), [(60, "fires")]);
        assert_eq!(ruled(TERMS, false, &format!("{}g{}", "?".repeat(59), "?".repeat(59))), []);
    }

    #[test]
    fn where_there_is_nothing_to_see_nothing_fires() {
        assert_eq!(ruled(TERMS, false, &"-".repeat(100)), []);
        assert_eq!(ruled(TERMS, true, "-"), [(0, "quiet")]);
        assert_eq!(ruled(TERMS, false, "bbbbb-bbbbbbbbb"), []);
    }

    #[test]
    fn a_guard_that_rests_begins_anew() {
        let mut judge = Judge::new(TERMS, true);
        assert!(judge.rest() && !judge.rest());
        assert_eq!(judge.rule(Instant::now(), &Ok(Look::Holds(String::new()))), None);
    }

    #[test]
    fn the_playbooks_durations_or_the_defaults() {
        let spec = |more: serde_json::Value| -> GuardSpec {
            let mut spec = serde_json::json!({ "id": "g", "watch": "w", "then": "pause" });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(spec).unwrap()
        };
        let terms = Terms::of(&spec(serde_json::json!({})));
        let defaults =
            Terms { every: DEFAULT_EVERY, bad_for: Duration::ZERO, quiet_for: DEFAULT_QUIET_FOR, unseen_for: DEFAULT_UNSEEN_FOR };
        assert_eq!(terms, defaults);
        let terms = Terms::of(&spec(serde_json::json!({ "for": "1h", "every": "1s" })));
        assert_eq!((terms.bad_for.as_secs(), terms.unseen_for.as_secs(), terms.every.as_secs()), (3600, 3600, 1));
    }
}
