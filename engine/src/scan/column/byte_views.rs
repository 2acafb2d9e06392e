//! Columns of strings and binaries: views into pages and dictionaries, without a copy.
//!
//! A view is Arrow's: 16 bytes, strings of up to twelve bytes whole, longer ones by their place in a
//! buffer. A batch that takes few values of a page copies them, so that it does not keep the page alive.

use arrow::array::{ArrayDataBuilder, ArrayRef, make_array};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::utf8::check_valid_utf8;

use crate::scan::column::chunk::DictionaryBody;
use crate::scan::column::delta;
use crate::scan::column::format::{Format, NULL_PLACE, Places};
use crate::scan::column::malformed::{Decoded, malformed};

/// Longest value that a view holds itself.
const INLINE_BYTES: usize = 12;

/// A page of which less than this share is taken is copied from.
const COPY_BELOW: usize = 4;

/// Decodes a chunk of strings (Utf8View) or binaries (BinaryView).
pub struct ByteViews {
    utf8: bool,
    dictionary: Option<Dictionary>,
}

struct Dictionary {
    /// Views of the entries, of buffer 0; then an empty one for null.
    views: Vec<u128>,
    bytes: Buffer,
    array: ArrayRef,
}

/// An opened page: value `i` is `data[starts[i]..starts[i + 1] - gap]`.
pub struct BytesPage {
    data: Buffer,
    starts: Vec<u32>,
    gap: u32,
}

/// Views on their way into an array.
#[derive(Default)]
pub struct ViewsOut {
    views: Vec<u128>,
    buffers: Vec<Buffer>,
    /// Copied values; it becomes the last buffer, but its number is given at the first copy.
    own: Vec<u8>,
    own_number: Option<u32>,
}

impl ByteViews {
    /// A decoder of strings, or of binaries.
    pub fn new(utf8: bool) -> ByteViews {
        ByteViews { utf8, dictionary: None }
    }

    fn check(&self, page: &BytesPage) -> Decoded<()> {
        if !self.utf8 {
            return Ok(());
        }
        let not_utf8 = |_| malformed("text that is not UTF-8");
        let count = page.starts.len() - 1;
        if count == 0 {
            return Ok(());
        }
        let (first, last) = (page.starts[0] as usize, (page.starts[count] - page.gap) as usize);
        // Lengths below 128 between the values are ASCII themselves, and end any character.
        let short = page.gap == 0 || page.starts.windows(2).all(|w| w[1] - w[0] < 128 + page.gap);
        if !short {
            return (0..count).try_for_each(|i| check_valid_utf8(page.value(i)).map_err(not_utf8));
        }
        check_valid_utf8(&page.data[first..last]).map_err(not_utf8)?;
        let begins_within = |start: &u32| page.data.get(*start as usize).is_some_and(|b| b & 0xc0 == 0x80);
        if page.gap == 0 && page.starts[..count].iter().any(begins_within) {
            return Err(malformed("text that is not UTF-8"));
        }
        Ok(())
    }

    fn data_type(&self) -> DataType {
        if self.utf8 { DataType::Utf8View } else { DataType::BinaryView }
    }

    fn array(&self, views: Vec<u128>, buffers: Vec<Buffer>, nulls: Option<NullBuffer>) -> ArrayRef {
        let length = views.len();
        let data = ArrayDataBuilder::new(self.data_type())
            .len(length)
            .add_buffer(ScalarBuffer::from(views).into_inner())
            .add_buffers(buffers)
            .nulls(nulls);
        // SAFETY: every view was made by `view` from a range within its buffer, and the bytes of text were
        // checked to be UTF-8 when their page was opened.
        make_array(unsafe { data.build_unchecked() })
    }
}

impl BytesPage {
    /// Value number `i`.
    pub fn value(&self, i: usize) -> &[u8] {
        &self.data[self.starts[i] as usize..(self.starts[i + 1] - self.gap) as usize]
    }

