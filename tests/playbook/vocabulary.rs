//! A small vocabulary with the names of the real steps: the playbook knows none by itself.

use dbmove::playbook::model::{StageName, StoreKind, Template};
use dbmove::playbook::quantity::{HumanDuration, HumanSize};
use dbmove::playbook::vocabulary::{ArgumentError, GuardWord, MovesClients, StepWord, Vocabulary, arguments};
use schemars::JsonSchema;
use serde::Deserialize;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Snapshot {
    /// How many connections copy.
    #[serde(default)]
    #[schemars(range(min = 1, max = 64))]
    workers: Option<u32>,
    /// How much one chunk holds.
    chunk_size: Option<HumanSize>,
    /// How long a chunk may take.
    patience: Option<HumanDuration>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Fence {
    /// After how long the server lifts it.
    #[schemars(extend("x-longer-than-max-write-gap" = true))]
    watchdog: Option<HumanDuration>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Verify {
    /// Which rows.
    #[serde(default)]
    scope: Scope,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Scope {
    /// All rows.
    #[default]
    All,
    /// What has changed since the last comparison.
    Changed,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct File {
    /// The file that is written.
    path: String,
    /// What is written.
    content: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Exec {
    /// The command.
    command: String,
}

fn check_file(with: &serde_json::Map<String, serde_json::Value>) -> Result<(), ArgumentError> {
    let file: File = arguments(with)?;
    if file.path.starts_with('/') { Ok(()) } else { Err(ArgumentError::field("path", format!("`{}` is no absolute path", file.path))) }
}

const PREPARE: &[StageName] = &[StageName::Prepare];
const SYNC: &[StageName] = &[StageName::Sync];
const CUTOVER: &[StageName] = &[StageName::Cutover];
const COMPARE: &[StageName] = &[StageName::Verify, StageName::Cutover, StageName::Settle];
const ANY: &[StageName] = &StageName::ALL;

macro_rules! word {
    ($name:literal, $store:expr, $stages:expr, $before:expr, $arguments:ty) => {
        word!($name, $store, $stages, $before, $arguments, |with| arguments::<$arguments>(with).map(|_| ()))
    };
    ($name:literal, $store:expr, $stages:expr, $before:expr, $arguments:ty, $check:expr) => {
        StepWord {
            name: $name,
            about: concat!("What ", $name, " does."),
            store: $store,
            stages: $stages,
            requires_before: $before,
            moves_clients: match $name.as_bytes() {
                b"traffic.file" | b"traffic.exec" => MovesClients::Always,
                b"hook.exec" => MovesClients::Perhaps,
                _ => MovesClients::Never,
            },
            arguments: || schemars::schema_for!($arguments),
            check: $check,
        }
    };
}

const MYSQL: Option<StoreKind> = Some(StoreKind::Mysql);

pub const VOCABULARY: Vocabulary = Vocabulary {
    steps: STEPS,
    guards: GUARDS,
    hook: |spec| {
        if spec.command.is_some() == spec.post.is_some() { Err(ArgumentError::all("it calls nothing, or two things")) } else { Ok(()) }
    },
};

const STEPS: &[StepWord] = &[
    word!("mysql.assess", MYSQL, PREPARE, &[], Nothing),
    word!("mysql.prepare", MYSQL, PREPARE, &[], Nothing),
    word!("mysql.replicate", MYSQL, SYNC, &[], Nothing),
    word!("mysql.snapshot", MYSQL, SYNC, &["mysql.replicate"], Snapshot),
    word!("mysql.verify", MYSQL, COMPARE, &[], Verify),
    word!("mysql.fence", MYSQL, CUTOVER, &[], Fence),
    word!("mysql.catch_up", MYSQL, CUTOVER, &[], Nothing),
    word!("mysql.promote", MYSQL, CUTOVER, &["mysql.catch_up"], Nothing),
    word!("traffic.canary", MYSQL, CUTOVER, &[], Nothing),
    word!("traffic.file", None, CUTOVER, &[], File, check_file),
    word!("traffic.exec", None, CUTOVER, &[], Exec),
    word!("hook.exec", None, ANY, &[], Exec),
];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Lag {
    /// Further behind is too far.
    above: HumanDuration,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Query {
    /// Where it is asked.
    url: Template,
    /// A higher value is too high.
    above: Option<f64>,
}

const GUARDS: &[GuardWord] = &[
    GuardWord {
        name: "mysql.lag",
        about: "How far following is behind.",
        store: MYSQL,
        arguments: || schemars::schema_for!(Lag),
        check: |with| arguments::<Lag>(with).map(drop),
    },
    GuardWord {
        name: "prometheus.query",
        about: "What Prometheus says.",
        store: None,
        arguments: || schemars::schema_for!(Query),
        check: |with| arguments::<Query>(with).map(drop),
    },
];
