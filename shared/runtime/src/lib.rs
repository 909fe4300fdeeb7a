//! The few effects that both daemons and the command line need, each in one small module.
//!
//! - [`clock`]: time that runs on while the machine sleeps, and the date;
//! - [`shutdown`]: signals become one cancellation token;
//! - [`telemetry`]: the log on standard error, metrics and traces;
//! - [`files`]: reading a file with an error that says which and why.
//!
//! Nothing here decides anything: values go to the pure core as arguments.

pub mod clock;
pub mod files;
pub mod shutdown;
pub mod telemetry;

pub use clock::{unix_now, unix_seconds};
