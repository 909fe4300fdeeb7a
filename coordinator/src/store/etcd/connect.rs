//! From the settings to clients of etcd, one for each member: endpoints, login, TLS, and the timings of the connection.

use crate::store::Error;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use shared::settings;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How often an idle connection is checked. etcd closes connections that are pinged more than once in 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// How long a check may stay unanswered before the connection counts as dead.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection may take to come about; less than a call may, so that the call can say what went wrong.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The members of the cluster, each with a client that connects when it is first asked.
pub(super) struct Members {
    options: ConnectOptions,
    members: Vec<(String, OnceCell<Client>)>,
}

impl Members {
    /// Reads the files that the settings name.
    pub(super) fn new(settings: &settings::Etcd, store: &str) -> Result<Self, Error> {
        let mut options = ConnectOptions::new()
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(CONNECT_TIMEOUT)
            // A member that has lost its cluster must say so, not serve a watch that never fires.
            .with_require_leader(true);
        if let Some(login) = &settings.login {
            options = options
                .with_user(&login.user, login.password.expose())
                .with_auto_token_refresh(true);
        }
        if let Some(tls) = &settings.tls {
            options = options.with_tls(tls_options(tls, store)?);
        }
        let members = settings
            .endpoints
            .iter()
            .map(|url| (url.clone(), OnceCell::new()))
            .collect();
        Ok(Self { options, members })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.members.len()
    }

    /// The client of one, logged in if it has to be.
    pub(super) async fn client(&self, member: usize) -> Result<&Client, etcd_client::Error> {
        let Some((url, client)) = self.members.get(member) else {
            return Err(etcd_client::Error::InvalidArgs("no endpoint is given".to_owned()));
        };
        client
            .get_or_try_init(|| Client::connect([url], Some(self.options.clone())))
            .await
    }
}

fn tls_options(tls: &settings::EtcdTls, store: &str) -> Result<TlsOptions, Error> {
    let read = |path: &std::path::PathBuf| {
        runtime::files::read(path).map_err(|error| {
            let source =
                std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
            Error::Open {
                store: store.to_owned(),
                why: format!("{error}{source}"),
            }
        })
    };
    let options = match &tls.ca_file {
        Some(file) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(file)?)),
        None => TlsOptions::new().with_native_roots(),
    };
    Ok(match &tls.identity {
        Some(files) => options.identity(Identity::from_pem(
            read(&files.cert_file)?,
            read(&files.key_file)?,
        )),
        None => options,
    })
}
