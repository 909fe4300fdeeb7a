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

/// The file of a store that nobody named.
pub(super) const DEFAULT_FILE: &str = "confiture.redb";

/// The prefix of an etcd store that nobody named.
const DEFAULT_PREFIX: &str = "confiture";

/// What `coordinator.store` says, before passwords, TLS and folders are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    Memory,
    File(PathBuf),
    Etcd {
        user: Option<String>,
        hosts: Vec<String>,
        prefix: String,
    },
}

impl Written {
    /// Reads a store URL.
    ///
    /// # Errors
    /// One sentence. It never repeats what stands before an `@`: that may be a password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "memory:" || text == "memory" {
            return Ok(Self::Memory);
        }
        if let Some(rest) = text.strip_prefix("file:") {
            let path = match rest.strip_prefix("//") {
                Some(absolute) if absolute.starts_with('/') => absolute,
                Some(_) => return Err("write file:PATH, without a host".to_owned()),
                None => rest,
            };
            return if path.is_empty() || path.contains('\0') || path.ends_with('/') {
                Err("`file:` needs the path of a file".to_owned())
            } else {
                Ok(Self::File(PathBuf::from(path)))
            };
        }
        match text.strip_prefix("etcd://") {
            Some(rest) => Self::etcd(rest),
            None => Err("a store is `file:PATH`, `etcd://host:2379,host:2379` or `memory:`".to_owned()),
        }
    }

    fn etcd(rest: &str) -> Result<Self, String> {
        let (user, rest) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((user, _)) if user.contains(':') => {
                return Err("a password does not belong into the URL: use `store_password_env` or `store_password_file`".to_owned());
            }
            Some(("", _)) => return Err("the user before `@` is empty".to_owned()),
            Some((user, rest)) => (Some(user.to_owned()), rest),
        };
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        if !prefix
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/'))
        {
            return Err(format!(
                "the prefix `{prefix}` may hold only letters, digits, `.`, `_`, `-` and `/`"
            ));
        }
        let hosts = hosts
            .split(',')
            .map(host_and_port)
            .collect::<Result<Vec<_>, _>>()?;
        let prefix = if prefix.is_empty() { DEFAULT_PREFIX } else { prefix };
        Ok(Self::Etcd {
            user,
            hosts,
            prefix: prefix.to_owned(),
        })
    }
}

/// `host`, `host:port` or `[ipv6]:port` with a port in any case; etcd's own is 2379.
fn host_and_port(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong = || format!("`{text}` is not host:port");
    let url = url::Url::parse(&format!("http://{text}")).map_err(|_| wrong())?;
    let plain =
        url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !text.ends_with(['/', ':']);
    match url.host_str() {
        // The scheme's own port is not told apart from none.
        Some(host) if plain && !text.ends_with(":80") => Ok(format!("{host}:{}", url.port().unwrap_or(2379))),
        Some(host) if plain => Ok(format!("{host}:80")),
        Some(_) | None => Err(wrong()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(text: &str) -> (Option<String>, Vec<String>, String) {
        match Written::parse(text) {
            Ok(Written::Etcd { user, hosts, prefix }) => (user, hosts, prefix),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn each_kind_of_store_is_read() {
        assert_eq!(Written::parse("memory:"), Ok(Written::Memory));
        assert_eq!(
            Written::parse("file:./a.redb"),
            Ok(Written::File("./a.redb".into()))
        );
        assert_eq!(
            Written::parse("file:///var/a.redb"),
            Ok(Written::File("/var/a.redb".into()))
        );
        assert_eq!(
            etcd("etcd://h1"),
            (None, vec!["h1:2379".to_owned()], "confiture".to_owned())
        );
        assert_eq!(
            etcd("etcd://ann@h1:1,[::1]:2/a/b/"),
            (
                Some("ann".to_owned()),
                vec!["h1:1".to_owned(), "[::1]:2".to_owned()],
                "a/b".to_owned()
            )
        );
        assert_eq!(etcd("etcd://h1:80").1, ["h1:80"]);
    }

    #[test]
    fn what_is_no_store_is_refused_and_a_password_is_never_repeated() {
        for bad in [
            "",
            "a.redb",
            "http://h:1",
            "file:",
            "file://host/x",
            "etcd://",
            "etcd://h:x",
            "etcd://h,,i",
            "etcd://h/a b",
            "etcd://@h",
            "file:dir/",
        ] {
            assert!(Written::parse(bad).is_err(), "{bad}");
        }
        let message = Written::parse("etcd://ann:hunter2@h:1").unwrap_err();
        assert!(
            message.contains("store_password_file") && !message.contains("hunter2"),
            "{message}"
        );
    }

    #[test]
    fn a_store_prints_without_its_user() {
        let etcd = Etcd {
            endpoints: vec!["http://a:1".to_owned(), "http://b:2".to_owned()],
            prefix: "p".to_owned(),
            login: Some(Login {
                user: "ann".to_owned(),
                password: Secret::new("hunter2"),
            }),
            tls: None,
        };
        assert_eq!(StoreUrl::Etcd(etcd.clone()).to_string(), "etcd://a:1,b:2/p");
        assert!(!format!("{etcd:?}").contains("hunter2"));
    }
}
