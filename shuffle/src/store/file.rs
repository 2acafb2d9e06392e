//! One file: written front to back, sealed, read at any place, deleted with its last handle.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Query;
use crate::error::{Result, ShuffleError};

/// Smaller writes are gathered until there are so many bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// A file that grows. Dropped before it is sealed, it is deleted.
#[derive(Debug)]
pub struct FileWriter {
    name: String,
    stored: StoredFile,
    file: File,
    buffer: Vec<u8>,
}

/// A file that no longer changes; deleted on drop.
#[derive(Debug)]
pub struct StoredFile {
    query: Arc<Query>,
    place: usize,
    path: PathBuf,
    bytes: u64,
}

/// Why bytes were not written.
enum Refusal {
    Full,
    Failed(ShuffleError),
}

impl FileWriter {
    pub(super) fn create(query: Arc<Query>, name: &str) -> Result<FileWriter> {
        let name = query.places.unique_name(name);
        for place in 0..query.places.places.len() {
            match create_in(&query, place, &name) {
                Ok((stored, file)) => return Ok(FileWriter { name, stored, file, buffer: vec![] }),
                Err(Refusal::Full) => {}
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        Err(query.places.disk_full(0))
    }

    /// Bytes appended so far, which is where the next will lie.
    pub fn position(&self) -> u64 {
        self.stored.bytes + self.buffer.len() as u64
    }

    /// Writes bytes after those written before. If that fails, the bytes before are still there.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Nothing can be appended any more.
    pub fn seal(mut self) -> Result<StoredFile> {
        self.flush()?;
        Ok(self.stored)
    }

    fn flush(&mut self) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let written = self.write(&buffer);
        if written.is_ok() {
            buffer.clear();
        }
        self.buffer = buffer;
        written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stored.extend(&mut self.file, bytes) {
            Ok(()) => Ok(()),
            Err(Refusal::Full) => self.move_and_write(bytes),
            Err(Refusal::Failed(error)) => Err(error),
        }
    }

    /// Copies the file to a directory that has room for it and for the bytes.
    fn move_and_write(&mut self, bytes: &[u8]) -> Result<()> {
        let query = self.stored.query.clone();
        for place in (0..query.places.places.len()).filter(|place| *place != self.stored.place) {
            match self.copy_to(place, bytes) {
                Ok((stored, file)) => {
                    // The old file goes with its handle.
                    (self.stored, self.file) = (stored, file);
                    return Ok(());
                }
                Err(Refusal::Full) => {}
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        Err(query.places.disk_full(bytes.len() as u64))
    }

    fn copy_to(&self, place: usize, bytes: &[u8]) -> std::result::Result<(StoredFile, File), Refusal> {
        let (mut stored, mut file) = create_in(&self.stored.query, place, &self.name)?;
        let read_error = |e| Refusal::Failed(ShuffleError::io("move", &self.stored.path, e));
        let mut old = File::open(&self.stored.path).map_err(read_error)?;
        let mut chunk = vec![0; BUFFER_BYTES];
        while stored.bytes < self.stored.bytes {
            let length = chunk.len().min((self.stored.bytes - stored.bytes) as usize);
            old.read_exact(&mut chunk[..length]).map_err(read_error)?;
            stored.extend(&mut file, &chunk[..length])?;
        }
        stored.extend(&mut file, bytes)?;
        Ok((stored, file))
    }
}

/// An empty file in a directory.
fn create_in(
    query: &Arc<Query>,
    place: usize,
    name: &str,
) -> std::result::Result<(StoredFile, File), Refusal> {
    let folder = query.folder(place);
    let path = folder.join(name);
    let file = fs::create_dir_all(&folder)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
        .map_err(|e| refusal("create", &path, e))?;
    query.places.files_alive.fetch_add(1, Ordering::Relaxed);
    Ok((StoredFile { query: query.clone(), place, path, bytes: 0 }, file))
}

fn refusal(action: &'static str, path: &Path, error: io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Refusal::Full,
        _ => Refusal::Failed(ShuffleError::io(action, path, error)),
    }
}

impl StoredFile {
    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes at the file's end. A write that fails half-way is overwritten by the next.
    fn extend(&mut self, file: &mut File, bytes: &[u8]) -> std::result::Result<(), Refusal> {
        let place = &self.query.places.places[self.place];
        let length = bytes.len() as u64;
        if !place.reserve(length) {
            return Err(Refusal::Full);
        }
        let written = file.seek(SeekFrom::Start(self.bytes)).and_then(|_| file.write_all(bytes));
        if let Err(error) = written {
            place.release(length);
            return Err(refusal("write", &self.path, error));
        }
        self.bytes += length;
        Ok(())
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        // What cannot be removed now goes with the query's folder.
        let _ = fs::remove_file(&self.path);
        self.query.places.places[self.place].release(self.bytes);
        self.query.places.files_alive.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk cannot be filled in a test; what the system says of one can be given.
    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        let kind = |kind| refusal("write", Path::new("a-file"), io::Error::from(kind));
        assert!(matches!(kind(io::ErrorKind::StorageFull), Refusal::Full));
        assert!(matches!(kind(io::ErrorKind::QuotaExceeded), Refusal::Full));
        assert!(matches!(kind(io::ErrorKind::PermissionDenied), Refusal::Failed(_)));
        #[cfg(target_os = "linux")]
        for (enospc_or_edquot, full) in [(28, true), (122, true), (5, false)] {
            let error = io::Error::from_raw_os_error(enospc_or_edquot);
            assert_eq!(matches!(refusal("write", Path::new("a-file"), error), Refusal::Full), full);
        }
    }
}
