//! What can go wrong on one database, each with its text, its exit code and whether to try again.

use shared::fence::Fence;
use shared::ledger::Conflict;
use shared::plan::Refusal;
use shared::retry::{self, Retryability};
use shared::rollout::work::{Exit, Failure, Identity, Newer};
use shared::sql::{self, REFUSED};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What went wrong. Texts may have several lines; the last ones say what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL or its certificates.
    #[error(transparent)]
    Target(#[from] crate::connect::Error),
    /// No connection.
    #[error("cannot connect to {address}: {why}{}", help(advice.as_deref()))]
    Connect {
        /// Host, port and database.
        address: String,
        /// Why.
        why: String,
        /// What to do.
        advice: Option<String>,
        /// Whether it may pass.
        retry: Retryability,
    },
    /// A statement of ours failed.
    #[error(
        "{doing} failed: {}{}",
        statement_message(source),
        help(statement_advice(source))
    )]
    Statement {
        /// What was being done.
        doing: &'static str,
        /// The server's or the connection's error.
        #[source]
        source: tokio_postgres::Error,
    },
    /// The server took a statement and then said nothing.
    #[error("no answer within {}: the connection was given up", shown(*.0))]
    Silent(Duration),
    /// The role may not create or use the ledger.
    #[error(
        "role {role} may not {what} in database {database}\n  help: let somebody who may run: {}",
        grants(*what, database, role)
    )]
    Forbidden {
        /// What it may not do.
        what: Forbidden,
        /// Quoted.
        role: String,
        /// Quoted.
        database: String,
    },
    /// A statement of the user's failed.
    #[error("{message}")]
    User {
        /// PostgreSQL's message, the place and the statement.
        message: String,
        /// PostgreSQL's code, if the error was the server's.
        code: Option<String>,
        /// Whether another try makes sense.
        retry: Retryability,
    },
    /// Somebody else has the fence. Nothing was changed since.
    #[error("replaced: {by} has taken over this database; nothing was changed after that")]
    Replaced {
        /// Who, for people.
        by: String,
        /// With what.
        newer: Newer,
    },
    /// A store this fleet does not know has a larger fence.
    #[error(
        "another or a restored store has led this database: its fence {theirs} is larger than ours, {ours}, and its store is {store}, not ours\n  help: let the coordinator of that store lead this database; if that store is lost, or ours was rebuilt or restored from a copy, make ours the newer one with `confiture coordinator recover --reason TEXT`"
    )]
    Foreign {
        /// The fence in force.
        theirs: Fence,
        /// Ours.
        ours: Fence,
        /// Its store.
        store: String,
    },
    /// The database is not the one the ledger was made in.
    #[error(
        "this database is not the one its ledger was written in (system identifier and oid are {}/{}, the ledger says {}/{}): it is a clone, a restored copy or an upgraded cluster\n  help: give the right URL if another database was meant; if this copy is to be migrated on its own, or the cluster was upgraded, say so with `confiture ledger accept --reason TEXT`",
        now.system, now.database, then.system, then.database
    )]
    Identity {
        /// As the server says.
        now: Identity,
        /// As the ledger says.
        then: Identity,
    },
    /// A newer program has been here.
    #[error(
        "the ledger in this database has format {found}, and this program knows up to {known}\n  help: use the newer confiture that was here before; nothing was changed"
    )]
    LedgerNewer {
        /// Its format.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// The server is too old.
    #[error("the server has PostgreSQL {0}; 13 or newer is needed")]
    ServerOld(i32),
    /// The files and the ledger do not go together.
    #[error("{conflict}{}", changes(difference.as_deref()))]
    Conflict {
        /// How.
        conflict: Box<Conflict>,
        /// The lines in which the file differs from what was applied.
        difference: Option<String>,
    },
    /// A step cannot be planned here.
    #[error("{}", refusal_message(.0))]
    Refused(#[from] Refusal),
    /// An `assert` did not hold.
    #[error("the assertion does not hold: {0}")]
    Assertion(String),
    /// Rows are not what the expressions say.
    #[error(
        "verification: {differing} of {rows} rows of {table} do not hold what the expressions say\n  help: a trigger or an application writes them otherwise: find and correct them, and run the same command again; or take `verify: true` out"
    )]
    Verification {
        /// Rows looked at.
        rows: u64,
        /// Those that differ.
        differing: u64,
        /// The table, quoted in full.
        table: String,
    },
    /// The user's statements ended our transaction.
    #[error(
        "the statements ended the transaction they run in, so they were no longer protected\n  help: take COMMIT and ROLLBACK out of what they call; see what they did before you try again"
    )]
    HiddenCommit,
    /// No lock within the budget.
    #[error("no lock within {}: {who}\n  help: end those sessions, or give more time with --lock-timeout", shown(*budget))]
    LockBudget {
        /// The budget.
        budget: Duration,
        /// Who holds it.
        who: String,
    },
    /// A statement outside a transaction waited for others longer than it may.
    #[error(
        "{what} waited for other sessions for {} in all and was given up: {who}\n  {left}\n  help: end that session, or give the step more time with `wait`; then run the same command again",
        shown(*budget)
    )]
    WaitBudget {
        /// What waited.
        what: String,
        /// The budget.
        budget: Duration,
        /// For whom it waited last.
        who: String,
        /// What is left behind.
        left: String,
    },
    /// The ledger contradicts itself.
    #[error(
        "the ledger is not as it must be: {0}; nothing was changed\n  help: somebody edited the schema confiture by hand; compare it with the schema itself"
    )]
    Broken(&'static str),
    /// Another holder lives, and the time to wait for it is over.
    #[error("waited {} for {by}, which still holds this database\n  help: run the same command again later, or displace it with --take-over", shown(*waited))]
    WaitEnded {
        /// Who, for people.
        by: String,
        /// How long.
        waited: Duration,
    },
    /// Asked to stop.
    #[error("stopped; the same command goes on from here")]
    Stopped,
    /// The place of another error.
    #[error("{place}\n  {}", source.to_string().replace('\n', "\n  "))]
    At {
        /// Which step of which migration.
        place: String,
        /// What went wrong there.
        source: Box<Error>,
    },
}

