//! Which expressions can raise an error on some row, and which give a new value at each call.
//!
//! An expression that can fail is evaluated only on rows that reach it. The lists err on the safe side:
//! what is not known to be total can fail.

use arrow::datatypes::DataType;
use datafusion_expr::Volatility;
use dovetail_planner::expr::{BinaryOp, Expr};

use super::arithmetic::Op;
use super::decimal;
use crate::functions;

/// Functions that have a value for every input of the types that they accept.
const TOTAL: &[&str] = &[
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "coalesce",
    "concat",
    "concat_ws",
    "contains",
    "date_part",
    "ends_with",
    "get_field",
    "isnan",
    "iszero",
    "length",
    "lower",
    "ltrim",
    "md5",
    "named_struct",
    "nullif",
    "nvl",
    "nvl2",
    "octet_length",
    "reverse",
    "rtrim",
    "signum",
    "starts_with",
    "strpos",
    "struct",
    "substr",
    "substring",
    "trim",
    "upper",
];

/// Can evaluating this raise an error?
pub(crate) fn can_fail(expr: &Expr) -> bool {
    let mut fails = false;
    expr.visit(&mut |e| fails |= operator_can_fail(e));
    fails
}

/// Does this give a new value at each call, such as `random()`?
pub(crate) fn is_volatile(expr: &Expr) -> bool {
    let mut volatile = false;
    expr.visit(&mut |e| {
        if let Expr::Call { function, .. } = e {
            volatile |=
                functions::scalar(function).is_ok_and(|f| f.signature().volatility == Volatility::Volatile);
        }
    });
    volatile
}

fn operator_can_fail(expr: &Expr) -> bool {
    match expr {
        Expr::Column { .. }
        | Expr::Literal(_)
        | Expr::Not(_)
        | Expr::Is { .. }
        | Expr::InList { .. }
        | Expr::Case { .. } => false,
        Expr::Parameter { .. } => true,
        Expr::Like { pattern, .. } => !matches!(**pattern, Expr::Literal(_)),
        Expr::Binary { op, left, right, data_type } => {
            binary_can_fail(*op, &left.data_type(), &right.data_type(), data_type)
        }
        Expr::Negate(e) => !e.data_type().is_floating(),
        Expr::Cast { expr, to, safe } => !safe && cast_can_fail(&expr.data_type(), to),
        Expr::Call { function, .. } => {
            !functions::scalar(function).is_ok_and(|f| TOTAL.binary_search(&f.name()).is_ok())
        }
    }
}

fn binary_can_fail(op: BinaryOp, left: &DataType, right: &DataType, result: &DataType) -> bool {
    use BinaryOp::*;
    match op {
        Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | And | Or => false,
        BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight | Concat => false,
        // Patterns may be malformed.
        RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch => true,
        Divide | Modulo => !result.is_floating(),
        Add | Subtract | Multiply => match (Op::try_from(op), left, right, result) {
            (Ok(op), DataType::Decimal128(..), DataType::Decimal128(..), DataType::Decimal128(..)) => {
                decimal::can_overflow(op, left, right, result)
            }
            _ => !result.is_floating(),
        },
    }
}

fn cast_can_fail(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    if from == to || from.is_null() {
        return false;
    }
    match (from, to) {
        (f, Float64 | Float32) if f.is_numeric() => false,
        (f, Utf8 | LargeUtf8 | Utf8View) => f.is_nested() || matches!(f, Binary | LargeBinary | BinaryView),
        (Utf8 | LargeUtf8 | Utf8View, Binary | LargeBinary | BinaryView) => false,
        (Boolean, t) if t.is_integer() => false,
        (Date32, Date64) => false,
        (Decimal128(p, s), Decimal128(q, t)) => t < s || (*p as i16 - *s as i16) > (*q as i16 - *t as i16),
        (f, Decimal128(p, s)) if f.is_integer() => integer_digits(f) > *p as i16 - *s as i16,
        (f, t) if f.is_integer() && t.is_integer() => !widens(f, t),
        _ => true,
    }
}

/// Decimal digits that every value of an integer type fits in.
fn integer_digits(t: &DataType) -> i16 {
    match t.primitive_width() {
        Some(1) => 3,
        Some(2) => 5,
        Some(4) => 10,
        _ => 20,
    }
}

fn widens(from: &DataType, to: &DataType) -> bool {
    let (f, t) = (from.primitive_width(), to.primitive_width());
    match (from.is_signed_integer(), to.is_signed_integer()) {
        (true, true) | (false, false) => f <= t,
        (false, true) => f < t,
        (true, false) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_total_functions_is_sorted_and_real() {
        assert!(TOTAL.windows(2).all(|w| w[0] < w[1]));
        for name in TOTAL {
            assert!(functions::scalar(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn decimals_that_have_room_cannot_fail() {
        let d = |p, s| DataType::Decimal128(p, s);
        assert!(!binary_can_fail(BinaryOp::Multiply, &d(15, 2), &d(23, 2), &d(38, 4)));
        assert!(binary_can_fail(BinaryOp::Multiply, &d(38, 4), &d(23, 2), &d(38, 6)));
        assert!(!binary_can_fail(BinaryOp::Subtract, &d(20, 0), &d(15, 2), &d(23, 2)));
        assert!(binary_can_fail(BinaryOp::Add, &d(38, 0), &d(38, 0), &d(38, 0)));
        assert!(binary_can_fail(BinaryOp::Divide, &d(15, 2), &d(15, 2), &d(21, 6)));
        assert!(binary_can_fail(BinaryOp::Add, &DataType::Int64, &DataType::Int64, &DataType::Int64));
    }

    #[test]
    fn casts_that_lose_nothing_cannot_fail() {
        use DataType::*;
        assert!(!cast_can_fail(&Int32, &Int64));
        assert!(cast_can_fail(&Int64, &Int32));
        assert!(!cast_can_fail(&UInt32, &Int64));
        assert!(cast_can_fail(&UInt64, &Int64));
        assert!(!cast_can_fail(&Int64, &Decimal128(22, 2)));
        assert!(cast_can_fail(&Int64, &Decimal128(15, 2)));
        assert!(!cast_can_fail(&Decimal128(15, 2), &Decimal128(22, 4)));
        assert!(cast_can_fail(&Decimal128(15, 2), &Decimal128(15, 4)));
        assert!(cast_can_fail(&Utf8View, &Int64));
        assert!(!cast_can_fail(&Int64, &Utf8View));
    }
}
