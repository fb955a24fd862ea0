//! Builds the secondary indexes of a copied table, and the foreign keys when all tables are copied.
//!
//! Building an index over rows that are there is many times faster than growing it row by row. The
//! statements are InnoDB online DDL, so the applier goes on writing meanwhile. After a crash a
//! statement may have been carried out without its note: that it says "is there already" is then the
//! expected answer, since nobody else builds under the lease; the structure is compared afterwards
//! by verification.

use crate::mysql::connect::Session;
use crate::mysql::error::{MysqlError, Result};

/// "Duplicate key name", "Duplicate foreign key constraint name".
const THERE_ALREADY: [u16; 2] = [1061, 1826];
/// "Can't create table": MariaDB's word for a duplicate foreign key, with errno 121 in its text.
const CANNOT_CREATE: u16 = 1005;
/// "Duplicate entry": a row that an event is about to move was in the way when the index's log was caught up.
const DUPLICATE: u16 = 1062;
/// How often building a unique index is tried again.
const TRIES: u32 = 5;

/// What an index build gets on the target: bytes for sorting the entries of one table's indexes, instead of MySQL's 1 MiB
/// for all indexes of a statement, which makes it write and merge hundreds of runs per table; and threads, fewer than MySQL's
/// four, since two tables are built at once while rows go in. Measured with 1.5 million rows and three indexes on two cores,
/// others idle: 3.3 s and 5.4 s of processor time before, 2.7 s and 3.9 s with these.
const SETTINGS: [(&str, u32); 3] = [("innodb_ddl_buffer_size", 64 << 20), ("innodb_ddl_threads", 2), ("innodb_parallel_read_threads", 2)];

/// Lets this session's index builds sort in memory. Servers that don't know a setting keep what they have.
///
/// # Errors
/// If the connection breaks.
pub async fn more_room_to_sort(session: &mut Session) -> Result<()> {
    for (setting, value) in SETTINGS {
        match session.run(&format!("SET SESSION {setting} = {value}"), "setting up the session").await {
            Err(error) if error.code() == Some(UNKNOWN_VARIABLE) => {}
            result => result?,
        }
    }
    Ok(())
}

/// "Unknown system variable".
const UNKNOWN_VARIABLE: u16 = 1193;

/// Runs the statements of one table, one after the other.
///
/// # Errors
/// As the server gives them; the statements before are carried out then.
pub async fn build(session: &mut Session, statements: &[String], what: &str) -> Result<()> {
    for statement in statements {
        let mut tries = 0;
        loop {
            tries += 1;
            match crate::mysql::ddl::execute(session, statement, what).await {
                Ok(_) => break,
                Err(error) if there_already(&error) => break,
                Err(error) if error.code() == Some(DUPLICATE) && tries < TRIES => {
                    tracing::info!(%error, tries, "building an index again: {what}");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn there_already(error: &MysqlError) -> bool {
    match error.code() {
        Some(code) if THERE_ALREADY.contains(&code) => true,
        Some(CANNOT_CREATE) => error.to_string().contains("errno: 121"),
        _ => false,
    }
}
