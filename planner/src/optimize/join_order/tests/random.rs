//! Random joins over tiny tables: the reordered plan has the rows that the plan had before.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{Column, JoinConstraint, JoinType, NullEquality, ScalarValue};
use datafusion_expr::logical_plan::builder::LogicalTableSource;
use datafusion_expr::{Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, lit};

use super::super::{Reordered, reorder_joins, reorder_region, starts_region};
use super::interpreter::{Row, Tables, Value, run};
use super::{costs, draw};
use crate::catalog::{CatalogSnapshot, ColumnStatistics, Table, TableData, TableStatistics};
use crate::expr::Literal;

const CASES: u64 = 600;

#[test]
fn reordered_plans_have_the_same_rows() {
    let (mut changed, mut filled) = (0, 0);
    for seed in 0..CASES {
        let mut random = Random::new(seed);
        let (tables, catalog) = random.tables();
        let plan = random.query();
        let expected = run(&plan, &tables);
        let context = || format!("seed {seed}\n{}", plan.display_indent());
        let exact = reorder_joins(plan.clone(), &catalog).unwrap();
        assert_eq!(exact.schema().columns(), plan.schema().columns(), "{}", context());
        assert_eq!(run(&exact, &tables), expected, "{}\n{}", context(), exact.display_indent());
        changed += usize::from(draw(&exact) != draw(&plan));
        filled += usize::from(!expected.is_empty());
        if starts_region(&plan) {
            let quick = greedily(&plan, &catalog);
            assert_eq!(run(&quick, &tables), expected, "{}\n{}", context(), quick.display_indent());
            costs(&plan, &catalog);
        }
    }
    // Else the test tests nothing.
    assert!(changed > CASES as usize / 2 && filled > CASES as usize / 3, "{changed} {filled}");
}

/// The plan as it is ordered when the exact search gives up.
fn greedily(plan: &LogicalPlan, catalog: &CatalogSnapshot) -> LogicalPlan {
    let reordered: Reordered = reorder_region(plan, catalog, 0).unwrap().unwrap();
    reordered.with_schema_of(plan).unwrap()
}

/// A linear congruential generator: the same cases on every run.
struct Random {
    state: u64,
    aliases: usize,
}

impl Random {
    fn new(seed: u64) -> Self {
        let mut random = Random { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1, aliases: 0 };
        random.below(2);
        random
    }

    fn below(&mut self, n: usize) -> usize {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % n
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let at = self.below(from.len());
        &from[at]
    }

    fn value(&mut self) -> Value {
        let value = self.below(5) as i64;
        (value < 4).then_some(value)
    }

    /// Five small tables, and a catalog that says something else of each, so that any order may win.
    fn tables(&mut self) -> (Tables, CatalogSnapshot) {
        let (mut tables, mut catalog) = (Tables::new(), CatalogSnapshot::default());
        for number in 0..5u64 {
            let rows = (0..2 + self.below(5)).map(|_| -> Row { (0..3).map(|_| self.value()).collect() });
            let name = format!("t{number}");
            tables.insert(name.clone(), rows.collect());
            let rows = 10u64.pow(self.below(6) as u32);
            let mut column = || ColumnStatistics {
                min: Some(Literal(ScalarValue::Int64(Some(0)))),
                max: Some(Literal(ScalarValue::Int64(Some(1 << self.below(20))))),
                nulls: Some(rows / 10),
                distinct: Some(1 + rows / 10u64.pow(self.below(3) as u32)),
                bytes_per_value: None,
            };
            let statistics =
                TableStatistics { rows: Some(rows), columns: vec![column(), column(), column()] };
            let data = TableData::Memory { id: number, version: 0 };
            let table = Table { name: name.clone(), schema: schema(), data, statistics };
            catalog.tables.insert(name, Arc::new(table));
        }
        (tables, catalog)
    }

    fn query(&mut self) -> LogicalPlan {
        let relations = 2 + self.below(5);
        let plan = self.joins(relations);
        if self.below(3) > 0 { plan } else { self.filtered(plan) }
    }

