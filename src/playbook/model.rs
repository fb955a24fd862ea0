//! The playbook's model: what the YAML file can say, and what each field means.
//!
//! The JSON Schema that editors use is generated from these types, so their doc comments are the
//! format's reference. Nothing here is resolved: texts that may hold `${…}` references are
//! [`Template`]s and are resolved at use, so that a secret never lies in the model.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity::{HumanDuration, HumanRate};

/// A text that may hold `${env:…}`, `${file:…}`, `${exec:…}` or `${step:ID.output}` references.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = super::reference::TEMPLATE_FORMAT))]
pub struct Template(pub String);

/// A duration as people write it: `16h`, `30s`, `250ms`, `1h30m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = super::quantity::DURATION_FORMAT, "pattern" = super::quantity::DURATION_PATTERN))]
pub struct DurationText(pub String);

/// A size as people write it: `4MiB`, `512KiB`, `1GiB`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(extend("format" = super::quantity::SIZE_FORMAT, "pattern" = super::quantity::SIZE_PATTERN))]
pub struct SizeText(pub String);

/// How long writes may be held unless the playbook says otherwise.
pub const DEFAULT_MAX_WRITE_GAP: Duration = Duration::from_secs(30);

/// A playbook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Playbook {
    /// The playbook's name: letters, digits, `-` and `_`.
    pub playbook: String,
    /// What it is for, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// How long everything may take at most; `--deadline` overrides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DurationText>,
    /// How long writes may be held at the cutover before everything is undone. Default `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_write_gap: Option<DurationText>,
    /// How long a rehearsal's certificate is valid. Default `7d`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_lifetime: Option<DurationText>,
    /// What is watched while a run is driven, and what is done when it is not as it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guards: Vec<GuardSpec>,
    /// What is called at named moments of a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookSpec>,
    /// The stores that move, by name.
    pub stores: BTreeMap<String, Store>,
    /// What is done, stage by stage.
    pub stages: Stages,
}

/// A condition that is watched while a run is driven.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuardSpec {
    /// The guard's id, unique among the guards: letters, digits, `-` and `_`.
    pub id: String,
    /// What is looked at: `mysql.lag`, `disk.free`, `http.probe` …
    pub watch: String,
    /// The store it looks at, where it looks at one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Its threshold, and whatever else it has to know.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub with: serde_json::Map<String, serde_json::Value>,
    /// What is done when it fires. In `cutover`, before the switch, all three undo the cutover; behind it nothing is undone.
    pub then: GuardAction,
    /// How long it has to be bad, on every look, to fire. Default: one look is enough.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub bad_for: Option<DurationText>,
    /// How long it has to be good, on every look, to be quiet again. Default `30s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quiet_for: Option<DurationText>,
    /// How long it may be impossible to ask it before that counts as bad. Default `1m`, or `for` if that is longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen_for: Option<DurationText>,
    /// How often it is looked at. Default `5s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<DurationText>,
    /// The stages in which it is watched. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages: Option<Vec<StageName>>,
}

/// What is done when a guard fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuardAction {
    /// Nothing new is begun until it is quiet again; following goes on.
    Pause,
    /// The run ends at its checkpoints, and the same command goes on from there.
    Stop,
    /// Before `cutover`: all that the run made is undone, and the run is over.
    Undo,
}

/// A command or a call of the operator's at named moments of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HookSpec {
    /// The hook's id, unique among the hooks: letters, digits, `-` and `_`.
    pub id: String,
    /// The moments at which it is called.
    pub at: Vec<Moment>,
    /// The program and its arguments. No shell is involved. The facts are `DBMOVE_…` variables, and one JSON object on stdin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// More environment variables for the command; values may be secrets, by reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Template>,
    /// Instead of a command: an address that gets the facts as JSON, by POST. What is secret in it is given by reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<Template>,
    /// More headers for the call, by name. What looks like a secret is given by reference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Template>,
    /// A PEM file of the authorities that may vouch for the address, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// How long it may take. Default `30s`. At `before-switch`, where writes are held, at most half of what `max_write_gap` leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<HumanDuration>,
}

