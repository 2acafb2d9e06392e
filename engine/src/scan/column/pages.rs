//! A column chunk as rows: any window of them, decoded from whichever pages they are in.
//!
//! Windows come in ascending order; the pages of the current one stay open, as a column may be asked
//! several times: for its codes, for values to test, for values that go on.

use std::collections::VecDeque;
use std::ops::Range;

use arrow::array::{ArrayRef, NullBufferBuilder};
use bytes::Bytes;
use parquet::basic::Encoding;

use crate::error::Result;
use crate::scan::column::chunk::{Chunk, is_codes};
use crate::scan::column::format::{Format, NULL_PLACE, Places};
use crate::scan::column::hybrid::Hybrid;
use crate::scan::column::levels::Validity;
use crate::scan::column::malformed::{Decoded, malformed};
use crate::scan::column::{Rows, Use};

/// Of a page's rows, at least one in so many must be wanted for all codes to be unpacked.
const DENSE: usize = 3;

/// With at least one row of so many wanted, some row of the next page of plain values will be, too.
const NEXT_PAGE_DENSE: usize = 64;

/// A column chunk of one format.
pub struct Pages<F: Format> {
    chunk: Chunk,
    format: F,
    /// Entries of the dictionary; the code of a null.
    entries: u32,
    open: VecDeque<OpenPage<F::Page>>,
    building: [Building<F>; 2],
    scratch: Scratch,
}

/// Rows on their way into an array.
struct Building<F: Format> {
    out: F::Out,
    nulls: NullBufferBuilder,
}

#[derive(Default)]
struct Scratch {
    codes: Vec<u32>,
    places: Vec<u32>,
    all: Vec<u32>,
}

struct OpenPage<P> {
    index: usize,
    first_row: usize,
    rows: usize,
    validity: Option<Validity>,
    content: Content<P>,
}

enum Content<P> {
    Codes(Hybrid),
    Values(P),
}

/// The rows of one page that a window asks for.
enum Local<'a> {
    Range(Range<usize>),
    /// Rows of the window; `shift` less gives rows of the page.
    At {
        rows: &'a [u32],
        shift: isize,
    },
}

impl<F: Format> Pages<F> {
    /// A chunk whose encodings the format knows; see [`Pages::readable`].
    pub fn new(mut chunk: Chunk, mut format: F) -> Result<Self> {
        let mut entries = 0;
        if chunk.dictionary_entries().is_some() {
            let dictionary = chunk.read_dictionary()?;
            let count = dictionary.entries;
            format.set_dictionary(dictionary).map_err(|e| chunk.place.damaged(e.0))?;
            entries = u32::try_from(count)
                .ok()
                .filter(|e| *e < NULL_PLACE)
                .ok_or_else(|| chunk.place.damaged("a dictionary of 4 billion entries"))?;
        }
        let building = || Building { out: F::Out::default(), nulls: NullBufferBuilder::new(0) };
        let scratch = Scratch::default();
        Ok(Pages {
            chunk,
            format,
            entries,
            open: VecDeque::new(),
            building: [building(), building()],
            scratch,
        })
    }

    /// The format can decode all pages of the chunk.
    pub fn readable(chunk: &Chunk, format: &F) -> bool {
        chunk.pages.iter().all(|p| is_codes(p.encoding) || format.knows(p.encoding))
    }

    /// Every page holds codes of the dictionary.
    pub fn only_codes(&self) -> bool {
        self.chunk.only_codes()
    }

    /// The entries of the dictionary, the same array at each call.
    pub fn dictionary(&self) -> Option<&ArrayRef> {
        self.format.dictionary()
    }

