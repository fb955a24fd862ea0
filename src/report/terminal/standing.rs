//! Where a run stands, as text for a terminal: who drives it, what waits, and what a driver that is gone has left held.

use std::fmt::Write as _;

use super::{Text, outcome_word, serving_words, state_word};
use crate::engine::held::Hold;
use crate::report::held;
use crate::report::model::StepState;
use crate::report::status::{LeftHeld, Lifted, Presence, RunStatus};
use crate::telemetry::human;
use crate::telemetry::printable::{printable, shortened};

/// What a driver that is gone has left of its hold, and who lifts that. `undo` is the command that goes back before the switch.
fn left_held(left: &LeftHeld, undo: &str) -> String {
    let since = format!("{:.0}", left.since);
    let ended = if left.silent { "fell silent" } else { "ended" };
    let (server, hold, go) = match left.rolling_back {
        true => ("target", Hold::Target, "go on at once with the command below".to_owned()),
        false => ("source", Hold::Source, format!("go on at once with the command below, or back with\n`{undo}`")),
    };
    let by_hand = held::by_hand(hold);
    match left.lifted {
        Lifted::Itself { at, seconds } if seconds > 0.0 => format!(
            "WRITES WERE HELD when its driver {ended}, since {since}\nthe {server} lifts that by itself at about {at:.0}, in {}",
            human::seconds(seconds)
        ),
        Lifted::Itself { at, .. } => format!(
            "writes were held when its driver {ended}, since {since}\nthe {server} was to lift that by itself at about {at:.0}\nthe command below makes sure of \
             it, and settles the rest"
        ),
        Lifted::Proxy => format!(
            "clients were held at HAProxy when its driver {ended}, since {since}\nthey are served by the {server} since, a few at a time\nthe command below lets \
             all of them in"
        ),
        Lifted::Driver => format!("writes were held since {since}\nthey were let through again before its driver {ended}"),
        Lifted::Nobody => {
            format!(
                "WRITES ARE HELD since {since}, and its driver {ended}\nit was about to switch: nothing lifts that by itself\n{go}\n{by_hand}"
            )
        }
        Lifted::Unknown => {
            format!(
                "WRITES WERE HELD when its driver {ended}, since {since}\nwhether anything lifts that by itself is not known\n{go}\n{by_hand}"
            )
        }
    }
}

/// Where a run stands, in a few lines.
#[must_use]
pub fn status(status: &RunStatus) -> String {
    let mut text = Text(String::new());
    text.block("", &format!("{}: {}", outcome_word(status.outcome), status.sentence));
    text.line(format!("  run       {} ({} of `{}`)", printable(&status.run), status.kind, printable(&status.playbook)));
    text.line(format!("  traffic   {}", serving_words(status.serving)));
    if let Some(driver) = &status.driver {
        let presence = match driver.liveness {
            Presence::Alive => "alive",
            Presence::AliveElsewhere => "alive, on another machine or in another container",
            Presence::Silent => "SILENT: no sign of life",
            Presence::Gone => "GONE",
            Presence::Released => "ended",
        };
        text.line(format!("  driver    process {} on `{}`, epoch {}: {presence}", driver.pid, printable(&driver.host), driver.epoch));
    }
    if let Some((deadline, left)) = &status.deadline {
        let left = if *left < 0.0 { format!("{} over", human::seconds(-left)) } else { format!("{} left", human::seconds(*left)) };
        text.line(format!("  deadline  {}: {left}", printable(deadline)));
    }
    match (&status.left_held, status.writes_held_seconds) {
        (Some(left), _) => text.block("  ", &left_held(left, &status.undo)),
        (None, Some(held)) => text.line(format!("  WRITES ARE HELD, for {}", human::seconds(held))),
        (None, None) => {}
    }
    for told in status.control.lines() {
        text.block("  ", &told);
    }
    for told in status.guards.lines(&status.rollback) {
        text.block("  ", &told);
    }
    for step in &status.steps {
        let mut line = format!(
            "  {:8}  {:16}  {:18}  {:11}",
            step.stage,
            shortened(&printable(&step.step), 16),
            shortened(&printable(&step.name), 18),
            state_word(step.state)
        );
        if let Some(seconds) = step.seconds {
            let _ = write!(line, "  {}", human::seconds(seconds));
        }
        if let Some(lag) = step.figures.get("lag_seconds").filter(|_| matches!(step.state, StepState::Running | StepState::Ready)) {
            let _ = write!(line, "  lag {}", human::seconds(*lag));
        }
        text.line(line);
        if let Some(error) = &step.error {
            text.block("            ", error);
        }
        for left in &step.left {
            text.block("            left: ", left);
        }
    }
    text.0
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::block;
    use super::*;

    #[test]
    fn what_a_dead_driver_left_held_is_said_within_eighty_columns() {
        let moment = |text: &str| text.parse::<Timestamp>().unwrap();
        let at = moment("2026-11-29T11:17:11Z");
        let said = |lifted, rolling_back, silent| {
            let left = LeftHeld { since: moment("2026-11-29T11:16:26.4Z"), lifted, rolling_back, silent };
            block("  ", &left_held(&left, "dbmove undo shop.yaml"))
        };
        let all = [
            said(Lifted::Itself { at, seconds: 12.0 }, false, false),
            said(Lifted::Itself { at, seconds: 44.0 }, true, true),
            said(Lifted::Itself { at, seconds: -700.0 }, false, false),
            said(Lifted::Proxy, false, false),
            said(Lifted::Driver, false, false),
            said(Lifted::Nobody, false, false),
            said(Lifted::Nobody, true, false),
            said(Lifted::Unknown, false, false),
        ];
        let text = format!("\n{}", all.concat());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert_eq!(
            text,
            "
  WRITES WERE HELD when its driver ended, since 2026-11-29T11:16:26Z
      the source lifts that by itself at about 2026-11-29T11:17:11Z, in 12s
  WRITES WERE HELD when its driver fell silent, since 2026-11-29T11:16:26Z
      the target lifts that by itself at about 2026-11-29T11:17:11Z, in 44s
  writes were held when its driver ended, since 2026-11-29T11:16:26Z
      the source was to lift that by itself at about 2026-11-29T11:17:11Z
      the command below makes sure of it, and settles the rest
  clients were held at HAProxy when its driver ended, since 2026-11-29T11:16:26Z
      they are served by the source since, a few at a time
      the command below lets all of them in
  writes were held since 2026-11-29T11:16:26Z
      they were let through again before its driver ended
  WRITES ARE HELD since 2026-11-29T11:16:26Z, and its driver ended
      it was about to switch: nothing lifts that by itself
      go on at once with the command below, or back with
      `dbmove undo shop.yaml`
      last resort, where dbmove can't be run: look where clients are pointed;
      only if none is on the target: `SET GLOBAL read_only = 0` on the source
  WRITES ARE HELD since 2026-11-29T11:16:26Z, and its driver ended
      it was about to switch: nothing lifts that by itself
      go on at once with the command below
      last resort, where dbmove can't be run: look where clients are pointed;
      only if none is on the source: `SET GLOBAL read_only = 0` on the target,
      or, of accounts that were locked there, `ALTER USER … ACCOUNT UNLOCK`
  WRITES WERE HELD when its driver ended, since 2026-11-29T11:16:26Z
      whether anything lifts that by itself is not known
      go on at once with the command below, or back with
      `dbmove undo shop.yaml`
      last resort, where dbmove can't be run: look where clients are pointed;
      only if none is on the target: `SET GLOBAL read_only = 0` on the source
"
        );
    }
}
