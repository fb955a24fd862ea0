//! The canary's client: connects where the route points, as any client would, and writes beats.
//!
//! It keeps its connection until something fails, then reads the route again and connects anew: a route that changes
//! is noticed by a client only when its connection ends, and the canary is no better than the clients it stands for.
//! Every attempt has a time limit. Locks on the server are waited for at most a second, so that attempts given up
//! here don't pile up there.
//!
//! Before a beat goes through a connection that is kept, the connection is tried, as good pools do: one that was closed between two beats
//! (the switch closes those) has failed no request. A beat that was sent and not answered well has.

use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder, Row};
use secrecy::{ExposeSecret as _, SecretString};

use super::beat::BeatTable;
use super::route::RouteFile;
use super::watch::{CanaryWatch, Side};
use crate::engine::step::StepError;
use crate::hook::message::printable;
use crate::mysql::sql;
use crate::mysql::tls::Protection;

/// Privileges that let an account write while `read_only` is set: with one of them the canary would undo the fence's
/// meaning and measure nothing.
const WRITES_THROUGH_READ_ONLY: [&str; 5] = ["ALL PRIVILEGES ON *.*", "SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN", "CONNECTION_ADMIN"];

/// Server errors about accounts and privileges.
const NOT_ALLOWED: [u16; 8] = [1044, 1045, 1130, 1142, 1143, 1698, 1820, 3118];

/// Host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

/// How clients find their server.
#[derive(Clone, Debug)]
pub(super) enum Route {
    /// By the first line of a file; where the file is not there, at `otherwise`, if that is given.
    File { file: RouteFile, otherwise: Option<Place> },
    /// At an address that does not change (a proxy, a DNS name).
    Fixed(Place),
}

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct AttemptError {
    /// What happened, to which object.
    pub(super) message: String,
    /// A server's refusal that no retry heals: wrong password, missing privilege, SUPER.
    pub(super) definite: bool,
}

/// Who the canary is, and where it goes.
pub(super) struct Client {
    pub(super) route: Route,
    pub(super) user: String,
    pub(super) password: Option<SecretString>,
    pub(super) tls: Protection,
    pub(super) table: BeatTable,
    pub(super) id: String,
    pub(super) run: String,
    pub(super) limit: Duration,
    pub(super) watch: Arc<CanaryWatch>,
}

/// An open connection and who answered it.
pub(super) struct Connected {
    conn: Conn,
    place: Place,
    pub(super) side: Side,
    pub(super) server: String,
}

impl Client {
    /// Connects where the route points now.
    pub(super) async fn connect(&self) -> Result<Connected, AttemptError> {
        let place = self.place().await?;
        self.connect_to(place).await
    }

    /// Connects to a given server as the canary's account.
    pub(super) async fn connect_to(&self, place: Place) -> Result<Connected, AttemptError> {
        let mut options = OptsBuilder::default()
            .ip_or_hostname(place.host.clone())
            .tcp_port(place.port)
            .user(Some(self.user.clone()))
            .pass(self.password.as_ref().map(|password| password.expose_secret().to_owned()))
            .prefer_socket(false)
            .secure_auth(false)
            // Given, so that the driver does not ask: every round trip before the first beat lengthens the gap.
            .max_allowed_packet(Some(1 << 24))
            .wait_timeout(Some(28_800));
        let protection =
            self.tls.options().map_err(|error| AttemptError { message: format!("{error}: {}", error.hint()), definite: true })?;
        options = options.ssl_opts(protection);
        let (marker, run) = (sql::table(&self.table.marker()), sql::text(&self.run));
        let opened = async {
            let mut conn = Conn::new(options).await?;
            conn.query_drop("SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1").await?;
            let marks: Vec<(String, u64, u64, String)> =
                conn.query(format!("SELECT CAST(side AS CHAR), @@server_id, @@port, @@hostname FROM {marker} WHERE run = {run}")).await?;
            Ok::<_, mysql_async::Error>((conn, marks))
        };
        let (conn, marks) = self.in_time(&place, "connecting", opened).await?;
        let [(side, server_id, port, host)] = marks.as_slice() else {
            return Err(AttemptError {
                message: format!(
                    "the server at `{}` holds {} marks of this run in `{}` instead of one",
                    place,
                    marks.len(),
                    self.table.marker()
                ),
                definite: false,
            });
        };
        let side = if side == Side::Target.as_str() { Side::Target } else { Side::Source };
        let server = format!("server_id {server_id}, port {port}, host {}", printable(host));
        Ok(Connected { conn, place, side, server })
    }

    /// Whether the connection is still there: false if it was closed since the last beat.
    pub(super) async fn is_open(&self, connected: &mut Connected) -> Result<bool, AttemptError> {
        match tokio::time::timeout(self.limit, connected.conn.ping()).await {
            Ok(answer) => Ok(answer.is_ok()),
            Err(_) => {
                let message = format!("trying the connection to `{}`: no answer within {:?}", connected.place, self.limit);
                Err(AttemptError { message, definite: false })
            }
        }
    }

    /// Writes one beat.
    pub(super) async fn beat(&self, connected: &mut Connected, number: u64) -> Result<(), AttemptError> {
        let statement = self.table.beat(&self.id, number);
        self.in_time(&connected.place, "writing a beat", connected.conn.query_drop(statement)).await
    }

