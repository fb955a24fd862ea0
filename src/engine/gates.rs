//! What may be started and what has to be given up: drift, certificate, deadline, write gap.
//!
//! Everything that says no before anything is touched is asked here, in this order: has the playbook changed, does the rehearsal still
//! speak for today, does what remains fit into the time. And while a run is under way, the clocks. The arithmetic is in
//! [`budget`](super::budget) and [`certificate`](super::certificate); this is where a run's state is put into it.

use std::time::Duration;

use jiff::Timestamp;

use super::beforehand;
use super::budget::{self, Budget, Remaining};
use super::certificate::{self, Certificate, Facts, Measured, Today};
use super::context::RunKind;
use super::crash;
use super::deadline::{Attempt, Counts, KeptDeadline};
use super::driver::{Driver, Stop};
use super::execute::pause;
use super::journal::{Event, Rollback};
use super::outcome::Verdict;
use super::run::{BuiltStep, EngineError, Rehearsed, undo_reserve};
use super::step::{Estimate, Failure, StepError};
use crate::playbook::model::StageName;
use crate::playbook::quantity::HumanDuration;

/// How to give another deadline than the one that stands.
const OTHER_WORDS: &str =
    "The same words mean the same moment; others give another deadline from now on, such as `--deadline 18h` or a moment with its date";

impl Driver {
    /// What a gate that says no has left: nothing, or what this driver undid on its way there of what an earlier one had begun.
    pub(super) fn untouched(&self) -> String {
        if self.undone.is_empty() {
            return "nothing was touched".to_owned();
        }
        let steps: Vec<String> = self.undone.iter().map(|step| format!("`{step}`")).collect();
        format!("what an earlier driver had begun was undone first ({}); nothing else was touched", steps.join(", "))
    }

    pub(super) async fn check_drift(&mut self) -> Result<(), Stop> {
        let state = self.journal.state();
        let changes = state
            .fingerprint
            .check(&self.fingerprint, &state.run, &state.begun(), self.request.accept_drift)
            .map_err(|error| Stop::Engine(error.into()))?;
        // A description that changed is no change of a step, but approvals and certificates go by the whole.
        if !changes.is_empty() || state.plan != self.graph.plan() || state.fingerprint.whole != self.fingerprint.whole {
            let (fingerprint, steps) = (self.fingerprint.clone(), self.graph.plan());
            self.journal.append(Event::PlaybookAccepted { fingerprint, changes, steps }).await?;
        }
        Ok(())
    }

    /// Whether the steps that will hold writes, in the cutover or in a rollback, can go by how long that may be in this run.
    pub(super) fn check_write_gap(&self) -> Result<(), Stop> {
        let switched = self.journal.with_state(super::journal::RunState::switched);
        let holds = |built: &&BuiltStep| match self.request.roll_back {
            true => built.step.keeps_way_back(),
            false => built.stage <= self.request.until && !switched,
        };
        for built in self.graph.steps.iter().filter(holds) {
            if let Err(error) = built.step.check_write_gap(self.request.max_write_gap) {
                let reasons = vec![format!("{}; {}", error.message, self.untouched())];
                return Err(Stop::Verdict(Verdict::Refused { step: Some(built.spec.id.clone()), reasons, hint: error.hint }));
            }
        }
        Ok(())
    }

    /// Says that the limit given with the command counts, and not the one that a person has set.
    pub(super) async fn tell_write_gap(&self) -> Result<(), Stop> {
        let set = self.journal.with_state(|state| state.control.max_write_gap());
        if let Some(set) = set.filter(|set| *set != self.request.max_write_gap) {
            let (here, set) = (HumanDuration(self.request.max_write_gap), HumanDuration(set));
            let text =
                format!("`max_write_gap` is {here} here, as given with the command, and not the {set} that were set by `dbmove ctl`");
            tracing::warn!("{text}");
            self.journal.append(Event::Note { step: None, text }).await?;
        }
        Ok(())
    }

    /// Why a step can't go by another limit, if so.
    pub(super) fn refuses_write_gap(&self, max_write_gap: Duration) -> Option<String> {
        let checked = self.graph.steps.iter().map(|built| (built, built.step.check_write_gap(max_write_gap)));
        checked.into_iter().find_map(|(built, checked)| Some(format!("step `{}`: {}", built.spec.id, checked.err()?.message)))
    }

