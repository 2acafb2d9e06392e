//! SQL's names for Arrow's types, as shown under a column's header and in `.schema`.

use arrow::datatypes::{DataType, TimeUnit};

/// The type as SQL spells it.
pub fn type_name(t: &DataType) -> String {
    let name = match t {
        DataType::Null => "null",
        DataType::Boolean => "boolean",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "integer",
        DataType::Int64 => "bigint",
        DataType::UInt8 => "tinyint unsigned",
        DataType::UInt16 => "smallint unsigned",
        DataType::UInt32 => "integer unsigned",
        DataType::UInt64 => "bigint unsigned",
        DataType::Float16 => "float16",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "varchar",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "blob"
        }
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Time32(_) | DataType::Time64(_) => "time",
        DataType::Duration(_) | DataType::Interval(_) => "interval",
        DataType::Timestamp(TimeUnit::Second, None) => "timestamp(0)",
        DataType::Timestamp(TimeUnit::Millisecond, None) => "timestamp(3)",
        DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp",
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "timestamp(9)",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => return format!("decimal({p},{s})"),
        DataType::List(f)
        | DataType::LargeList(f)
        | DataType::ListView(f)
        | DataType::LargeListView(f)
        | DataType::FixedSizeList(f, _) => return format!("{}[]", type_name(f.data_type())),
        DataType::Struct(fields) => {
            let parts: Vec<_> =
                fields.iter().map(|f| format!("{} {}", f.name(), type_name(f.data_type()))).collect();
            return format!("struct({})", parts.join(", "));
        }
        DataType::Map(entries, _) => {
            if let DataType::Struct(kv) = entries.data_type()
                && let [k, v] = kv.as_ref()
            {
                return format!("map({}, {})", type_name(k.data_type()), type_name(v.data_type()));
            }
            "map"
        }
        DataType::Dictionary(_, v) => return type_name(v),
        DataType::RunEndEncoded(_, v) => return type_name(v.data_type()),
        DataType::Union(_, _) => "union",
    };
    name.to_owned()
}

/// Whether values line up on the right.
pub fn is_numeric(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(_, v) => is_numeric(v),
        t => t.is_numeric(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::Field;
    use std::sync::Arc;

    #[test]
    fn nested_types() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Decimal128(15, 2), true)));
        let t = DataType::Struct(
            vec![Field::new("a", list, true), Field::new("b", DataType::Utf8View, true)].into(),
        );
        assert_eq!(type_name(&t), "struct(a decimal(15,2)[], b varchar)");
    }
}
