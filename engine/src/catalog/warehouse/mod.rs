//! The warehouse: a folder whose tables are written here, as Parquet files.
//!
//! ```text
//! DIR/orders/*.parquet            a table; listed as any other folder
//! DIR/.dovetail/lock              held by the process that writes here
//! DIR/.dovetail/writing/…         files that are not committed yet
//! DIR/.dovetail/replaced/0=orders what was a table until its replacement was in its place
//! ```
//!
//! What always holds: what is written becomes part of a table by one rename, when it is on disk, or not at all; a
//! table that is replaced is never missing to this process, and is put back at the next start if another process
//! was killed between the two renames. A query that was planned before its table was replaced or dropped fails,
//! as it does whenever a file has changed under it.

mod writer;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use parking_lot::RwLock;

use super::listing::{self, Listing};
use super::store::{Location, Stores, file_url};
use crate::error::{EngineError, Result};
use crate::memory::Reservation;

pub use writer::{TableWriter, Written, plain, table_schema};

/// Of a table's name, which is a folder's too.
const NAME_BYTES_MAX: usize = 128;

const OWN: &str = ".dovetail";
/// Between a number and the name of what was put aside. No table of the warehouse has it in its name.
const ASIDE: char = '=';

/// A folder that tables are written to, by one process at a time.
pub struct Warehouse {
    root: PathBuf,
    /// Shared by listings, exclusive for commits.
    commits: RwLock<()>,
    /// Locked until it is closed.
    _lock: File,
}

