//! `dbmove rehearse`: every stage, the switch and the way back on the rehearsal pair; leaves a certificate.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Answer, Refusal};
use super::arguments::Rehearse;
use super::drive::{Request, drive};
use super::settings::{self, Everywhere};
use crate::engine::context::RunKind;
use crate::engine::load::multiple::Multiple;
use crate::engine::load::{AskedLoad, DEFAULT_AT_LEAST};
use crate::mysql::replay::captured::Captured;
use crate::mysql::replay::load::{DEFAULT_WINDOW, Log};
use crate::playbook::model::StageName;
use crate::report::next::shell_word;
use crate::steps::Built;
use crate::telemetry::printable::printable;

/// The load that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct UnderLoad {
    /// How many times production's own rate.
    pub multiple: Multiple,
    /// How far back the log is replayed, if that was said.
    pub window: Option<Duration>,
    /// How long it runs at least before the cutover.
    pub at_least: Duration,
    /// Log files in production's place.
    pub files: Vec<LogFiles>,
    /// The options as they were typed, for whoever goes on with the rehearsal from another directory.
    pub options: String,
}

/// What one `--load-log` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFiles {
    /// Whose they are, if that was said.
    pub store: Option<String>,
    /// In their order.
    pub paths: Vec<PathBuf>,
}

/// What was typed about load, if anything.
fn under_load(typed: &Rehearse) -> Result<Option<UnderLoad>, Refusal> {
    let Some(text) = &typed.load else { return Ok(None) };
    let multiple = text.parse().map_err(|error| Refusal::usage(format!("`--load`: {error}")))?;
    let window = typed.load_window.as_deref().map(|text| settings::duration("--load-window", text)).transpose()?;
    let at_least = typed.load_for.as_deref().map_or(Ok(DEFAULT_AT_LEAST), |text| settings::duration("--load-for", text))?;
    if window.is_some_and(|window| window < Duration::from_secs(1)) {
        return Err(Refusal::usage("`--load-window` is shorter than a second")
            .hint("old servers stamp their log by the second; `--load-window 1h` is the default"));
    }
    let files = typed.load_log.iter().map(|text| log_files(text)).collect::<Result<Vec<_>, _>>()?;
    let options = options(typed, text, &files);
    Ok(Some(UnderLoad { multiple, window, at_least, files, options }))
}

/// The options about load, to be typed again.
fn options(typed: &Rehearse, load: &str, files: &[LogFiles]) -> String {
    let mut options = vec![("--load", load.to_owned())];
    options.extend(typed.load_window.clone().map(|window| ("--load-window", window)));
    options.extend(typed.load_for.clone().map(|at_least| ("--load-for", at_least)));
    options.extend(files.iter().map(|files| {
        let store = files.store.as_ref().map(|store| format!("{store}=")).unwrap_or_default();
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        ("--load-log", format!("{store}{}", files.paths.iter().map(absolute).collect::<Vec<_>>().join(",")))
    }));
    let words: Vec<String> = options.iter().map(|(option, value)| format!("{option} {}", shell_word(value))).collect();
    words.join(" ")
}

/// `FILE,FILE,…` or `STORE=FILE,FILE,…`. What stands before a `=` is a store unless it leads to a directory.
fn log_files(text: &str) -> Result<LogFiles, Refusal> {
    let (store, files) = match text.split_once('=') {
        Some((store, files)) if !store.contains(['/', ',']) => (Some(store.to_owned()), files),
        _ => (None, text),
    };
    let paths: Vec<PathBuf> = files.split(',').map(PathBuf::from).collect();
    if paths.iter().any(|path| path.as_os_str().is_empty()) || store.as_deref() == Some("") {
        return Err(Refusal::usage(format!("`--load-log {}`: a name is empty", printable(text)))
            .hint("write `--load-log FILE,FILE`, or `--load-log STORE=FILE,FILE`; a file whose name has a comma in it has to be renamed"));
    }
    Ok(LogFiles { store, paths })
}

impl UnderLoad {
    /// The loads of these steps.
    ///
    /// # Errors
    /// If whose log the files are can't be told.
    pub fn asked(&self, built: &Built) -> Result<AskedLoad, Refusal> {
        let captured = self.captured(&built.stores_for_load())?;
        let loads = built.loads(|store| match captured.get(store) {
            Some(files) => Log::Captured(Arc::clone(files)),
            None => Log::Production { window: self.window.unwrap_or(DEFAULT_WINDOW) },
        });
        Ok(AskedLoad { multiple: self.multiple, at_least: self.at_least, loads, options: self.options.clone() })
    }

