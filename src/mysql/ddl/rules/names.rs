//! Names that no target can hold as they are.

use super::super::DdlError;
use super::super::statement::CreateTable;
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "undecoded-name",
    about: "Refuses a table whose name begins with `#mysql50#`, or whose database's does.",
    why: "The mark says that the server could not decode the name of the table's file, which a server older than 5.1 wrote; a new server takes the mark for a part of the name.",
    source: "MySQL manual, \"Mapping of Identifiers to File Names\"; MySQL 5.5.34 shows such a name where a file's is not encoded.",
    apply: undecoded_name,
}];

fn undecoded_name(_: &mut CreateTable, context: &Context<'_>, _: &mut Changes) -> Result<(), DdlError> {
    let named = &context.table.name;
    if [&named.database, &named.table].iter().any(|name| name.starts_with("#mysql50#")) {
        return Err(context.refused(
            "its name was never converted from before MySQL 5.1 (`#mysql50#`); rename it on the source (`RENAME TABLE`, or `ALTER DATABASE … UPGRADE DATA DIRECTORY NAME`)",
        ));
    }
    Ok(())
}
