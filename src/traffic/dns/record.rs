//! The one record that clients find their database by: what it says, and for how long it may be kept.
//!
//! A record is an address (A, AAAA) or another name (CNAME), alone at its name: with several addresses nobody could say which server
//! clients are at. Names are compared without regard to case, as name servers do.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, RecordType};
use serde::{Deserialize, Serialize};

use crate::hook::message::printable;
use crate::playbook::quantity::HumanDuration;

/// How long a record may be kept, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ttl(pub u32);

impl Ttl {
    /// As a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", HumanDuration(self.duration()))
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Value {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Another name, in lower case, with its last dot.
    Cname(String),
}

impl Value {
    /// The value that leads to a host: its address, or its name.
    #[must_use]
    pub fn of_host(host: &str) -> Option<Value> {
        match host.parse() {
            Ok(IpAddr::V4(address)) => Some(Value::A(address)),
            Ok(IpAddr::V6(address)) => Some(Value::Aaaa(address)),
            Err(_) => name(host).map(|name| Value::Cname(name.to_ascii())),
        }
    }

    /// The value of an answer's record; `None` for records of other kinds.
    pub(super) fn of_data(data: &RData) -> Option<Value> {
        match data {
            RData::A(A(address)) => Some(Value::A(*address)),
            RData::AAAA(AAAA(address)) => Some(Value::Aaaa(*address)),
            RData::CNAME(CNAME(name)) => Some(Value::Cname(absolute(name).to_ascii())),
            _ => None,
        }
    }

    /// In the wire's form. `None` if the name can't be one, which only a journal that was tampered with can hold.
    pub(super) fn data(&self) -> Option<RData> {
        Some(match self {
            Value::A(address) => RData::A(A(*address)),
            Value::Aaaa(address) => RData::AAAA(AAAA(*address)),
            Value::Cname(text) => RData::CNAME(CNAME(name(text)?)),
        })
    }

    /// The type of the record that holds it.
    pub(super) fn record_type(&self) -> RecordType {
        match self {
            Value::A(_) => RecordType::A,
            Value::Aaaa(_) => RecordType::AAAA,
            Value::Cname(_) => RecordType::CNAME,
        }
    }

    /// What clients ask for when they get this.
    pub(super) fn asked_for(&self) -> RecordType {
        match self {
            Value::Aaaa(_) => RecordType::AAAA,
            Value::A(_) | Value::Cname(_) => RecordType::A,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::A(address) => write!(f, "A {address}"),
            Value::Aaaa(address) => write!(f, "AAAA {address}"),
            Value::Cname(name) => write!(f, "CNAME {}", printable(name)),
        }
    }
}

/// A value and how long it may be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What it says.
    pub value: Value,
    /// How long it may be kept.
    pub ttl: Ttl,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` for {}", self.value, self.ttl)
    }
}

/// A name from a text, in lower case and absolute, whether the text ends with a dot or not. Only the letters that hosts have: what holds others
/// is no name of a database, and would have to be escaped wherever it is shown.
pub(super) fn name(text: &str) -> Option<Name> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !plain || text == "." {
        return None;
    }
    Name::from_ascii(text).ok().map(|name| absolute(&name))
}

fn absolute(name: &Name) -> Name {
    let mut name = name.to_lowercase();
    name.set_fqdn(true);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        assert_eq!(Value::of_host("10.0.0.5").unwrap().to_string(), "A 10.0.0.5");
        assert_eq!(Value::of_host("2001:db8::1").unwrap().to_string(), "AAAA 2001:db8::1");
        assert_eq!(Value::of_host("DB.Example"), Some(Value::Cname("db.example.".to_owned())));
        assert_eq!(Value::of_host("db.example."), Value::of_host("db.example"));
        for broken in ["", ".", "a b", "a..b", "${step:x.y}", "db.example:3306", &"a".repeat(64)] {
            assert_eq!(Value::of_host(broken), None, "{broken}");
        }
    }

    #[test]
    fn values_survive_the_wire_and_the_journal() {
        for host in ["10.0.0.5", "2001:db8::1", "db.example"] {
            let record = Record { value: Value::of_host(host).unwrap(), ttl: Ttl(60) };
            assert_eq!(Value::of_data(&record.value.data().unwrap()), Some(record.value.clone()));
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
        assert_eq!(Record { value: Value::of_host("db.x").unwrap(), ttl: Ttl(3600) }.to_string(), "`CNAME db.x.` for 1h");
    }
}
