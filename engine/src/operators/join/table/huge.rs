//! Large arrays on large pages.
//!
//! A table of hundreds of megabytes that is read at random misses the processor's page table cache at
//! nearly every access; with pages of 2 MiB instead of 4 KiB it hardly ever does, and is faster to fill.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};

/// Below this the page table cache holds most of it.
const BYTES_MIN: usize = 4 << 20;

/// An empty vector for so many elements.
pub fn with_capacity<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    advise(vec.as_mut_ptr() as usize, vec.capacity() * size_of::<T>());
    vec
}

/// So many zeros, which are not written: the system gives them.
pub fn zeroed<T: ZeroBits>(len: usize) -> Vec<T> {
    let layout = Layout::array::<T>(len).expect("invariant: no build side has as many rows");
    if layout.size() == 0 {
        return vec![];
    }
    // SAFETY: the layout has a size.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    advise(start as usize, layout.size());
    // SAFETY: allocated just now with the layout of `len` elements, all of which are valid as zero bits.
    unsafe { Vec::from_raw_parts(start.cast(), len, len) }
}

/// So many copies of a value.
pub fn filled<T: Copy>(value: T, len: usize) -> Vec<T> {
    let mut vec = with_capacity(len);
    vec.resize(len, value);
    vec
}

/// Types of which all zero bits are a value.
///
/// # Safety
/// That must be so.
pub unsafe trait ZeroBits: Copy {}

// SAFETY: zero is zero.
unsafe impl ZeroBits for u32 {}
// SAFETY: zero is zero.
unsafe impl ZeroBits for u64 {}

/// Asks for large pages for the whole ones within the range. Only advice: nothing depends on it.
#[cfg(target_os = "linux")]
fn advise(start: usize, bytes: usize) {
    use std::ffi::{c_int, c_void};
    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }
    const MADV_HUGEPAGE: c_int = 14;
    const PAGE: usize = 2 << 20;
    if bytes < BYTES_MIN {
        return;
    }
    let first = start.next_multiple_of(PAGE);
    let end = (start + bytes) / PAGE * PAGE;
    if first < end {
        // SAFETY: the pages lie within memory that the vector owns; the advice changes no content.
        unsafe { madvise(first as *mut c_void, end - first, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_start: usize, _bytes: usize) {}
