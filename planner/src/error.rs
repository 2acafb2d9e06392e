//! What can go wrong between SQL text and a task graph.
//!
//! Every variant is written for the person who typed the query: what, where, what to do instead.

use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, SchemaError};
use thiserror::Error;

/// The planner's result.
pub type Result<T, E = PlanError> = std::result::Result<T, E>;

/// An error that a user's SQL met while it was planned.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The text is not SQL.
    #[error("syntax error: {message}")]
    Syntax { message: String },
    /// A name, a type or a function does not fit.
    #[error("{message}{}", hint.as_ref().map(|h| format!("\n{h}")).unwrap_or_default())]
    Invalid { message: String, hint: Option<String> },
    /// The query is SQL that Dovetail refuses, with the way out.
    #[error("{feature} is not supported. {hint}")]
    Unsupported { feature: String, hint: String },
    /// A defect of ours, never the user's fault.
    #[error("internal error in the planner: {0}; please report it with the query")]
    Internal(String),
}

impl PlanError {
    /// A name, a type or a function that does not fit.
    pub fn invalid(message: impl Into<String>) -> Self {
        PlanError::Invalid { message: message.into(), hint: None }
    }

    /// A feature that is refused; `hint` says what to write instead.
    pub fn unsupported(feature: impl Into<String>, hint: impl Into<String>) -> Self {
        PlanError::Unsupported { feature: feature.into(), hint: hint.into() }
    }

    /// A defect of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        PlanError::Internal(message.into())
    }
}

/// What DataFusion's planner and optimizer say, in the terms above.
impl From<DataFusionError> for PlanError {
    fn from(e: DataFusionError) -> Self {
        match e {
            DataFusionError::External(inner) => match inner.downcast::<PlanError>() {
                Ok(own) => *own,
                Err(other) => PlanError::invalid(other.to_string()),
            },
            DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => (*inner).into(),
            DataFusionError::Collection(errors) => match errors.into_iter().next() {
                Some(first) => first.into(),
                None => PlanError::internal("an error without content"),
            },
            DataFusionError::NotImplemented(m) => {
                PlanError::unsupported(without_verb(&without_tree(&m)), "Write the query in another way.")
            }
            DataFusionError::Internal(m) => PlanError::Internal(m),
            DataFusionError::SchemaError(e, _) => match *e {
                SchemaError::AmbiguousReference { field } => PlanError::Invalid {
                    message: format!("the column name {} is ambiguous", field.name),
                    hint: Some(format!("say which table's it is: table.{}", field.name)),
                },
                other => PlanError::invalid(other.to_string()),
            },
            DataFusionError::Plan(m) | DataFusionError::Execution(m) => {
                retold(&m).unwrap_or_else(|| PlanError::invalid(m.trim_end_matches('.').to_string()))
            }
            DataFusionError::ArrowError(e, _) => match *e {
                ArrowError::CastError(m) | ArrowError::ParseError(m) | ArrowError::ComputeError(m) => {
                    PlanError::invalid(m)
                }
                other => PlanError::invalid(other.to_string()),
            },
            other => PlanError::invalid(other.strip_backtrace()),
        }
    }
}

/// DataFusion's longer stories, told short.
fn retold(message: &str) -> Option<PlanError> {
    if let Some((_, rest)) = message.split_once("No function matches the given name and argument types '") {
        let (call, rest) = rest.split_once('\'')?;
        let candidates: Vec<&str> =
            rest.lines().skip_while(|l| !l.contains("Candidate functions")).skip(1).map(str::trim).collect();
        let hint = (!candidates.is_empty()).then(|| format!("there are: {}", candidates.join(", ")));
        return Some(PlanError::Invalid {
            message: format!("no function takes these arguments: {call}"),
            hint,
        });
    }
    if let Some((_, rest)) = message.split_once("While expanding wildcard, column \"") {
        let (column, _) = rest.split_once('"')?;
        return Some(PlanError::Invalid {
            message: format!("{column} is neither grouped by nor in an aggregate function"),
            hint: Some(format!("add it to GROUP BY, or take any_value({column})")),
        });
    }
    if message.starts_with("Projections require unique expression names") {
        let name = message.split('"').nth(1)?;
        let name = name.split_once(" AS ").map_or(name, |(_, alias)| alias);
        return Some(PlanError::Invalid {
            message: format!("two columns are named {name}"),
            hint: Some("give one of them another name with AS".into()),
        });
    }
    // A syntax tree is of no use to a user.
    let (said, _) = message.split_once(" {").filter(|_| message.contains("Span("))?;
    let (said, _) = said.rsplit_once(' ')?;
    Some(PlanError::invalid(said))
}

/// A message up to where it prints a syntax tree: what was not supported, and no more.
fn without_tree(message: &str) -> String {
    if !message.contains("Span(") && !message.contains("quote_style:") {
        return message.to_string();
    }
    let end = message.find(" {").into_iter().chain(message.find('(')).min().unwrap_or(message.len());
    let named = message[..end].rsplit(": ").next().unwrap_or_default();
    let mut named = named.trim();
    for start in ["Unsupported ", "ast node ", "SQL "] {
        named = named.strip_prefix(start).unwrap_or(named);
    }
    if named.is_empty() { "This syntax".into() } else { format!("The syntax of {named} here") }
}

/// "X is not supported yet" as "X": the sentence is completed where it is shown.
fn without_verb(message: &str) -> &str {
    let mut rest = message.trim_end_matches('.').trim();
    rest = rest.strip_prefix("Unsupported ").unwrap_or(rest);
    for end in ["yet", "not supported", "not implemented", "unsupported", "is", "are"] {
        if let Some(shorter) = rest.strip_suffix(end)
            && shorter.ends_with(' ')
        {
            rest = shorter.trim_end();
        }
    }
    rest
}
