//! A school's database and its users: what `dbmove demo` shows and the end-to-end tests judge by.
//!
//! Nothing here knows how dbmove moves data. It is the *other* party: a site as it stood in 2011,
//! people writing to it, a book of what they were promised, and an inspector who reads both
//! servers row by row. A move is good when the book balances and the inspector finds nothing.
//!
//! | module | what it is for |
//! | --- | --- |
//! | [`school`] | the schema, with the traps of its time |
//! | [`seed`] | the rows it starts with: the same for the same seed |
//! | [`writers`] | live users: connections, pace, reconnecting along a route file |
//! | [`visitors`] | a connection for each request: what waits at a proxy and must not fail |
//! | [`bank`] | the transfers between accounts, each booked in the ledger |
//! | [`activity`] | everything else users do: inserts, deletes, key changes, cascades |
//! | [`ledger`] | what was promised to users, and whether a server keeps it |
//! | [`compare`] | the row-by-row comparison, independent of dbmove's own verification |
//! | [`dice`] | the random numbers behind all of it |
//! | [`run`], [`story`] | `dbmove demo`: all of it put on stage, with `dbmove` itself in the lead |

use mysql_async::{Conn, Opts, OptsBuilder};
use secrecy::{ExposeSecret, SecretString};

pub mod activity;
pub mod bank;
pub mod compare;
pub mod dice;
pub mod ledger;
pub mod run;
pub mod school;
pub mod seed;
pub mod story;
pub mod visitors;
pub mod writers;

/// The session of the 2011 site: UTF-8 text, no strictness, so that zero dates are values like any other.
const SITE_SESSION: &str = "SET NAMES utf8, time_zone = '+00:00', sql_mode = ''";

/// The session of a reader that wants stored bytes and no interpretation.
const READER_SESSION: &str = "SET NAMES binary, time_zone = '+00:00', sql_mode = ''";

/// A server and the account to reach it with.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account.
    pub user: String,
    /// Its password; an empty one means none.
    pub password: SecretString,
}

impl Endpoint {
    /// From its parts.
    pub fn new(host: impl Into<String>, port: u16, user: impl Into<String>, password: impl Into<String>) -> Self {
        Endpoint { host: host.into(), port, user: user.into(), password: SecretString::from(password.into()) }
    }

    /// `host:port`, as a route file has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A connection whose session speaks as the site does.
    ///
    /// # Errors
    /// What the driver or the server said.
    pub async fn connect_as_site(&self) -> Result<Conn, mysql_async::Error> {
        Conn::new(self.options(SITE_SESSION)).await
    }

    /// A connection that reads stored bytes, in UTC.
    ///
    /// # Errors
    /// What the driver or the server said.
    pub async fn connect_as_reader(&self) -> Result<Conn, mysql_async::Error> {
        Conn::new(self.options(READER_SESSION)).await
    }

    fn options(&self, session: &str) -> Opts {
        let password = self.password.expose_secret();
        OptsBuilder::default()
            .ip_or_hostname(self.host.clone())
            .tcp_port(self.port)
            .user(Some(self.user.clone()))
            .pass((!password.is_empty()).then(|| password.to_owned()))
            // A socket would go around any proxy that a test puts on the TCP path.
            .prefer_socket(Some(false))
            .stmt_cache_size(128)
            .init(vec![session.to_owned()])
            .into()
    }
}