    /// Four bytes of length before each value.
    fn plain(data: Bytes, values: usize) -> Decoded<BytesPage> {
        if values > data.len() / 4 || u32::try_from(data.len()).is_err() {
            return Err(malformed("fewer values than the page says"));
        }
        let mut starts = Vec::with_capacity(values + 1);
        let mut at = 0usize;
        for _ in 0..values {
            let length = data.get(at..at + 4).ok_or(malformed("a string beyond the end of the page"))?;
            let length = u32::from_le_bytes(length.try_into().expect("invariant: four bytes"));
            starts.push(at as u32 + 4);
            at += 4 + length as usize;
            if at > data.len() {
                return Err(malformed("a string beyond the end of the page"));
            }
        }
        starts.push(at as u32 + 4);
        Ok(BytesPage { data: data.into(), starts, gap: 4 })
    }

    /// All lengths, then all bytes.
    fn delta_lengths(data: Bytes, values: usize) -> Decoded<BytesPage> {
        let (lengths, used) = delta::decode_lengths(&data, values)?;
        let data = data.slice(used.min(data.len())..);
        let mut starts = Vec::with_capacity(values + 1);
        let mut at = 0u32;
        starts.push(0);
        for length in lengths {
            at = at
                .checked_add(length)
                .filter(|at| *at as usize <= data.len())
                .ok_or(malformed("a string beyond the end of the page"))?;
            starts.push(at);
        }
        Ok(BytesPage { data: data.into(), starts, gap: 0 })
    }

    /// Lengths shared with the value before, then the rests as in [`BytesPage::delta_lengths`].
    pub fn delta_prefixes(data: Bytes, values: usize) -> Decoded<BytesPage> {
        let (prefixes, used) = delta::decode_lengths(&data, values)?;
        let rests = BytesPage::delta_lengths(data.slice(used.min(data.len())..), values)?;
        let mut whole: Vec<u8> = Vec::with_capacity(rests.data.len());
        let mut starts = Vec::with_capacity(values + 1);
        starts.push(0);
        let mut previous = 0..0;
        for (i, prefix) in prefixes.into_iter().enumerate() {
            if prefix as usize > previous.len() {
                return Err(malformed("a string that shares more than there is"));
            }
            let start = whole.len();
            whole.extend_from_within(previous.start..previous.start + prefix as usize);
            whole.extend_from_slice(rests.value(i));
            if i32::try_from(whole.len()).is_err() {
                return Err(malformed("a page of more than 2 GiB of text"));
            }
            previous = start..whole.len();
            starts.push(whole.len() as u32);
        }
        Ok(BytesPage { data: whole.into(), starts, gap: 0 })
    }
}

impl Format for ByteViews {
    type Page = BytesPage;
    type Out = ViewsOut;

    fn knows(&self, encoding: Encoding) -> bool {
        matches!(encoding, Encoding::PLAIN | Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY)
    }

    fn set_dictionary(&mut self, dictionary: DictionaryBody) -> Decoded<()> {
        let page = BytesPage::plain(dictionary.data, dictionary.entries)?;
        self.check(&page)?;
        let mut out = ViewsOut::default();
        let number = out.buffer(&page.data);
        out.push_range(&page, 0..dictionary.entries, number);
        let mut views = out.views;
        let array = self.array(views.clone(), vec![page.data.clone()], None);
        views.push(0);
        self.dictionary = Some(Dictionary { views, bytes: page.data, array });
        Ok(())
    }

    fn dictionary(&self) -> Option<&ArrayRef> {
        self.dictionary.as_ref().map(|d| &d.array)
    }

    fn open_page(&self, encoding: Encoding, data: Bytes, values: usize) -> Decoded<BytesPage> {
        let page = match encoding {
            Encoding::DELTA_LENGTH_BYTE_ARRAY => BytesPage::delta_lengths(data, values)?,
            Encoding::DELTA_BYTE_ARRAY => BytesPage::delta_prefixes(data, values)?,
            _ => BytesPage::plain(data, values)?,
        };
        self.check(&page)?;
        Ok(page)
    }

