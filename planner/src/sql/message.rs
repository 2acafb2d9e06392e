//! Errors that point at the SQL text: the line, and a caret under the token.

use datafusion_common::{Column, DataFusionError, SchemaError};
use sqlparser::parser::ParserError;
use sqlparser::tokenizer::Location;

use crate::error::PlanError;
use crate::functions::functions;

/// A syntax error at a place.
pub(super) fn syntax(sql: &str, message: &str, at: Option<Location>) -> PlanError {
    PlanError::Syntax { message: with_line(sql, message, at) }
}

/// More parentheses, CASE or NOT inside of each other than the parser takes.
pub(super) fn too_deep(sql: &str) -> PlanError {
    syntax(sql, "the statement nests too deeply; split it with WITH or a view", None)
}

/// An error of the parser: its message, with the place that it names at its end taken out.
pub(super) fn parser(sql: &str, e: DataFusionError) -> PlanError {
    match e {
        DataFusionError::Diagnostic(_, inner) | DataFusionError::Context(_, inner) => parser(sql, *inner),
        DataFusionError::SQL(e, _) => match *e {
            ParserError::ParserError(m) | ParserError::TokenizerError(m) => {
                let (message, at) = split_place(&m);
                let at = at.or_else(|| message.ends_with("found: EOF").then(|| end(sql)));
                syntax(sql, message, at)
            }
            ParserError::RecursionLimitExceeded => too_deep(sql),
        },
        other => other.into(),
    }
}

/// An error that came up while names of `script` were resolved.
pub(super) fn binder(script: &str, e: DataFusionError) -> PlanError {
    match e {
        DataFusionError::Diagnostic(diagnostic, inner) => {
            let at = diagnostic.span.map(|s| Location { line: s.start.line, column: s.start.column });
            match binder(script, *inner) {
                PlanError::Invalid { message, hint } => {
                    PlanError::Invalid { message: with_line(script, &message, at), hint }
                }
                other => other,
            }
        }
        DataFusionError::Context(_, inner) => binder(script, *inner),
        DataFusionError::Collection(errors) => match errors.into_iter().next() {
            Some(first) => binder(script, first),
            None => PlanError::internal("an error without content"),
        },
        DataFusionError::SchemaError(e, _) => schema_error(script, *e),
        DataFusionError::Plan(m) => {
            match m.strip_prefix("Invalid function '").and_then(|m| m.split_once('\'')) {
                Some((name, _)) => unknown_function(name),
                None => DataFusionError::Plan(m).into(),
            }
        }
        other => other.into(),
    }
}

/// A function that does not exist, or not in this place.
fn unknown_function(name: &str) -> PlanError {
    let all = functions();
    let lower = name.to_lowercase();
    let hint = if all.window.contains_key(&lower) {
        Some(format!("{name} is a window function: write {name}(…) OVER (…)"))
    } else if all.scalar.contains_key(&lower) {
        Some(format!("{name} is a scalar function: it has no OVER"))
    } else {
        let names = all.scalar.keys().chain(all.aggregate.keys()).chain(all.window.keys());
        nearest(name, names.map(String::as_str)).map(|near| format!("did you mean {near}?"))
    };
    PlanError::Invalid { message: format!("there is no function {name} here"), hint }
}

fn schema_error(script: &str, e: SchemaError) -> PlanError {
    let SchemaError::FieldNotFound { field, valid_fields } = e else {
        return PlanError::invalid(e.to_string().trim_end_matches('.'));
    };
    let at = field.spans.first().map(|s| Location { line: s.start.line, column: s.start.column });
    let mut message = format!("there is no column {}", field.quoted_flat_name());
    // DataFusion attaches the same place as a diagnostic where it can; do not show it twice.
    if let Some(at) = at {
        message = with_line(script, &message, Some(at));
    }
    PlanError::Invalid { message, hint: column_hint(&field, &valid_fields) }
}

fn column_hint(field: &Column, valid: &[Column]) -> Option<String> {
    let names: Vec<&str> = valid.iter().map(|c| c.name.as_str()).collect();
    if let Some(name) = nearest(&field.name, names.iter().copied()) {
        let found = valid.iter().find(|c| c.name == name)?;
        return Some(format!("did you mean {}?", found.quoted_flat_name()));
    }
    (!valid.is_empty() && valid.len() <= 20).then(|| {
        let all: Vec<String> = valid.iter().map(Column::quoted_flat_name).collect();
        format!("there are: {}", all.join(", "))
    })
}

/// The candidate nearest to `name`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_lowercase();
    candidates
        .map(|c| (strsim::damerau_levenshtein(&name, &c.to_lowercase()), c))
        .filter(|(d, c)| *d <= name.chars().count().max(c.chars().count()) / 3 + 1)
        .min_by_key(|(d, c)| (*d, c.len()))
        .filter(|(d, c)| *d < name.chars().count().max(c.chars().count()))
        .map(|(_, c)| c)
}

/// The place behind the last character.
fn end(sql: &str) -> Location {
    let sql = sql.trim_end();
    let line = sql.lines().count().max(1) as u64;
    let column = sql.lines().last().map_or(0, |l| l.chars().count()) as u64 + 1;
    Location { line, column }
}

/// Byte position of a place in a text.
pub(super) fn offset(sql: &str, at: Location) -> usize {
    let mut line_start = 0;
    for _ in 1..at.line {
        match sql[line_start..].find('\n') {
            Some(n) => line_start += n + 1,
            None => return sql.len(),
        }
    }
    sql[line_start..]
        .char_indices()
        .nth(at.column.saturating_sub(1) as usize)
        .map_or(sql.len(), |(i, _)| line_start + i)
}

/// `message`, and below it the line and a caret under the column.
pub(super) fn with_line(sql: &str, message: &str, at: Option<Location>) -> String {
    let Some(at) = at.filter(|at| at.line > 0) else {
        return message.to_string();
    };
    if message.contains('\n') {
        return message.to_string();
    }
    let Some(line) = sql.lines().nth(at.line as usize - 1) else {
        return message.to_string();
    };
    let column = at.column.max(1) as usize - 1;
    // Tabs before the caret stay tabs, so that it stands below its token.
    let indent: String = line.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let number = format!("line {}: ", at.line);
    format!("{message}\n{number}{line}\n{}{indent}^", " ".repeat(number.len()))
}

/// `… at Line: 3, Column: 7` as the message before it, and the place.
fn split_place(message: &str) -> (&str, Option<Location>) {
    let Some(start) = message.rfind(" at Line: ") else {
        return (message, None);
    };
    let mut numbers = message[start..].split(|c: char| !c.is_ascii_digit()).filter(|s| !s.is_empty());
    let mut next = || numbers.next().and_then(|n| n.parse().ok());
    match (next(), next()) {
        (Some(line), Some(column)) => (&message[..start], Some(Location { line, column })),
        _ => (message, None),
    }
}
