//! What decoders of the different kinds of columns have in common.

use std::ops::Range;

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use bytes::Bytes;
use parquet::basic::Encoding;

use crate::scan::column::chunk::DictionaryBody;
use crate::scan::column::malformed::Decoded;

/// In a list of places: this row is null.
pub const NULL_PLACE: u32 = u32::MAX;

/// Which values of a page, counted without nulls.
#[derive(Debug, Clone)]
pub enum Places<'a> {
    Range(Range<usize>),
    /// Ascending.
    List(&'a [u32]),
    /// Ascending but for [`NULL_PLACE`], for which a default is taken.
    WithNulls(&'a [u32]),
}

/// How the values of one kind of column are stored, and what becomes of them. Belongs to one column chunk.
pub trait Format: Send {
    /// The values of an opened page, in another encoding than dictionary codes.
    type Page: Send;

    /// Values on their way into an array.
    type Out: Default + Send;

    /// The format has such pages, besides dictionary codes.
    fn knows(&self, encoding: Encoding) -> bool;

    /// Takes the dictionary in; called once, first.
    fn set_dictionary(&mut self, dictionary: DictionaryBody) -> Decoded<()>;

    /// The entries of the dictionary as an array; the same one at each call.
    fn dictionary(&self) -> Option<&ArrayRef>;

    /// Opens a page of `values` values in an encoding that the format knows.
    fn open_page(&self, encoding: Encoding, data: Bytes, values: usize) -> Decoded<Self::Page>;

    /// Appends entries of the dictionary; codes are below its length, or equal to it for null.
    fn append_codes(&self, codes: &[u32], out: &mut Self::Out);

    /// Appends values of a page.
    fn append_values(&self, page: &Self::Page, places: Places, out: &mut Self::Out);

    /// Everything appended, as an array; `out` is empty then.
    fn finish(&self, out: &mut Self::Out, nulls: Option<NullBuffer>) -> Decoded<ArrayRef>;
}