    /// Files by the store whose log they are: of none, or of every store, so that it is never half production's log that is read.
    fn captured(&self, stores: &[&str]) -> Result<BTreeMap<String, Arc<Captured>>, Refusal> {
        let names: Vec<String> = stores.iter().map(|store| format!("`{store}`")).collect();
        let known = format!("the playbook's stores with a log are {}", names.join(", "));
        let mut captured = BTreeMap::new();
        for files in &self.files {
            let store = match (&files.store, stores) {
                (Some(store), _) if stores.contains(&store.as_str()) => store.as_str(),
                (Some(store), _) => {
                    let store = printable(store);
                    return Err(Refusal::usage(format!("`--load-log`: there is no store `{store}`; {known}"))
                        .hint(format!("write `./{store}=…` if that is the name of a file")));
                }
                (None, [store]) => store,
                (None, _) => {
                    return Err(Refusal::usage(format!("`--load-log` does not say whose log its files are; {known}"))
                        .hint("write `--load-log STORE=FILE,FILE`, once for each of them"));
                }
            };
            let log = Arc::new(Captured::new(files.paths.clone(), self.window));
            if captured.insert(store.to_owned(), log).is_some() {
                return Err(Refusal::usage(format!("`--load-log` is given twice for the store `{store}`"))
                    .hint("name all of its files at once, in their order: `--load-log FILE,FILE`"));
            }
        }
        let without = stores.iter().find(|store| !captured.contains_key(**store));
        match without {
            Some(store) if !captured.is_empty() => {
                Err(Refusal::usage(format!("`--load-log` is not given for the store `{store}`, whose load would be read from production"))
                    .hint("name files for every store, or for none"))
            }
            _ => Ok(captured),
        }
    }
}

/// Runs the command. Needs no go-ahead: production is not touched, which the registry sees to.
///
/// # Errors
/// If the rehearsal could not be driven.
pub async fn rehearse(everywhere: &Everywhere, typed: &Rehearse) -> Result<Answer, Refusal> {
    let request = Request {
        command: "rehearse",
        driving: &typed.driving,
        kind: RunKind::Rehearsal,
        until: StageName::Settle,
        again: None,
        keep_services: false,
        deadline: None,
        margin: None,
        take_over: None,
        without_rehearsal: None,
        rollback_after: true,
        give_up: false,
        roll_back: false,
        repair: false,
        load: under_load(typed)?,
        dangerous: None,
    };
    drive(everywhere, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(typed: &[&str], stores: &[&str]) -> Result<Vec<String>, String> {
        let files = typed.iter().map(|text| log_files(text)).collect::<Result<_, _>>().map_err(|refusal| refusal.message)?;
        let load = UnderLoad { multiple: "1x".parse().unwrap(), window: None, at_least: DEFAULT_AT_LEAST, files, options: String::new() };
        load.captured(stores).map(|captured| captured.into_keys().collect()).map_err(|refusal| refusal.message)
    }

    #[test]
    fn files_go_to_their_stores() {
        let of = |text: &str| log_files(text).unwrap();
        assert_eq!(of("a.1,b.2"), LogFiles { store: None, paths: vec!["a.1".into(), "b.2".into()] });
        assert_eq!(of("shop=a.1"), LogFiles { store: Some("shop".to_owned()), paths: vec!["a.1".into()] });
        assert_eq!(of("./shop=a.1"), LogFiles { store: None, paths: vec!["./shop=a.1".into()] });
        assert_eq!(captured(&[], &["shop", "bank"]), Ok(vec![]));
        assert_eq!(captured(&["a.1"], &["shop"]), Ok(vec!["shop".to_owned()]));
        assert_eq!(captured(&["shop=a.1", "bank=b.1"], &["shop", "bank"]), Ok(vec!["bank".to_owned(), "shop".to_owned()]));
    }

    #[test]
    fn whose_log_it_is_is_never_guessed() {
        for (typed, stores, expected) in [
            (
                &["a.1"][..],
                &["shop", "bank"][..],
                "does not say whose log its files are; the playbook's stores with a log are `shop`, `bank`",
            ),
            (&["shop=a.1"], &["shop", "bank"], "is not given for the store `bank`, whose load would be read from production"),
            (&["shop=a.1", "shop=a.2"], &["shop"], "twice for the store `shop`"),
            (&["desk\u{1b}=a.1"], &["shop"], "there is no store `desk\\u{1b}`"),
            (&["a.1,,a.3"], &["shop"], "a name is empty"),
            (&["=a.1"], &["shop"], "a name is empty"),
        ] {
            let refused = captured(typed, stores).unwrap_err();
            assert!(refused.contains(expected), "{typed:?}: {refused}");
        }
    }
}
