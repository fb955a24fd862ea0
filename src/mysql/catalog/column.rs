//! A column's type from what the server prints: `int(10) unsigned zerofill`, `enum('a','b')`.
//!
//! Only the printed type is trusted: `DATA_TYPE` says `int` for signed and unsigned alike, and the
//! numeric columns of `information_schema` differ between servers. Display widths (`int(10)`, gone
//! in 8.0.19 and later) carry no meaning for values.

use super::super::table::ColumnType;

/// What a printed type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParsedType {
    pub(super) kind: ColumnType,
    pub(super) unsigned: bool,
    pub(super) zerofill: bool,
}

/// Reads a printed type; nothing if dbmove does not know it.
pub(super) fn parse(printed: &str) -> Option<ParsedType> {
    let printed = printed.trim();
    let base_end = printed.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(printed.len());
    let (base, rest) = printed.split_at(base_end);
    let base = base.to_ascii_lowercase();
    // The arguments of ENUM and SET are not numbers and may hold anything; nothing of theirs is needed.
    let (numbers, flags) = if matches!(base.as_str(), "enum" | "set") { (Vec::new(), "") } else { arguments(rest)? };
    let flags = flags.to_ascii_lowercase();
    let flag = |name: &str| flags.split_whitespace().any(|word| word == name);
    let first = |default: u32| numbers.first().copied().unwrap_or(default);
    let fraction = || u8::try_from(first(0)).ok().filter(|&digits| digits <= 6);
    use ColumnType as C;
    let kind = match base.as_str() {
        "tinyint" => C::TinyInt,
        "smallint" => C::SmallInt,
        "mediumint" => C::MediumInt,
        "int" => C::Int,
        "bigint" => C::BigInt,
        "float" => C::Float,
        "double" => C::Double,
        "decimal" => {
            let scale = numbers.get(1).copied().unwrap_or(0);
            C::Decimal { precision: u8::try_from(first(10)).ok()?, scale: u8::try_from(scale).ok()? }
        }
        "date" => C::Date,
        "time" => C::Time(fraction()?),
        "datetime" => C::DateTime(fraction()?),
        "timestamp" => C::Timestamp(fraction()?),
        "year" if first(4) == 2 => C::Year2,
        "year" => C::Year,
        "char" => C::Char,
        "varchar" => C::VarChar,
        "binary" => C::Binary(first(1)),
        "varbinary" => C::VarBinary,
        "tinytext" | "text" | "mediumtext" | "longtext" => C::Text,
        "tinyblob" | "blob" | "mediumblob" | "longblob" => C::Blob,
        "enum" => C::Enum,
        "set" => C::Set,
        "bit" => C::Bit(u8::try_from(first(1)).ok()?),
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
        | "geomcollection" => C::Geometry,
        "json" => C::Json,
        _ => return None,
    };
    // ZEROFILL makes a column unsigned, whether or not the server prints both.
    Some(ParsedType { kind, unsigned: flag("unsigned") || flag("zerofill"), zerofill: flag("zerofill") })
}

/// The numbers in the parentheses, and what follows them.
fn arguments(rest: &str) -> Option<(Vec<u32>, &str)> {
    let Some(inside) = rest.strip_prefix('(') else {
        return Some((Vec::new(), rest));
    };
    let (inside, flags) = inside.split_once(')')?;
    let numbers = inside.split(',').map(|number| number.trim().parse().ok()).collect::<Option<Vec<u32>>>()?;
    Some((numbers, flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(printed: &str) -> ColumnType {
        parse(printed).unwrap().kind
    }

    #[test]
    fn old_and_new_servers_print_the_same_type_differently() {
        assert_eq!(parse("int(10) unsigned"), parse("int unsigned"));
        assert_eq!(parse("year(4)"), parse("year"));
        assert_eq!(kind("int(11)"), ColumnType::Int);
        assert_eq!(kind("year(2)"), ColumnType::Year2);
        assert_eq!(kind("geometrycollection"), kind("geomcollection"));
    }

    #[test]
    fn signs_and_zerofill() {
        let zerofill = parse("decimal(65,30) unsigned zerofill").unwrap();
        assert!(zerofill.unsigned && zerofill.zerofill);
        assert_eq!(zerofill.kind, ColumnType::Decimal { precision: 65, scale: 30 });
        assert!(parse("int(8) zerofill").unwrap().unsigned);
        assert!(!parse("float(7,2)").unwrap().unsigned);
    }

    #[test]
    fn member_texts_are_not_read_as_flags() {
        let parsed = parse("enum('unsigned zerofill',') unsigned','a''b')").unwrap();
        assert_eq!(parsed, ParsedType { kind: ColumnType::Enum, unsigned: false, zerofill: false });
    }

    #[test]
    fn fractions_and_widths() {
        assert_eq!(kind("datetime(6)"), ColumnType::DateTime(6));
        assert_eq!(kind("time /* mariadb-5.3 */"), ColumnType::Time(0));
        assert_eq!(kind("binary(16)"), ColumnType::Binary(16));
        assert_eq!(kind("bit(64)"), ColumnType::Bit(64));
        assert_eq!(parse("timestamp(7)"), None);
    }

    #[test]
    fn unknown_types_are_not_guessed() {
        for printed in ["vector(3)", "inet6", "uuid", "int(x)", "", "(", "decimal(999,2)"] {
            assert_eq!(parse(printed), None, "{printed}");
        }
    }
}