impl Error {
    /// Wraps a failed statement of ours.
    pub(crate) fn statement(doing: &'static str) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |source| Self::Statement { doing, source }
    }

    /// Whether another try makes sense.
    pub fn retryability(&self) -> Retryability {
        match self {
            Self::Connect { retry, .. } | Self::User { retry, .. } => *retry,
            Self::Statement { source, .. } => of_postgres(source),
            Self::LockBudget { .. } | Self::WaitBudget { .. } | Self::Silent(_) => Retryability::Retry,
            Self::At { source, .. } => source.retryability(),
            Self::Foreign { .. } => Retryability::StopRollout,
            Self::Conflict { conflict, .. } => conflict.retryability(),
            Self::Target(_)
            | Self::Replaced { .. }
            | Self::Identity { .. }
            | Self::LedgerNewer { .. }
            | Self::ServerOld(_)
            | Self::Refused(_)
            | Self::Assertion(_)
            | Self::Verification { .. }
            | Self::HiddenCommit
            | Self::Broken(_)
            | Self::Forbidden { .. }
            | Self::WaitEnded { .. }
            | Self::Stopped => Retryability::GiveUp,
        }
    }

    /// The exit code of a run that ends with it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Conflict { conflict, .. } if conflict.is_input() => Exit::Usage,
            Self::Target(_) | Self::Refused(Refusal::Input { .. }) => Exit::Usage,
            Self::User { code: Some(code), .. } if code == REFUSED => Exit::Refused,
            Self::Conflict { .. }
            | Self::Refused(Refusal::Unsafe { .. })
            | Self::Foreign { .. }
            | Self::Identity { .. }
            | Self::LedgerNewer { .. }
            | Self::ServerOld(_)
            | Self::Broken(_) => Exit::Refused,
            Self::Replaced { .. } | Self::WaitEnded { .. } | Self::Stopped => Exit::Stopped,
            Self::Connect { .. }
            | Self::Statement { .. }
            | Self::Silent(_)
            | Self::User { .. }
            | Self::Assertion(_)
            | Self::Verification { .. }
            | Self::HiddenCommit
            | Self::Forbidden { .. }
            | Self::LockBudget { .. }
            | Self::WaitBudget { .. } => Exit::Failed,
            Self::At { source, .. } => source.exit(),
        }
    }

    /// What it was, without its place.
    pub fn innermost(&self) -> &Self {
        match self {
            Self::At { source, .. } => source.innermost(),
            other => other,
        }
    }

    /// PostgreSQL's code, where a statement failed on the server.
    pub(crate) fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Statement { source, .. } => source.code().map(tokio_postgres::error::SqlState::code),
            Self::User { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// As the coordinator hears it.
    pub fn failure(&self) -> Failure {
        Failure {
            message: self.to_string(),
            retry: self.retryability(),
            exit: self.exit(),
        }
    }
}

/// An error that is not the server's is the connection's: it passes.
fn of_postgres(error: &tokio_postgres::Error) -> Retryability {
    error
        .code()
        .map_or(Retryability::Retry, |code| retry::of_sqlstate(code.code()))
}

