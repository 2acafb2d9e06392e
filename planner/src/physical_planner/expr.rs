//! DataFusion's typed expressions to ours: names become positions, types become explicit.
//!
//! What is only another way to write something else is written the one way here: BETWEEN is two
//! comparisons, CASE x WHEN is a searched CASE, LIKE operators are LIKE. A scalar subquery becomes a
//! parameter; equal subqueries share one.

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::expr::{Between, BinaryExpr, Case, InList, Like, ScalarFunction};
use datafusion_expr::expr_schema::ExprSchemable;
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion_expr::{Expr as LogicalExpr, LogicalPlan, Operator};

use super::{Lowering, correlated};
use crate::error::{PlanError, Result};
use crate::expr::{BinaryOp, Expr, IsTest};

impl Lowering<'_> {
    /// The expression over the columns of `schema`.
    pub(super) fn expr(&mut self, expr: &LogicalExpr, schema: &DFSchema) -> Result<Expr> {
        match expr {
            LogicalExpr::Alias(alias) => self.expr(&alias.expr, schema),
            LogicalExpr::Column(column) => {
                let index = schema.index_of_column(column)?;
                Ok(Expr::column(index, schema.field(index).data_type().clone()))
            }
            LogicalExpr::Literal(value, _) => Ok(Expr::literal(value.clone())),
            LogicalExpr::BinaryExpr(binary) => self.binary(binary, schema),
            LogicalExpr::Like(like) => self.like(like, schema),
            LogicalExpr::SimilarTo(_) => {
                Err(PlanError::unsupported("SIMILAR TO", "Use LIKE, or regexp_like(text, pattern)."))
            }
            LogicalExpr::Not(e) => Ok(Expr::Not(Box::new(self.expr(e, schema)?))),
            LogicalExpr::IsNotNull(e) => self.is(IsTest::NotNull, e, schema),
            LogicalExpr::IsNull(e) => self.is(IsTest::Null, e, schema),
            LogicalExpr::IsTrue(e) => self.is(IsTest::True, e, schema),
            LogicalExpr::IsFalse(e) => self.is(IsTest::False, e, schema),
            LogicalExpr::IsUnknown(e) => self.is(IsTest::Unknown, e, schema),
            LogicalExpr::IsNotTrue(e) => self.is(IsTest::NotTrue, e, schema),
            LogicalExpr::IsNotFalse(e) => self.is(IsTest::NotFalse, e, schema),
            LogicalExpr::IsNotUnknown(e) => self.is(IsTest::NotUnknown, e, schema),
            LogicalExpr::Negative(e) => Ok(Expr::Negate(Box::new(self.expr(e, schema)?))),
            LogicalExpr::Between(between) => self.between(between, schema),
            LogicalExpr::Case(case) => self.case(expr, case, schema),
            LogicalExpr::Cast(c) => self.cast(&c.expr, c.field.data_type(), false, schema),
            LogicalExpr::TryCast(c) => self.cast(&c.expr, c.field.data_type(), true, schema),
            LogicalExpr::ScalarFunction(call) => self.call(expr, call, schema),
            LogicalExpr::InList(in_list) => self.in_list(in_list, schema),
            LogicalExpr::ScalarSubquery(subquery) => {
                if !subquery.outer_ref_columns.is_empty() {
                    return Err(correlated());
                }
                self.parameter(&subquery.subquery)
            }
            LogicalExpr::Exists(_) | LogicalExpr::InSubquery(_) | LogicalExpr::SetComparison(_) => {
                Err(PlanError::unsupported(
                    "A subquery of this kind in this place",
                    "Move IN, EXISTS, ANY or ALL to WHERE, or write a join.",
                ))
            }
            LogicalExpr::OuterReferenceColumn(..) => Err(correlated()),
            LogicalExpr::Placeholder(p) => {
                Err(PlanError::unsupported(format!("The parameter {}", p.id), "Write the value itself."))
            }
            LogicalExpr::ScalarVariable(_, names) => {
                Err(PlanError::unsupported(format!("The variable {}", names.join(".")), "Write the value."))
            }
            LogicalExpr::HigherOrderFunction(f) => Err(PlanError::unsupported(
                format!("{} with a lambda", f.name()),
                "Use UNNEST and an aggregate.",
            )),
            LogicalExpr::Lambda(_) | LogicalExpr::LambdaVariable(_) => {
                Err(PlanError::unsupported("A lambda in this place", "Use UNNEST and an aggregate."))
            }
            LogicalExpr::WindowFunction(_) => Err(PlanError::Invalid {
                message: "a window function cannot stand in WHERE, HAVING, GROUP BY or ON".into(),
                hint: Some("compute it in a subquery, or filter with QUALIFY".into()),
            }),
            LogicalExpr::AggregateFunction(_) | LogicalExpr::GroupingSet(_) | LogicalExpr::Unnest(_) => {
                Err(PlanError::internal(format!("{} among scalar expressions", expr.schema_name())))
            }
            #[expect(deprecated)]
            LogicalExpr::Wildcard { .. } => Err(PlanError::invalid("* cannot stand here")),
        }
    }

    fn is(&mut self, test: IsTest, expr: &LogicalExpr, schema: &DFSchema) -> Result<Expr> {
        Ok(Expr::Is { test, expr: Box::new(self.expr(expr, schema)?) })
    }

    fn binary(&mut self, binary: &BinaryExpr, schema: &DFSchema) -> Result<Expr> {
        if matches!(binary.op, Operator::And | Operator::Or) {
            return self.junction(binary, schema);
        }
        let like = |negated, case_insensitive| {
            let expr = binary.left.clone();
            Like::new(negated, expr, binary.right.clone(), None, case_insensitive)
        };
        match binary.op {
            Operator::LikeMatch => return self.like(&like(false, false), schema),
            Operator::ILikeMatch => return self.like(&like(false, true), schema),
            Operator::NotLikeMatch => return self.like(&like(true, false), schema),
            Operator::NotILikeMatch => return self.like(&like(true, true), schema),
            _ => {}
        }
        let left = self.expr(&binary.left, schema)?;
        let right = self.expr(&binary.right, schema)?;
        let op = binary_op(binary.op)?;
        combine(op, binary.op, left, right)
    }

    /// AND and OR as a balanced tree: a thousand alternatives nest ten deep.
    fn junction(&mut self, binary: &BinaryExpr, schema: &DFSchema) -> Result<Expr> {
        let mut terms = vec![];
        let mut stack: Vec<&LogicalExpr> = vec![&binary.right, &binary.left];
        while let Some(e) = stack.pop() {
            match e {
                LogicalExpr::BinaryExpr(b) if b.op == binary.op => stack.extend([&*b.right, &*b.left]),
                other => terms.push(self.expr(other, schema)?),
            }
        }
        let op = binary_op(binary.op)?;
        Ok(balanced(op, terms))
    }

    fn like(&mut self, like: &Like, schema: &DFSchema) -> Result<Expr> {
        Ok(Expr::Like {
            expr: Box::new(self.expr(&like.expr, schema)?),
            pattern: Box::new(self.expr(&like.pattern, schema)?),
            negated: like.negated,
            case_insensitive: like.case_insensitive,
            escape: like.escape_char,
        })
    }

    fn between(&mut self, between: &Between, schema: &DFSchema) -> Result<Expr> {
        let expr = self.expr(&between.expr, schema)?;
        let low = self.expr(&between.low, schema)?;
        let high = self.expr(&between.high, schema)?;
        let (below, above, both) = match between.negated {
            false => ((BinaryOp::GtEq, Operator::GtEq), (BinaryOp::LtEq, Operator::LtEq), BinaryOp::And),
            true => ((BinaryOp::Lt, Operator::Lt), (BinaryOp::Gt, Operator::Gt), BinaryOp::Or),
        };
        let below = combine(below.0, below.1, expr.clone(), low)?;
        let above = combine(above.0, above.1, expr, high)?;
        Ok(balanced(both, vec![below, above]))
    }

    fn case(&mut self, whole: &LogicalExpr, case: &Case, schema: &DFSchema) -> Result<Expr> {
        let data_type = whole.get_type(schema)?;
        let operand = case.expr.as_ref().map(|e| self.expr(e, schema)).transpose()?;
        let mut branches = vec![];
        for (when, then) in &case.when_then_expr {
            let when = self.expr(when, schema)?;
            let condition = match &operand {
                Some(operand) => combine(BinaryOp::Eq, Operator::Eq, operand.clone(), when)?,
                None => when,
            };
            branches.push((condition, self.typed(then, schema, &data_type)?));
        }
        let otherwise = match &case.else_expr {
            Some(e) => Some(Box::new(self.typed(e, schema, &data_type)?)),
            None => None,
        };
        Ok(Expr::Case { branches, otherwise, data_type })
    }

    fn cast(&mut self, expr: &LogicalExpr, to: &DataType, safe: bool, schema: &DFSchema) -> Result<Expr> {
        let expr = self.expr(expr, schema)?;
        if expr.data_type() == *to {
            return Ok(expr);
        }
        Ok(Expr::Cast { expr: Box::new(expr), to: to.clone(), safe })
    }

    fn call(&mut self, whole: &LogicalExpr, call: &ScalarFunction, schema: &DFSchema) -> Result<Expr> {
        let args = call.args.iter().map(|a| self.expr(a, schema)).collect::<Result<Vec<_>>>()?;
        let (_, return_field) = whole.to_field(schema)?;
        Ok(Expr::Call { function: call.func.name().to_string(), args, return_field })
    }

    fn in_list(&mut self, in_list: &InList, schema: &DFSchema) -> Result<Expr> {
        let expr = Box::new(self.expr(&in_list.expr, schema)?);
        let list = in_list.list.iter().map(|e| self.expr(e, schema)).collect::<Result<Vec<_>>>()?;
        Ok(Expr::InList { expr, list, negated: in_list.negated })
    }

    /// The parameter that holds a scalar subquery's value.
    fn parameter(&mut self, subquery: &LogicalPlan) -> Result<Expr> {
        let plan = self.plan(subquery)?;
        let [field] = plan.schema.fields().as_ref() else {
            return Err(PlanError::invalid("a scalar subquery must have one column"));
        };
        let data_type = field.data_type().clone();
        let known = self.subqueries.iter().find(|(_, p)| super::shared::same(p, &plan)).map(|(id, _)| *id);
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.subqueries.len() as u32;
                self.subqueries.push((id, plan));
                id
            }
        };
        Ok(Expr::Parameter { id, data_type })
    }
}

