//! Takes credentials out of text: of URLs, `scheme://user:password@host`, and of what signs a URL behind its `?`.
//!
//! What always holds: text without such a URL stays as it is. What is no URL is not found: passwords do not belong in
//! statements, and no statement asks for one.

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Parts of names of a URL's parameters whose values are secrets.
const SECRET_NAMES: [&str; 6] = ["sig", "token", "secret", "password", "credential", "key"];

/// The text without credentials.
pub fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        masked.push_str(before);
        let end = url.find(|c: char| c.is_whitespace() || "'\"<>,;)".contains(c)).unwrap_or(url.len());
        push_url(&mut masked, &url[..end]);
        rest = &url[end..];
    }
    masked.push_str(rest);
    masked
}

/// A URL without its scheme.
fn push_url(masked: &mut String, url: &str) {
    let authority = url.find(['/', '?', '#']).unwrap_or(url.len());
    // A password may have an @ itself, or a slash that should have been escaped.
    let user_end = match url[..authority].rfind('@') {
        Some(at) => Some(at),
        None => url.find('@').filter(|at| url[..*at].contains(':')),
    };
    let rest = match user_end {
        Some(at) => {
            masked.push_str(HIDDEN);
            &url[at..]
        }
        None => url,
    };
    let Some((place, parameters)) = rest.split_once('?') else {
        masked.push_str(rest);
        return;
    };
    masked.push_str(place);
    for (number, parameter) in parameters.split('&').enumerate() {
        masked.push(if number == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                masked.push_str(name);
                masked.push('=');
                masked.push_str(HIDDEN);
            }
            _ => masked.push_str(parameter),
        }
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn credentials_go_and_all_else_stays() {
        for (text, masked) in [
            (
                "SELECT * FROM 's3://key:sec/ret@bucket/a.parquet'",
                "SELECT * FROM 's3://***@bucket/a.parquet'",
            ),
            ("FROM 'https://u:p@h/x', 'https://v:q@h/y'", "FROM 'https://***@h/x', 'https://***@h/y'"),
            (
                "'https://h/x?a=1&X-Amz-Signature=abc&X-Amz-Credential=d&b=2'",
                "'https://h/x?a=1&X-Amz-Signature=***&X-Amz-Credential=***&b=2'",
            ),
            ("SELECT a FROM 's3://bucket/a@b.parquet' -- ä", "SELECT a FROM 's3://bucket/a@b.parquet' -- ä"),
            ("SELECT 'anna@example.org', 1://2", "SELECT 'anna@example.org', 1://2"),
            ("s3://", "s3://"),
        ] {
            assert_eq!(mask(text), masked);
        }
    }
}
