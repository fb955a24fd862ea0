//! Cuts a binary log file into events.

pub const QUERY: u8 = 2;
const FORMAT_DESCRIPTION: u8 = 15;
pub const TABLE_MAP: u8 = 19;

/// One event: the header's type and what follows the header.
pub struct Event {
    pub kind: u8,
    pub body: Vec<u8>,
}

pub fn events(file: &[u8]) -> Vec<Event> {
    let mut rest = file.strip_prefix(b"\xfebin").expect("the magic number of a binary log");
    let mut events = Vec::new();
    let mut checksums = false;
    while !rest.is_empty() {
        let (kind, size) = (rest[4], u32::from_le_bytes(rest[9..13].try_into().unwrap()) as usize);
        if kind == FORMAT_DESCRIPTION {
            checksums = has_checksums(&rest[19..size]);
        }
        let end = if checksums { size - 4 } else { size };
        events.push(Event { kind, body: rest[19..end].to_vec() });
        rest = &rest[size..];
    }
    events
}

/// The first event says, from 5.6.1 on, in the fifth byte from its end; before, there are none.
fn has_checksums(format: &[u8]) -> bool {
    let version = String::from_utf8_lossy(&format[2..52]).into_owned();
    let knows = !version.starts_with("5.1.") && !version.starts_with("5.5.") || version.contains("MariaDB");
    knows && format[format.len() - 5] == 1
}

/// The statement of a query event.
pub fn statement(body: &[u8]) -> String {
    let (database, status) = (usize::from(body[8]), usize::from(u16::from_le_bytes([body[11], body[12]])));
    String::from_utf8_lossy(&body[13 + status + database + 1..]).into_owned()
}