    /// Refuses an account that `read_only` does not stop.
    pub(super) async fn check_account(&self, connected: &mut Connected) -> Result<(), AttemptError> {
        let grants: Vec<Row> = self
            .in_time(&connected.place, "reading the canary's privileges", connected.conn.query("SHOW GRANTS FOR CURRENT_USER()"))
            .await?;
        let held = grants.iter().filter_map(|row| row.get::<String, _>(0)).find_map(|grant| {
            let grant = grant.to_ascii_uppercase();
            WRITES_THROUGH_READ_ONLY.into_iter().find(|privilege| match grant.split_once(" ON *.*") {
                Some((listed, _)) => listed.contains(privilege.trim_end_matches(" ON *.*")),
                None => false,
            })
        });
        match held {
            None => Ok(()),
            Some(privilege) => Err(AttemptError {
                message: format!(
                    "the canary's account `{}` holds `{privilege}` at `{}`: `read_only` does not stop it, so it would write behind the fence and measure nothing",
                    self.user, connected.place
                ),
                definite: true,
            }),
        }
    }

    /// Where the route points now.
    async fn place(&self) -> Result<Place, AttemptError> {
        let (file, otherwise) = match &self.route {
            Route::Fixed(place) => return Ok(place.clone()),
            Route::File { file, otherwise } => (file.clone(), otherwise),
        };
        let path = file.path().display().to_string();
        let read = tokio::task::spawn_blocking(move || file.read()).await;
        let found = match read {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(AttemptError { message: error.to_string(), definite: false }),
            Err(error) => return Err(AttemptError { message: format!("reading the route file `{path}`: {error}"), definite: false }),
        };
        let place = match (found, otherwise) {
            (Some(content), _) => {
                let text = String::from_utf8_lossy(&content.bytes).into_owned();
                parse_route(&text).ok_or_else(|| AttemptError {
                    message: format!(
                        "the route file `{path}` does not begin with `host:port`: \"{}\"",
                        printable(&text.chars().take(100).collect::<String>())
                    ),
                    definite: false,
                })?
            }
            (None, Some(place)) => place.clone(),
            (None, None) => return Err(AttemptError { message: format!("the route file `{path}` is not there"), definite: false }),
        };
        self.watch.routed(&format!("`{place}`"));
        Ok(place)
    }

    async fn in_time<T>(
        &self,
        place: &Place,
        what: &str,
        action: impl Future<Output = Result<T, mysql_async::Error>>,
    ) -> Result<T, AttemptError> {
        match tokio::time::timeout(self.limit, action).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                // Who may come in and do what: no retry changes it.
                let definite = match &error {
                    mysql_async::Error::Server(error) => NOT_ALLOWED.contains(&error.code),
                    // New servers answer an account they don't know with a plugin drawn at random, one we may not speak.
                    mysql_async::Error::Driver(mysql_async::DriverError::UnknownAuthPlugin { .. }) => true,
                    _ => false,
                };
                let message = format!("{what} at `{place}` as `{}`: {}", self.user, printable(&error.to_string()));
                Err(AttemptError { message, definite })
            }
            Err(_) => Err(AttemptError { message: format!("{what} at `{place}`: no answer within {:?}", self.limit), definite: false }),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// `host:port` from the first line that says anything; `#` begins a remark.
pub(super) fn parse_route(text: &str) -> Option<Place> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let (host, port) = line.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let plain = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    plain.then(|| Place { host: host.to_owned(), port })
}

/// Host and port of `mysql://host:port/`, which holds no password.
pub(super) fn parse_url(argument: &str, url: &str) -> Result<Place, StepError> {
    let broken = |why: String| {
        StepError::definite(format!("`{argument}`: {why}"))
            .hint("write it as `mysql://host:port/`; user and password have arguments of their own")
    };
    // The text is not shown: it may hold a password.
    let options = Opts::from_url(url).map_err(|_| broken("it is not a `mysql://` address".to_owned()))?;
    if options.user().is_some_and(|user| !user.is_empty()) || options.pass().is_some() {
        return Err(broken("it holds a user or a password".to_owned()));
    }
    Ok(Place { host: options.ip_or_hostname().to_owned(), port: options.tcp_port() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_the_first_line_that_says_anything() {
        let place = |host: &str, port| Some(Place { host: host.to_owned(), port });
        assert_eq!(parse_route("10.0.0.5:3306\n"), place("10.0.0.5", 3306));
        assert_eq!(parse_route("# where clients go\n\n db-1.example:3307 \nother:1\n"), place("db-1.example", 3307));
        assert_eq!(parse_route("[::1]:3306"), place("::1", 3306));
        assert_eq!(parse_route("[::1]:3306").unwrap().to_string(), "[::1]:3306");
        for broken in ["", "db1", "db1:", "db1:0", "db1:99999", ":3306", "a b:1", "db1;x:1"] {
            assert_eq!(parse_route(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_url_with_a_password_is_refused_and_not_shown() {
        assert_eq!(parse_url("url", "mysql://db1:3307/").unwrap(), Place { host: "db1".to_owned(), port: 3307 });
        for url in ["mysql://app:hunter22@db1/", "mysql://app@db1/", "http://db1/", "hunter22"] {
            let error = parse_url("url", url).unwrap_err();
            assert!(!error.to_string().contains("hunter22"), "{error}");
        }
    }
}