    /// A tree of joins with so many leaves.
    fn joins(&mut self, relations: usize) -> LogicalPlan {
        if relations == 1 {
            self.aliases += 1;
            let source = Arc::new(LogicalTableSource::new(schema()));
            let scan = LogicalPlanBuilder::scan(format!("t{}", self.below(5)), source, None).unwrap();
            return scan.alias(format!("r{}", self.aliases)).unwrap().build().unwrap();
        }
        let right = if self.below(3) == 0 { 1 + self.below(relations - 1) } else { 1 };
        let (left, right) = (self.joins(relations - right), self.joins(right));
        let join = self.join(left, right);
        match self.below(6) {
            0 => self.filtered(join),
            1 => self.aliased(join),
            _ => join,
        }
    }

    fn join(&mut self, left: LogicalPlan, right: LogicalPlan) -> LogicalPlan {
        let join_type = *self.pick(&[
            JoinType::Inner,
            JoinType::Inner,
            JoinType::Inner,
            JoinType::Inner,
            JoinType::Inner,
            JoinType::Left,
            JoinType::Left,
            JoinType::Right,
            JoinType::Full,
            JoinType::LeftSemi,
            JoinType::LeftAnti,
            JoinType::RightSemi,
            JoinType::RightAnti,
            JoinType::LeftMark,
        ]);
        // A mark is named after the one relation that it tells of.
        let right = if join_type == JoinType::LeftMark { self.aliased(right) } else { right };
        let (l, r) = (integers(&left), integers(&right));
        let keys = *self.pick(&[0, 1, 1, 1, 1, 2]);
        let on: Vec<(Expr, Expr)> =
            (0..keys).map(|_| (self.pick(&l).clone(), self.pick(&r).clone())).collect();
        let filter = match self.below(4) {
            0 => Some(self.pick(&l).clone().not_eq(self.pick(&r).clone())),
            1 if keys == 0 => Some((self.pick(&l).clone() + self.pick(&l).clone()).eq(self.pick(&r).clone())),
            _ => None,
        };
        let null_aware =
            join_type == JoinType::LeftAnti && keys == 1 && filter.is_none() && self.below(2) == 0;
        let null_equality = match self.below(10) {
            0 if !null_aware => NullEquality::NullEqualsNull,
            _ => NullEquality::NullEqualsNothing,
        };
        let join = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            on,
            filter,
            join_type,
            JoinConstraint::On,
            null_equality,
            null_aware,
        );
        LogicalPlan::Join(join.unwrap())
    }

    fn filtered(&mut self, plan: LogicalPlan) -> LogicalPlan {
        let columns = integers(&plan);
        let (a, b) = (self.pick(&columns).clone(), self.pick(&columns).clone());
        let marks: Vec<Expr> =
            plan.schema().columns().into_iter().filter(|c| c.name == "mark").map(Expr::Column).collect();
        let predicate = match self.below(6) {
            _ if !marks.is_empty() => self.pick(&marks).clone().or(a.eq(b)),
            0 => a.is_null(),
            1 => a.eq(b),
            2 => a.clone().is_null().or(a.lt(b)),
            3 => a.not_eq(lit(1i64)),
            4 => a.lt(lit(3i64)),
            _ => (a + b).not_eq(lit(2i64)),
        };
        LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(plan)).unwrap())
    }

    /// A derived table of some of the columns.
    fn aliased(&mut self, plan: LogicalPlan) -> LogicalPlan {
        self.aliases += 1;
        let columns = integers(&plan);
        let mut kept: Vec<Expr> = vec![];
        for (i, column) in columns.into_iter().enumerate() {
            if i == 0 || self.below(2) == 0 {
                kept.push(column.alias(format!("c{i}")));
            }
        }
        let plan = LogicalPlanBuilder::from(plan).project(kept).unwrap();
        plan.alias(format!("d{}", self.aliases)).unwrap().build().unwrap()
    }
}

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(["a", "b", "c"].map(|name| Field::new(name, DataType::Int64, true)).to_vec()))
}

/// The plan's columns, without marks.
fn integers(plan: &LogicalPlan) -> Vec<Expr> {
    let is_integer = |c: &Column| {
        plan.schema().qualified_field_from_column(c).is_ok_and(|(_, f)| f.data_type() == &DataType::Int64)
    };
    plan.schema().columns().into_iter().filter(is_integer).map(Expr::Column).collect()
}
