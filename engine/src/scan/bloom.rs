//! A blocked bloom filter: blocks of 256 bits, one bit in each of a block's eight words.
//!
//! One cache line a test. About one foreign key in a hundred passes. The layout is that of Parquet's
//! split-block filters: <https://github.com/apache/parquet-format/blob/master/BloomFilter.md>.

/// Bits of the filter for each key.
const BITS_PER_KEY: u64 = 12;

const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// A set of 64-bit hashes that never forgets one, and sometimes claims one too many.
#[derive(Debug)]
pub struct Bloom {
    blocks: Vec<[u32; 8]>,
}

impl Bloom {
    /// An empty filter with room for `keys` hashes.
    pub fn new(keys: u64) -> Bloom {
        Bloom { blocks: vec![[0; 8]; (keys * BITS_PER_KEY / 256 + 1) as usize] }
    }

    /// The bits, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.blocks.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// The filter of some bits; none if they are not whole blocks, at least one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Bloom> {
        let (words, []) = bytes.as_chunks::<4>() else { return None };
        let (blocks, []) = words.as_chunks::<8>() else { return None };
        let blocks: Vec<[u32; 8]> = blocks.iter().map(|b| b.map(u32::from_le_bytes)).collect();
        (!blocks.is_empty()).then_some(Bloom { blocks })
    }

    /// Takes a hash in.
    pub fn insert(&mut self, hash: u64) {
        let (at, bits) = self.place(hash);
        for (word, bit) in self.blocks[at].iter_mut().zip(bits) {
            *word |= bit;
        }
    }

    /// False only if the hash was never inserted.
    #[inline]
    pub fn contains(&self, hash: u64) -> bool {
        let (at, bits) = self.place(hash);
        self.blocks[at].iter().zip(bits).fold(true, |all, (word, bit)| all & (word & bit != 0))
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, [u32; 8]) {
        let at = ((hash >> 32) * self.blocks.len() as u64) >> 32;
        (at as usize, SALT.map(|s| 1 << ((hash as u32).wrapping_mul(s) >> 27)))
    }
}

/// A hash of an integer in which both halves depend on all bits.
#[inline]
pub fn hash_integer(v: u64) -> u64 {
    let product = (v ^ 0x9e37_79b9_7f4a_7c15) as u128 * 0xa076_1d64_78bd_642f_u128;
    (product >> 64) as u64 ^ product as u64
}
