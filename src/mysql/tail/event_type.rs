//! Event types, by their number in the header: those that are looked at, and those that may be passed over.

#![allow(missing_docs, reason = "the names are the documentation: MySQL's and MariaDB's own")]

pub const QUERY: u8 = 2;
pub const STOP: u8 = 3;
pub const ROTATE: u8 = 4;
pub const INTVAR: u8 = 5;
pub const LOAD: u8 = 6;
pub const CREATE_FILE: u8 = 8;
pub const APPEND_BLOCK: u8 = 9;
pub const EXEC_LOAD: u8 = 10;
pub const DELETE_FILE: u8 = 11;
pub const NEW_LOAD: u8 = 12;
pub const RAND: u8 = 13;
pub const USER_VAR: u8 = 14;
pub const FORMAT_DESCRIPTION: u8 = 15;
pub const XID: u8 = 16;
pub const BEGIN_LOAD_QUERY: u8 = 17;
pub const EXECUTE_LOAD_QUERY: u8 = 18;
pub const TABLE_MAP: u8 = 19;
pub const INCIDENT: u8 = 26;
pub const HEARTBEAT: u8 = 27;
pub const IGNORABLE: u8 = 28;
pub const ROWS_QUERY: u8 = 29;
pub const GTID: u8 = 33;
pub const ANONYMOUS_GTID: u8 = 34;
pub const PREVIOUS_GTIDS: u8 = 35;
pub const TRANSACTION_CONTEXT: u8 = 36;
pub const VIEW_CHANGE: u8 = 37;
pub const XA_PREPARE: u8 = 38;
pub const TRANSACTION_PAYLOAD: u8 = 40;
pub const HEARTBEAT_V2: u8 = 41;
pub const GTID_TAGGED: u8 = 42;
pub const MARIADB_ANNOTATE_ROWS: u8 = 160;
pub const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
pub const MARIADB_GTID: u8 = 162;
pub const MARIADB_GTID_LIST: u8 = 163;
pub const MARIADB_START_ENCRYPTION: u8 = 164;
pub const MARIADB_QUERY_COMPRESSED: u8 = 165;

/// A flag in the header: who does not know the event may pass over it.
const MAY_BE_IGNORED: u16 = 0x80;

/// Whether an event says nothing of rows: it only goes with another, or is marked as one that may be passed over.
#[must_use]
pub fn says_nothing(kind: u8, flags: u16) -> bool {
    flags & MAY_BE_IGNORED != 0
        || matches!(
            kind,
            INTVAR
                | APPEND_BLOCK
                | DELETE_FILE
                | RAND
                | USER_VAR
                | BEGIN_LOAD_QUERY
                | IGNORABLE
                | ROWS_QUERY
                | GTID
                | ANONYMOUS_GTID
                | TRANSACTION_CONTEXT
                | VIEW_CHANGE
                | GTID_TAGGED
                | MARIADB_ANNOTATE_ROWS
                | MARIADB_START_ENCRYPTION
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_passed_over_unless_it_says_that_it_may_be() {
        assert!(says_nothing(RAND, 0));
        assert!(!says_nothing(43, 0));
        assert!(says_nothing(43, 0x84));
        assert!(!says_nothing(XID, 4));
    }
}
