//! Runs a logical plan of scans, filters, projections, aliases and joins over tiny tables of integers, by
//! nested loops and nothing clever: what a reordered plan is compared with.

use std::collections::BTreeMap;

use datafusion_common::{JoinType, NullEquality, ScalarValue};
use datafusion_expr::{Expr, Join, LogicalPlan, Operator};

/// A value; Booleans are 0 and 1.
pub type Value = Option<i64>;
pub type Row = Vec<Value>;
/// Tables by name.
pub type Tables = BTreeMap<String, Vec<Row>>;

/// The rows of a plan, in the order of their values.
pub fn run(plan: &LogicalPlan, tables: &Tables) -> Vec<Row> {
    let mut rows = rows(plan, tables);
    rows.sort();
    rows
}

fn rows(plan: &LogicalPlan, tables: &Tables) -> Vec<Row> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            assert!(scan.filters.is_empty() && scan.projection.is_none());
            tables[scan.table_name.table()].clone()
        }
        LogicalPlan::SubqueryAlias(alias) => rows(&alias.input, tables),
        LogicalPlan::Filter(filter) => {
            let scope = Scope(vec![&filter.input]);
            let keep = |row: &Row| scope.eval(&filter.predicate, row) == Some(1);
            rows(&filter.input, tables).into_iter().filter(keep).collect()
        }
        LogicalPlan::Projection(projection) => {
            let scope = Scope(vec![&projection.input]);
            let project = |row: Row| projection.expr.iter().map(|e| scope.eval(e, &row)).collect();
            rows(&projection.input, tables).into_iter().map(project).collect()
        }
        LogicalPlan::Join(join) => join_rows(join, rows(&join.left, tables), rows(&join.right, tables)),
        plan => panic!("not interpreted: {}", plan.display()),
    }
}

fn join_rows(join: &Join, left: Vec<Row>, right: Vec<Row>) -> Vec<Row> {
    let both = |l: &Row, r: &Row| [l.clone(), r.clone()].concat();
    let nulls = |plan: &LogicalPlan| vec![None; plan.schema().fields().len()];
    let (no_left, no_right) = (nulls(&join.left), nulls(&join.right));
    let matches = |l: &Row, r: &Row| pair_matches(join, l, r);
    let mut out = vec![];
    for l in &left {
        let partners: Vec<&Row> = right.iter().filter(|r| matches(l, r)).collect();
        let found = !partners.is_empty();
        match join.join_type {
            JoinType::Inner | JoinType::Right => out.extend(partners.iter().map(|r| both(l, r))),
            JoinType::Left | JoinType::Full => {
                out.extend(partners.iter().map(|r| both(l, r)));
                if !found {
                    out.push(both(l, &no_right));
                }
            }
            JoinType::LeftSemi if found => out.push(l.clone()),
            JoinType::LeftAnti if !found && (!join.null_aware || not_in(join, l, &right)) => {
                out.push(l.clone());
            }
            JoinType::LeftMark => out.push(both(l, &vec![Some(i64::from(found))])),
            _ => {}
        }
    }
    for r in &right {
        let found = left.iter().any(|l| matches(l, r));
        match join.join_type {
            JoinType::Right | JoinType::Full if !found => out.push(both(&no_left, r)),
            JoinType::RightSemi if found => out.push(r.clone()),
            JoinType::RightAnti if !found => out.push(r.clone()),
            _ => {}
        }
    }
    out
}

/// NOT IN: nulls on either side make the answer unknown.
fn not_in(join: &Join, l: &Row, right: &[Row]) -> bool {
    let (key, element) = &join.on[0];
    let null = |e, plan, row| Scope(vec![plan]).eval(e, row).is_none();
    right.is_empty() || (!null(key, &join.left, l) && !right.iter().any(|r| null(element, &join.right, r)))
}

fn pair_matches(join: &Join, l: &Row, r: &Row) -> bool {
    let keys = join.on.iter().all(|(le, re)| {
        let (a, b) = (Scope(vec![&join.left]).eval(le, l), Scope(vec![&join.right]).eval(re, r));
        a == b && (a.is_some() || join.null_equality == NullEquality::NullEqualsNull)
    });
    let row = [l.clone(), r.clone()].concat();
    let scope = Scope(vec![&join.left, &join.right]);
    keys && join.filter.as_ref().is_none_or(|f| scope.eval(f, &row) == Some(1))
}

/// Plans whose columns stand side by side in a row.
struct Scope<'a>(Vec<&'a LogicalPlan>);

impl Scope<'_> {
    fn eval(&self, expr: &Expr, row: &Row) -> Value {
        let truth = |b: bool| Some(i64::from(b));
        match expr {
            Expr::Column(column) => {
                let mut start = 0;
                for plan in &self.0 {
                    if let Some(at) = plan.schema().maybe_index_of_column(column) {
                        return row[start + at];
                    }
                    start += plan.schema().fields().len();
                }
                panic!("no column {column}");
            }
            Expr::Literal(ScalarValue::Int64(value), _) => *value,
            Expr::Literal(ScalarValue::Boolean(value), _) => value.map(i64::from),
            Expr::Alias(alias) => self.eval(&alias.expr, row),
            Expr::IsNull(e) => truth(self.eval(e, row).is_none()),
            Expr::IsNotNull(e) => truth(self.eval(e, row).is_some()),
            Expr::Not(e) => self.eval(e, row).map(|v| 1 - v),
            Expr::BinaryExpr(b) => {
                let (l, r) = (self.eval(&b.left, row), self.eval(&b.right, row));
                match b.op {
                    Operator::And if l == Some(0) || r == Some(0) => Some(0),
                    Operator::Or if l == Some(1) || r == Some(1) => Some(1),
                    Operator::And => Some(l? & r?),
                    Operator::Or => Some(l? | r?),
                    Operator::Eq => truth(l? == r?),
                    Operator::NotEq => truth(l? != r?),
                    Operator::Lt => truth(l? < r?),
                    Operator::Plus => Some(l? + r?),
                    op => panic!("not interpreted: {op}"),
                }
            }
            e => panic!("not interpreted: {e}"),
        }
    }
}
