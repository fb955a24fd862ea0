//! One writer's connection: opened along the route file, replaced after some hundred uses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use secrecy::SecretString;

use super::super::Endpoint;
use super::{PATIENCE, Record, WriterOptions};
use crate::mysql::sql;

/// A connection is replaced after so many uses.
const USES_PER_CONNECTION: u32 = 400;

/// A writer's connection.
pub(super) struct Session {
    route: PathBuf,
    user: String,
    password: SecretString,
    use_database: String,
    record: Arc<Record>,
    conn: Option<Conn>,
    pub(super) endpoint: String,
    uses: u32,
}

impl Session {
    pub(super) fn new(options: &WriterOptions, record: Arc<Record>) -> Self {
        Session {
            route: options.route.clone(),
            user: options.user.clone(),
            password: options.password.clone(),
            use_database: format!("USE {}", sql::identifier(&options.database)),
            record,
            conn: None,
            endpoint: String::new(),
            uses: 0,
        }
    }

    /// The connection and the `host:port` it goes to; opened along the route if there is none.
    pub(super) async fn connection(&mut self) -> Result<(&mut Conn, &str), mysql_async::Error> {
        if self.uses >= USES_PER_CONNECTION {
            self.close().await;
        }
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.connect().await?,
        };
        self.uses += 1;
        Ok((self.conn.insert(conn), &self.endpoint))
    }

    async fn connect(&mut self) -> Result<Conn, mysql_async::Error> {
        let (host, port) = match read_route(&self.route).await {
            Ok(route) => route,
            Err(what) => {
                self.record.setback("route", &what);
                return Err(mysql_async::Error::Other(what.into()));
            }
        };
        let endpoint = Endpoint { host, port, user: self.user.clone(), password: self.password.clone() };
        let mut conn = endpoint.connect_as_site().await?;
        conn.query_drop(&self.use_database).await?;
        // Behind a proxy the address says nothing of the server.
        let port: Option<u16> = conn.query_first("SELECT @@port").await?;
        self.record.connections.fetch_add(1, Ordering::AcqRel);
        self.endpoint = Endpoint { port: port.unwrap_or(endpoint.port), ..endpoint }.address();
        self.uses = 0;
        Ok(conn)
    }

    /// Whether the transaction could be rolled back and the connection used on.
    pub(super) async fn roll_back(&mut self) -> bool {
        match &mut self.conn {
            Some(conn) => matches!(tokio::time::timeout(PATIENCE, conn.query_drop("ROLLBACK")).await, Ok(Ok(()))),
            None => false,
        }
    }

    pub(super) fn drop_connection(&mut self) {
        self.conn = None;
    }

    pub(super) async fn close(&mut self) {
        if let Some(conn) = self.conn.take() {
            // The server closes it too; a goodbye that fails changes nothing.
            let _ = tokio::time::timeout(Duration::from_secs(1), conn.disconnect()).await;
        }
    }
}

/// Reads a route file: host and port.
pub(super) async fn read_route(path: &Path) -> Result<(String, u16), String> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())?;
    let line = text.trim();
    let (host, port) = line.rsplit_once(':').ok_or_else(|| format!("`{line}` is not `host:port`"))?;
    let port = port.parse().map_err(|_| format!("`{port}` is not a port"))?;
    Ok((host.to_owned(), port))
}