    /// Appends the codes of rows of a window; null is the number of entries. Only for
    /// [`Pages::only_codes`].
    pub fn codes(&mut self, window: Range<usize>, rows: Rows, out: &mut Vec<u32>) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self.each_page(window, rows, |pages, at, local| {
            let page = &pages.open[at];
            match &page.content {
                Content::Codes(codes) => {
                    decode_codes(pages.entries, codes, page.validity.as_ref(), &local, &mut scratch, out)
                }
                Content::Values(_) => Err(malformed("a page that is not encoded as the others are")),
            }
        });
        self.scratch = scratch;
        result
    }

    /// Appends the values of rows of a window to what is being built for a use.
    pub fn append(&mut self, window: Range<usize>, rows: Rows, purpose: Use) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = self
            .each_page(window, rows, |pages, at, local| pages.append_page(at, local, purpose, &mut scratch));
        self.scratch = scratch;
        result
    }

    /// What was built for a use, as an array; the next begins.
    pub fn finish(&mut self, purpose: Use) -> Result<ArrayRef> {
        let building = &mut self.building[purpose as usize];
        let nulls = building.nulls.finish();
        self.format.finish(&mut building.out, nulls).map_err(|e| self.chunk.place.damaged(e.0))
    }

    /// The rows of each data page, in order.
    pub fn page_rows(&self) -> Vec<Range<usize>> {
        self.chunk.pages.iter().map(|p| p.first_row..p.first_row + p.rows).collect()
    }

    /// Calls `f` with each page that has rows of the window (its place in `open`) and with those rows.
    fn each_page(
        &mut self,
        window: Range<usize>,
        rows: Rows,
        mut f: impl FnMut(&mut Self, usize, Local) -> Decoded<()>,
    ) -> Result<()> {
        while self.open.front().is_some_and(|p| p.first_row + p.rows <= window.start) {
            self.open.pop_front();
        }
        let mut index = self.chunk.pages.partition_point(|p| p.first_row + p.rows <= window.start);
        while let Some(page) = self.chunk.pages.get(index).copied().filter(|p| p.first_row < window.end) {
            let from = page.first_row.max(window.start);
            let to = (page.first_row + page.rows).min(window.end);
            let local = match rows {
                Rows::All => Local::Range(from - page.first_row..to - page.first_row),
                Rows::At(rows) => {
                    let before =
                        |limit: usize| rows.partition_point(|r| (*r as usize) < limit - window.start);
                    let rows = &rows[before(from)..before(to)];
                    Local::At { rows, shift: page.first_row as isize - window.start as isize }
                }
            };
            if !local.is_empty() {
                // Rows of a page are as dense as those of the window, or nearly: so will be the next one's.
                let dense = local.len() * NEXT_PAGE_DENSE >= to - from;
                let at = self.open_page(index, dense)?;
                f(self, at, local).map_err(|e| self.chunk.place.damaged(e.0))?;
            }
            index += 1;
        }
        Ok(())
    }

    fn open_page(&mut self, index: usize, dense: bool) -> Result<usize> {
        if let Some(at) = self.open.iter().position(|p| p.index == index) {
            return Ok(at);
        }
        let body = self.chunk.read_page(index, dense && !is_codes(self.chunk.pages[index].encoding))?;
        let content =
            self.content(body.encoding, body.data, body.values).map_err(|e| self.chunk.place.damaged(e.0))?;
        let first_row = self.chunk.pages[index].first_row;
        self.open.push_back(OpenPage { index, first_row, rows: body.rows, validity: body.validity, content });
        Ok(self.open.len() - 1)
    }

    fn content(&self, encoding: Encoding, data: Bytes, values: usize) -> Decoded<Content<F::Page>> {
        if is_codes(encoding) {
            if self.format.dictionary().is_none() {
                return Err(malformed("codes without a dictionary"));
            }
            if values == 0 {
                return Ok(Content::Codes(Hybrid::parse(Bytes::new(), 0, 0)?));
            }
            let width = *data.first().ok_or(malformed("codes without a bit width"))? as u32;
            return Ok(Content::Codes(Hybrid::parse(data.slice(1..), width, values)?));
        }
        if !self.format.knows(encoding) {
            return Err(malformed("a page in an encoding that its header does not tell"));
        }
        Ok(Content::Values(self.format.open_page(encoding, data, values)?))
    }

    fn append_page(&mut self, at: usize, local: Local, purpose: Use, scratch: &mut Scratch) -> Decoded<()> {
        let page = &self.open[at];
        let validity = page.validity.as_ref();
        let Building { out, nulls } = &mut self.building[purpose as usize];
        match (&local, validity) {
            (_, None) => nulls.append_n_non_nulls(local.len()),
            (Local::Range(range), Some(validity)) => nulls.append_buffer(&validity.nulls(range.clone())),
            (Local::At { .. }, Some(validity)) => local.for_each(|row| nulls.append(validity.is_valid(row))),
        }
        match &page.content {
            Content::Codes(codes) => {
                let mut decoded = std::mem::take(&mut scratch.all);
                decoded.clear();
                let checked = decode_codes(self.entries, codes, validity, &local, scratch, &mut decoded);
                if checked.is_ok() {
                    self.format.append_codes(&decoded, out);
                }
                scratch.all = decoded;
                checked
            }
            Content::Values(values) => {
                let places = match (&local, validity) {
                    (Local::Range(range), None) => Places::Range(range.clone()),
                    (_, None) => {
                        scratch.places.clear();
                        local.for_each(|row| scratch.places.push(row as u32));
                        Places::List(&scratch.places)
                    }
                    (_, Some(validity)) => {
                        scratch.places.clear();
                        local.for_each(|row| scratch.places.push(validity.place(row)));
                        Places::WithNulls(&scratch.places)
                    }
                };
                self.format.append_values(values, places, out);
                Ok(())
            }
        }
    }
}

