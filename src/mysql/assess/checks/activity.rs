//! What happens on the source now, and would get in the way of following or of the switch.

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "open-sessions-not-row",
        level: Level::Error,
        about: "A session that still logs statements, though the server logs rows.",
        why: "A session keeps the `binlog_format` that it began with; what it changes is not in the log as rows, and following stops at it. Only what was logged while this looked is seen.",
        looks_at: &[Part::SourceSettings, Part::Log],
        never_accepted: None,
        look: open_sessions_not_row,
    },
    Check {
        id: "long-transactions",
        level: Level::Info,
        about: "A transaction that has been open for a minute or more.",
        why: "The fence waits for what is open, and the writes of such a transaction are held with it; if it is given up, its work is lost.",
        looks_at: &[Part::Transactions],
        never_accepted: None,
        look: long_transactions,
    },
    Check {
        id: "source-replicates",
        level: Level::Warn,
        about: "The source is itself a replica, and applies what it is sent.",
        why: "What it is sent behind the switch would be missing on the target, so the fence is refused while it applies anything.",
        looks_at: &[Part::SourceSettings],
        never_accepted: None,
        look: source_replicates,
    },
];

fn open_sessions_not_row(gathered: &Gathered) -> Vec<Found> {
    // `binlog-format` says it of the whole server.
    let rows = gathered.source.binlog_format.as_deref().is_none_or(|format| format.eq_ignore_ascii_case("ROW"));
    let Some(window) = gathered.log_window.as_ref().filter(|_| rows) else { return Vec::new() };
    let Some((place, statement)) = window.by_statement.first() else { return Vec::new() };
    vec![
        Found::new(
            "binlog_format",
            format!("{} of {} events logged meanwhile are statements that change rows", window.by_statement.len(), window.events),
        )
        .evidence(&window.asked, format!("at {place}: {statement}"))
        .fix("let every application reconnect (restart its pools), or close its sessions with `KILL`; look for `SET binlog_format` in their configuration"),
    ]
}

/// Seconds from which a transaction counts as long.
const LONG: u64 = 60;

fn long_transactions(gathered: &Gathered) -> Vec<Found> {
    let long = gathered.transactions.iter().filter(|transaction| transaction.seconds >= LONG);
    long.map(|transaction| {
        Found::new(format!("connection {}", transaction.connection), format!("its transaction has been open for {} s", transaction.seconds))
            .evidence("information_schema.INNODB_TRX.trx_started", format!("{} s ago", transaction.seconds))
            .fix("find out what it waits for (`SHOW PROCESSLIST`); plan the switch for a time without it")
    })
    .collect()
}

fn source_replicates(gathered: &Gathered) -> Vec<Found> {
    let applied = gathered.replicates_from.iter().filter(|channel| channel.applies);
    applied
        .map(|channel| {
            Found::new(&channel.from, format!("the source applies what `{}` sends it", channel.from))
                .evidence("SHOW SLAVE STATUS", "SQL thread: Yes")
                .fix("before the cutover: stop the writes there, wait until the source has them all, `STOP SLAVE` on the source; or move from that server instead")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::gather::activity::{LogWindow, OpenTransaction};
    use super::super::testing::{facts, gathered, objects};
    use crate::mysql::position::Position;

    #[test]
    fn a_statement_in_the_log_fires_and_rows_do_not() {
        let mut gathered = gathered();
        let window = |by_statement: &[(u64, String)]| {
            let by_statement = by_statement.to_vec();
            Some(LogWindow { from: Position::new("log.1", 4), asked: "SHOW BINLOG EVENTS".to_owned(), events: 9, by_statement })
        };
        gathered.source = facts(&[("binlog_format", "ROW")]);
        gathered.log_window = window(&[]);
        assert!(objects("open-sessions-not-row", &gathered).is_empty());
        gathered.log_window = window(&[(120, "INSERT INTO t VALUES (1)".to_owned())]);
        assert_eq!(objects("open-sessions-not-row", &gathered), ["binlog_format"]);
        gathered.source = facts(&[("binlog_format", "MIXED")]);
        assert!(objects("open-sessions-not-row", &gathered).is_empty());
    }

    #[test]
    fn a_minute_is_long() {
        let mut gathered = gathered();
        gathered.transactions = vec![OpenTransaction { connection: 7, seconds: 59 }, OpenTransaction { connection: 8, seconds: 60 }];
        assert_eq!(objects("long-transactions", &gathered), ["connection 8"]);
    }
}
