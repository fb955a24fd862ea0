//! Names that the target reads otherwise.

use std::collections::BTreeMap;

use super::{Check, Found, Gathered, Level, Part};

/// All of them.
pub const CHECKS: &[Check] = &[
    Check {
        id: "names-differ-by-case",
        level: Level::Error,
        about: "Tables whose names differ by case only, and a target that does not tell them apart.",
        why: "`lower_case_table_names` is fixed when a server is created; two tables would become one.",
        looks_at: &[Part::Catalog, Part::TargetSettings],
        never_accepted: Some("two tables would become one"),
        look: names_differ_by_case,
    },
    Check {
        id: "lower-case-table-names",
        level: Level::Warn,
        about: "Source and target treat the case of names differently.",
        why: "A query that writes a name in another case works on one of them only. It is fixed when a server is created.",
        looks_at: &[Part::SourceSettings, Part::TargetSettings],
        never_accepted: None,
        look: |gathered| lower_case_table_names(gathered.source.lower_case_table_names, gathered.target.lower_case_table_names),
    },
    Check {
        id: "hash-comment-names",
        level: Level::Error,
        about: "A name that begins with `#mysql50#`.",
        why: "Its directory or file was named by a server before 5.1; newer servers can't make such a name.",
        looks_at: &[Part::Catalog],
        never_accepted: Some("the name can't be made on the target"),
        look: hash_comment_names,
    },
];

/// Names that fold into one, by what they fold into.
fn collisions<'a>(names: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Vec<String>> {
    let mut folded: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (database, table) in names {
        folded.entry((database.to_lowercase(), table.to_lowercase())).or_default().push(format!("{database}.{table}"));
    }
    folded.into_values().filter(|names| names.len() > 1).collect()
}

fn names_differ_by_case(gathered: &Gathered) -> Vec<Found> {
    let target = gathered.target.lower_case_table_names;
    if target == 0 {
        return Vec::new();
    }
    let names = gathered.catalog.tables.keys().map(|name| (name.database.as_str(), name.table.as_str()));
    collisions(names)
        .into_iter()
        .map(|names| {
            Found::new(names.join(", "), format!("they are one name to the target, whose `lower_case_table_names` is {target}"))
                .evidence(
                    "information_schema.TABLES; SHOW GLOBAL VARIABLES LIKE 'lower_case_table_names' on the target",
                    target.to_string(),
                )
                .fix("rename one of them, or create the target with `lower_case_table_names = 0`")
        })
        .collect()
}

fn lower_case_table_names(source: u8, target: u8) -> Vec<Found> {
    if source == target {
        return Vec::new();
    }
    vec![
        Found::new("lower_case_table_names", format!("it is {source} on the source and {target} on the target"))
            .evidence("SHOW GLOBAL VARIABLES LIKE 'lower_case_table_names' on both", format!("{source}, {target}"))
            .fix("create the target with the source's value, or check that queries write every name as it was created"),
    ]
}

fn hash_comment_names(gathered: &Gathered) -> Vec<Found> {
    let old = |name: &str| name.starts_with("#mysql50#");
    let names = gathered.catalog.tables.keys().filter(|name| old(&name.database) || old(&name.table));
    names
        .map(|name| {
            Found::new(name.to_string(), "its name is written as servers before 5.1 did")
                .evidence("information_schema.TABLES", name.to_string())
                .fix("rename it (`ALTER DATABASE … UPGRADE DATA DIRECTORY NAME` for a database), or leave it out with `exclude`")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_collide_within_a_database_only() {
        let names = [("s", "T"), ("s", "t"), ("r", "t"), ("s", "u")];
        assert_eq!(collisions(names.into_iter()), [vec!["s.T".to_owned(), "s.t".to_owned()]]);
        assert!(collisions([("s", "t"), ("r", "T")].into_iter()).is_empty());
        assert_eq!((lower_case_table_names(0, 1).len(), lower_case_table_names(0, 0).len()), (1, 0));
    }
}
