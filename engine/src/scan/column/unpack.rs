//! Bit-packed integers: eight at a time, one compiled loop for each width.
//!
//! Values are packed from the least significant bit of each byte upwards. Eight values of width W take W
//! bytes, so value i of a group of eight lies at byte i·W/8, bit i·W mod 8: constants, once W is one.

/// Longest read beyond the bytes of a group of eight.
const SLACK: usize = 8;

/// Value number `index`. `packed` may end within the value's last partial byte group, not before it.
#[inline]
pub fn get(packed: &[u8], width: u32, index: usize) -> u32 {
    let bit = index * width as usize;
    let at = bit >> 3;
    let word = match packed.get(at..at + 8) {
        Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("invariant: eight bytes")),
        None => {
            let mut bytes = [0; 8];
            let rest = packed.get(at..).unwrap_or_default();
            let length = rest.len().min(8);
            bytes[..length].copy_from_slice(&rest[..length]);
            u64::from_le_bytes(bytes)
        }
    };
    ((word >> (bit & 7)) & mask(width)) as u32
}

/// Values `from..from + out.len()`; what lies beyond the end of `packed` reads as zero. Returns the
/// bitwise or of all values: no value is larger.
pub fn unpack(packed: &[u8], width: u32, from: usize, out: &mut [u32]) -> u32 {
    let mut any = 0;
    let head = ((8 - from % 8) % 8).min(out.len());
    let (first, rest) = out.split_at_mut(head);
    for (i, slot) in first.iter_mut().enumerate() {
        *slot = get(packed, width, from + i);
        any |= *slot;
    }
    if rest.is_empty() {
        return any;
    }
    let start = (from + head) / 8 * width as usize;
    let packed = packed.get(start..).unwrap_or_default();
    macro_rules! by_width {
        ($($w:literal)*) => {
            match width {
                0 => { rest.fill(0); 0 }
                $($w => unpack_groups::<$w>(packed, rest),)*
                _ => unreachable!("invariant: widths above 32 were refused"),
            }
        };
    }
    any | by_width!(1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32)
}

fn unpack_groups<const W: usize>(packed: &[u8], out: &mut [u32]) -> u32 {
    let mut any = [0u32; 8];
    let mut at = 0;
    let mut groups = out.chunks_exact_mut(8);
    for group in &mut groups {
        let group: &mut [u32; 8] = group.try_into().expect("invariant: eight values");
        match packed.get(at..at + W + SLACK) {
            Some(bytes) => unpack_eight::<W>(bytes, group),
            None => unpack_eight::<W>(&padded(packed, at), group),
        }
        for (a, v) in any.iter_mut().zip(group) {
            *a |= *v;
        }
        at += W;
    }
    let mut any = any.into_iter().fold(0, |a, b| a | b);
    let last = groups.into_remainder();
    if !last.is_empty() {
        let mut group = [0; 8];
        unpack_eight::<W>(&padded(packed, at), &mut group);
        last.copy_from_slice(&group[..last.len()]);
        any = last.iter().fold(any, |a, b| a | b);
    }
    any
}

#[inline(always)]
fn unpack_eight<const W: usize>(bytes: &[u8], out: &mut [u32; 8]) {
    let bytes = &bytes[..W + SLACK];
    macro_rules! each {
        ($($i:literal)*) => {$(
            let at = $i * W / 8;
            let word = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("invariant: eight bytes"));
            out[$i] = ((word >> ($i * W % 8)) & mask(W as u32)) as u32;
        )*};
    }
    each!(0 1 2 3 4 5 6 7);
}

/// A group at the end of the buffer, with zeros behind it.
fn padded(packed: &[u8], at: usize) -> [u8; 32 + SLACK] {
    let mut bytes = [0; 32 + SLACK];
    let rest = packed.get(at..).unwrap_or_default();
    let length = rest.len().min(bytes.len());
    bytes[..length].copy_from_slice(&rest[..length]);
    bytes
}

#[inline(always)]
fn mask(width: u32) -> u64 {
    (1u64 << width) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(values: &[u32], width: u32) -> Vec<u8> {
        let mut out = vec![0u8; (values.len() * width as usize).div_ceil(8)];
        for (i, v) in values.iter().enumerate() {
            for b in 0..width as usize {
                let bit = i * width as usize + b;
                out[bit / 8] |= ((v >> b & 1) as u8) << (bit % 8);
            }
        }
        out
    }

    #[test]
    fn every_width_from_every_start() {
        for width in 0..=32 {
            let limit = (1u64 << width) - 1;
            let values: Vec<u32> =
                (0..100u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17 & limit) as u32).collect();
            let packed = pack(&values, width);
            for from in 0..values.len() {
                for length in [0, 1, 7, 8, 9, 30, values.len() - from] {
                    let to = (from + length).min(values.len());
                    let mut out = vec![77; to - from];
                    let any = unpack(&packed, width, from, &mut out);
                    assert_eq!(out, values[from..to], "width {width}, from {from}");
                    assert!(out.iter().all(|v| *v <= any));
                }
                assert_eq!(get(&packed, width, from), values[from]);
            }
        }
    }
}
