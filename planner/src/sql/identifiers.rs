//! Case-insensitive names, also where a table's own columns have capitals.
//!
//! `datafusion-sql` turns unquoted names into lower case and then compares exactly, so `UserID` of a
//! Parquet file would have to be quoted in every query. Here an unquoted name that differs from a column of
//! the named tables in nothing but case becomes that column's name, quoted, before the statement is parsed.
//! It happens in the token stream, so that every place a name can stand in is treated alike.

use std::collections::BTreeMap;

use datafusion_sql::parser::Statement;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::parse::{ParsedStatement, parse_tokens, tokenize};
use crate::catalog::CatalogSnapshot;
use crate::error::{PlanError, Result};

/// The statement with unquoted names in the case of the columns they mean.
pub(super) fn resolve_case(statement: &ParsedStatement, catalog: &CatalogSnapshot) -> Result<Statement> {
    let spelling = capitals(statement, catalog)?;
    if spelling.is_empty() {
        return Ok(statement.statement.clone());
    }
    let mut tokens = tokenize(&statement.script)?;
    for i in 0..tokens.len() {
        // A name before a parenthesis is a function's.
        let call = tokens[i + 1..].iter().find(|t| !matches!(t.token, Token::Whitespace(_)));
        let call = call.is_some_and(|t| t.token == Token::LParen);
        if let Token::Word(word) = &mut tokens[i].token
            && word.quote_style.is_none()
            && word.keyword == Keyword::NoKeyword
            && !call
            && let Some(name) = spelling.get(&word.value.to_lowercase())
        {
            word.value = name.clone();
            word.quote_style = Some('"');
        }
    }
    parse_tokens(&statement.script, tokens)?
        .into_iter()
        .find(|s| s.start == statement.start)
        .map(|s| s.statement)
        .ok_or_else(|| PlanError::internal("a statement that was not found again"))
}

/// Columns with capitals of the tables that the statement may read, by their lower-case name. Views may
/// bring in any table, so a statement that names one gets all of them. A name that two columns share but
/// for case is left out: it must be quoted.
fn capitals(statement: &ParsedStatement, catalog: &CatalogSnapshot) -> Result<BTreeMap<String, String>> {
    let named = statement.tables()?;
    let view = named.iter().any(|n| catalog.views.contains_key(&n.to_lowercase()));
    let mut spelling: BTreeMap<String, Option<String>> = BTreeMap::new();
    for (name, table) in &catalog.tables {
        if !view && !named.iter().any(|n| n == name || n.to_lowercase() == *name) {
            continue;
        }
        for field in table.schema.fields() {
            let lower = field.name().to_lowercase();
            spelling
                .entry(lower)
                .and_modify(|known| {
                    if known.as_ref() != Some(field.name()) {
                        *known = None;
                    }
                })
                .or_insert_with(|| Some(field.name().clone()));
        }
    }
    Ok(spelling
        .into_iter()
        .filter_map(|(lower, name)| name.filter(|n| *n != lower).map(|n| (lower, n)))
        .collect())
}
