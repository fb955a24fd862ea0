//! `dbmove schema diff`: what becomes of each table's definition, by which rules. Needs no run, touches nothing, and makes no state directory.
//!
//! In a pipe the diffs come as they are, so that they can be read by what reads diffs; on a terminal their lines are broken
//! to its width, and coloured unless `NO_COLOR` or `--color` says otherwise.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::IsTerminal;

use serde::Serialize;

use super::answer::{Answer, Refusal};
use super::arguments::SchemaDiff;
use super::settings::Everywhere;
use super::stores::{Stores, refusal};
use crate::engine::context::RunKind;
use crate::engine::outcome::ExitCode;
use crate::mysql::ddl::rules;
use crate::mysql::store::{Described, MysqlStore};
use crate::report::{next, terminal};
use crate::telemetry::human::wrapped;
use crate::telemetry::printable::printable;

/// What the command says as JSON.
#[derive(Serialize)]
struct Data<'a> {
    playbook: &'a str,
    kind: &'static str,
    /// The rules that fired anywhere.
    rules: Vec<RuleText>,
    stores: Vec<StoreDiff>,
}

/// A rule in words.
#[derive(Serialize)]
struct RuleText {
    name: &'static str,
    about: &'static str,
    why: &'static str,
}

/// One store.
#[derive(Serialize)]
struct StoreDiff {
    store: String,
    source: String,
    target: String,
    tables: Vec<TableDiff>,
    not_carried: Vec<NotCarried>,
}

/// One table; `rules` and `diff` are empty if nothing changes.
#[derive(Serialize)]
struct TableDiff {
    table: String,
    rules: Vec<Fired>,
    diff: String,
}

/// One change.
#[derive(Serialize)]
struct Fired {
    rule: &'static str,
    before: String,
    after: String,
}

/// What the target will not have.
#[derive(Serialize)]
struct NotCarried {
    kind: String,
    name: String,
    why: String,
}

/// Runs the command.
///
/// # Errors
/// If the playbook can't be used, a server can't be read, or a table can't be carried: the error names it.
pub async fn diff(everywhere: &Everywhere, typed: &SchemaDiff) -> Result<Answer, Refusal> {
    let kind = if typed.rehearsal { RunKind::Rehearsal } else { RunKind::Production };
    let playbook = super::drive::load(everywhere, &typed.playbook)?;
    let mut stores = Vec::new();
    for (_, mysql) in Stores::of(everywhere, &playbook, kind).await?.mysql {
        let described = mysql.described().await.map_err(|error| refusal(error.into()))?;
        stores.push(store_diff(&mysql, &described));
    }
    let fired = |name: &str| stores.iter().flat_map(|store| &store.tables).flat_map(|table| &table.rules).any(|fired| fired.rule == name);
    let rules = rules::all().filter(|rule| fired(rule.name)).map(|rule| RuleText { name: rule.name, about: rule.about, why: rule.why });
    let rules: Vec<RuleText> = rules.collect();
    let word = next::playbook_word("", Some(&typed.playbook));
    let next = [everywhere.typed.command(&format!("dbmove assess {word}{}", if typed.rehearsal { " --rehearsal" } else { "" }))];
    let colour = everywhere.colour && std::io::stdout().is_terminal();
    let mut text: String = stores.iter().map(|store| self::text(store, everywhere.columns, colour)).collect();
    if !rules.is_empty() {
        let _ = writeln!(text, "\nrules that fired: {}", rules.len());
        for rule in &rules {
            let _ = writeln!(text, "{}", wrapped(&format!("  {}: {} {}", rule.name, rule.about, rule.why), everywhere.columns));
        }
    }
    text.push_str(&terminal::next_lines(&next));
    let kind = if kind == RunKind::Rehearsal { "rehearsal" } else { "production" };
    Ok(Answer::new("schema diff", ExitCode::Done, &Data { playbook: &playbook.playbook, kind, rules, stores }, &next, text))
}

