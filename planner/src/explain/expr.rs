//! Expressions as SQL-like text, with columns by their names.

use std::fmt::{self, Write};

use arrow::datatypes::SchemaRef;
use datafusion_common::ScalarValue;

use crate::expr::{BinaryOp, Expr, IsTest};

/// Longer names are cut.
pub(super) const NAME_CHARS_MAX: usize = 48;

/// How much is told of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// Everything, for people.
    Full,
    /// What stays the same when only constants are others: no constants, and computed columns by their positions,
    /// since their names are made of constants too.
    Shape,
}

/// The names of an operator's input columns.
pub(super) struct Names<'a> {
    pub(super) columns: Vec<&'a String>,
    pub(super) detail: Detail,
}

impl<'a> Names<'a> {
    pub(super) fn of(inputs: &[&'a SchemaRef]) -> Self {
        Names::with(inputs, Detail::Full)
    }

    pub(super) fn with(inputs: &[&'a SchemaRef], detail: Detail) -> Self {
        let columns = match detail {
            Detail::Full => inputs.iter().flat_map(|s| s.fields()).map(|f| f.name()).collect(),
            Detail::Shape => vec![],
        };
        Names { columns, detail }
    }

    pub(super) fn name(&self, index: usize) -> String {
        match self.columns.get(index) {
            // Computed columns may be named by long expressions.
            Some(name) if name.chars().count() > NAME_CHARS_MAX => {
                let start: String = name.chars().take(NAME_CHARS_MAX - 8).collect();
                format!("{start}…#{index}")
            }
            Some(name) if self.columns.iter().filter(|n| n == &name).count() > 1 => format!("{name}#{index}"),
            Some(name) if !name.is_empty() => name.to_string(),
            _ => format!("#{index}"),
        }
    }

    pub(super) fn list(&self, exprs: &[Expr]) -> String {
        exprs.iter().map(|e| self.show(e)).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn show(&self, expr: &Expr) -> String {
        let mut text = String::new();
        self.write(&mut text, expr, 0).expect("invariant: writing to a string succeeds");
        text
    }

    /// As [`Names::show`], fit to stand between ANDs.
    pub(super) fn conjunct(&self, expr: &Expr) -> String {
        let mut text = String::new();
        self.write(&mut text, expr, 2).expect("invariant: writing to a string succeeds");
        text
    }

    /// Writes an expression; in parentheses if it binds looser than `outer`.
    fn write(&self, f: &mut String, expr: &Expr, outer: u8) -> fmt::Result {
        match expr {
            Expr::Column { index, .. } => f.write_str(&self.name(*index)),
            Expr::Literal(_) if self.detail == Detail::Shape => f.write_char('?'),
            Expr::Literal(literal) => write!(f, "{}", literal_text(&literal.0)),
            Expr::Parameter { id, .. } => write!(f, "${id}"),
            Expr::Binary { op, left, right, .. } => {
                let (symbol, binds) = symbol(*op);
                if binds < outer {
                    f.write_char('(')?;
                }
                self.write(f, left, binds)?;
                write!(f, " {symbol} ")?;
                let associative = matches!(op, BinaryOp::And | BinaryOp::Or);
                self.write(f, right, if associative { binds } else { binds + 1 })?;
                if binds < outer {
                    f.write_char(')')?;
                }
                Ok(())
            }
            Expr::Not(e) => {
                f.write_str("NOT ")?;
                self.write(f, e, 9)
            }
            Expr::Negate(e) => {
                f.write_char('-')?;
                self.write(f, e, 9)
            }
            Expr::Is { test, expr } => {
                self.write(f, expr, 4)?;
                f.write_str(match test {
                    IsTest::Null => " IS NULL",
                    IsTest::NotNull => " IS NOT NULL",
                    IsTest::True => " IS TRUE",
                    IsTest::NotTrue => " IS NOT TRUE",
                    IsTest::False => " IS FALSE",
                    IsTest::NotFalse => " IS NOT FALSE",
                    IsTest::Unknown => " IS UNKNOWN",
                    IsTest::NotUnknown => " IS NOT UNKNOWN",
                })
            }
            Expr::Cast { expr, to, safe } => {
                f.write_str(if *safe { "TRY_CAST(" } else { "CAST(" })?;
                self.write(f, expr, 0)?;
                write!(f, " AS {to})")
            }
            Expr::Case { branches, otherwise, .. } => {
                f.write_str("CASE")?;
                for (when, then) in branches {
                    write!(f, " WHEN {} THEN {}", self.show(when), self.show(then))?;
                }
                if let Some(otherwise) = otherwise {
                    write!(f, " ELSE {}", self.show(otherwise))?;
                }
                f.write_str(" END")
            }
            Expr::InList { expr, list, negated } => {
                self.write(f, expr, 4)?;
                let not = if *negated { " NOT" } else { "" };
                match list.len() {
                    _ if self.detail == Detail::Shape
                        && list.iter().all(|e| matches!(e, Expr::Literal(_))) =>
                    {
                        write!(f, "{not} IN (?)")
                    }
                    0..=8 => write!(f, "{not} IN ({})", self.list(list)),
                    n => write!(f, "{not} IN ({}, … {n} values)", self.list(&list[..3])),
                }
            }
            Expr::Like { expr, pattern, negated, case_insensitive, escape } => {
                self.write(f, expr, 4)?;
                let not = if *negated { " NOT" } else { "" };
                let like = if *case_insensitive { "ILIKE" } else { "LIKE" };
                write!(f, "{not} {like} ")?;
                self.write(f, pattern, 4)?;
                match escape {
                    Some(c) => write!(f, " ESCAPE '{c}'"),
                    None => Ok(()),
                }
            }
            Expr::Call { function, args, .. } => write!(f, "{function}({})", self.list(args)),
        }
    }
}

fn literal_text(value: &ScalarValue) -> String {
    use ScalarValue::*;
    match value {
        Utf8(Some(s)) | LargeUtf8(Some(s)) | Utf8View(Some(s)) => format!("'{}'", s.replace('\'', "''")),
        Decimal128(Some(n), _, scale) if *scale >= 0 => decimal(*n, *scale as usize),
        Date32(Some(_)) | Date64(Some(_)) => format!("'{value}'"),
        other if other.is_null() => "NULL".into(),
        other => other.to_string(),
    }
}

fn decimal(n: i128, scale: usize) -> String {
    let digits = format!("{:0width$}", n.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if n < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// An operator as SQL writes it, and how tightly it binds.
fn symbol(op: BinaryOp) -> (&'static str, u8) {
    match op {
        BinaryOp::Or => ("OR", 1),
        BinaryOp::And => ("AND", 2),
        BinaryOp::Eq => ("=", 3),
        BinaryOp::NotEq => ("<>", 3),
        BinaryOp::Lt => ("<", 3),
        BinaryOp::LtEq => ("<=", 3),
        BinaryOp::Gt => (">", 3),
        BinaryOp::GtEq => (">=", 3),
        BinaryOp::IsDistinctFrom => ("IS DISTINCT FROM", 3),
        BinaryOp::IsNotDistinctFrom => ("IS NOT DISTINCT FROM", 3),
        BinaryOp::RegexMatch => ("~", 4),
        BinaryOp::RegexIMatch => ("~*", 4),
        BinaryOp::RegexNotMatch => ("!~", 4),
        BinaryOp::RegexNotIMatch => ("!~*", 4),
        BinaryOp::Concat => ("||", 5),
        BinaryOp::BitAnd => ("&", 5),
        BinaryOp::BitOr => ("|", 5),
        BinaryOp::BitXor => ("^", 5),
        BinaryOp::ShiftLeft => ("<<", 5),
        BinaryOp::ShiftRight => (">>", 5),
        BinaryOp::Add => ("+", 6),
        BinaryOp::Subtract => ("-", 6),
        BinaryOp::Multiply => ("*", 7),
        BinaryOp::Divide => ("/", 7),
        BinaryOp::Modulo => ("%", 7),
    }
}
