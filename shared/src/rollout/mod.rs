//! Rollouts: the state machine and its scheduler.
//!
//! | module | owns |
//! |---|---|
//! | [`bundle`] | the files of a set as they travel |
//! | [`selector`] | which databases |
//! | [`policy`] | the limits |
//! | [`work`] | what is asked of an agent about one database, and what it answers |
//! | [`message`] | the whole conversation of agent and coordinator |
//! | [`view`] | what people and programs read |
//! | [`time`] | moments |

pub mod bundle;
pub mod message;
pub mod policy;
pub mod selector;
pub mod time;
pub mod view;
pub mod work;

pub use bundle::Bundle;
pub use policy::Policy;
pub use selector::Selector;
pub use time::Time;
