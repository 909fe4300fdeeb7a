//! The settings file: raw, checked, typed.

pub mod duration;
