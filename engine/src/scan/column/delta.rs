//! DELTA_BINARY_PACKED integers, and the byte arrays whose lengths are encoded with it.
//!
//! These encodings have no random access, so a page is decoded as a whole when it is opened. Format:
//! <https://parquet.apache.org/docs/file-format/data-pages/encodings/#DELTAENC>.

use crate::scan::column::hybrid::read_varint;
use crate::scan::column::malformed::{Decoded, malformed};
use crate::scan::column::unpack;

/// Decodes `count` integers; returns them and the bytes they took. Sums wrap in 64 bits, as the format
/// wants; callers of 32-bit columns truncate.
pub fn decode(data: &[u8], count: usize) -> Decoded<(Vec<i64>, usize)> {
    let mut at = 0;
    let block = read_varint(data, &mut at)?;
    let miniblocks = read_varint(data, &mut at)?;
    let total = read_varint(data, &mut at)?;
    let first = zigzag(read_varint(data, &mut at)?);
    let valid = miniblocks > 0
        && block > 0
        && block <= 1 << 20
        && block.is_multiple_of(miniblocks)
        && (block / miniblocks).is_multiple_of(8);
    if !valid {
        return Err(malformed("a delta block of an impossible size"));
    }
    if total < count as u64 {
        return Err(malformed("fewer delta values than the page says"));
    }
    let per_miniblock = (block / miniblocks) as usize;
    let mut values = Vec::with_capacity(count);
    if count > 0 {
        values.push(first);
    }
    let mut last = first;
    // A page may hold more values than are asked for; their bytes are passed over too.
    let mut left = (total as usize).saturating_sub(1);
    while left > 0 {
        let min_delta = zigzag(read_varint(data, &mut at)?);
        let widths_at = at;
        at += miniblocks as usize;
        if at > data.len() {
            return Err(malformed("a delta block beyond the end of the page"));
        }
        for m in 0..miniblocks as usize {
            if left == 0 {
                break;
            }
            let width = data[widths_at + m] as u32;
            if width > 64 {
                return Err(malformed("a delta of more than 64 bits"));
            }
            let bytes = (per_miniblock * width as usize).div_ceil(8);
            let here = per_miniblock.min(left);
            let packed = data.get(at..).unwrap_or_default();
            if (here * width as usize).div_ceil(8) > packed.len() {
                return Err(malformed("deltas beyond the end of the page"));
            }
            let wanted = here.min(count - values.len());
            if width <= 32 {
                let mut deltas = [0u32; 64];
                let mut done = 0;
                while done < wanted {
                    let n = (wanted - done).min(deltas.len());
                    unpack::unpack(packed, width, done, &mut deltas[..n]);
                    for delta in &deltas[..n] {
                        last = last.wrapping_add(min_delta).wrapping_add(*delta as i64);
                        values.push(last);
                    }
                    done += n;
                }
            } else {
                for i in 0..wanted {
                    last = last.wrapping_add(min_delta).wrapping_add(get_wide(packed, width, i) as i64);
                    values.push(last);
                }
            }
            at = (at + bytes).min(data.len());
            left -= here;
        }
    }
    Ok((values, at))
}

/// Decodes `count` lengths, none negative; returns them and the bytes they took.
pub fn decode_lengths(data: &[u8], count: usize) -> Decoded<(Vec<u32>, usize)> {
    let (values, used) = decode(data, count)?;
    let lengths = values
        .into_iter()
        .map(|v| u32::try_from(v).map_err(|_| malformed("a string of negative length")))
        .collect::<Decoded<_>>()?;
    Ok((lengths, used))
}

/// Value number `index` of more than 32 bits.
fn get_wide(packed: &[u8], width: u32, index: usize) -> u64 {
    let bit = index * width as usize;
    let mut bytes = [0; 16];
    let rest = packed.get(bit >> 3..).unwrap_or_default();
    let length = rest.len().min(16);
    bytes[..length].copy_from_slice(&rest[..length]);
    let value = u128::from_le_bytes(bytes) >> (bit & 7);
    (value & ((1u128 << width) - 1)) as u64
}

fn zigzag(v: u64) -> i64 {
    (v >> 1) as i64 ^ -((v & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_format() {
        // 128 values a block, 4 miniblocks; 5 values from 1, step 1: all deltas are the minimum.
        let data = [0x80, 0x01, 4, 5, 2, 2, 0, 0, 0, 0];
        assert_eq!(decode(&data, 5).unwrap(), (vec![1, 2, 3, 4, 5], data.len()));
        // 7, 5, 3, 1, 2, 3, 4, 5: minimum delta -2, then 0 0 0 3 3 3 3 in two bits each.
        let mut data = vec![0x80, 0x01, 4, 8, 14, 3, 2, 0, 0, 0, 0b1100_0000, 0b0011_1111];
        data.extend([0; 6]);
        assert_eq!(decode(&data, 8).unwrap(), (vec![7, 5, 3, 1, 2, 3, 4, 5], data.len()));
        for cut in 0..12 {
            assert!(decode(&data[..cut], 8).is_err(), "cut at {cut}");
        }
        assert!(decode(&data, 9).is_err());
    }
}
