//! The file format of the journal: a header, then frames, each with its length and a checksum.
//!
//! ```text
//! file:  "DVTLOG" version(2 bytes)  frame*
//! frame: length(4) checksum(8) payload(length)      little endian; XXH3 over length and payload
//! ```
//!
//! What always holds: what is read is what was written, up to some frame; what follows a frame that is cut off or
//! damaged is not read, because it may depend on it.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

/// How a file begins. The last two bytes are the version of the format.
pub const HEADER: [u8; 8] = *b"DVTLOG\x01\x00";

/// The largest payload: a plan over very many files.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

const LENGTH_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 8;

/// What a frame has beside its payload.
pub const OVERHEAD_BYTES: usize = LENGTH_BYTES + CHECKSUM_BYTES;

/// A frame around a payload. None if the payload is too large.
pub fn frame(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return None;
    }
    let length = (payload.len() as u32).to_le_bytes();
    let mut bytes = Vec::with_capacity(OVERHEAD_BYTES + payload.len());
    bytes.extend(length);
    bytes.extend(checksum(length, payload).to_le_bytes());
    bytes.extend(payload);
    Some(bytes)
}

/// What is readable of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Frames<'a> {
    pub payloads: Vec<&'a [u8]>,
    /// Bytes up to the end of the last frame.
    pub end: usize,
    /// Why nothing is read after that; none if nothing is there.
    pub problem: Option<&'static str>,
}

/// Reads a file's bytes, as far as they are sound.
pub fn read(file: &[u8]) -> Frames<'_> {
    let mut frames = Frames { payloads: vec![], end: 0, problem: None };
    if !file.starts_with(&HEADER) {
        frames.problem = Some("it does not begin as such a file does, or is of another version");
        return frames;
    }
    frames.end = HEADER.len();
    loop {
        let rest = &file[frames.end..];
        if rest.is_empty() {
            return frames;
        }
        match read_frame(rest) {
            Ok(payload) => {
                frames.end += OVERHEAD_BYTES + payload.len();
                frames.payloads.push(payload);
            }
            Err(problem) => {
                frames.problem = Some(problem);
                return frames;
            }
        }
    }
}

fn read_frame(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let cut_off = "its end is cut off";
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or(cut_off)?;
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(cut_off)?;
    let bytes = u32::from_le_bytes(*length) as usize;
    if bytes > PAYLOAD_BYTES_MAX {
        return Err("a frame has an impossible length");
    }
    let payload = rest.get(..bytes).ok_or(cut_off)?;
    match u64::from_le_bytes(*sum) == checksum(*length, payload) {
        true => Ok(payload),
        false => Err("a checksum does not fit"),
    }
}

fn checksum(length: [u8; LENGTH_BYTES], payload: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::new();
    hasher.write(&length);
    hasher.write(payload);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOADS: [&[u8]; 3] = [b"first", b"", b"the third"];

    fn file() -> Vec<u8> {
        let frames = PAYLOADS.iter().flat_map(|p| frame(p).unwrap());
        HEADER.into_iter().chain(frames).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let file = file();
        let frames = read(&file);
        assert_eq!(frames, Frames { payloads: PAYLOADS.to_vec(), end: file.len(), problem: None });
    }

    #[test]
    fn wherever_it_is_cut_off_what_comes_before_is_read() {
        let file = file();
        for length in 0..file.len() {
            let frames = read(&file[..length]);
            assert!(frames.payloads.len() < 3 && frames.end <= length);
            assert_eq!(frames.payloads, PAYLOADS[..frames.payloads.len()]);
            assert_eq!(frames.problem.is_none(), length > 0 && frames.end == length, "cut to {length}");
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_file_there() {
        let whole = file();
        for bit in 0..whole.len() * 8 {
            let mut file = whole.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            let frames = read(&file);
            assert!(frames.problem.is_some(), "bit {bit}");
            assert!(frames.end <= bit / 8, "bit {bit}: {frames:?}");
            assert_eq!(frames.payloads, PAYLOADS[..frames.payloads.len()]);
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut file = HEADER.to_vec();
        file.extend(u32::MAX.to_le_bytes());
        file.extend([0; 100]);
        assert_eq!(read(&file).problem, Some("a frame has an impossible length"));
        assert!(frame(&vec![0; PAYLOAD_BYTES_MAX + 1]).is_none());
    }
}
