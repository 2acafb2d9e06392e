//! Recursive common table expressions.

use datafusion_expr::logical_plan::RecursiveQuery;

use super::{Lowering, check_types, node};
use crate::error::Result;
use crate::physical::{Operator, PhysicalPlan, Recursive};

impl Lowering<'_> {
    pub(super) fn recursive(&mut self, recursive: &RecursiveQuery) -> Result<PhysicalPlan> {
        let seed = self.plan(&recursive.static_term)?;
        let id = self.next_work_table;
        self.next_work_table += 1;
        self.work_tables.push((recursive.name.clone(), id));
        let step = self.plan(&recursive.recursive_term);
        self.work_tables.pop();
        let step = step?;
        check_types(&seed.schema, &step.schema, "the recursive term")?;
        let operator = Operator::Recursive(Recursive { id, distinct: recursive.is_distinct });
        Ok(node(operator, vec![seed, step], recursive.schema.inner()))
    }
}
