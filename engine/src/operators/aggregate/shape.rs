//! What an aggregation computes: its calls, taken apart into what is shared.
//!
//! A call's result is computed from one or more *units*, each an accumulator over some arguments:
//! `avg(x)` is the sum of x by the number of values of x. Equal units are one: `sum(x)`, `avg(x)` and
//! `count(*)` together run a sum and a count of rows. When rows are counted anyway, a count of values is the
//! count of rows less that of nulls, and counting nulls costs nothing where there are none.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::{Aggregate, AggregateCall};

use super::accumulators::{
    Accumulator, CountRows, CountValues, FirstValue, FloatSum, IntSum, LibraryAccumulator, LibraryCall,
    MinMaxText, NullCount, new_min_max,
};
use super::inputs::{Inputs, InputsBuilder};
use crate::error::{EngineError, Result};
use crate::functions;

/// An aggregation, ready to run. Cheap to clone.
#[derive(Clone)]
pub(super) struct Shape {
    pub inputs: Inputs,
    /// Slots and types of the group columns.
    pub keys: Arc<[(usize, DataType)]>,
    pub units: Arc<[Unit]>,
    /// By call.
    pub results: Arc<[CallResult]>,
}

/// An accumulator over arguments.
#[derive(Clone)]
pub(super) struct Unit {
    pub kind: UnitKind,
    /// Slots.
    pub args: Vec<usize>,
    /// Logical types of the arguments.
    pub arg_types: Vec<DataType>,
    /// Slot of the condition under which rows count.
    pub filter: Option<usize>,
    /// Each combination of arguments counts once per group.
    pub distinct: bool,
    /// What the rows are sorted by first.
    pub order: Vec<OrderKey>,
}

/// A sort key of an ordered aggregate.
#[derive(Clone, PartialEq)]
pub(super) struct OrderKey {
    pub slot: usize,
    pub logical: DataType,
    pub options: SortOptions,
}

/// Which accumulator.
#[derive(Clone)]
pub(super) enum UnitKind {
    CountRows,
    CountValues,
    NullCount,
    IntSum,
    FloatSum,
    MinMax { max: bool, logical: DataType },
    MinMaxText { max: bool, text: bool },
    First { last: bool, ignore_nulls: bool, logical: DataType },
    Library(Arc<LibraryCall>),
}

/// How a call's result comes of its units.
#[derive(Clone)]
pub(super) struct CallResult {
    pub formula: Formula,
    /// Logical type of the result.
    pub logical: DataType,
}

/// A formula over units, by number.
#[derive(Clone, Copy)]
pub(super) enum Formula {
    /// The unit's (first) column.
    Unit(usize),
    IntSum(usize),
    /// Values are rows less nulls.
    Values {
        rows: usize,
        nulls: usize,
    },
    /// A decimal average; the sum has the scale `scale`.
    DecimalAverage {
        sum: usize,
        scale: i8,
        rows: usize,
        nulls: usize,
    },
    FloatAverage {
        sum: usize,
        rows: usize,
        nulls: usize,
    },
}

