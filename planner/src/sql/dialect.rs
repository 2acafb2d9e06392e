//! The SQL dialect: DuckDB's grammar as `sqlparser` has it, with the few additions of PostgreSQL that it
//! leaves out. Identifiers are case-insensitive and may be quoted with double quotes.

use std::any::TypeId;

use sqlparser::ast::Expr;
use sqlparser::dialect::{Dialect, DuckDbDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};

/// Dovetail's dialect.
#[derive(Debug)]
pub(crate) struct DovetailDialect;

/// The one instance.
pub(crate) static DIALECT: DovetailDialect = DovetailDialect;

/// Delegates to DuckDB's dialect, or says yes.
macro_rules! features {
    (duckdb: $($d:ident)*; yes: $($y:ident)*) => {
        $(fn $d(&self) -> bool { DuckDbDialect.$d() })*
        $(fn $y(&self) -> bool { true })*
    };
}

impl Dialect for DovetailDialect {
    /// Where `sqlparser` asks for a dialect by type instead of by feature, this is DuckDB's.
    fn dialect(&self) -> TypeId {
        TypeId::of::<DuckDbDialect>()
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        DuckDbDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        DuckDbDialect.is_identifier_part(ch)
    }

    /// `a IS DISTINCT FROM b AND c` is `(a IS DISTINCT FROM b) AND c`: left to itself, `sqlparser` takes all
    /// that follows, with AND and OR, for the right operand.
    fn parse_infix(&self, parser: &mut Parser, left: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        use Keyword::{DISTINCT, FROM, IS, NOT};
        let make = if parser.parse_keywords(&[IS, DISTINCT, FROM]) {
            Expr::IsDistinctFrom
        } else if parser.parse_keywords(&[IS, NOT, DISTINCT, FROM]) {
            Expr::IsNotDistinctFrom
        } else {
            return None;
        };
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is));
        Some(right.map(|right| make(Box::new(left.clone()), Box::new(right))))
    }

    features! {
        duckdb:
            supports_trailing_commas
            supports_filter_during_aggregation
            supports_group_by_expr
            supports_bitwise_shift_operators
            supports_named_fn_args_with_assignment_operator
            supports_dictionary_syntax
            support_map_literal_syntax
            supports_lambda_functions
            allow_extract_single_quotes
            supports_explain_with_utility_options
            supports_array_typedef_with_brackets
            supports_from_first_select
            supports_order_by_all
            supports_select_wildcard_exclude
            supports_select_wildcard_replace
            supports_notnull_operator
            supports_comma_separated_trim;
        yes:
            supports_string_escape_constant
            supports_unicode_string_literal
            supports_nested_comments
            supports_parens_around_table_factor
            supports_window_clause_named_window_reference
            supports_window_function_null_treatment_arg
            supports_select_wildcard_rename
            allow_extract_custom
            supports_struct_literal
    }
}
