//! SQL text cut into tokens, just enough to know where a statement ends, what to complete and what to
//! colour. The parser proper is the planner's; this one never fails.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A name or a keyword.
    Word,
    /// A name in double quotes.
    Quoted,
    /// Text in single quotes or between dollars.
    Text,
    Number,
    Comment,
    Semicolon,
    /// Any other character.
    Other,
}

/// A piece of the text; spaces lie between the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub kind: Kind,
    pub range: Range<usize>,
    /// Its closing quote or the end of its comment is still to come.
    pub open: bool,
}

/// The tokens of `sql`, in order.
pub fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = vec![];
    let mut at = 0;
    while let Some(c) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let (kind, length, open) = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '\'' => quoted(Kind::Text, rest, '\''),
            '"' => quoted(Kind::Quoted, rest, '"'),
            '$' => dollar_quoted(rest).unwrap_or((Kind::Other, 1, false)),
            '-' if rest.starts_with("--") => (Kind::Comment, rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => block_comment(rest),
            ';' => (Kind::Semicolon, 1, false),
            c if c.is_alphabetic() || c == '_' => {
                (Kind::Word, run(rest, |c| c.is_alphanumeric() || c == '_'), false)
            }
            c if c.is_ascii_digit() => {
                (Kind::Number, run(rest, |c| c.is_ascii_alphanumeric() || c == '.'), false)
            }
            c => (Kind::Other, c.len_utf8(), false),
        };
        tokens.push(Token { kind, range: at..at + length, open });
        at += length;
    }
    tokens
}

/// Whether `sql` can be run: every quote and comment is closed and the last thing said is a semicolon.
pub fn is_whole(sql: &str) -> bool {
    let tokens = tokens(sql);
    let said = tokens.iter().rev().find(|t| t.kind != Kind::Comment);
    !tokens.iter().any(|t| t.open) && said.is_some_and(|t| t.kind == Kind::Semicolon)
}

fn run(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|c| !of(c)).unwrap_or(text.len())
}

/// A quote within is written twice.
fn quoted(kind: Kind, text: &str, quote: char) -> (Kind, usize, bool) {
    let mut at = 1;
    while let Some(found) = text[at..].find(quote) {
        at += found + 1;
        if !text[at..].starts_with(quote) {
            return (kind, at, false);
        }
        at += 1;
    }
    (kind, text.len(), true)
}

/// `$$ … $$` and `$tag$ … $tag$`.
fn dollar_quoted(text: &str) -> Option<(Kind, usize, bool)> {
    let name = run(&text[1..], |c| c.is_alphabetic() || c == '_');
    let tag = text.get(..name + 2).filter(|t| t.ends_with('$'))?;
    Some(match text[tag.len()..].find(tag) {
        Some(end) => (Kind::Text, end + 2 * tag.len(), false),
        None => (Kind::Text, text.len(), true),
    })
}

/// Comments nest.
fn block_comment(text: &str) -> (Kind, usize, bool) {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return (Kind::Comment, at, false);
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    (Kind::Comment, text.len(), true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_statements_end_in_a_semicolon() {
        for sql in [
            "SELECT 1;",
            "SELECT 1; -- done",
            "SELECT ';';",
            "SELECT 1;\n/* a /* b */ c */",
            "a;b;",
            "SELECT $$;$$;",
        ] {
            assert!(is_whole(sql), "{sql}");
        }
        for sql in [
            "",
            "SELECT 1",
            "SELECT ';",
            "SELECT 1 -- ;",
            "SELECT \";",
            "SELECT 1; /* open",
            "; x",
            "SELECT $a$;$$;",
            "-- c",
        ] {
            assert!(!is_whole(sql), "{sql}");
        }
    }

    #[test]
    fn quotes_within_quotes() {
        assert!(is_whole("SELECT 'it''s; fine';"));
        assert!(!is_whole("SELECT 'it''s; fine;"));
        assert!(is_whole("SELECT \"a\"\"b;\";"));
    }

    #[test]
    fn tokens_cover_everything_but_spaces() {
        let sql = "SELECT é_1, 1.5e3 FROM \"T\" -- x\nWHERE a>='b';";
        let texts: Vec<&str> = tokens(sql).into_iter().map(|t| &sql[t.range]).collect();
        assert_eq!(
            texts.concat(),
            sql.replace("-- x\n", "--\u{1}x").replace([' ', '\n'], "").replace('\u{1}', " ")
        );
        assert!(texts.contains(&"é_1") && texts.contains(&"1.5e3") && texts.contains(&"-- x"));
    }
}
