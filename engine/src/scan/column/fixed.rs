//! Columns of numbers: values of a fixed width, as 32, 64 or 128 bits each.
//!
//! Floats are moved about as the integers of their bits. Decimals of up to 18 digits become Decimal64
//! from whatever they are stored as, larger ones Decimal128.

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};
use bytes::Bytes;
use parquet::basic::Encoding;

use crate::scan::column::byte_views::BytesPage;
use crate::scan::column::chunk::DictionaryBody;
use crate::scan::column::delta;
use crate::scan::column::format::{Format, NULL_PLACE, Places};
use crate::scan::column::malformed::{Decoded, malformed};

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// INT32 or FLOAT.
    Bytes4,
    /// INT64 or DOUBLE.
    Bytes8,
    /// FIXED_LEN_BYTE_ARRAY of a decimal: this many bytes, big-endian.
    BigEndian(usize),
    /// INT96: nanoseconds of the day, then the Julian day.
    Int96,
}

/// A number of the width that the array has.
pub trait Slot: ArrowNativeType + Default + Send + Sync {
    /// The value at the beginning of `bytes`, which are as many as `stored` takes.
    fn read(stored: Stored, bytes: &[u8]) -> Self;

    /// A sum of deltas, which wraps.
    fn from_delta(v: i64) -> Self;
}

/// Decodes a chunk of numbers.
pub struct Fixed<T: Slot> {
    stored: Stored,
    /// The physical Arrow type.
    data_type: DataType,
    /// Entries, then a default for null.
    dictionary: Vec<T>,
    dictionary_array: Option<ArrayRef>,
}

/// An opened page.
pub enum FixedPage<T> {
    Plain(Bytes),
    Decoded(Vec<T>),
}

impl Stored {
    fn width(self) -> usize {
        match self {
            Stored::Bytes4 => 4,
            Stored::Bytes8 => 8,
            Stored::BigEndian(n) => n,
            Stored::Int96 => 12,
        }
    }
}

impl<T: Slot> Fixed<T> {
    /// A decoder that makes arrays of a type.
    pub fn new(stored: Stored, data_type: DataType) -> Self {
        Fixed { stored, data_type, dictionary: vec![], dictionary_array: None }
    }

    fn read_plain(&self, data: &[u8], count: usize, out: &mut Vec<T>) {
        let width = self.stored.width();
        let data = &data[..count * width];
        match self.stored {
            // The width is a constant in each arm, so these are block copies.
            Stored::Bytes4 => out.extend(data.chunks_exact(4).map(|b| T::read(Stored::Bytes4, b))),
            Stored::Bytes8 => out.extend(data.chunks_exact(8).map(|b| T::read(Stored::Bytes8, b))),
            stored => out.extend(data.chunks_exact(width).map(|b| T::read(stored, b))),
        }
    }

    fn array(&self, values: Vec<T>, nulls: Option<NullBuffer>) -> Decoded<ArrayRef> {
        let length = values.len();
        let buffer = match self.data_type {
            DataType::Int8 | DataType::UInt8 => {
                Buffer::from_vec(values.iter().map(|v| v.as_usize() as u8).collect::<Vec<u8>>())
            }
            DataType::Int16 | DataType::UInt16 => {
                Buffer::from_vec(values.iter().map(|v| v.as_usize() as u16).collect::<Vec<u16>>())
            }
            _ => Buffer::from_vec(values),
        };
        let data = ArrayData::builder(self.data_type.clone()).len(length).add_buffer(buffer).nulls(nulls);
        Ok(make_array(data.build().map_err(|_| malformed("numbers that do not fit their type"))?))
    }
}

impl<T: Slot> Format for Fixed<T> {
    type Page = FixedPage<T>;
    type Out = Vec<T>;

