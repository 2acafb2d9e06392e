//! SQL text to logical plans.
//!
//! [`parse`] cuts a script into statements; [`bind`] resolves the names of one statement against a
//! [`CatalogSnapshot`] and says what the session is asked to do ([`Bound`]); [`bind_values`] gives
//! its parameters values; [`plan`] is `bind` for callers that only want queries. Grammar, name resolution and typing are `sqlparser`'s and `datafusion-sql`'s;
//! what is ours is the dialect, the catalog's view of tables, the refusal of clauses that would otherwise
//! be parsed and silently ignored, and error messages that point at the text.
//!
//! What always holds: a clause either takes effect or is refused; every error of a user's making names
//! the place or the nearest existing name.

mod ambiguous;
mod balance;
mod bind;
mod cast_names;
mod dialect;
mod identifiers;
mod message;
mod names;
mod parameters;
mod parse;
mod provider;
mod refuse;
mod rewrite;
mod row_in;
mod scopes;
mod tokens;
mod using;

#[cfg(test)]
mod tests;

pub use bind::{Bound, Create, DropKind, bind, bind_values, parameter_types, plan};
pub use parse::{ParsedStatement, parse};
pub use provider::{CatalogTable, WorkTable};
pub(crate) use provider::{catalog_table, work_table};
