//! Coordinator.

pub mod store;
