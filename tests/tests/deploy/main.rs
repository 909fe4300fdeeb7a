//! What `docker-compose.yml` and `deploy/` tell the containers is what the program, etcd and PostgreSQL understand:
//! every command, flag, port, path, variable and name in them is checked against the code, and then the settings files
//! as they are carry a rollout.

mod compose;

use anyhow::{Context as _, ensure};
use compose::{Compose, root};
use shared::settings::{self, Lookups, Settings, StoreUrl};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tests::etcd::Etcd;
use tests::port::Port;
use tests::postgres::Server;
use tests::process::Confiture;

#[tokio::test]
async fn every_command_and_flag_is_one_the_program_has() -> anyhow::Result<()> {
    for service in Compose::read()?.services_of("confiture") {
        for words in [service.command(), service.health_check()] {
            let words: Vec<&str> = words
                .iter()
                .map(String::as_str)
                .skip_while(|word| *word == "confiture")
                .collect();
            Confiture::check_usage(&words)
                .await
                .with_context(|| service.name.clone())?;
        }
    }
    Ok(())
}

#[test]
fn every_path_is_mounted_from_a_file_that_is_there() -> anyhow::Result<()> {
    for service in Compose::read()?.services() {
        for (source, _) in service.bind_mounts() {
            ensure!(
                root().join(&source).exists(),
                "{}: there is no {source}",
                service.name
            );
        }
    }
    for service in Compose::read()?.services_of("confiture") {
        service.settings_file()?;
    }
    Ok(())
}

#[test]
fn the_settings_are_accepted_and_find_each_other() -> anyhow::Result<()> {
    let compose = Compose::read()?;
    let postgres = compose.service("postgres")?;
    let etcd_port = compose.service("etcd")?.flag_port("--listen-client-urls")?;
    let coordinator = {
        let service = compose.service("coordinator")?;
        let coordinator = with_environment(&service.environment(), |lookups| {
            read_settings(&service)?
                .coordinator(lookups)
                .map_err(anyhow::Error::from)
        })?;
        let port = coordinator.listen.port();
        assert!(
            coordinator.listen.ip().is_unspecified(),
            "other containers must reach it"
        );
        assert_eq!(coordinator.advertise, format!("http://{}:{port}", service.name));
        assert_eq!(
            service.environment()["CONFITURE_COORDINATOR"],
            format!("http://127.0.0.1:{port}")
        );
        assert_eq!(
            service.published_ports(),
            [port],
            "the published port is the one it listens on"
        );
        let StoreUrl::Etcd(etcd) = &coordinator.store else {
            anyhow::bail!("the store is not etcd")
        };
        assert_eq!(etcd.endpoints, [format!("http://etcd:{etcd_port}")]);
        coordinator
    };

    let mut served = BTreeSet::new();
    for name in ["agent-a", "agent-b"] {
        let service = compose.service(name)?;
        let environment = service.environment();
        let settings = read_settings(&service)?;
        assert_eq!(settings.agent.id.as_str(), name);
        assert_eq!(
            settings.agent.coordinators,
            std::slice::from_ref(&coordinator.advertise)
        );
        assert_eq!(environment["CONFITURE_COORDINATOR"], coordinator.advertise);
        for database in with_environment(&environment, |lookups| settings.databases(lookups))? {
            let config: tokio_postgres::Config = database.url.expose().parse()?;
            assert_eq!(
                config.get_hosts(),
                [tokio_postgres::config::Host::Tcp(postgres.name.clone())]
            );
            assert_eq!(config.get_ports(), [5432]);
            assert_eq!(config.get_user(), Some("confiture"));
            assert_eq!(
                config.get_password(),
                Some(postgres.environment()["DEMO_PASSWORD"].as_bytes())
            );
            assert_eq!(config.get_dbname(), Some(database.name.as_str()));
            assert!(
                served.insert(database.name.as_str().to_owned()),
                "{} is served twice",
                database.name
            );
        }
    }
    let script = std::fs::read_to_string(root().join("deploy/postgres/databases.sh"))?;
    let created = script
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE DATABASE ")?.split(' ').next());
    assert_eq!(
        created.map(str::to_owned).collect::<BTreeSet<_>>(),
        served,
        "what is created is what is served"
    );
    Ok(())
}

#[test]
fn services_wait_only_for_what_has_a_health_check() -> anyhow::Result<()> {
    let compose = Compose::read()?;
    for service in compose.services() {
        assert!(
            !service.health_check().is_empty(),
            "{} has no health check",
            service.name
        );
        for (other, condition) in service.depends_on() {
            compose.service(&other)?;
            assert_eq!(condition, "service_healthy");
        }
    }
    Ok(())
}

#[test]
fn etcd_knows_its_flags() -> anyhow::Result<()> {
    let help = Command::new("etcd").arg("--help").output()?;
    let help = String::from_utf8_lossy(&help.stdout).into_owned() + &String::from_utf8_lossy(&help.stderr);
    for word in Compose::read()?.service("etcd")?.command() {
        let flag = word.split('=').next().unwrap_or_default();
        ensure!(
            help.split_whitespace().any(|known| known == flag),
            "etcd has no flag {flag}"
        );
    }
    Ok(())
}

