//! The proxy loses exactly what it is told to lose: a COMMIT or the answer to it, and nothing else.

use std::time::Duration;
use tests::postgres::{Database, Server, Session};
use tests::proxy::{AtCommit, Proxy};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(300);

async fn before_a_table() -> anyhow::Result<(Proxy, Database, Session)> {
    let server = Server::shared().await?;
    let database = server.fresh_database().await?;
    database.execute("CREATE TABLE t (id int)").await?;
    let proxy = Proxy::start(server).await?;
    let session = Session::open(&proxy.url(server, &database)).await?;
    Ok((proxy, database, session))
}

async fn rows(database: &Database) -> anyhow::Result<i64> {
    database.number("SELECT count(*) FROM t").await
}

/// An insert and, without waiting for it, its COMMIT, as the agent sends them.
async fn insert(session: &Session, tag: &str) -> (bool, bool) {
    let commit = format!("/*{tag}*/ COMMIT");
    let (begun, inserted, committed) = tokio::join!(
        biased;
        session.batch_execute("BEGIN"),
        session.query_typed("INSERT INTO t VALUES (1) RETURNING id", &[]),
        session.batch_execute(&commit),
    );
    (begun.is_ok() && inserted.is_ok(), committed.is_ok())
}

#[tokio::test]
async fn a_lost_answer_is_that_of_the_commit_chosen_and_of_nothing_before_it() -> anyhow::Result<()> {
    let (proxy, database, session) = before_a_table().await?;
    proxy.at_commit(|text| match text {
        "/*second*/ COMMIT" => AtCommit::LoseAnswer,
        _ => AtCommit::Pass,
    });
    assert_eq!(insert(&session, "first").await, (true, true));
    assert_eq!(insert(&session, "second").await, (true, false));
    assert_eq!(proxy.kept(), 1);
    assert_eq!(rows(&database).await?, 2);
    assert!(session.batch_execute("SELECT 1").await.is_err(), "it was cut");
    Ok(())
}

#[tokio::test]
async fn what_is_cut_before_its_commit_is_rolled_back() -> anyhow::Result<()> {
    let (proxy, database, session) = before_a_table().await?;
    proxy.at_commit(|_| AtCommit::CutBefore);
    // The answers before it may be lost with it.
    assert!(!insert(&session, "only").await.1);
    assert_eq!((proxy.kept(), rows(&database).await?), (0, 0));
    Ok(())
}

#[tokio::test]
async fn a_held_answer_leaves_the_client_waiting_until_the_connection_is_cut() -> anyhow::Result<()> {
    let (proxy, database, session) = before_a_table().await?;
    proxy.at_commit(|_| AtCommit::HoldAnswer);
    let mut waiting = std::pin::pin!(insert(&session, "only"));
    assert!(timeout(MOMENT, &mut waiting).await.is_err());
    timeout(SOON, proxy.kept_back(1)).await?;
    assert_eq!(rows(&database).await?, 1);
    proxy.cut();
    assert_eq!(timeout(SOON, waiting).await?, (true, false));
    Ok(())
}

#[tokio::test]
async fn a_stalled_connection_goes_on_later_and_others_are_not_touched() -> anyhow::Result<()> {
    let (proxy, database, session) = before_a_table().await?;
    let other = Session::open(&proxy.url(Server::shared().await?, &database)).await?;
    let connections = proxy.connections();
    assert_eq!(connections.len(), 2);
    connections[0].stall();
    let mut waiting = std::pin::pin!(insert(&session, "stalled"));
    assert!(timeout(MOMENT, &mut waiting).await.is_err());
    assert_eq!(insert(&other, "other").await, (true, true));
    connections[0].resume();
    assert_eq!(timeout(SOON, waiting).await?, (true, true));
    assert_eq!(rows(&database).await?, 2);
    Ok(())
}
