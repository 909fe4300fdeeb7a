//! TLS to PostgreSQL as `sslmode` asks for it, against a real server.

use tests::directory::Directory;
use tests::opened;
use tests::postgres::{Options, Server};
use tests::tls::Authority;

/// What connecting with these parameters ends with: the message, or nothing.
async fn problem(url: &str, parameters: &str) -> anyhow::Result<Option<String>> {
    let separator = if url.contains('?') { '&' } else { '?' };
    let database = opened(&format!("{url}{separator}{parameters}"))?;
    Ok(database.identity().await.err().map(|error| error.to_string()))
}

#[tokio::test]
async fn verify_full_wants_the_right_authority_and_the_right_name() -> anyhow::Result<()> {
    let (ours, other) = (Authority::new()?, Authority::new()?);
    let files = Directory::new()?;
    let root = files.write("root.crt", ours.pem())?.display().to_string();
    let stranger = files.write("other.crt", other.pem())?.display().to_string();
    let right = Options {
        certificate: Some(ours.sign("server", &["localhost", "127.0.0.1"])?),
        ..Options::default()
    };
    let wrong_name = Options {
        certificate: Some(ours.sign("server", &["elsewhere.example"])?),
        ..Options::default()
    };
    let (right, wrong_name) = tokio::try_join!(Server::start_with(right), Server::start_with(wrong_name))?;
    let (right, wrong_name) = (right.url("postgres"), wrong_name.url("postgres"));

    for accepted in [
        "sslmode=require".to_owned(),
        format!("sslmode=verify-ca&sslrootcert={root}"),
        format!("sslmode=verify-full&sslrootcert={root}"),
    ] {
        assert_eq!(problem(&right, &accepted).await?, None, "{accepted}");
    }
    assert_eq!(
        problem(&wrong_name, &format!("sslmode=verify-ca&sslrootcert={root}")).await?,
        None
    );
    for (url, refused) in [
        (&right, format!("sslmode=verify-ca&sslrootcert={stranger}")),
        (&right, format!("sslmode=verify-full&sslrootcert={stranger}")),
        (&right, format!("sslmode=require&sslrootcert={stranger}")),
        (&wrong_name, format!("sslmode=verify-full&sslrootcert={root}")),
        (&right, "sslmode=verify-full".to_owned()),
    ] {
        let message = problem(url, &refused).await?.unwrap_or_default();
        assert!(message.contains("certificate"), "{refused}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn require_is_refused_by_a_server_without_tls_and_prefer_is_not() -> anyhow::Result<()> {
    let url = Server::shared().await?.url("postgres");
    let message = problem(&url, "sslmode=require").await?.unwrap_or_default();
    assert!(message.contains("TLS"), "{message}");
    assert_eq!(problem(&url, "sslmode=prefer").await?, None);
    assert_eq!(problem(&url, "sslmode=disable").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_missing_root_certificate_is_named() -> anyhow::Result<()> {
    let url = Server::shared().await?.url("postgres");
    let missing = format!("{url}?sslmode=verify-full&sslrootcert=/nowhere/root.crt");
    let message = opened(&missing)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(message.contains("/nowhere/root.crt"), "{message}");
    Ok(())
}
