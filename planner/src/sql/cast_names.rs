//! Casts get names of their own while a statement is bound.
//!
//! `datafusion-sql` finds expressions again by their names, and names a cast after what is cast: `a` and
//! `CAST(a AS VARCHAR)` are both `t.a`, `sum(a)` and `sum(CAST(a AS DOUBLE))` both `sum(t.a)`. Two such
//! expressions beside each other are refused, and one could be taken for the other. So before binding every
//! cast becomes an argument of a function without effect, whose name tells the type; after binding the
//! function is taken out again, and the columns keep the names. The calls that stand for parameters are replaced
//! by the values on the same walk.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{Result, ScalarValue, internal_err};
use datafusion_expr::expr::{GroupingSet, ScalarFunction};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use sqlparser::ast::{self, Value, VisitMut, VisitorMut};

use super::parameters::Parameters;
use super::rewrite::call;

/// The function around a cast; no user's function has this name.
pub(super) const NAME: &str = "__cast";

/// Wraps every cast of the statement.
pub(super) fn wrap(statement: &mut impl VisitMut) {
    let _: ControlFlow<()> = statement.visit(&mut Wrapper);
}

/// The plan with casts as they were, and parameters' values, under the names that they had as arguments.
pub(super) fn unwrap(plan: LogicalPlan, parameters: Parameters<'_>) -> Result<LogicalPlan> {
    let bare = |expr| bare(expr, parameters);
    plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let values = matches!(node, LogicalPlan::Values(_));
        node.map_expressions(|expr| match expr {
            // The columns of a grouping set are the expressions in it.
            Expr::GroupingSet(set) => {
                let named = |e: Expr| -> Result<Expr> {
                    let name = names.save(&e);
                    Ok(name.restore(bare(e)?.data))
                };
                let all = |list: Vec<Expr>| list.into_iter().map(named).collect::<Result<Vec<_>>>();
                let set = match set {
                    GroupingSet::Rollup(list) => GroupingSet::Rollup(all(list)?),
                    GroupingSet::Cube(list) => GroupingSet::Cube(all(list)?),
                    GroupingSet::GroupingSets(lists) => {
                        GroupingSet::GroupingSets(lists.into_iter().map(all).collect::<Result<_>>()?)
                    }
                };
                Ok(Transformed::yes(Expr::GroupingSet(set)))
            }
            expr => {
                let name = names.save(&expr);
                let bare = bare(expr)?;
                let named = bare.transformed && !values;
                Ok(bare.update_data(|e| if named { name.restore(e) } else { e }))
            }
        })
    })
    .map(|t| t.data)
}

fn bare(expr: Expr, parameters: Parameters<'_>) -> Result<Transformed<Expr>> {
    expr.transform_down(|e| match e {
        // The arguments of grouping() are group expressions, name and all.
        Expr::AggregateFunction(mut f) if f.func.name() == "grouping" => {
            for arg in &mut f.params.args {
                let name = NamePreserver::new_for_projection().save(arg);
                *arg = name.restore(bare(std::mem::take(arg), parameters)?.data);
            }
            Ok(Transformed::new(Expr::AggregateFunction(f), true, TreeNodeRecursion::Jump))
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) if func.name() == NAME => {
            Ok(Transformed::yes(args.swap_remove(0)))
        }
        Expr::ScalarFunction(f) => match parameters.value_of(&f) {
            Some(value) => Ok(Transformed::yes(value)),
            None => Ok(Transformed::no(Expr::ScalarFunction(f))),
        },
        other => Ok(Transformed::no(other)),
    })
}

/// The function of [`NAME`].
pub(super) fn function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(NamedCast(Signature::any(2, Volatility::Immutable)))));
    FUNCTION.clone()
}

struct Wrapper;

impl VisitorMut for Wrapper {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        let label = match expr {
            ast::Expr::Cast { data_type, .. } => data_type.to_string(),
            ast::Expr::TypedString(typed) => typed.data_type.to_string(),
            _ => return ControlFlow::Continue(()),
        };
        let cast = std::mem::replace(expr, ast::Expr::value(Value::Null));
        *expr = call(NAME, vec![cast, ast::Expr::value(Value::SingleQuotedString(label))]);
        ControlFlow::Continue(())
    }
}

/// A cast and its type's name: the cast.
#[derive(Debug, PartialEq, Eq, Hash)]
struct NamedCast(Signature);

impl ScalarUDFImpl for NamedCast {
    fn name(&self) -> &str {
        NAME
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [cast, Expr::Literal(ScalarValue::Utf8(Some(label)) | ScalarValue::Utf8View(Some(label)), _)] =
            args
        else {
            return internal_err!("a cast without its type");
        };
        let verb = if matches!(cast, Expr::TryCast(_)) { "TRY_CAST" } else { "CAST" };
        Ok(format!("{verb}({} AS {label})", cast.schema_name()))
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(args.arg_fields[0].clone())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("a cast's name outlived binding")
    }
}
