//! Every aggregate function that has no accumulator of ours, through DataFusion's.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_empty_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion_common::DataFusionError;
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion_physical_expr::expressions::{Column, Literal};
use datafusion_physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr, PhysicalSortExpr};
use dovetail_planner::expr::Expr;
use dovetail_planner::physical::AggregateCall;

use super::{Accumulator, Rows};
use crate::batch::to_logical;
use crate::error::{EngineError, Result};

/// A call as the library wants to know it.
#[derive(Clone)]
pub(in super::super) struct LibraryCall {
    function: Arc<AggregateUDF>,
    return_field: FieldRef,
    schema: Arc<Schema>,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    arg_fields: Vec<FieldRef>,
    order_by: Vec<PhysicalSortExpr>,
    ignore_nulls: bool,
}

impl LibraryCall {
    /// A call whose rows, if it is ordered or distinct, are sorted and deduplicated by us. Constant
    /// arguments are handed on as such: a percentile, a separator.
    pub(in super::super) fn new(function: Arc<AggregateUDF>, call: &AggregateCall) -> Self {
        let arg_fields: Vec<FieldRef> = call
            .args
            .iter()
            .enumerate()
            .map(|(i, arg)| Arc::new(Field::new(format!("arg{i}"), arg.data_type(), true)))
            .collect();
        let exprs: Vec<Arc<dyn PhysicalExpr>> = call
            .args
            .iter()
            .enumerate()
            .map(|(i, arg)| match arg {
                Expr::Literal(value) => Arc::new(Literal::new(value.0.clone())) as Arc<dyn PhysicalExpr>,
                _ => Arc::new(Column::new(&format!("arg{i}"), i)),
            })
            .collect();
        // WITHIN GROUP (ORDER BY x DESC) says which end a percentile counts from; the rows need no order.
        let order_by = match call.order_by.first() {
            Some(key) if function.supports_within_group_clause() => {
                let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
                vec![PhysicalSortExpr::new(exprs[0].clone(), options)]
            }
            _ => vec![],
        };
        LibraryCall {
            function,
            return_field: call.output.clone(),
            schema: Arc::new(Schema::new(arg_fields.clone())),
            exprs,
            arg_fields,
            order_by,
            ignore_nulls: call.ignore_nulls,
        }
    }

    fn args(&self) -> AccumulatorArgs<'_> {
        AccumulatorArgs {
            return_field: self.return_field.clone(),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_by,
            is_reversed: false,
            name: self.function.name(),
            is_distinct: false,
            exprs: &self.exprs,
            expr_fields: &self.arg_fields,
        }
    }

    fn per_group(&self) -> bool {
        !self.function.groups_accumulator_supported(self.args())
    }

    fn open(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.per_group() {
            let call = self.clone();
            return Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
                call.function.accumulator(call.args())
            })));
        }
        Ok(self.function.create_groups_accumulator(self.args())?)
    }

    fn state_types(&self) -> Result<Vec<DataType>> {
        let fields = self.function.state_fields(StateFieldsArgs {
            name: self.function.name(),
            input_fields: &self.arg_fields,
            return_field: self.return_field.clone(),
            ordering_fields: &[],
            is_distinct: false,
        })?;
        Ok(fields.iter().map(|f| f.data_type().clone()).collect())
    }
}

/// One of DataFusion's accumulators. Arguments are brought to their logical types.
pub(in super::super) struct LibraryAccumulator {
    call: Arc<LibraryCall>,
    inner: Box<dyn GroupsAccumulator>,
    state_types: Vec<DataType>,
    groups: usize,
    ids: Vec<usize>,
}

impl LibraryAccumulator {
    pub(in super::super) fn new(call: Arc<LibraryCall>) -> Result<Self> {
        let (inner, state_types) = (call.open()?, call.state_types()?);
        Ok(LibraryAccumulator { call, inner, state_types, groups: 0, ids: vec![] })
    }

    fn logical(&self, args: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        args.iter().zip(&self.call.arg_fields).map(|(a, f)| to_logical(a, f.data_type())).collect()
    }

    fn set_ids(&mut self, rows: &Rows) {
        self.groups = rows.groups;
        self.ids.clear();
        match rows.ids {
            None => self.ids.resize(rows.rows, 0),
            Some(ids) => self.ids.extend(ids.iter().map(|id| *id as usize)),
        }
    }

    /// Lets the accumulator know of groups that none of its rows had, and replaces it by a fresh one.
    fn replace(&mut self, groups: usize) -> Result<Box<dyn GroupsAccumulator>> {
        if self.groups < groups {
            let empty: Vec<ArrayRef> =
                self.call.arg_fields.iter().map(|f| new_empty_array(f.data_type())).collect();
            self.inner.update_batch(&empty, &[], Some(&all_pass(0)), groups)?;
        }
        self.groups = 0;
        Ok(std::mem::replace(&mut self.inner, self.call.open()?))
    }
}

impl Accumulator for LibraryAccumulator {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        let args = self.logical(args)?;
        self.set_ids(rows);
        // Without a filter the library takes it that every group has a row here.
        let filter = (!rows.complete).then(|| all_pass(rows.rows));
        Ok(self.inner.update_batch(&args, &self.ids, filter.as_ref(), rows.groups)?)
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        self.set_ids(rows);
        Ok(self.inner.merge_batch(states, &self.ids, rows.groups)?)
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let states = self.replace(groups)?.state(EmitTo::All)?;
        if states.len() != self.state_types.len() {
            return Err(EngineError::internal(format!(
                "{} has {} states where it promised {}",
                self.call.function.name(),
                states.len(),
                self.state_types.len()
            )));
        }
        Ok(states)
    }

    fn take_results(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.replace(groups)?.evaluate(EmitTo::All)?])
    }

    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        _rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        if self.call.per_group() {
            return Ok(None);
        }
        // Constants are known since the accumulator was made, and some functions insist on not seeing them.
        let mut args = self.logical(args)?;
        let mut exprs = self.call.exprs.iter();
        args.retain(|_| exprs.next().is_some_and(|e| !e.is::<Literal>()));
        match self.inner.convert_to_state(&args, filter) {
            Ok(states) => Ok(Some(states)),
            Err(DataFusionError::NotImplemented(_)) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn state_columns(&self) -> usize {
        self.state_types.len()
    }

    fn memory_bytes(&self) -> usize {
        self.inner.size() + self.ids.capacity() * 8
    }
}

/// A filter that passes all rows.
fn all_pass(rows: usize) -> BooleanArray {
    BooleanArray::new(BooleanBuffer::new_set(rows), None)
}
