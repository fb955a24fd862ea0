//! Checks what the shape of a store can't say: names, patterns, addresses, passwords, references.

use super::address::{Address, AddressError, PLACEHOLDER};
use super::problem::{Mistake, Problem};
use super::reference::{self, Piece, Reference, is_name};
use super::yaml::{Node, Value};
use crate::mysql::names::Selection;

/// Every mistake in the playbook's stores.
pub(crate) fn check(tree: &Node, source: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(stores) = tree.field("stores") else { return problems };
    if matches!(&stores.value.value, Value::Mapping(entries) if entries.is_empty()) {
        let problem =
            Problem::new(Mistake::NothingToDo, stores.key_span.clone(), "the playbook has no store", "expected at least one store");
        problems
            .push(problem.help("name what moves: `stores: { school: { kind: mysql, source: …, target: …, include: [\"school.*\"] } }`"));
    }
    for store in stores.value.entries() {
        if !is_name(&store.key) {
            problems.push(bad_name("store", &store.key, store.key_span.clone()));
        }
        for side in ["source", "target"] {
            if let Some(endpoint) = store.value.field(side) {
                check_endpoint(&endpoint.value, source, &mut problems);
            }
            if let Some(endpoint) = store.value.field("rehearsal").and_then(|pair| pair.value.field(side)) {
                check_endpoint(&endpoint.value, source, &mut problems);
            }
        }
        if let Some(endpoint) = store.value.field("rehearsal").and_then(|pair| pair.value.field("load_from")) {
            check_endpoint(&endpoint.value, source, &mut problems);
        }
        let copy = store.value.field("rehearsal").and_then(|pair| pair.value.field("copy"));
        if let Some(endpoint) = copy.and_then(|copy| copy.value.field("from")) {
            check_endpoint(&endpoint.value, source, &mut problems);
        }
        check_same_server(&store.value, &mut problems);
        check_patterns(&store.key, &store.value, &mut problems);
        check_passwords(&store.value, source, &mut problems);
    }
    check_one_source(stores.value.entries().iter().map(|store| (&*store.key, &store.value)), &mut problems);
    problems
}

/// A name with characters that names don't have.
pub(crate) fn bad_name(what: &str, name: &str, span: std::ops::Range<usize>) -> Problem {
    let shown: String = name.chars().take(40).collect();
    Problem::new(Mistake::InvalidName, span, format!("`{shown}` can't be the name of a {what}"), "expected letters, digits, `-` and `_`")
        .help("names have 1 to 64 letters (a-z, A-Z), digits, `-` and `_`; they become parts of file names and tags")
}

fn check_patterns(name: &str, store: &Node, problems: &mut Vec<Problem>) {
    if let Some(include) = store.field("include")
        && matches!(&include.value.value, Value::Sequence(items) if items.is_empty())
    {
        let problem = Problem::new(
            Mistake::NothingToDo,
            include.key_span.clone(),
            format!("store `{name}` includes no table"),
            "expected at least one pattern",
        );
        problems.push(problem.help("name what moves as `database.table` patterns: `include: [\"school.*\"]`"));
    }
    for list in ["include", "exclude", "charset"] {
        let items = store.field(list).map_or(&[][..], |entry| entry.value.items()).iter().map(|item| (item.text(), item.span.clone()));
        let keys =
            store.field(list).into_iter().flat_map(|entry| entry.value.entries()).map(|entry| (Some(&*entry.key), entry.key_span.clone()));
        for (text, span) in items.chain(keys) {
            let Some(text) = text else { continue };
            if let Err(error) = Selection::new(&[text.to_owned()], &[]) {
                let problem = Problem::new(Mistake::InvalidPattern, span, format!("in `{list}`, {error}"), "expected `database.table`");
                problems.push(problem.help(if text.is_empty() || text.contains('.') {
                    "both parts are needed: `school.*` for all tables of a database, `school.students` for one".to_owned()
                } else {
                    format!("write `{text}.*` for all tables of database `{text}`")
                }));
            }
        }
    }
}

fn check_endpoint(endpoint: &Node, source: &str, problems: &mut Vec<Problem>) {
    if let Some((url, node)) = endpoint.field_text("url")
        && let Some(pieces) = check_references(url, node, source, problems)
    {
        // References become a character that no real part of a url has: what is around them can be checked now.
        let shape: String =
            pieces.iter().map(|piece| if let Piece::Text(text) = piece { text.as_str() } else { PLACEHOLDER_TEXT }).collect();
        let wholly_referred = shape == PLACEHOLDER_TEXT;
        if let (false, Err(error)) = (wholly_referred, Address::parse(&shape)) {
            let mistake = if error == AddressError::Password { Mistake::LiteralSecret } else { Mistake::InvalidAddress };
            let label = if error == AddressError::Password { "no password here" } else { "expected `mysql://user@host:port/`" };
            problems.push(Problem::new(mistake, node.span.clone(), error.to_string(), label).help(error.help()));
        }
    }
    if let Some(entry) = endpoint.field("password") {
        check_password(&entry.value, source, problems);
    }
}

