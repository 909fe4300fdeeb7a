//! What every command has: settings from file, environment and flags. The environment is read here and nowhere else.

use crate::failure::Failure;
use crate::output::Format;
use crate::telemetry::LogFormat;
use shared::settings::{File, Flag, Lookups, Settings, Sources};
use std::path::{Path, PathBuf};

/// The settings file that is read when it exists and none is named.
const DEFAULT_FILE: &str = "confiture.yaml";

/// Flags that every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// Settings file [default: confiture.yaml where it exists]
    #[arg(long, global = true, value_name = "FILE", env = "CONFITURE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// How data is printed
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) output: Format,
    /// How the lines of the log and of errors are written, to standard error [default: as --output]
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "CONFITURE_LOG_FORMAT",
        hide_env_values = true
    )]
    log_format: Option<LogFormat>,
}

impl Global {
    /// How lines on standard error are written: whoever reads events there reads nothing else between them.
    pub(crate) fn log_format(&self) -> LogFormat {
        self.log_format.unwrap_or(match self.output {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        })
    }
}

/// Reads the settings with the flags of one command on top.
pub(crate) fn settings(global: &Global, flags: Vec<Flag>) -> Result<Settings, Failure> {
    let file = match &global.config {
        Some(path) => Some((path.clone(), runtime::files::read_text(path)?)),
        None if Path::new(DEFAULT_FILE).exists() => {
            Some((DEFAULT_FILE.into(), runtime::files::read_text(DEFAULT_FILE)?))
        }
        None => None,
    };
    let host = host();
    let sources = Sources {
        file: file.as_ref().map(|(path, text)| File { path, text }),
        // A variable that is not UTF-8 cannot be one of ours.
        environment: std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect(),
        flags,
        host: &host,
    };
    Ok(Settings::read(&sources)?)
}

/// Fetches secrets from the environment and from files.
pub(crate) fn with_lookups<T>(fetch: impl FnOnce(&Lookups<'_>) -> T) -> T {
    fetch(&Lookups {
        environment: &variable,
        // Which file it was is said by whoever asked.
        file: &|path| {
            runtime::files::read_text(path).map_err(|error| {
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
            })
        },
    })
}

/// One variable of the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// This host's name.
pub(crate) fn host() -> String {
    hostname::get()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Who runs a command, for the record.
pub(crate) fn who(doing: &str) -> String {
    let user = variable("USER")
        .or_else(|| variable("LOGNAME"))
        .unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
    format!("{doing} by {user} on {} (pid {})", host(), std::process::id())
}
