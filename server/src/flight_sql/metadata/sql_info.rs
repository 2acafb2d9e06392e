//! What the server and its SQL can do, by Flight SQL's numbers.

use std::sync::LazyLock;

use arrow_flight::sql::SqlInfo;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};

/// Of the Arrow libraries that the server is built with.
const ARROW_VERSION: &str = arrow::ARROW_VERSION;

/// Everything that is told.
pub fn all() -> &'static SqlInfoData {
    static ALL: LazyLock<SqlInfoData> = LazyLock::new(|| {
        let mut b = SqlInfoDataBuilder::new();
        server(&mut b);
        language(&mut b);
        b.build().expect("invariant: every value has a type that the format knows")
    });
    &ALL
}

fn server(b: &mut SqlInfoDataBuilder) {
    b.append(SqlInfo::FlightSqlServerName, "Dovetail");
    b.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    b.append(SqlInfo::FlightSqlServerArrowVersion, ARROW_VERSION);
    b.append(SqlInfo::FlightSqlServerReadOnly, false);
    b.append(SqlInfo::FlightSqlServerSql, true);
    b.append(SqlInfo::FlightSqlServerSubstrait, false);
    b.append(SqlInfo::FlightSqlServerTransaction, 0i32);
    b.append(SqlInfo::FlightSqlServerCancel, true);
    b.append(SqlInfo::FlightSqlServerBulkIngestion, true);
    b.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    b.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
    b.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
}

fn language(b: &mut SqlInfoDataBuilder) {
    b.append(SqlInfo::SqlDdlCatalog, false);
    b.append(SqlInfo::SqlDdlSchema, false);
    b.append(SqlInfo::SqlDdlTable, true);
    // SqlSupportedCaseSensitivity: unquoted names are in lower case (3), quoted ones as written (1)
    b.append(SqlInfo::SqlIdentifierCase, 3i64);
    b.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    b.append(SqlInfo::SqlQuotedIdentifierCase, 1i64);
    b.append(SqlInfo::SqlAllTablesAreSelectable, true);
    // SqlNullOrdering: nulls are the largest, so last when ascending (0: high)
    b.append(SqlInfo::SqlNullOrdering, 0i64);
    b.append(SqlInfo::SqlKeywords, ["ILIKE", "QUALIFY", "EXCLUDE", "RECURSIVE"].as_slice());
    b.append(
        SqlInfo::SqlNumericFunctions,
        ["abs", "ceil", "floor", "round", "sqrt", "power", "ln"].as_slice(),
    );
    b.append(
        SqlInfo::SqlStringFunctions,
        ["concat", "length", "lower", "upper", "trim", "substring", "replace"].as_slice(),
    );
    b.append(SqlInfo::SqlSystemFunctions, [].as_slice());
    b.append(SqlInfo::SqlDatetimeFunctions, ["date_part", "date_trunc", "extract"].as_slice());
    b.append(SqlInfo::SqlSearchStringEscape, "\\");
    b.append(SqlInfo::SqlExtraNameCharacters, "");
    b.append(SqlInfo::SqlSupportsColumnAliasing, true);
    b.append(SqlInfo::SqlNullPlusNullIsNull, true);
    b.append(SqlInfo::SqlSupportsTableCorrelationNames, true);
    b.append(SqlInfo::SqlSupportsDifferentTableCorrelationNames, false);
    b.append(SqlInfo::SqlSupportsExpressionsInOrderBy, true);
    b.append(SqlInfo::SqlSupportsOrderByUnrelated, true);
    // SqlSupportedGroupBy: unrelated (bit 0), beyond the select list (bit 1)
    b.append(SqlInfo::SqlSupportedGroupBy, 0b11i32);
    b.append(SqlInfo::SqlSupportsLikeEscapeClause, true);
    b.append(SqlInfo::SqlSupportsNonNullableColumns, true);
    // SupportedSqlGrammar: minimum, core, extended; SupportedAnsi92SqlGrammarLevel: entry
    b.append(SqlInfo::SqlSupportedGrammar, 0b111i32);
    b.append(SqlInfo::SqlAnsi92SupportedLevel, 0b001i32);
    b.append(SqlInfo::SqlSupportsIntegrityEnhancementFacility, false);
    // SqlOuterJoinsSupportLevel: limited and full
    b.append(SqlInfo::SqlOuterJoinsSupportLevel, 0b110i32);
    b.append(SqlInfo::SqlSchemaTerm, "schema");
    b.append(SqlInfo::SqlProcedureTerm, "procedure");
    b.append(SqlInfo::SqlCatalogTerm, "catalog");
    b.append(SqlInfo::SqlCatalogAtStart, true);
    b.append(SqlInfo::SqlSelectForUpdateSupported, false);
    b.append(SqlInfo::SqlStoredProceduresSupported, false);
    // SqlSupportedSubqueries: in comparisons, EXISTS, IN, quantified
    b.append(SqlInfo::SqlSupportedSubqueries, 0b1111i32);
    b.append(SqlInfo::SqlCorrelatedSubqueriesSupported, true);
    // SqlSupportedUnions: UNION, UNION ALL
    b.append(SqlInfo::SqlSupportedUnions, 0b11i32);
    b.append(SqlInfo::SqlTransactionsSupported, false);
    b.append(SqlInfo::SqlDefaultTransactionIsolation, 0i64);
    b.append(SqlInfo::SqlBatchUpdatesSupported, false);
    b.append(SqlInfo::SqlSavepointsSupported, false);
    b.append(SqlInfo::SqlNamedParametersSupported, false);
    b.append(SqlInfo::SqlLocatorsUpdateCopy, false);
    b.append(SqlInfo::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_means_everything() {
        assert!(all().record_batch([]).unwrap().num_rows() >= 50);
        assert_eq!(all().record_batch([SqlInfo::FlightSqlServerName as u32]).unwrap().num_rows(), 1);
    }
}
