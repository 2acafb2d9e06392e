//! Accumulators, one by one.

