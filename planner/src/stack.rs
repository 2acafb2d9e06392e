//! Room for recursion.
//!
//! Planning is recursive, in DataFusion and here, and a query may be deep. Each entry to this crate that
//! works on a user's query runs with a stack large enough for the deepest that the parser lets through; pages
//! that are not touched cost nothing.

/// Left on the stack, it is enough for a query.
const ENOUGH_BYTES: usize = 64 << 20;

/// The size of a new stack.
const STACK_BYTES: usize = 256 << 20;

/// Runs `f` with enough stack.
pub(crate) fn with_room<R>(f: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(ENOUGH_BYTES, STACK_BYTES, f)
}
