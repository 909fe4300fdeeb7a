//! Indexes built and dropped outside a transaction: the machine of [`shared::index`] with its effects.
//!
//! ```text
//! observe --> decide --> record as begun --> adopt | cancel | drop | build --> observe --> ..
//!                |                                                                |
//!                +--refused, or done already                                     +--publish: rename and record in one
//! ```
//! | module | owns |
//! |---|---|
//! | `observe` | what the catalog says about an index, and what a definition means there |
//! | `concurrent` | one statement outside a transaction: its connection, its end, what it waits for |
//! | `create`, `parts`, `remove` | an index to be there, one of a partitioned table, one to be gone |
//! | `rebuild` | indexes to be built anew |

mod concurrent;
mod create;
mod observe;
mod parts;
mod rebuild;
mod remove;

pub(crate) use concurrent::must_be_unlimited;
pub(crate) use observe::worker as build_at_work;

use super::{Part, Place};
use crate::error::Error;
use crate::run::Run;
use shared::index::Work;

pub(super) async fn run(run: &mut Run<'_>, place: Place<'_>, part: Part, work: &Work) -> Result<(), Error> {
    let done = match work {
        Work::Create(create) => create::run(run, place, part, create).await,
        Work::CreateParts(create) => parts::run(run, place, create).await,
        Work::Remove(remove) => remove::run(run, place, part, remove).await,
        Work::Rebuild(rebuild) => rebuild::run(run, place, rebuild).await,
    };
    run.report(|progress| progress.pace.clear());
    done
}
