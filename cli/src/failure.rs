//! How a command fails: one message, one exit code, printed in one place.

use crate::output;
use crate::telemetry::LogFormat;
use shared::migration::Problems;
use shared::rollout::Time;
use shared::rollout::work::Exit;
use std::process::ExitCode;

/// Why a command ends badly.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What was being done, to what, why it failed, what to do next. May have several lines.
    pub(crate) message: String,
    pub(crate) exit: Exit,
}

impl Failure {
    /// Exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit: Exit::Failed,
        }
    }

    /// Exit code 2: wrong usage or input.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit: Exit::Usage,
        }
    }

    /// Prints it and gives the exit code.
    pub(crate) fn report(&self, format: LogFormat) -> ExitCode {
        match format {
            LogFormat::Text => output::error(&format!("error: {}", self.message)),
            // As a line of the log, for whoever reads nothing else.
            LogFormat::Json => output::error(
                &serde_json::json!({
                    "timestamp": Time::since_1970(runtime::unix_now()).to_string(),
                    "level": "ERROR",
                    "fields": { "message": self.message, "exit_code": self.exit.code() },
                    "target": "confiture",
                })
                .to_string(),
            ),
        }
        ExitCode::from(self.exit.code())
    }
}

impl From<agent::error::Error> for Failure {
    fn from(error: agent::error::Error) -> Self {
        Self {
            message: error.to_string(),
            exit: error.exit(),
        }
    }
}

impl From<agent::link::Error> for Failure {
    fn from(error: agent::link::Error) -> Self {
        Self::failed(chain(&error))
    }
}

impl From<coordinator::store::Error> for Failure {
    fn from(error: coordinator::store::Error) -> Self {
        use coordinator::store::Error;
        match &error {
            // A wrong path or address, or a missing `--init`.
            Error::Open { .. } => Self::usage(chain(&error)),
            Error::Unavailable { .. }
            | Error::Refused { .. }
            | Error::LeaseGone(_)
            | Error::TooLarge(_)
            | Error::Invalid(_)
            | Error::Unreadable { .. } => Self::failed(chain(&error)),
        }
    }
}

impl From<coordinator::serve::Error> for Failure {
    fn from(error: coordinator::serve::Error) -> Self {
        use coordinator::serve::Error;
        match &error {
            // Somebody else may give the port free; an address that is not ours or not allowed stays so.
            Error::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Self::failed(error.to_string())
            }
            Error::Listen { .. } => Self::usage(error.to_string()),
            Error::Identity(_) | Error::Reflection(_) | Error::Server(_) => Self::failed(chain(&error)),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::usage(problems.to_string())
    }
}

impl From<runtime::files::Error> for Failure {
    fn from(error: runtime::files::Error) -> Self {
        Self::usage(chain(&error))
    }
}

impl From<runtime::shutdown::Error> for Failure {
    fn from(error: runtime::shutdown::Error) -> Self {
        Self::failed(chain(&error))
    }
}

impl From<runtime::telemetry::Error> for Failure {
    fn from(error: runtime::telemetry::Error) -> Self {
        Self::usage(chain(&error))
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A mistake of ours is said in one line, not as a dump, and ends the process: what was committed is recorded, and
/// whoever goes on starts from there.
pub(crate) fn install_panic_hook() {
    set_hook(|place| {
        output::error(&format!(
            "error: confiture came upon a state it holds impossible{place} and stopped; what was committed is recorded, so the same command can be run again\n  help: please report this with the command you ran"
        ));
        std::process::exit(i32::from(Exit::Failed.code()));
    });
}

/// From here on a mistake of ours ends only the task that made it: an agent works on many databases at once, and
/// reports that one as failed.
pub(crate) fn contain_panics() {
    set_hook(|place| {
        tracing::error!(
            "came upon a state held impossible{place}; the work that met it has ended, please report this"
        );
    });
}

fn set_hook(say: impl Fn(&str) + Send + Sync + 'static) {
    std::panic::set_hook(Box::new(move |panic| {
        // The SQL parser gives up on some texts by a panic; that is caught and told as a problem of the text.
        if shared::migration::is_parsing() {
            return;
        }
        let place = panic
            .location()
            .map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
        say(&place);
    }));
}
