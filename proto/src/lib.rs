//! The wire: package `confiture.v1`, generated, and its conversions to and from the core.
//!
//! Generated types stop at [`convert`]; nothing beyond the gRPC handlers sees them.

pub mod convert;
mod reason;

pub use reason::reason;

/// The generated types, clients and servers of `confiture.v1`.
#[expect(missing_docs, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("confiture.v1");

    /// The encoded descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("confiture_v1");
}
