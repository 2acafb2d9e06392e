//! Parquet's hybrid of run-length and bit-packed encoding: dictionary codes, levels, booleans.
//!
//! The run headers are read once, when a page is opened; after that any range or any list of values can
//! be had without touching the others. Format:
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>.

use std::ops::Range;

use bytes::Bytes;

use crate::scan::column::malformed::{Decoded, Malformed, malformed};
use crate::scan::column::unpack;

/// The values of one page, still encoded.
#[derive(Debug)]
pub struct Hybrid {
    data: Bytes,
    width: u32,
    runs: Vec<Run>,
    length: usize,
}

/// Values `first..` up to the next run's first.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: u32,
    kind: RunKind,
}

#[derive(Debug, Clone, Copy)]
enum RunKind {
    Repeated(u32),
    /// Packed from this byte on.
    Packed(u32),
}

impl Hybrid {
    /// Reads the run headers of `length` values of `width` bits; `data` may go on behind them.
    pub fn parse(data: Bytes, width: u32, length: usize) -> Decoded<Hybrid> {
        if width > 32 {
            return Err(malformed("a bit width above 32"));
        }
        if u32::try_from(length).is_err() || u32::try_from(data.len()).is_err() {
            return Err(malformed("a page of more than 4 GiB"));
        }
        let value_bytes = width.div_ceil(8) as usize;
        let mut runs = vec![];
        let (mut at, mut first) = (0, 0);
        while first < length {
            if width == 0 && at == data.len() {
                // One distinct value needs no bits; some writers then leave out the runs.
                runs.push(Run { first: first as u32, kind: RunKind::Repeated(0) });
                break;
            }
            let header = read_varint(&data, &mut at)?;
            if header & 1 == 1 {
                let groups = (header >> 1) as usize;
                let values = groups.saturating_mul(8).min(length - first);
                // The last group may have been cut where its values end.
                let needed = (values * width as usize).div_ceil(8);
                if needed > data.len() - at {
                    return Err(malformed("bit-packed values beyond the end of the page"));
                }
                if values > 0 {
                    runs.push(Run { first: first as u32, kind: RunKind::Packed(at as u32) });
                }
                at = at.saturating_add(groups.saturating_mul(width as usize)).min(data.len());
                first += values;
            } else {
                let values = ((header >> 1) as usize).min(length - first);
                let bytes =
                    data.get(at..at + value_bytes).ok_or(malformed("a run beyond the end of the page"))?;
                let mut value = [0; 4];
                value[..value_bytes].copy_from_slice(bytes);
                let value = u32::from_le_bytes(value);
                at += value_bytes;
                if width < 32 && value >> width != 0 {
                    return Err(malformed("a run of a value wider than its bit width"));
                }
                if values > 0 {
                    runs.push(Run { first: first as u32, kind: RunKind::Repeated(value) });
                }
                first += values;
            }
        }
        Ok(Hybrid { data, width, runs, length })
    }

    /// Appends a range of the values. Returns an upper bound of them.
    pub fn decode_range(&self, range: Range<usize>, out: &mut Vec<u32>) -> u32 {
        let mut any = 0;
        let mut at = range.start;
        let mut run = self.run_of(at);
        while at < range.end {
            let end = self.run_end(run).min(range.end);
            match self.runs[run].kind {
                RunKind::Repeated(value) => {
                    any |= value;
                    out.resize(out.len() + end - at, value);
                }
                RunKind::Packed(byte) => {
                    let from = at - self.runs[run].first as usize;
                    let start = out.len();
                    out.resize(start + end - at, 0);
                    any |= unpack::unpack(&self.data[byte as usize..], self.width, from, &mut out[start..]);
                }
            }
            at = end;
            run += 1;
        }
        any
    }

    /// Appends the values at ascending positions. Returns an upper bound of them.
    pub fn decode_at(&self, positions: &[u32], out: &mut Vec<u32>) -> u32 {
        let Some(&start) = positions.first() else {
            return 0;
        };
        out.reserve(positions.len());
        let mut any = 0;
        let mut run = self.run_of(start as usize);
        let mut rest = positions;
        while let Some(&next) = rest.first() {
            while self.run_end(run) <= next as usize {
                run += 1;
            }
            let end = self.run_end(run);
            let length = rest.iter().position(|p| *p as usize >= end).unwrap_or(rest.len());
            let (here, after) = rest.split_at(length);
            match self.runs[run].kind {
                RunKind::Repeated(value) => {
                    any |= value;
                    out.resize(out.len() + here.len(), value);
                }
                RunKind::Packed(byte) => {
                    let packed = &self.data[byte as usize..];
                    let first = self.runs[run].first;
                    out.extend(here.iter().map(|p| {
                        let value = unpack::get(packed, self.width, (p - first) as usize);
                        any |= value;
                        value
                    }));
                }
            }
            rest = after;
        }
        any
    }

    /// The one value that all have, if the runs say so at once.
    pub fn constant(&self) -> Option<u32> {
        match self.runs.as_slice() {
            [Run { kind: RunKind::Repeated(value), .. }] => Some(*value),
            _ => None,
        }
    }

    fn run_of(&self, position: usize) -> usize {
        self.runs.partition_point(|r| r.first as usize <= position).saturating_sub(1)
    }

    fn run_end(&self, run: usize) -> usize {
        self.runs.get(run + 1).map_or(self.length, |r| r.first as usize)
    }
}

/// Reads an unsigned LEB128 number and moves `at` behind it.
pub fn read_varint(data: &[u8], at: &mut usize) -> Decoded<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *data.get(*at).ok_or(Malformed("a number beyond the end of the page"))?;
        *at += 1;
        value |= ((byte & 0x7f) as u64) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(malformed("a number of more than 64 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_packed_values() {
        // 10 times 3, then 16 values 0..8,0..8 of 3 bits, then 5 times 1.
        let packed = [0b1000_1000, 0b1100_0110, 0b1111_1010];
        let mut data = vec![20, 3, 5];
        data.extend(packed);
        data.extend(packed);
        data.extend([10, 1]);
        let expected: Vec<u32> = [3; 10].into_iter().chain(0..8).chain(0..8).chain([1; 5]).collect();
        let hybrid = Hybrid::parse(data.clone().into(), 3, 31).unwrap();
        for from in 0..31 {
            for to in from..=31 {
                let mut out = vec![];
                hybrid.decode_range(from..to, &mut out);
                assert_eq!(out, expected[from..to]);
                let positions: Vec<u32> = (from as u32..to as u32).step_by(3).collect();
                out.clear();
                hybrid.decode_at(&positions, &mut out);
                let wanted: Vec<u32> = positions.iter().map(|p| expected[*p as usize]).collect();
                assert_eq!(out, wanted);
            }
        }
        for cut in 0..data.len() {
            assert!(Hybrid::parse(data[..cut].to_vec().into(), 3, 31).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn no_bits_no_runs() {
        let hybrid = Hybrid::parse(Bytes::new(), 0, 5).unwrap();
        assert_eq!(hybrid.constant(), Some(0));
        assert!(Hybrid::parse(Bytes::new(), 1, 5).is_err());
        assert!(Hybrid::parse(Bytes::from_static(&[255; 20]), 1, 5).is_err());
    }
}
