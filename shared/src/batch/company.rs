//! Whether applications are at work on the server, and how long batches may then be.
//!
//! A transaction of theirs often finds the core that it needs at work on a statement of a batch, and waits until that
//! statement ends or the kernel's next tick. So what they feel is how long one statement works, more than how often one does.
//! Measured beside 200 transactions a second on two cores, five rounds in turn, medians of their 99th percentiles: alone
//! 5.4 ms; beside batches of 1 ms that ran half of the time 5.0 ms, of 1 ms for four fifths of it 5.4 ms, of 1.5 ms for half of
//! it 6.4 ms.

use super::size::TARGET;
use std::fmt;
use std::time::Duration;

/// The time of a batch's rows beside applications: some hundred of them.
pub const SHORT_TARGET: Duration = Duration::from_millis(1);

/// They are gone after so long without one: who comes every second or two does not send the size up and down.
const QUIET: Duration = Duration::from_secs(5);

/// Whether applications are at work on the server. Until it is known they are taken to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Company {
    seen: Seen,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Seen {
    /// Nobody has looked yet.
    #[default]
    Nothing,
    /// So many sessions at work at the last look that found any.
    Sessions { count: u32, at: Duration },
    /// A look could not see.
    Hidden,
    /// Nobody for long enough.
    Nobody,
}

impl Company {
    /// So many sessions of others were at work within the last second; `None` when that could not be seen. `now` is the time
    /// since any start.
    pub fn observe(&mut self, sessions: Option<u32>, now: Duration) {
        self.seen = match (sessions, self.seen) {
            (None, _) => Seen::Hidden,
            (Some(0), Seen::Sessions { count, at }) if now.saturating_sub(at) < QUIET => {
                Seen::Sessions { count, at }
            }
            (Some(0), _) => Seen::Nobody,
            (Some(count), _) => Seen::Sessions { count, at: now },
        };
    }

    /// Whether batches are kept short for them.
    pub fn is_there(&self) -> bool {
        self.seen != Seen::Nobody
    }

    /// The time of a batch's rows where nobody says otherwise.
    pub fn target(&self) -> Duration {
        if self.is_there() { SHORT_TARGET } else { TARGET }
    }
}

/// Why batches are short; nothing where they are not.
impl fmt::Display for Company {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.seen {
            Seen::Nothing | Seen::Nobody => Ok(()),
            Seen::Sessions { count: 1, .. } => f.write_str("short batches beside 1 active session"),
            Seen::Sessions { count, .. } => write!(f, "short batches beside {count} active sessions"),
            Seen::Hidden => f.write_str("short batches beside what cannot be seen"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(looks: &[(Option<u32>, u64)]) -> Company {
        let mut company = Company::default();
        for (sessions, second) in looks {
            company.observe(*sessions, Duration::from_secs(*second));
        }
        company
    }

    #[test]
    fn who_is_not_seen_yet_or_cannot_be_seen_is_taken_to_be_there() {
        assert_eq!(after(&[]).target(), SHORT_TARGET);
        assert_eq!(after(&[(Some(0), 0), (None, 1)]).target(), SHORT_TARGET);
        assert_eq!(after(&[(Some(0), 0)]).target(), TARGET);
        assert_eq!(after(&[(None, 0), (Some(0), 1)]).target(), TARGET);
    }

    #[test]
    fn company_leaves_after_five_quiet_seconds() {
        let quiet = |seconds: u64| {
            let looks: Vec<_> = (1..=seconds).map(|second| (Some(0), second)).collect();
            after(&[&[(Some(4), 0)], &looks[..]].concat())
        };
        assert!(quiet(4).is_there());
        assert!(!quiet(5).is_there());
        assert_eq!(quiet(4).to_string(), "short batches beside 4 active sessions");
        assert_eq!(quiet(5).to_string(), "");
    }
}