    /// True while the cutover still lies ahead and is asked for.
    pub(super) fn cutover_ahead(&self) -> bool {
        self.journal.with_state(|state| beforehand::cutover_ahead(&self.request, &self.graph, state))
    }

    pub(super) fn certificate(&self) -> Option<&Certificate> {
        match &self.request.rehearsed {
            Rehearsed::Certificate(certificate) => certificate.as_deref(),
            Rehearsed::Without { .. } => None,
        }
    }

    /// The facts to hold a certificate against, of steps that are done: as they are now where a step can tell, else as it told them then.
    async fn facts_today(&self, certificate: &Certificate) -> Result<Facts, Stop> {
        let mut facts = certificate::facts_of(&self.journal.with_state(super::journal::RunState::outputs));
        for id in certificate.bound_steps() {
            let (Some(told), Some(index)) = (facts.get_mut(id), self.graph.index(id)) else { continue };
            let (context, step) = (self.context(index, 1), self.graph.steps[index].step.clone());
            let mut failures = 0;
            let today = loop {
                let asked = tokio::select! {
                    asked = step.facts_today(&context) => asked,
                    () = self.cancel.cancelled() => return Err(Stop::Verdict(Verdict::Interrupted)),
                };
                match asked {
                    Err(error) if error.failure == Failure::Transient && failures < self.retries(index) => {
                        failures += 1;
                        tokio::time::sleep(pause(&self.request.limits, failures)).await;
                    }
                    asked => break asked,
                }
            };
            let failed = |error: StepError| {
                let message = format!("whether the certificate holds today can't be seen: {}; writes were not held", error.message);
                Stop::Verdict(Verdict::of_failure(id, &StepError { message, ..error }))
            };
            told.extend(today.map_err(failed)?.into_iter().flatten());
        }
        Ok(facts)
    }

    /// Whether the rehearsal still speaks for today; asked at the start and when `cutover` begins, by then with all facts.
    pub(super) async fn check_certificate(&mut self, entering: bool) -> Result<(), Stop> {
        if self.request.kind == RunKind::Rehearsal || !self.cutover_ahead() {
            return Ok(());
        }
        let left = if entering { "writes were not held, and nothing was switched".to_owned() } else { self.untouched() };
        let refuse =
            |reasons: Vec<String>| Err(Stop::Verdict(Verdict::Refused { step: None, reasons, hint: Some(certificate::what_to_do(&left)) }));
        match self.request.rehearsed.clone() {
            Rehearsed::Without { reason } => {
                if self.journal.with_state(|state| !state.unrehearsed || state.without_rehearsal.as_ref() != Some(&reason)) {
                    self.journal.append(Event::WithoutRehearsal { reason }).await?;
                }
                Ok(())
            }
            Rehearsed::Certificate(None) => refuse(vec![certificate::none_of(&self.request.playbook.playbook)]),
            Rehearsed::Certificate(Some(certificate)) => {
                let facts = self.facts_today(&certificate).await?;
                let today = Today { fingerprint: self.fingerprint.clone(), facts, max_write_gap: Some(self.request.max_write_gap) };
                let reasons = certificate::check(&certificate, &today, Timestamp::now());
                if !reasons.is_empty() {
                    return refuse(reasons.iter().map(ToString::to_string).collect());
                }
                if entering {
                    self.journal.append(Event::CertificateAccepted { certificate: certificate.hash }).await?;
                }
                Ok(())
            }
        }
    }

