//! What a statement asks the session to do, with every name resolved.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion_common::{DataFusionError, ScalarValue};
use datafusion_expr::dml::InsertOp;
use datafusion_expr::{DdlStatement, LogicalPlan, WriteOp};
use datafusion_sql::parser::{CopyToSource, CopyToStatement, ResetStatement, Statement};
use datafusion_sql::planner::SqlToRel;
use sqlparser::ast::{
    self, ColumnOption, ContextModifier, DescribeAlias, Expr, ObjectName, ObjectType, Query, Set, Value,
    ValueWithSpan,
};

use super::parameters::{self, Parameters};
use super::parse::{ParsedStatement, parse_one};
use super::provider::{Provider, key};
use super::{ambiguous, cast_names, identifiers, message, refuse, rewrite};
use crate::catalog::CatalogSnapshot;
use crate::error::{PlanError, Result};
use crate::stack::with_room;

/// A statement with its names resolved: what the session has to do. Plans are not optimized yet.
#[derive(Debug, Clone)]
pub enum Bound {
    /// Run a query and return its rows.
    Query(LogicalPlan),
    /// Show how a query would run; `analyze`: run it and say how it went.
    Explain { analyze: bool, plan: LogicalPlan },
    /// Create a table with a query's rows.
    CreateTableAs { name: String, query: LogicalPlan, options: Create },
    /// Create an empty table. Fields that are not nullable came from NOT NULL.
    CreateTable { name: String, schema: SchemaRef, options: Create },
    /// Append a query's rows to a table, or replace its rows by them. The query has the table's columns, in
    /// the table's order and types.
    Insert { table: String, query: LogicalPlan, overwrite: bool },
    /// Keep the text of a query under a name. `sql` is what [`CatalogSnapshot::views`] shall hold.
    CreateView { name: String, sql: String, options: Create },
    /// Drop tables or views; `temporary`: of the session's own only.
    Drop { kind: DropKind, names: Vec<String>, if_exists: bool, temporary: bool },
    /// Write a query's rows to files.
    Copy {
        query: LogicalPlan,
        target: String,
        format: Option<String>,
        partition_by: Vec<String>,
        options: Vec<(String, String)>,
    },
    /// Change a setting. The value is written as in SQL, strings without their quotes.
    Set { name: String, value: String },
    /// Give a setting its default.
    Reset { name: String },
    /// Show a setting; `all` for all.
    Show { name: String },
    /// List tables and views.
    ShowTables,
    /// Show the columns of a table or view, or of a query's result.
    Describe { plan: LogicalPlan },
}

/// How CREATE makes a table or view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Create {
    pub if_not_exists: bool,
    pub or_replace: bool,
    /// For the session alone, and until it ends.
    pub temporary: bool,
}

/// What DROP drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropKind {
    Table,
    View,
}

/// Resolves a statement's names against the catalog. A statement with parameters is an error.
pub fn bind(statement: &ParsedStatement, catalog: &CatalogSnapshot) -> Result<Bound> {
    bind_values(statement, catalog, &[])
}

/// [`bind`], with a value for each of the statement's parameters, in their order. The values become literals of
/// the plan, and are converted as literals are.
pub fn bind_values(
    statement: &ParsedStatement,
    catalog: &CatalogSnapshot,
    values: &[ScalarValue],
) -> Result<Bound> {
    parameters::check_count(statement.parameters, values.len())?;
    with_room(|| bind_at(statement, catalog, 0, Parameters::Values(values)))
}

/// The types that the statement's parameters are best given in: those of what they are compared with, assigned
/// to or cast to; Null where nothing tells.
pub fn parameter_types(statement: &ParsedStatement, catalog: &CatalogSnapshot) -> Result<Vec<DataType>> {
    let count = statement.parameters;
    if count == 0 {
        return Ok(vec![]);
    }
    with_room(|| match bind_at(statement, catalog, 0, Parameters::Open) {
        Ok(bound) => parameters::types(bound.plan(), count),
        // Without a type nothing fits in some places: nulls do, as well as the values that will come.
        Err(e) => match bind_values(statement, catalog, &vec![ScalarValue::Null; count]) {
            Ok(_) => parameters::types(None, count),
            Err(_) => Err(e),
        },
    })
}

