//! From raw layers to typed settings: every key, and every relation between keys.

use super::database::Declared;
use super::duration::Zero;
use super::raw::{File, Flag, Raw};
use super::reader::{Placed, Reader};
use super::secret::{Lookups, Source};
use super::store_url::{self, Written};
use super::{
    Agent, Connection, Coordinator, Database, Etcd, EtcdTls, Identity, Login, Migration, Observability, Otlp,
    Pool, Prometheus, StoreUrl,
};
use crate::id::{AgentId, DatabaseName, SetName};
use crate::migration::expression::Query;
use crate::migration::{Problem, Problems};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// How much longer than a leader an agent must be believed alive: the time a new leader needs to be elected and to hear
/// from the agents, so that a leader's death stops no running work. Tests that wait for leases to end have no time for it.
const AGENT_LEASE_MARGIN: Duration = Duration::from_secs(if cfg!(feature = "faults") { 0 } else { 15 });

/// Where a coordinator listens, and an agent looks for it, unless told otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);

/// Where the settings come from. The caller reads files and environment; this crate does not.
#[derive(Debug, Clone, Default)]
pub struct Sources<'a> {
    /// The settings file, when there is one.
    pub file: Option<File<'a>>,
    /// The process's environment; only `CONFITURE_*` counts.
    pub environment: Vec<(String, String)>,
    /// What the command line says.
    pub flags: Vec<Flag>,
    /// This host's name: the default name of an agent.
    pub host: &'a str,
}

/// All settings, checked. What needs secrets is had through the methods; the rest are fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// See [`Agent`].
    pub agent: Agent,
    /// See [`Connection`].
    pub connection: Connection,
    /// See [`Migration`].
    pub migration: Migration,
    /// See [`Observability`].
    pub observability: Observability,
    coordinator: DeclaredCoordinator,
    databases: Vec<Declared>,
}

