//! The accounts each private server comes with, and what makes a target RDS-like.
//!
//! | account | where | holds |
//! | --- | --- | --- |
//! | `root`, no password, from 127.0.0.1 | everywhere | everything; the test's own hand. On an RDS-like server it stands for the provider |
//! | `dbmove` | not on RDS-like servers | ALL, SUPER included: what a source's owner can give |
//! | `app` | everywhere | data access on every database, no SUPER: stands for the application |
//! | `admin` | RDS-like servers | what the RDS user guide lists for the master user, and no more |
//!
//! The RDS-like profile follows the guide's *Master user account privileges* and *Role-based privilege model*: on
//! MySQL the master user holds `rds_superuser_role`, may read but not write the `mysql` and `sys` schemas (partial
//! revokes), and is refused `SET GLOBAL` for want of SYSTEM_VARIABLES_ADMIN and the global read lock for want of RELOAD; what it may do instead are the
//! procedures `mysql.rds_*`. MariaDB has no partial revokes; there the master user's privileges are global.
//!
//! Accounts are part of the template, so a start pays nothing for them; only a password of the caller's choosing is
//! set after the start.

use super::ServerKind;

/// The password of every account but `root`, unless [`ServerOptions::password`](super::ServerOptions::password) sets
/// another. A private server on loopback keeps nothing secret; this is a name, not a secret.
pub const DEFAULT_PASSWORD: &str = "dbmove";

/// An account of a private server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Everything, without a password, from loopback.
    Root,
    /// All privileges with SUPER. Not on RDS-like servers.
    Dbmove,
    /// The application: data access, no SUPER.
    App,
    /// The RDS master user. Only on RDS-like servers.
    Admin,
}

impl Account {
    /// The account's user name.
    pub fn user(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Dbmove => "dbmove",
            Self::App => "app",
            Self::Admin => "admin",
        }
    }

    /// The accounts that have a password on such a server.
    pub(super) fn with_password(rds_like: bool) -> [Self; 2] {
        [Self::App, if rds_like { Self::Admin } else { Self::Dbmove }]
    }
}

/// The statement that gives `account` another password; `?` is not allowed in it by any server, so the caller
/// passes the password already quoted.
pub(super) fn password_statement(kind: ServerKind, account: Account, quoted_password: &str) -> String {
    let user = account.user();
    match kind {
        ServerKind::Mysql559 | ServerKind::Mysql55 | ServerKind::Mysql5614 | ServerKind::Mysql56 => {
            format!("SET PASSWORD FOR '{user}'@'%' = PASSWORD({quoted_password})")
        }
        ServerKind::Mysql97 | ServerKind::MariaDb => {
            format!("ALTER USER '{user}'@'%' IDENTIFIED BY {quoted_password}")
        }
    }
}

/// Lines for `--init-file`: the first account that can come in over loopback.
pub(super) fn first_account(kind: ServerKind) -> &'static str {
    match kind {
        ServerKind::Mysql559 | ServerKind::Mysql55 | ServerKind::Mysql5614 | ServerKind::Mysql56 => {
            "GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n"
        }
        ServerKind::Mysql97 | ServerKind::MariaDb => {
            "CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';\n\
             GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;\n"
        }
    }
}

/// What is run once as `root` on a new template, in order.
pub(super) fn statements(kind: ServerKind, rds_like: bool) -> Vec<String> {
    let mut statements = Vec::new();
    let mut add = |statement: &str| statements.push(statement.to_owned());

    // Accounts without a name match before named ones and would shadow them.
    if matches!(kind, ServerKind::Mysql559 | ServerKind::Mysql55 | ServerKind::Mysql5614 | ServerKind::Mysql56) {
        add("DELETE FROM mysql.user WHERE User = ''");
        add("DELETE FROM mysql.db WHERE User = ''");
        add("FLUSH PRIVILEGES");
    }
    add(&create(Account::App));
    add("GRANT SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, SHOW VIEW ON *.* TO 'app'@'%'");
    if rds_like {
        statements.extend(rds(kind));
    } else {
        add(&create(Account::Dbmove));
        add("GRANT ALL PRIVILEGES ON *.* TO 'dbmove'@'%' WITH GRANT OPTION");
    }
    statements
}

fn create(account: Account) -> String {
    format!("CREATE USER '{}'@'%' IDENTIFIED BY '{DEFAULT_PASSWORD}'", account.user())
}

/// What the user guide lists for the master user on both engines, but RELOAD: RDS and Aurora grant it and refuse `FLUSH TABLES WITH READ LOCK`
/// all the same, with 1045. Here the grant is what has to be left out, and the refusal is 1227.
const MASTER_PRIVILEGES: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, PROCESS, REFERENCES, INDEX, \
    ALTER, SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, \
    CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER";

