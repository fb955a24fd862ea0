//! Walking two sides' rows: side by side along the key, or by counting where there is none.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::reading::{Cell, Layout, Row, Rows};
use super::{CompareError, Comparison, DifferenceKind, TableComparison};

/// Both sides come in the order of the key: whichever is behind has a row that the other lacks.
pub(super) async fn side_by_side(
    layout: &Layout,
    left: &mut Rows<'_>,
    right: &mut Rows<'_>,
    share: &mut TableComparison,
    comparison: &mut Comparison,
) -> Result<(), CompareError> {
    let (mut left_row, mut right_row) = tokio::try_join!(left.next(), right.next())?;
    loop {
        let order = match (&left_row, &right_row) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.key.cmp(&other.key),
        };
        if let (Ordering::Less, Some(row)) = (order, &left_row) {
            comparison.found(&layout.table, layout.show_key(&row.cells), DifferenceKind::RowMissing { times: 1 });
        }
        if let (Ordering::Greater, Some(row)) = (order, &right_row) {
            comparison.found(&layout.table, layout.show_key(&row.cells), DifferenceKind::RowExtra { times: 1 });
        }
        if let (Ordering::Equal, Some(one), Some(other)) = (order, &left_row, &right_row) {
            share.rows_compared += 1;
            compare_cells(layout, one, other, comparison);
        }
        share.left_rows += u64::from(order.is_le());
        share.right_rows += u64::from(order.is_ge());
        match order {
            Ordering::Less => left_row = left.next().await?,
            Ordering::Greater => right_row = right.next().await?,
            Ordering::Equal => (left_row, right_row) = tokio::try_join!(left.next(), right.next())?,
        }
    }
}

fn compare_cells(layout: &Layout, left: &Row, right: &Row, comparison: &mut Comparison) {
    for (index, (one, other)) in left.cells.iter().zip(&right.cells).enumerate() {
        if one != other {
            let column = layout.column(index).to_owned();
            let kind = DifferenceKind::Value { column, left: one.to_string(), right: other.to_string() };
            comparison.found(&layout.table, layout.show_key(&left.cells), kind);
        }
    }
}

/// Without a key a row is its values: each must be there as often on both sides.
pub(super) async fn by_count(
    layout: &Layout,
    left: &mut Rows<'_>,
    right: &mut Rows<'_>,
    share: &mut TableComparison,
    comparison: &mut Comparison,
) -> Result<(), CompareError> {
    // How many more there are on the left (negative: on the right).
    let mut surplus: BTreeMap<Vec<Cell>, i64> = BTreeMap::new();
    while let Some(row) = left.next().await? {
        share.left_rows += 1;
        *surplus.entry(row.cells).or_default() += 1;
    }
    let mut unmatched_right = 0;
    while let Some(row) = right.next().await? {
        share.right_rows += 1;
        let count = surplus.entry(row.cells).or_default();
        *count -= 1;
        unmatched_right += u64::from(*count < 0);
    }
    share.rows_compared = share.right_rows - unmatched_right;
    for (cells, count) in surplus {
        let times = count.unsigned_abs();
        match count.cmp(&0) {
            Ordering::Equal => {}
            Ordering::Greater => comparison.found(&layout.table, layout.show_key(&cells), DifferenceKind::RowMissing { times }),
            Ordering::Less => comparison.found(&layout.table, layout.show_key(&cells), DifferenceKind::RowExtra { times }),
        }
    }
    Ok(())
}
