//! Scalar expressions as plain data.
//!
//! [`Expr`] is what DataFusion's typed logical expression becomes after coercion: names are positions,
//! types are explicit, functions are called by name. The engine compiles it to kernels. Positions count
//! the columns of the operator's input; for a join they count probe columns first, then build columns.
//!
//! Invariant: an `Expr` is fully coerced. The two sides of a comparison or of an arithmetic operator
//! already have types that Arrow's kernels take together, and `data_type` is what the result has.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::ScalarValue;
use serde::{Deserialize, Serialize};

/// A scalar expression over the columns of one input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Expr {
    /// The input's column at a position.
    Column { index: usize, data_type: DataType },
    /// A constant.
    Literal(Literal),
    /// The value of an uncorrelated scalar subquery, known when the stages it depends on have run.
    Parameter { id: u32, data_type: DataType },
    /// An operator with two sides.
    Binary { op: BinaryOp, left: Box<Expr>, right: Box<Expr>, data_type: DataType },
    /// Logical NOT; null stays null.
    Not(Box<Expr>),
    /// Arithmetic negation.
    Negate(Box<Expr>),
    /// A test that is never null itself.
    Is { test: IsTest, expr: Box<Expr> },
    /// A conversion; `safe` turns failures into null (TRY_CAST) instead of an error.
    Cast { expr: Box<Expr>, to: DataType, safe: bool },
    /// Searched CASE: the first branch whose condition is true; a simple CASE was rewritten into it.
    Case { branches: Vec<(Expr, Expr)>, otherwise: Option<Box<Expr>>, data_type: DataType },
    /// `expr [NOT] IN (list)`, with SQL's three-valued logic.
    InList { expr: Box<Expr>, list: Vec<Expr>, negated: bool },
    /// `expr [NOT] [I]LIKE pattern [ESCAPE c]`.
    Like { expr: Box<Expr>, pattern: Box<Expr>, negated: bool, case_insensitive: bool, escape: Option<char> },
    /// A scalar function of the registry, called by its name.
    Call { function: String, args: Vec<Expr>, return_field: Arc<Field> },
}

/// Operators with two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BinaryOp {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    IsDistinctFrom,
    IsNotDistinctFrom,
    And,
    Or,
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
    Concat,
    RegexMatch,
    RegexIMatch,
    RegexNotMatch,
    RegexNotIMatch,
}

/// Tests whose answer is never null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum IsTest {
    Null,
    NotNull,
    True,
    NotTrue,
    False,
    NotFalse,
    Unknown,
    NotUnknown,
}

/// A constant. On the wire it is a one-row Arrow IPC stream, because `ScalarValue` has no serde and
/// Arrow's own format already carries every type, nested ones and metadata included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Literal(pub ScalarValue);

impl Expr {
    /// The expression's type.
    pub fn data_type(&self) -> DataType {
        match self {
            Expr::Column { data_type, .. }
            | Expr::Parameter { data_type, .. }
            | Expr::Binary { data_type, .. }
            | Expr::Case { data_type, .. } => data_type.clone(),
            Expr::Literal(l) => l.0.data_type(),
            Expr::Not(_) | Expr::Is { .. } | Expr::InList { .. } | Expr::Like { .. } => DataType::Boolean,
            Expr::Negate(e) => e.data_type(),
            Expr::Cast { to, .. } => to.clone(),
            Expr::Call { return_field, .. } => return_field.data_type().clone(),
        }
    }

    /// A column reference.
    pub fn column(index: usize, data_type: DataType) -> Self {
        Expr::Column { index, data_type }
    }

    /// A constant.
    pub fn literal(value: ScalarValue) -> Self {
        Expr::Literal(Literal(value))
    }

