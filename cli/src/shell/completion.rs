//! What Tab offers: keywords, tables, columns, and the shell's own commands, each where it fits.

use std::collections::BTreeSet;

use super::command::{NAMES, format_names};
use super::lex::{Kind, Token, tokens};

/// A table as completion knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub name: String,
    pub columns: Vec<String>,
}

/// Words of SQL that are worth completing; functions with their parenthesis.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST(",
    "CREATE",
    "CROSS",
    "DATE",
    "DELETE",
    "DESC",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXTRACT(",
    "FALSE",
    "FILTER",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "RECURSIVE",
    "REPLACE",
    "RIGHT",
    "ROLLUP",
    "ROWS",
    "SELECT",
    "TABLE",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "UNION",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
    "abs(",
    "avg(",
    "coalesce(",
    "concat(",
    "count(",
    "date_part(",
    "date_trunc(",
    "length(",
    "lower(",
    "max(",
    "min(",
    "nullif(",
    "rank()",
    "replace(",
    "round(",
    "row_number()",
    "split_part(",
    "substring(",
    "sum(",
    "trim(",
    "upper(",
];

/// Words after which a table's name comes.
const BEFORE_TABLE: &[&str] = &["FROM", "JOIN", "INTO", "TABLE", "VIEW", "UPDATE"];

/// Whether a word is a keyword of SQL.
pub fn is_keyword(word: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|k| k.trim_end_matches('(').eq_ignore_ascii_case(word) && k.starts_with(char::is_uppercase))
}

/// Where the word under the cursor begins, and what it may become.
pub fn complete(line: &str, cursor: usize, tables: &[Known]) -> (usize, Vec<String>) {
    let before = &line[..cursor];
    if before.trim_start().starts_with(['.', '\\']) {
        return complete_command(before, tables);
    }
    let start = before
        .rfind(|c: char| !c.is_alphanumeric() && c != '_')
        .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
    let word = &before[start..];
    let tokens = tokens(line);
    if tokens
        .iter()
        .any(|t| t.range.start < start && start < t.range.end && matches!(t.kind, Kind::Text | Kind::Comment))
    {
        return (start, vec![]);
    }
    let before_word: Vec<&Token> =
        tokens.iter().filter(|t| t.range.end <= start && t.kind != Kind::Comment).collect();
    let text = |t: &Token| &line[t.range.clone()];
    if let [.., owner, dot] = before_word[..]
        && text(dot) == "."
        && dot.range.end == start
    {
        let columns = owner_columns(line, &tokens, text(owner), tables);
        return (start, matching(word, columns.iter().map(String::as_str)));
    }
    let last = before_word.last().map(|t| text(t).to_ascii_uppercase()).unwrap_or_default();
    let names = tables.iter().map(|t| t.name.as_str());
    if BEFORE_TABLE.contains(&last.as_str()) {
        return (start, matching(word, names));
    }
    let mentioned = |t: &&Known| tokens.iter().any(|token| same_name(text(token), &t.name));
    let of_mentioned: BTreeSet<&str> =
        tables.iter().filter(mentioned).flat_map(|t| &t.columns).map(String::as_str).collect();
    let of_all: BTreeSet<&str> = tables.iter().flat_map(|t| &t.columns).map(String::as_str).collect();
    let columns = if of_mentioned.is_empty() { of_all } else { of_mentioned };
    let mut found = matching(word, columns.into_iter());
    found.extend(matching(word, names));
    // Nothing typed means a name is wanted; a list of all keywords helps nobody.
    if !word.is_empty() {
        found.extend(matching(word, KEYWORDS.iter().copied()).into_iter().map(|k| in_case_of(word, &k)));
    }
    (start, found)
}

fn complete_command(before: &str, tables: &[Known]) -> (usize, Vec<String>) {
    let indent = before.len() - before.trim_start().len();
    let Some((name, argument)) = before[indent..].split_once(' ') else {
        return (indent, matching(&before[indent..], NAMES.iter().copied()));
    };
    let candidates: Vec<String> = match name {
        ".schema" | "\\d" | "\\d+" => tables.iter().map(|t| t.name.clone()).collect(),
        ".mode" => format_names(),
        ".timer" | "\\timing" => vec!["on".to_owned(), "off".to_owned()],
        _ => vec![],
    };
    let argument = argument.trim_start();
    (before.len() - argument.len(), matching(argument, candidates.iter().map(String::as_str)))
}

