//! Cuts a binary log file of 5.1 or 5.5 (no checksums) into events.

pub const QUERY: u8 = 2;
pub const TABLE_MAP: u8 = 19;

/// One event: the header's type and what follows the header.
pub struct Event {
    pub kind: u8,
    pub body: Vec<u8>,
}

pub fn events(file: &[u8]) -> Vec<Event> {
    let mut rest = file.strip_prefix(b"\xfebin").expect("the magic number of a binary log");
    let mut events = Vec::new();
    while !rest.is_empty() {
        let size = u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize;
        events.push(Event { kind: rest[4], body: rest[19..size].to_vec() });
        rest = &rest[size..];
    }
    events
}

/// The statement of a query event.
pub fn statement(body: &[u8]) -> String {
    let (database, status) = (usize::from(body[8]), usize::from(u16::from_le_bytes([body[11], body[12]])));
    String::from_utf8_lossy(&body[13 + status + database + 1..]).into_owned()
}