/// Whether values of rows may be repeated where PostgreSQL does.
static DETAILS: AtomicBool = AtomicBool::new(false);

/// The class of errors whose messages quote the value that is wrong.
const DATA_EXCEPTION: &str = "22";

/// Codes of texts that somebody's function made up, of whatever it had at hand: PL/pgSQL's RAISE and ASSERT, and the class
/// of functions in other languages.
const MADE_UP: [&str; 3] = ["P0001", "P0004", "38"];

/// Where servers make errors of what a function says, under whatever code it says.
const RAISERS: [&str; 5] = [
    "exec_stmt_raise",
    "exec_stmt_assert",
    "PLy_elog_impl",
    "PLy_output",
    "do_util_elog",
];

/// From now on what PostgreSQL says of an error is repeated whole, details and values included; without it they are left
/// out, since errors go to logs, traces and coordinators.
pub fn repeat_details() {
    DETAILS.store(true, Ordering::Relaxed);
}

/// PostgreSQL's own message, without DETAIL, HINT and CONTEXT, which may carry values of rows.
pub(crate) fn statement_message(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            let code = error.code().code();
            let details = DETAILS.load(Ordering::Relaxed);
            let mut said = if details {
                error.message().to_owned()
            } else {
                told(error)
            };
            for (name, more) in [("detail", error.detail()), ("hint", error.hint())] {
                if let Some(more) = more.filter(|_| details) {
                    said = format!("{said}; {name}: {more}");
                }
            }
            format!("PostgreSQL says: {said} ({code})")
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("the connection was lost: {source}"),
            None => "the connection was lost".to_owned(),
        },
    }
}

/// The message, as far as no value of a row can be in it.
fn told(error: &tokio_postgres::error::DbError) -> String {
    let code = error.code().code();
    let raised = error.routine().is_some_and(|routine| RAISERS.contains(&routine));
    let made_up = raised || MADE_UP.iter().any(|made_up| code.starts_with(made_up));
    // A statement that a function made of what it had at hand.
    let inner = matches!(
        error.position(),
        Some(tokio_postgres::error::ErrorPosition::Internal { .. })
    );
    if made_up && !code.starts_with(sql::OURS) {
        "[a function's own words, which may hold values of rows: `observability.error_details` shows them]"
            .to_owned()
    } else if code.starts_with(DATA_EXCEPTION) || inner {
        sql::unquoted(error.message())
    } else {
        error.message().to_owned()
    }
}

/// What a role may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forbidden {
    /// Create the ledger's schema.
    Create,
    /// Read and write the ledger, which another role created.
    Use,
}

impl std::fmt::Display for Forbidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "create the ledger (schema confiture)",
            Self::Use => "use the ledger (schema confiture), which another role created",
        })
    }
}

fn grants(what: Forbidden, database: &str, role: &str) -> String {
    match what {
        Forbidden::Create => format!("GRANT CREATE ON DATABASE {database} TO {role}"),
        Forbidden::Use => format!(
            "GRANT USAGE, CREATE ON SCHEMA confiture TO {role}; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA confiture TO {role}"
        ),
    }
}

/// What to do about an error of a statement of ours.
fn statement_advice(error: &tokio_postgres::Error) -> Option<&'static str> {
    let error = error.as_db_error()?;
    // `read_only_sql_transaction`; a standby says `feature_not_supported` to READ WRITE.
    let read_only = error.code().code() == "25006"
        || (error.code().code() == "0A000" && error.message().contains("during recovery"));
    if error.code().code() == "08P01" {
        return Some(
            "that is a pooler's answer: its log says more. With query_wait_timeout all server connections of its pool stayed in use: see who holds them, or raise its default_pool_size",
        );
    }
    if error.code().code() == "42501" {
        return Some(
            "the role needs USAGE and CREATE on the schema confiture and SELECT, INSERT, UPDATE and DELETE on its tables; or work with the role that created them",
        );
    }
    read_only.then_some(
        "this server is a read-only standby: give the primary's address (with several hosts in the URL, target_session_attrs=read-write finds it)",
    )
}

fn help(advice: Option<&str>) -> String {
    advice.map_or(String::new(), |advice| format!("\n  help: {advice}"))
}

fn changes(difference: Option<&str>) -> String {
    difference.map_or(String::new(), |lines| {
        format!(
            "\n  what differs (- as applied, + in the file):\n    {}",
            lines.replace('\n', "\n    ")
        )
    })
}

fn refusal_message(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Input { what, advice } | Refusal::Unsafe { what, advice } => {
            format!("{what}{}", help(advice.as_deref()))
        }
    }
}

/// A duration for people.
pub(crate) fn shown(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
