//! The folder and the warehouse listed anew, and what is forgotten with the files that are gone.
//!
//! What always holds: footers are kept of the files that are listed, and of at most [`UNLISTED_FILES_MAX`] others,
//! which queries name by their path or URL; descriptions are kept of tables that are listed.

use std::collections::HashSet;

use super::listing::{self, Listing};
use super::{Catalog, Result};

/// Footers of files that no listing has; beyond it they are read again when they are asked for.
const UNLISTED_FILES_MAX: usize = 1000;

impl Catalog {
    /// Lists the folder or bucket again, and the warehouse.
    pub fn refresh(&self) -> Result<()> {
        if let Some(root) = &self.root {
            let now = listing::list(&self.stores, root)?;
            let before = std::mem::replace(&mut *self.listing.write(), now);
            self.forget_what_is_gone(&before, &self.listing.read());
        }
        self.refresh_warehouse()
    }

    pub(super) fn relist_if_local(&self) -> Result<()> {
        match &self.root {
            Some(root) if root.is_local() => self.refresh(),
            _ => self.refresh_warehouse(),
        }
    }

    pub(super) fn refresh_warehouse(&self) -> Result<()> {
        if let Some(warehouse) = &self.warehouse {
            let now = warehouse.list(&self.stores)?;
            let before = std::mem::replace(&mut *self.written.write(), now);
            self.forget_what_is_gone(&before, &self.written.read());
        }
        Ok(())
    }

    /// Forgets footers of files that no listing has, if there are too many of them.
    pub(super) fn forget_unlisted(&self) {
        let (served, written) = (self.listing.read(), self.written.read());
        let listed: usize =
            [&served, &written].map(|l| l.tables.values().map(|t| t.files.len()).sum()).iter().sum();
        let mut files = self.files.lock();
        if files.len() > listed + UNLISTED_FILES_MAX {
            let tables = served.tables.values().chain(written.tables.values());
            let listed: HashSet<&str> = tables.flat_map(|t| &t.files).map(|f| f.url.as_str()).collect();
            files.retain(|url, _| listed.contains(url.as_str()));
        }
    }

    fn forget_what_is_gone(&self, before: &Listing, now: &Listing) {
        if before == now {
            return;
        }
        let mut gone: HashSet<&str> = HashSet::new();
        for (name, table) in &before.tables {
            let still = now.tables.get(name);
            if still.is_none() {
                self.tables.lock().remove(name);
            }
            if still.is_none_or(|still| still.files != table.files) {
                gone.extend(table.files.iter().map(|f| f.url.as_str()));
            }
        }
        for file in now.tables.values().flat_map(|t| &t.files) {
            gone.remove(file.url.as_str());
        }
        let mut files = self.files.lock();
        gone.into_iter().for_each(|url| drop(files.remove(url)));
    }
}