impl Shape {
    pub(super) fn new(aggregate: &Aggregate, input_schema: &SchemaRef) -> Result<Self> {
        let mut inputs = InputsBuilder::new(input_schema.fields().len());
        let keys = aggregate.group_by.iter().map(|e| (inputs.slot(e), e.data_type())).collect();
        let mut builder = UnitsBuilder { inputs, units: vec![] };
        let counts_rows = |call: &AggregateCall| {
            !call.distinct
                && (is_row_count(call) || call.function == "avg" && decimal_or_float(&call.args[0]))
        };
        let counted: Vec<&Option<Expr>> =
            aggregate.calls.iter().filter(|c| counts_rows(c)).map(|c| &c.filter).collect();
        let results = aggregate
            .calls
            .iter()
            .map(|call| {
                let formula = builder.call(call, counted.contains(&&call.filter))?;
                Ok(CallResult { formula, logical: call.output.data_type().clone() })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Shape {
            inputs: builder.inputs.build()?,
            keys,
            units: builder.units.into(),
            results: results.into(),
        })
    }

    /// Types of the group columns.
    pub(super) fn key_types(&self) -> Vec<DataType> {
        self.keys.iter().map(|(_, t)| t.clone()).collect()
    }

    /// Fresh accumulators, one for each unit.
    pub(super) fn accumulators(&self) -> Result<Vec<Box<dyn Accumulator>>> {
        self.units.iter().map(|u| u.kind.accumulator()).collect()
    }
}

impl UnitKind {
    fn accumulator(&self) -> Result<Box<dyn Accumulator>> {
        Ok(match self {
            UnitKind::CountRows => Box::new(CountRows::default()),
            UnitKind::CountValues => Box::new(CountValues::default()),
            UnitKind::NullCount => Box::new(NullCount::default()),
            UnitKind::IntSum => Box::new(IntSum::new()),
            UnitKind::FloatSum => Box::new(FloatSum::default()),
            UnitKind::MinMax { max, logical } => new_min_max(*max, logical)
                .ok_or_else(|| EngineError::internal(format!("no minimum of {logical}")))?,
            UnitKind::MinMaxText { max, text } => Box::new(MinMaxText::new(*max, *text)),
            UnitKind::First { last, ignore_nulls, logical } => {
                Box::new(FirstValue::new(logical.clone(), *last, *ignore_nulls))
            }
            UnitKind::Library(call) => Box::new(LibraryAccumulator::new(call.clone())?),
        })
    }

    /// Takes columns as they are, dictionaries included.
    pub(super) fn takes_dictionaries(&self) -> bool {
        use UnitKind as K;
        matches!(self, K::CountRows | K::CountValues | K::NullCount | K::MinMaxText { .. } | K::First { .. })
    }

    fn same(&self, other: &UnitKind) -> bool {
        use UnitKind as K;
        match (self, other) {
            (K::CountRows, K::CountRows)
            | (K::CountValues, K::CountValues)
            | (K::NullCount, K::NullCount)
            | (K::IntSum, K::IntSum)
            | (K::FloatSum, K::FloatSum) => true,
            (K::MinMax { max: a, .. }, K::MinMax { max: b, .. }) => a == b,
            (K::MinMaxText { max: a, .. }, K::MinMaxText { max: b, .. }) => a == b,
            (K::First { last: a, ignore_nulls: b, .. }, K::First { last: c, ignore_nulls: d, .. }) => {
                a == c && b == d
            }
            _ => false,
        }
    }
}

struct UnitsBuilder {
    inputs: InputsBuilder,
    units: Vec<Unit>,
}

impl UnitsBuilder {
    fn call(&mut self, call: &AggregateCall, rows_are_counted: bool) -> Result<Formula> {
        use DataType as T;
        let function = functions::aggregate(&call.function)?;
        let arg_type = call.args.first().map(|a| match a.data_type() {
            DataType::Dictionary(_, value) => *value,
            other => other,
        });
        Ok(match (function.name(), arg_type) {
            ("count", _) if is_row_count(call) && !call.distinct => {
                Formula::Unit(self.unit(call, UnitKind::CountRows, false))
            }
            ("count", Some(_)) if rows_are_counted && !call.distinct => Formula::Values {
                rows: self.unit(call, UnitKind::CountRows, false),
                nulls: self.unit(call, UnitKind::NullCount, true),
            },
            ("count", Some(_)) => Formula::Unit(self.unit(call, UnitKind::CountValues, true)),
            ("sum", Some(T::Int64 | T::UInt64 | T::Decimal64(_, _) | T::Decimal128(_, _))) => {
                Formula::IntSum(self.unit(call, UnitKind::IntSum, true))
            }
            ("sum", Some(T::Float64)) => Formula::Unit(self.unit(call, UnitKind::FloatSum, true)),
            ("avg", Some(T::Decimal64(_, scale) | T::Decimal128(_, scale))) => Formula::DecimalAverage {
                sum: self.unit(call, UnitKind::IntSum, true),
                scale,
                rows: self.unit(call, UnitKind::CountRows, call.distinct),
                nulls: self.unit(call, UnitKind::NullCount, true),
            },
            ("avg", Some(T::Float64)) => Formula::FloatAverage {
                sum: self.unit(call, UnitKind::FloatSum, true),
                rows: self.unit(call, UnitKind::CountRows, call.distinct),
                nulls: self.unit(call, UnitKind::NullCount, true),
            },
            (name @ ("min" | "max"), Some(logical)) => {
                let max = name == "max";
                let kind = match &logical {
                    T::Utf8 | T::LargeUtf8 | T::Utf8View => UnitKind::MinMaxText { max, text: true },
                    T::Binary | T::LargeBinary | T::BinaryView => UnitKind::MinMaxText { max, text: false },
                    other if new_min_max(max, other).is_some() => UnitKind::MinMax { max, logical },
                    _ => return self.library(function, call),
                };
                // The same value twice has no say.
                let plain = AggregateCall { distinct: false, order_by: vec![], ..call.clone() };
                Formula::Unit(self.unit(&plain, kind, true))
            }
            (name @ ("first_value" | "last_value" | "any_value"), Some(_)) => {
                let logical = call.args[0].data_type();
                let ignore_nulls = call.ignore_nulls || name == "any_value";
                let kind = UnitKind::First { last: name == "last_value", ignore_nulls, logical };
                Formula::Unit(self.unit(call, kind, true))
            }
            _ => return self.library(function, call),
        })
    }

