//! The hash of group tables. It lives in memory only, so it may change at any time; it shares no
//! constants with the partition hash, so the groups of one partition spread over all slots.

/// The 128-bit product's halves, xored.
#[inline(always)]
pub(super) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

const SEED: u64 = 0x51a1_5a4d_c3b7_9e2f;
const STEP: u64 = 0xbf58_476d_1ce4_e5b9;

/// Hash of a packed key.
#[inline(always)]
pub(super) fn hash_words<const N: usize>(words: &[u64; N]) -> u64 {
    let mut hash = SEED;
    for word in words {
        hash = fold(hash ^ word, STEP);
    }
    hash
}

/// Hash of a byte string.
#[inline]
pub(super) fn hash_bytes(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<16>();
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(STEP);
    for pair in pairs {
        let pair = u128::from_le_bytes(*pair);
        hash = fold(hash ^ pair as u64, STEP ^ (pair >> 64) as u64);
    }
    if !rest.is_empty() {
        let mut tail = [0u8; 16];
        tail[..rest.len()].copy_from_slice(rest);
        let tail = u128::from_le_bytes(tail);
        hash = fold(hash ^ tail as u64, STEP ^ (tail >> 64) as u64);
    }
    fold(hash, STEP)
}

/// Asks for a slot that will be needed soon.
#[inline(always)]
pub(super) fn prefetch<T>(slots: &[T], index: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program can see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(slots.as_ptr().wrapping_add(index).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (slots, index);
    }
}
