//! `LOAD DATA` that was logged as a statement: the file stands in the log, its rows do not, and which table they went to is in the statement. Of
//! old kinds of these events not even that can be read, so they count as concerning what moves.

use mysql_async::binlog::events::{Event, ExecuteLoadQueryEvent};

use super::dialect::Dialect;
use super::event_type;
use super::statement::{self, Statement};
use crate::mysql::names::Selection;

/// Whether an event is one of them.
#[must_use]
pub fn is_one(kind: u8) -> bool {
    matches!(
        kind,
        event_type::LOAD | event_type::CREATE_FILE | event_type::EXEC_LOAD | event_type::NEW_LOAD | event_type::EXECUTE_LOAD_QUERY
    )
}

/// Whether it may have changed rows of what moves.
#[must_use]
pub fn concerns(event: &Event, selection: &Selection, lower_case_names: bool) -> bool {
    match event.read_event::<ExecuteLoadQueryEvent<'_>>() {
        Ok(load) if event.header().event_type_raw() == event_type::EXECUTE_LOAD_QUERY => {
            let text = String::from_utf8_lossy(load.query_raw());
            // Its quotes are not known here: it is read both ways.
            [false, true].into_iter().any(|ansi_quotes| {
                let dialect = Dialect { ansi_quotes, lower_case_names, ..Dialect::default() };
                statement::classify(&text, &load.schema(), selection, dialect) != Statement::Elsewhere
            })
        }
        _ => true,
    }
}