    fn append_codes(&self, codes: &[u32], out: &mut ViewsOut) {
        let dictionary = self.dictionary.as_ref().expect("invariant: codes come after a dictionary");
        let number = out.buffer(&dictionary.bytes);
        let views = dictionary.views.as_slice();
        if number == 0 {
            out.views.extend(codes.iter().map(|c| views[*c as usize]));
        } else {
            let moved =
                |v: u128| if v as u32 as usize > INLINE_BYTES { v | (number as u128) << 64 } else { v };
            out.views.extend(codes.iter().map(|c| moved(views[*c as usize])));
        }
    }

    fn append_values(&self, page: &BytesPage, places: Places, out: &mut ViewsOut) {
        let list = match places {
            Places::Range(range) => {
                let number = out.buffer(&page.data);
                return out.push_range(page, range, number);
            }
            Places::List(list) | Places::WithNulls(list) => list,
        };
        if list.len() * COPY_BELOW < page.starts.len() {
            list.iter().for_each(|p| match *p {
                NULL_PLACE => out.views.push(0),
                p => out.push_copy(page.value(p as usize)),
            });
        } else {
            let number = out.buffer(&page.data);
            list.iter().for_each(|p| match *p {
                NULL_PLACE => out.views.push(0),
                p => out.push_range(page, p as usize..p as usize + 1, number),
            });
        }
    }

    fn finish(&self, out: &mut ViewsOut, nulls: Option<NullBuffer>) -> Decoded<ArrayRef> {
        let ViewsOut { views, mut buffers, own, own_number } = std::mem::take(out);
        if let Some(number) = own_number {
            buffers[number as usize] = Buffer::from_vec(own);
        }
        Ok(self.array(views, buffers, nulls))
    }
}

impl ViewsOut {
    /// The number of a buffer, which is taken in if it is new. New ones come in the order of rows, so the
    /// last few are enough to look at.
    fn buffer(&mut self, buffer: &Buffer) -> u32 {
        let known =
            self.buffers.iter().rposition(|b| b.as_ptr() == buffer.as_ptr() && b.len() == buffer.len());
        let number = known.unwrap_or_else(|| {
            self.buffers.push(buffer.clone());
            self.buffers.len() - 1
        });
        number as u32
    }

    fn push_range(&mut self, page: &BytesPage, range: std::ops::Range<usize>, number: u32) {
        let data = page.data.as_slice();
        let bounds = &page.starts[range.start..range.end + 1];
        self.views.extend(
            bounds.windows(2).map(|w| view(data, w[0] as usize, (w[1] - page.gap - w[0]) as usize, number)),
        );
    }

    fn push_copy(&mut self, value: &[u8]) {
        if value.len() <= INLINE_BYTES {
            self.views.push(view(value, 0, value.len(), 0));
            return;
        }
        let number = *self.own_number.get_or_insert_with(|| {
            self.buffers.push(Buffer::default());
            self.buffers.len() as u32 - 1
        });
        let start = self.own.len();
        self.own.extend_from_slice(value);
        self.views.push(view(&self.own, start, value.len(), number));
    }
}

/// The view of `data[start..start + length]`, `data` being buffer `number`.
#[inline(always)]
fn view(data: &[u8], start: usize, length: usize, number: u32) -> u128 {
    let head = match data.get(start..start + INLINE_BYTES) {
        Some(bytes) => {
            let low = u64::from_le_bytes(bytes[..8].try_into().expect("invariant: eight bytes"));
            let high = u32::from_le_bytes(bytes[8..].try_into().expect("invariant: four bytes"));
            low as u128 | (high as u128) << 64
        }
        None => {
            let mut bytes = [0; 16];
            let rest = &data[start.min(data.len())..];
            bytes[..rest.len()].copy_from_slice(rest);
            u128::from_le_bytes(bytes)
        }
    };
    if length <= INLINE_BYTES {
        let kept = head & ((1u128 << (8 * length)) - 1);
        length as u128 | kept << 32
    } else {
        let prefix = head as u32 as u128;
        length as u128 | prefix << 32 | (number as u128) << 64 | (start as u128) << 96
    }
}
