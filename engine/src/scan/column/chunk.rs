//! The pages of one column chunk: found by their headers, decompressed when they are wanted.
//!
//! Snappy pages are decompressed here, two at a time where a second one is sure to be wanted (see
//! [`snappy`]): the dictionaries of two columns, or a page of plain values and the one behind it.
//! Parquet's own page reader does the other codecs.

use std::ops::Range;
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
use crate::scan::column::snappy::{self, Block};
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
    decompressor: Decompressor,
    nullable: bool,
}

/// Who decompresses the pages.
enum Decompressor {
    Snappy(SnappyPages),
    /// `next` is the data page that the reader gives next.
    Parquet {
        reader: SerializedPageReader<ReadRanges>,
        next: usize,
    },
}

/// Where Snappy's pages are in the chunk's bytes.
struct SnappyPages {
    bytes: Bytes,
    /// The dictionary, if there is one, then the data pages.
    pages: Vec<CompressedPage>,
    has_dictionary: bool,
    /// Pages that were decompressed ahead, by position in `pages`.
    ready: Vec<(usize, Bytes)>,
}

#[derive(Debug, Clone)]
struct CompressedPage {
    range: Range<usize>,
    /// Decompressed.
    bytes: usize,
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
        // As long as every page is one that `snappy` can take.
        let mut compressed = (metadata.compression() == Compression::SNAPPY).then(Vec::new);
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
            let body =
                CompressedPage { range: at + header.header_bytes..end, bytes: header.uncompressed_bytes };
            match header.kind {
                PageKind::Dictionary if at == 0 => {
                    dictionary_entries = Some(header.values);
                    // PLAIN, or what it was called for dictionaries once.
                    match header.encoding {
                        0 | 2 => compressed.iter_mut().for_each(|c| c.push(body.clone())),
                        _ => compressed = None,
                    }
                }
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
                    if header.kind == PageKind::DataV2 {
                        compressed = None;
                    }
                    if header.values > 0 {
                        compressed.iter_mut().for_each(|c| c.push(body.clone()));
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
        let decompressor = match compressed {
            Some(compressed) => Decompressor::Snappy(SnappyPages {
                bytes,
                pages: compressed,
                has_dictionary: dictionary_entries.is_some(),
                ready: vec![],
            }),
            None => {
                let end = start + bytes.len() as u64;
                let source = Arc::new(ReadRanges::new(end, vec![(start, bytes)]));
                let reader = guarded(&place.url, || {
                    SerializedPageReader::new(source, metadata, rows, Some(locations))
                        .map_err(|e| place.damaged(e))
                })?;
                Decompressor::Parquet { reader, next: 0 }
            }
        };
        Ok(Some(Chunk { place, pages, dictionary_entries, decompressor, nullable }))
    }

    /// The number of entries of the dictionary page, if there is one.
    pub fn dictionary_entries(&self) -> Option<usize> {
        self.dictionary_entries
    }

    /// Every data page holds codes of the dictionary.
    pub fn only_codes(&self) -> bool {
        self.dictionary_entries.is_some() && self.pages.iter().all(|p| is_codes(p.encoding))
    }

    /// Decompresses the dictionaries of chunks side by side, for [`Chunk::read_dictionary`] to find.
    pub fn decompress_dictionaries(chunks: &mut [Chunk]) {
        let mut waiting: Vec<&mut SnappyPages> = chunks
            .iter_mut()
            .filter_map(|chunk| match &mut chunk.decompressor {
                Decompressor::Snappy(pages) if pages.has_dictionary => Some(pages),
                _ => None,
            })
            .collect();
        // The largest first: whoever is alone in the end is so for a short time.
        waiting.sort_by_key(|pages| std::cmp::Reverse(pages.pages[0].bytes));
        let blocks: Vec<Block> = waiting.iter().map(|pages| pages.block(0)).collect();
        // Which of them is damaged is seen when it is taken.
        if let Ok(dictionaries) = snappy::decompress_all(&blocks) {
            for (pages, dictionary) in waiting.into_iter().zip(dictionaries) {
                pages.ready.push((0, dictionary.into()));
            }
        }
    }

    /// Decompresses the dictionary page. Called once, before any data page.
    pub fn read_dictionary(&mut self) -> Result<DictionaryBody> {
        match &mut self.decompressor {
            Decompressor::Snappy(pages) if pages.has_dictionary => {
                let data = pages.take(0, None).map_err(|e| self.place.damaged(e.0))?;
                Ok(DictionaryBody { entries: self.dictionary_entries.unwrap_or(0), data })
            }
            Decompressor::Snappy(_) => Err(self.place.damaged("no dictionary where one should be")),
            Decompressor::Parquet { .. } => match self.next_page()? {
                Page::DictionaryPage {
                    buf,
                    num_values,
                    encoding: Encoding::PLAIN | Encoding::PLAIN_DICTIONARY,
                    ..
                } => Ok(DictionaryBody { entries: num_values as usize, data: buf }),
                _ => Err(self.place.damaged("no dictionary where one should be")),
            },
        }
    }

    /// Decompresses a data page. Pages must be asked for in ascending order; those left out are not
    /// decompressed. With `next_too`, the page behind it will be asked for as well.
    pub fn read_page(&mut self, index: usize, next_too: bool) -> Result<PageBody> {
        let expected = self.pages[index].rows;
        if let Decompressor::Snappy(pages) = &mut self.decompressor {
            let at = index + usize::from(pages.has_dictionary);
            let next = (next_too && at + 1 < pages.pages.len()).then_some(at + 1);
            let data = pages.take(at, next).map_err(|e| self.place.damaged(e.0))?;
            let body = self.body_v1(data, expected, self.pages[index].encoding);
            return body.map_err(|e| self.place.damaged(e.0));
        }
        self.skip_to(index)?;
        let body = match self.next_page()? {
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

    /// Makes data page `index` the one that Parquet's reader gives next.
    fn skip_to(&mut self, index: usize) -> Result<()> {
        if let Decompressor::Parquet { reader, next } = &mut self.decompressor {
            while *next < index {
                reader.skip_next_page().map_err(|e| self.place.damaged(e))?;
                *next += 1;
            }
            *next += 1;
        }
        Ok(())
    }

    fn next_page(&mut self) -> Result<Page> {
        let Decompressor::Parquet { reader, .. } = &mut self.decompressor else {
            return Err(EngineError::internal("a page of Parquet's reader, which does not read this chunk"));
        };
        let place = &self.place;
        guarded(&place.url, || reader.get_next_page().map_err(|e| place.damaged(e)))?
            .ok_or_else(|| self.place.damaged("a page is missing"))
    }
}

impl SnappyPages {
    fn block(&self, at: usize) -> Block<'_> {
        let page = &self.pages[at];
        Block { compressed: &self.bytes[page.range.clone()], bytes: page.bytes }
    }

    /// A page, decompressed; together with it another one that is wanted soon.
    fn take(&mut self, at: usize, soon: Option<usize>) -> Result<Bytes, Malformed> {
        if let Some(found) = self.ready.iter().position(|(ready, _)| *ready == at) {
            return Ok(self.ready.swap_remove(found).1);
        }
        // What is ready and was not taken has been passed over.
        self.ready.clear();
        let Some(soon) = soon else {
            return snappy::decompress(self.block(at)).map(Bytes::from);
        };
        let mut both = snappy::decompress_all(&[self.block(at), self.block(soon)])?;
        self.ready.extend(both.pop().map(|page| (soon, page.into())));
        Ok(both.pop().unwrap_or_default().into())
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
