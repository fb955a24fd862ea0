//! Tables of other engines than InnoDB.

use super::{Check, Found, Gathered, Level, Part};

const BECOMES: &str = "It becomes InnoDB on the target: FULLTEXT searches, locking and `COUNT(*)` behave otherwise there.";

/// All of them.
pub const CHECKS: &[Check] = &[
    engine("engine-myisam", Level::Warn, "A MyISAM (or Aria) table.", BECOMES, |gathered| of(gathered, &["MyISAM", "Aria"], KEPT)),
    engine(
        "engine-archive",
        Level::Warn,
        "An ARCHIVE table.",
        "It becomes InnoDB on the target and needs several times the room.",
        |gathered| of(gathered, &["ARCHIVE"], KEPT),
    ),
    engine(
        "engine-memory",
        Level::Warn,
        "A MEMORY table.",
        "Its rows are gone after a restart of the source, and a restart in the middle of a move would be taken for deletes that never were logged.",
        |gathered| {
            of(
                gathered,
                &["MEMORY", "HEAP"],
                "leave it out with `exclude` and let the application fill it, or make it InnoDB on the source",
            )
        },
    ),
    engine(
        "engine-merge",
        Level::Error,
        "A MERGE table.",
        "It holds no rows of its own: they would be moved twice, and the target has no such engine for InnoDB tables.",
        |gathered| {
            of(
                gathered,
                &["MRG_MyISAM", "MRG_MYISAM", "MERGE"],
                "leave it out with `exclude`, and make a view with UNION ALL on the target",
            )
        },
    ),
    engine(
        "engine-federated",
        Level::Error,
        "A FEDERATED table.",
        "Its rows live on another server, which would be read through the source; managed targets have no such engine.",
        |gathered| of(gathered, &["FEDERATED"], "leave it out with `exclude`, and move the server that holds the rows"),
    ),
    engine(
        "engine-csv",
        Level::Warn,
        "A CSV or BLACKHOLE table.",
        "CSV tables have no indexes and are read as a whole; BLACKHOLE tables hold nothing.",
        |gathered| of(gathered, &["CSV", "BLACKHOLE"], "make it InnoDB on the source, or leave it out with `exclude`"),
    ),
];

const KEPT: &str = "check FULLTEXT searches and table-level locking in the application";

const fn engine(id: &'static str, level: Level, about: &'static str, why: &'static str, look: fn(&Gathered) -> Vec<Found>) -> Check {
    Check { id, level, about, why, looks_at: &[Part::Catalog], never_accepted: None, look }
}

fn of(gathered: &Gathered, engines: &[&str], fix: &str) -> Vec<Found> {
    let tables = gathered.catalog.tables.values().filter(|table| engines.iter().any(|engine| engine.eq_ignore_ascii_case(&table.engine)));
    tables
        .map(|table| {
            Found::new(table.name.to_string(), format!("its engine is {}", table.engine))
                .evidence("information_schema.TABLES.ENGINE", &table.engine)
                .fix(fix)
        })
        .collect()
}