    fn knows(&self, encoding: Encoding) -> bool {
        match encoding {
            Encoding::PLAIN | Encoding::BYTE_STREAM_SPLIT => true,
            Encoding::DELTA_BINARY_PACKED => matches!(self.stored, Stored::Bytes4 | Stored::Bytes8),
            Encoding::DELTA_BYTE_ARRAY => matches!(self.stored, Stored::BigEndian(_)),
            _ => false,
        }
    }

    fn set_dictionary(&mut self, dictionary: DictionaryBody) -> Decoded<()> {
        let DictionaryBody { entries, data } = dictionary;
        if entries.checked_mul(self.stored.width()).is_none_or(|bytes| bytes > data.len()) {
            return Err(malformed("a dictionary with fewer entries than it says"));
        }
        let mut values = Vec::with_capacity(entries + 1);
        self.read_plain(&data, entries, &mut values);
        self.dictionary_array = Some(self.array(values.clone(), None)?);
        values.push(T::default());
        self.dictionary = values;
        Ok(())
    }

    fn dictionary(&self) -> Option<&ArrayRef> {
        self.dictionary_array.as_ref()
    }

    fn open_page(&self, encoding: Encoding, data: Bytes, values: usize) -> Decoded<FixedPage<T>> {
        let width = self.stored.width();
        if encoding == Encoding::DELTA_BINARY_PACKED {
            let (decoded, _) = delta::decode(&data, values)?;
            // Sums of 32-bit columns wrap in 32 bits.
            let narrow = self.stored == Stored::Bytes4;
            let fit = |v: i64| T::from_delta(if narrow { v as i32 as i64 } else { v });
            return Ok(FixedPage::Decoded(decoded.into_iter().map(fit).collect()));
        }
        if encoding == Encoding::DELTA_BYTE_ARRAY {
            let page = BytesPage::delta_prefixes(data, values)?;
            let read = |i| match page.value(i) {
                value if value.len() == width => Ok(T::read(self.stored, value)),
                _ => Err(malformed("a value of another length than its column's")),
            };
            return Ok(FixedPage::Decoded((0..values).map(read).collect::<Decoded<_>>()?));
        }
        if values.checked_mul(width).is_none_or(|needed| needed > data.len()) {
            return Err(malformed("fewer values than the page says"));
        }
        if encoding == Encoding::PLAIN {
            return Ok(FixedPage::Plain(data));
        }
        // BYTE_STREAM_SPLIT: all first bytes, then all second bytes, ...
        let mut value = [0u8; 16];
        let values = (0..values).map(|i| {
            for (b, byte) in value[..width].iter_mut().enumerate() {
                *byte = data[b * values + i];
            }
            T::read(self.stored, &value[..width])
        });
        Ok(FixedPage::Decoded(values.collect()))
    }

    fn append_codes(&self, codes: &[u32], out: &mut Vec<T>) {
        let dictionary = self.dictionary.as_slice();
        debug_assert!(codes.iter().all(|c| (*c as usize) < dictionary.len()));
        // SAFETY: the caller has checked that codes are at most the number of entries, and the
        // dictionary has one slot more than entries.
        out.extend(codes.iter().map(|c| unsafe { *dictionary.get_unchecked(*c as usize) }));
    }

    fn append_values(&self, page: &FixedPage<T>, places: Places, out: &mut Vec<T>) {
        match page {
            FixedPage::Decoded(values) => match places {
                Places::Range(r) => out.extend_from_slice(&values[r]),
                Places::List(list) => out.extend(list.iter().map(|p| values[*p as usize])),
                Places::WithNulls(list) => {
                    out.extend(list.iter().map(|p| values.get(*p as usize).copied().unwrap_or_default()));
                }
            },
            FixedPage::Plain(data) => {
                let width = self.stored.width();
                let at = |p: u32| T::read(self.stored, &data[p as usize * width..][..width]);
                match places {
                    Places::Range(r) => self.read_plain(&data[r.start * width..], r.len(), out),
                    Places::List(list) => out.extend(list.iter().map(|p| at(*p))),
                    Places::WithNulls(list) => out.extend(list.iter().map(|p| match *p {
                        NULL_PLACE => T::default(),
                        p => at(p),
                    })),
                }
            }
        }
    }

