//! Table options that only another engine, another disk or another server reads.

use super::super::DdlError;
use super::super::statement::{CreateTable, TableOption};
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "engine-options",
        about: "Drops options that only another engine reads, or that name places on the source's disk; an option it does not know is refused.",
        why: "InnoDB ignores them with a warning or refuses the table, and a directory of the source is none of the target.",
        source: "MySQL manual, \"CREATE TABLE Statement\", table options.",
        apply: engine_options,
    },
    Rule {
        name: "row-format-dynamic",
        about: "Gives DYNAMIC to every table that asks for a row format or a block size.",
        why: "FIXED is MyISAM's, COMPACT and REDUNDANT limit keys to 767 bytes, COMPRESSED is not to be had everywhere.",
        source: "MySQL manual, \"InnoDB Row Formats\" and \"InnoDB Limits\".",
        apply: row_format_dynamic,
    },
];

/// Drops what is known to mean nothing; what is not known might mean something, so it is refused.
fn engine_options(create: &mut CreateTable, context: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    const KEPT: [&str; 15] = [
        "ENGINE",
        "AUTO_INCREMENT",
        "CHARSET",
        "DEFAULT CHARSET",
        "CHARACTER SET",
        "DEFAULT CHARACTER SET",
        "COLLATE",
        "COMMENT",
        "ROW_FORMAT",
        "KEY_BLOCK_SIZE",
        "MAX_ROWS",
        "MIN_ROWS",
        "AVG_ROW_LENGTH",
        "STATS_PERSISTENT",
        "STATS_AUTO_RECALC",
    ];
    const DROPPED: [&str; 12] = [
        "CHECKSUM",
        "DELAY_KEY_WRITE",
        "PACK_KEYS",
        "PAGE_CHECKSUM",
        "TRANSACTIONAL",
        "DATA DIRECTORY",
        "INDEX DIRECTORY",
        "TABLESPACE",
        "TABLE_CHECKSUM",
        "STATS_SAMPLE_PAGES",
        "PAGE_COMPRESSED",
        "PAGE_COMPRESSION_LEVEL",
    ];
    if let Some(unknown) =
        create.options.iter().find(|option| !KEPT.contains(&option.name.as_str()) && !DROPPED.contains(&option.name.as_str()))
    {
        return Err(context.refused(&format!("dbmove does not know its option `{}`", unknown.render())));
    }
    create.options.retain(|option| {
        let drop = DROPPED.contains(&option.name.as_str());
        if drop {
            changes.note(option.render(), "");
        }
        !drop
    });
    Ok(())
}

fn row_format_dynamic(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let asked = |option: &TableOption| matches!(option.name.as_str(), "ROW_FORMAT" | "KEY_BLOCK_SIZE");
    let before: Vec<String> = create.options.iter().filter(|option| asked(option)).map(TableOption::render).collect();
    if before.is_empty() {
        return Ok(());
    }
    create.options.retain(|option| !asked(option));
    let dynamic = TableOption::new("ROW_FORMAT", "DYNAMIC");
    if before != [dynamic.render()] {
        changes.note(before.join(" "), dynamic.render());
    }
    create.options.push(dynamic);
    Ok(())
}