/// What the role may not do in the `mysql` and `sys` schemas.
const SYSTEM_SCHEMA_REVOKED: &str = "INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, \
    CREATE TEMPORARY TABLES, LOCK TABLES, CREATE VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER";

fn rds(kind: ServerKind) -> Vec<String> {
    let mut statements = vec![
        "CREATE USER 'rdsadmin'@'localhost' ACCOUNT LOCK".to_owned(),
        "GRANT ALL PRIVILEGES ON *.* TO 'rdsadmin'@'localhost' WITH GRANT OPTION".to_owned(),
        create(Account::Admin),
    ];
    if kind == ServerKind::MariaDb {
        statements.push(format!("GRANT {MASTER_PRIVILEGES} ON *.* TO 'admin'@'%' WITH GRANT OPTION"));
    } else {
        statements.extend([
            "CREATE ROLE 'rds_superuser_role'@'%'".to_owned(),
            format!("GRANT {MASTER_PRIVILEGES}, CREATE ROLE, DROP ROLE ON *.* TO 'rds_superuser_role'@'%' WITH GRANT OPTION"),
            "GRANT APPLICATION_PASSWORD_ADMIN, ROLE_ADMIN, SET_ANY_DEFINER, XA_RECOVER_ADMIN ON *.* \
             TO 'rds_superuser_role'@'%' WITH GRANT OPTION"
                .to_owned(),
            format!("REVOKE {SYSTEM_SCHEMA_REVOKED} ON mysql.* FROM 'rds_superuser_role'@'%'"),
            format!("REVOKE {SYSTEM_SCHEMA_REVOKED} ON sys.* FROM 'rds_superuser_role'@'%'"),
            "GRANT 'rds_superuser_role'@'%' TO 'admin'@'%' WITH ADMIN OPTION".to_owned(),
            "ALTER USER 'admin'@'%' DEFAULT ROLE 'rds_superuser_role'@'%'".to_owned(),
        ]);
    }
    statements.extend(RDS_PROCEDURES.iter().map(|statement| (*statement).to_owned()));
    statements
}

/// What RDS offers in place of SUPER, as far as a migration uses it. The bodies are ours; names, parameters and the
/// accepted values follow the user guide's reference of stored procedures.
const RDS_PROCEDURES: &[&str] = &[
    "CREATE TABLE mysql.rds_configuration (
        name varchar(100) NOT NULL PRIMARY KEY,
        value varchar(100) DEFAULT NULL,
        description varchar(300) NOT NULL
    ) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4",
    "INSERT INTO mysql.rds_configuration VALUES
        ('binlog retention hours', NULL, 'hours to keep binary logs before they may be deleted; NULL: as soon as possible'),
        ('source delay', '0', 'seconds a read replica waits before it applies'),
        ('target delay', '0', 'seconds this replica waits before it applies')",
    "CREATE DEFINER='rdsadmin'@'localhost' PROCEDURE mysql.rds_show_configuration()
        SELECT name, value, description FROM mysql.rds_configuration ORDER BY name",
    "CREATE DEFINER='rdsadmin'@'localhost' PROCEDURE mysql.rds_set_configuration(IN name_ varchar(100), IN value_ int)
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM mysql.rds_configuration c WHERE c.name = name_) THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ERROR (RDS): unknown configuration parameter';
        END IF;
        IF name_ = 'binlog retention hours' AND value_ NOT BETWEEN 1 AND 168 THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ERROR (RDS): binlog retention hours must be NULL or from 1 to 168';
        END IF;
        UPDATE mysql.rds_configuration c SET c.value = value_ WHERE c.name = name_;
    END",
    "CREATE DEFINER='rdsadmin'@'localhost' PROCEDURE mysql.rds_kill(IN processID bigint)
    BEGIN
        IF EXISTS (SELECT 1 FROM information_schema.processlist p WHERE p.id = processID AND p.user = 'rdsadmin') THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ERROR (RDS): CANNOT KILL RDSADMIN SESSION';
        END IF;
        KILL CONNECTION processID;
    END",
    "CREATE DEFINER='rdsadmin'@'localhost' PROCEDURE mysql.rds_kill_query(IN processID bigint)
    BEGIN
        IF EXISTS (SELECT 1 FROM information_schema.processlist p WHERE p.id = processID AND p.user = 'rdsadmin') THEN
            SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'ERROR (RDS): CANNOT KILL RDSADMIN QUERY';
        END IF;
        KILL QUERY processID;
    END",
];
