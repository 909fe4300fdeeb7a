//! Settings as users write them, and what they are told when something is wrong.

use super::*;
use crate::migration::Problems;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

fn with(text: &str, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Settings, Problems> {
    Settings::read(&Sources {
        file: Some(File {
            path: Path::new("etc/confiture.yaml"),
            text,
        }),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags: flags.to_vec(),
        host: "db-host.example",
    })
}

fn read(text: &str) -> Settings {
    with(text, &[], &[]).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> Vec<String> {
    let problems = with(text, &[], &[]).expect_err("accepted").0;
    problems
        .iter()
        .map(|problem| problem.to_string().replace("etc/confiture.yaml:", ""))
        .collect()
}

const LOOKUPS: Lookups<'_> = Lookups {
    environment: &|name| (name == "ORDERS_URL").then(|| "postgres://a:pw@h/orders".to_owned()),
    file: &|path| match path.to_str() {
        Some("etc/secrets/etcd") => Ok("hunter2\n".to_owned()),
        _ => Err("no such file or directory".to_owned()),
    },
};

#[test]
fn without_any_source_the_defaults_hold() {
    let settings = Settings::read(&Sources {
        host: "_my host",
        ..Sources::default()
    })
    .unwrap();
    let coordinator = settings.coordinator(&LOOKUPS).unwrap();
    assert_eq!(coordinator.listen.to_string(), "127.0.0.1:7070");
    assert_eq!(coordinator.advertise, "http://127.0.0.1:7070");
    assert_eq!(coordinator.store, StoreUrl::File("confiture.redb".into()));
    assert_eq!(coordinator.leader_lease, Duration::from_secs(8));
    assert_eq!(coordinator.agent_lease, Duration::from_secs(30));
    assert_eq!(settings.agent.id.as_str(), "my-host");
    assert_eq!(settings.agent.coordinators, ["http://127.0.0.1:7070"]);
    assert_eq!(settings.agent.connections_per_server, 20);
    assert_eq!(settings.connection.pool, Pool::default());
    assert_eq!(settings.migration.lock_timeout, Duration::from_secs(30));
    assert_eq!(settings.migration.statement_timeout, Duration::from_mins(5));
    assert_eq!(settings.migration.directory, Path::new("db/migrations"));
    assert_eq!(settings.migration.set, None);
    assert_eq!(
        settings.observability.prometheus,
        Prometheus {
            enabled: false,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 9090
        }
    );
    assert_eq!(settings.database_names().count(), 0);
}

#[test]
fn the_guides_file_is_read_with_the_guides_units() {
    let settings = read(
        "connection:\n  pool:\n    min_size: 3\n    max_size: 12\n    max_idle_time: 300\n    max_lifetime: 1h\n\
         migration:\n  lock_timeout: 30000\n  statement_timeout: 5min\n\
         observability:\n  prometheus:\n    enabled: true\n    port: 9191\n",
    );
    assert_eq!(settings.connection.pool.min_size, 3);
    assert_eq!(settings.connection.pool.max_size, 12);
    assert_eq!(settings.connection.pool.max_idle_time, Duration::from_mins(5));
    assert_eq!(settings.connection.pool.max_lifetime, Duration::from_hours(1));
    assert_eq!(settings.migration.lock_timeout, Duration::from_secs(30));
    assert_eq!(settings.migration.statement_timeout, Duration::from_mins(5));
    assert_eq!(
        settings.observability.prometheus,
        Prometheus {
            enabled: true,
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 9191
        }
    );
}

#[test]
fn the_designs_file_is_read() {
    let settings = read(
        "coordinator: { listen: \"127.0.0.1:7071\", store: \"etcd://127.0.0.1:2379\" }\n\
         agent: { id: agent-a, coordinator: [\"http://127.0.0.1:7070\", \"http://127.0.0.1:7071/\"] }\n\
         databases:\n\
         - { name: orders, url: \"postgres://confiture@127.0.0.1:5432/orders\", labels: { env: prod, tier: 1 } }\n\
         - { name: billing, url_env: ORDERS_URL, direct_url_env: ORDERS_URL }\n",
    );
    let databases = settings.databases(&LOOKUPS).unwrap();
    assert_eq!(
        databases[0].labels,
        BTreeMap::from([
            ("env".to_owned(), "prod".to_owned()),
            ("tier".to_owned(), "1".to_owned())
        ])
    );
    assert_eq!(databases[1].url.expose(), "postgres://a:pw@h/orders");
    assert_eq!(
        databases[1].direct_url.as_ref().map(Secret::expose),
        Some("postgres://a:pw@h/orders")
    );
    assert_eq!(
        settings.agent.coordinators,
        ["http://127.0.0.1:7070", "http://127.0.0.1:7071"]
    );
    assert_eq!(
        settings.coordinator(&LOOKUPS).unwrap().store.to_string(),
        "etcd://127.0.0.1:2379/confiture"
    );
}

#[test]
fn a_later_layer_replaces_a_key_of_an_earlier_one() {
    let file =
        "migration: { lock_timeout: 1000, statement_timeout: 1000 }\ncoordinator: { store: 'file:a.redb' }";
    let flags = [Flag {
        key: "migration.lock_timeout",
        flag: "--lock-timeout",
        value: "3000".to_owned(),
    }];
    let environment = [
        ("CONFITURE_MIGRATION_LOCK_TIMEOUT", "2000"),
        ("CONFITURE_MIGRATION_STATEMENT_TIMEOUT", "2s"),
        ("CONFITURE_COORDINATOR_STORE", "file:b.redb"),
        ("CONFITURE_AGENT_COORDINATOR", "http://a:1, http://b:2"),
        ("CONFITURE_AGENT_ID", ""),
    ];
    let settings = with(file, &environment, &flags).unwrap();
    assert_eq!(settings.migration.lock_timeout, Duration::from_secs(3));
    assert_eq!(settings.migration.statement_timeout, Duration::from_secs(2));
    assert_eq!(settings.agent.coordinators, ["http://a:1", "http://b:2"]);
    assert_eq!(
        settings.agent.id.as_str(),
        "db-host.example",
        "an empty variable counts as not set"
    );
    assert_eq!(
        settings.coordinator(&LOOKUPS).unwrap().store,
        StoreUrl::File("b.redb".into())
    );
}

#[test]
fn relative_paths_of_the_file_are_beside_the_file() {
    let settings = read("migration: { directory: ../migrations }\ncoordinator: { store: 'file:./a.redb' }");
    assert_eq!(settings.migration.directory, Path::new("etc/../migrations"));
    assert_eq!(
        settings.coordinator(&LOOKUPS).unwrap().store,
        StoreUrl::File("etc/./a.redb".into())
    );
    assert_eq!(read("").migration.directory, Path::new("etc/db/migrations"));
    assert_eq!(
        read("").coordinator(&LOOKUPS).unwrap().store,
        StoreUrl::File("etc/confiture.redb".into())
    );
    assert_eq!(
        read("migration: { directory: /srv/m }").migration.directory,
        Path::new("/srv/m")
    );
}

#[test]
fn a_profile_sizes_the_pool_and_a_size_of_its_own_wins() {
    let pool = |text: &str| {
        let pool = read(&format!("connection: {{ pool: {{ {text} }} }}"))
            .connection
            .pool;
        (pool.min_size, pool.max_size)
    };
    assert_eq!(pool("profile: light"), (1, 5));
    assert_eq!(pool("profile: medium"), (2, 10));
    assert_eq!(pool("profile: heavy"), (5, 20));
    assert_eq!(pool("profile: parallel"), (10, 50));
    assert_eq!(pool("profile: parallel, max_size: 30"), (10, 30));
    assert_eq!(pool("profile: heavy, max_size: 3"), (3, 3));
}

#[test]
fn all_problems_are_told_at_once_each_with_its_place() {
    let text = "\
migration: { lock_timout: 5, statement_timeout: soon }
conection: {}
connection:
  pool: { min_size: 9, max_size: 4, profile: tiny }
lock_timeout: 5
databases:
  - { name: orders, url: 'postgres://h/x' }
  - { name: orders, url: 'postgres://h/y' }
  - { nam: b, url_env: A, url_file: b, labels: { 'a=b': c } }
agent: { connections_per_server: 0 }
";
    assert_eq!(
        problems(text),
        [
            "1:14: the key `migration.lock_timout` is not known\n  help: did you mean `migration.lock_timeout`?",
            "1:49: `migration.statement_timeout`: `soon` is not a duration: write a number with a unit, such as 500ms, 30s, 5min or 1h",
            "2:1: the key `conection` is not known\n  help: did you mean `connection`?",
            "4:21: `connection.pool.min_size`: it is 9, more than max_size, which is 4",
            "4:46: `connection.pool.profile`: expected light, medium, heavy or parallel, found `tiny`",
            "5:1: the key `lock_timeout` is not known\n  help: did you mean `migration.lock_timeout`?",
            "8:5: there is already a database named orders\n  help: give each database a name of its own",
            "9:5: this database has no name\n  help: add `name:`, the name by which the fleet knows it",
            "9:7: the key `databases.nam` is not known\n  help: did you mean `name`?",
            "9:27: give only one of url, url_env and url_file",
            "9:50: `a=b` cannot be used in a label\n  help: selectors are written `key=value,key=value`: use no space, `,` or `=`",
            "10:34: `agent.connections_per_server`: expected a whole number from 2 to 10000, found `0`",
        ]
    );
}

#[test]
fn a_wrong_shape_is_told_with_what_is_known_there() {
    assert_eq!(
        problems("agent: 5"),
        ["1:8: `agent` must hold keys, not `5`\n  help: known here: id, coordinator, connections_per_server"]
    );
    assert_eq!(
        problems("- a"),
        [
            "1:1: the settings must be keys, not a list\n  help: known here: coordinator, agent, connection, migration, observability, databases"
        ]
    );
    assert_eq!(
        problems("agent:\n  id:\n"),
        ["2:3: `agent.id` has no value: write one or remove the key"]
    );
    assert_eq!(
        problems("databases: { a: b }")[0].lines().next(),
        Some("1:12: `databases` must be a list, not a mapping")
    );
    assert_eq!(
        problems("agent: { id: [a] }"),
        ["1:14: `agent.id`: expected a single value, found a list"]
    );
    assert!(
        problems("agent: {")
            .first()
            .is_some_and(|p| p.contains("this is not YAML"))
    );
    assert_eq!(
        read("agent:\n").agent.connections_per_server,
        20,
        "a section whose keys are commented out is none"
    );
}

#[test]
fn relations_between_settings_are_checked() {
    assert_eq!(
        problems("coordinator: { leader_lease: 8, agent_lease: 20 }"),
        [
            "1:46: `coordinator.agent_lease`: agent_lease (20s) must be at least leader_lease (8s) and 15s more, so that work goes on while a new leader is elected"
        ]
    );
    assert!(problems("coordinator: { leader_lease: 20 }")[0].starts_with("1:30: `coordinator.leader_lease`"));
    assert!(problems("coordinator: { leader_lease: 2500ms }")[0].contains("whole seconds"));
    assert!(
        problems("coordinator: { listen: '0.0.0.0:7070', store: 'etcd://a:1' }")[0]
            .contains("coordinator.advertise")
    );
    let open = read("coordinator: { listen: '0.0.0.0:7070' }")
        .coordinator(&LOOKUPS)
        .unwrap();
    assert_eq!(open.advertise, "http://127.0.0.1:7070");
}

#[test]
fn an_etcd_login_needs_both_halves_and_tls_both_files() {
    assert!(
        problems("coordinator: { store: 'etcd://ann@h:1' }")[0].contains("the etcd user ann has no password")
    );
    assert!(
        problems("coordinator: { store: 'etcd://h:1', store_password: x }")[0]
            .contains("there is a password, but no user")
    );
    assert!(
        problems("coordinator: { store: 'etcd://h:1', store_key_file: x }")[0]
            .contains("a key needs its `store_cert_file`")
    );
    assert!(
        problems("coordinator: { store: 'memory:', store_ca_file: x }")[0].contains("only an etcd store")
    );
    let settings = read(
        "coordinator: { store: 'etcd://ann@h:1', store_password_file: secrets/etcd, store_ca_file: /ca, store_cert_file: c, store_key_file: k }",
    );
    let StoreUrl::Etcd(etcd) = settings.coordinator(&LOOKUPS).unwrap().store else {
        panic!("not etcd")
    };
    assert_eq!(etcd.endpoints, ["https://h:1"]);
    assert_eq!(
        etcd.login,
        Some(Login {
            user: "ann".to_owned(),
            password: Secret::new("hunter2")
        })
    );
    let identity = Identity {
        cert_file: "etc/c".into(),
        key_file: "etc/k".into(),
    };
    assert_eq!(
        etcd.tls,
        Some(EtcdTls {
            ca_file: Some("/ca".into()),
            identity: Some(identity)
        })
    );
}

#[test]
fn secrets_are_fetched_only_by_who_needs_them() {
    let settings = read(
        "databases:\n- { name: a, url_env: NOT_SET }\n- { name: b, url_file: gone }\n- { name: c, url_env: ORDERS_URL }",
    );
    assert!(
        settings.coordinator(&LOOKUPS).is_ok(),
        "a coordinator needs no database's URL"
    );
    let name = DatabaseName::try_from("c").unwrap();
    assert!(
        settings.database(&name, &LOOKUPS).unwrap().is_ok(),
        "another database's URL is not needed"
    );
    let problems = settings.databases(&LOOKUPS).unwrap_err().to_string();
    assert_eq!(
        problems,
        "etc/confiture.yaml:2:3: the url of database a: the environment variable NOT_SET is not set\n\
         etc/confiture.yaml:3:3: the url of database b: cannot read etc/gone: no such file or directory"
    );
}

#[test]
fn no_message_and_no_debug_text_repeats_a_password() {
    let text = "databases:\n- { name: a, url: 'mysql://u:hunter2@h/x' }\n- { name: b, url: 'postgres://u:hunter2@h/x', urll: 'x' }\n\
                agent: { coordinator: 'postgres://u:hunter2@h' }\ncoordinator: { store: 'etcd://u:hunter2@h:1' }";
    let told = problems(text).join("\n");
    assert!(
        told.contains("not a PostgreSQL URL") && !told.contains("hunter2"),
        "{told}"
    );
    let settings = read("databases:\n- { name: b, url: 'postgres://u:hunter2@h/x' }");
    let shown = format!("{settings:?} {:?}", settings.databases(&LOOKUPS));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_misspelt_variable_is_told_and_those_of_others_are_left_alone() {
    let told = with("", &[("CONFITURE_MIGRATION_LOCK_TIMOUT", "5")], &[])
        .unwrap_err()
        .to_string();
    assert_eq!(
        told,
        "environment variable CONFITURE_MIGRATION_LOCK_TIMOUT: no setting has this name\n  help: did you mean CONFITURE_MIGRATION_LOCK_TIMEOUT?"
    );
    let told = with("", &[("CONFITURE_CONNECTION_POOL_MAX_SIZE", "many")], &[])
        .unwrap_err()
        .to_string();
    assert!(
        told.starts_with(
            "environment variable CONFITURE_CONNECTION_POOL_MAX_SIZE: `connection.pool.max_size`: "
        ),
        "{told}"
    );
    for name in [
        "CONFITURE_LOG",
        "CONFITURE_COORDINATOR_SERVICE_HOST",
        "CONFITURE_COORDINATOR_PORT_7070_TCP_ADDR",
        "CONFITURE_COORDINATOR_PORT",
        "PATH",
    ] {
        assert!(with("", &[(name, "x")], &[]).is_ok(), "{name}");
    }
}

#[test]
fn every_key_can_be_given_by_its_variable() {
    for key in raw::KEYS {
        let told = with("", &[(&raw::variable(key), "?")], &[]);
        // `?` is a path and a password, but nothing else; what matters is that no variable goes unnoticed.
        let accepts_anything =
            key.ends_with("_file") || key.contains("password") || key.ends_with("directory");
        assert!(told.is_err() || accepts_anything, "{key}");
    }
}