    fn library(
        &mut self,
        function: Arc<datafusion_expr::AggregateUDF>,
        call: &AggregateCall,
    ) -> Result<Formula> {
        let within_group = function.supports_within_group_clause();
        let kind = UnitKind::Library(Arc::new(LibraryCall::new(function, call)));
        let order_by = if within_group { vec![] } else { call.order_by.clone() };
        Ok(Formula::Unit(self.unit(&AggregateCall { order_by, ..call.clone() }, kind, true)))
    }

    /// The number of a unit of a call, with the call's arguments or (a count of rows) none.
    fn unit(&mut self, call: &AggregateCall, kind: UnitKind, with_args: bool) -> usize {
        let args = if with_args { call.args.as_slice() } else { &[] };
        let arg_types = args.iter().map(Expr::data_type).collect();
        let args = args.iter().map(|a| self.inputs.slot(a)).collect();
        let filter = call.filter.as_ref().map(|f| self.inputs.slot(f));
        let order_matters = matches!(kind, UnitKind::First { .. } | UnitKind::Library(_));
        let order = call
            .order_by
            .iter()
            .filter(|_| order_matters)
            .map(|k| OrderKey {
                slot: self.inputs.slot(&k.expr),
                logical: k.expr.data_type(),
                options: SortOptions { descending: k.descending, nulls_first: k.nulls_first },
            })
            .collect();
        let unit = Unit { kind, args, arg_types, filter, distinct: call.distinct, order };
        let equal = |u: &Unit| {
            u.kind.same(&unit.kind)
                && u.args == unit.args
                && u.filter == unit.filter
                && u.distinct == unit.distinct
                && u.order == unit.order
        };
        self.units.iter().position(equal).unwrap_or_else(|| {
            self.units.push(unit);
            self.units.len() - 1
        })
    }
}

/// `count(*)`, `count()`, `count(1)`.
fn is_row_count(call: &AggregateCall) -> bool {
    let constant = |arg: &Expr| matches!(arg, Expr::Literal(value) if !value.0.is_null());
    call.function == "count" && call.args.iter().all(constant)
}

fn decimal_or_float(arg: &Expr) -> bool {
    matches!(arg.data_type(), DataType::Decimal64(_, _) | DataType::Decimal128(_, _) | DataType::Float64)
}
