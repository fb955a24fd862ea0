//! The tables of `fixtures/mysql/types.sql`, as the catalog would give them.

use dbmove::mysql::names::TableName;
use dbmove::mysql::table::{Column, ColumnType, Table};

use ColumnType::*;

fn column(name: &str, kind: ColumnType) -> Column {
    Column {
        name: name.to_owned(),
        kind,
        type_text: format!("{kind:?}"),
        unsigned: false,
        zerofill: false,
        nullable: true,
        charset: kind.is_text().then(|| "utf8".to_owned()),
        collation: kind.is_text().then(|| "utf8_general_ci".to_owned()),
        auto_increment: false,
        generated: false,
    }
}

fn unsigned(name: &str, kind: ColumnType) -> Column {
    Column { unsigned: true, ..column(name, kind) }
}

fn wide() -> Vec<Column> {
    let numbers = (1..=17).map(|number| column(&format!("c{number}"), Int));
    std::iter::once(column("id", Int)).chain(numbers).collect()
}

pub fn wide_with_extra() -> Table {
    let mut table = table("wide");
    table.columns.insert(1, column("extra", VarChar));
    table
}

pub fn table(name: &str) -> Table {
    let decimal = |precision, scale| Decimal { precision, scale };
    let columns = match name {
        "ints" => vec![
            column("id", Int),
            column("t", TinyInt),
            unsigned("tu", TinyInt),
            column("s", SmallInt),
            unsigned("su", SmallInt),
            column("m", MediumInt),
            unsigned("mu", MediumInt),
            column("i", Int),
            unsigned("iu", Int),
            column("b", BigInt),
            unsigned("bu", BigInt),
            Column { zerofill: true, ..unsigned("z", Int) },
        ],
        "reals" => vec![
            column("id", Int),
            column("f", Float),
            column("d", Double),
            column("fd", Float),
            column("dd", Double),
            column("de", decimal(65, 30)),
            column("d0", decimal(10, 0)),
            column("d1", decimal(5, 5)),
        ],
        "times" => vec![
            column("id", Int),
            column("d", Date),
            column("t", Time(0)),
            column("dt", DateTime(0)),
            column("ts", Timestamp(0)),
            column("y", Year),
            column("y2", Year2),
        ],
        "texts" => {
            let charset = |name: &str, kind, charset: &str| Column { charset: Some(charset.to_owned()), ..column(name, kind) };
            vec![
                column("id", Int),
                column("c", Char),
                column("cu", Char),
                column("v", VarChar),
                charset("vl", VarChar, "latin1"),
                column("vu", VarChar),
                column("vb", VarBinary),
                column("bn", Binary(8)),
                column("tt", Text),
                charset("tx", Text, "latin1"),
                column("mt", Text),
                charset("cy", VarChar, "cp1251"),
                charset("gb", VarChar, "gbk"),
                charset("sj", VarChar, "sjis"),
                charset("uc", VarChar, "ucs2"),
            ]
        }
        "blobs" => vec![column("id", Int), column("tb", Blob), column("b", Blob), column("mb", Blob), column("lb", Blob)],
        "sets" => vec![
            column("id", Int),
            column("e", Enum),
            column("e2", Enum),
            column("s", Set),
            column("s64", Set),
            column("b1", Bit(1)),
            column("b9", Bit(9)),
            column("b64", Bit(64)),
        ],
        "geo" => vec![column("id", Int), column("g", Geometry)],
        "keys2" => vec![column("class_id", Int), column("student", VarChar), column("grade", decimal(5, 2))],
        "nokey" => vec![column("a", Int), column("b", VarChar)],
        "wide" => wide(),
        "parent" => vec![column("id", Int)],
        "child" => vec![column("id", Int), column("parent_id", Int)],
        "parts" => vec![column("id", Int), column("d", Date)],
        other => panic!("no table {other} in types.sql"),
    };
    Table {
        name: TableName::new("school", name),
        engine: "InnoDB".to_owned(),
        collation: "utf8_general_ci".to_owned(),
        row_estimate: 0,
        data_bytes: 0,
        auto_increment: None,
        columns,
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        lookups_fail: false,
    }
}
