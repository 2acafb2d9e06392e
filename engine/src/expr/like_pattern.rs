//! LIKE patterns: parsed once, matched by the cheapest search that decides them.
//!
//! `%` stands for any run of characters, `_` for one; the escape character (backslash, unless ESCAPE says
//! otherwise) makes the next one literal. An escape at the very end stands for itself.

use memchr::memmem::Finder;

/// A parsed pattern.
pub(super) enum Pattern {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Contains(Box<Finder<'static>>),
    /// `prefix%middle%...%suffix`, without `_`.
    Pieces {
        prefix: Vec<u8>,
        middles: Vec<Finder<'static>>,
        suffix: Vec<u8>,
    },
    General(Vec<Token>),
}

/// An element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Char(char),
    AnyChar,
    AnyRun,
}

/// The pattern's elements.
pub(super) fn tokens(pattern: &str, escape: char) -> Vec<Token> {
    let mut tokens = vec![];
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            c if c == escape => Token::Char(chars.next().unwrap_or(escape)),
            '%' => Token::AnyRun,
            '_' => Token::AnyChar,
            c => Token::Char(c),
        });
    }
    tokens.dedup_by(|a, b| *a == Token::AnyRun && *b == Token::AnyRun);
    tokens
}

/// The elements as a pattern that is escaped by backslashes.
pub(super) fn with_backslashes(tokens: &[Token]) -> String {
    let mut text = String::new();
    for token in tokens {
        match token {
            Token::AnyRun => text.push('%'),
            Token::AnyChar => text.push('_'),
            Token::Char(c) => {
                if matches!(c, '%' | '_' | '\\') {
                    text.push('\\');
                }
                text.push(*c);
            }
        }
    }
    text
}

impl Pattern {
    /// Parses a pattern.
    pub fn new(pattern: &str, escape: char) -> Self {
        let tokens = tokens(pattern, escape);
        if tokens.contains(&Token::AnyChar) {
            return Pattern::General(tokens);
        }
        let mut pieces: Vec<Vec<u8>> = tokens
            .split(|t| *t == Token::AnyRun)
            .map(|piece| {
                let chars = piece.iter().map(|t| match t {
                    Token::Char(c) => *c,
                    Token::AnyChar | Token::AnyRun => unreachable!("invariant: split off above"),
                });
                chars.collect::<String>().into_bytes()
            })
            .collect();
        let suffix = pieces.pop().expect("invariant: a split has a piece");
        if pieces.is_empty() {
            return Pattern::Exact(suffix);
        }
        let prefix = pieces.remove(0);
        match (&prefix[..], &pieces[..], &suffix[..]) {
            (_, [], []) => Pattern::Prefix(prefix),
            ([], [], _) => Pattern::Suffix(suffix),
            ([], [middle], []) => Pattern::Contains(Box::new(Finder::new(middle).into_owned())),
            _ => {
                let middles = pieces.iter().map(|p| Finder::new(p).into_owned()).collect();
                Pattern::Pieces { prefix, middles, suffix }
            }
        }
    }
}

/// Does `text` consist of the pieces, in order, with anything between them?
///
/// An empty piece is not compared at all: on x86 with AVX-512, the C library compares nothing by a masked
/// load from the empty slice's dangling address, which took 70 % of TPC-H q13's time.
pub(super) fn matches_pieces(text: &[u8], prefix: &[u8], middles: &[Finder<'static>], suffix: &[u8]) -> bool {
    let mut rest = text;
    if !prefix.is_empty() {
        let Some(behind) = rest.strip_prefix(prefix) else { return false };
        rest = behind;
    }
    if !suffix.is_empty() {
        let Some(before) = rest.strip_suffix(suffix) else { return false };
        rest = before;
    }
    for middle in middles {
        // The leftmost place leaves the most room for what follows.
        match middle.find(rest) {
            Some(at) => rest = &rest[at + middle.needle().len()..],
            None => return false,
        }
    }
    true
}

/// Does `text` match the elements? At worst the product of their lengths.
pub(super) fn matches_tokens(text: &str, tokens: &[Token]) -> bool {
    let mut rest = text;
    let mut at = 0;
    // Where to go on when a later element does not match: one character further behind the last run.
    let mut retry: Option<(usize, &str)> = None;
    loop {
        let next = rest.chars().next();
        match (tokens.get(at), next) {
            (Some(Token::AnyRun), _) => {
                at += 1;
                retry = Some((at, rest));
            }
            (Some(Token::AnyChar), Some(c)) => {
                at += 1;
                rest = &rest[c.len_utf8()..];
            }
            (Some(Token::Char(t)), Some(c)) if *t == c => {
                at += 1;
                rest = &rest[c.len_utf8()..];
            }
            (None, None) => return true,
            _ => match &mut retry {
                Some((behind, from)) => {
                    let Some(c) = from.chars().next() else { return false };
                    *from = &from[c.len_utf8()..];
                    at = *behind;
                    rest = from;
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(text: &str, pattern: &Pattern) -> bool {
        let b = text.as_bytes();
        match pattern {
            Pattern::Exact(p) => b == p,
            Pattern::Prefix(p) => b.starts_with(p),
            Pattern::Suffix(p) => b.ends_with(p),
            Pattern::Contains(f) => f.find(b).is_some(),
            Pattern::Pieces { prefix, middles, suffix } => matches_pieces(b, prefix, middles, suffix),
            Pattern::General(t) => matches_tokens(text, t),
        }
    }

    proptest! {
        #[test]
        fn every_shortcut_agrees_with_the_general_search(text in "[ab%_é]{0,12}", pattern in "[ab%_é\\\\]{0,7}") {
            let general = Pattern::General(tokens(&pattern, '\\'));
            prop_assert_eq!(matches(&text, &Pattern::new(&pattern, '\\')), matches(&text, &general));
            let arrow = arrow::compute::like(
                &arrow::array::StringViewArray::from(vec![text.as_str()]),
                &arrow::array::StringViewArray::new_scalar(&pattern),
            ).unwrap();
            if !pattern.contains('\\') {
                prop_assert_eq!(matches(&text, &general), arrow.value(0));
            }
        }

        #[test]
        fn rewritten_escapes_mean_the_same(text in "[ab%_!\\\\]{0,8}", pattern in "[ab%_!\\\\]{0,6}") {
            let ours = tokens(&pattern, '!');
            let rewritten = with_backslashes(&ours);
            prop_assert_eq!(tokens(&rewritten, '\\'), ours.clone());
            prop_assert_eq!(matches(&text, &Pattern::new(&rewritten, '\\')), matches_tokens(&text, &ours));
        }
    }

    #[test]
    fn shapes_are_recognised() {
        assert!(matches!(Pattern::new("abc", '\\'), Pattern::Exact(_)));
        assert!(matches!(Pattern::new("abc%", '\\'), Pattern::Prefix(_)));
        assert!(matches!(Pattern::new("%abc", '\\'), Pattern::Suffix(_)));
        assert!(matches!(Pattern::new("%abc%%", '\\'), Pattern::Contains(_)));
        assert!(matches!(Pattern::new("%special%requests%", '\\'), Pattern::Pieces { .. }));
        assert!(matches!(Pattern::new("a_c", '\\'), Pattern::General(_)));
        assert!(matches!(Pattern::new("a\\_c", '\\'), Pattern::Exact(_)));
    }
}