fn store_diff(store: &MysqlStore, described: &Described) -> StoreDiff {
    let mut tables: Vec<TableDiff> = described
        .schema
        .tables
        .iter()
        .map(|table| TableDiff {
            table: table.name.to_string(),
            rules: table
                .rules_fired
                .iter()
                .map(|fired| Fired { rule: fired.rule, before: fired.before.clone(), after: fired.after.clone() })
                .collect(),
            diff: table.diff.clone(),
        })
        .collect();
    tables.sort_by(|a, b| a.table.cmp(&b.table));
    let not_carried = described.schema.not_carried.iter();
    StoreDiff {
        store: store.name.clone(),
        source: format!("{}, {}", store.source, described.source.version),
        target: format!("{}, {}", store.target, described.target.version),
        tables,
        not_carried: not_carried
            .map(|left| NotCarried { kind: left.kind.clone(), name: left.name.clone(), why: left.why.clone() })
            .collect(),
    }
}

/// One store for people. Writing into a String does not fail.
fn text(store: &StoreDiff, columns: usize, colour: bool) -> String {
    let mut text = String::new();
    let (changed, same): (Vec<&TableDiff>, Vec<&TableDiff>) = store.tables.iter().partition(|table| !table.diff.is_empty());
    let line = |text: &mut String, line: &str| {
        let _ = writeln!(text, "{}", wrapped(line, columns));
    };
    line(&mut text, &format!("store `{}`: {} tables, {} of them change", printable(&store.store), store.tables.len(), changed.len()));
    line(&mut text, &format!("  {}", printable(&store.source)));
    line(&mut text, &format!("  {}", printable(&store.target)));
    for table in changed {
        line(&mut text, &format!("\n`{}`: {}", printable(&table.table), counted(&table.rules)));
        for diff in table.diff.lines() {
            text.push_str(&diff_line(&printable(diff), columns, colour));
        }
    }
    if !same.is_empty() {
        line(&mut text, &format!("\nunchanged: {}", same.len()));
        for table in same {
            line(&mut text, &format!("  `{}`", printable(&table.table)));
        }
    }
    if !store.not_carried.is_empty() {
        line(&mut text, &format!("\nnot carried: {}", store.not_carried.len()));
        for left in &store.not_carried {
            line(&mut text, &format!("  {} `{}`: {}", printable(&left.kind), printable(&left.name), printable(&left.why)));
        }
    }
    text
}

/// `engine-options (3), charset-explicit`, in the order in which they fired.
fn counted(fired: &[Fired]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for one in fired {
        *counts.entry(one.rule).or_default() += 1;
    }
    let mut words = Vec::new();
    for one in fired {
        match counts.remove(one.rule) {
            Some(1) => words.push(one.rule.to_owned()),
            Some(count) => words.push(format!("{} ({count})", one.rule)),
            None => {}
        }
    }
    words.join(", ")
}

/// A line of a diff: removed red, added green, the place cyan. Only a terminal has its lines broken, here because what
/// is broken later would count the colours as characters.
fn diff_line(line: &str, columns: usize, colour: bool) -> String {
    if !colour {
        return format!("{line}\n");
    }
    let code = match line.as_bytes().first() {
        _ if line.starts_with("--- ") || line.starts_with("+++ ") => "1",
        Some(b'-') => "31",
        Some(b'+') => "32",
        Some(b'@') => "36",
        _ => return format!("{line}\n"),
    };
    // Escape sequences take no place, but are counted when stdout's lines are broken: ten characters at most.
    let broken = wrapped(line, columns.saturating_sub(10));
    broken.lines().fold(String::new(), |text, line| text + &format!("\u{1b}[{code}m{line}\u{1b}[0m\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_in_the_order_in_which_they_fired() {
        let fired = ["b", "a", "b", "c"].map(|rule| Fired { rule, before: String::new(), after: String::new() });
        assert_eq!(counted(&fired), "b (2), a, c");
    }

    #[test]
    fn colours_are_by_line_and_a_pipe_gets_the_line_as_it_is() {
        let long = format!("-  `a` int {}", "COMMENT 'x' ".repeat(20));
        assert_eq!(diff_line(&long, 80, false), format!("{long}\n"));
        let coloured = diff_line(&long, 80, true);
        assert!(coloured.lines().count() > 1);
        assert!(coloured.lines().all(|line| line.starts_with("\u{1b}[31m") && line.ends_with("\u{1b}[0m") && line.chars().count() <= 80));
        assert_eq!(diff_line("+++ target a", 80, true), "\u{1b}[1m+++ target a\u{1b}[0m\n");
        assert_eq!(diff_line(" same", 80, true), " same\n");
    }
}
