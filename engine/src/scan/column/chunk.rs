//! The pages of one column chunk: found by their headers, decompressed one by one when they are wanted.

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::SerializedPageReader;

use crate::catalog::footer::guarded;
use crate::error::{EngineError, Result};
use crate::scan::column::header::{PageHeader, PageKind};
use crate::scan::column::levels::Validity;
use crate::scan::column::malformed::{Malformed, malformed};
use crate::scan::io::ReadRanges;

/// A page may be this large whatever its chunk's footer says.
const PAGE_BYTES_PLAUSIBLE: usize = 64 << 20;

/// Where a column chunk is, for messages.
#[derive(Debug, Clone)]
pub struct Place {
    pub url: Arc<str>,
    pub group: usize,
    pub column: String,
}

/// A column chunk whose bytes have been read.
pub struct Chunk {
    pub place: Place,
    pub pages: Vec<DataPage>,
    dictionary_entries: Option<usize>,
    reader: SerializedPageReader<ReadRanges>,
    /// The data page that `reader` gives next.
    next: usize,
    nullable: bool,
}

/// A data page, not yet decompressed.
#[derive(Debug, Clone, Copy)]
pub struct DataPage {
    pub first_row: usize,
    pub rows: usize,
    pub encoding: Encoding,
}

/// A data page, decompressed.
pub struct PageBody {
    pub encoding: Encoding,
    pub rows: usize,
    /// None: no row is null.
    pub validity: Option<Validity>,
    /// Values that are not null.
    pub values: usize,
    pub data: Bytes,
}

/// A dictionary page, decompressed.
pub struct DictionaryBody {
    pub entries: usize,
    pub data: Bytes,
}

impl Place {
    /// The error for bytes that do not follow the format.
    pub fn damaged(&self, what: impl std::fmt::Display) -> EngineError {
        EngineError::Data {
            place: self.url.to_string(),
            message: format!(
                "row group {}, column '{}' is damaged ({what}); write the file again, or move it away",
                self.group, self.column
            ),
        }
    }
}

impl Chunk {
    /// Finds the pages of a flat column's chunk in its bytes. None: something is in it (an index page, a
    /// deprecated encoding of levels) that only Parquet's own reader knows.
    pub fn open(
        place: Place,
        metadata: &ColumnChunkMetaData,
        rows: usize,
        bytes: Bytes,
    ) -> Result<Option<Chunk>> {
        let (start, _) = metadata.byte_range();
        let nullable = metadata.column_descr().max_def_level() > 0;
        let plausible = usize::try_from(metadata.uncompressed_size()).unwrap_or(0).max(PAGE_BYTES_PLAUSIBLE);
        let mut pages = vec![];
        let mut locations = vec![];
        let mut dictionary_entries = None;
        let (mut at, mut first_row) = (0, 0);
        while first_row < rows {
            let header = PageHeader::read(&bytes[at..]).map_err(|e| {
                place.damaged(format_args!("a page header at byte {} of the chunk", at + e.at))
            })?;
            let end = at + header.header_bytes + header.compressed_bytes;
            if end > bytes.len() {
                return Err(place.damaged("a page beyond the end of its chunk"));
            }
            if header.uncompressed_bytes > plausible {
                return Err(place.damaged("a page larger than its chunk"));
            }
            match header.kind {
                PageKind::Dictionary if at == 0 => dictionary_entries = Some(header.values),
                PageKind::Data | PageKind::DataV2 => {
                    // RLE; the deprecated BIT_PACKED is 4.
                    if header.kind == PageKind::Data && nullable && header.level_encoding != 3 {
                        return Ok(None);
                    }
                    if header.values > rows - first_row {
                        return Err(place.damaged("more values than the row group has rows"));
                    }
                    let Some(encoding) = encoding(header.encoding) else {
                        return Ok(None);
                    };
                    if header.values > 0 {
                        locations.push(PageLocation {
                            offset: (start + at as u64) as i64,
                            compressed_page_size: i32::try_from(end - at)
                                .map_err(|_| place.damaged("a page of more than 2 GiB"))?,
                            first_row_index: first_row as i64,
                        });
                        pages.push(DataPage { first_row, rows: header.values, encoding });
                        first_row += header.values;
                    }
                }
                PageKind::Dictionary | PageKind::Other => return Ok(None),
            }
            at = end;
        }
        if matches!(metadata.compression(), Compression::LZO) {
            return Ok(None);
        }
        let source = Arc::new(ReadRanges::new(start + bytes.len() as u64, vec![(start, bytes)]));
        let reader = guarded(&place.url, || {
            SerializedPageReader::new(source, metadata, rows, Some(locations)).map_err(|e| place.damaged(e))
        })?;
        Ok(Some(Chunk { place, pages, dictionary_entries, reader, next: 0, nullable }))
    }

