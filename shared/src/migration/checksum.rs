//! checksum

/// How checksums are made; recorded beside each.
pub const SCHEME: i32 = 1;