    /// The deadline to go by, as [`deadline`](super::deadline) decides; given now, or kept from an earlier driver.
    async fn deadline(&mut self, bounds: bool) -> Result<Option<KeptDeadline>, Stop> {
        let now = Timestamp::now();
        let (kept, set) = self.journal.with_state(|state| (state.deadline.clone(), state.control.deadline_stands_for().map(str::to_owned)));
        let asked = self.request.deadline.clone();
        let typed = asked.as_ref().filter(|_| self.request.deadline_typed).map(|asked| asked.text.clone());
        let counts = |kept: &KeptDeadline| kept.counts(typed.as_deref(), set.as_deref(), now);
        if asked.is_none() && self.request.until < StageName::Cutover {
            if let Some(kept) = kept.filter(|kept| counts(kept) == Counts::Still) {
                let text = format!(
                    "the deadline `{}`, {:.0}, is left to the cutover: this driver ends before it and goes by none",
                    kept.text, kept.until
                );
                self.journal.append(Event::Note { step: None, text }).await?;
            }
            return Ok(None);
        }
        match (kept.as_ref().map_or(Counts::Not, counts), kept) {
            (Counts::Still, kept) => Ok(kept),
            (Counts::Passed, Some(kept)) if bounds => Err(Stop::Verdict(Verdict::Refused {
                step: None,
                reasons: vec![format!(
                    "the deadline `{}`, given at {:.0}, was {:.0}: it has passed, and the driver that worked towards it died",
                    kept.text, kept.given, kept.until
                )],
                hint: Some(format!("{}. {OTHER_WORDS}", self.untouched())),
            })),
            _ => match asked {
                Some(asked) => {
                    self.journal.append(Event::DeadlineSet { text: asked.text.clone(), until: asked.until }).await?;
                    Ok(Some(KeptDeadline::given(&asked.text, asked.until, now)))
                }
                None => Ok(None),
            },
        }
    }

    /// Takes the deadline on, forecasts, and refuses if it can't be kept. Nothing is touched yet.
    pub(super) async fn set_deadline(&mut self) -> Result<(), Stop> {
        let bounds = self.more_to_do_besides_following() && !self.journal.with_state(super::journal::RunState::switched);
        let deadline = self.deadline(bounds).await?;
        self.budget = deadline.as_ref().map(|deadline| Budget::start(deadline.until, Timestamp::now()));
        self.expect(deadline.is_some()).await;
        let Some(deadline) = deadline else { return Ok(()) };
        let forecast = self.forecast();
        self.observer.forecast(&forecast);
        self.journal.append(Event::Forecast { forecast: forecast.clone() }).await?;
        match forecast.refusal() {
            Some(reason) if bounds => {
                let KeptDeadline { text, until, given, attempt, .. } = deadline;
                let left = self.untouched();
                let (since, hint) = match attempt {
                    Attempt::Given => (String::new(), format!("give a later deadline, or more hours; {left}")),
                    _ => (format!(", given at {given:.0}"), format!("{left}. {OTHER_WORDS}")),
                };
                let reasons = vec![format!("{reason} until {until:.0} (the deadline `{text}`{since})")];
                Err(Stop::Verdict(Verdict::Refused { step: None, reasons, hint: Some(hint) }))
            }
            _ => Ok(()),
        }
    }

    /// What every step is expected to take. Without a deadline nobody is asked.
    pub(super) async fn expect(&mut self, deadline: bool) {
        let mut expected = Vec::new();
        for index in 0..self.graph.steps.len() {
            let built = &self.graph.steps[index];
            let asked_for = built.stage <= self.request.until;
            let rehearsed =
                self.certificate().and_then(|certificate| certificate.measured.get(&built.spec.id)).map(|measured| measured.seconds);
            let estimate = if asked_for && deadline && !self.is_satisfied_on_disk(index) {
                let context = self.context(index, 1);
                built.step.estimate(&context).await.unwrap_or_else(|error| Estimate::Unknown(error.message))
            } else {
                Estimate::Unknown("no deadline".to_owned())
            };
            expected.push(Remaining { asked_for, ..Remaining::expected(&estimate, rehearsed) });
        }
        self.expected = expected;
    }

    pub(super) fn undo_reserve(&self) -> Duration {
        if !self.cutover_ahead() {
            return Duration::ZERO;
        }
        let to_stop = (0..self.graph.steps.len()).filter(|index| {
            let asked_for = self.expected.get(*index).is_none_or(|expected| expected.asked_for);
            asked_for && (self.running.contains_key(index) || !self.is_satisfied_on_disk(*index))
        });
        undo_reserve(self.certificate(), self.request.margin, self.slower()) + budget::stopping(&self.graph, to_stop)
    }

    /// How much slower than expected steps were and are. How long a person takes to say yes tells nothing.
    fn slower(&self) -> f64 {
        let took = |index: usize, id: &str| match self.running.get(&index) {
            Some(running) => (!*running.ready.borrow()).then(|| running.started.elapsed().as_secs_f64()),
            None => self.journal.with_state(|state| state.step(id).seconds),
        };
        let works = |index: usize| self.graph.steps[index].step.question().is_none();
        let expected = self.expected.iter().enumerate().filter(|(index, expected)| !expected.done && works(*index));
        budget::slower(expected.filter_map(|(index, expected)| {
            let (expected, took) = (expected.seconds?, took(index, self.graph.id(index))?);
            // One that runs may have most of its time before it.
            Some(if self.running.contains_key(&index) { (expected.min(took), took) } else { (expected, took) })
        }))
    }

