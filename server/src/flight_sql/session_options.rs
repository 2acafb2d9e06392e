//! Flight's session actions: options of a session, each of which is a setting, or the catalog or schema that a driver
//! asks for. The messages are Flight.proto's, which arrow-flight does not have.
//!
//! What always holds: an option that is taken is honoured; the others are named in the answer.

use std::collections::HashMap;

use dovetail_engine::Session;
use prost::Message;
use tonic::Status;

use super::metadata::{CATALOG, SCHEMA};
use super::refusals::malformed;
use super::sessions::Caller;

/// `CloseSessionResult.status`.
pub const CLOSED: i32 = 1;

/// More are refused.
const OPTIONS_MAX: usize = 100;

const CATALOG_OPTION: &str = "catalog";
const SCHEMA_OPTION: &str = "schema";

#[derive(Clone, PartialEq, Message)]
pub struct SetSessionOptionsRequest {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

/// Of those options that were not set.
#[derive(Clone, PartialEq, Message)]
pub struct SetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub errors: HashMap<String, OptionError>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct OptionError {
    #[prost(enumeration = "OptionProblem", tag = "1")]
    pub value: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum OptionProblem {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetSessionOptionsResult {
    #[prost(map = "string, message", tag = "1")]
    pub session_options: HashMap<String, SessionOptionValue>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct CloseSessionResult {
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// Without a value: the option is undone.
#[derive(Clone, PartialEq, Message)]
pub struct SessionOptionValue {
    #[prost(oneof = "OptionValue", tags = "1, 2, 3, 4, 5")]
    pub value: Option<OptionValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum OptionValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Texts(Texts),
}

#[derive(Clone, PartialEq, Message)]
pub struct Texts {
    #[prost(string, repeated, tag = "1")]
    pub values: Vec<String>,
}

/// Sets options, and begins the client's session for it if need be.
pub fn set(caller: &Caller, request: &[u8]) -> Result<SetSessionOptionsResult, Status> {
    let asked = SetSessionOptionsRequest::decode(request).map_err(|e| malformed(&e))?.session_options;
    if asked.len() > OPTIONS_MAX {
        return Err(Status::invalid_argument(format!("more than {OPTIONS_MAX} options at once")));
    }
    // A client that only names the catalog it is in already needs no session, and may not keep one.
    let changes = asked.keys().any(|name| Session::can_set(&name.to_lowercase()));
    let session = if changes { caller.begin()? } else { caller.session()? };
    let mut errors = HashMap::new();
    for (name, SessionOptionValue { value }) in asked {
        if let Err(problem) = set_one(&session, &name.to_lowercase(), value.as_ref()) {
            errors.insert(name, OptionError { value: problem as i32 });
        }
    }
    Ok(SetSessionOptionsResult { errors })
}

/// All options.
pub fn get(caller: &Caller) -> Result<GetSessionOptionsResult, Status> {
    let settings = caller.session()?.settings();
    let places = [(CATALOG_OPTION, CATALOG.to_owned()), (SCHEMA_OPTION, SCHEMA.to_owned())];
    let option = |(name, text): (&str, String)| {
        (name.to_owned(), SessionOptionValue { value: Some(OptionValue::Text(text)) })
    };
    Ok(GetSessionOptionsResult { session_options: settings.into_iter().chain(places).map(option).collect() })
}

fn set_one(session: &Session, name: &str, value: Option<&OptionValue>) -> Result<(), OptionProblem> {
    let is_one_of = |known: &[&str]| match value {
        None => Ok(()),
        Some(OptionValue::Text(text)) if known.iter().any(|k| text.eq_ignore_ascii_case(k)) => Ok(()),
        Some(_) => Err(OptionProblem::InvalidValue),
    };
    match name {
        CATALOG_OPTION => return is_one_of(&[CATALOG, ""]),
        SCHEMA_OPTION => return is_one_of(&[SCHEMA, "public", ""]),
        _ if !Session::can_set(name) => return Err(OptionProblem::InvalidName),
        _ => {}
    }
    let text = match value {
        None => return session.reset(name).map_err(|_| OptionProblem::InvalidName),
        Some(OptionValue::Text(text)) => text.clone(),
        Some(OptionValue::Int(number)) => number.to_string(),
        Some(OptionValue::Double(number)) => number.to_string(),
        Some(OptionValue::Bool(_) | OptionValue::Texts(_)) => return Err(OptionProblem::InvalidValue),
    };
    session.set(name, &text).map_err(|_| OptionProblem::InvalidValue)
}
