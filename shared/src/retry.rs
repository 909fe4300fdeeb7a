//! Which errors are worth another try: one table for PostgreSQL's SQLSTATE codes.

use serde::{Deserialize, Serialize};

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retryability {
    /// The same again later may succeed.
    Retry,
    /// It will fail again until somebody changes something.
    GiveUp,
    /// It will fail on other databases too, or going on may do harm: stop the rollout.
    StopRollout,
}

/// What a failed statement's SQLSTATE says about trying it again.
///
/// Connection failures (class 08), a server that is starting or stopping (57P0x), lack of resources (class 53),
/// serialisation failures and deadlocks (40001, 40P01), lock timeouts (55P03), and our own `statement_timeout` or
/// cancellation (57014) pass; everything else is about the statement or the data.
/// Source: PostgreSQL documentation, appendix A.
pub fn of_sqlstate(code: &str) -> Retryability {
    match code {
        "40001" | "40P01" | "55P03" | "55006" | "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => {
            Retryability::Retry
        }
        // XX000 comes from poolers that lost their server; a corrupted index (XX002) does not heal.
        "XX000" | crate::sql::IN_USE => Retryability::Retry,
        // Wrong password or role, no such database: class 28 and 3D000 need a person.
        code if code.starts_with("08") || code.starts_with("53") => Retryability::Retry,
        _ => Retryability::GiveUp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_troubles_are_retried_and_mistakes_are_not() {
        for code in ["08006", "53300", "40P01", "55P03", "57P01", "57P03", "25P03"] {
            assert_eq!(of_sqlstate(code), Retryability::Retry, "{code}");
        }
        for code in ["42601", "42P01", "23505", "28P01", "3D000", "XX002", "22012"] {
            assert_eq!(of_sqlstate(code), Retryability::GiveUp, "{code}");
        }
    }
}
