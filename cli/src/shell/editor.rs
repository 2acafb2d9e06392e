//! The line editor's view of SQL: when an entry is whole, what Tab offers, which words have colours.

use std::borrow::Cow;

use rustyline::completion::Completer;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Result};

use super::command::is_command;
use super::completion::{self, Known};
use super::lex::{Kind, is_whole, tokens};
use crate::database::Database;

/// Answers the line editor's questions.
pub struct Sql<'a> {
    pub database: &'a Database,
    pub colours: bool,
}

impl Validator for Sql<'_> {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        let entry = ctx.input();
        let done = entry.trim().is_empty() || is_command(entry) || is_whole(entry);
        Ok(if done { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Sql<'_> {
    type Candidate = String;

    fn complete(&self, line: &str, cursor: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        let known = |t: dovetail_engine::TableInfo| Known {
            columns: t.schema.fields().iter().map(|f| f.name().clone()).collect(),
            name: t.name,
        };
        // Completion without tables is better than none.
        let tables: Vec<Known> = self.database.tables().unwrap_or_default().into_iter().map(known).collect();
        Ok(completion::complete(line, cursor, &tables))
    }
}

impl Highlighter for Sql<'_> {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if !self.colours || is_command(line) {
            return Cow::Borrowed(line);
        }
        let mut out = String::with_capacity(line.len() * 2);
        let mut at = 0;
        for token in tokens(line) {
            let text = &line[token.range.clone()];
            out.push_str(&line[at..token.range.start]);
            at = token.range.end;
            match colour(token.kind, text) {
                Some(colour) => out.extend([colour, text, "\x1b[0m"]),
                None => out.push_str(text),
            }
        }
        out.push_str(&line[at..]);
        Cow::Owned(out)
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        self.colours
    }
}

fn colour(kind: Kind, text: &str) -> Option<&'static str> {
    match kind {
        Kind::Word if completion::is_keyword(text) => Some("\x1b[1;34m"),
        Kind::Text => Some("\x1b[32m"),
        Kind::Number => Some("\x1b[36m"),
        Kind::Comment => Some("\x1b[2m"),
        _ => None,
    }
}

impl Hinter for Sql<'_> {
    type Hint = String;
}

impl Helper for Sql<'_> {}
