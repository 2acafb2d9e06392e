//! Cuts a script into statements.
//!
//! Each statement keeps its own text and the whole script, so that an error found later, when names are
//! resolved, can still show the line it stands on.

use std::sync::Arc;

use datafusion_sql::parser::{DFParserBuilder, Statement};
use datafusion_sql::resolve::resolve_table_references;
use sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::balance::balance;
use super::dialect::DIALECT;
use super::{message, parameters, tokens};
use crate::error::{PlanError, Result};
use crate::stack::with_room;

/// How deep expressions and subqueries may nest.
const NESTING_MAX: usize = 128;

/// One statement of a script.
#[derive(Debug, Clone)]
pub struct ParsedStatement {
    /// The statement's text, without the semicolon.
    pub text: String,
    /// Number of its parameters, `?` or `$1`.
    pub parameters: usize,
    pub(super) statement: Statement,
    /// The whole script, which the statement's positions count in.
    pub(super) script: Arc<str>,
    /// Where in the script the statement starts.
    pub(super) start: Location,
}

impl ParsedStatement {
    /// Tables, views and paths that the statement names, each once: what a catalog snapshot must hold (or
    /// must be known not to exist) before the statement can be bound. Unquoted names are in lower case; a
    /// schema stays in front, with a dot.
    pub fn tables(&self) -> Result<Vec<String>> {
        let (tables, _) = resolve_table_references(&self.statement, true)?;
        Ok(tables.into_iter().map(|t| super::provider::key(&t)).collect())
    }
}

/// The statements of a script, which are separated by semicolons. A syntax error shows its line.
pub fn parse(sql: &str) -> Result<Vec<ParsedStatement>> {
    with_room(|| {
        let tokens = tokenize(sql)?;
        parse_tokens(sql, tokens)
    })
}

/// The script's tokens, with their places.
pub(super) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>> {
    Tokenizer::new(&DIALECT, sql)
        .tokenize_with_location()
        .map(tokens::complete)
        .map_err(|e| message::syntax(sql, &e.message, Some(e.location)))
        .and_then(|mut tokens| parameters::number(sql, &mut tokens).map(|()| tokens))
}

/// The statements that tokens of `sql` make.
pub(super) fn parse_tokens(sql: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<ParsedStatement>> {
    let script: Arc<str> = sql.into();
    let nests_deeply = tokens::nesting(&tokens) > NESTING_MAX / 2;
    let mut parser = DFParserBuilder::new(tokens)
        .with_dialect(&DIALECT)
        .with_recursion_limit(NESTING_MAX)
        .build()
        .map_err(|e| message::parser(sql, e))?;
    let mut statements = vec![];
    loop {
        while parser.parser.consume_token(&Token::SemiColon) {}
        let first = parser.parser.peek_token();
        if first.token == Token::EOF {
            return Ok(statements);
        }
        let mut statement = match parser.parse_statement() {
            Ok(statement) => statement,
            // Where it tries several readings, the parser takes its own limit for a syntax error.
            Err(_) if nests_deeply => return Err(message::too_deep(sql)),
            Err(e) => return Err(message::parser(sql, e)),
        };
        balance(&mut statement)?;
        let next = parser.parser.peek_token();
        if !matches!(next.token, Token::SemiColon | Token::EOF) {
            if nests_deeply {
                return Err(message::too_deep(sql));
            }
            let text = format!("Expected: end of statement, found: {}", next.token);
            return Err(message::syntax(sql, &text, Some(next.span.start)));
        }
        let from = message::offset(sql, first.span.start);
        let to = if next.token == Token::EOF { sql.len() } else { message::offset(sql, next.span.start) };
        statements.push(ParsedStatement {
            text: sql[from..to].trim_end().to_string(),
            parameters: parameters::count(&statement)?,
            statement,
            script: script.clone(),
            start: first.span.start,
        });
    }
}

/// The one statement of a text.
pub(super) fn parse_one(sql: &str) -> Result<ParsedStatement> {
    let mut statements = parse(sql)?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err(PlanError::Syntax { message: "expected one statement".into() }),
    }
}