impl Bound {
    /// The query that the statement is or contains.
    fn plan(&self) -> Option<&LogicalPlan> {
        match self {
            Bound::Query(plan)
            | Bound::Explain { plan, .. }
            | Bound::CreateTableAs { query: plan, .. }
            | Bound::Insert { query: plan, .. }
            | Bound::Copy { query: plan, .. }
            | Bound::Describe { plan } => Some(plan),
            Bound::CreateTable { .. }
            | Bound::CreateView { .. }
            | Bound::Drop { .. }
            | Bound::Set { .. }
            | Bound::Reset { .. }
            | Bound::Show { .. }
            | Bound::ShowTables => None,
        }
    }
}

/// The plan of a statement that is a query; anything else is an error.
pub fn plan(statement: &ParsedStatement, catalog: &CatalogSnapshot) -> Result<LogicalPlan> {
    with_room(|| query(statement, catalog, 0))
}

/// [`plan`], so many views deep.
pub(super) fn query(
    statement: &ParsedStatement,
    catalog: &CatalogSnapshot,
    depth: usize,
) -> Result<LogicalPlan> {
    parameters::check_count(statement.parameters, 0)?;
    match bind_at(statement, catalog, depth, Parameters::Values(&[]))? {
        Bound::Query(plan) => Ok(plan),
        _ => Err(PlanError::invalid("expected a query")),
    }
}

fn bind_at(
    statement: &ParsedStatement,
    catalog: &CatalogSnapshot,
    depth: usize,
    parameters: Parameters<'_>,
) -> Result<Bound> {
    let mut parsed = identifiers::resolve_case(statement, catalog)?;
    rewrite::rewrite(&mut parsed);
    refuse::check(&parsed)?;
    let binder = Binder {
        provider: &Provider::new(catalog, depth, parameters),
        script: &statement.script,
        text: &statement.text,
        parameters,
    };
    binder.statement(parsed)
}

struct Binder<'a> {
    provider: &'a Provider<'a>,
    script: &'a str,
    text: &'a str,
    parameters: Parameters<'a>,
}

