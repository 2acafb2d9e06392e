//! Segments that are finished, and the rows of one of their partitions.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::buffer::MutableBuffer;

use super::index::{BlockAddress, Index, index_offset, read_index};
use super::{HEADER_BYTES, MAGIC, TRAILER_BYTES, VERSION};
use crate::block;
use crate::error::{Result, ShuffleError};
use crate::rows::Rows;
use crate::store::StoredFile;

/// A finished segment. Cheap to clone; a segment of this process deletes its file with its last clone and
/// reader.
#[derive(Debug, Clone)]
pub struct Segment {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    index: Index,
    /// Deletes the file on drop, if it is this process's.
    _file: Option<StoredFile>,
}

impl Segment {
    /// Opens a file that may be anyone's; it is not deleted. The header, the trailer and the index are
    /// checked.
    pub fn open(path: &Path) -> Result<Segment> {
        let index = open_index(path)?;
        Ok(Segment { inner: Arc::new(Inner { path: path.to_path_buf(), index, _file: None }) })
    }

    pub(super) fn sealed(file: StoredFile, index: Index) -> Segment {
        Segment { inner: Arc::new(Inner { path: file.path().to_path_buf(), index, _file: Some(file) }) }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.inner.index.len()
    }

    /// The blocks of a partition, in the order of writing.
    pub fn blocks(&self, partition: usize) -> &[BlockAddress] {
        &self.inner.index[partition]
    }

    /// Rows of a partition.
    pub fn rows(&self, partition: usize) -> u64 {
        self.blocks(partition).iter().map(|b| b.rows).sum()
    }

    /// Bytes of a partition on disk.
    pub fn bytes(&self, partition: usize) -> u64 {
        self.blocks(partition).iter().map(|b| b.bytes).sum()
    }

    /// Reads a partition, block by block, in the order of writing. The file is opened at the first block.
    pub fn read(&self, partition: usize) -> SegmentReader {
        assert!(partition < self.partitions(), "invariant: a partition of the segment");
        SegmentReader { segment: self.clone(), partition, next: 0, file: None, failed: false }
    }
}

fn open_index(path: &Path) -> Result<Index> {
    let (file, file_bytes) = File::open(path)
        .and_then(|file| file.metadata().map(|metadata| (file, metadata.len())))
        .map_err(|e| ShuffleError::unreadable(path, e))?;
    if file_bytes < HEADER_BYTES + TRAILER_BYTES {
        return Err(ShuffleError::corrupt(path, 0, format!("it has {file_bytes} bytes only")));
    }
    let mut header = [0; HEADER_BYTES as usize];
    read_exact_at(&file, path, &mut header, 0)?;
    let mut expected = [0; HEADER_BYTES as usize];
    expected[..8].copy_from_slice(&MAGIC);
    expected[8..12].copy_from_slice(&VERSION.to_le_bytes());
    if header != expected {
        return Err(ShuffleError::corrupt(path, 0, "it does not start as a segment of this version does"));
    }
    let trailer_offset = file_bytes - TRAILER_BYTES;
    let mut trailer = [0; TRAILER_BYTES as usize];
    read_exact_at(&file, path, &mut trailer, trailer_offset)?;
    let offset = index_offset(&trailer, file_bytes)
        .map_err(|damage| ShuffleError::corrupt(path, trailer_offset, damage))?;
    let mut bytes = vec![0; (file_bytes - offset) as usize];
    read_exact_at(&file, path, &mut bytes, offset)?;
    read_index(&bytes, offset).map_err(|damage| ShuffleError::corrupt(path, offset, damage))
}

/// The blocks of one partition. After an error there is nothing more.
#[derive(Debug)]
pub struct SegmentReader {
    segment: Segment,
    partition: usize,
    next: usize,
    file: Option<File>,
    failed: bool,
}

impl Iterator for SegmentReader {
    type Item = Result<Rows>;

    fn next(&mut self) -> Option<Result<Rows>> {
        if self.failed {
            return None;
        }
        let address = *self.segment.blocks(self.partition).get(self.next)?;
        self.next += 1;
        let rows = self.read_block(address);
        self.failed = rows.is_err();
        Some(rows)
    }
}

impl SegmentReader {
    fn read_block(&mut self, address: BlockAddress) -> Result<Rows> {
        let path = self.segment.path();
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(path).map_err(|e| ShuffleError::unreadable(path, e))?,
        };
        let mut bytes = MutableBuffer::from_len_zeroed(address.bytes as usize);
        read_exact_at(&file, path, bytes.as_slice_mut(), address.offset)?;
        let rows = block::decode(&bytes.into(), path, address.offset)?;
        if rows.rows as u64 != address.rows {
            let what = format!("the block has {} rows, the index says {}", rows.rows, address.rows);
            return Err(ShuffleError::corrupt(path, address.offset, what));
        }
        self.file = Some(file);
        Ok(rows)
    }
}

fn read_exact_at(file: &File, path: &Path, bytes: &mut [u8], offset: u64) -> Result<()> {
    read_at(file, bytes, offset).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => ShuffleError::corrupt(path, offset, "the file is cut off"),
        _ => ShuffleError::unreadable(path, e),
    })
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Every reader has a file of its own, so moving its position disturbs nobody.
#[cfg(not(unix))]
fn read_at(mut file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(bytes)
}