/// A coordinator whose password is not fetched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DeclaredCoordinator {
    listen: SocketAddr,
    advertise: String,
    store: DeclaredStore,
    leader_lease: Duration,
    agent_lease: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum DeclaredStore {
    Memory,
    File(PathBuf),
    Etcd {
        endpoints: Vec<String>,
        prefix: String,
        login: Option<DeclaredLogin>,
        tls: Option<EtcdTls>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct DeclaredLogin {
    user: String,
    password: Source,
    origin: super::raw::Origin,
}

impl Settings {
    /// Reads all layers: file, then environment, then flags.
    ///
    /// # Errors
    /// All problems at once, each with its key and place.
    pub fn read(sources: &Sources<'_>) -> Result<Self, Problems> {
        let mut raw = Raw::default();
        if let Some(file) = sources.file {
            raw.file(file);
        }
        raw.environment(&sources.environment);
        raw.flags(&sources.flags);
        let folder = raw.folder.clone();
        let mut reader = Reader::new(raw);
        let settings = Self {
            coordinator: coordinator(&mut reader),
            agent: agent(&mut reader, sources.host),
            databases: databases(&mut reader, &folder),
            connection: Connection {
                pool: pool(&mut reader),
            },
            migration: migration(&mut reader),
            observability: observability(&mut reader),
        };
        if reader.problems.is_empty() {
            Ok(settings)
        } else {
            Err(sorted(reader.problems))
        }
    }

    /// The coordinator's settings, with its store's password fetched.
    ///
    /// # Errors
    /// When the password cannot be had.
    pub fn coordinator(&self, lookups: &Lookups<'_>) -> Result<Coordinator, Problems> {
        let declared = &self.coordinator;
        let store = match &declared.store {
            DeclaredStore::Memory => StoreUrl::Memory,
            DeclaredStore::File(path) => StoreUrl::File(path.clone()),
            DeclaredStore::Etcd {
                endpoints,
                prefix,
                login,
                tls,
            } => StoreUrl::Etcd(Etcd {
                endpoints: endpoints.clone(),
                prefix: prefix.clone(),
                login: login.as_ref().map(|login| login.fetch(lookups)).transpose()?,
                tls: tls.clone(),
            }),
        };
        Ok(Coordinator {
            listen: declared.listen,
            advertise: declared.advertise.clone(),
            store,
            leader_lease: declared.leader_lease,
            agent_lease: declared.agent_lease,
        })
    }

    /// All databases, with their URLs fetched.
    ///
    /// # Errors
    /// All that cannot be had.
    pub fn databases(&self, lookups: &Lookups<'_>) -> Result<Vec<Database>, Problems> {
        let mut problems = Vec::new();
        let resolved = self
            .databases
            .iter()
            .filter_map(|declared| {
                declared
                    .resolve(lookups)
                    .map_err(|problem| problems.push(problem))
                    .ok()
            })
            .collect();
        if problems.is_empty() {
            Ok(resolved)
        } else {
            Err(sorted(problems))
        }
    }

    /// One database with its URLs fetched; `None` when the settings do not name it.
    ///
    /// # Errors
    /// When a URL cannot be had.
    pub fn database(&self, name: &DatabaseName, lookups: &Lookups<'_>) -> Option<Result<Database, Problems>> {
        let declared = self.databases.iter().find(|declared| declared.name == *name)?;
        Some(
            declared
                .resolve(lookups)
                .map_err(|problem| Problems(vec![problem])),
        )
    }

    /// The names of all databases, in the order of the file.
    pub fn database_names(&self) -> impl Iterator<Item = &DatabaseName> {
        self.databases.iter().map(|declared| &declared.name)
    }
}

impl DeclaredLogin {
    fn fetch(&self, lookups: &Lookups<'_>) -> Result<Login, Problems> {
        match self.password.fetch(lookups) {
            Ok(password) => Ok(Login {
                user: self.user.clone(),
                password,
            }),
            Err(error) => {
                let what = format!("the password of etcd user {}: {error}", self.user);
                Err(Problems(vec![self.origin.problem(what)]))
            }
        }
    }
}

/// In the order of the file, then what has no place.
fn sorted(mut problems: Vec<Problem>) -> Problems {
    problems.sort_by(|a, b| (a.at.is_none(), &a.file, a.at).cmp(&(b.at.is_none(), &b.file, b.at)));
    Problems(problems)
}

fn coordinator(reader: &mut Reader) -> DeclaredCoordinator {
    let listen = reader
        .parsed("coordinator.listen", listen_address)
        .unwrap_or(DEFAULT_LISTEN);
    let store = store(reader);
    let advertise = match reader.parsed("coordinator.advertise", http_url) {
        Some(url) => url,
        None => default_advertise(reader, listen, &store),
    };
    let lease = |reader: &mut Reader, key: &str, default: u64| {
        let lease = reader.duration(key, SECOND, Duration::from_secs(default), Zero::Refused);
        if lease.subsec_nanos() != 0 || lease < 2 * SECOND {
            reader.refuse(key, "a lease is in whole seconds, at least 2s", None);
        }
        lease
    };
    let leader_lease = lease(reader, "coordinator.leader_lease", 8);
    let agent_lease = lease(reader, "coordinator.agent_lease", 30);
    if agent_lease < leader_lease + AGENT_LEASE_MARGIN {
        let key = ["coordinator.agent_lease", "coordinator.leader_lease"]
            .into_iter()
            .find(|k| reader.origin(k).is_some());
        let what = format!(
            "agent_lease ({}s) must be at least leader_lease ({}s) and {}s more, so that work goes on while a new leader is elected",
            agent_lease.as_secs(),
            leader_lease.as_secs(),
            AGENT_LEASE_MARGIN.as_secs()
        );
        reader.refuse(key.unwrap_or("coordinator.agent_lease"), &what, None);
    }
    DeclaredCoordinator {
        listen,
        advertise,
        store,
        leader_lease,
        agent_lease,
    }
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text
        .strip_prefix("localhost")
        .map_or(text.to_owned(), |rest| format!("127.0.0.1{rest}"));
    text.parse()
        .map_err(|_| format!("expected an IP address with a port, such as 127.0.0.1:7070, found `{text}`"))
}

/// A URL of a coordinator.
fn http_url(text: &str) -> Result<String, String> {
    url_of("coordinator", text)
}

/// A URL that a gRPC client can connect to.
fn url_of(whom: &str, text: &str) -> Result<String, String> {
    // Nothing that may hold a password is repeated in a message.
    if text.contains('@') {
        return Err(format!("a URL of a {whom} holds no user and no password"));
    }
    let wrong = |why: &str| Err(format!("`{text}` is not usable as a URL of a {whom}: {why}"));
    match url::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            wrong("it must begin with http:// or https://")
        }
        Ok(url) if url.host().is_none() => wrong("it has no host"),
        Ok(url) if url.path() != "/" || url.query().is_some() => wrong("it must end after host and port"),
        // Its scheme in lower case, whatever it was.
        Ok(url) => Ok(url.as_str().trim_end_matches('/').to_owned()),
        Err(error) => wrong(&error.to_string()),
    }
}

/// `http://LISTEN`; where that is every address of the machine, only this machine knows how to reach it.
fn default_advertise(reader: &mut Reader, listen: SocketAddr, store: &DeclaredStore) -> String {
    if !listen.ip().is_unspecified() {
        return format!("http://{listen}");
    }
    match store {
        DeclaredStore::Etcd { .. } => reader.refuse(
            "coordinator.listen",
            &format!("other machines cannot reach {}", listen.ip()),
            Some("set `coordinator.advertise` to the URL under which agents and other coordinators reach this one"),
        ),
        // Nobody is ever redirected to the only coordinator there is.
        DeclaredStore::Memory | DeclaredStore::File(_) => {}
    }
    format!("http://127.0.0.1:{}", listen.port())
}

