//! The queries behind [`Catalog::read`], one per kind of object.
//!
//! Column names are written as `information_schema` documents them and addressed by place: 8.0 and
//! later print headings in upper case whatever was asked. Rows are filtered by the selection here,
//! because `information_schema` compares names without regard to case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::connect::{Session, TextRow};
use super::super::error::{MysqlError, Result};
use super::super::names::{Selection, TableName};
use super::super::sql;
use super::super::table::{Column, ForeignKey, Index, IndexPart, ReferentialAction, Table};
use super::column::{ParsedType, parse};
use super::{Catalog, Database, ObjectKind, OtherObject};

impl Catalog {
    /// Reads the selected part of a server. The session's purpose has to be `Catalog`.
    ///
    /// # Errors
    /// If a query fails; if a table can't be opened by the server; if a column's type is unknown.
    pub async fn read(session: &mut Session, selection: &Selection) -> Result<Catalog> {
        Self::reading(session, selection, false).await
    }

    /// Reads what is known of the selected part of a server, to compare it: columns of other types, and unique indexes over
    /// expressions, are left out. Whoever compares the definitions themselves finds them.
    ///
    /// # Errors
    /// As [`Catalog::read`], but for a column's type.
    pub async fn read_known(session: &mut Session, selection: &Selection) -> Result<Catalog> {
        Self::reading(session, selection, true).await
    }

    async fn reading(session: &mut Session, selection: &Selection, only_known: bool) -> Result<Catalog> {
        // 8.0 and later answer with figures of up to a day ago unless told otherwise.
        if session.version.mysql_from((8, 0, 0)) {
            session.run("SET SESSION information_schema_stats_expiry = 0", "asking for current table sizes").await?;
        }
        let databases = databases(session, selection).await?;
        if databases.is_empty() {
            return Ok(Catalog::default());
        }
        let names = databases.iter().map(|database| sql::text(&database.name)).collect::<Vec<_>>().join(", ");
        let mut reading = Reading {
            selection: selection.clone(),
            only_known,
            catalog: Catalog { databases, ..Catalog::default() },
            tables: BTreeMap::new(),
        };
        for (query, what, take) in QUERIES {
            let query = query.replace("{databases}", &names);
            for row in session.rows(&query, what).await? {
                take(&mut reading, Fields(row))?;
            }
        }
        if misplaces(session) && reading.some_partitioned() {
            let query = LIST_COLUMNS.replace("{databases}", &names);
            for row in session.rows(&query, "reading the partitions").await? {
                let table = reading.tables.get_mut(&Fields(row).table());
                table.into_iter().for_each(|table| table.lookups_fail = true);
            }
        }
        let rules = rules(session, &names).await?;
        let query = KEY_COLUMNS.replace("{databases}", &names);
        for row in session.rows(&query, "reading the foreign keys").await? {
            reading.key_column(&Fields(row), &rules)?;
        }
        Ok(reading.finish())
    }
}

type Take = fn(&mut Reading, Fields) -> Result<()>;

const QUERIES: [(&str, &str, Take); 6] = [
    (
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_COLLATION, TABLE_ROWS, DATA_LENGTH, AUTO_INCREMENT, CREATE_OPTIONS, TABLE_COMMENT
         FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ({databases})",
        "reading the tables",
        Reading::table,
    ),
    (
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, COLLATION_NAME, EXTRA, COLUMN_DEFAULT
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN ({databases}) ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION",
        "reading the columns",
        Reading::column,
    ),
    (
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, INDEX_TYPE
         FROM information_schema.STATISTICS WHERE TABLE_SCHEMA IN ({databases}) ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
        "reading the indexes",
        Reading::index_part,
    ),
    (
        "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA IN ({databases})",
        "reading the routines",
        Reading::routine,
    ),
    (
        "SELECT TRIGGER_SCHEMA, TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA IN ({databases})",
        "reading the triggers",
        Reading::trigger,
    ),
    (
        "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA IN ({databases})",
        "reading the events",
        Reading::event,
    ),
];

const KEY_COLUMNS: &str =
    "SELECT TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, REFERENCED_COLUMN_NAME
     FROM information_schema.KEY_COLUMN_USAGE WHERE TABLE_SCHEMA IN ({databases}) AND REFERENCED_TABLE_NAME IS NOT NULL
     ORDER BY TABLE_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, ORDINAL_POSITION";

const LIST_COLUMNS: &str = "SELECT DISTINCT TABLE_SCHEMA, TABLE_NAME FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA IN ({databases}) AND PARTITION_METHOD = 'LIST COLUMNS'";

/// Whether the server may look into the wrong partition by LIST COLUMNS: seen on 5.5.34, mended in 5.7, and not known for the versions between.
fn misplaces(session: &Session) -> bool {
    !session.version.mariadb && session.version.mysql_from((5, 5, 0)) && !session.version.mysql_from((5, 7, 0))
}

