//! Temporary tables and views: one session's own, in memory, until it ends.
//!
//! Rows in memory are asked for by the table's number, by other processes of a cluster too. In the upper half of a
//! temporary table's number is the number of its session, so that a number says where the rows are; shared tables
//! have nothing there.
//!
//! What always holds: a session has at most [`TEMPORARY_MAX`] of them, in so much memory as it was given; nobody finds
//! another's by name; all of them and the memory that is counted for them go with the session.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use arrow::datatypes::SchemaRef;
use dovetail_planner::catalog::Table;
use parking_lot::{Mutex, RwLock};

use super::memory::{Memory, MemoryData};
use crate::batch::Batch;
use crate::error::{EngineError, Result};
use crate::memory::{Charge, readable};

/// Temporary tables and views of one session.
pub const TEMPORARY_MAX: usize = 1000;

/// The bits of a table's number below those of its session.
const TABLE_BITS: u32 = 32;

/// The temporary tables of all sessions of a catalog, to be found by number.
#[derive(Default)]
pub struct TemporarySessions(Mutex<Sessions>);

#[derive(Default)]
struct Sessions {
    last: u32,
    all: HashMap<u32, Weak<TemporaryTables>>,
}

/// Those of one session.
pub struct TemporaryTables {
    session: u32,
    memory: RwLock<Memory>,
    bytes_max: usize,
    sessions: Arc<TemporarySessions>,
}

impl TemporarySessions {
    /// The tables of another session, which may hold so much; none yet.
    pub fn begin(self: &Arc<Self>, bytes_max: usize) -> Arc<TemporaryTables> {
        let mut sessions = self.0.lock();
        // Numbers come again after four billion sessions; nothing has one twice at a time.
        let mut session = sessions.last;
        loop {
            session = session.wrapping_add(1).max(1);
            if !sessions.all.contains_key(&session) {
                break;
            }
        }
        sessions.last = session;
        let tables = Arc::new(TemporaryTables {
            session,
            memory: RwLock::new(Memory::numbered_after(u64::from(session) << TABLE_BITS)),
            bytes_max,
            sessions: self.clone(),
        });
        sessions.all.insert(session, Arc::downgrade(&tables));
        tables
    }

    /// The rows of a table as they were at `version`; none if it is a shared one.
    pub fn data(&self, id: u64, version: u64) -> Option<Result<MemoryData>> {
        let session = u32::try_from(id >> TABLE_BITS).ok().filter(|s| *s > 0)?;
        let tables = self.0.lock().all.get(&session).and_then(Weak::upgrade);
        Some(match tables {
            Some(tables) => tables.memory.read().data(id, version),
            None => Err(EngineError::execution("the session that the temporary table belonged to has ended")),
        })
    }
}

impl TemporaryTables {
    /// All tables and views, by lower-case name.
    pub fn all(&self) -> (BTreeMap<String, Arc<Table>>, BTreeMap<String, String>) {
        let memory = self.memory.read();
        (memory.tables().collect(), memory.views())
    }

    /// One table, by lower-case name.
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.memory.read().table(name)
    }

    /// Whether there is a view of a name.
    pub fn has_view(&self, name: &str) -> bool {
        self.memory.read().has_view(name)
    }

    /// Creates a table, whose rows are counted by `charge`.
    pub fn create_table(
        &self,
        name: &str,
        schema: SchemaRef,
        batches: Vec<Batch>,
        replace: bool,
        charge: Charge,
    ) -> Result<()> {
        let mut memory = self.memory.write();
        check_room(&memory, name)?;
        let replaced = if replace { memory.charged_bytes(name) } else { 0 };
        self.check_bytes(memory.charged_bytes_of_all() - replaced, &charge)?;
        memory.create(name, schema, batches, replace)?;
        memory.charge(name, charge);
        Ok(())
    }

    /// Creates a view from the SQL text of its query.
    pub fn create_view(&self, name: &str, sql: &str, replace: bool) -> Result<()> {
        let mut memory = self.memory.write();
        check_room(&memory, name)?;
        memory.create_view(name, sql, replace)
    }

    /// Adds rows, which are counted by `charge`, to the table that they were planned for; returns how many.
    pub fn insert(&self, planned: &Table, batches: Vec<Batch>, charge: Charge) -> Result<u64> {
        let mut memory = self.memory.write();
        self.check_bytes(memory.charged_bytes_of_all(), &charge)?;
        let rows = memory.insert(planned, batches)?;
        memory.charge(&planned.name, charge);
        Ok(rows)
    }

    /// Drops a table; false if there is none of that name.
    pub fn drop_table(&self, name: &str) -> bool {
        self.memory.write().drop_table(name)
    }

    /// Drops a view; false if there is none of that name.
    pub fn drop_view(&self, name: &str) -> bool {
        self.memory.write().drop_view(name)
    }

    /// Drops everything.
    pub fn clear(&self) {
        self.memory.write().clear();
    }

    /// What is counted of the tables' memory.
    pub fn bytes(&self) -> usize {
        self.memory.read().charged_bytes_of_all()
    }

    fn check_bytes(&self, held: usize, more: &Charge) -> Result<()> {
        let wanted = held + more.bytes();
        match wanted > self.bytes_max {
            true => Err(EngineError::Resources(format!(
                "the session's temporary tables would hold {} of memory, and may hold {}, a part of the memory limit; \
                 drop some, or raise {}",
                readable(wanted as u64),
                readable(self.bytes_max as u64),
                more.scope().flag()
            ))),
            false => Ok(()),
        }
    }
}

impl Drop for TemporaryTables {
    fn drop(&mut self) {
        self.sessions.0.lock().all.remove(&self.session);
    }
}

fn check_room(memory: &Memory, name: &str) -> Result<()> {
    let is_new = !memory.has_table(name) && !memory.has_view(name);
    match is_new && memory.count() >= TEMPORARY_MAX {
        true => Err(EngineError::Resources(format!(
            "the session has {TEMPORARY_MAX} temporary tables and views, and may have no more; drop some"
        ))),
        false => Ok(()),
    }
}
