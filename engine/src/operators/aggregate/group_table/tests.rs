//! Group tables of every kind against a plain map.