    pub(super) fn forecast(&self) -> budget::Forecast {
        let remaining: Vec<Remaining> = (0..self.graph.steps.len())
            .map(|index| {
                let expected = self.expected.get(index).cloned().unwrap_or_else(Remaining::done);
                if self.is_satisfied_on_disk(index) && self.running.get(&index).is_none_or(|running| *running.ready.borrow()) {
                    return Remaining { asked_for: expected.asked_for, ..Remaining::done() };
                }
                match self.running.get(&index) {
                    Some(running) => expected.running(&running.progress.borrow(), running.started.elapsed()),
                    None => expected,
                }
            })
            .collect();
        let left = self.budget.as_ref().map(Budget::left);
        budget::forecast(&self.graph, &remaining, self.request.margin, self.undo_reserve(), left)
    }

    /// Why to give up for lack of time, if so.
    pub(super) fn check_budgets(&mut self) -> Result<(), Stop> {
        if let Some(held) = self.write_gap.map(|started| started.elapsed())
            && held > self.request.max_write_gap
        {
            let limit_seconds = self.request.max_write_gap.as_secs_f64();
            return Err(Stop::Verdict(Verdict::WriteGapExceeded { limit_seconds, held_seconds: held.as_secs_f64() }));
        }
        let reserve = self.undo_reserve();
        match self.budget.as_ref().and_then(|budget| budget.hard_line(reserve)) {
            Some(message) => Err(Stop::Verdict(Verdict::DeadlineMissed { message })),
            None => Ok(()),
        }
    }

    /// What a rehearsal that was undone leaves behind.
    pub(super) async fn certify(&mut self) -> Result<Verdict, Stop> {
        let state = self.journal.state();
        if !state.not_undone.is_empty() {
            let steps = state.not_undone.keys().map(|step| format!("`{step}`")).collect::<Vec<_>>().join(", ");
            let message = format!("the rehearsal ran through, but {steps} could not be undone, so it does not count");
            return Ok(Verdict::Failed {
                step: None,
                message,
                hint: Some("see why, clean the rehearsal copies up, and rehearse again".to_owned()),
            });
        }
        if state.certificate.is_none() {
            let issued = Timestamp::now();
            let head = self.journal.journal().reader().and_then(|reader| reader.head())?;
            let outputs = state.outputs();
            let measured = state.steps.iter().filter_map(|(id, step)| {
                Some((id.clone(), Measured { seconds: step.seconds?, work: outputs.get(id).and_then(|output| output.work.clone()) }))
            });
            let in_cutover = |id: &str| self.graph.index(id).is_some_and(|index| self.graph.steps[index].stage == StageName::Cutover);
            let certificate = Certificate {
                run: state.run.clone(),
                playbook: state.playbook.clone(),
                playbook_hash: self.fingerprint.whole.clone(),
                fingerprint: Some(self.fingerprint.clone()),
                facts: certificate::facts_of(&outputs),
                measured: measured.collect(),
                write_gap_seconds: state.write_gap.as_ref().and_then(|gap| gap.seconds),
                rollback_seconds: state.rollback.as_ref().and_then(Rollback::seconds),
                rollback_write_gap_seconds: state.rollback.as_ref().and_then(|rollback| rollback.write_gap.as_ref()?.seconds),
                undo_seconds: state.steps.iter().filter(|(id, _)| in_cutover(id)).filter_map(|(_, step)| step.undo_seconds).sum(),
                load: state.load.as_ref().map(super::load::LoadReport::certified),
                issued,
                expires: Certificate::expiry(issued, self.request.certificate_lifetime),
                journal_head: head.hash,
                hash: String::new(),
            };
            let certificate = certificate
                .seal()
                .map_err(|error| Stop::Engine(EngineError::Playbook(format!("the certificate can't be written: {error}"))))?;
            self.journal.append(Event::CertificateIssued { certificate: Box::new(certificate) }).await?;
            crash::point("certificate.issued");
        }
        Ok(Verdict::Done { until: self.request.until })
    }
}