/// A password is one reference, and not to what the journal keeps.
fn check_password(value: &Node, source: &str, problems: &mut Vec<Problem>) {
    let Some(text) = value.text() else { return };
    let Some(pieces) = check_references(text, value, source, problems) else { return };
    let problem = |message: &str| Problem::new(Mistake::LiteralSecret, value.span.clone(), message, "expected one reference");
    match &pieces[..] {
        [Piece::Reference(Reference::StepOutput { .. })] => problems.push(
            problem("`password` refers to a step's output, and outputs are kept in the journal")
                .help("write `password: ${env:NAME}`, `${file:PATH}` or `${exec:COMMAND}`"),
        ),
        [Piece::Reference(_)] => {}
        _ => problems.push(
            problem("`password` is written down; secrets are given by reference only")
                .help("write `password: ${env:NAME}`, `${file:PATH}` or `${exec:COMMAND}`; treat the one written down as known to others"),
        ),
    }
}

/// Passwords of accounts: each of an account that can be one, each a reference, and only where accounts move.
fn check_passwords(store: &Node, source: &str, problems: &mut Vec<Problem>) {
    let Some(passwords) = store.field("passwords") else { return };
    if store.field_text("accounts").is_none_or(|(text, _)| text != "move") {
        let message = "`passwords` are given, but accounts do not move";
        let problem = Problem::new(Mistake::NothingToDo, passwords.key_span.clone(), message, "needs `accounts: move`");
        problems.push(problem.help("say `accounts: move`, or take `passwords` away"));
    }
    for entry in passwords.value.entries() {
        if !entry.key.contains('@') {
            let message = "the key is no account";
            let problem = Problem::new(Mistake::InvalidName, entry.key_span.clone(), message, "expected `user@host`");
            problems.push(
                problem.help("write each as `user@host`, as `SELECT User, Host FROM mysql.user` has them: `\"app@%\": \"${file:PATH}\"`"),
            );
        }
        check_password(&entry.value, source, problems);
    }
}

/// [`PLACEHOLDER`] as text.
const PLACEHOLDER_TEXT: &str = "\u{1}";
const _: () = assert!(PLACEHOLDER as u32 == 1);

/// The pieces of a text, or the mistake in it.
pub(crate) fn check_references(text: &str, node: &Node, source: &str, problems: &mut Vec<Problem>) -> Option<Vec<Piece>> {
    match reference::parse(text) {
        Ok(pieces) => Some(pieces.into_iter().map(|(piece, _)| piece).collect()),
        Err(error) => {
            let span = node.part(source, error.span.clone());
            problems.push(Problem::new(Mistake::InvalidReference, span, error.message, "this reference").help(error.help));
            None
        }
    }
}

/// The server that one side of a store, or of its rehearsal, names, and where it does.
fn server(side: &Node, name: &str) -> Option<(String, std::ops::Range<usize>)> {
    let endpoint = side.field(name)?;
    let (url, node) = endpoint.value.field_text("url")?;
    let place = url.rsplit_once('@')?.1.trim_end_matches('/').to_ascii_lowercase();
    let whole = if place.ends_with(']') || !place.contains(':') { format!("{place}:3306") } else { place };
    Some((whole, node.span.clone()))
}

/// Two stores can't move from one server: the writes of a server are held as a whole (`mysql::beside`). In a rehearsal their copies may be on one.
fn check_one_source<'a>(stores: impl Iterator<Item = (&'a str, &'a Node)>, problems: &mut Vec<Problem>) {
    let mut seen: Vec<(&str, String)> = Vec::new();
    for (name, store) in stores {
        let Some((place, span)) = server(store, "source") else { continue };
        if let Some((earlier, _)) = seen.iter().find(|(_, other)| *other == place) {
            let message = format!("the source of `{name}` is the same server as that of `{earlier}`");
            let problem = Problem::new(Mistake::InvalidAddress, span, message, "expected another server");
            problems.push(problem.help(format!(
                "the writes of a server can be held for one store only: move both as one store, with the databases of `{earlier}` and `{name}` in its `include`"
            )));
        }
        seen.push((name, place));
    }
}

/// A server can't be its own target, nor production its own stand-in.
fn check_same_server(store: &Node, problems: &mut Vec<Problem>) {
    let rehearsal = store.field("rehearsal").map(|entry| &entry.value);
    let places = [
        ("the source", server(store, "source")),
        ("the target", server(store, "target")),
        ("the rehearsal's source", rehearsal.and_then(|pair| server(pair, "source"))),
        ("the rehearsal's target", rehearsal.and_then(|pair| server(pair, "target"))),
    ];
    for (index, (later, place)) in places.iter().enumerate() {
        let Some((place, span)) = place else { continue };
        if let Some((earlier, _)) = places[..index].iter().find(|(_, other)| other.as_ref().is_some_and(|(other, _)| other == place)) {
            let problem = Problem::new(
                Mistake::InvalidAddress,
                span.clone(),
                format!("{later} is the same server as {earlier}"),
                "expected another server",
            );
            problems.push(problem.help("a move goes from one server to another, and a rehearsal touches neither of them"));
        }
    }
}
