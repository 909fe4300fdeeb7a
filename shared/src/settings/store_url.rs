//! `coordinator.store`: where the coordinator keeps its intent.

use super::secret::Secret;
use std::fmt;
use std::path::PathBuf;

/// `memory:`, `file:PATH` or `etcd://[user@]host:port,...[/prefix]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// In this process only; gone when it ends. For tests.
    Memory,
    /// One file on this machine.
    File(PathBuf),
    /// An etcd cluster.
    Etcd(Etcd),
}

/// How to reach an etcd cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// `http://host:port`, or `https://` when TLS files are given; at least one.
    pub endpoints: Vec<String>,
    /// What every key begins with, without slashes around it; default `confiture`.
    pub prefix: String,
    /// Whom to log in as, where the cluster asks for it.
    pub login: Option<Login>,
    /// TLS, where the cluster asks for it.
    pub tls: Option<EtcdTls>,
}

/// An etcd user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// The files of a TLS connection to etcd. At least one of the two is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdTls {
    /// The authority that signed the servers' certificates (PEM); the system's own when missing.
    pub ca_file: Option<PathBuf>,
    /// This coordinator's certificate and key (PEM).
    pub identity: Option<Identity>,
}

/// A certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Etcd(etcd) => {
                let hosts: Vec<&str> = etcd
                    .endpoints
                    .iter()
                    .map(|e| e.split_once("://").map_or(e.as_str(), |(_, host)| host))
                    .collect();
                write!(f, "etcd://{}/{}", hosts.join(","), etcd.prefix)
            }
        }
    }
}