impl Binder<'_> {
    fn statement(&self, statement: Statement) -> Result<Bound> {
        match statement {
            Statement::Statement(s) => self.sql(*s),
            Statement::Explain(e) => {
                if e.options.format.is_some() {
                    return Err(PlanError::unsupported("EXPLAIN FORMAT", "Leave FORMAT out."));
                }
                match self.statement(*e.statement)? {
                    Bound::Query(plan) => Ok(Bound::Explain { analyze: e.options.analyze, plan }),
                    _ => Err(PlanError::unsupported(
                        "EXPLAIN of anything but a query",
                        "Explain the query that the statement contains.",
                    )),
                }
            }
            Statement::CopyTo(copy) => self.copy(copy),
            Statement::Reset(ResetStatement::Variable(name)) => Ok(Bound::Reset { name: dotted(&name) }),
            Statement::CreateExternalTable(_) => Err(PlanError::unsupported(
                "CREATE EXTERNAL TABLE",
                "Give the folder or URL of the files when Dovetail starts: each file and sub-folder is a table",
            )),
        }
    }

    fn sql(&self, statement: ast::Statement) -> Result<Bound> {
        match statement {
            ast::Statement::Query(_) => Ok(Bound::Query(self.plan(statement)?)),
            ast::Statement::Explain { describe_alias, analyze, statement, .. } => {
                let plan = match *statement {
                    s @ ast::Statement::Query(_) => self.plan(s)?,
                    _ => {
                        return Err(PlanError::unsupported(
                            "EXPLAIN of anything but a query",
                            "Explain the query that the statement contains.",
                        ));
                    }
                };
                match describe_alias {
                    DescribeAlias::Explain => Ok(Bound::Explain { analyze, plan }),
                    DescribeAlias::Describe | DescribeAlias::Desc => Ok(Bound::Describe { plan }),
                }
            }
            ast::Statement::ExplainTable { table_name, .. } => {
                Ok(Bound::Describe { plan: self.whole_table(&table_name)? })
            }
            ast::Statement::CreateTable(mut t) => {
                for column in &t.columns {
                    for option in &column.options {
                        if !matches!(option.option, ColumnOption::Null | ColumnOption::NotNull) {
                            return Err(PlanError::unsupported(
                                format!("{} on column {}", option.option, column.name),
                                "Leave it out; only NULL and NOT NULL are kept.",
                            ));
                        }
                    }
                }
                if !t.constraints.is_empty() {
                    return Err(PlanError::unsupported("A table constraint", "Leave it out."));
                }
                if t.global == Some(true) {
                    return Err(PlanError::unsupported("GLOBAL TEMPORARY", "Leave GLOBAL out."));
                }
                let with_rows = t.query.is_some();
                // datafusion-sql takes none of either.
                let temporary = std::mem::take(&mut t.temporary);
                t.global = None;
                let plan = self.plan(ast::Statement::CreateTable(t))?;
                self.create_table(plan, with_rows, temporary)
            }
            ast::Statement::CreateView(view) => self.create_view(view),
            ast::Statement::Insert(_) => match self.plan(statement)? {
                LogicalPlan::Dml(dml) => {
                    let overwrite = match dml.op {
                        WriteOp::Insert(InsertOp::Append) => false,
                        WriteOp::Insert(InsertOp::Overwrite) => true,
                        _ => {
                            return Err(PlanError::unsupported(
                                "REPLACE INTO",
                                "Use INSERT INTO or INSERT OVERWRITE.",
                            ));
                        }
                    };
                    let query = Arc::unwrap_or_clone(dml.input);
                    Ok(Bound::Insert { table: key(&dml.table_name), query, overwrite })
                }
                _ => Err(PlanError::internal("INSERT without DML")),
            },
            ast::Statement::Drop {
                object_type, if_exists, names, cascade, purge, temporary, table, ..
            } => {
                let kind = match object_type {
                    ObjectType::Table => DropKind::Table,
                    ObjectType::View => DropKind::View,
                    other => {
                        return Err(PlanError::unsupported(format!("DROP {other}"), "Drop tables or views."));
                    }
                };
                if cascade || purge || table.is_some() {
                    return Err(PlanError::unsupported("A modifier of DROP", "Write DROP TABLE name."));
                }
                let names = names.iter().map(object_key).collect();
                Ok(Bound::Drop { kind, names, if_exists, temporary })
            }
            ast::Statement::Set(set) if parameters::count_in(&set)? > 0 => {
                Err(PlanError::unsupported("A parameter in SET", "Write the value."))
            }
            ast::Statement::Set(Set::SingleAssignment {
                scope: None | Some(ContextModifier::Session),
                hivevar: false,
                variable,
                values,
            }) => {
                let values = values.iter().map(setting_value).collect::<Vec<_>>();
                Ok(Bound::Set { name: dotted(&variable), value: values.join(", ") })
            }
            ast::Statement::Set(Set::SetTimeZone { local: false, value }) => {
                Ok(Bound::Set { name: "timezone".into(), value: setting_value(&value) })
            }
            ast::Statement::ShowVariable { variable } => {
                let parts: Vec<String> = variable.iter().map(|i| i.value.to_lowercase()).collect();
                Ok(Bound::Show { name: parts.join(".") })
            }
            ast::Statement::ShowTables { .. } => Ok(Bound::ShowTables),
            ast::Statement::ShowColumns { show_options, .. } => {
                let table = show_options.show_in.and_then(|s| s.parent_name);
                match table {
                    Some(name) => Ok(Bound::Describe { plan: self.whole_table(&name)? }),
                    None => Err(PlanError::invalid("SHOW COLUMNS needs FROM and a table")),
                }
            }
            ast::Statement::Update(_) | ast::Statement::Delete(_) | ast::Statement::Merge(_) => {
                Err(PlanError::unsupported(
                    "Changing single rows (UPDATE, DELETE, MERGE)",
                    "Write the wanted rows to a new table: CREATE OR REPLACE TABLE t AS SELECT …",
                ))
            }
            other => {
                let words: Vec<String> =
                    other.to_string().split_whitespace().take(2).map(str::to_string).collect();
                Err(PlanError::unsupported(format!("The statement {} …", words.join(" ")), "See HELP."))
            }
        }
    }

    fn plan(&self, mut statement: ast::Statement) -> Result<LogicalPlan> {
        let bare = ambiguous::bare_names(&statement);
        self.parameters.wrap(&mut statement);
        cast_names::wrap(&mut statement);
        SqlToRel::new(self.provider)
            .sql_statement_to_plan(statement)
            .and_then(|plan| cast_names::unwrap(plan, self.parameters))
            .and_then(|plan| ambiguous::check(plan, &bare))
            .map_err(|e: DataFusionError| message::binder(self.script, e))
    }

    fn whole_table(&self, name: &ObjectName) -> Result<LogicalPlan> {
        self.query_text(&format!("SELECT * FROM {name}"))
    }

    fn query_text(&self, sql: &str) -> Result<LogicalPlan> {
        match parse_one(sql)?.statement {
            Statement::Statement(s) => self.plan(*s),
            _ => Err(PlanError::internal("a query that is none")),
        }
    }

    fn create_table(&self, plan: LogicalPlan, with_rows: bool, temporary: bool) -> Result<Bound> {
        let LogicalPlan::Ddl(DdlStatement::CreateMemoryTable(t)) = plan else {
            return Err(PlanError::internal("CREATE TABLE without DDL"));
        };
        let name = key(&t.name);
        let options = Create { if_not_exists: t.if_not_exists, or_replace: t.or_replace, temporary };
        let query = Arc::unwrap_or_clone(t.input);
        if with_rows {
            return Ok(Bound::CreateTableAs { name, query, options });
        }
        let schema = query.schema().inner().clone();
        if schema.fields().is_empty() {
            return Err(PlanError::invalid("a table needs at least one column"));
        }
        Ok(Bound::CreateTable { name, schema, options })
    }

    fn create_view(&self, mut view: ast::CreateView) -> Result<Bound> {
        if parameters::count_in(&view.query)? > 0 {
            return Err(PlanError::unsupported("A parameter in a view", "Write the value."));
        }
        let name = object_key(&view.name);
        let ast::CreateView { if_not_exists, or_replace, temporary, .. } = view;
        let options = Create { if_not_exists, or_replace, temporary };
        // datafusion-sql does not take it.
        view.if_not_exists = false;
        let columns: Vec<String> = view.columns.iter().map(|c| c.name.to_string()).collect();
        let query = view.query.clone();
        // Planned for its errors alone; every use plans it again, against the catalog of that time.
        let provider = Provider::new(self.provider.catalog(), 0, self.parameters);
        let provider = if temporary { provider } else { provider.for_everybody() };
        let binder =
            Binder { provider: &provider, script: self.script, text: self.text, parameters: self.parameters };
        binder.plan(ast::Statement::CreateView(view))?;
        let text = self.view_text(&query)?;
        let sql = if columns.is_empty() {
            text
        } else {
            format!("SELECT * FROM ({text}) AS v ({})", columns.join(", "))
        };
        Ok(Bound::CreateView { name, sql, options })
    }

    /// The query's text, which must parse to the query again.
    fn view_text(&self, query: &Query) -> Result<String> {
        let text = query.to_string();
        let mut again = parse_one(&text)?;
        rewrite::rewrite(&mut again.statement);
        match again.statement {
            Statement::Statement(s) if matches!(&*s, ast::Statement::Query(q) if **q == *query) => Ok(text),
            _ => {
                Err(PlanError::internal(format!("the view's text does not keep its meaning: {}", self.text)))
            }
        }
    }

    fn copy(&self, copy: CopyToStatement) -> Result<Bound> {
        let query = match copy.source {
            CopyToSource::Relation(name) => self.whole_table(&name)?,
            CopyToSource::Query(query) => self.plan(ast::Statement::Query(query))?,
        };
        let options = copy.options.into_iter().map(|(k, v)| (k.to_lowercase(), value_text(&v))).collect();
        Ok(Bound::Copy {
            query,
            target: copy.target,
            format: copy.stored_as.map(|f| f.to_lowercase()),
            partition_by: copy.partitioned_by,
            options,
        })
    }
}

/// The catalog's name of what a statement names.
fn object_key(name: &ObjectName) -> String {
    let parts: Vec<String> = name
        .0
        .iter()
        .map(|p| match p.as_ident() {
            Some(i) if i.quote_style.is_some() => i.value.clone(),
            Some(i) => i.value.to_lowercase(),
            None => p.to_string(),
        })
        .collect();
    match parts.as_slice() {
        [schema, table] if schema == "main" || schema == "public" => table.clone(),
        _ => parts.join("."),
    }
}

fn dotted(name: &ObjectName) -> String {
    name.to_string().to_lowercase()
}

fn setting_value(value: &Expr) -> String {
    match value {
        Expr::Value(ValueWithSpan { value, .. }) => value_text(value),
        other => other.to_string(),
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::SingleQuotedString(s) | Value::DoubleQuotedString(s) => s.clone(),
        other => other.to_string(),
    }
}
