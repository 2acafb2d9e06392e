//! Boolean columns.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use bytes::Bytes;
use parquet::basic::Encoding;

use crate::scan::column::chunk::DictionaryBody;
use crate::scan::column::format::{Format, NULL_PLACE, Places};
use crate::scan::column::hybrid::Hybrid;
use crate::scan::column::levels::Validity;
use crate::scan::column::malformed::{Decoded, malformed};

/// Decodes a chunk of booleans.
pub struct Bits;

/// An opened page.
pub enum BitsPage {
    /// One bit each, the least significant first.
    Plain(Bytes),
    Runs(Vec<bool>),
}

impl BitsPage {
    fn get(&self, place: usize) -> bool {
        match self {
            BitsPage::Plain(data) => data[place >> 3] >> (place & 7) & 1 == 1,
            BitsPage::Runs(values) => values[place],
        }
    }
}

impl Format for Bits {
    type Page = BitsPage;
    type Out = Vec<bool>;

    fn knows(&self, encoding: Encoding) -> bool {
        matches!(encoding, Encoding::PLAIN | Encoding::RLE)
    }

    fn set_dictionary(&mut self, _: DictionaryBody) -> Decoded<()> {
        Err(malformed("a dictionary of booleans"))
    }

    fn dictionary(&self) -> Option<&ArrayRef> {
        None
    }

    fn open_page(&self, encoding: Encoding, data: Bytes, values: usize) -> Decoded<BitsPage> {
        if encoding == Encoding::PLAIN {
            if values.div_ceil(8) > data.len() {
                return Err(malformed("fewer values than the page says"));
            }
            return Ok(BitsPage::Plain(data));
        }
        if values == 0 {
            return Ok(BitsPage::Runs(vec![]));
        }
        // Framed as the levels of a V1 page are.
        let (runs, _) = Validity::split_v1(&data)?;
        let mut decoded = vec![];
        Hybrid::parse(runs, 1, values)?.decode_range(0..values, &mut decoded);
        Ok(BitsPage::Runs(decoded.into_iter().map(|v| v == 1).collect()))
    }

    fn append_codes(&self, _: &[u32], _: &mut Vec<bool>) {
        unreachable!("invariant: a dictionary of booleans was refused");
    }

    fn append_values(&self, page: &BitsPage, places: Places, out: &mut Vec<bool>) {
        match places {
            Places::Range(range) => out.extend(range.map(|p| page.get(p))),
            Places::List(list) => out.extend(list.iter().map(|p| page.get(*p as usize))),
            Places::WithNulls(list) => {
                out.extend(list.iter().map(|p| *p != NULL_PLACE && page.get(*p as usize)));
            }
        }
    }

    fn finish(&self, out: &mut Vec<bool>, nulls: Option<NullBuffer>) -> Decoded<ArrayRef> {
        let values = BooleanBuffer::from(out.as_slice());
        out.clear();
        Ok(Arc::new(BooleanArray::new(values, nulls)))
    }
}
