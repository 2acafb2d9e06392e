//! The shell's own commands: `.tables` and the like, and the spellings of other shells.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::format::Format;

/// What a line that is no SQL asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Help,
    Tables,
    /// Of one table, or of all.
    Schema(Option<String>),
    /// On, off, or the other way round.
    Timer(Option<bool>),
    /// Set, or show.
    Mode(Option<Format>),
    Read(PathBuf),
    Quit,
}

/// What `.help` prints.
pub const HELP: &str = "\
.help                 this text                                  also \\?
.tables               the tables, with their columns and rows    also \\d, \\dt
.schema [TABLE]       the columns of a table, or of all          also \\d TABLE
.timer on|off         print the time that statements take        also \\timing
.mode [FORMAT]        table, csv, tsv, json, ndjson, markdown or vertical
.read FILE            run the statements of a file               also \\i FILE
.quit                 leave                                      also \\q, Ctrl-D

SQL runs when it ends in a semicolon; it may take several lines. Ctrl-C stops a running statement, or
clears what is typed. Tab completes keywords, tables and columns. The arrows bring back earlier statements.";

/// The names that completion offers after a dot.
pub const NAMES: &[&str] = &[".help", ".mode", ".quit", ".read", ".schema", ".tables", ".timer"];

/// Whether a line is a command rather than SQL: complete without a semicolon.
pub fn is_command(line: &str) -> bool {
    let line = line.trim();
    let word = line.trim_end_matches(';').trim_end();
    line.starts_with(['.', '\\']) || ["quit", "exit", "help"].iter().any(|w| word.eq_ignore_ascii_case(w))
}

/// The command in a line; the error is for the person who typed it.
pub fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = match line.split_once(char::is_whitespace) {
        Some((name, argument)) => (name, Some(argument.trim()).filter(|a| !a.is_empty())),
        None => (line, None),
    };
    let name = name.to_ascii_lowercase();
    let command =
        match (name.as_str(), argument) {
            (".help" | "\\?" | "\\h" | "help", _) => Command::Help,
            (".tables" | "\\dt" | "\\d", None) => Command::Tables,
            (".schema", table) => Command::Schema(table.map(unquoted)),
            ("\\d" | "\\d+", Some(table)) => Command::Schema(Some(unquoted(table))),
            (".timer" | "\\timing", None) => Command::Timer(None),
            (".timer" | "\\timing", Some("on")) => Command::Timer(Some(true)),
            (".timer" | "\\timing", Some("off")) => Command::Timer(Some(false)),
            (".timer" | "\\timing", Some(_)) => return Err("write .timer on or .timer off".to_owned()),
            (".mode", None) => Command::Mode(None),
            (".mode", Some(format)) => Command::Mode(Some(Format::from_str(format, true).map_err(|_| {
                format!("there is no format {format}; there are {}", format_names().join(", "))
            })?)),
            (".read" | "\\i", Some(file)) => Command::Read(PathBuf::from(unquoted(file))),
            (".read" | "\\i", None) => return Err("write .read FILE".to_owned()),
            (".quit" | ".exit" | "\\q" | "quit" | "exit", None) => Command::Quit,
            _ => return Err(format!("there is no command {line}; .help lists them")),
        };
    Ok(command)
}

/// The formats, as `.mode` takes them.
pub fn format_names() -> Vec<String> {
    Format::value_variants()
        .iter()
        .filter_map(|f| Some(f.to_possible_value()?.get_name().to_owned()))
        .collect()
}

fn unquoted(text: &str) -> String {
    let quoted = |q| text.len() >= 2 && text.starts_with(q) && text.ends_with(q);
    match quoted('\'') || quoted('"') {
        true => text[1..text.len() - 1].to_owned(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling() {
        assert_eq!(parse(".help"), Ok(Command::Help));
        assert_eq!(parse("\\d"), Ok(Command::Tables));
        assert_eq!(parse("\\d \"My Table\";"), Ok(Command::Schema(Some("My Table".to_owned()))));
        assert_eq!(parse(".schema"), Ok(Command::Schema(None)));
        assert_eq!(parse(" .timer  off "), Ok(Command::Timer(Some(false))));
        assert_eq!(parse(".MODE csv"), Ok(Command::Mode(Some(Format::Csv))));
        assert_eq!(parse(".read 'a b.sql'"), Ok(Command::Read("a b.sql".into())));
        assert_eq!(parse("exit;"), Ok(Command::Quit));
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(parse(".nosuch").unwrap_err().contains(".help"));
        assert!(parse(".mode yaml").unwrap_err().contains("vertical"));
        assert!(parse(".timer maybe").is_err() && parse(".read").is_err() && parse(".quit now").is_err());
    }

    #[test]
    fn commands_are_told_from_sql() {
        for line in [".tables", "\\q", "quit", "EXIT;", "  .mode csv"] {
            assert!(is_command(line), "{line}");
        }
        for line in ["SELECT 1;", "help me", "exit_code;", ""] {
            assert!(!is_command(line), "{line}");
        }
    }

    #[test]
    fn help_names_every_command() {
        for name in NAMES {
            assert!(HELP.contains(name) && parse(name).is_ok() | name.eq(&".read"), "{name}");
        }
    }
}