/// Appends the codes of rows of a page, `entries` for null. An error if one is beyond the dictionary.
fn decode_codes(
    entries: u32,
    codes: &Hybrid,
    validity: Option<&Validity>,
    local: &Local,
    scratch: &mut Scratch,
    out: &mut Vec<u32>,
) -> Decoded<()> {
    let start = out.len();
    let in_bounds = |any: u32, new: &[u32]| {
        if any >= entries && new.iter().any(|c| *c >= entries) {
            return Err(malformed("a code beyond its dictionary"));
        }
        Ok(())
    };
    match (local, validity) {
        (Local::Range(range), None) => {
            let any = codes.decode_range(range.clone(), out);
            in_bounds(any, &out[start..])
        }
        (Local::Range(range), Some(validity)) => {
            let any = codes.decode_range(validity.rank(range.start)..validity.rank(range.end), out);
            in_bounds(any, &out[start..])?;
            validity.spread(range.clone(), entries, out);
            Ok(())
        }
        (Local::At { rows, shift }, None) => {
            let (first, last) = local.bounds();
            if rows.len() * DENSE >= last - first {
                scratch.codes.clear();
                let any = codes.decode_range(first..last + 1, &mut scratch.codes);
                in_bounds(any, &scratch.codes)?;
                let shift = shift + first as isize;
                out.extend(rows.iter().map(|r| scratch.codes[(*r as isize - shift) as usize]));
                return Ok(());
            }
            scratch.places.clear();
            local.for_each(|row| scratch.places.push(row as u32));
            let any = codes.decode_at(&scratch.places, out);
            in_bounds(any, &out[start..])
        }
        (Local::At { .. }, Some(validity)) => {
            scratch.places.clear();
            local.for_each(|row| {
                if validity.is_valid(row) {
                    scratch.places.push(validity.place(row));
                }
            });
            scratch.codes.clear();
            let any = codes.decode_at(&scratch.places, &mut scratch.codes);
            in_bounds(any, &scratch.codes)?;
            let mut decoded = scratch.codes.iter();
            local.for_each(|row| {
                let code = if validity.is_valid(row) { decoded.next().copied() } else { None };
                out.push(code.unwrap_or(entries));
            });
            Ok(())
        }
    }
}

impl Local<'_> {
    fn len(&self) -> usize {
        match self {
            Local::Range(range) => range.len(),
            Local::At { rows, .. } => rows.len(),
        }
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first and the last row of the page; there must be one.
    fn bounds(&self) -> (usize, usize) {
        match self {
            Local::Range(range) => (range.start, range.end - 1),
            Local::At { rows, shift } => {
                let row = |r: u32| (r as isize - shift) as usize;
                (row(rows[0]), row(rows[rows.len() - 1]))
            }
        }
    }

    /// Calls `f` with each row of the page.
    fn for_each(&self, mut f: impl FnMut(usize)) {
        match self {
            Local::Range(range) => range.clone().for_each(f),
            Local::At { rows, shift } => rows.iter().for_each(|r| f((*r as isize - shift) as usize)),
        }
    }
}
