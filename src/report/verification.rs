//! What verifying steps leave in the journal, and how it is read.
//!
//! A verifying step keeps its [`verify::report::Verification`](crate::verify::report::Verification) as a result of kind [`RESULT`] (so that it is
//! there when rows differ and the step fails), or as the fact of that name in its output. The recorded result is looked at
//! first. What can't be read is a remark in the report, never silence.

use super::model::{Difference, StructureDifference, Table, Verification};
use crate::verify::difference::{ChangedColumn, DifferenceKind, REDACTED};
use crate::verify::report::{self, Coverage};

/// The kind under which a step records its verification, and the name of the fact.
pub const RESULT: &str = "verification";

/// A step's verification as the report shows it.
///
/// # Errors
/// In words, if the JSON is no verification.
pub fn read(step: &str, value: &serde_json::Value) -> Result<Verification, String> {
    let found: report::Verification = serde_json::from_value(value.clone())
        .map_err(|error| format!("what step `{step}` recorded as its verification can't be read: {error}"))?;
    Ok(view(step, &found))
}

/// The same from the model itself.
#[must_use]
pub fn view(step: &str, found: &report::Verification) -> Verification {
    Verification {
        step: step.to_owned(),
        verdict: match found.verdict() {
            report::Verdict::Equal => "equal",
            report::Verdict::Different => "different",
            report::Verdict::Incomplete => "incomplete",
        }
        .to_owned(),
        rows: found.rows(),
        tables: found.tables.iter().map(table).collect(),
        difference_count: found.difference_count,
        differences: found.differences.iter().map(difference).collect(),
        structure: found.structure.iter().map(|found| StructureDifference { difference: found.clone(), line: found.line() }).collect(),
        structure_tables: found.structure_tables,
        foreign: found.foreign.clone(),
        not_compared: found.not_compared.clone(),
        outside: found.outside.clone(),
        repaired_count: found.repaired_count,
        repaired: found.repaired.iter().map(difference).collect(),
        run_root: found.run_root.map(|root| root.to_string()),
    }
}

fn table(table: &report::TableResult) -> Table {
    Table {
        table: table.table.clone(),
        rows: table.rows,
        bytes: table.bytes,
        chunks: table.chunks,
        seconds: table.seconds,
        method: table.method.clone(),
        coverage: match table.coverage {
            Coverage::Full => "every row".to_owned(),
            Coverage::Changed { keys } => format!("{keys} changed keys"),
            Coverage::Partial { chunks_left } => format!("partly, {chunks_left} chunks left"),
        },
        verified_at: table.verified_at.clone(),
        differences: table.differences,
        root: table.root.map(|root| root.to_string()),
    }
}

fn difference(difference: &crate::verify::difference::Difference) -> Difference {
    let (kind, columns) = match &difference.kind {
        DifferenceKind::Missing => ("missing", Vec::new()),
        DifferenceKind::Extra => ("extra", Vec::new()),
        DifferenceKind::DuplicateCount { .. } => ("duplicate_count", Vec::new()),
        DifferenceKind::Changed { columns } => ("changed", columns.clone()),
    };
    Difference {
        table: difference.table.clone(),
        key: difference.key.clone(),
        kind: kind.to_owned(),
        columns,
        line: difference.line(),
        repair_sql: difference.repair_sql.clone(),
    }
}

/// Takes every value of the data out of a verification: what differs stays countable and locatable by table and column.
pub fn redact(verification: &mut Verification) {
    for difference in verification.differences.iter_mut().chain(&mut verification.repaired) {
        difference.key = REDACTED.to_owned();
        difference.repair_sql = None;
        difference.columns.iter_mut().for_each(ChangedColumn::redact);
        let columns: Vec<String> = difference.columns.iter().map(|column| format!("`{}`", column.name)).collect();
        difference.line = format!("`{}` {REDACTED}: {} {}", difference.table, difference.kind, columns.join(", ")).trim_end().to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::difference::Difference as Found;

    fn found() -> report::Verification {
        let mut found = report::Verification::default();
        let columns = vec![ChangedColumn { name: "name".into(), source: "'Ann'".into(), target: "'Bob'".into() }];
        found.push(Found {
            table: "school.students".into(),
            key: "id = 7".into(),
            kind: DifferenceKind::Changed { columns },
            repair_sql: Some("UPDATE".into()),
        });
        found
    }

    #[test]
    fn reads_what_a_step_recorded() {
        let view = read("rows", &serde_json::to_value(found()).unwrap()).unwrap();
        assert_eq!((view.verdict.as_str(), view.difference_count), ("different", 1));
        assert_eq!(view.differences[0].columns[0].target, "'Bob'");
        assert!(read("rows", &serde_json::json!({"tables": 3})).unwrap_err().contains("`rows`"));
    }

    #[test]
    fn redacts_every_value() {
        let mut view = view("rows", &found());
        redact(&mut view);
        let text = serde_json::to_string(&view).unwrap();
        assert!(!text.contains("Ann") && !text.contains("Bob") && !text.contains("id = 7") && !text.contains("UPDATE"), "{text}");
        assert!(text.contains("school.students") && text.contains("name"));
    }
}
