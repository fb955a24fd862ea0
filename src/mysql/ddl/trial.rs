//! Tries every table on the target before the first one stays.
//!
//! The rules know what old servers print. What a certain target refuses (a row of more than 8,126 bytes, a name that InnoDB keeps
//! for itself, a key that is too long, an unknown collation) only that target knows; and an index that can't be
//! built would be found hours later, when the rows are in. So each table is created once, whole, with every index, in dbmove's
//! own schema, and dropped again. Every table that is refused is named in one error, and nothing was created then.
//!
//! Definitions that differ in nothing but the table's name are tried once: thousands of tables of one form cost one
//! trial. Foreign keys are not tried, as they need their parents.

use std::collections::HashSet;

use super::super::bookkeeping;
use super::super::connect::Session;
use super::super::error::{MysqlError, Result};
use super::{TableDdl, execute};

/// How many tables an error names with their reasons.
const NAMED: usize = 20;

/// What is being done, in an error's words.
const WHAT: &str = "trying it on the target";

/// Creates and drops every table once. The schema `_dbmove` has to be there.
///
/// # Errors
/// If the target refuses any, or warns of a change: the error names each of them. If the connection breaks.
pub async fn all(target: &mut Session, tables: &[TableDdl]) -> Result<()> {
    // A name of this connection's own: another store may be tried on the same target at the same time.
    let name = bookkeeping::own_table(&format!("trial_{}", target.id()));
    let drop = format!("DROP TABLE IF EXISTS {name}");
    let mut tried = HashSet::new();
    let mut refused = Vec::new();
    for table in tables {
        let statement = table.whole(&name);
        if tried.contains(&statement) {
            continue;
        }
        let tried_so = execute(target, &statement, WHAT).await;
        target.run(&drop, "dropping a tried table").await?;
        match tried_so {
            Ok(_) => {}
            Err(error) if error.transient() => return Err(error),
            Err(MysqlError::Statement { source, .. }) if matches!(*source, mysql_async::Error::Server(_)) => {
                refused.push(format!("`{}`: {source}", table.name));
            }
            Err(MysqlError::Object { message, .. }) => {
                let warned = message.split_once(WHAT).map_or(message.as_str(), |(_, warned)| warned.trim_start_matches(": "));
                refused.push(format!("`{}`: {warned}", table.name));
            }
            Err(error) => return Err(error),
        }
        tried.insert(statement);
    }
    if refused.is_empty() {
        return Ok(());
    }
    let more = refused.len().saturating_sub(NAMED);
    let mut lines = refused[..refused.len() - more].join("\n  ");
    if more > 0 {
        lines.push_str(&format!("\n  and {more} more"));
    }
    Err(MysqlError::Object {
        message: format!(
            "the {} can't hold {} as it would be made. Nothing was created\n  {lines}",
            target.server(),
            tables_of(refused.len())
        ),
        hint: "change the table on the source, or leave it out with `exclude`; `dbmove schema diff PLAYBOOK` shows the whole definition"
            .to_owned(),
    })
}

fn tables_of(count: usize) -> String {
    if count == 1 { "a table".to_owned() } else { format!("{count} tables") }
}
