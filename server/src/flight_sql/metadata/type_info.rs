//! The types that SQL has, as ODBC and JDBC list them.

use std::sync::LazyLock;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow_flight::sql::metadata::{XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Nullable, Searchable, XdbcDataType};

use crate::flight_sql::type_name::{precision_and_scale, type_name};

/// All types.
pub fn all() -> &'static XdbcTypeInfoData {
    static ALL: LazyLock<XdbcTypeInfoData> = LazyLock::new(|| {
        let mut builder = XdbcTypeInfoDataBuilder::new();
        for (of, number) in TYPES {
            builder.append(info(of, *number));
        }
        builder.build().expect("invariant: every type is complete")
    });
    &ALL
}

const TYPES: &[(DataType, XdbcDataType)] = &[
    (DataType::Boolean, XdbcDataType::XdbcBit),
    (DataType::Int8, XdbcDataType::XdbcTinyint),
    (DataType::Int16, XdbcDataType::XdbcSmallint),
    (DataType::Int32, XdbcDataType::XdbcInteger),
    (DataType::Int64, XdbcDataType::XdbcBigint),
    (DataType::UInt8, XdbcDataType::XdbcTinyint),
    (DataType::UInt16, XdbcDataType::XdbcSmallint),
    (DataType::UInt32, XdbcDataType::XdbcInteger),
    (DataType::UInt64, XdbcDataType::XdbcBigint),
    (DataType::Float32, XdbcDataType::XdbcReal),
    (DataType::Float64, XdbcDataType::XdbcDouble),
    (DataType::Decimal128(38, 10), XdbcDataType::XdbcDecimal),
    (DataType::Utf8, XdbcDataType::XdbcVarchar),
    (DataType::Binary, XdbcDataType::XdbcVarbinary),
    (DataType::Date32, XdbcDataType::XdbcDate),
    (DataType::Time64(TimeUnit::Microsecond), XdbcDataType::XdbcTime),
    (DataType::Timestamp(TimeUnit::Microsecond, None), XdbcDataType::XdbcTimestamp),
    (DataType::Interval(IntervalUnit::MonthDayNano), XdbcDataType::XdbcInterval),
];

fn info(of: &DataType, number: XdbcDataType) -> XdbcTypeInfo {
    let name = type_name(of).to_owned();
    let text = *of == DataType::Utf8;
    let prefix = match of {
        DataType::Utf8 => Some("'"),
        DataType::Date32 => Some("DATE '"),
        DataType::Time64(_) => Some("TIME '"),
        DataType::Timestamp(..) => Some("TIMESTAMP '"),
        DataType::Interval(_) => Some("INTERVAL '"),
        _ => None,
    };
    let decimal = matches!(of, DataType::Decimal128(..));
    XdbcTypeInfo {
        local_type_name: Some(name.clone()),
        type_name: name,
        data_type: number,
        sql_data_type: number,
        column_size: precision_and_scale(of).map(|(precision, _)| precision),
        literal_prefix: prefix.map(str::to_owned),
        literal_suffix: prefix.map(|_| "'".to_owned()),
        create_params: decimal.then(|| vec!["precision".to_owned(), "scale".to_owned()]),
        nullable: Nullable::NullabilityNullable,
        case_sensitive: text,
        searchable: Searchable::Full,
        unsigned_attribute: of.is_numeric().then(|| of.is_unsigned_integer()),
        fixed_prec_scale: false,
        auto_increment: Some(false),
        minimum_scale: decimal.then_some(0),
        maximum_scale: decimal.then_some(38),
        num_prec_radix: of.is_numeric().then_some(10),
        ..XdbcTypeInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_type_or_all() {
        assert_eq!(all().record_batch(None).unwrap().num_rows(), TYPES.len());
        assert_eq!(all().record_batch(Some(XdbcDataType::XdbcVarchar as i32)).unwrap().num_rows(), 1);
    }
}