/// A moment of a run at which hooks are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// A driver is about to begin or go on. A failure ends the run before anything is begun.
    BeforeRun,
    /// All before the cutover is done. A failure ends the run before anything of the cutover is begun.
    BeforeCutover,
    /// Writes are held, and the point of no return is next. A failure undoes the cutover.
    BeforeSwitch,
    /// The point of no return is passed.
    AfterSwitch,
    /// A guard fired.
    OnGuard,
    /// The run is paused, by a person or a guard.
    OnPause,
    /// What was to be undone is, or could not be.
    OnUndo,
    /// The run ended at a gate: a person has to say yes.
    OnWaiting,
    /// The run ended without having done what it was asked to.
    OnFailure,
    /// All that was asked for is done.
    OnSuccess,
}

impl Moment {
    /// The name as written in a playbook.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Moment::BeforeRun => "before-run",
            Moment::BeforeCutover => "before-cutover",
            Moment::BeforeSwitch => "before-switch",
            Moment::AfterSwitch => "after-switch",
            Moment::OnGuard => "on-guard",
            Moment::OnPause => "on-pause",
            Moment::OnUndo => "on-undo",
            Moment::OnWaiting => "on-waiting",
            Moment::OnFailure => "on-failure",
            Moment::OnSuccess => "on-success",
        }
    }

    /// True if the run waits for an answer, and ends by a no.
    #[must_use]
    pub fn is_question(self) -> bool {
        matches!(self, Moment::BeforeRun | Moment::BeforeCutover | Moment::BeforeSwitch)
    }
}

/// One store that moves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// What kind of store it is.
    pub kind: StoreKind,
    /// Where the data lives now.
    pub source: Endpoint,
    /// Where it goes.
    pub target: Endpoint,
    /// The pair that stands in for production in `dbmove rehearse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<RehearsalPair>,
    /// What moves, as `database.table` patterns with `*` and `?`.
    pub include: Vec<String>,
    /// What stays behind, of what `include` names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Whether views, routines, triggers and events move too: `move` (default) or `leave`. `include` and `exclude` name them as they
    /// name tables; a trigger moves with its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<ObjectsOption>,
    /// Whether accounts move too, with what they may do: `leave` (default) or `move`. Left, they are named, and are yours to create on
    /// the target before the switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accounts: Option<AccountsOption>,
    /// With `accounts: move`: passwords by `user@host`, by reference only. They take the place of the source's; an account whose hash
    /// the target does not take is created locked without one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passwords: BTreeMap<String, Template>,
    /// What to do when a table is altered on the source while it is followed: `stop` (default) or `apply`. Tables that are created, dropped, renamed
    /// or truncated are always followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_ddl: Option<OnDdl>,
    /// What becomes of text, by `database.table` patterns. Without it bytes, character sets and collations stay as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub charset: BTreeMap<String, CharsetConversion>,
}

/// A named conversion of text. The stored bytes stay; what they are called changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CharsetConversion {
    /// `utf8` columns become `utf8mb4`, with the collation of the same name.
    #[serde(rename = "utf8-to-utf8mb4")]
    Utf8ToUtf8mb4,
    /// `latin1` columns whose bytes really are UTF-8 become `utf8mb4`. Each value is proven to be UTF-8 first.
    #[serde(rename = "latin1-holds-utf8")]
    Latin1HoldsUtf8,
}

impl CharsetConversion {
    /// The name as written in a playbook.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CharsetConversion::Utf8ToUtf8mb4 => "utf8-to-utf8mb4",
            CharsetConversion::Latin1HoldsUtf8 => "latin1-holds-utf8",
        }
    }
}

impl std::fmt::Display for CharsetConversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What becomes of views, routines, triggers and events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ObjectsOption {
    /// They are created on the target: what acts by itself at the switch, the rest before the rows.
    #[default]
    Move,
    /// They are not; each is named.
    Leave,
}

/// What becomes of accounts and what they may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccountsOption {
    /// They are created on the target, with what it allows.
    Move,
    /// They are not; those that clients of what moves come in by are named.
    #[default]
    Leave,
}

/// What to do when a table is altered on the source (`ALTER TABLE`, `CREATE INDEX`, `DROP INDEX`) while it is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDdl {
    /// The run stops and shows the statement.
    #[default]
    Stop,
    /// The table is made on the target as it is on the source then, and copied again from the start.
    Apply,
}

