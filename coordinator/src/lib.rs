//! Coordinator.

pub mod leader;
pub mod store;