const RULES: &str = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, DELETE_RULE, UPDATE_RULE
     FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA IN ({databases})";

/// A row of text, by place.
struct Fields(TextRow);

impl Fields {
    fn optional(&self, place: usize) -> Option<&str> {
        self.0.get(place).and_then(Option::as_deref)
    }

    fn text(&self, place: usize) -> String {
        self.optional(place).unwrap_or_default().to_owned()
    }

    fn number(&self, place: usize) -> Option<u64> {
        self.optional(place).and_then(|text| text.parse().ok())
    }

    /// The table named in the first two places.
    fn table(&self) -> TableName {
        TableName { database: self.text(0), table: self.text(1) }
    }
}

async fn databases(session: &mut Session, selection: &Selection) -> Result<Vec<Database>> {
    let query = "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA";
    let rows = session.rows(query, "reading the databases").await?;
    let mut databases: Vec<Database> = rows
        .into_iter()
        .map(Fields)
        .filter(|row| selection.touches_database(&row.text(0)))
        .map(|row| Database { name: row.text(0), charset: row.text(1), collation: row.text(2) })
        .collect();
    databases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(databases)
}

/// ON DELETE and ON UPDATE, by table and constraint.
type Rules = BTreeMap<(TableName, String), (ReferentialAction, ReferentialAction)>;

async fn rules(session: &mut Session, names: &str) -> Result<Rules> {
    let rows = session.rows(&RULES.replace("{databases}", names), "reading the foreign keys' rules").await?;
    let action = |text: Option<&str>| match text {
        Some("CASCADE") => ReferentialAction::Cascade,
        Some("SET NULL") => ReferentialAction::SetNull,
        // InnoDB refuses SET DEFAULT when the table is made.
        _ => ReferentialAction::Restrict,
    };
    Ok(rows.into_iter().map(Fields).map(|row| ((row.table(), row.text(2)), (action(row.optional(3)), action(row.optional(4))))).collect())
}

/// A table's comment without the free space and foreign keys that 5.1 appends to it.
fn own_comment(comment: &str) -> &str {
    comment.split("InnoDB free:").next().unwrap_or_default().trim_end_matches([';', ' '])
}

/// A catalog in the making.
struct Reading {
    selection: Selection,
    /// What is not known is left out, and no error.
    only_known: bool,
    catalog: Catalog,
    tables: BTreeMap<TableName, Table>,
}

impl Reading {
    fn some_partitioned(&self) -> bool {
        self.catalog.details.values().any(|details| details.first().is_some_and(|options| options.contains("partitioned")))
    }

    fn table(&mut self, row: Fields) -> Result<()> {
        let name = row.table();
        if !self.selection.contains(&name.database, &name.table) {
            return Ok(());
        }
        match row.optional(2).unwrap_or_default() {
            "BASE TABLE" => {}
            "VIEW" | "SYSTEM VIEW" => {
                self.other(ObjectKind::View, name.database, name.table);
                return Ok(());
            }
            "SEQUENCE" => {
                self.other(ObjectKind::Sequence, name.database, name.table);
                return Ok(());
            }
            other => {
                return Err(MysqlError::Object {
                    message: format!("`{name}` is of the kind `{other}`, which dbmove does not carry"),
                    hint: "leave it out with `exclude`, or make a plain table of it".to_owned(),
                });
            }
        }
        let Some(engine) = row.optional(3) else {
            let said = row.text(9);
            return Err(MysqlError::Object {
                message: format!("the server can't open `{name}`: {said}"),
                hint: "repair or drop it on the source (`CHECK TABLE`), or leave it out with `exclude`".to_owned(),
            });
        };
        self.catalog.details.insert(name.clone(), vec![row.text(8), own_comment(&row.text(9)).to_owned()]);
        let table = Table {
            engine: engine.to_owned(),
            collation: row.text(4),
            row_estimate: row.number(5).unwrap_or(0),
            data_bytes: row.number(6).unwrap_or(0),
            auto_increment: row.number(7),
            columns: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            lookups_fail: false,
            name: name.clone(),
        };
        self.tables.insert(name, table);
        Ok(())
    }

    fn column(&mut self, row: Fields) -> Result<()> {
        let Some(table) = self.tables.get_mut(&row.table()) else {
            return Ok(());
        };
        let (name, type_text) = (row.text(2), row.text(3));
        let Some(ParsedType { kind, unsigned, zerofill }) = parse(&type_text) else {
            if self.only_known {
                return Ok(());
            }
            return Err(MysqlError::Object {
                message: format!("column `{name}` of `{}` has the type `{type_text}`, which dbmove does not know", table.name),
                hint: "leave the table out with `exclude`, or change the column's type on the source".to_owned(),
            });
        };
        let extra = row.text(7).to_ascii_lowercase();
        // Old MariaDB says `VIRTUAL` and `PERSISTENT`; `DEFAULT_GENERATED` only marks a default.
        let generated = extra.split([' ', ',']).any(|word| matches!(word, "virtual" | "stored" | "persistent"));
        self.catalog.details.entry(table.name.clone()).or_default().push(format!("{:?} {extra}", row.optional(8)));
        table.columns.push(Column {
            kind,
            type_text,
            unsigned,
            zerofill,
            nullable: row.optional(4) == Some("YES"),
            charset: row.optional(5).map(str::to_owned),
            collation: row.optional(6).map(str::to_owned),
            auto_increment: extra.contains("auto_increment"),
            generated,
            name,
        });
        Ok(())
    }