fn store(reader: &mut Reader) -> DeclaredStore {
    let written = reader
        .parsed("coordinator.store", Written::parse)
        .unwrap_or_else(|| Written::File(PathBuf::from(store_url::DEFAULT_FILE)));
    let password = reader.secret("coordinator.store_password");
    let tls = tls(reader);
    match written {
        Written::Etcd { user, hosts, prefix } => {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let endpoints = hosts.iter().map(|host| format!("{scheme}://{host}")).collect();
            DeclaredStore::Etcd {
                endpoints,
                prefix,
                login: login(reader, user, password),
                tls,
            }
        }
        Written::Memory | Written::File(_) if password.is_some() || tls.is_some() => {
            let key = super::raw::KEYS
                .iter()
                .find(|key| key.starts_with("coordinator.store_") && reader.origin(key).is_some())
                .unwrap_or(&"coordinator.store");
            reader.refuse(
                key,
                "only an etcd store has a login or TLS",
                Some("remove it, or set `coordinator.store` to etcd://.."),
            );
            DeclaredStore::Memory
        }
        Written::Memory => DeclaredStore::Memory,
        Written::File(path) => DeclaredStore::File(match reader.origin("coordinator.store") {
            Some(super::raw::Origin::Environment(_) | super::raw::Origin::Flag(_)) => path,
            Some(super::raw::Origin::File { .. }) | None => reader.beside_the_file(&path),
        }),
    }
}

fn login(
    reader: &mut Reader,
    user: Option<String>,
    password: Option<Placed<Source>>,
) -> Option<DeclaredLogin> {
    match (user, password) {
        (Some(user), Some(Placed { value, origin })) => Some(DeclaredLogin {
            user,
            password: value,
            origin,
        }),
        (None, None) => None,
        (Some(user), None) => {
            let advice = "set `coordinator.store_password_env` or `coordinator.store_password_file`";
            reader.refuse(
                "coordinator.store",
                &format!("the etcd user {user} has no password"),
                Some(advice),
            );
            None
        }
        (None, Some(_)) => {
            reader.refuse(
                "coordinator.store",
                "there is a password, but no user",
                Some("write etcd://USER@host:2379"),
            );
            None
        }
    }
}

fn tls(reader: &mut Reader) -> Option<EtcdTls> {
    let ca_file = reader.path("coordinator.store_ca_file");
    let cert_file = reader.path("coordinator.store_cert_file");
    let key_file = reader.path("coordinator.store_key_file");
    let identity = match (cert_file, key_file) {
        (Some(cert_file), Some(key_file)) => Some(Identity { cert_file, key_file }),
        (None, None) => None,
        (Some(_), None) => {
            reader.refuse(
                "coordinator.store_cert_file",
                "a certificate needs its `store_key_file`",
                None,
            );
            None
        }
        (None, Some(_)) => {
            reader.refuse(
                "coordinator.store_key_file",
                "a key needs its `store_cert_file`",
                None,
            );
            None
        }
    };
    (ca_file.is_some() || identity.is_some()).then_some(EtcdTls { ca_file, identity })
}

fn agent(reader: &mut Reader, host: &str) -> Agent {
    let id = reader.parsed("agent.id", |text| {
        AgentId::try_from(text).map_err(|error| error.to_string())
    });
    let mut coordinators = Vec::new();
    for text in reader
        .texts("agent.coordinator")
        .unwrap_or_else(|| vec![format!("http://{DEFAULT_LISTEN}")])
    {
        match http_url(&text) {
            Ok(url) => coordinators.push(url),
            Err(why) => reader.refuse("agent.coordinator", &why, None),
        }
    }
    if coordinators.is_empty() && reader.problems.is_empty() {
        reader.refuse("agent.coordinator", "it names no coordinator", None);
    }
    Agent {
        id: id.unwrap_or_else(|| agent_of_host(host)),
        coordinators,
        // Two: one to work and one to look after it.
        connections_per_server: reader.whole("agent.connections_per_server", 20, 2..=10_000),
    }
}

/// A host's name as an agent's: what an id cannot hold becomes `-`.
fn agent_of_host(host: &str) -> AgentId {
    let name: String = host
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        })
        .take(128)
        .collect();
    AgentId::try_from(name.trim_start_matches(['.', '_', '-']))
        .unwrap_or_else(|_| AgentId::try_from("agent").expect("`agent` is an id"))
}

