//! How a strong lock is got on a table that is in use: not how it is asked for, but how long and how often.
//!
//! Whoever waits for a strong lock makes all who come after it wait as well. So a statement stands in the lock queue for
//! moments only, and what others waited for it is counted.
//!
//! | module | owns |
//! |---|---|
//! | `blocker` | who is in the way, for people |
//! | `ended` | who was in the way and was ended, for people |
//! | `jam` | who waits for whom, as a tree |
//! | `mode` | the locks that our statements take, and what is in their way |
//! | `stall` | how long others have waited behind us of late, and what is left of the budget for it |
//! | `tries` | how long the next try stands in the queue, and how long the pause after it is |

mod blocker;
mod ended;
mod jam;
mod mode;
mod stall;
mod tries;

pub use blocker::{Blocker, Kind, listed};
pub use ended::Ended;
pub use jam::{Jam, Waiting};
pub use mode::Mode;
pub use stall::{STALL_BUDGET, Stall};
pub use tries::{LONGEST_TRY, SHORTEST_TRY, Tries};
