//! How far a build is, and whom it waits for.

use crate::sql;
use std::fmt;

/// How far a build is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// As `pg_stat_progress_create_index` names it; none for what it does not show.
    pub phase: Option<String>,
    /// Blocks done, and in all.
    pub blocks: (u64, u64),
    /// Rows done, and in all.
    pub tuples: (u64, u64),
    /// Whether it waits for another session.
    pub waits: bool,
    /// For whom, where that can be seen.
    pub blocker: Option<Blocker>,
}

/// A session that another one waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// Its process; 0 is a prepared transaction.
    pub pid: i32,
    /// Its role.
    pub user: Option<String>,
    /// Its application.
    pub application: Option<String>,
    /// What it does.
    pub state: Option<String>,
    /// For how many seconds its transaction is open.
    pub age: Option<f64>,
    /// Its last statement, or the beginning of it.
    pub query: Option<String>,
}

impl Progress {
    /// How much of the phase is done, where the phase counts.
    pub fn percent(&self) -> Option<u64> {
        let of = |(done, all): (u64, u64)| (done.min(all) * 100).checked_div(all);
        of(self.tuples).or_else(|| of(self.blocks))
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.waits {
            return match &self.blocker {
                Some(blocker) => write!(f, "waits for {}", blocker.who()),
                None => f.write_str("waits for another session"),
            };
        }
        f.write_str(self.phase.as_deref().unwrap_or("at work"))?;
        let counts = [(self.tuples, "rows"), (self.blocks, "blocks")];
        if let Some(((done, all), what)) = counts.into_iter().find(|((_, all), _)| *all > 0) {
            write!(f, ", {done} of {all} {what}")?;
        }
        match self.percent() {
            Some(percent) => write!(f, " ({percent} %)"),
            None => Ok(()),
        }
    }
}

impl Blocker {
    /// Without its statement.
    pub fn who(&self) -> String {
        if self.pid == 0 {
            return "a prepared transaction (see pg_prepared_xacts)".to_owned();
        }
        format!(
            "pid {}, user {}, application \"{}\", {}, transaction open for {:.0} s",
            self.pid,
            self.user.as_deref().unwrap_or("unknown"),
            self.application.as_deref().unwrap_or_default(),
            self.state.as_deref().unwrap_or("unknown"),
            self.age.unwrap_or_default(),
        )
    }
}

impl Blocker {
    /// For errors, logs and whoever is far away: its statement without the values in it.
    pub fn without_values(&self) -> String {
        let shape = sql::shape(self.query.as_deref().unwrap_or_default());
        if self.pid == 0 || shape.is_empty() {
            return self.who();
        }
        format!("{}, last statement: {shape}", self.who())
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.query.as_deref().unwrap_or_default();
        let query: Vec<&str> = query.split_whitespace().collect();
        f.write_str(&self.who())?;
        if self.pid == 0 || query.is_empty() {
            return Ok(());
        }
        write!(f, ", last statement: {}", query.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_shows_what_it_counts() {
        let progress = Progress {
            phase: Some("building index: scanning table".to_owned()),
            blocks: (50, 200),
            ..Progress::default()
        };
        assert_eq!(
            progress.to_string(),
            "building index: scanning table, 50 of 200 blocks (25 %)"
        );
        let waiting = Progress {
            waits: true,
            ..progress
        };
        assert_eq!(waiting.to_string(), "waits for another session");
    }
}
