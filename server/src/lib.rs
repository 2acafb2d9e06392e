//! The engine on the network. Nothing is here yet: one machine comes first.
