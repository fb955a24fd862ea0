//! Storage engines: what has rows becomes InnoDB, what has none is refused.

use super::super::DdlError;
use super::super::statement::CreateTable;
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "engine-without-rows",
        about: "Refuses MERGE, FEDERATED and BLACKHOLE, and engines dbmove does not know.",
        why: "They hold no rows of their own: whoever has them decides what they become.",
        source: "MySQL manual, \"Alternative Storage Engines\".",
        apply: engine_without_rows,
    },
    Rule {
        name: "myisam-to-innodb",
        about: "Makes InnoDB of MyISAM.",
        why: "Managed servers take nothing else, and MyISAM loses rows in a crash.",
        source: "Amazon RDS user guide, \"Supported storage engines for RDS for MySQL\".",
        apply: |create, _, changes| to_innodb(create, &["myisam"], changes),
    },
    Rule {
        name: "aria-to-innodb",
        about: "Makes InnoDB of Aria.",
        why: "Aria is MariaDB's own and is not transactional.",
        source: "MariaDB documentation, \"Aria Storage Engine\".",
        apply: |create, _, changes| to_innodb(create, &["aria"], changes),
    },
    Rule {
        name: "archive-to-innodb",
        about: "Makes InnoDB of ARCHIVE.",
        why: "ARCHIVE has no indexes to follow changes by, and an AUTO_INCREMENT table of it fails to load on MySQL 9.x. The table takes several times the space, uncompressed.",
        source: "MySQL manual, \"The ARCHIVE Storage Engine\"; error 1022 seen on 9.7.4.",
        apply: |create, _, changes| to_innodb(create, &["archive"], changes),
    },
    Rule {
        name: "memory-to-innodb",
        about: "Makes InnoDB of MEMORY.",
        why: "A MEMORY table is emptied when its server starts; the InnoDB table is not, which an application may have to know.",
        source: "MySQL manual, \"The MEMORY Storage Engine\".",
        apply: |create, _, changes| to_innodb(create, &["memory", "heap"], changes),
    },
    Rule {
        name: "csv-to-innodb",
        about: "Makes InnoDB of CSV.",
        why: "CSV has no indexes and no transactions. Who read the file itself has to be told.",
        source: "MySQL manual, \"The CSV Storage Engine\".",
        apply: |create, _, changes| to_innodb(create, &["csv"], changes),
    },
];

/// The engine, in lower case.
fn engine(create: &CreateTable, context: &Context<'_>) -> Result<String, DdlError> {
    let engine = create.options.iter().find(|option| option.name == "ENGINE");
    engine.map(|engine| engine.value.to_ascii_lowercase()).ok_or_else(|| context.refused("its statement names no storage engine"))
}

fn engine_without_rows(create: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    Err(context.refused(match engine(create, context)?.as_str() {
        "innodb" | "myisam" | "aria" | "archive" | "memory" | "heap" | "csv" => return Ok(()),
        "mrg_myisam" | "merge" => {
            "a MERGE table shows other tables' rows and has none of its own; exclude it, and make a view over its tables (UNION ALL) on the target"
        }
        "federated" => "a FEDERATED table's rows are on another server; exclude it, and move them from there if they are needed",
        "blackhole" => "a BLACKHOLE table keeps no rows; exclude it, and create it by hand where something writes to it",
        other => return Err(context.refused(&format!("dbmove does not know how to make InnoDB of the engine `{other}`"))),
    }))
}

fn to_innodb(create: &mut CreateTable, engines: &[&str], changes: &mut Changes) -> Result<(), DdlError> {
    let option = create.options.iter_mut().find(|option| option.name == "ENGINE");
    if let Some(option) = option.filter(|option| engines.iter().any(|engine| option.value.eq_ignore_ascii_case(engine))) {
        let before = option.render();
        option.value = "InnoDB".to_owned();
        changes.note(before, option.render());
    }
    Ok(())
}
