//! The step `traffic.file`: the switch by a file that clients, or their proxy, read.
//!
//! # What must hold
//!
//! * A rehearsal never touches the production path: it writes to `rehearsal_path`, or to the path with `.rehearsal`
//!   behind it, and is refused if that turns out to be the same file.
//! * What was there before is a checkpoint before the first effect, and is never overwritten by a later attempt: so
//!   undo brings back exactly that, its mode and owner included, or removes a file that was not there.
//! * Only what dbmove wrote itself is ever replaced after that. A content that is neither what was there before nor
//!   ours is somebody else's doing; the step stops and shows both.
//!
//! How the file is replaced is in [`route`](super::route).

use std::path::PathBuf;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::{RouteContent, RouteError, RouteFile};
use crate::engine::context::{RunKind, StepContext};
use crate::engine::step::{Estimate, Failure, Output, Plan, Probe, Step, StepError, Undoable};
use crate::hook::message::printable;

/// What `traffic.file` can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileArguments {
    /// The route file. Its directory has to be there; a symbolic link is refused.
    pub path: PathBuf,
    /// What the file holds once the target serves, to the byte: `"10.0.0.5:3306\n"`.
    pub content: String,
    /// The file a rehearsal writes instead. Default: the path with `.rehearsal` behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_path: Option<PathBuf>,
    /// What a rehearsal writes: the rehearsal's target, without which no canary can follow the rehearsed switch. Default: `content`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal_content: Option<String>,
}

impl FileArguments {
    /// The file that a run of this kind writes: the canary reads the same one.
    #[must_use]
    pub fn route(&self, kind: RunKind) -> RouteFile {
        route_of(&self.path, self.rehearsal_path.as_ref(), kind)
    }

    /// What a run of this kind writes into it.
    fn content(&self, kind: RunKind) -> &str {
        match (kind, &self.rehearsal_content) {
            (RunKind::Rehearsal, Some(content)) => content,
            (RunKind::Rehearsal, None) | (RunKind::Production, _) => &self.content,
        }
    }
}

/// The route file of a rehearsal or a production run.
#[must_use]
pub(super) fn route_of(path: &std::path::Path, rehearsal_path: Option<&PathBuf>, kind: RunKind) -> RouteFile {
    match kind {
        RunKind::Production => RouteFile::new(path),
        RunKind::Rehearsal => RouteFile::new(rehearsal_path.cloned().unwrap_or_else(|| {
            let mut beside = path.as_os_str().to_owned();
            beside.push(".rehearsal");
            PathBuf::from(beside)
        })),
    }
}

/// The checkpoint: what the step found and what it may have written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// `None`: the file was not there.
    previous: Option<RouteContent>,
    /// Every content this run's attempts may have put there, in hexadecimal.
    written: Vec<String>,
}

/// Under which [`Kept`] is saved; `null` once undone.
const CHECKPOINT: &str = "route";
/// How much of a content is shown.
const SHOWN: usize = 200;

/// The step `traffic.file`.
pub struct TrafficFile {
    arguments: FileArguments,
}

/// What stands in the file, seen from this step.
enum Standing {
    Ours,
    Before,
    Foreign(String),
}

impl TrafficFile {
    /// The name in a playbook.
    pub const NAME: &'static str = "traffic.file";

    /// From the arguments, references resolved.
    ///
    /// # Errors
    /// If a path is empty or relative, or a rehearsal would write the production path.
    pub fn new(arguments: FileArguments) -> Result<Self, StepError> {
        for (argument, path) in [("path", Some(&arguments.path)), ("rehearsal_path", arguments.rehearsal_path.as_ref())] {
            if let Some(path) = path.filter(|path| !path.is_absolute()) {
                return Err(StepError::definite(format!("`{argument}` has to be a full path, `{}` is not", path.display()))
                    .hint("a relative path would mean another file wherever dbmove is started"));
            }
        }
        let step = TrafficFile { arguments };
        step.refuse_production(RunKind::Rehearsal)?;
        Ok(step)
    }

    /// Refuses a rehearsal path that is the production path, by whatever name.
    fn refuse_production(&self, kind: RunKind) -> Result<(), StepError> {
        let production = self.arguments.route(RunKind::Production);
        if kind == RunKind::Rehearsal && self.arguments.route(kind).same_as(&production) {
            return Err(StepError::new(
                Failure::Refused,
                format!("`rehearsal_path` is the production route file `{}`. Nothing was touched", production.path().display()),
            )
            .hint("name another file, or leave `rehearsal_path` out"));
        }
        Ok(())
    }

    /// The file of this run, ready to be handed to a blocking task.
    fn file(&self, context: &StepContext) -> Result<RouteFile, StepError> {
        self.refuse_production(context.kind)?;
        Ok(self.arguments.route(context.kind))
    }

