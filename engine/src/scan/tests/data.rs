//! Random tables of every type, and random ways to write them.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

/// Small, fast, and the same on every machine (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}

/// How the values of a column are spread.
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// Different values.
    values: u64,
    /// Of a hundred rows, these are null.
    nulls: u64,
    /// The same value for so many rows.
    run: u64,
    sorted: bool,
}

/// One column of each type that a scan decodes itself, and some that it does not.
pub fn table(random: &mut Random, rows: usize) -> RecordBatch {
    let mut fields: Vec<(String, ArrayRef)> = vec![];
    let mut add = |name: &str, array: ArrayRef| fields.push((name.to_string(), array));
    macro_rules! numbers {
        ($name:literal, $array:ty, $native:ty) => {{
            let v = picks(random, rows);
            add($name, Arc::new(v.iter().map(|v| v.map(|v| scatter(v) as $native)).collect::<$array>()))
        }};
    }
    numbers!("i8", Int8Array, i8);
    numbers!("u8", UInt8Array, u8);
    numbers!("i16", Int16Array, i16);
    numbers!("u16", UInt16Array, u16);
    numbers!("i32", Int32Array, i32);
    numbers!("u32", UInt32Array, u32);
    numbers!("i64", Int64Array, i64);
    numbers!("u64", UInt64Array, u64);
    let v = picks(random, rows);
    add("plain_order", Arc::new(v.iter().map(|v| v.map(|v| v as i64)).collect::<Int64Array>()));
    let v = picks(random, rows);
    add("date", Arc::new(v.iter().map(|v| v.map(|v| v as i32 % 20_000)).collect::<Date32Array>()));
    let v = picks(random, rows);
    add("ts", Arc::new(v.iter().map(|v| v.map(|v| scatter(v) >> 8)).collect::<TimestampMicrosecondArray>()));
    let v = picks(random, rows);
    add("f32", Arc::new(v.iter().map(|v| v.map(|v| float(v) as f32)).collect::<Float32Array>()));
    let v = picks(random, rows);
    add("f64", Arc::new(v.iter().map(|v| v.map(float)).collect::<Float64Array>()));
    let v = picks(random, rows);
    add("bool", Arc::new(v.iter().map(|v| v.map(|v| v % 3 == 0)).collect::<BooleanArray>()));
    for (name, precision, scale) in [("d9", 9, 2), ("d15", 15, 2), ("d30", 30, 4)] {
        let v = picks(random, rows);
        let limit = 10i128.pow(precision as u32 - 1);
        let v: Decimal128Array =
            v.iter().map(|v| v.map(|v| (scatter(v) as i128).pow(2) % limit - limit / 3)).collect();
        add(name, Arc::new(v.with_precision_and_scale(precision, scale).unwrap()));
    }
    for name in ["s1", "s2", "s3"] {
        let v = picks(random, rows);
        add(name, Arc::new(v.iter().map(|v| v.map(text)).collect::<StringArray>()));
    }
    let v = picks(random, rows);
    add("bytes", Arc::new(v.iter().map(|v| v.map(|v| text(v).into_bytes())).collect::<BinaryArray>()));
    let v = picks(random, rows);
    let lists = v.iter().map(|v| v.map(|v| (0..v % 4).map(|i| Some(i as i32)).collect::<Vec<_>>()));
    add("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)));
    RecordBatch::try_from_iter_with_nullable(fields.iter().map(|(n, a)| {
        let nullable = a.null_count() > 0 || n.len() % 2 == 0;
        (n, a.clone(), nullable)
    }))
    .unwrap()
}

fn picks(random: &mut Random, rows: usize) -> Vec<Option<u64>> {
    let shape = Shape {
        values: *random.pick(&[1, 2, 7, 60, 300, 5000, 1 << 40]),
        nulls: *random.pick(&[0, 0, 1, 30, 97, 100]),
        run: *random.pick(&[1, 1, 1, 9, 200]),
        sorted: random.below(4) == 0,
    };
    let mut values: Vec<u64> = vec![];
    while values.len() < rows {
        let value = random.below(shape.values);
        values.extend(std::iter::repeat_n(value, (1 + random.below(shape.run)) as usize));
    }
    values.truncate(rows);
    if shape.sorted {
        values.sort_unstable();
    }
    values.into_iter().map(|v| (random.below(100) >= shape.nulls).then_some(v)).collect()
}

/// Another value over the whole range.
fn scatter(v: u64) -> i64 {
    Random(v).next() as i64 >> (v % 50)
}

fn float(v: u64) -> f64 {
    match v % 11 {
        0 => f64::NAN,
        1 => -0.0,
        2 => f64::NEG_INFINITY,
        _ => scatter(v) as f64 / 7.0,
    }
}

fn text(v: u64) -> String {
    match v % 7 {
        0 => String::new(),
        1 => format!("größer als {v}"),
        2 => format!("{}{v}", "x".repeat((v % 300) as usize)),
        _ => format!("v{v}"),
    }
}

/// A way to write a file.
pub fn properties(random: &mut Random, batch: &RecordBatch) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_writer_version(*random.pick(&[WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0]))
        .set_compression(*random.pick(&[
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(ZstdLevel::default()),
            Compression::LZ4_RAW,
            Compression::GZIP(Default::default()),
        ]))
        .set_max_row_group_row_count(Some(*random.pick(&[500, 3000, 20_000])))
        .set_data_page_row_count_limit(*random.pick(&[50, 700, 20_000]))
        .set_write_batch_size(*random.pick(&[16, 128, 1024]))
        .set_dictionary_page_size_limit(*random.pick(&[200, 4000, 1 << 20]))
        .set_statistics_enabled(*random.pick(&[
            EnabledStatistics::None,
            EnabledStatistics::Chunk,
            EnabledStatistics::Page,
        ]))
        .set_dictionary_enabled(random.flip());
    for field in batch.schema().fields() {
        let path = ColumnPath::from(field.name().as_str());
        if random.below(3) == 0 {
            builder = builder.set_column_dictionary_enabled(path.clone(), random.flip());
        }
        if random.below(3) == 0
            && let Some(encoding) = other_encoding(random, field.data_type())
        {
            builder = builder.set_column_encoding(path, encoding);
        }
    }
    builder.build()
}

fn other_encoding(random: &mut Random, t: &DataType) -> Option<Encoding> {
    use DataType::*;
    match t {
        Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Int64 | UInt64 | Date32 | Timestamp(_, _) => {
            Some(*random.pick(&[Encoding::DELTA_BINARY_PACKED, Encoding::BYTE_STREAM_SPLIT]))
        }
        Float32 | Float64 => Some(Encoding::BYTE_STREAM_SPLIT),
        Decimal128(30, _) => Some(Encoding::BYTE_STREAM_SPLIT),
        Decimal128(_, _) => Some(Encoding::DELTA_BINARY_PACKED),
        Utf8 | Binary => Some(*random.pick(&[Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY])),
        Boolean => Some(Encoding::RLE),
        _ => None,
    }
}
