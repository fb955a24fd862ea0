//! `docs/reference/assess.md`, made from the registry, so that no check is without its page and no page without its check.

use std::fmt::Write as _;

use super::checks;

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# What `dbmove assess` looks for\n\n\
         Made from the registry of checks; `DBMOVE_WRITE_REFERENCE=1 cargo test --lib the_reference_is_of_this_build` writes it anew.\n\n\
         An `error` refuses the run (exit code 4) until it is mended, or accepted in the playbook with a reason:\n\n\
         ```yaml\n    - id: assess\n      run: mysql.assess\n      store: school\n      with:\n        accept:\n          \
         - { id: engine-myisam, object: \"school.*\", reason: \"nobody searches by FULLTEXT here\" }\n```\n\n\
         Rows are looked at on both ends of each table; `--deep`, or `rows: all` there, looks at every one. `--try` creates the \
         converted schema on the rehearsal target, reports every statement that the server refuses or warns of, and drops it again.\n\n\
         | id | level | what it finds |\n| --- | --- | --- |\n",
    );
    // Writing into a String does not fail.
    for check in checks::all() {
        let _ = writeln!(text, "| [{}](#{}) | {} | {} |", check.id, check.id, check.level, check.about);
    }
    for check in checks::all() {
        let _ = write!(text, "\n## {}\n\n{} ({}). {}\n", check.id, check.about.trim_end_matches('.'), check.level, check.why);
        let parts: Vec<&str> = check.looks_at.iter().map(|part| part.words()).collect();
        let _ = writeln!(text, "\nLooks at: {}.", parts.join("; "));
        if let Some(why) = check.never_accepted {
            let _ = writeln!(text, "\nCan't be accepted: {why}.");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_reference_is_of_this_build() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/assess.md");
        if std::env::var_os("DBMOVE_WRITE_REFERENCE").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, super::markdown()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == super::markdown(), "docs/reference/assess.md is old: DBMOVE_WRITE_REFERENCE=1 cargo test --lib the_reference");
    }
}