    /// The direct sub-expressions, in order.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Column { .. } | Expr::Literal(_) | Expr::Parameter { .. } => vec![],
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Not(e) | Expr::Negate(e) | Expr::Is { expr: e, .. } | Expr::Cast { expr: e, .. } => vec![e],
            Expr::Case { branches, otherwise, .. } => {
                branches.iter().flat_map(|(w, t)| [w, t]).chain(otherwise.as_deref()).collect()
            }
            Expr::InList { expr, list, .. } => std::iter::once(&**expr).chain(list).collect(),
            Expr::Like { expr, pattern, .. } => vec![expr, pattern],
            Expr::Call { args, .. } => args.iter().collect(),
        }
    }

    /// The direct sub-expressions, in order, to be changed in place.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Expr::Column { .. } | Expr::Literal(_) | Expr::Parameter { .. } => vec![],
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Not(e) | Expr::Negate(e) | Expr::Is { expr: e, .. } | Expr::Cast { expr: e, .. } => vec![e],
            Expr::Case { branches, otherwise, .. } => {
                branches.iter_mut().flat_map(|(w, t)| [w, t]).chain(otherwise.as_deref_mut()).collect()
            }
            Expr::InList { expr, list, .. } => std::iter::once(&mut **expr).chain(list).collect(),
            Expr::Like { expr, pattern, .. } => vec![expr, pattern],
            Expr::Call { args, .. } => args.iter_mut().collect(),
        }
    }

    /// Calls `f` on this expression and everything below it, parents first.
    pub fn visit(&self, f: &mut impl FnMut(&Expr)) {
        f(self);
        for child in self.children() {
            child.visit(f);
        }
    }

    /// Calls `f` on everything below this expression, then on itself.
    pub fn visit_mut(&mut self, f: &mut impl FnMut(&mut Expr)) {
        for child in self.children_mut() {
            child.visit_mut(f);
        }
        f(self);
    }

    /// Positions of the columns that the expression reads, sorted, each once.
    pub fn columns(&self) -> Vec<usize> {
        let mut found = vec![];
        self.visit(&mut |e| {
            if let Expr::Column { index, .. } = e {
                found.push(*index);
            }
        });
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Moves every column reference through `map`.
    pub fn remap(&mut self, map: &impl Fn(usize) -> usize) {
        self.visit_mut(&mut |e| {
            if let Expr::Column { index, .. } = e {
                *index = map(*index);
            }
        });
    }

    /// The expression with the parameters in `values` replaced by constants.
    pub fn bind(&self, values: &dyn Fn(u32) -> Option<ScalarValue>) -> Expr {
        let mut bound = self.clone();
        bound.visit_mut(&mut |e| {
            if let Expr::Parameter { id, .. } = e
                && let Some(value) = values(*id)
            {
                *e = Expr::literal(value);
            }
        });
        bound
    }
}

impl Serialize for Literal {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let bytes = encode_literal(&self.0).map_err(S::Error::custom)?;
        bytes.serialize(s)
    }
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let bytes = Vec::<u8>::deserialize(d)?;
        decode_literal(&bytes).map(Literal).map_err(D::Error::custom)
    }
}

fn encode_literal(value: &ScalarValue) -> Result<Vec<u8>, String> {
    let array: ArrayRef = value.to_array().map_err(|e| e.to_string())?;
    let schema = Arc::new(Schema::new(vec![Field::new("v", array.data_type().clone(), true)]));
    let batch = RecordBatch::try_new(schema.clone(), vec![array]).map_err(|e| e.to_string())?;
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(vec![], &schema).map_err(|e| e.to_string())?;
    writer.write(&batch).map_err(|e| e.to_string())?;
    writer.into_inner().map_err(|e| e.to_string())
}

fn decode_literal(bytes: &[u8]) -> Result<ScalarValue, String> {
    let mut reader = arrow::ipc::reader::StreamReader::try_new(bytes, None).map_err(|e| e.to_string())?;
    let batch = reader.next().ok_or("a literal without a row")?.map_err(|e| e.to_string())?;
    if batch.num_rows() != 1 || batch.num_columns() != 1 {
        return Err(format!("a literal of {} rows and {} columns", batch.num_rows(), batch.num_columns()));
    }
    ScalarValue::try_from_array(batch.column(0), 0).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_survive_the_wire() {
        for value in [
            ScalarValue::Int64(Some(7)),
            ScalarValue::Utf8View(Some("a".into())),
            ScalarValue::Decimal128(Some(-5), 12, 2),
            ScalarValue::Date32(None),
            ScalarValue::Null,
        ] {
            let text = serde_json::to_string(&Literal(value.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Literal>(&text).unwrap().0, value);
        }
    }
}
