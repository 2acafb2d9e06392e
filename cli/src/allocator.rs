//! The binary's allocator, mimalloc, and when it gives memory back to the system.
//!
//! Left alone it does so 10 ms after memory was freed, in the middle of queries, whose next batches then
//! fault the pages in again: 8 % of TPC-H's time was spent in the kernel, clearing pages. So while a query runs
//! freed memory is kept (a tenth more is resident at most), and an idle shell gives it back. Where the user
//! has set a memory limit, it is given back as mimalloc does, so that what is free does not count.

use libmimalloc_sys::{mi_collect, mi_option_set};

/// `mi_option_purge_delay` of mimalloc 2 and 3, which the bindings do not name.
const PURGE_DELAY: i32 = 15;
/// Milliseconds: longer than nearly every query.
const KEEP: std::ffi::c_long = 60_000;

/// Lets the allocator keep what is freed. Call before queries run.
pub fn keep_freed_memory() {
    // SAFETY: the option takes any number, and is read at each purge.
    unsafe { mi_option_set(PURGE_DELAY, KEEP) };
}

/// Gives back what is free now. Call when nothing is running.
pub fn give_back_freed_memory() {
    // SAFETY: may be called at any time.
    unsafe { mi_collect(true) };
}