    fn finish(&self, out: &mut Vec<T>, nulls: Option<NullBuffer>) -> Decoded<ArrayRef> {
        self.array(std::mem::take(out), nulls)
    }
}

impl Slot for i32 {
    #[inline(always)]
    fn read(stored: Stored, bytes: &[u8]) -> i32 {
        match stored {
            Stored::Bytes4 => i32::from_le_bytes(bytes.try_into().expect("invariant: four bytes")),
            _ => wide(stored, bytes) as i32,
        }
    }

    fn from_delta(v: i64) -> i32 {
        v as i32
    }
}

impl Slot for i64 {
    #[inline(always)]
    fn read(stored: Stored, bytes: &[u8]) -> i64 {
        match stored {
            Stored::Bytes4 => i32::from_le_bytes(bytes.try_into().expect("invariant: four bytes")) as i64,
            Stored::Bytes8 => i64::from_le_bytes(bytes.try_into().expect("invariant: eight bytes")),
            _ => wide(stored, bytes) as i64,
        }
    }

    fn from_delta(v: i64) -> i64 {
        v
    }
}

impl Slot for i128 {
    #[inline(always)]
    fn read(stored: Stored, bytes: &[u8]) -> i128 {
        wide(stored, bytes)
    }

    fn from_delta(v: i64) -> i128 {
        v as i128
    }
}

fn wide(stored: Stored, bytes: &[u8]) -> i128 {
    match stored {
        Stored::Bytes4 => i64::read(stored, bytes) as i128,
        Stored::Bytes8 => i64::read(stored, bytes) as i128,
        Stored::BigEndian(n) => {
            let mut value = [if bytes[0] & 0x80 != 0 { 0xff } else { 0 }; 16];
            value[16 - n..].copy_from_slice(&bytes[..n]);
            i128::from_be_bytes(value)
        }
        Stored::Int96 => {
            const JULIAN_DAY_OF_EPOCH: i64 = 2_440_588;
            const NANOS_PER_DAY: i64 = 86_400_000_000_000;
            let nanos = i64::read(Stored::Bytes8, &bytes[..8]);
            let day = u32::from_le_bytes(bytes[8..12].try_into().expect("invariant: four bytes")) as i64;
            // Wraps as Parquet's reader does: years beyond 2262 have no nanoseconds in 64 bits.
            (day - JULIAN_DAY_OF_EPOCH).wrapping_mul(NANOS_PER_DAY).wrapping_add(nanos) as i128
        }
    }
}

/// The physical type of a column of logical type `t` and stored so; none if [`Fixed`] has none.
pub fn physical_type(t: &DataType, stored: Stored) -> Option<DataType> {
    use DataType::*;
    match (t, stored) {
        (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32, Stored::Bytes4) => Some(t.clone()),
        (Date32 | Time32(_) | Float32, Stored::Bytes4) => Some(t.clone()),
        (Int64 | UInt64 | Float64 | Time64(_) | Timestamp(_, _), Stored::Bytes8) => Some(t.clone()),
        (Timestamp(_, _), Stored::Int96) => Some(t.clone()),
        (Decimal128(p, s), Stored::Bytes4 | Stored::Bytes8) if *p <= 18 => Some(Decimal64(*p, *s)),
        // Larger than its precision allows would not fit; the writer chose the shortest that does.
        (Decimal128(p, s), Stored::BigEndian(n)) if *p <= 18 && (1..=8).contains(&n) => {
            Some(Decimal64(*p, *s))
        }
        (Decimal128(_, _), Stored::BigEndian(1..=16) | Stored::Bytes4 | Stored::Bytes8) => Some(t.clone()),
        _ => None,
    }
}