    fn kept(context: &StepContext) -> Result<Option<Kept>, StepError> {
        match context.load_checkpoint(CHECKPOINT)? {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|error| {
                StepError::definite(format!("the checkpoint `{CHECKPOINT}` of `{}` can't be read: {error}", context.step))
            }),
        }
    }

    fn keep(context: &StepContext, kept: Option<&Kept>) -> Result<(), StepError> {
        let value = serde_json::to_value(kept)
            .map_err(|error| StepError::definite(format!("the checkpoint of `{}` can't be written as JSON: {error}", context.step)))?;
        context.save_checkpoint(CHECKPOINT, &value)
    }

    /// Whose content `now` is, given what was kept before the first effect.
    fn standing(&self, kept: &Kept, now: Option<&RouteContent>, file: &RouteFile, kind: RunKind) -> Standing {
        let bytes = now.map(|now| now.bytes.as_slice());
        // What was there before comes first: where both are equal there is nothing to do either way.
        if bytes == kept.previous.as_ref().map(|previous| previous.bytes.as_slice()) {
            return Standing::Before;
        }
        if bytes.is_some_and(|bytes| bytes == self.arguments.content(kind).as_bytes() || kept.written.contains(&hex::encode(bytes))) {
            return Standing::Ours;
        }
        Standing::Foreign(format!(
            "the route file `{}` holds {}; dbmove writes {}, before it was {}",
            file.path().display(),
            shown(bytes),
            shown(Some(self.arguments.content(kind).as_bytes())),
            shown(kept.previous.as_ref().map(|previous| previous.bytes.as_slice())),
        ))
    }
}

/// A content for a person: quoted, printable, cut where it is long.
fn shown(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "nothing (it is not there)".to_owned() };
    let text = String::from_utf8_lossy(bytes);
    let start: String = text.chars().take(SHOWN).collect();
    let rest = if start.len() < text.len() { format!(" … ({} bytes)", bytes.len()) } else { String::new() };
    format!("\"{}\"{rest}", printable(&start))
}

/// Runs a file operation where it may block.
async fn blocking<T: Send + 'static>(action: impl FnOnce() -> Result<T, RouteError> + Send + 'static) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(action).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(StepError::transient(format!("the file operation was interrupted: {error}"))),
    }
}

#[async_trait]
impl Step for TrafficFile {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn undoable(&self) -> Undoable {
        Undoable::Yes
    }

    async fn plan(&self, context: &StepContext) -> Result<Plan, StepError> {
        let file = self.file(context)?;
        let looked = file.clone();
        let now = blocking(move || looked.check_writable().and_then(|()| looked.read())).await?;
        let now = now.as_ref().map(|now| now.bytes.as_slice());
        let mut plan = Plan::default();
        plan.lines.push(format!("replace `{}`, now {}", file.path().display(), shown(now)));
        plan.lines.push(format!("with {}", shown(Some(self.arguments.content(context.kind).as_bytes()))));
        if now == Some(self.arguments.content(context.kind).as_bytes()) {
            plan.warnings.push(format!("`{}` holds the new content already", file.path().display()));
        }
        Ok(plan)
    }

    async fn estimate(&self, _: &StepContext) -> Result<Estimate, StepError> {
        Ok(Estimate::Instant)
    }

    async fn run(&self, context: &StepContext) -> Result<Output, StepError> {
        context.check_cancelled()?;
        let file = self.file(context)?;
        let looked = file.clone();
        let now = blocking(move || looked.check_writable().and_then(|()| looked.read())).await?;
        let content = self.arguments.content(context.kind).as_bytes().to_vec();
        let mut kept = match Self::kept(context)? {
            Some(kept) => {
                if let Standing::Foreign(found) = self.standing(&kept, now.as_ref(), &file, context.kind) {
                    return Err(StepError::definite(format!("{found}. It was left as it is"))
                        .hint("find out who wrote it; put one of the two contents there and run it again"));
                }
                kept
            }
            None => Kept { previous: now.clone(), written: Vec::new() },
        };
        let ours = hex::encode(&content);
        if !kept.written.contains(&ours) {
            kept.written.push(ours);
        }
        Self::keep(context, Some(&kept))?;
        let output =
            Output::default().fact("path", file.path().display().to_string()).fact("content", self.arguments.content(context.kind));
        context.save_output(&output)?;
        if now.is_none_or(|now| now.bytes != content) {
            blocking(move || file.write(&content)).await?;
        }
        Ok(output)
    }

    async fn probe(&self, context: &StepContext) -> Result<Probe, StepError> {
        let file = self.file(context)?;
        let looked = file.clone();
        let now = blocking(move || looked.read()).await?;
        if now.as_ref().is_some_and(|now| now.bytes == self.arguments.content(context.kind).as_bytes()) {
            return Ok(Probe::Done);
        }
        // Without a checkpoint this step never wrote: whatever stands there is where it begins.
        let Some(kept) = Self::kept(context)? else { return Ok(Probe::NotStarted) };
        Ok(match self.standing(&kept, now.as_ref(), &file, context.kind) {
            Standing::Before | Standing::Ours => Probe::NotStarted,
            Standing::Foreign(found) => Probe::Foreign { found },
        })
    }

    async fn undo(&self, context: &StepContext) -> Result<(), StepError> {
        let Some(kept) = Self::kept(context)? else { return Ok(()) };
        let file = self.file(context)?;
        let looked = file.clone();
        let now = blocking(move || looked.read()).await?;
        match self.standing(&kept, now.as_ref(), &file, context.kind) {
            Standing::Before => {}
            Standing::Ours => {
                let previous = kept.previous.clone();
                blocking(move || file.restore(previous.as_ref())).await?;
            }
            Standing::Foreign(found) => {
                return Err(StepError::definite(format!("{found}. It was not put back, so as not to overwrite somebody else's route"))
                    .hint("look at the file: where clients go now is not what dbmove set"));
            }
        }
        // A later run of the step begins anew.
        Self::keep(context, None)
    }
}
