//! The cookie that names a session, as Flight's session middlewares of other languages have it.

use tonic::codegen::http::HeaderValue;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Its name.
const NAME: &str = "arrow_flight_session_id";
/// The value that names no session: a client which sends it back keeps cookies.
pub const OFFER: &str = "none";

/// Headers of a call and of its answer.
pub const COOKIE: &str = "cookie";
pub const SET_COOKIE: &str = "set-cookie";

/// The value that a client shows.
pub fn shown(headers: &MetadataMap) -> Option<String> {
    let texts = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(';')).find_map(value).map(str::to_owned)
}

/// The value that an answer sets, if it sets one; the empty one undoes those before.
pub fn set_in(header: &HeaderValue) -> Option<String> {
    let pair = header.to_str().ok()?.split(';').next()?;
    value(pair).map(str::to_owned)
}

/// The header of a call that shows a value.
pub fn shown_with(id: &str) -> String {
    format!("{NAME}={id}")
}

/// The header of an answer that sets a value.
pub fn to_set(id: &str) -> MetadataValue<Ascii> {
    // The same path each time: clients keep a cookie for each.
    header(&format!("{NAME}={id}; Path=/; HttpOnly"))
}

/// The header of an answer after which the client shows nothing.
pub fn to_forget() -> MetadataValue<Ascii> {
    header(&format!("{NAME}=; Path=/; HttpOnly; Max-Age=0"))
}

fn header(text: &str) -> MetadataValue<Ascii> {
    let mut value = MetadataValue::try_from(text).expect("invariant: ids are visible ASCII, made here");
    value.set_sensitive(true);
    value
}

fn value(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=')?;
    (name.trim() == NAME).then(|| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_found_by_its_name() {
        let shown_by = |texts: &[&str]| {
            let mut headers = MetadataMap::new();
            for text in texts {
                headers.append(COOKIE, text.parse().unwrap());
            }
            shown(&headers)
        };
        let of = format!("{NAME}=abc");
        assert_eq!(shown_by(&[&of]).as_deref(), Some("abc"));
        assert_eq!(shown_by(&["a=b", &format!("x=1;{NAME}=\"abc\" ; y")]).as_deref(), Some("abc"));
        for other in
            [vec![], vec![NAME], vec!["x=arrow_flight_session_id"], vec!["not_arrow_flight_session_id=1"]]
        {
            assert_eq!(shown_by(&other), None, "{other:?}");
        }
    }

    #[test]
    fn what_is_set_is_read() {
        let read = |value: MetadataValue<Ascii>| {
            set_in(&HeaderValue::from_bytes(value.as_encoded_bytes()).unwrap()).unwrap()
        };
        assert_eq!((read(to_set("abc")), read(to_forget())), ("abc".to_owned(), String::new()));
    }
}
