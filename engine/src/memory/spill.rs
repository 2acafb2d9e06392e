//! Where a session's queries spill to.

use std::path::PathBuf;
use std::sync::Arc;

use dovetail_shuffle::store::{QueryStore, SpillDirectory, SpillStore};
use parking_lot::Mutex;

use super::limit::parse_size;
use crate::error::{EngineError, Result};

/// The spill directories of a session: taken into use at once if they were named, else when a query first
/// needs one, below the system's directory for temporary files.
#[derive(Clone)]
pub struct SpillSpace {
    shared: Arc<Shared>,
}

struct Shared {
    directories: Vec<SpillDirectory>,
    store: Mutex<Option<SpillStore>>,
}

/// A query's files. Made with the first of them, deleted with the query.
pub struct QuerySpill {
    space: SpillSpace,
    store: Mutex<Option<QueryStore>>,
}

impl SpillSpace {
    /// A space in these directories, the most preferred first; none is the system's temporary directory.
    ///
    /// # Errors
    /// A directory cannot be used.
    pub fn open(directories: &[SpillDirectory]) -> Result<Self> {
        let own = directories.to_vec();
        let space = SpillSpace { shared: Arc::new(Shared { directories: own, store: Mutex::default() }) };
        if !directories.is_empty() {
            space.store()?;
        }
        Ok(space)
    }

    /// Files that exist at the moment.
    pub fn files_alive(&self) -> usize {
        self.shared.store.lock().as_ref().map_or(0, SpillStore::files_alive)
    }

    /// About the bytes that can be spilled yet; none if nothing was spilled so far.
    pub fn room_bytes(&self) -> Option<u64> {
        self.shared.store.lock().as_ref().map(SpillStore::room_bytes)
    }

    /// A place for a query's files.
    pub fn query(&self) -> QuerySpill {
        QuerySpill { space: self.clone(), store: Mutex::default() }
    }

    fn store(&self) -> Result<SpillStore> {
        let mut store = self.shared.store.lock();
        if let Some(store) = store.as_ref() {
            return Ok(store.clone());
        }
        let default = [SpillDirectory { path: std::env::temp_dir(), quota_bytes: None }];
        let directories = &self.shared.directories[..];
        let directories = if directories.is_empty() { &default[..] } else { directories };
        Ok(store.insert(SpillStore::open(directories)?).clone())
    }
}

impl Default for SpillSpace {
    fn default() -> Self {
        SpillSpace { shared: Arc::new(Shared { directories: vec![], store: Mutex::default() }) }
    }
}

impl QuerySpill {
    /// The query's part of the store.
    pub fn store(&self) -> Result<QueryStore> {
        let mut store = self.store.lock();
        match store.as_ref() {
            Some(store) => Ok(store.clone()),
            None => Ok(store.insert(self.space.store()?.query("query")).clone()),
        }
    }
}

/// `DIR`, or `DIR=SIZE` with the most bytes that may lie there: `/fast=20GB`.
pub fn parse_spill_directory(text: &str) -> Result<SpillDirectory> {
    let (path, quota_bytes) = match text.rsplit_once('=') {
        Some((path, size)) => (path, Some(parse_size(size)?)),
        None => (text, None),
    };
    if path.is_empty() {
        return Err(EngineError::Resources("a spill directory needs a path: DIR or DIR=SIZE".into()));
    }
    Ok(SpillDirectory { path: PathBuf::from(path), quota_bytes })
}
