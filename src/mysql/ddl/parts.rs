//! A `CREATE TABLE` as named parts, so that two printings of what should be one table can be compared part by part.
//!
//! Both have to be printed by the same server: then equal tables have equal parts, whatever forms that server prefers. The
//! AUTO_INCREMENT counter is no part (it moves with the rows), and neither are foreign keys, which a server keeps apart from the table.

use super::statement::{CreateTable, Item, ItemKind, TableOption};
use super::token::{Unreadable, render};

/// A part of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// What it is: "column `name`", "primary key", "index `by_name`", "option ENGINE", "partitions".
    pub what: String,
    /// As the server prints it, on one line.
    pub text: String,
}

/// The parts of a printed table, in order.
///
/// # Errors
/// What is not understood.
pub fn parts(statement: &str) -> Result<Vec<Part>, String> {
    let create = CreateTable::parse(statement).map_err(|Unreadable(why)| why)?;
    let items = create.items.iter().filter(|item| item.kind != ItemKind::ForeignKey);
    let mut parts: Vec<Part> = items.map(|item| Part { what: label(item), text: item.render() }).collect();
    let options = create.options.iter().filter(|option| option.name != "AUTO_INCREMENT");
    parts.extend(options.map(|option| Part { what: format!("option {}", option.name), text: TableOption::render(option) }));
    if !create.partitions.is_empty() {
        parts.push(Part { what: "partitions".to_owned(), text: render(&create.partitions) });
    }
    Ok(parts)
}

fn label(item: &Item) -> String {
    match item.kind {
        ItemKind::Column => format!("column `{}`", item.name),
        ItemKind::PrimaryKey => "primary key".to_owned(),
        ItemKind::UniqueIndex | ItemKind::Index | ItemKind::SpecialIndex => format!("index `{}`", item.name),
        ItemKind::Check => format!("check `{}`", item.name),
        ItemKind::ForeignKey => format!("foreign key `{}`", item.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_name() {
        let statement = "CREATE TABLE `t` (
  `id` int NOT NULL AUTO_INCREMENT,
  `e` enum('x,y',')') DEFAULT NULL COMMENT 'KEY `a`',
  PRIMARY KEY (`id`),
  UNIQUE KEY `u` (`e`(3)),
  CONSTRAINT `fk` FOREIGN KEY (`id`) REFERENCES `p` (`id`),
  CONSTRAINT `positive` CHECK ((`id` > 0))
) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb3
/*!50100 PARTITION BY HASH (`id`)
PARTITIONS 4 */";
        let parts = parts(statement).unwrap();
        let named: Vec<&str> = parts.iter().map(|part| part.what.as_str()).collect();
        assert_eq!(
            named,
            [
                "column `id`",
                "column `e`",
                "primary key",
                "index `u`",
                "check `positive`",
                "option ENGINE",
                "option DEFAULT CHARSET",
                "partitions"
            ]
        );
        assert_eq!(parts[1].text, "`e` enum('x,y',')') DEFAULT NULL COMMENT 'KEY `a`'");
        assert!(super::parts("CREATE VIEW `v` AS SELECT 1").is_err());
    }
}
