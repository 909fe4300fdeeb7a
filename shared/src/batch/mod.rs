//! How batches are run without harm: how large, how often, and by how many workers at once.
//!
//! | module | owns |
//! |---|---|
//! | `company` | whether applications are at work, and how short batches are then |
//! | `outlook` | how fast rows are changed, and when they will all be |
//! | `overhead` | what a statement takes whatever its rows |
//! | `gaps` | where a batch ends, without looking for it |
//! | `size` | how many rows the next batch has, from the times of those before |
//! | `sample` | what a probe of the server read, and where health ends |
//! | `signal` | the signals of a server's health, and how a reading is told |
//! | `health` | all readings folded into one level and the reason for it |
//! | `pace` | duty and number of workers, from one health after the other |
//! | `reason` | why the pace is what it is, for people |
//! | `vacuum` | when a relation at work is vacuumed between two batches, and how gently |

mod company;
mod gaps;
mod health;
mod outlook;
mod overhead;
mod pace;
mod reason;
mod sample;
mod signal;
mod size;
mod vacuum;

pub use company::{Company, SHORT_TARGET};
pub use gaps::{End, Gaps};
pub use health::{Cause, Health};
pub use outlook::Outlook;
pub use overhead::Overhead;
pub use pace::{Pace, PaceLimits};
pub use reason::Reason;
pub use sample::{Limits, Sample};
pub use signal::{Harm, Reading, Signal};
pub use size::{FIRST_ROWS, Size, TARGET, first_rows};
pub use vacuum::{Need, VACUUM_SHARE, Vacuum, vacuum_delay, vacuum_gives_way};
