//! From a PostgreSQL URL to a way to connect: `tokio_postgres`' configuration and the TLS that `sslmode` asks for.
//!
//! libpq's TLS parameters (`sslmode` with `verify-ca` and `verify-full`, `sslrootcert`, `sslcert`, `sslkey`) are ours to
//! read: `tokio_postgres` knows only some of them.

use crate::tls::{self, Mode};
use shared::settings::Secret;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long one attempt to reach one host may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// After how long unanswered data ends a connection.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// After how long without a word the other end is asked whether it is there, how often, and how many times. A way that was
/// lost without a word (a balancer or firewall that forgot the connection) is found out in a minute, not in two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// Why a URL cannot be used. None of the texts holds a password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not a connection string.
    #[error(
        "the database URL is not valid: {0}\n  help: write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for `@`, %3A for `:` and %2F for `/` in user and password"
    )]
    Url(String),
    /// `sslmode` has another value.
    #[error(
        "sslmode `{0}` is not known\n  help: use disable, allow, prefer, require, verify-ca or verify-full"
    )]
    SslMode(String),
    /// A certificate or key is not usable.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// Where and how to connect.
pub struct Target {
    /// For `tokio_postgres`.
    pub config: tokio_postgres::Config,
    /// For its TLS.
    pub tls: MakeRustlsConnect,
    /// Host, port and database, for messages.
    pub address: String,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Statements in transactions, which bring their limits with them.
    Transactions,
    /// Statements that cannot run in a transaction: no default of the role or the database may cut them off.
    Outside,
}

/// Reads a URL or a `key=value` connection string.
///
/// # Errors
/// When it cannot be read, or a certificate it names cannot.
pub fn target_for(url: &Secret, used: Use) -> Result<Target, Error> {
    let mut target = target(url)?;
    if used == Use::Outside {
        let before = target.config.get_options().unwrap_or_default();
        let options = format!("{before} -c lock_timeout=0 -c statement_timeout=0");
        target.config.options(options.trim_start());
    }
    Ok(target)
}

/// The same for statements in transactions.
///
/// # Errors
/// When it cannot be read, or a certificate it names cannot.
pub fn target(url: &Secret) -> Result<Target, Error> {
    let text = url.expose().trim();
    let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
    if !is_url && (text.contains("://") || !text.contains('=')) {
        return Err(Error::Url("it does not begin with postgres://".to_owned()));
    }
    let (rest, parameters) = split(text);
    let mut config: tokio_postgres::Config = rest
        .parse()
        .map_err(|e: tokio_postgres::Error| Error::Url(cause(&e)))?;
    let mode = match parameters.mode.as_deref() {
        None | Some("prefer" | "allow") => (SslMode::Prefer, Mode::Unverified),
        Some("disable") => (SslMode::Disable, Mode::Unverified),
        // As libpq does: a root certificate beside `require` is there to be checked.
        Some("require") if parameters.root.is_some() => (SslMode::Require, Mode::Chain),
        Some("require") => (SslMode::Require, Mode::Unverified),
        Some("verify-ca") => (SslMode::Require, Mode::Chain),
        Some("verify-full") => (SslMode::Require, Mode::Full),
        Some(other) => return Err(Error::SslMode(other.to_owned())),
    };
    if config.get_hosts().is_empty() {
        return Err(Error::Url("it names no host".to_owned()));
    }
    if config.get_user().is_none() {
        return Err(Error::Url("it names no user".to_owned()));
    }
    config
        .ssl_mode(mode.0)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES);
    if config.get_application_name().is_none() {
        config.application_name("confiture");
    }
    let tls = tls::client(
        mode.1,
        parameters.root.as_deref(),
        parameters.certificate.as_deref().zip(parameters.key.as_deref()),
    )?;
    Ok(Target {
        address: address(&config),
        tls: MakeRustlsConnect::new(tls),
        config,
    })
}

/// What went wrong, without the words that every such error begins with.
fn cause(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn address(config: &tokio_postgres::Config) -> String {
    let ports = config.get_ports();
    let hosts: Vec<String> = (config.get_hosts().iter().enumerate())
        .map(|(i, host)| {
            let port = ports.get(i).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        })
        .collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
    format!("{}/{database}", hosts.join(","))
}

/// The TLS parameters of a connection string.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    mode: Option<String>,
    root: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Parameters {
    /// Keeps a parameter that is ours; whether it was.
    fn keep(&mut self, key: &str, value: &str) -> bool {
        match key {
            "sslmode" => self.mode = Some(value.to_owned()),
            "sslrootcert" => self.root = Some(value.into()),
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            _ => return false,
        }
        true
    }
}

/// Takes our parameters out of a connection string.
fn split(text: &str) -> (String, Parameters) {
    let mut parameters = Parameters::default();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        let Some((base, query)) = text.split_once('?') else {
            return (text.to_owned(), parameters);
        };
        let rest: Vec<&str> = (query.split('&'))
            .filter(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                !parameters.keep(key, &percent_decoded(value))
            })
            .collect();
        let rest = if rest.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", rest.join("&"))
        };
        return (rest, parameters);
    }
    let rest: Vec<&str> = words(text)
        .into_iter()
        .filter(|word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            !parameters.keep(key.trim(), value.trim().trim_matches('\''))
        })
        .collect();
    (rest.join(" "), parameters)
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let decoded = (bytes[at] == b'%')
            .then(|| {
                text.get(at + 1..at + 3)
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok())
            })
            .flatten();
        out.push(decoded.unwrap_or(bytes[at]));
        at += if decoded.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The words of a `key=value` string; quotes hold a word together.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut start, mut quoted, mut escaped) = (Vec::new(), None, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if let Some(from) = start.take() {
                    words.push(&text[from..at]);
                }
                continue;
            }
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.map(|from| &text[from..]));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_parameters_are_taken_out_of_both_forms() {
        let (rest, parameters) =
            split("postgres://u@h/db?sslmode=verify-full&application_name=x&sslrootcert=%2Fa%20b.crt");
        assert_eq!(rest, "postgres://u@h/db?application_name=x");
        assert_eq!(
            (parameters.mode.as_deref(), parameters.root),
            (Some("verify-full"), Some("/a b.crt".into()))
        );
        let (rest, parameters) = split("host=h password='a b' sslmode=require dbname=d");
        assert_eq!(rest, "host=h password='a b' dbname=d");
        assert_eq!(parameters.mode.as_deref(), Some("require"));
    }

    #[test]
    fn an_address_and_errors_never_show_the_password() {
        let target = target(&Secret::new("postgres://u:hunter2@h:5433/db"))
            .ok()
            .unwrap();
        assert_eq!(target.address, "h:5433/db");
        for bad in [
            "postgres://u:hunter2@h:x/db",
            "postgres://u:hunter2@h/db?sslmode=maybe",
            "hunter2",
            "postgres:///db",
            "",
        ] {
            let error = super::target(&Secret::new(bad)).err().unwrap().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
