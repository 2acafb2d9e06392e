//! Parameters of a statement: `?` in the order of the text, or `$1`, `$2`, ….
//!
//! ```text
//! tokens ─ number ─▶ $1, $2, … ─ parse ─▶ syntax tree ─┬─ types: bound as they are ─▶ what each is compared with
//!                                                     └─ values: wrap ─▶ bound ─▶ literals in the plan
//! ```
//!
//! While a statement is bound, a parameter with a value is a call of a function that has the value's type; then
//! the value takes its place, as casts do (see `cast_names`). What always holds: a value never becomes SQL text;
//! a statement is bound with as many values as it has parameters, or refused.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DataFusionError, Result as DataFusionResult, ScalarValue, internal_err};
use datafusion_expr::expr::{Cast, Placeholder, ScalarFunction, TryCast};
use datafusion_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion_sql::parser::{CopyToSource, Statement};
use sqlparser::ast::{self, Value, ValueWithSpan, Visit, VisitMut, Visitor, VisitorMut};
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::message;
use super::rewrite::call;
use crate::error::{PlanError, Result};

/// Highest number of a parameter; PostgreSQL's.
const PARAMETERS_MAX: usize = 65_535;

/// The function that stands for a parameter; no user's function has this name.
pub(super) const NAME: &str = "__parameter";

/// What a statement's parameters are while it is bound.
#[derive(Clone, Copy)]
pub(super) enum Parameters<'a> {
    /// Not known yet.
    Open,
    /// As many as the statement has.
    Values(&'a [ScalarValue]),
}