#[test]
fn the_images_are_built_from_what_is_there() -> anyhow::Result<()> {
    let compose = Compose::read()?;
    let dockerfile = std::fs::read_to_string(root().join("deploy/Dockerfile"))?;
    let stages: BTreeSet<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM ")?.split(" AS ").nth(1))
        .collect();
    for service in compose.services() {
        if let Some((file, target)) = service.build() {
            assert_eq!(file, "deploy/Dockerfile");
            assert!(
                stages.contains(target.as_str()),
                "{}: the Dockerfile has no stage {target}",
                service.name
            );
        }
    }
    // The program is copied from where cargo puts it, and found under the name it is started with.
    let binary = tests::process::binary()?
        .file_name()
        .and_then(|name| name.to_str())
        .context("a name")?;
    assert!(dockerfile.contains(&format!(
        "/source/target/release/{binary} /usr/local/bin/{binary}\n"
    )));
    assert!(dockerfile.contains(&format!("ENTRYPOINT [\"{binary}\"]\n")));
    // The compiler is one that can build it.
    let manifest = std::fs::read_to_string(root().join("Cargo.toml"))?;
    let needed = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .context("no rust-version")?;
    assert!(dockerfile.contains(&format!("FROM rust:{}-", needed.trim_matches('"'))));
    Ok(())
}

#[tokio::test]
async fn the_deployed_settings_carry_a_rollout() -> anyhow::Result<()> {
    let compose = Compose::read()?;
    let (server, etcd, port) = (Server::start().await?, Etcd::start().await?, Port::claim()?);
    let listen = format!("127.0.0.1:{}", port.number());
    let url = format!("http://{listen}");
    let start = |name: &str| -> anyhow::Result<Confiture> {
        let service = compose.service(name)?;
        let mut words = service.command();
        let config = words
            .iter()
            .position(|word| word == "--config")
            .context("no --config")?
            + 1;
        words[config] = root().join(service.settings_file()?).display().to_string();
        Ok(Confiture::new(words))
    };
    // Only addresses differ from what stands in the files.
    let _coordinator = start("coordinator")?
        .env("CONFITURE_COORDINATOR_LISTEN", &listen)
        .env("CONFITURE_COORDINATOR_ADVERTISE", &url)
        .env("CONFITURE_COORDINATOR_STORE", etcd.store("confiture"))
        .start("coordinator")?;
    let mut agents = Vec::new();
    for (name, databases) in [
        ("agent-a", ["orders", "billing"]),
        ("agent-b", ["users", "catalog"]),
    ] {
        let mut agent = start(name)?.env("CONFITURE_AGENT_COORDINATOR", &url);
        for database in databases {
            let variable = format!("{}_URL", database.to_uppercase());
            agent = agent.env(&variable, server.database(database).await?.url());
        }
        agents.push(agent.start(name)?);
    }

    let soon = std::time::Duration::from_secs(30);
    for service in compose.services_of("confiture") {
        let check = service.health_check_shell();
        tests::eventually(&format!("{} to be healthy", service.name), soon, || async {
            let mut shell = Command::new("bash");
            let folder = tests::process::binary()?
                .parent()
                .context("a folder")?
                .display()
                .to_string();
            let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
            let output = shell
                .args(["-c", &check])
                .env("CONFITURE_COORDINATOR", &url)
                .env("PATH", path)
                .output()?;
            ensure!(output.status.success(), "{check}: {output:?}");
            Ok(Some(()))
        })
        .await?;
    }
    let (source, target) = compose
        .service("coordinator")?
        .bind_mounts()
        .pop()
        .context("no migrations")?;
    assert_eq!(
        target, "/migrations",
        "what the compose file tells its reader to roll out"
    );
    let rollout =
        Confiture::new(["rollout", "start", "--all", "--watch", "--migrations"]).arg(root().join(source));
    rollout.env("CONFITURE_COORDINATOR", &url).succeed().await?;

    for database in ["orders", "billing", "users", "catalog"] {
        let columns = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'events'::regclass AND attname = 'gross_cents'";
        let session = tests::postgres::Session::open(&server.url(database)).await?;
        assert_eq!(session.number(columns).await?, 1, "{database}");
    }
    Ok(())
}

/// The settings as the service's process would read them.
fn read_settings(service: &compose::Service) -> anyhow::Result<Settings> {
    let path = root().join(service.settings_file()?);
    let text = std::fs::read_to_string(&path)?;
    let sources = settings::Sources {
        file: Some(settings::File {
            path: &path,
            text: &text,
        }),
        environment: service.environment().into_iter().collect(),
        flags: Vec::new(),
        host: &service.name,
    };
    Settings::read(&sources).with_context(|| format!("reading {}", path.display()))
}

/// Secrets come from the service's environment alone.
fn with_environment<T>(environment: &BTreeMap<String, String>, read: impl FnOnce(&Lookups<'_>) -> T) -> T {
    let variable = |name: &str| environment.get(name).cloned();
    read(&Lookups {
        environment: &variable,
        file: &|_| Err("no secret is in a file here".to_owned()),
    })
}
