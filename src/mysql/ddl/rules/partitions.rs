//! Partitions.

use super::super::DdlError;
use super::super::statement::CreateTable;
use super::super::token::{Token, find, render};
use super::{Changes, Context, Rule};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "partition-engine",
    about: "Makes each partition's engine InnoDB, and drops its places on the source's disk.",
    why: "Partitions name their engine again, each: it has to be the table's. Directories of the source mean nothing to the target.",
    source: "MySQL manual, \"Partitioning Limitations Relating to Storage Engines\".",
    apply: partition_engine,
}];

fn partition_engine(create: &mut CreateTable, _: &Context<'_>, changes: &mut Changes) -> Result<(), DdlError> {
    let tokens = &mut create.partitions;
    while let Some(at) = find(tokens, &["DATA", "DIRECTORY"]).or_else(|| find(tokens, &["INDEX", "DIRECTORY"])) {
        let value = at + 2 + usize::from(tokens.get(at + 2).is_some_and(|token| token.is("=")));
        let dropped: Vec<Token> = tokens.drain(at..(value + 1).min(tokens.len())).collect();
        changes.note(format!("PARTITION … {}", render(&dropped)), "");
    }
    let mut converted = None;
    for place in 2..create.partitions.len() {
        if create.partitions[place - 2].is("ENGINE") && create.partitions[place - 1].is("=") && !create.partitions[place].is("InnoDB") {
            converted = Some(create.partitions[place].text.clone());
            create.partitions[place].text = "InnoDB".to_owned();
        }
    }
    if let Some(engine) = converted {
        changes.note(format!("PARTITION … ENGINE = {engine}"), "PARTITION … ENGINE = InnoDB");
    }
    Ok(())
}