fn combine(op: BinaryOp, logical: Operator, left: Expr, right: Expr) -> Result<Expr> {
    let (l, r) = (left.data_type(), right.data_type());
    let data_type = BinaryTypeCoercer::new(&l, &logical, &r).get_result_type()?;
    Ok(Expr::Binary { op, left: Box::new(left), right: Box::new(right), data_type })
}

fn balanced(op: BinaryOp, mut terms: Vec<Expr>) -> Expr {
    if terms.len() <= 1 {
        return terms.pop().unwrap_or_else(|| Expr::literal(ScalarValue::Boolean(Some(op == BinaryOp::And))));
    }
    let right = terms.split_off(terms.len() / 2);
    Expr::Binary {
        op,
        left: Box::new(balanced(op, terms)),
        right: Box::new(balanced(op, right)),
        data_type: DataType::Boolean,
    }
}

fn binary_op(op: Operator) -> Result<BinaryOp> {
    Ok(match op {
        Operator::Eq => BinaryOp::Eq,
        Operator::NotEq => BinaryOp::NotEq,
        Operator::Lt => BinaryOp::Lt,
        Operator::LtEq => BinaryOp::LtEq,
        Operator::Gt => BinaryOp::Gt,
        Operator::GtEq => BinaryOp::GtEq,
        Operator::IsDistinctFrom => BinaryOp::IsDistinctFrom,
        Operator::IsNotDistinctFrom => BinaryOp::IsNotDistinctFrom,
        Operator::And => BinaryOp::And,
        Operator::Or => BinaryOp::Or,
        Operator::Plus => BinaryOp::Add,
        Operator::Minus => BinaryOp::Subtract,
        Operator::Multiply => BinaryOp::Multiply,
        Operator::Divide => BinaryOp::Divide,
        Operator::Modulo => BinaryOp::Modulo,
        Operator::BitwiseAnd => BinaryOp::BitAnd,
        Operator::BitwiseOr => BinaryOp::BitOr,
        Operator::BitwiseXor => BinaryOp::BitXor,
        Operator::BitwiseShiftLeft => BinaryOp::ShiftLeft,
        Operator::BitwiseShiftRight => BinaryOp::ShiftRight,
        Operator::StringConcat => BinaryOp::Concat,
        Operator::RegexMatch => BinaryOp::RegexMatch,
        Operator::RegexIMatch => BinaryOp::RegexIMatch,
        Operator::RegexNotMatch => BinaryOp::RegexNotMatch,
        Operator::RegexNotIMatch => BinaryOp::RegexNotIMatch,
        other => {
            return Err(PlanError::unsupported(format!("The operator {other}"), "Use a function instead."));
        }
    })
}
