//! A session that was ended because it stood in the way, for people.

use crate::sql;
use std::fmt;
use std::time::Duration;

/// A session of a class that may be ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Its process.
    pub pid: i32,
    /// Its role.
    pub user: Option<String>,
    /// Its `application_name`.
    pub application: Option<String>,
    /// How long it had done nothing, in seconds; `None` where our role is not shown that.
    pub idle: Option<f64>,
    /// How long its transaction had been open, in seconds.
    pub age: Option<f64>,
    /// The beginning of its last statement.
    pub query: Option<String>,
    /// From when on such sessions may be ended.
    pub limit: Duration,
}

impl Ended {
    /// Why it was ended.
    pub fn reason(&self) -> String {
        format!(
            "idle in transaction for {:.0} s, and `cancel_blockers` allows to end such sessions after {:.0} s",
            self.idle.unwrap_or_default(),
            self.limit.as_secs_f64()
        )
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query.as_deref().unwrap_or_default();
        write!(
            f,
            "pid {}, user {}, application \"{}\", {}, transaction open for {:.0} s, last statement: {}",
            self.pid,
            self.user.as_deref().unwrap_or("unknown"),
            self.application.as_deref().unwrap_or_default(),
            self.reason(),
            self.age.unwrap_or_default(),
            sql::shape(query)
        )
    }
}
