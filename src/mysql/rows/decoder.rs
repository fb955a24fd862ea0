//! The pairing of a table map with the catalog's table, and the rows it then reads.

use std::sync::Arc;

use super::super::cell::{Cell, Row};
use super::super::table::Table;
use super::event::{RowsEvent, RowsKind};
use super::field::{Field, Mismatch};
use super::reader::{Broken, Reader, bit};
use super::table_map::TableMap;
use super::{RowChange, RowsError};

/// Reads the rows of one table, as one table map describes them. Made once per table map.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: Arc<Table>,
    fields: Vec<Field>,
}

impl Decoder {
    /// Compares the two descriptions of the table.
    ///
    /// # Errors
    /// [`RowsError::SchemaChanged`] if they disagree in number or type of columns,
    /// [`RowsError::Unsupported`] if a column is of a format dbmove does not read.
    pub fn new(map: &TableMap, table: Arc<Table>) -> Result<Self, RowsError> {
        if map.columns.len() != table.columns.len() {
            let column = match table.columns.get(map.columns.len()) {
                Some(column) => format!("`{}`", column.name),
                None => format!("number {}", table.columns.len() + 1),
            };
            let message = format!("the log has {} columns, the catalog has {}", map.columns.len(), table.columns.len());
            return Err(RowsError::SchemaChanged { table: table.name.clone(), column, message });
        }
        let mut fields = Vec::with_capacity(table.columns.len());
        for (&wire_column, column) in map.columns.iter().zip(&table.columns) {
            fields.push(Field::pair(wire_column, column).map_err(|mismatch| match mismatch {
                Mismatch::Changed(message) => {
                    RowsError::SchemaChanged { table: table.name.clone(), column: format!("`{}`", column.name), message }
                }
                Mismatch::Unsupported(message, hint) => {
                    RowsError::Unsupported { place: format!("`{}`, column `{}`", table.name, column.name), message, hint }
                }
            })?);
        }
        Ok(Decoder { table, fields })
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The event's rows, decoded one by one as they are asked for.
    ///
    /// # Errors
    /// [`RowsError::PartialImage`] if the event leaves out a column that is not generated,
    /// [`RowsError::Malformed`] if it has another number of columns.
    pub fn changes<'a>(&'a self, event: &RowsEvent<'a>) -> Result<Changes<'a>, RowsError> {
        if event.columns != self.fields.len() || self.fields.is_empty() {
            return Err(self.malformed(format!("it has {} columns, its table map has {}", event.columns, self.fields.len())));
        }
        let before = match event.kind {
            RowsKind::Insert => None,
            RowsKind::Update | RowsKind::Delete => Some(self.image(&event.before)?),
        };
        let after = match event.kind {
            RowsKind::Delete => None,
            RowsKind::Insert | RowsKind::Update => Some(self.image(&event.after)?),
        };
        Ok(Changes { decoder: self, before, after, reader: Reader::new(event.rows) })
    }

    /// Which columns an image holds. Generated ones may be missing: they are never written.
    fn image(&self, present: &[u8]) -> Result<Image, RowsError> {
        let present: Vec<bool> = (0..self.fields.len()).map(|index| bit(present, index)).collect();
        if let Some((column, _)) = self.table.columns.iter().zip(&present).find(|(column, present)| !**present && !column.generated) {
            return Err(RowsError::PartialImage { table: self.table.name.clone(), column: column.name.clone() });
        }
        let null_bytes = present.iter().filter(|present| **present).count().div_ceil(8);
        if null_bytes == 0 {
            return Err(self.malformed("no column is present".to_owned()));
        }
        Ok(Image { present, null_bytes })
    }

    fn malformed(&self, message: String) -> RowsError {
        RowsError::Malformed { place: format!("`{}`", self.table.name), message }
    }
}

/// Which columns a row image holds.
#[derive(Clone, Debug)]
struct Image {
    present: Vec<bool>,
    null_bytes: usize,
}

/// The rows of one event. Ends after the first error.
#[derive(Debug)]
pub struct Changes<'a> {
    decoder: &'a Decoder,
    before: Option<Image>,
    after: Option<Image>,
    reader: Reader<'a>,
}

impl Changes<'_> {
    fn read(&mut self) -> Result<RowChange, RowsError> {
        let mut read = |image: &Option<Image>| match image {
            Some(image) => read_row(self.decoder, image, &mut self.reader).map(Some),
            None => Ok(None),
        };
        Ok(RowChange { before: read(&self.before)?, after: read(&self.after)? })
    }
}

impl Iterator for Changes<'_> {
    type Item = Result<RowChange, RowsError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let change = self.read();
        if change.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(change)
    }
}

/// One image: a bitmap of NULLs over the present columns, then the values of those that are not NULL.
fn read_row(decoder: &Decoder, image: &Image, reader: &mut Reader<'_>) -> Result<Row, RowsError> {
    let nulls = reader.take(image.null_bytes).map_err(|Broken(message)| decoder.malformed(message))?;
    let mut row = Row::with_capacity(decoder.fields.len());
    let mut place = 0;
    for (index, field) in decoder.fields.iter().enumerate() {
        if !image.present[index] {
            row.push(Cell::Null);
            continue;
        }
        let null = bit(nulls, place);
        place += 1;
        row.push(if null {
            Cell::Null
        } else {
            field
                .read(reader)
                .map_err(|Broken(message)| decoder.malformed(format!("column `{}`: {message}", decoder.table.columns[index].name)))?
        });
    }
    Ok(row)
}
