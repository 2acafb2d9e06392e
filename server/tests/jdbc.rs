//! The calls of the Arrow Flight SQL JDBC driver, in its order, as DBeaver and other Java programs make them.
//!
//! The driver shakes hands (Basic) if it has a user, of which `secured.rs` tells; it asks for all of GetSqlInfo when a program asks for anything of
//! the database, and never runs a statement without preparing it: one whose dataset schema has no columns is run as
//! an update, any other as a query. It closes what it has prepared.

mod served;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Schema, UInt32Type};
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow_flight::sql::{
    ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest,
    ActionCreatePreparedStatementResult, Any, Command, CommandGetCatalogs, CommandGetDbSchemas,
    CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables, CommandPreparedStatementQuery,
    CommandPreparedStatementUpdate, DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::utils::flight_data_to_batches;
use arrow_flight::{Action, FlightData, FlightDescriptor};
use futures::TryStreamExt;
use prost::Message;
use served::{Client, Served};
use tonic::{Code, Request, Status};

struct Jdbc<'a> {
    served: &'a Served,
    client: Client,
}

impl Jdbc<'_> {
    fn prepare(&mut self, sql: &str) -> Result<ActionCreatePreparedStatementResult, Status> {
        let request = ActionCreatePreparedStatementRequest { query: sql.into(), transaction_id: None };
        let body = self.act("CreatePreparedStatement", request.as_any())?;
        Ok(Any::decode(&body[..]).unwrap().unpack().unwrap().unwrap())
    }

    fn close(&mut self, prepared: &ActionCreatePreparedStatementResult) -> Result<(), Status> {
        let prepared_statement_handle = prepared.prepared_statement_handle.clone();
        let request = ActionClosePreparedStatementRequest { prepared_statement_handle };
        self.act("ClosePreparedStatement", request.as_any()).map(drop)
    }

    /// The first result of an action, or nothing.
    fn act(&mut self, kind: &str, request: Any) -> Result<Vec<u8>, Status> {
        let action = Action { r#type: kind.into(), body: request.encode_to_vec().into() };
        self.served.runtime.block_on(async {
            let mut results = self.client.inner_mut().do_action(action).await?.into_inner();
            Ok(results.try_next().await?.map(|r| r.body.to_vec()).unwrap_or_default())
        })
    }

    /// The rows of all endpoints of a command.
    fn rows(&mut self, command: Any) -> Result<Vec<RecordBatch>, Status> {
        let descriptor = FlightDescriptor::new_cmd(command.encode_to_vec());
        self.served.runtime.block_on(async {
            let info = self.client.inner_mut().get_flight_info(descriptor).await?.into_inner();
            let mut batches = vec![];
            for endpoint in info.endpoint {
                let ticket = endpoint.ticket.unwrap();
                let stream = self.client.inner_mut().do_get(ticket).await?.into_inner();
                let messages: Vec<FlightData> = stream.try_collect().await?;
                batches.extend(flight_data_to_batches(&messages).unwrap());
            }
            Ok(batches)
        })
    }

    fn query(&mut self, prepared: &ActionCreatePreparedStatementResult) -> Result<Vec<RecordBatch>, Status> {
        let prepared_statement_handle = prepared.prepared_statement_handle.clone();
        self.rows(CommandPreparedStatementQuery { prepared_statement_handle }.as_any())
    }

    fn update(&mut self, prepared: &ActionCreatePreparedStatementResult) -> Result<i64, Status> {
        let prepared_statement_handle = prepared.prepared_statement_handle.clone();
        let command = CommandPreparedStatementUpdate { prepared_statement_handle }.as_any();
        let descriptor = FlightDescriptor::new_cmd(command.encode_to_vec());
        // The driver sends an empty batch of the parameters' schema, of which there is none.
        let empty = arrow_flight::utils::batches_to_flight_data(&Schema::empty(), vec![]).unwrap();
        let messages: Vec<FlightData> =
            empty.into_iter().map(|m| m.with_descriptor(descriptor.clone())).collect();
        self.served.runtime.block_on(async {
            let request = Request::new(futures::stream::iter(messages));
            let mut results = self.client.inner_mut().do_put(request).await?.into_inner();
            let result = results.try_next().await?.expect("an update has a result");
            Ok(DoPutUpdateResult::decode(&result.app_metadata[..]).unwrap().record_count)
        })
    }
}

fn columns(schema: &[u8]) -> usize {
    match schema.is_empty() {
        true => 0,
        false => try_schema_from_ipc_buffer(schema).unwrap().fields().len(),
    }
}

