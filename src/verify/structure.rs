//! What differs around the rows: a table that is missing or was added, a column, an index, a constraint, a counter, a view.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::difference::printable;

/// A part of the structure that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StructureDifference {
    /// The table or other object, by its full name.
    pub object: String,
    /// Which part of it: "table", "column `name`", "index `by_name`", "foreign key `fk`", "AUTO_INCREMENT".
    pub what: String,
    /// What the target has to have, in its own words; none: nothing.
    pub expected: Option<String>,
    /// What it has; none: nothing.
    pub found: Option<String>,
    /// The whole object as a unified diff, with its first difference only.
    #[serde(default)]
    pub diff: String,
}

impl StructureDifference {
    /// A difference without a diff.
    #[must_use]
    pub fn new(object: impl ToString, what: impl Into<String>, expected: Option<String>, found: Option<String>) -> Self {
        StructureDifference { object: object.to_string(), what: what.into(), expected, found, diff: String::new() }
    }

    /// One line for a terminal or a log.
    #[must_use]
    pub fn line(&self) -> String {
        let shown = |text: &str| printable(text);
        let how = match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => format!("is {} on the target, has to be {}", shown(found), shown(expected)),
            (Some(expected), None) => format!("is missing on the target, has to be {}", shown(expected)),
            (None, Some(found)) => format!("is on the target only: {}", shown(found)),
            (None, None) => "differs".to_owned(),
        };
        format!("`{}` {}: {how}", printable(&self.object), printable(&self.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_names_object_part_and_both_values() {
        let line = |expected: Option<&str>, found: Option<&str>| {
            StructureDifference::new("school.rooms", "column `name`", expected.map(str::to_owned), found.map(str::to_owned)).line()
        };
        assert_eq!(line(Some("a"), Some("b")), "`school.rooms` column `name`: is b on the target, has to be a");
        assert_eq!(line(Some("a"), None), "`school.rooms` column `name`: is missing on the target, has to be a");
        assert_eq!(line(None, Some("b\u{1b}[2J")), "`school.rooms` column `name`: is on the target only: b\u{fffd}[2J");
    }
}
