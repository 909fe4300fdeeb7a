//! What must not be told: passwords, and what is in rows.

use super::scene::{SOON, on};
use anyhow::Context as _;
use serde_json::json;
use tests::collector::Collector;
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::port::Port;
use tests::postgres::Server;
use tests::process::Confiture;
use tests::prometheus::page;

/// In rows, and in a statement of an application that is in the way.
const CANARY: &str = "canary-4111-1111";

/// The password in a URL.
fn password(url: &str) -> &str {
    let authority = url.split("://").nth(1).unwrap_or_default();
    let user = authority.split('@').next().unwrap_or_default();
    user.split(':').nth(1).unwrap_or_default()
}

/// Ways to fail with a value of a row at hand: the database, the statement, and what is told of it nevertheless.
const MISTAKES: [(&str, &str, &str); 7] = [
    (
        "casted",
        "ALTER TABLE cards ALTER COLUMN number TYPE int USING number::int",
        "22P02",
    ),
    (
        "composed",
        "DO $$ BEGIN EXECUTE 'SELECT ' || quote_ident((SELECT number FROM cards LIMIT 1)); END $$",
        "42703",
    ),
    ("doubled", "CREATE UNIQUE INDEX ON cards (number)", "23505"),
    (
        "locked",
        "ALTER TABLE cards ADD COLUMN note text",
        "UPDATE cards SET number",
    ),
    (
        "named",
        "DO $$ BEGIN RAISE EXCEPTION 'row %', (SELECT number FROM cards LIMIT 1) USING ERRCODE = 'ZZ001'; END $$",
        "ZZ001",
    ),
    (
        "quoted",
        "ALTER TABLE cards ALTER COLUMN number TYPE int USING ('ab\"' || number || '\"cd')::int",
        "22P02",
    ),
    (
        "raised",
        "DO $$ DECLARE r cards; BEGIN SELECT * INTO r FROM cards LIMIT 1; RAISE NOTICE 'row %', r; RAISE WARNING 'row %', r; RAISE EXCEPTION 'row %', r; END $$",
        "P0001",
    ),
];

#[tokio::test]
async fn neither_passwords_nor_values_of_rows_leave_the_database() -> anyhow::Result<()> {
    nothing_is_told_with("info").await
}

#[tokio::test]
async fn nor_do_they_where_the_log_tells_more() -> anyhow::Result<()> {
    nothing_is_told_with("debug,h2=warn,hyper=warn").await
}

