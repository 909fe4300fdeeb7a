//! Checks after waves: of databases by SQL, and of Prometheus.

use super::{Fleet, HAS_LEDGER, SOON};
use proto::v1::RolloutState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const FILL: &[(&str, &str)] = &[(
    "001_fill.up.sql",
    "INSERT INTO t SELECT i FROM generate_series(1, 3) i;",
)];

async fn fleet(names: &[&str]) -> anyhow::Result<Fleet> {
    let fleet = Fleet::start(names).await?;
    for member in &fleet.members {
        member
            .database
            .execute("CREATE TABLE t (id bigint PRIMARY KEY)")
            .await?;
    }
    Ok(fleet)
}

#[tokio::test]
async fn a_check_that_fails_stops_the_rollout_until_it_holds_or_is_ignored() -> anyhow::Result<()> {
    let fleet = fleet(&["check_1", "check_2", "check_3"]).await?;
    fleet
        .member("check_1")
        .database
        .execute("INSERT INTO t VALUES (99)")
        .await?;
    let policy = "
waves:
  - { name: first, databases: [check_1] }
  - { name: second, databases: [check_2] }
checks:
  - { name: exact, sql: SELECT count(*) = 3 FROM t }
";
    let id = fleet.rollout(FILL, policy).await?;
    let watched = fleet.watch(&id).await?;
    assert_eq!(watched.code, Some(4), "{}", watched.stderr);
    let why = "after wave first, check `exact` does not hold on check_1";
    assert!(watched.stderr.contains(why), "{}", watched.stderr);
    assert_eq!(
        fleet.number("check_2", HAS_LEDGER).await?,
        0,
        "check_2 was touched"
    );

    let shown = fleet.ask(&["show", &id]).await?;
    for part in [
        "a check of wave first did not pass",
        "rollout resume",
        "--ignore-checks",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // It is asked again, and holds.
    fleet
        .member("check_1")
        .database
        .execute("DELETE FROM t WHERE id = 99")
        .await?;
    fleet.ask(&["resume", &id]).await?;
    fleet.is(&id, RolloutState::Done).await?;

    let unclear = "
waves: [{ name: first, databases: [check_1], checks: [{ name: unclear, sql: SELECT NULL::boolean }] }]
";
    let files = &[("002_more.up.sql", "INSERT INTO t VALUES (4);")];
    let files: Vec<_> = FILL.iter().chain(files).copied().collect();
    let id = fleet.rollout(&files, unclear).await?;
    let paused = fleet.is(&id, RolloutState::Paused).await?;
    let why = "check `unclear` has no answer from check_1";
    assert!(paused.reason.contains(why), "{}", paused.reason);
    fleet
        .ask(&["resume", &id, "--ignore-checks", "--reason", "it is known"])
        .await?;
    fleet.is(&id, RolloutState::Done).await?;
    let shown = fleet.ask(&["show", &id]).await?;
    assert!(
        shown.contains("resume --ignore-checks") && shown.contains("it is known"),
        "{shown}"
    );
    Ok(())
}

#[tokio::test]
async fn a_check_whose_query_is_wrong_pauses_at_once_with_the_servers_words() -> anyhow::Result<()> {
    let fleet = fleet(&["wrong"]).await?;
    let policy = "checks: [{ name: typo, sql: SELECT count(*) = 3 FROM tt }]";
    let began = Instant::now();
    let id = fleet.rollout(FILL, policy).await?;
    let paused = fleet.is(&id, RolloutState::Paused).await?;
    // Tried again it would have taken longer.
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    for part in [
        "the query of check `typo` is wrong on wrong",
        "relation \"tt\" does not exist",
        "42P01",
    ] {
        assert!(paused.reason.contains(part), "{part}: {}", paused.reason);
    }
    Ok(())
}

#[tokio::test]
async fn a_check_of_prometheus_lets_the_next_wave_begin_or_not() -> anyhow::Result<()> {
    let fleet = fleet(&["metric_1", "metric_2"]).await?;
    let calm = Arc::new(AtomicBool::new(false));
    let server = prometheus(calm.clone()).await?;
    let policy = format!(
        "
waves: [{{ name: first, databases: [metric_1] }}]
checks: [{{ name: errors, promql: 'sum(rate(errors[1m]))', condition: '< 0.1', prometheus: '{server}' }}]
"
    );
    let id = fleet.rollout(FILL, &policy).await?;
    let paused = fleet.is(&id, RolloutState::Paused).await?;
    let why = "check `errors` does not hold: 0.5 is not < 0.1";
    assert!(paused.reason.contains(why), "{}", paused.reason);
    assert!(paused.halted);
    assert_eq!(
        fleet.number("metric_2", HAS_LEDGER).await?,
        0,
        "metric_2 was touched"
    );
    calm.store(true, Ordering::SeqCst);
    fleet.ask(&["resume", &id]).await?;
    eventually("the end", SOON, || async {
        let (rollout, _) = fleet.show(&id).await?;
        Ok((rollout.state() == RolloutState::Done).then_some(()))
    })
    .await?;
    Ok(())
}

/// A server that answers every query with 0.5, or with 0 once it is calm; serves until the test ends.
async fn prometheus(calm: Arc<AtomicBool>) -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let asked = String::from_utf8_lossy(&request[..read]).into_owned();
            let value = if calm.load(Ordering::SeqCst) { "0" } else { "0.5" };
            let (status, body) = if asked
                .starts_with("GET /api/v1/query?query=sum%28rate%28errors%5B1m%5D%29%29 ")
            {
                let body = format!(
                    r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
                );
                ("200 OK", body)
            } else {
                ("404 Not Found", asked)
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            // The client may have gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok(format!("http://{address}"))
}
