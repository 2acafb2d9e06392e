//! Short forms that the parser does not know, written out in the token stream.
//!
//! `FROM t WHERE a > 1` means `SELECT * FROM t WHERE a > 1`. The parser knows `FROM t` and `FROM t SELECT a`, but nothing between FROM and the end. So where a query
//! begins with FROM and has no SELECT of its own, `SELECT *` is put before it in the token stream, at the
//! place of the FROM. `(VALUES (1))` as an expression is a subquery, for which the parser wants to see SELECT:
//! it becomes `(SELECT * FROM (VALUES (1)))`. `WITH x AS MATERIALIZED (…)` loses its word here too: whether a WITH query is kept is
//! decided by what it costs.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

/// The tokens, with SELECT where it was left out.
pub(super) fn complete(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut complete = Vec::with_capacity(tokens.len() + 4);
    let mut previous: Option<Token> = None;
    // For each open parenthesis, whether one more has to be closed with it.
    let mut wrapped: Vec<bool> = vec![];
    for i in 0..tokens.len() {
        let token = &tokens[i];
        if matches!(token.token, Token::Whitespace(_)) {
            complete.push(token.clone());
            continue;
        }
        if is_keyword(&token.token, Keyword::FROM)
            && begins_query(previous.as_ref())
            && !has_select(&tokens[i + 1..])
        {
            complete.push(TokenWithSpan::new(Token::make_keyword("SELECT"), token.span));
            complete.push(TokenWithSpan::new(Token::Mul, token.span));
        }
        match token.token {
            Token::LParen => wrapped.push(false),
            Token::RParen if wrapped.pop() == Some(true) => complete.push(token.clone()),
            _ => {}
        }
        if is_keyword(&token.token, Keyword::VALUES)
            && previous == Some(Token::LParen)
            && next_token(&tokens[i + 1..]) == Some(&Token::LParen)
        {
            let wrap = ["SELECT", "*", "FROM", "("];
            complete.extend(wrap.map(|word| TokenWithSpan::new(word_token(word), token.span)));
            if let Some(innermost) = wrapped.last_mut() {
                *innermost = true;
            }
        }
        if materialized_clause(previous.as_ref(), &tokens[i..]) {
            continue;
        }
        previous = Some(token.token.clone());
        complete.push(token.clone());
    }
    complete
}

/// How deep parentheses, brackets, CASE and prefix operators nest.
pub(super) fn nesting(tokens: &[TokenWithSpan]) -> usize {
    let (mut open, mut prefixes, mut deepest) = (0usize, 0usize, 0usize);
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::LParen | Token::LBracket | Token::LBrace => open += 1,
            Token::RParen | Token::RBracket | Token::RBrace => open = open.saturating_sub(1),
            token if is_keyword(token, Keyword::CASE) => open += 1,
            token if is_keyword(token, Keyword::END) => open = open.saturating_sub(1),
            _ => {}
        }
        let prefix = matches!(token.token, Token::Minus | Token::Plus | Token::Tilde)
            || is_keyword(&token.token, Keyword::NOT);
        prefixes = if prefix { prefixes + 1 } else { 0 };
        deepest = deepest.max(open + prefixes);
    }
    deepest
}

fn word_token(word: &str) -> Token {
    match word {
        "*" => Token::Mul,
        "(" => Token::LParen,
        word => Token::make_keyword(word),
    }
}

fn next_token(rest: &[TokenWithSpan]) -> Option<&Token> {
    rest.iter().map(|t| &t.token).find(|t| !matches!(t, Token::Whitespace(_)))
}

/// Whether the tokens are `[NOT] MATERIALIZED (` after AS.
fn materialized_clause(previous: Option<&Token>, rest: &[TokenWithSpan]) -> bool {
    if !previous.is_some_and(|t| is_keyword(t, Keyword::AS)) {
        return false;
    }
    let mut words = rest.iter().map(|t| &t.token).filter(|t| !matches!(t, Token::Whitespace(_))).peekable();
    words.next_if(|t| is_keyword(t, Keyword::NOT));
    words.next_if(|t| is_keyword(t, Keyword::MATERIALIZED)).is_some() && words.next() == Some(&Token::LParen)
}

/// Whether a FROM after this token is the first word of a query.
fn begins_query(previous: Option<&Token>) -> bool {
    match previous {
        None | Some(Token::SemiColon | Token::LParen) => true,
        Some(Token::Word(word)) => matches!(
            word.keyword,
            Keyword::AS
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::ALL
                | Keyword::EXPLAIN
                | Keyword::ANALYZE
                | Keyword::DESCRIBE
                | Keyword::DESC
        ),
        _ => false,
    }
}

/// Whether the query that these tokens continue has a SELECT, not counting those in parentheses.
fn has_select(rest: &[TokenWithSpan]) -> bool {
    let mut depth = 0;
    for token in rest {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            Token::SemiColon => return false,
            Token::Word(word) if depth == 0 => match word.keyword {
                Keyword::SELECT => return true,
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => return false,
                _ => {}
            },
            _ => {}
        }
    }
    false
}

fn is_keyword(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.keyword == keyword && word.quote_style.is_none())
}
