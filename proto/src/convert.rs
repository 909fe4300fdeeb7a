//! Between the wire and the core.
