//! Who is in the way, for people.

use crate::sql;
use std::fmt;

/// What kind of holder it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A session.
    Session,
    /// A vacuum by PostgreSQL itself: it gives way to whoever waits for longer than `deadlock_timeout`.
    Autovacuum,
    /// One that prevents the wraparound of transaction ids: it gives way to nobody.
    Wraparound,
    /// A prepared transaction: it has no process.
    Prepared,
}

/// Somebody who holds a lock that is in the way.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// What it is.
    pub kind: Kind,
    /// Its process; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// Its role.
    pub user: Option<String>,
    /// Its `application_name`.
    pub application: Option<String>,
    /// Its state.
    pub state: Option<String>,
    /// How long its transaction has been open, in seconds.
    pub age: Option<f64>,
    /// The beginning of its last statement; the gid of a prepared transaction.
    pub query: Option<String>,
}

impl Kind {
    /// As SQL spells it.
    pub fn from_sql(text: &str) -> Self {
        match text {
            "prepared" => Self::Prepared,
            "wraparound" => Self::Wraparound,
            "autovacuum" => Self::Autovacuum,
            _ => Self::Session,
        }
    }
}

impl Blocker {
    /// For errors, logs and whoever is far away: its statement without the values in it.
    pub fn without_values(&self) -> String {
        self.text(&sql::shape(self.query.as_deref().unwrap_or_default()))
    }

    /// `statement`: the last one of a session.
    fn text(&self, statement: &str) -> String {
        let query = self.query.as_deref().unwrap_or_default();
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        let age = self.age.unwrap_or_default().max(0.0);
        let pid = self.pid.unwrap_or_default();
        match self.kind {
            Kind::Prepared => format!(
                "a prepared transaction, prepared {age:.0} s ago: end it with COMMIT PREPARED or ROLLBACK PREPARED '{query}'"
            ),
            Kind::Autovacuum if query.starts_with("autovacuum") => {
                format!("pid {pid}, {query}, for {age:.0} s")
            }
            Kind::Autovacuum => format!("pid {pid}, an autovacuum"),
            Kind::Wraparound => {
                format!("pid {pid}, {query}, for {age:.0} s: let it end, it gives way to nobody")
            }
            Kind::Session => format!(
                "pid {pid}, user {}, application \"{}\", {}, transaction open for {age:.0} s, last statement: {statement}",
                self.user.as_deref().unwrap_or("unknown"),
                self.application.as_deref().unwrap_or_default(),
                self.state.as_deref().unwrap_or("unknown"),
            ),
        }
    }
}

/// For an operator at the database: its statement as it is.
impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query.as_deref().unwrap_or_default();
        f.write_str(&self.text(&query.split_whitespace().collect::<Vec<_>>().join(" ")))
    }
}

/// Several of them in one line, without values.
pub fn listed(blockers: &[Blocker]) -> String {
    let blockers: Vec<String> = blockers.iter().map(Blocker::without_values).collect();
    blockers.join("; ")
}
