//! What drivers ask about the database: catalogs, schemas, tables, types, keys, and what SQL can do.
//!
//! There is one catalog with one schema; SQL takes names with and without them.

mod keys;
mod sql_info;
mod type_info;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_flight::error::FlightError;
use arrow_flight::sql::{
    Command, CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
    CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
    CommandGetXdbcTypeInfo,
};
use dovetail_engine::{Session, TableInfo};
use tonic::Status;

use super::message::with_table_rows;
use super::statements::blocking;
use super::wire::wire_schema;

pub const CATALOG: &str = "dovetail";
pub const SCHEMA: &str = "main";
const TABLE: &str = "BASE TABLE";
const TABLE_TYPES: [&str; 3] = [TABLE, "LOCAL TEMPORARY", "VIEW"];

/// One of the listings.
#[derive(Debug, Clone)]
pub enum Listing {
    Catalogs(CommandGetCatalogs),
    Schemas(CommandGetDbSchemas),
    Tables(CommandGetTables),
    TableTypes(CommandGetTableTypes),
    SqlInfo(CommandGetSqlInfo),
    TypeInfo(CommandGetXdbcTypeInfo),
    PrimaryKeys,
    /// Exported, imported and crossing ones.
    ForeignKeys,
}

impl Listing {
    /// The listing that a command asks for, if it is one that does.
    pub fn of(command: Command) -> Option<Listing> {
        Some(match command {
            Command::CommandGetCatalogs(c) => c.into(),
            Command::CommandGetDbSchemas(c) => c.into(),
            Command::CommandGetTables(c) => c.into(),
            Command::CommandGetTableTypes(c) => c.into(),
            Command::CommandGetSqlInfo(c) => c.into(),
            Command::CommandGetXdbcTypeInfo(c) => c.into(),
            Command::CommandGetPrimaryKeys(c) => c.into(),
            Command::CommandGetExportedKeys(c) => c.into(),
            Command::CommandGetImportedKeys(c) => c.into(),
            Command::CommandGetCrossReference(c) => c.into(),
            _ => return None,
        })
    }

    /// What its rows look like: those of the listing of nothing.
    pub fn schema(&self) -> Result<SchemaRef, Status> {
        Ok(build(self.clone(), &[]).map_err(Status::from)?.schema())
    }
}

/// The rows of a listing, for whose tables the session is asked.
pub async fn rows(
    session: impl FnOnce() -> Result<Arc<Session>, Status>,
    listing: Listing,
) -> Result<RecordBatch, Status> {
    let tables = match &listing {
        Listing::Tables(_) => {
            let session = session()?;
            blocking(move || session.tables()).await?
        }
        _ => vec![],
    };
    build(listing, &tables).map_err(Status::from)
}

fn build(listing: Listing, tables: &[TableInfo]) -> Result<RecordBatch, FlightError> {
    match listing {
        Listing::Catalogs(c) => {
            let mut builder = c.into_builder();
            builder.append(CATALOG);
            builder.build()
        }
        Listing::Schemas(c) => {
            let mut builder = c.into_builder();
            builder.append(CATALOG, SCHEMA);
            builder.build()
        }
        Listing::Tables(mut c) => {
            // The word of JDBC tools, which do not always ask for the table types first.
            for kind in c.table_types.iter_mut().filter(|t| *t == "TABLE") {
                TABLE.clone_into(kind);
            }
            let mut builder = c.into_builder();
            for table in tables {
                let kind = table.table_type();
                let schema = with_table_rows(&wire_schema(&table.schema), table.rows);
                builder.append(CATALOG, SCHEMA, &table.name, kind, &schema)?;
            }
            builder.build()
        }
        Listing::TableTypes(c) => {
            let mut builder = c.into_builder();
            for kind in TABLE_TYPES {
                builder.append(kind);
            }
            builder.build()
        }
        Listing::SqlInfo(c) => c.into_builder(sql_info::all()).build(),
        Listing::TypeInfo(c) => c.into_builder(type_info::all()).build(),
        Listing::PrimaryKeys => Ok(keys::primary()),
        Listing::ForeignKeys => Ok(keys::foreign()),
    }
}

macro_rules! listing_from {
    ($($command:ident => $listing:expr),* $(,)?) => {
        $(impl From<$command> for Listing {
            fn from(command: $command) -> Listing {
                $listing(command)
            }
        })*
    };
}

listing_from! {
    CommandGetCatalogs => Listing::Catalogs,
    CommandGetDbSchemas => Listing::Schemas,
    CommandGetTables => Listing::Tables,
    CommandGetTableTypes => Listing::TableTypes,
    CommandGetSqlInfo => Listing::SqlInfo,
    CommandGetXdbcTypeInfo => Listing::TypeInfo,
    CommandGetPrimaryKeys => |_| Listing::PrimaryKeys,
    CommandGetExportedKeys => |_| Listing::ForeignKeys,
    CommandGetImportedKeys => |_| Listing::ForeignKeys,
    CommandGetCrossReference => |_| Listing::ForeignKeys,
}