fn databases(reader: &mut Reader, folder: &Path) -> Vec<Declared> {
    let mut databases: Vec<Declared> = Vec::new();
    for given in reader.databases() {
        match Declared::read(&given, folder) {
            Err(problems) => reader.problems.extend(problems),
            Ok(declared) if databases.iter().any(|other| other.name == declared.name) => {
                let what = format!("there is already a database named {}", declared.name);
                let mut problem = declared.origin.problem(what);
                problem.advice = Some("give each database a name of its own".to_owned());
                reader.problems.push(problem);
            }
            Ok(declared) => databases.push(declared),
        }
    }
    databases
}

fn pool(reader: &mut Reader) -> Pool {
    let default = Pool::default();
    // By number of migrations: under 10, up to 50, up to 100, more.
    let profile = reader.parsed("connection.pool.profile", |text| match text {
        "light" => Ok((1, 5)),
        "medium" => Ok((2, 10)),
        "heavy" => Ok((5, 20)),
        "parallel" => Ok((10, 50)),
        _ => Err(format!(
            "expected light, medium, heavy or parallel, found `{text}`"
        )),
    });
    let (least, most) = profile.unwrap_or((default.min_size, default.max_size));
    let max_size = reader.whole("connection.pool.max_size", most, 2..=10_000);
    // A pool made smaller than the default minimum needs no second setting.
    let min_size = reader.whole("connection.pool.min_size", least.min(max_size), 0..=10_000);
    if min_size > max_size {
        let what = format!("it is {min_size}, more than max_size, which is {max_size}");
        reader.refuse("connection.pool.min_size", &what, None);
    }
    let mut seconds = |name: &str, default: Duration| {
        reader.duration(&format!("connection.pool.{name}"), SECOND, default, Zero::Refused)
    };
    Pool {
        min_size,
        max_size,
        max_idle_time: seconds("max_idle_time", default.max_idle_time),
        max_lifetime: seconds("max_lifetime", default.max_lifetime),
        wait_timeout: seconds("wait_timeout", default.wait_timeout),
        create_timeout: seconds("create_timeout", default.create_timeout),
        recycle_timeout: seconds("recycle_timeout", default.recycle_timeout),
    }
}

fn migration(reader: &mut Reader) -> Migration {
    Migration {
        lock_timeout: reader.duration(
            "migration.lock_timeout",
            MILLISECOND,
            Duration::from_secs(30),
            Zero::Refused,
        ),
        statement_timeout: reader.duration(
            "migration.statement_timeout",
            MILLISECOND,
            Duration::from_mins(5),
            Zero::Off,
        ),
        cancel_idle_in_transaction: reader
            .optional_duration("migration.cancel_blockers.idle_in_transaction", MILLISECOND),
        max_replica_lag: reader.duration(
            "migration.max_replica_lag",
            SECOND,
            Duration::from_secs(2),
            Zero::Refused,
        ),
        throttle_query: reader.parsed("migration.throttle_query", |text| {
            Query::parse(text)
                .map(|query| query.text().to_owned())
                .map_err(|error| error.to_string())
        }),
        batch_log_retention: reader.duration(
            "migration.batch_log_retention",
            SECOND,
            Duration::from_hours(30 * 24),
            Zero::Off,
        ),
        directory: match reader.path("migration.directory") {
            Some(path) => path,
            None => reader.beside_the_file(Path::new("db/migrations")),
        },
        set: reader.parsed("migration.set", |text| {
            SetName::try_from(text).map_err(|error| error.to_string())
        }),
    }
}

fn otlp(reader: &mut Reader) -> Otlp {
    let endpoint = reader.parsed("observability.otlp.endpoint", |text| url_of("collector", text));
    let ca_file = reader.path("observability.otlp.ca_file");
    if ca_file.is_some()
        && !endpoint
            .as_deref()
            .is_some_and(|endpoint| endpoint.starts_with("https://"))
    {
        reader.refuse(
            "observability.otlp.ca_file",
            "only a collector at https:// is checked against authorities",
            Some("remove it, or set `observability.otlp.endpoint` to https://.."),
        );
    }
    Otlp { endpoint, ca_file }
}

fn observability(reader: &mut Reader) -> Observability {
    let port = reader.whole("observability.prometheus.port", 9090, 1..=65_535);
    Observability {
        prometheus: Prometheus {
            enabled: reader.truth("observability.prometheus.enabled", false),
            address: reader
                .parsed("observability.prometheus.address", |text| {
                    text.parse()
                        .map_err(|_| format!("expected an IP address, found `{text}`"))
                })
                .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            port: u16::try_from(port).unwrap_or(9090),
        },
        otlp: otlp(reader),
        error_details: reader.truth("observability.error_details", false),
    }
}
