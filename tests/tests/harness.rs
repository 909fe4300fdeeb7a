//! The harness itself: its servers live, crash and come back, and nothing outlives a killed test.

use anyhow::Context as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tests::etcd::Etcd;
use tests::eventually;
use tests::port::Port;
use tests::postgres::{Options, Server, Shutdown};
use tests::process::Process;
use tests::tls::Authority;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_server_keeps_its_rows_over_a_crash() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let database = server.database("orders").await?;
    database
        .execute("CREATE TABLE t AS SELECT 1::bigint AS n")
        .await?;

    for how in [Shutdown::Immediate, Shutdown::Kill, Shutdown::Fast] {
        server.restart(how).await?;
        assert_eq!(database.number("SELECT n FROM t").await?, 1, "after {how:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_answers_again_when_thawed() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let session = server.admin("postgres").await?;
    server.freeze()?;
    let frozen = tokio::time::timeout(Duration::from_millis(300), session.number("SELECT 1::bigint")).await;
    server.thaw()?;

    assert!(frozen.is_err(), "a frozen server answered: {frozen:?}");
    assert_eq!(session.number("SELECT 2::bigint").await?, 2);
    Ok(())
}

#[tokio::test]
async fn servers_are_no_clones_and_owners_no_superusers() -> anyhow::Result<()> {
    let (one, other) = tokio::try_join!(Server::start(), Server::start())?;
    let identity = "SELECT system_identifier FROM pg_control_system()";

    assert_ne!(
        one.admin("postgres").await?.number(identity).await?,
        other.admin("postgres").await?.number(identity).await?
    );
    let database = one.fresh_database().await?;
    let superuser = "SELECT rolsuper::int::bigint FROM pg_roles WHERE rolname = current_user";
    assert_eq!(database.number(superuser).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_server_with_a_certificate_speaks_tls() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let certificate = authority.sign("postgres", &["localhost", "127.0.0.1"])?;
    let server = Server::start_with(Options {
        certificate: Some(certificate),
        ..Options::default()
    })
    .await?;

    let tls = tokio_postgres_rustls::MakeRustlsConnect::new(authority.client()?);
    let url = format!("{}?sslmode=require", server.url("postgres"));
    let (client, connection) = tokio_postgres::connect(&url, tls).await?;
    let connection = tokio::spawn(connection);
    let row = client
        .query_one("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[])
        .await?;
    assert!(row.get::<_, bool>(0));
    connection.abort();
    Ok(())
}

#[tokio::test]
async fn etcd_keeps_its_keys_over_a_crash() -> anyhow::Result<()> {
    let mut etcd = Etcd::start().await?;
    etcd_client::Client::connect([etcd.endpoint()], None)
        .await?
        .put("key", "value", None)
        .await?;
    etcd.kill()?;
    etcd.resume().await?;

    let answer = etcd_client::Client::connect([etcd.endpoint()], None)
        .await?
        .get("key", None)
        .await?;
    assert_eq!(
        answer.kvs().first().map(etcd_client::KeyValue::value),
        Some("value".as_bytes())
    );
    Ok(())
}

#[tokio::test]
async fn etcd_with_tls_refuses_strangers() -> anyhow::Result<()> {
    let authority = Authority::new()?;
    let certificate = authority.sign("client", &["127.0.0.1"])?;
    let etcd = Etcd::start_with_tls(&authority, &certificate).await?;
    let trust =
        || etcd_client::TlsOptions::new().ca_certificate(etcd_client::Certificate::from_pem(authority.pem()));
    let connect = async |tls| {
        let options = etcd_client::ConnectOptions::new().with_tls(tls);
        let mut client = etcd_client::Client::connect([etcd.endpoint()], Some(options)).await?;
        client.get("key", None).await
    };

    connect(trust())
        .await
        .expect_err("a client without a certificate was let in");
    let identity = etcd_client::Identity::from_pem(certificate.chain(), certificate.key());
    connect(trust().identity(identity)).await?;
    Ok(())
}

#[tokio::test]
async fn a_line_is_awaited_and_an_early_end_is_reported() -> anyhow::Result<()> {
    let mut shell = Command::new("bash");
    shell.args(["-c", "echo one; echo two >&2; exit 3"]);
    let mut process = Process::start("shell", shell)?;

    assert_eq!(process.wait_for_line("tw", SOON).await?, "two");
    let error = process
        .wait_for_line("three", SOON)
        .await
        .expect_err("there is no third line");
    assert!(
        error.to_string().contains("ended without printing `three`:\n"),
        "{error}"
    );
    assert_eq!(process.wait(SOON).await?.code(), Some(3));
    assert_eq!(
        (process.stdout().as_str(), process.stderr().as_str()),
        ("one\n", "two\n")
    );
    Ok(())
}

#[test]
fn two_claims_are_two_ports() -> anyhow::Result<()> {
    let ports = (0..50).map(|_| Port::claim()).collect::<Result<Vec<_>, _>>()?;
    let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), ports.len());
    Ok(())
}

/// A process inherits open sockets of the one that starts it, for the moment until it runs its own program.
#[test]
fn a_claimed_port_may_be_listened_on_while_processes_start() -> anyhow::Result<()> {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| -> anyhow::Result<()> {
            while !ended.load(Ordering::Relaxed) {
                Command::new("/bin/true").status()?;
            }
            Ok(())
        });
        let claimed = (0..3_000).try_for_each(|_| -> anyhow::Result<()> {
            let port = Port::claim()?;
            let listening = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()));
            listening
                .map(drop)
                .with_context(|| format!("port {}", port.number()))
        });
        ended.store(true, Ordering::Relaxed);
        starting.join().expect("it does not panic")?;
        claimed
    })
}

#[tokio::test]
async fn nothing_outlives_a_killed_test() -> anyhow::Result<()> {
    let mut itself = Command::new(std::env::current_exe()?);
    itself.args(["--exact", "starts_servers_and_waits", "--ignored", "--nocapture"]);
    let mut victim = Process::start("a test", itself)?;
    let line = victim.wait_for_line("started ", SOON).await?;
    let (_, started) = line.split_once("started ").context("no pids")?;
    let alive = |pid: &str| std::path::Path::new("/proc").join(pid).exists();
    let (pids, folders): (Vec<&str>, Vec<&str>) = started.split(' ').partition(|word| !word.starts_with('/'));
    assert!(pids.iter().all(|pid| alive(pid)), "{line}");

    victim.kill();

    eventually("the servers of the killed test to end", SOON, || async {
        let gone =
            pids.iter().all(|pid| !alive(pid)) && folders.iter().all(|f| !std::path::Path::new(f).exists());
        Ok(gone.then_some(()))
    })
    .await
}

#[tokio::test]
#[ignore = "the victim of `nothing_outlives_a_killed_test`"]
async fn starts_servers_and_waits() -> anyhow::Result<()> {
    let mut server = Server::start().await?;
    let etcd = Etcd::start().await?;
    let folder = server
        .admin("postgres")
        .await?
        .query_one("SHOW data_directory", &[])
        .await?
        .get::<_, String>(0);
    server.freeze()?;
    println!("started {} {} {folder}", server.pid()?, etcd.pid()?);
    std::future::pending().await
}
