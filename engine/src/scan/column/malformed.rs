//! What is wrong with a page, before anybody says which page of which file.

/// The bytes do not follow the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// The result of decoding bytes that nobody has vouched for.
pub type Decoded<T> = Result<T, Malformed>;

/// The error itself.
pub fn malformed(what: &'static str) -> Malformed {
    Malformed(what)
}