impl Warehouse {
    /// Takes a folder, which is made if it is not there, and clears away what a killed process has left.
    ///
    /// # Errors
    /// The folder cannot be written to, or another process has it.
    pub fn open(folder: &Path) -> Result<Warehouse> {
        let root = std::path::absolute(folder).map_err(|e| failed(folder, &e))?;
        let own = root.join(OWN);
        fs::create_dir_all(&own).map_err(|e| failed(&own, &e))?;
        let lock_path = own.join("lock");
        let lock = File::create(&lock_path).map_err(|e| failed(&lock_path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => {
                return Err(EngineError::Resources(format!(
                    "{} is the warehouse of another server that is running; stop that one, or give another folder",
                    root.display()
                )));
            }
            Err(fs::TryLockError::Error(e)) => return Err(failed(&lock_path, &e)),
        }
        let warehouse = Warehouse { root, commits: RwLock::default(), _lock: lock };
        warehouse.recover()?;
        Ok(warehouse)
    }

    /// Where it is.
    pub fn location(&self) -> Location {
        Location::Local(self.root.clone())
    }

    /// The folder of a table, as a URL.
    pub fn url_of(&self, name: &str) -> String {
        let folder = self.root.join(name);
        file_url(&folder).unwrap_or_else(|_| folder.display().to_string())
    }

    /// The tables that are there.
    pub fn list(&self, stores: &Stores) -> Result<Listing> {
        let _no_commit = self.commits.read();
        listing::list(stores, &self.location())
    }

    /// Begins to write rows that no table has yet. `schema` is a table's, see [`table_schema`].
    pub fn write(&self, schema: SchemaRef, memory: Reservation) -> Result<TableWriter> {
        TableWriter::create(&self.own("writing"), schema, memory)
    }

    /// Makes a table of what was written.
    ///
    /// # Errors
    /// There is a table of that name, or the folder cannot be written to.
    pub fn create(&self, name: &str, written: Written) -> Result<()> {
        check_name(name)?;
        let _alone = self.commits.write();
        if self.find(name)?.is_some_and(|p| has_entries(&p)) {
            return Err(super::memory::exists(name));
        }
        let place = self.root.join(name);
        written.become_folder(&place).map_err(|e| failed(&place, &e))?;
        self.sync()
    }

    /// Adds what was written to a table. `check` is asked whether the table still is the one that it was written
    /// for, while nobody else commits; it must not list the warehouse.
    ///
    /// # Errors
    /// There is no such table in a folder of its own, or it is another one; the folder cannot be written to.
    pub fn append(
        &self,
        name: &str,
        written: Written,
        check: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let _alone = self.commits.write();
        let place = self.find(name)?.filter(|p| has_entries(p)).ok_or_else(|| super::replaced(name))?;
        if !place.is_dir() {
            return Err(EngineError::Unsupported(
                format!("adding rows to '{name}', which is not a folder of the warehouse"),
                "Replace the table, or write to another one".into(),
            ));
        }
        check(&place)?;
        written.join_folder(&place).map_err(|e| failed(&place, &e))?;
        sync_folder(&place)
    }

    /// Puts what was written in the place of a table.
    pub fn replace(&self, name: &str, written: Written) -> Result<()> {
        check_name(name)?;
        let _alone = self.commits.write();
        let former = self.find(name)?;
        let aside = former.as_ref().map(|former| self.put_aside(former, "replaced")).transpose()?;
        let place = self.root.join(name);
        if let Err(e) = written.become_folder(&place) {
            if let (Some(former), Some(aside)) = (&former, &aside) {
                fs::rename(aside, former).map_err(|e| failed(former, &e))?;
            }
            return Err(failed(&place, &e));
        }
        self.sync()?;
        if let Some(aside) = aside {
            self.discard(&aside);
        }
        Ok(())
    }

    /// Drops a table; false if there is none of that name.
    pub fn drop_table(&self, name: &str) -> Result<bool> {
        let _alone = self.commits.write();
        let Some(place) = self.find(name)? else {
            return Ok(false);
        };
        // Gone at once and whole, and not put back at the next start.
        let aside = self.put_aside(&place, "writing")?;
        self.sync()?;
        self.discard(&aside);
        Ok(true)
    }

    /// The file or folder of a table, whatever the case of its name on disk.
    fn find(&self, name: &str) -> Result<Option<PathBuf>> {
        let entries = fs::read_dir(&self.root).map_err(|e| failed(&self.root, &e))?;
        for entry in entries {
            let entry = entry.map_err(|e| failed(&self.root, &e))?;
            let file = entry.file_name().to_string_lossy().to_lowercase();
            let is_file = file.strip_suffix(".parquet") == Some(name) && entry.path().is_file();
            if is_file || (file == name && entry.path().is_dir()) {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    }

    /// Moves what was a table to a part of our own, under a name that nothing there has yet.
    fn put_aside(&self, former: &Path, part: &str) -> Result<PathBuf> {
        let part = self.own(part);
        fs::create_dir_all(&part).map_err(|e| failed(&part, &e))?;
        let file = former.file_name().unwrap_or_default().to_string_lossy();
        let file = file.rsplit_once(ASIDE).map_or(&*file, |(_, file)| file);
        let names = (0_u64..).map(|number| part.join(format!("{number}{ASIDE}{file}")));
        let aside = names.into_iter().find(|place| !place.exists()).unwrap_or_default();
        fs::rename(former, &aside).map_err(|e| failed(former, &e))?;
        Ok(aside)
    }

    /// Deletes what is no table any more. If that fails it is in nobody's way, and the next start deletes it.
    fn discard(&self, aside: &Path) {
        // From here it would be put back, if the table that has replaced it were dropped.
        let is_replaced = aside.starts_with(self.own("replaced"));
        let moved = if is_replaced { self.put_aside(aside, "writing") } else { Ok(aside.to_owned()) };
        if let Err(e) = moved.and_then(|aside| remove(&aside)) {
            tracing::warn!("what was a table until now is not deleted yet: {e}");
        }
    }

    fn recover(&self) -> Result<()> {
        let replaced = self.own("replaced");
        for aside in entries(&replaced).map_err(|e| failed(&replaced, &e))? {
            let file = aside.file_name().unwrap_or_default().to_string_lossy();
            let file = file.rsplit_once(ASIDE).map_or(&*file, |(_, file)| file);
            let name = file.to_lowercase();
            if self.find(name.strip_suffix(".parquet").unwrap_or(&name))?.is_none() {
                let place = self.root.join(file);
                tracing::warn!(table = %place.display(), "put back a table that was being replaced");
                fs::rename(&aside, &place).map_err(|e| failed(&place, &e))?;
            }
        }
        for folder in [replaced, self.own("writing")] {
            if folder.exists() {
                remove(&folder)?;
            }
        }
        Ok(())
    }

    fn own(&self, part: &str) -> PathBuf {
        self.root.join(OWN).join(part)
    }

    fn sync(&self) -> Result<()> {
        sync_folder(&self.root)
    }
}

/// Refuses a name that could not be a folder's, or would not be listed as a table.
pub fn check_name(name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > NAME_BYTES_MAX {
        "is too long"
    } else if name.starts_with(['.', '_']) {
        "begins with a dot or an underscore, which hides a folder"
    } else if name.contains(['/', '\\', '=']) || name.contains(char::is_control) {
        "has a slash, a backslash, an equals sign or a control character"
    } else {
        return Ok(());
    };
    Err(EngineError::execution(format!(
        "'{}' cannot be the name of a table in the warehouse: it {problem}",
        name.escape_debug().take(NAME_BYTES_MAX).collect::<String>()
    )))
}

fn has_entries(place: &Path) -> bool {
    place.is_file() || entries(place).is_ok_and(|e| !e.is_empty())
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(found) => found.map(|entry| entry.map(|e| e.path())).collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        Err(e) => Err(e),
    }
}

fn remove(place: &Path) -> Result<()> {
    let removed = if place.is_dir() { fs::remove_dir_all(place) } else { fs::remove_file(place) };
    removed.map_err(|e| failed(place, &e))
}

/// A rename is on disk when its folder is.
fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| failed(folder, &e))
}

/// What the file system refused, and where.
fn failed(place: &Path, e: &io::Error) -> EngineError {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => EngineError::Resources(format!(
            "the disk of {} is full: free some space, or drop tables",
            place.display()
        )),
        _ => EngineError::Data {
            place: place.display().to_string(),
            message: format!("the warehouse cannot be written to: {e}"),
        },
    }
}

#[cfg(test)]
mod tests;