/// Numbers each `?` in the order of the text, for each statement anew.
pub(super) fn number(sql: &str, tokens: &mut [TokenWithSpan]) -> Result<()> {
    let (mut marks, mut numbers) = (0usize, 0usize);
    for token in tokens {
        match &mut token.token {
            Token::SemiColon => (marks, numbers) = (0, 0),
            Token::Placeholder(name) => {
                match name.strip_prefix('?') {
                    Some("") => {
                        marks += 1;
                        *name = format!("${marks}");
                    }
                    Some(digits) => {
                        numbers += 1;
                        *name = format!("${digits}");
                    }
                    None => numbers += 1,
                }
                if marks > 0 && numbers > 0 {
                    let problem = "parameters are either all ? or all numbered, $1, $2, …";
                    return Err(message::syntax(sql, problem, Some(token.span.start)));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// How many parameters a statement has: the highest number among them.
pub(super) fn count(statement: &Statement) -> Result<usize> {
    match statement {
        Statement::Statement(s) => count_in(s.as_ref()),
        Statement::Explain(e) => count(&e.statement),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => count_in(query),
            CopyToSource::Relation(_) => Ok(0),
        },
        Statement::CreateExternalTable(_) | Statement::Reset(_) => Ok(0),
    }
}

/// The highest number among the parameters of a part of a statement.
pub(super) fn count_in(part: &impl Visit) -> Result<usize> {
    let mut counter = Counter { highest: 0 };
    match part.visit(&mut counter) {
        ControlFlow::Continue(()) => Ok(counter.highest),
        ControlFlow::Break(e) => Err(e),
    }
}

/// An error unless there is a value for each parameter and no more.
pub(super) fn check_count(parameters: usize, values: usize) -> Result<()> {
    let many = |n: usize| if n == 1 { "1 parameter".to_owned() } else { format!("{n} parameters") };
    match (parameters, values) {
        (expected, given) if expected == given => Ok(()),
        (expected, 0) => Err(PlanError::Invalid {
            message: format!("the statement has {} and no values for them", many(expected)),
            hint: Some(
                "write the values into the statement, or prepare it and bind them with a Flight SQL client"
                    .into(),
            ),
        }),
        (expected, given) => Err(PlanError::invalid(format!(
            "the statement has {}, and {given} {} given",
            many(expected),
            if given == 1 { "value was" } else { "values were" }
        ))),
    }
}

/// What is known of the types of `count` parameters in a plan that was bound without values; Null where a
/// parameter is in no company that tells, or in several that differ.
pub(super) fn types(plan: Option<&LogicalPlan>, count: usize) -> Result<Vec<DataType>> {
    let mut found: Vec<BTreeSet<DataType>> = vec![BTreeSet::new(); count];
    if let Some(plan) = plan {
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Limit(limit) = node {
                for expr in [&limit.skip, &limit.fetch].into_iter().flatten() {
                    note(&mut found, expr, &DataType::Int64);
                }
            }
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    match e {
                        Expr::Placeholder(Placeholder { field: Some(field), .. }) => {
                            note(&mut found, e, field.data_type());
                        }
                        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
                            note(&mut found, expr, field.data_type());
                        }
                        _ => {}
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })
        .map_err(PlanError::from)?;
    }
    let one = |mut types: BTreeSet<DataType>| match (types.pop_first(), types.is_empty()) {
        (Some(only), true) => only,
        _ => DataType::Null,
    };
    Ok(found.into_iter().map(one).collect())
}

fn note(found: &mut [BTreeSet<DataType>], expr: &Expr, data_type: &DataType) {
    if let Expr::Placeholder(Placeholder { id, .. }) = expr
        && let Some(number) = number_of(id)
        && let Some(types) = found.get_mut(number - 1)
    {
        types.insert(data_type.clone());
    }
}

/// The number of `$1`.
fn number_of(name: &str) -> Option<usize> {
    let digits = name.strip_prefix('$')?;
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (1..=PARAMETERS_MAX).contains(&number).then_some(number)
}

struct Counter {
    highest: usize,
}

impl Visitor for Counter {
    type Break = PlanError;

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<PlanError> {
        let Value::Placeholder(name) = &value.value else {
            return ControlFlow::Continue(());
        };
        match number_of(name) {
            Some(number) => {
                self.highest = self.highest.max(number);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(PlanError::unsupported(
                format!("The parameter {name}"),
                format!("Write ? or a number from $1 to ${PARAMETERS_MAX}."),
            )),
        }
    }
}

impl Parameters<'_> {
    /// Puts a function in the place of every parameter that has a value.
    pub(super) fn wrap(self, statement: &mut impl VisitMut) {
        if let Parameters::Values([_, ..]) = self {
            let _: ControlFlow<()> = statement.visit(&mut Wrapper);
        }
    }

    /// The value that a call stands for, if it is a parameter's.
    pub(super) fn value_of(self, function: &ScalarFunction) -> Option<Expr> {
        match (self, function.args.as_slice()) {
            (Parameters::Values(values), [number]) if function.func.name() == NAME => {
                let value = values.get(index(number)?)?.clone();
                Some(Expr::Literal(value, None))
            }
            _ => None,
        }
    }

    /// The function of [`NAME`].
    pub(super) fn function(self) -> Option<Arc<ScalarUDF>> {
        match self {
            Parameters::Open | Parameters::Values([]) => None,
            Parameters::Values(values) => Some(Arc::new(ScalarUDF::from(Parameter {
                signature: Signature::any(1, Volatility::Immutable),
                types: values.iter().map(ScalarValue::data_type).collect(),
            }))),
        }
    }
}

struct Wrapper;

impl VisitorMut for Wrapper {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Value(ValueWithSpan { value: Value::Placeholder(name), .. }) = expr
            && let Some(number) = number_of(name)
        {
            *expr = call(NAME, vec![ast::Expr::value(Value::Number(number.to_string(), false))]);
        }
        ControlFlow::Continue(())
    }
}

/// Where the value of a parameter's function is.
fn index(argument: &Expr) -> Option<usize> {
    match argument {
        Expr::Literal(ScalarValue::Int64(Some(n)), _) => usize::try_from(*n).ok()?.checked_sub(1),
        _ => None,
    }
}

/// The number of a parameter: its value, which is put in its place before anything is computed.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Parameter {
    signature: Signature,
    types: Vec<DataType>,
}

impl ScalarUDFImpl for Parameter {
    fn name(&self) -> &str {
        NAME
    }

    fn schema_name(&self, args: &[Expr]) -> DataFusionResult<String> {
        match args {
            [number] => Ok(format!("${}", number.schema_name())),
            _ => internal_err!("a parameter without its number"),
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        internal_err!("a parameter's type depends on its number")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DataFusionResult<FieldRef> {
        let number = match args.scalar_arguments {
            [Some(ScalarValue::Int64(Some(n)))] => usize::try_from(*n).ok(),
            _ => None,
        };
        let known = number.and_then(|n| self.types.get(n.checked_sub(1)?));
        match known {
            Some(data_type) => Ok(Arc::new(Field::new(self.name(), data_type.clone(), true))),
            None => Err(DataFusionError::Internal("a parameter without a value".into())),
        }
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        internal_err!("a parameter outlived binding")
    }
}
