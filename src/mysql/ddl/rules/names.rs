//! Names that no target can hold as they are.

use super::super::DdlError;
use super::super::statement::{CreateTable, ItemKind};
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "undecoded-name",
        about: "Refuses a table whose name begins with `#mysql50#`, or whose database's does.",
        why: "The mark says that the server could not decode the name of the table's file, which a server older than 5.1 wrote; a new server takes the mark for a part of the name.",
        source: "MySQL manual, \"Mapping of Identifiers to File Names\"; MySQL 5.5.34 shows such a name where a file's is not encoded.",
        apply: undecoded_name,
    },
    Rule {
        name: "innodb-names",
        about: "Refuses columns and indexes of names that InnoDB keeps for itself.",
        why: "Other engines know `DB_ROW_ID`, `DB_TRX_ID`, `DB_ROLL_PTR`, `FTS_DOC_ID` and `GEN_CLUST_INDEX` as names like any other; InnoDB refuses the table.",
        source: "MySQL manual, \"InnoDB Limits\"; errors 1166 and 1280 seen on 9.7.4 and MariaDB 10.11.",
        apply: innodb_names,
    },
];

fn innodb_names(create: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    const COLUMNS: [&str; 4] = ["DB_ROW_ID", "DB_TRX_ID", "DB_ROLL_PTR", "FTS_DOC_ID"];
    for item in &create.items {
        let (what, kept) = match item.kind {
            // This one is InnoDB's own if it is spelled and typed so.
            ItemKind::Column if item.name == "FTS_DOC_ID" => continue,
            ItemKind::Column => ("column", COLUMNS.iter().any(|name| name.eq_ignore_ascii_case(&item.name))),
            _ => ("index", item.is_index() && item.name.eq_ignore_ascii_case("GEN_CLUST_INDEX")),
        };
        if kept {
            return Err(
                context.refused(&format!("InnoDB keeps the name of its {what} `{}` for itself; rename it on the source", item.name))
            );
        }
    }
    Ok(())
}

fn undecoded_name(_: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    let named = &context.table.name;
    if [&named.database, &named.table].iter().any(|name| name.starts_with("#mysql50#")) {
        return Err(context.refused(
            "its name was never converted from before MySQL 5.1 (`#mysql50#`); rename it on the source (`RENAME TABLE`, or `ALTER DATABASE … UPGRADE DATA DIRECTORY NAME`)",
        ));
    }
    Ok(())
}
