//! How batches are run without harm: how large, how often, and by how many workers at once.
//!
//! | module | owns |
//! |---|---|
//! | `size` | how many rows the next batch has, from the times of those before |

mod size;

pub use size::{FIRST_ROWS, Size, TARGET, first_rows};