/// The kinds of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// MySQL 5.5 and later, MariaDB, RDS, Aurora.
    Mysql,
}

/// One server and how to reach it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `mysql://user@host:port/`; holds no password.
    pub url: Template,
    /// The password, by reference only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Template>,
    /// How the connection is protected. Default `verify` for hosts beyond this machine's loopback, `off` on loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// A PEM file of the authorities that may vouch for the server, instead of the public ones: RDS and Aurora need Amazon's
    /// `global-bundle.pem`. A path as seen from where dbmove is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// TLS 1.2 or later, certificate and host name verified.
    Verify,
    /// No TLS. For old servers in the same private network; shown as a warning wherever it is used.
    Off,
}

/// A source and a target that stand in for production.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RehearsalPair {
    /// Stands in for the source.
    pub source: Endpoint,
    /// Stands in for the target.
    pub target: Endpoint,
    /// Have dbmove fill the rehearsal's source itself, and empty it again at the end. Without it that server holds a copy already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyFrom>,
    /// Whose binary log `--load` replays: a replica of the source that logs what it replicates. Default: the source itself. Read, never written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_from: Option<Endpoint>,
    /// Accounts that may be connected to the two: monitoring, not traffic. Else a rehearsal is refused while others are connected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_accounts: Vec<String>,
}

/// Where a rehearsal's copy of production comes from, when dbmove makes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CopyFrom {
    /// Which server is read: best a replica of the source. Default: the source itself. Read, never written to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Endpoint>,
    /// How many bytes of rows are read there in a second at most. Default `8MiB/s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<HumanRate>,
}

/// The stages, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stages {
    /// Looks, checks and provides.
    #[serde(default)]
    pub prepare: Vec<StepSpec>,
    /// Copies and follows.
    #[serde(default)]
    pub sync: Vec<StepSpec>,
    /// Compares.
    #[serde(default)]
    pub verify: Vec<StepSpec>,
    /// Fences, drains, checks and switches.
    #[serde(default)]
    pub cutover: Vec<StepSpec>,
    /// Watches and cleans up afterwards.
    #[serde(default)]
    pub settle: Vec<StepSpec>,
}

/// A stage's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// Looks, checks and provides.
    Prepare,
    /// Copies and follows.
    Sync,
    /// Compares.
    Verify,
    /// Fences, drains, checks and switches.
    Cutover,
    /// Watches and cleans up afterwards.
    Settle,
}

impl StageName {
    /// All stages in the order in which they run.
    pub const ALL: [StageName; 5] = [StageName::Prepare, StageName::Sync, StageName::Verify, StageName::Cutover, StageName::Settle];
    /// The name as written in a playbook.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StageName::Prepare => "prepare",
            StageName::Sync => "sync",
            StageName::Verify => "verify",
            StageName::Cutover => "cutover",
            StageName::Settle => "settle",
        }
    }
}

impl Stages {
    /// The steps of one stage.
    #[must_use]
    pub fn get(&self, stage: StageName) -> &[StepSpec] {
        match stage {
            StageName::Prepare => &self.prepare,
            StageName::Sync => &self.sync,
            StageName::Verify => &self.verify,
            StageName::Cutover => &self.cutover,
            StageName::Settle => &self.settle,
        }
    }
    /// Every step with its stage, in order.
    pub fn iter(&self) -> impl Iterator<Item = (StageName, &StepSpec)> {
        StageName::ALL.into_iter().flat_map(|stage| self.get(stage).iter().map(move |step| (stage, step)))
    }
}

/// One step as written in a playbook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    /// The step's id, unique in the playbook: letters, digits, `-` and `_`.
    pub id: String,
    /// What it does: `mysql.snapshot`, `traffic.file` …
    pub run: String,
    /// The store it works on, where it works on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// The step's own arguments.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub with: serde_json::Map<String, serde_json::Value>,
    /// Ids of steps of the same stage that come first. Without it a step follows the one written before it;
    /// with it (an empty list too) it starts as soon as these are done, beside others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<String>>,
    /// After this step going back means more than undo.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub point_of_no_return: bool,
    /// How often a transient failure is retried. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}
