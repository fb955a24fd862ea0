//! Where rows are hashed: in the server, or here.
//!
//! Hashing in the server moves no rows over the network, but hashes slower than dbmove reads (measured
//! with 1.83 GiB on one core of 5.5.34: streaming 7.6 s, MD5 21 s, SHA2 24 s) and can't hash
//! floats, which have no exact text. So near its servers dbmove hashes itself: the fast
//! *and* the strong way. Over a slow link the server does it.
//!
//! What a server can is found by asking it to *do* it. The version says little: 5.5 without OpenSSL
//! has a `SHA2()` that returns NULL, MySQL 9 has no `MD5()` unless a component brings it back. And the
//! trick the tally needs, a hash kept in a user variable and cut into two lanes, depends on the
//! order of evaluation, which no manual promises; so the whole trick is run on known rows and its
//! result checked before it is trusted.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::connect::Session;
use super::super::error::Result;
use super::Comparison;
use super::server;
use crate::verify::{RowHash, Tally};

/// A hash function of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `SHA2(…, 256)`.
    Sha2,
    /// `MD5(…)`.
    Md5,
}

impl Function {
    /// Both, the stronger first.
    pub const ALL: [Function; 2] = [Function::Sha2, Function::Md5];

    /// The call on an SQL expression.
    pub(super) fn call(self, argument: &str) -> String {
        match self {
            Function::Sha2 => format!("SHA2({argument}, 256)"),
            Function::Md5 => format!("MD5({argument})"),
        }
    }

    /// Its value for `a` and for `b`.
    fn known(self) -> [RowHash; 2] {
        match self {
            Function::Sha2 => [RowHash::of(b"a"), RowHash::of(b"b")],
            // RFC 1321's test suite has "a"; "b" was computed with coreutils.
            Function::Md5 => [
                RowHash { first: 0x0cc1_75b9_c0f1_b6a8, second: 0x31c3_99e2_6977_2661 },
                RowHash { first: 0x92eb_5ffe_e6ae_2fec, second: 0x3ad7_1c77_7531_578f },
            ],
        }
    }
}

/// How the rows of one table are hashed, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "engine", content = "function", rename_all = "snake_case")]
pub enum Method {
    /// In SQL, by this function.
    Server(Function),
    /// Here, by SHA-256.
    Client,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Method::Server(Function::Sha2) => "server, SHA2",
            Method::Server(Function::Md5) => "server, MD5",
            Method::Client => "client, SHA-256",
        })
    }
}

/// A method and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The method.
    pub method: Method,
    /// The reason, for the report.
    pub why: String,
}

/// Servers that answer faster than this are near: rows cross the network faster than the server hashes them.
pub const NEAR: Duration = Duration::from_millis(2);

impl Method {
    /// The method for a table: `common` is what [`common`] found, `round_trip` the slower of both servers' ([`round_trip`]).
    #[must_use]
    pub fn choose(comparison: &Comparison, common: Option<Function>, round_trip: Duration) -> Choice {
        let client = |why: String| Choice { method: Method::Client, why };
        if comparison.has_floats() {
            return client("it has FLOAT or DOUBLE columns, which have no exact text".to_owned());
        }
        let Some(function) = common else {
            return client("the servers have no hash function in common".to_owned());
        };
        let milliseconds = round_trip.as_secs_f64() * 1000.0;
        if round_trip < NEAR {
            return client(format!("both servers are near ({milliseconds:.1} ms)"));
        }
        Choice { method: Method::Server(function), why: format!("a server is {milliseconds:.1} ms away") }
    }
}

/// The functions this server has and computes rightly, tried one by one in the form a tally uses them.
///
/// # Errors
/// If the connection breaks; that a server lacks a function is no error.
pub async fn functions(session: &mut Session) -> Result<Vec<Function>> {
    let mut found = Vec::new();
    for function in Function::ALL {
        let query = format!("SELECT {} FROM (SELECT 'a' AS x UNION ALL SELECT 'b') AS known", server::tally_columns(&function.call("x")));
        match session.first(&query, "trying a hash function").await {
            Ok(row) => {
                let expected: Tally = function.known().into_iter().collect();
                if row.and_then(|row| server::parse_tally(&row)) == Some(expected) {
                    found.push(function);
                }
            }
            Err(error) if error.code().is_some() && !error.transient() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The strongest function both servers have.
#[must_use]
pub fn common(source: &[Function], target: &[Function]) -> Option<Function> {
    Function::ALL.into_iter().find(|function| source.contains(function) && target.contains(function))
}

/// How long a small question takes: the best of five.
///
/// # Errors
/// If the connection breaks.
pub async fn round_trip(session: &mut Session) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        session.run("DO 0", "measuring the round trip").await?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}
