//! Rollouts: the state machine and its scheduler.

pub mod work;
