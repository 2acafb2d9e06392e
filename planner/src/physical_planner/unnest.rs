//! UNNEST: lists into rows, structs into columns.

use datafusion_common::NullHandling;
use datafusion_expr::logical_plan::Unnest as LogicalUnnest;

use super::{Lowering, node};
use crate::error::{PlanError, Result};
use crate::physical::{Operator, PhysicalPlan, Unnest, UnnestColumn};

impl Lowering<'_> {
    pub(super) fn unnest(&mut self, unnest: &LogicalUnnest) -> Result<PhysicalPlan> {
        let input = self.plan(&unnest.input)?;
        let lists: Vec<(usize, usize)> =
            unnest.list_type_columns.iter().map(|(column, list)| (*column, list.depth)).collect();
        let preserve_nulls = match unnest.options.null_handling {
            NullHandling::Drop => false,
            NullHandling::PreserveAndExpandEmpty => true,
            // Null lists kept, empty ones dropped: no clause of ours asks for that.
            NullHandling::Preserve => {
                return Err(PlanError::unsupported(
                    "UNNEST that keeps null lists and drops empty ones",
                    "Use unnest or unnest_outer.",
                ));
            }
        };
        // Outputs stand where their input column stood; several outputs of one column follow each other in
        // the order of `list_type_columns`, or of the struct's fields.
        let mut output = vec![];
        let mut seen: Vec<usize> = vec![0; input.schema.fields().len()];
        for &column in &unnest.dependency_indices {
            let nth = seen[column];
            seen[column] += 1;
            let mut of_column = lists.iter().enumerate().filter(|(_, (c, _))| *c == column);
            if unnest.struct_type_columns.contains(&column) {
                output.push(UnnestColumn::Field { column, field: nth });
            } else if let Some((list, _)) = of_column.nth(nth) {
                output.push(UnnestColumn::Element(list));
            } else {
                output.push(UnnestColumn::Repeated(column));
            }
        }
        let operator = Operator::Unnest(Unnest { lists, output, preserve_nulls });
        Ok(node(operator, vec![input], unnest.schema.inner()))
    }
}