/// With this filter of the log.
async fn nothing_is_told_with(filter: &str) -> anyhow::Result<()> {
    let server = Server::start().await?;
    let names = MISTAKES.map(|(database, ..)| database);
    let members = members(&server, &names).await?;
    let labelled = |member: Member| {
        let name = member.name.clone();
        member.label("name", &name)
    };
    let members: Vec<Member> = members.into_iter().map(labelled).collect();
    for member in &members {
        let rows = format!(
            "CREATE TABLE cards (id int PRIMARY KEY, number text NOT NULL);
             INSERT INTO cards VALUES (1, '{CANARY}'), (2, '{CANARY}')"
        );
        member.database.execute(&rows).await?;
    }
    let secret = password(members[0].database.url()).to_owned();
    assert!(secret.len() > 5, "a password that can be looked for: {secret}");
    let collector = Collector::start()?;
    let ports = [Port::claim()?, Port::claim()?];
    let told = |port: &Port| {
        let settings = json!({ "prometheus": on(port), "otlp": { "endpoint": collector.url() } });
        move |of: &mut serde_json::Value| {
            of["observability"] = settings;
            of["migration"] = json!({ "lock_timeout": "2s" });
        }
    };
    let program = Confiture::default()
        .env("CONFITURE_LOG", filter)
        .env("CONFITURE_LOG_FORMAT", "json");
    let store = "file:./confiture.redb";
    let coordinator = Coordinator::start_program(&program, "coordinator", store, told(&ports[0])).await?;
    let agent = Agent::start_program(
        &program,
        "agent-a",
        &[&coordinator.url()],
        &members,
        told(&ports[1]),
    )?;
    coordinator.wait_for_databases(&names).await?;
    // An application that holds the table, and whose last statement has values in it.
    let locked = members.iter().find(|member| member.name == "locked");
    let session = locked.context("a database")?.database.connect().await?;
    session
        .batch_execute(&format!(
            "BEGIN; UPDATE cards SET number = number WHERE number = '{CANARY}'"
        ))
        .await?;
    let mut said = String::new();
    for (database, statement, _) in MISTAKES {
        let set = Migrations::write(&[("0001_mistake.up.sql", statement)])?;
        let ended = coordinator
            .command(&["rollout", "start", "--watch", "--max-attempts", "1"])
            .arg("--select")
            .arg(format!("name={database}"))
            .arg("--migrations")
            .arg(set.path())
            .run()
            .await?;
        assert_ne!(ended.code, Some(0), "{}", ended.stdout);
        said += &(ended.stdout + &ended.stderr);
        let id = coordinator.rollouts().await?.remove(0).id;
        said += &coordinator
            .command(&["rollout", "show", &id, "--output", "json"])
            .run()
            .await?
            .stdout;
    }
    errors_are_told(&said);
    let spans = || collector.spans();
    eventually("the spans of all three", SOON, || async {
        let rollouts = spans().iter().filter(|span| span.name == "rollout").count();
        let orders = spans().iter().filter(|span| span.name == "order").count();
        Ok((rollouts == MISTAKES.len() && orders >= MISTAKES.len()).then_some(()))
    })
    .await?;
    let mut told = vec![
        ("commands", said),
        ("the coordinator's log", coordinator.log()),
        ("the agent's log", agent.log()),
        ("spans", spans().into_iter().map(|span| span.whole).collect()),
    ];
    for port in &ports {
        told.push(("metrics", page(port.number(), "/metrics").await?.1));
    }
    for (place, text) in &told {
        assert!(text.len() > 100, "{place}: {text}");
        for hidden in [CANARY, secret.as_str()] {
            assert!(!text.contains(hidden), "`{hidden}` is told in {place}:\n{text}");
        }
    }
    lines_are_objects(&agent.log());
    drop(session);
    Ok(())
}

/// Whatever was left out.
fn errors_are_told(said: &str) {
    for (what, _, word) in MISTAKES {
        assert!(said.contains(word), "{what}: the error itself is told\n{said}");
    }
}

/// Each line of the log is an object, with the fields of the spans around it.
fn lines_are_objects(log: &str) {
    let lines = log.lines().map(serde_json::from_str);
    let lines: Result<Vec<serde_json::Value>, _> = lines.collect();
    let lines = lines.expect("objects");
    let began = lines
        .iter()
        .find(|line| line["fields"]["message"] == "began")
        .expect("an order began");
    assert_eq!(began["span"]["database"], "casted", "{began}");
}

#[tokio::test]
async fn details_are_told_where_that_is_asked_for() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let database = server.database("detailed").await?;
    database
        .execute(&format!(
            "CREATE TABLE cards (number text); INSERT INTO cards VALUES ('{CANARY}'), ('{CANARY}')"
        ))
        .await?;
    let set = Migrations::write(&[("0001_mistake.up.sql", "CREATE UNIQUE INDEX ON cards (number)")])?;
    let up = Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    let silent = up.run().await?;
    assert!(!silent.stderr.contains(CANARY), "{}", silent.stderr);
    let asked = up
        .env("CONFITURE_OBSERVABILITY_ERROR_DETAILS", "true")
        .run()
        .await?;
    assert!(
        asked
            .stderr
            .contains(&format!("detail: Key (number)=({CANARY}) is duplicated.")),
        "{}",
        asked.stderr
    );
    Ok(())
}

#[tokio::test]
async fn how_a_command_fails_is_an_object_too_where_the_log_is() -> anyhow::Result<()> {
    let folder = tests::directory::Directory::new()?;
    let ended = Confiture::new(["--log-format", "json", "migrate", "up", "--migrations"])
        .arg(folder.path())
        .env("DATABASE_URL", "postgres://nobody:canary@127.0.0.1:1/nothing")
        .run()
        .await?;
    assert_ne!(ended.code, Some(0));
    let last = ended.stderr.lines().last().unwrap_or_default();
    let line: serde_json::Value = serde_json::from_str(last)?;
    assert_eq!(
        (&line["level"], &line["fields"]["exit_code"]),
        (&json!("ERROR"), &json!(ended.code))
    );
    assert!(!ended.stderr.contains("canary"), "{}", ended.stderr);
    Ok(())
}