/// The columns of a table by its name or by the alias that the text gives it.
fn owner_columns(line: &str, tokens: &[Token], owner: &str, tables: &[Known]) -> Vec<String> {
    let text = |t: &Token| &line[t.range.clone()];
    let named = |name: &str| tables.iter().find(|t| same_name(name, &t.name));
    let aliased = || {
        let words: Vec<&Token> =
            tokens.iter().filter(|t| matches!(t.kind, Kind::Word | Kind::Quoted)).collect();
        words
            .windows(3)
            .find_map(|w| {
                let to = if text(w[1]).eq_ignore_ascii_case("as") { w[2] } else { w[1] };
                named(text(w[0])).filter(|_| same_name(text(to), owner))
            })
            .or_else(|| {
                words.windows(2).find_map(|w| named(text(w[0])).filter(|_| same_name(text(w[1]), owner)))
            })
    };
    named(owner).or_else(aliased).map(|t| t.columns.clone()).unwrap_or_default()
}

fn same_name(typed: &str, name: &str) -> bool {
    typed.trim_matches('"').eq_ignore_ascii_case(name)
}

fn matching<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let fits = |c: &&str| c.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    candidates.filter(fits).map(str::to_owned).collect()
}

/// A keyword in the case in which its beginning was typed.
fn in_case_of(word: &str, keyword: &str) -> String {
    match word.chars().next() {
        Some(c) if c.is_lowercase() => keyword.to_lowercase(),
        _ => keyword.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(line: &str) -> Vec<String> {
        let cursor = line.find('|').unwrap();
        let line = line.replace('|', "");
        let known = |name: &str, columns: &[&str]| Known {
            name: name.to_owned(),
            columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        };
        let tables =
            [known("orders", &["o_orderkey", "o_total"]), known("lineitem", &["l_orderkey", "l_tax"])];
        complete(&line, cursor, &tables).1
    }

    #[test]
    fn tables_after_from() {
        assert_eq!(offered("SELECT * FROM |"), ["orders", "lineitem"]);
        assert_eq!(offered("SELECT * FROM li|"), ["lineitem"]);
        assert_eq!(offered("SELECT * FROM orders JOIN l|"), ["lineitem"]);
    }

    #[test]
    fn columns_of_the_tables_in_the_text() {
        assert_eq!(
            offered("SELECT o| FROM orders"),
            ["o_orderkey", "o_total", "orders", "offset", "on", "or", "order", "outer", "over"]
        );
        assert_eq!(offered("SELECT l_| FROM lineitem"), ["l_orderkey", "l_tax"]);
        assert_eq!(offered("SELECT l_| FROM orders"), [""; 0]);
    }

    #[test]
    fn columns_after_a_dot() {
        assert_eq!(offered("SELECT orders.| FROM orders"), ["o_orderkey", "o_total"]);
        assert_eq!(offered("SELECT x.l| FROM orders o JOIN lineitem AS x"), ["l_orderkey", "l_tax"]);
        assert_eq!(offered("SELECT o.o_t| FROM orders o"), ["o_total"]);
    }

    #[test]
    fn keywords_in_the_case_typed() {
        assert_eq!(offered("sel|"), ["select"]);
        assert_eq!(offered("SEL|"), ["SELECT"]);
    }

    #[test]
    fn nothing_inside_text_and_comments() {
        assert_eq!(offered("SELECT 'sel|"), [""; 0]);
        assert_eq!(offered("-- sel|"), [""; 0]);
    }

    #[test]
    fn commands_and_their_arguments() {
        assert_eq!(offered(".t|"), [".tables", ".timer"]);
        assert_eq!(offered(".schema o|"), ["orders"]);
        assert_eq!(offered(".mode m|"), ["markdown"]);
    }
}
