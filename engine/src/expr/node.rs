//! The compiled form of one expression: a constant, a column, or a kernel with its operands.
//!
//! Constants are known when kernels are chosen, so that a kernel can look at the constant once instead
//! of once per batch. Everything else evaluates to an array with one value per row.

use arrow::array::{Array, ArrayRef, Datum, Scalar};
use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;

use crate::batch::{Batch, to_logical};
use crate::error::Result;

/// The work of one expression over its operands' values.
pub(super) trait Kernel: Send + Sync {
    /// One value per row of the batch, in a physical form of the node's type. The batch has rows.
    fn evaluate(&self, batch: &Batch) -> Result<ArrayRef>;

    /// As `evaluate`, with what is known of the size of decimals.
    fn evaluate_bounded(&self, batch: &Batch) -> Result<Bounded> {
        Ok(Bounded { array: self.evaluate(batch)?, magnitude: None })
    }
}

/// An array with a bound that no value in it exceeds in absolute terms, if one is known for nothing.
pub(super) struct Bounded {
    pub array: ArrayRef,
    pub magnitude: Option<u64>,
}

/// A constant in the two forms that kernels want.
pub(super) struct Constant {
    pub scalar: ScalarValue,
    /// One row.
    pub array: ArrayRef,
}

/// A compiled expression.
pub(super) struct Node {
    pub kind: NodeKind,
    /// The logical type.
    pub data_type: DataType,
}

pub(super) enum NodeKind {
    Constant(Constant),
    /// A position in the batch.
    Column(usize),
    Kernel(Box<dyn Kernel>),
}

/// What a node evaluates to for a kernel that treats constants apart.
pub(super) enum Value {
    Constant(Scalar<ArrayRef>),
    Array(ArrayRef),
}

impl Node {
    /// A constant.
    pub fn constant(scalar: ScalarValue) -> Result<Self> {
        let array = scalar.to_array()?;
        let data_type = array.data_type().clone();
        Ok(Node { kind: NodeKind::Constant(Constant { scalar, array }), data_type })
    }

    /// A kernel with its result's logical type.
    pub fn kernel(kernel: impl Kernel + 'static, data_type: DataType) -> Self {
        Node { kind: NodeKind::Kernel(Box::new(kernel)), data_type }
    }

    /// The constant, if it is one.
    pub fn as_constant(&self) -> Option<&Constant> {
        match &self.kind {
            NodeKind::Constant(c) => Some(c),
            _ => None,
        }
    }

    /// The column's position, if it is one.
    pub fn column(&self) -> Option<usize> {
        match self.kind {
            NodeKind::Column(i) => Some(i),
            _ => None,
        }
    }

    /// One value per row, in any physical form.
    pub fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        match &self.kind {
            NodeKind::Constant(c) => Ok(c.scalar.to_array_of_size(batch.rows)?),
            NodeKind::Column(i) => batch.columns[*i].values(),
            NodeKind::Kernel(k) => k.evaluate(batch),
        }
    }

    /// As [`Node::evaluate`], with a bound if one is known for nothing.
    pub fn evaluate_bounded(&self, batch: &Batch) -> Result<Bounded> {
        match &self.kind {
            NodeKind::Kernel(k) => k.evaluate_bounded(batch),
            _ => Ok(Bounded { array: self.evaluate(batch)?, magnitude: None }),
        }
    }

    /// One value per row, in exactly the logical type.
    pub fn evaluate_logical(&self, batch: &Batch) -> Result<ArrayRef> {
        to_logical(&self.evaluate(batch)?, &self.data_type)
    }

    /// The constant, or one value per row in any physical form.
    pub fn value(&self, batch: &Batch) -> Result<Value> {
        match self.as_constant() {
            Some(c) => Ok(Value::Constant(Scalar::new(c.array.clone()))),
            None => Ok(Value::Array(self.evaluate(batch)?)),
        }
    }

    /// The constant, or one value per row; both in exactly the logical type.
    pub fn logical_value(&self, batch: &Batch) -> Result<Value> {
        match self.value(batch)? {
            Value::Array(a) => Ok(Value::Array(to_logical(&a, &self.data_type)?)),
            constant => Ok(constant),
        }
    }
}

impl Value {
    /// The array: one row for a constant.
    pub fn array(&self) -> &dyn Array {
        self.get().0
    }

    /// The value with its array changed; a constant stays one.
    pub fn map(&self, f: impl FnOnce(&ArrayRef) -> Result<ArrayRef>) -> Result<Value> {
        match self {
            Value::Constant(c) => Ok(Value::Constant(Scalar::new(f(&c.clone().into_inner())?))),
            Value::Array(a) => Ok(Value::Array(f(a)?)),
        }
    }
}

impl Datum for Value {
    fn get(&self) -> (&dyn Array, bool) {
        match self {
            Value::Constant(c) => c.get(),
            Value::Array(a) => (a.as_ref(), false),
        }
    }
}