#[test]
fn the_whole_of_sql_info_can_be_read() {
    let served = Served::new();
    let mut jdbc = Jdbc { served: &served, client: served.client() };
    let batches = jdbc.rows(CommandGetSqlInfo { info: vec![] }.as_any()).unwrap();
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    assert!(rows >= 40, "{rows}");
    let numbers: Vec<u32> =
        batches.iter().flat_map(|b| b.column(0).as_primitive::<UInt32Type>().values().to_vec()).collect();
    // Each once; the server's name and version, the identifiers' quote, and what transactions there are.
    let mut unique = numbers.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), numbers.len());
    for wanted in [0, 1, 3, 4, 8, 504] {
        assert!(numbers.contains(&wanted), "{wanted} of {numbers:?}");
    }
    let values = batches[0].column(1).as_union();
    assert_eq!(values.len(), batches[0].num_rows());
}

#[test]
fn everything_is_prepared_and_only_updates_have_no_columns() {
    let served = Served::new();
    let mut jdbc = Jdbc { served: &served, client: served.client() };
    for (sql, changed) in [
        ("CREATE TABLE t (a INTEGER, b VARCHAR)", None),
        ("INSERT INTO t VALUES (1, 'x'), (2, 'y')", Some(2)),
        ("CREATE VIEW v AS SELECT a FROM t", None),
    ] {
        let prepared = jdbc.prepare(sql).unwrap();
        assert_eq!(columns(&prepared.dataset_schema), 0, "{sql}");
        let count = jdbc.update(&prepared).unwrap();
        assert!(changed.is_none_or(|c| c == count), "{sql}: {count}");
        jdbc.close(&prepared).unwrap();
    }
    for (sql, width, height) in [
        ("SELECT a, b FROM t ORDER BY a", 2, 2),
        ("SELECT * FROM v", 1, 2),
        ("SELECT a FROM t WHERE false", 1, 0),
        ("SHOW TABLES", 1, 2),
        ("DESCRIBE t", 3, 2),
        ("WITH c AS (SELECT 1 AS x) SELECT * FROM c", 1, 1),
    ] {
        let prepared = jdbc.prepare(sql).unwrap();
        assert_eq!(columns(&prepared.dataset_schema), width, "{sql}");
        // As often as a program executes it.
        for _ in 0..2 {
            let rows: usize = jdbc.query(&prepared).unwrap().iter().map(RecordBatch::num_rows).sum();
            assert_eq!(rows, height, "{sql}");
        }
        jdbc.close(&prepared).unwrap();
        assert_eq!(jdbc.query(&prepared).unwrap_err().code(), Code::NotFound, "{sql}");
    }
    let wrong = jdbc.prepare("SELECT nothing FROM t").unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(wrong.message().contains("nothing"), "{}", wrong.message());
}

#[test]
fn what_a_tree_of_tables_asks_for() {
    let served = Served::new();
    served.session.execute("CREATE TABLE t (a INTEGER, b VARCHAR)").unwrap();
    let mut jdbc = Jdbc { served: &served, client: served.client() };
    let count = |jdbc: &mut Jdbc<'_>, command: Any| -> usize {
        jdbc.rows(command).unwrap().iter().map(RecordBatch::num_rows).sum()
    };
    assert_eq!(count(&mut jdbc, CommandGetCatalogs {}.as_any()), 1);
    assert!(count(&mut jdbc, CommandGetDbSchemas::default().as_any()) >= 1);
    assert!(count(&mut jdbc, CommandGetTableTypes {}.as_any()) >= 1);
    let tables = |include_schema, filter: &str| CommandGetTables {
        catalog: None,
        db_schema_filter_pattern: None,
        table_name_filter_pattern: Some(filter.into()),
        table_types: vec![],
        include_schema,
    };
    assert_eq!(count(&mut jdbc, tables(false, "%").as_any()), 1);
    assert_eq!(count(&mut jdbc, tables(false, "nothing").as_any()), 0);
    let described = jdbc.rows(tables(true, "t").as_any()).unwrap();
    let schema = described[0].column_by_name("table_schema").unwrap().as_binary::<i32>().value(0).to_vec();
    assert_eq!(columns(&schema), 2);
    // No variant of the protocol's commands is a defect of the server.
    assert!(matches!(Command::try_from(CommandGetCatalogs {}.as_any()), Ok(Command::CommandGetCatalogs(_))));
}
