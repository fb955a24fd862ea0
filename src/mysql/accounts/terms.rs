//! What the target takes, and what moves: all that is needed to say what becomes of an account.

use std::collections::{BTreeMap, BTreeSet};

use super::super::catalog::Catalog;
use super::super::catalog::ObjectKind;
use super::super::catalog::facts::{Privileges, like};
use super::super::connect::{Purpose, Session, Version};
use super::super::error::Result;
use super::super::names::TableName;
use super::super::objects;
use super::super::sql;
use super::super::store::{Described, MysqlStore};
use super::model::{AccountName, GRANT_OPTION, Place};
use crate::playbook::model::{ObjectsOption, Template};

/// What decides.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The target's version.
    pub version: Version,
    /// Privileges that the target knows, in upper case.
    pub known: BTreeSet<String>,
    /// Plugins by which the target can judge a password.
    pub plugins: BTreeSet<String>,
    /// What our account may do there.
    pub privileges: Privileges,
    /// Our account there may let accounts act in other accounts' names.
    pub proxies: bool,
    /// On the target `%` and `_` in a database's name are characters like any other.
    pub literal_names: bool,
    /// Users as which dbmove itself connects.
    pub own: BTreeSet<String>,
    /// Databases that move.
    pub databases: BTreeSet<String>,
    /// Tables that move, and their columns.
    pub tables: BTreeMap<TableName, BTreeSet<String>>,
    /// Views that move.
    pub views: BTreeSet<TableName>,
    /// Procedures that move.
    pub procedures: BTreeSet<TableName>,
    /// Functions that move.
    pub functions: BTreeSet<TableName>,
    /// In whose name moved objects run, as the source prints it: `user@host`.
    pub definers: BTreeSet<String>,
    /// New passwords, by `user@host` as written in the playbook.
    pub passwords: BTreeMap<String, Template>,
}

impl Terms {
    /// Reads them; `definers` are those of moved objects ([`definers`]). Nothing is changed.
    ///
    /// # Errors
    /// If a server can't be read.
    pub async fn read(store: &MysqlStore, described: &Described, definers: BTreeSet<String>) -> Result<Terms> {
        let mut target = Session::open(&store.target, Purpose::Catalog).await?;
        let mut known: BTreeSet<String> = BTreeSet::new();
        for row in target.rows("SHOW PRIVILEGES", "reading which privileges there are").await? {
            known.extend(row.into_iter().next().flatten().map(|name| name.to_ascii_uppercase()));
        }
        let query = "SELECT PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_TYPE = 'AUTHENTICATION' AND PLUGIN_STATUS = 'ACTIVE'";
        let rows = target.rows(query, "reading how passwords are judged").await?;
        let plugins = rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
        let row = target.first("SELECT CURRENT_USER()", "reading our own account").await?;
        let own = row.and_then(|row| row.into_iter().next().flatten()).unwrap_or_default();
        let proxies = match AccountName::parse(&own) {
            Some(own) => {
                let query = format!(
                    "SELECT 1 FROM mysql.proxies_priv WHERE User = {} AND Host = {} AND Proxied_user = '' AND With_grant = 1",
                    sql::text(&own.user),
                    sql::text(&own.host)
                );
                match target.first(&query, "reading in whose name our account may act").await {
                    Ok(row) => row.is_some(),
                    Err(error) if error.code().is_some() && !error.transient() => false,
                    Err(error) => return Err(error),
                }
            }
            None => false,
        };
        target.close().await;
        let mut terms = Terms {
            version: described.target.version.clone(),
            known,
            plugins,
            privileges: described.target.privileges.clone(),
            proxies,
            literal_names: described.target.variables.get("partial_revokes").is_some_and(|value| value.eq_ignore_ascii_case("on")),
            own: [store.source.user.clone(), store.target.user.clone()].into(),
            passwords: store.settings.passwords.clone(),
            ..Terms::default()
        };
        terms.moving(&described.catalog, |object| {
            store.settings.objects == ObjectsOption::Move && objects::is_moved(object.kind) && objects::selects(&store.selection, object)
        });
        if store.settings.objects == ObjectsOption::Move {
            terms.definers = definers;
        }
        Ok(terms)
    }

    /// Takes in what moves.
    pub(super) fn moving(&mut self, catalog: &Catalog, moves: impl Fn(&super::super::catalog::OtherObject) -> bool) {
        self.databases = catalog.databases.iter().map(|database| database.name.clone()).collect();
        let columns = |table: &super::super::table::Table| table.columns.iter().map(|column| column.name.clone()).collect();
        self.tables = catalog.tables.iter().map(|(name, table)| (name.clone(), columns(table))).collect();
        for object in catalog.others.iter().filter(|object| moves(object)) {
            let name = TableName::new(&object.database, &object.name);
            match object.kind {
                ObjectKind::View => drop(self.views.insert(name)),
                ObjectKind::Procedure => drop(self.procedures.insert(name)),
                ObjectKind::Function => drop(self.functions.insert(name)),
                _ => {}
            }
        }
    }

    /// The databases that move and that a name or pattern in a grant means.
    #[must_use]
    pub fn meant(&self, pattern: &str) -> Vec<&String> {
        self.databases.iter().filter(|name| like(pattern, name)).collect()
    }

    /// Whether our account on the target may grant this there.
    #[must_use]
    pub fn may_grant(&self, privilege: &str, place: &Place) -> bool {
        let database = match place {
            Place::Server | Place::Proxy(_) => None,
            Place::Database(database)
            | Place::Table(database, _)
            | Place::Column(database, _, _)
            | Place::Procedure(database, _)
            | Place::Function(database, _) => Some(database),
        };
        let holds = |privilege: &str| match database {
            Some(database) => self.privileges.has(privilege) || self.privileges.has_on(privilege, database),
            None => self.privileges.has(privilege),
        };
        holds(privilege) && holds(GRANT_OPTION)
    }
}

/// In whose names moved objects run, as the source prints it. Of an object that our account may not see nobody is named.
///
/// # Errors
/// If the source can't be read.
pub async fn definers(store: &MysqlStore) -> Result<BTreeSet<String>> {
    let described = store.described().await?;
    if described.catalog.databases.is_empty() || store.settings.objects == ObjectsOption::Leave {
        return Ok(BTreeSet::new());
    }
    let mut source = Session::open(&store.source, Purpose::Catalog).await?;
    let list: Vec<String> = described.catalog.databases.iter().map(|database| sql::text(&database.name)).collect();
    let mut definers = BTreeSet::new();
    for (table, schema) in
        [("VIEWS", "TABLE_SCHEMA"), ("ROUTINES", "ROUTINE_SCHEMA"), ("TRIGGERS", "TRIGGER_SCHEMA"), ("EVENTS", "EVENT_SCHEMA")]
    {
        let query = format!("SELECT DISTINCT DEFINER FROM information_schema.{table} WHERE {schema} IN ({})", list.join(", "));
        let rows = source.rows(&query, "reading who the objects belong to").await?;
        definers.extend(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()));
    }
    source.close().await;
    Ok(definers)
}
