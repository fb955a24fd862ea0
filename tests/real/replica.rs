//! Real replicas: one local server that replicates from another.

use dbmove::local::{Account, LocalServer, ServerKind};
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::connect;

/// Makes `replica` one of `primary`, from now on.
pub async fn replicate(primary: &LocalServer, replica: &LocalServer) -> Conn {
    let kind = primary.kind();
    let mut there = connect(primary, Account::Root).await;
    let asked = if kind == ServerKind::Mysql97 { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let row: mysql_async::Row = there.query_first(asked).await.unwrap().unwrap();
    let (file, offset): (String, u64) = (row.get(0).unwrap(), row.get(1).unwrap());
    let mut here = connect(replica, Account::Root).await;
    let port = primary.port();
    let (change, start) = if kind == ServerKind::Mysql97 {
        let change = format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'dbmove', SOURCE_PASSWORD = 'dbmove', \
             SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {offset}, GET_SOURCE_PUBLIC_KEY = 1"
        );
        (change, "START REPLICA")
    } else {
        let change = format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'dbmove', MASTER_PASSWORD = 'dbmove', \
             MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = {offset}"
        );
        (change, "START SLAVE")
    };
    here.query_drop(change).await.unwrap();
    here.query_drop(start).await.unwrap();
    here
}
