//! MIN and MAX of numbers, dates and times.

use std::sync::Arc;

use arrow::array::types::*;
use arrow::array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit, i256};

use super::seen::Seen;
use super::{Accumulator, Rows, nulled, nulls_of};
use crate::error::Result;

/// An accumulator of the least or the greatest value of a type; none for types that have none here.
pub(in super::super) fn new_min_max(max: bool, logical: &DataType) -> Option<Box<dyn Accumulator>> {
    use DataType as T;
    macro_rules! of {
        ($t:ty) => {
            of!($t, logical.clone())
        };
        ($t:ty, $held:expr) => {
            if max {
                Some(Box::new(MinMax::<$t, true>::new($held)) as Box<dyn Accumulator>)
            } else {
                Some(Box::new(MinMax::<$t, false>::new($held)) as Box<dyn Accumulator>)
            }
        };
    }
    match logical {
        T::Int8 => of!(Int8Type),
        T::Int16 => of!(Int16Type),
        T::Int32 => of!(Int32Type),
        T::Int64 => of!(Int64Type),
        T::UInt8 => of!(UInt8Type),
        T::UInt16 => of!(UInt16Type),
        T::UInt32 => of!(UInt32Type),
        T::UInt64 => of!(UInt64Type),
        T::Float32 => of!(Float32Type),
        T::Float64 => of!(Float64Type),
        T::Decimal32(_, _) => of!(Decimal32Type),
        T::Decimal64(_, _) => of!(Decimal64Type),
        T::Decimal128(p, s) if *p <= 18 => of!(Decimal64Type, T::Decimal64(*p, *s)),
        T::Decimal128(_, _) => of!(Decimal128Type),
        T::Decimal256(_, _) => of!(Decimal256Type),
        T::Date32 => of!(Date32Type),
        T::Date64 => of!(Date64Type),
        T::Time32(TimeUnit::Second) => of!(Time32SecondType),
        T::Time32(_) => of!(Time32MillisecondType),
        T::Time64(TimeUnit::Microsecond) => of!(Time64MicrosecondType),
        T::Time64(_) => of!(Time64NanosecondType),
        T::Timestamp(TimeUnit::Second, _) => of!(TimestampSecondType),
        T::Timestamp(TimeUnit::Millisecond, _) => of!(TimestampMillisecondType),
        T::Timestamp(TimeUnit::Microsecond, _) => of!(TimestampMicrosecondType),
        T::Timestamp(TimeUnit::Nanosecond, _) => of!(TimestampNanosecondType),
        T::Duration(TimeUnit::Second) => of!(DurationSecondType),
        T::Duration(TimeUnit::Millisecond) => of!(DurationMillisecondType),
        T::Duration(TimeUnit::Microsecond) => of!(DurationMicrosecondType),
        T::Duration(TimeUnit::Nanosecond) => of!(DurationNanosecondType),
        T::Interval(IntervalUnit::YearMonth) => of!(IntervalYearMonthType),
        _ => None,
    }
}

/// The best value by group; a state is the value.
struct MinMax<T: ArrowPrimitiveType, const MAX: bool> {
    /// The type in which values are held and leave: Decimal64 for a Decimal128 of up to 18 digits.
    held: DataType,
    best: Vec<T::Native>,
    seen: Seen,
}

impl<T: ArrowPrimitiveType<Native: Canonical>, const MAX: bool> MinMax<T, MAX> {
    /// Worse than, or equal to, every value.
    const WORST: T::Native = if MAX { T::Native::MIN_TOTAL_ORDER } else { T::Native::MAX_TOTAL_ORDER };

    fn new(held: DataType) -> Self {
        MinMax { held, best: vec![], seen: Seen::default() }
    }

    #[inline(always)]
    fn better(a: T::Native, b: T::Native) -> T::Native {
        let b = b.canonical();
        if MAX == a.is_lt(b) { b } else { a }
    }

    fn held(&self, array: &ArrayRef) -> Result<ArrayRef> {
        let same = std::mem::discriminant(array.data_type()) == std::mem::discriminant(&self.held);
        Ok(if same { array.clone() } else { cast(array, &self.held)? })
    }
}

impl<T: ArrowPrimitiveType<Native: Canonical>, const MAX: bool> Accumulator for MinMax<T, MAX> {
    fn update(&mut self, rows: &Rows, args: &[ArrayRef]) -> Result<()> {
        if self.best.len() < rows.groups {
            self.best.resize(rows.groups, Self::WORST);
        }
        let array = self.held(&args[0])?;
        let array = array.as_primitive::<T>();
        let (values, best) = (array.values(), &mut self.best);
        match (rows.ids, nulls_of(array)) {
            (None, None) => {
                self.seen.all(rows);
                if let Some(found) = values.iter().copied().reduce(Self::better) {
                    best[0] = Self::better(best[0], found);
                }
            }
            (None, Some(nulls)) => {
                self.seen.marks(rows.groups)[0] |= nulls.null_count() < nulls.len();
                for i in nulls.valid_indices() {
                    best[0] = Self::better(best[0], values[i]);
                }
            }
            (Some(ids), None) => {
                self.seen.all(rows);
                for (id, value) in ids.iter().zip(values) {
                    let best = &mut best[*id as usize];
                    *best = Self::better(*best, *value);
                }
            }
            (Some(ids), Some(nulls)) => {
                let marks = self.seen.marks(rows.groups);
                for i in nulls.valid_indices() {
                    let id = ids[i] as usize;
                    best[id] = Self::better(best[id], values[i]);
                    marks[id] = true;
                }
            }
        }
        Ok(())
    }

    fn merge(&mut self, rows: &Rows, states: &[ArrayRef]) -> Result<()> {
        self.update(rows, states)
    }

    fn take_states(&mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let mut best = std::mem::take(&mut self.best);
        best.resize(groups, Self::WORST);
        let array = PrimitiveArray::<T>::new(best.into(), self.seen.take(groups));
        Ok(vec![Arc::new(array.with_data_type(self.held.clone()))])
    }

    fn row_states(
        &self,
        args: &[ArrayRef],
        filter: Option<&BooleanArray>,
        _rows: usize,
    ) -> Result<Option<Vec<ArrayRef>>> {
        Ok(Some(vec![nulled(&self.held(&args[0])?, filter)?]))
    }

    fn memory_bytes(&self) -> usize {
        self.best.capacity() * size_of::<T::Native>() + self.seen.memory_bytes()
    }
}

/// A value in the one form that its total order knows as SQL's: NaN, whatever its sign, is the greatest.
trait Canonical: ArrowNativeTypeOp {
    fn canonical(self) -> Self {
        self
    }
}

impl Canonical for i8 {}
impl Canonical for i16 {}
impl Canonical for i32 {}
impl Canonical for i64 {}
impl Canonical for i128 {}
impl Canonical for u8 {}
impl Canonical for u16 {}
impl Canonical for u32 {}
impl Canonical for u64 {}
impl Canonical for i256 {}

impl Canonical for f32 {
    #[inline(always)]
    fn canonical(self) -> Self {
        if self.is_nan() { f32::NAN } else { self }
    }
}

impl Canonical for f64 {
    #[inline(always)]
    fn canonical(self) -> Self {
        if self.is_nan() { f64::NAN } else { self }
    }
}