    /// The number of entries of the dictionary page, if there is one.
    pub fn dictionary_entries(&self) -> Option<usize> {
        self.dictionary_entries
    }

    /// Every data page holds codes of the dictionary.
    pub fn only_codes(&self) -> bool {
        self.dictionary_entries.is_some() && self.pages.iter().all(|p| is_codes(p.encoding))
    }

    /// Decompresses the dictionary page. Called once, before any data page.
    pub fn read_dictionary(&mut self) -> Result<DictionaryBody> {
        match self.next_page()? {
            Page::DictionaryPage {
                buf,
                num_values,
                encoding: Encoding::PLAIN | Encoding::PLAIN_DICTIONARY,
                ..
            } => Ok(DictionaryBody { entries: num_values as usize, data: buf }),
            _ => Err(self.place.damaged("no dictionary where one should be")),
        }
    }

    /// Decompresses a data page. Pages must be asked for in ascending order; those left out are not
    /// decompressed.
    pub fn read_page(&mut self, index: usize) -> Result<PageBody> {
        while self.next < index {
            self.reader.skip_next_page().map_err(|e| self.place.damaged(e))?;
            self.next += 1;
        }
        let page = self.next_page()?;
        self.next += 1;
        let expected = self.pages[index].rows;
        let body = match page {
            Page::DataPage { buf, num_values, encoding, .. } if num_values as usize == expected => {
                self.body_v1(buf, expected, encoding)
            }
            Page::DataPageV2 {
                buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, ..
            } if num_values as usize == expected => self.body_v2(
                buf,
                expected,
                encoding,
                def_levels_byte_len as usize,
                rep_levels_byte_len as usize,
            ),
            _ => Err(malformed("a data page that its header does not describe")),
        };
        body.map_err(|e| self.place.damaged(e.0))
    }

    fn body_v1(&self, buf: Bytes, rows: usize, encoding: Encoding) -> Result<PageBody, Malformed> {
        if !self.nullable {
            return Ok(PageBody { encoding, rows, validity: None, values: rows, data: buf });
        }
        let (levels, data) = Validity::split_v1(&buf)?;
        let validity = Validity::parse(levels, rows)?;
        let values = validity.as_ref().map_or(rows, Validity::values);
        Ok(PageBody { encoding, rows, validity, values, data })
    }

    fn body_v2(
        &self,
        buf: Bytes,
        rows: usize,
        encoding: Encoding,
        definition: usize,
        repetition: usize,
    ) -> Result<PageBody, Malformed> {
        if repetition > buf.len() || definition > buf.len() - repetition {
            return Err(malformed("levels beyond the end of the page"));
        }
        let data = buf.slice(repetition + definition..);
        let levels = buf.slice(repetition..repetition + definition);
        let validity = if self.nullable { Validity::parse(levels, rows)? } else { None };
        let values = validity.as_ref().map_or(rows, Validity::values);
        Ok(PageBody { encoding, rows, validity, values, data })
    }

    fn next_page(&mut self) -> Result<Page> {
        let (reader, place) = (&mut self.reader, &self.place);
        guarded(&place.url, || reader.get_next_page().map_err(|e| place.damaged(e)))?
            .ok_or_else(|| self.place.damaged("a page is missing"))
    }
}

/// The encoding stands for codes of the dictionary.
pub fn is_codes(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY)
}

/// Numbers of `parquet.thrift`; none for those that no writer uses any more.
fn encoding(number: i32) -> Option<Encoding> {
    Some(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return None,
    })
}
