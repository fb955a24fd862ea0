//! `docs/reference/schema-rules.md`, made from the registry, so that no rule is without its page and no page without its rule.

use std::fmt::Write as _;

use super::rules;

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# What becomes of a table's definition\n\n\
         Made from the registry of rules; `DBMOVE_WRITE_REFERENCE=1 cargo test --lib the_rules_reference_is_of_this_build` writes it anew.\n\n\
         A table of the target is made from what `SHOW CREATE TABLE` prints on the source, changed by these rules in this order. \
         `dbmove schema diff PLAYBOOK` shows which of them fire, table by table, with a unified diff; the report keeps the same. \
         What no rule can carry exactly is refused by name before anything is created.\n\n\
         | rule | what it does |\n| --- | --- |\n",
    );
    // Writing into a String does not fail.
    for rule in rules::all() {
        let _ = writeln!(text, "| [{}](#{}) | {} |", rule.name, rule.name, rule.about);
    }
    for rule in rules::all() {
        let _ = write!(text, "\n## {}\n\n{} {}\n\nSource: {}\n", rule.name, rule.about, rule.why, rule.source);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_rules_reference_is_of_this_build() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/schema-rules.md");
        if std::env::var_os("DBMOVE_WRITE_REFERENCE").is_some() {
            std::fs::write(&path, super::markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == super::markdown(),
            "docs/reference/schema-rules.md is old: DBMOVE_WRITE_REFERENCE=1 cargo test --lib the_rules_reference"
        );
    }
}
