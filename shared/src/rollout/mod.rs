//! Rollouts: a set, a selection of the fleet, limits; the state machine, and the scheduler that decides which database
//! is next. Pure: what happens and what time it is come in as values, what is to be written and said goes out.
//!
//! | module | owns |
//! |---|---|
//! | [`spec`], [`bundle`], [`selector`], [`policy`] | what a rollout is made of |
//! | [`waves`] | which databases come first |
//! | [`assignment`] | one database of a rollout, and its states |
//! | [`phase`], [`course`] | the rollout as a whole, and its states |
//! | [`transition`], [`timeline`] | what its time went into |
//! | [`control`] | what operators may ask of it |
//! | [`undo`] | what takes a rollout back |
//! | [`tally`] | how many databases are where |
//! | [`machine`] | one rollout, and the only function that changes it |
//! | [`event`] | what can happen to it, and what follows |
//! | [`backoff`] | how long to wait after an error |
//! | [`fleet`] | databases and agents, and identity conflicts |
//! | [`drain`] | agents that get no new work |
//! | [`forget`] | databases that are gone for good |
//! | [`release`] | which versions work together |
//! | [`gate`] | why a database waits |
//! | [`board`], [`decision`] | the scheduler: what is to be done next |
//! | [`book`] | all that the leader knows, in memory |
//! | [`instruct`] | what agents have to be told |
//! | [`invariant`] | what must always hold |
//! | [`work`], [`message`] | what coordinator and agents say to each other |
//! | [`view`], [`show`] | what people and programs read |
//! | [`time`] | moments |

pub mod assignment;
pub mod backoff;
pub mod board;
pub mod book;
pub mod bundle;
pub mod control;
pub mod course;
pub mod decision;
pub mod drain;
pub mod event;
pub mod fleet;
pub mod forget;
pub mod gate;
pub mod instruct;
pub mod invariant;
pub mod machine;
pub mod message;
pub mod phase;
#[cfg(test)]
mod planted;
pub mod policy;
pub mod release;
#[cfg(test)]
mod sample;
pub mod selector;
pub mod show;
#[cfg(test)]
mod simulation;
pub mod spec;
mod spread;
pub mod standing;
pub mod story;
pub mod tally;
pub mod time;
pub mod timeline;
pub mod transition;
pub mod undo;
pub mod view;
pub mod waves;
pub mod work;

pub use assignment::Assignment;
pub use book::Book;
pub use bundle::Bundle;
pub use control::Verb;
pub use course::Course;
pub use event::{Effect, Event};
pub use fleet::Fleet;
pub use gate::Blocked;
pub use machine::Rollout;
pub use phase::{Pause, Phase, Why};
pub use policy::Policy;
pub use selector::Selector;
pub use spec::Spec;
pub use time::Time;