    fn index_part(&mut self, row: Fields) -> Result<()> {
        let Some(table) = self.tables.get_mut(&row.table()) else {
            return Ok(());
        };
        let (name, unique, method) = (row.text(2), row.optional(3) == Some("0"), row.text(6));
        let Some(column) = row.optional(4).and_then(|column| table.column(column)) else {
            // 8.0 and later: a part that is an expression. It can't collide unless the index is unique. Or its column was left out.
            if unique && !self.only_known {
                return Err(MysqlError::Object {
                    message: format!("the unique index `{name}` of `{}` is over an expression, which dbmove can't follow", table.name),
                    hint: "leave the table out with `exclude`, or index a generated column instead".to_owned(),
                });
            }
            self.catalog.details.entry(table.name.clone()).or_default().push(format!("expression in index {name}"));
            return Ok(());
        };
        // A spatial index always claims a prefix of 32 bytes.
        let prefix = row.number(5).and_then(|prefix| u32::try_from(prefix).ok()).filter(|_| method != "SPATIAL");
        let part = IndexPart { column, prefix };
        match table.indexes.iter_mut().find(|index| index.name == name) {
            Some(index) => index.parts.push(part),
            None => table.indexes.push(Index { name, unique, method, parts: vec![part] }),
        }
        Ok(())
    }

    fn key_column(&mut self, row: &Fields, rules: &Rules) -> Result<()> {
        let name = row.table();
        let Some(table) = self.tables.get_mut(&name) else {
            return Ok(());
        };
        let (constraint, column) = (row.text(2), row.text(3));
        let Some(place) = table.column(&column) else {
            return Err(MysqlError::Object {
                message: format!("the foreign key `{constraint}` of `{name}` names the column `{column}`, which the table does not have"),
                hint: "the table was altered while the catalog was read; start again".to_owned(),
            });
        };
        match table.foreign_keys.iter_mut().find(|key| key.name == constraint) {
            Some(key) => {
                key.columns.push(place);
                key.parent_columns.push(row.text(6));
            }
            None => {
                let Some(&(on_delete, on_update)) = rules.get(&(name.clone(), constraint.clone())) else {
                    return Err(MysqlError::Object {
                        message: format!(
                            "the server does not say what the foreign key `{constraint}` of `{name}` does on delete and update"
                        ),
                        hint: "the table was altered while the catalog was read, or the account lacks privileges on it; start again"
                            .to_owned(),
                    });
                };
                table.foreign_keys.push(ForeignKey {
                    columns: vec![place],
                    parent: TableName { database: row.text(4), table: row.text(5) },
                    parent_columns: vec![row.text(6)],
                    on_delete,
                    on_update,
                    name: constraint,
                });
            }
        }
        Ok(())
    }

    fn routine(&mut self, row: Fields) -> Result<()> {
        let kind = match row.optional(2) {
            Some("FUNCTION") => ObjectKind::Function,
            Some("PROCEDURE") => ObjectKind::Procedure,
            _ => ObjectKind::Package,
        };
        self.other(kind, row.text(0), row.text(1));
        Ok(())
    }

    fn trigger(&mut self, row: Fields) -> Result<()> {
        if self.selection.contains(&row.text(0), &row.text(2)) {
            self.other(ObjectKind::Trigger, row.text(0), row.text(1));
        }
        Ok(())
    }

    fn event(&mut self, row: Fields) -> Result<()> {
        self.other(ObjectKind::Event, row.text(0), row.text(1));
        Ok(())
    }

    fn other(&mut self, kind: ObjectKind, database: String, name: String) {
        if self.catalog.databases.iter().any(|known| known.name == database) {
            self.catalog.others.push(OtherObject { kind, database, name });
        }
    }

    fn finish(mut self) -> Catalog {
        // A view is listed once as a table and never as anything else; sorting makes readings equal.
        self.catalog.others = self.catalog.others.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        for (name, mut table) in self.tables {
            table.indexes.sort_by(|a, b| (a.name != "PRIMARY", !a.unique, &a.name).cmp(&(b.name != "PRIMARY", !b.unique, &b.name)));
            self.catalog.tables.insert(name, Arc::new(table));
        }
        self.catalog
    }
}
