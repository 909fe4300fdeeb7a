//! Coordinators, agents and rollouts.

use crate::case::Case;
use expect_test::expect;
use tests::fleet::{Agent, Coordinator, members};
use tests::port::Port;
use tests::postgres::Server;

#[tokio::test]
async fn coordinators() -> anyhow::Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let at = address.to_string();
    Case::of(&["coordinator", "--store", "memory:", "--listen", &at])
        .covering(address.port(), "PORT")
        .covering_times()
        .says(1, expect![[r#"
            error: cannot listen on 127.0.0.1:PORT: the port is in use; is another coordinator running? Else choose another with `coordinator.listen`
        "#]])
        .await?;
    let free = format!("127.0.0.1:{}", Port::claim()?.number());
    let coordinator =
        |store: &str| Case::of(&["coordinator", "--listen", &free, "--store", store]).covering_times();
    coordinator("file:./gone.redb").says(2, expect![[r#"
        error: the store file:./gone.redb cannot be opened: there is no store at `./gone.redb`. To found a new one, start once with `--init`; otherwise check the path and the directory you started in
    "#]]).await?;
    coordinator("file:./junk.redb")
        .file("junk.redb", b"not a store")
        .says(
            2,
            expect![[r#"
            error: the store file:./junk.redb cannot be opened: it is not a store of confiture
        "#]],
        )
        .await?;
    coordinator("etcd:127.0.0.1").says(2, expect![[r#"
        error: flag --store: `coordinator.store`: a store is `file:PATH`, `etcd://host:2379,host:2379` or `memory:`
    "#]]).await?;
    coordinator("redis://127.0.0.1").says(2, expect![[r#"
        error: flag --store: `coordinator.store`: a store is `file:PATH`, `etcd://host:2379,host:2379` or `memory:`
    "#]]).await?;
    Case::of(&["coordinator", "--listen", "everywhere", "--store", "memory:"])
        .says(2, expect![[r#"
            error: flag --listen: `coordinator.listen`: expected an IP address with a port, such as 127.0.0.1:7070, found `everywhere`
        "#]])
        .await?;
    Case::of(&["coordinator", "--listen", "192.0.2.1:7070", "--store", "memory:"])
        .covering_times()
        .says(2, expect![[r#"
            error: cannot listen on 192.0.2.1:7070: this machine has no such address; choose another with `coordinator.listen`
        "#]])
        .await?;
    // A store that another process has open.
    let running = Coordinator::start("running", "file:./confiture.redb").await?;
    let path = running.folder().join("confiture.redb").display().to_string();
    coordinator(&format!("file:{path}"))
        .covering(&path, "STORE")
        .says(2, expect![[r#"
            error: the store file:STORE cannot be opened: it is in use by another process. Only one coordinator can use a file; stop the other one, or give both an etcd store
        "#]])
        .await
}

#[tokio::test]
async fn rollouts() -> anyhow::Result<()> {
    let members = members(Server::shared().await?, &["bad_rollouts"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["bad_rollouts"]).await?;
    let port = coordinator
        .url()
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let call = |words: &[&str]| {
        Case::of(words)
            .env("CONFITURE_COORDINATOR", &coordinator.url())
            .covering(&port, "PORT")
            .file("db/1_a.up.sql", b"SELECT 1")
    };
    let start = ["rollout", "start", "--migrations", "db"];
    call(&start).says(2, expect![[r#"
        error: which databases?
          help: choose some by their labels with --select LABEL=VALUE (`confiture fleet databases` shows them), or take every one with --all
    "#]]).await?;
    call(&start)
        .arg("--all")
        .arg("--select")
        .arg("a=b")
        .says(
            2,
            expect![[r#"
            error: the argument '--all' cannot be used with '--select <LABEL=VALUE,..>'

            Usage: confiture rollout start --migrations <DIR> --all --coordinator <URL>

            For more information, try '--help'.
        "#]],
        )
        .await?;
    call(&start)
        .arg("--select")
        .arg("env=nowhere")
        .says(2, expect![[r#"
            error: cannot start the rollout: no database matches env=nowhere: no database has labels (databases: bad_rollouts)
        "#]])
        .await?;
    call(&start)
        .arg("--select")
        .arg("env")
        .says(
            2,
            expect![[r#"
            error: --select: `env` is no label pair: write `label=value`, several with a comma between them
        "#]],
        )
        .await?;
    call(&start)
        .arg("--all")
        .arg("--max-in-flight")
        .arg("0")
        .says(
            2,
            expect![[r#"
            error: invalid value '0' for '--max-in-flight <N>': 0 is not in 1..=4294967295

            For more information, try '--help'.
        "#]],
        )
        .await?;
    call(&start)
        .file("db/2_b.up.sql", b"SELEC 1")
        .arg("--all")
        .says(2, expect![[r#"
            error: db/2_b.up.sql:1:1: this cannot be read: expected command, found a name
              help: correct it; if PostgreSQL does accept it, put `-- confiture: parse=off` at the top of a SQL file to run it unread
            db/2_b.up.sql:1:7: this cannot be read: expected command, found a number
              help: correct it; if PostgreSQL does accept it, put `-- confiture: parse=off` at the top of a SQL file to run it unread
        "#]])
        .await?;
    call(&start)
        .arg("--all")
        .arg("--canary")
        .arg("0")
        .says(
            2,
            expect![[r#"
            error: invalid value '0' for '--canary <N|N%>': count: at least 1 database is needed

            For more information, try '--help'.
        "#]],
        )
        .await?;
    call(&start)
        .arg("--all")
        .arg("--failure-budget")
        .arg("101%")
        .says(2, expect![[r#"
            error: invalid value '101%' for '--failure-budget <N|N%>': `101%` is no budget: write a number of databases, at least 1, or a share such as 5%, at most 100%

            For more information, try '--help'.
        "#]])
        .await?;
    let with_policy = |policy: &str| {
        call(&start)
            .arg("--all")
            .arg("--policy")
            .arg("policy.yaml")
            .file("policy.yaml", policy.as_bytes())
    };
    call(&start)
        .arg("--all")
        .arg("--policy")
        .arg("nowhere.yaml")
        .says(
            2,
            expect![[r#"
            error: --policy: cannot read nowhere.yaml: No such file or directory (os error 2)
        "#]],
        )
        .await?;
    let wrong = "max_inflight: 4\nfailure_budget: 0\nwaves:\n  - { name: x, count: 1, percent: 5% }\n";
    with_policy(wrong).says(2, expect![[r#"
        error: policy.yaml:1:1: the key `max_inflight` is not known here
          help: did you mean `max_in_flight`?
        policy.yaml:2:17: failure_budget: `0` is no budget: write a number of databases, at least 1, or a share such as 5%, at most 100%
        policy.yaml:4:5: waves: a wave takes its databases by exactly one of `count`, `percent`, `databases` and `select`
    "#]]).await?;
    let wrong = "max_in_flight: 20000\nwaves: [{ name: a, count: 1 }, { name: a, count: 1 }]\n";
    with_policy(wrong)
        .says(
            2,
            expect![[r#"
        error: policy.yaml:1:16: max_in_flight is 20000, but at most 10000 is possible
        policy.yaml:2:32: two waves are named `a`: give each a name of its own
    "#]],
        )
        .await?;
    with_policy("windows: [{ from: 22:00, to: 5, zone: Europe/Berlin }]")
        .says(
            2,
            expect![[r#"
            error: policy.yaml:1:30: windows.to: `5` is no time of day: write it as 22:00
        "#]],
        )
        .await?;
    with_policy("waves: [{ databases: [bad_rolouts] }, { select: { tier: gold } }]")
        .says(
            2,
            expect![[r#"
            error: cannot start the rollout: the policy does not fit the databases:
              wave `wave 1` names `bad_rolouts`, which the rollout does not have
              wave `wave 2` is empty: no database that earlier waves leave over has the labels tier=gold
        "#]],
        )
        .await?;
    call(&["rollout", "skip", "nonsense", "orders"])
        .says(
            2,
            expect![[r#"
            error: the following required arguments were not provided:
              --reason <TEXT>

            Usage: confiture rollout skip --reason <TEXT> --coordinator <URL> <ID> <DATABASE>...

            For more information, try '--help'.
        "#]],
        )
        .await?;
    call(&["rollout", "pause", "nonsense"])
        .says(2, expect![[r#"
            error: cannot pause rollout nonsense: there is no rollout `nonsense`: `confiture rollout list` shows all
        "#]])
        .await?;
    call(&["agent", "drain", "agent-aa"])
        .says(
            2,
            expect![[r#"
        error: cannot drain agent agent-aa: there is no agent `agent-aa`: did you mean `agent-a`?
    "#]],
        )
        .await?;
    call(&["fleet", "status", "--against", "bad_rolouts"])
        .says(2, expect![[r#"
            error: cannot survey the databases: there is no database `bad_rolouts`: did you mean `bad_rollouts`?
        "#]])
        .await?;
    call(&["fleet", "status", "--select", "env"])
        .says(
            2,
            expect![[r#"
            error: --select: `env` is no label pair: write `label=value`, several with a comma between them
        "#]],
        )
        .await?;
    call(&["fleet", "status", "--select", "env=nowhere"])
        .says(2, expect![[r#"
            error: cannot survey the databases: no database matches env=nowhere: `confiture fleet databases` shows all with their labels
        "#]])
        .await?;
    call(&["agent", "undrain", "everything"])
        .says(
            2,
            expect![[r#"
            error: cannot undrain agent everything: there is no agent `everything`: known are agent-a
        "#]],
        )
        .await?;
    call(&["agent", "drain", "no name"])
        .says(2, expect![[r#"
            error: cannot drain agent no name: agent id `no name` is not usable: only letters, digits, `.`, `_` and `-` are allowed
        "#]])
        .await?;
    call(&["rollout", "report", "nonsense", "--format", "xml"])
        .says(
            2,
            expect![[r#"
            error: invalid value 'xml' for '--format <FORM>'
              [possible values: text, json, markdown]

            For more information, try '--help'.
        "#]],
        )
        .await?;
    call(&["rollout", "show", "nonsense"])
        .says(2, expect![[r#"
            error: cannot show rollout nonsense: there is no rollout `nonsense`: `confiture rollout list` shows all
        "#]])
        .await?;
    call(&["rollout", "abort", "nonsense"])
        .says(2, expect![[r#"
            error: cannot abort rollout nonsense: there is no rollout `nonsense`: `confiture rollout list` shows all
        "#]])
        .await?;
    call(&["fleet", "agents", "--coordinator", "somewhere"])
        .says(
            2,
            expect![[r#"
            error: --coordinator: `somewhere` is not the URL of a coordinator
              help: write http://host:port, several with a comma between them
        "#]],
        )
        .await?;
    call(&["coordinator", "recover"])
        .says(
            2,
            expect![[r#"
        error: the following required arguments were not provided:
          --reason <TEXT>

        Usage: confiture coordinator recover --reason <TEXT> --coordinator <URL>

        For more information, try '--help'.
    "#]],
        )
        .await?;
    let databases = coordinator.rollouts().await?;
    assert_eq!(databases.len(), 0, "nothing was begun");
    Ok(())
}

#[tokio::test]
async fn agents() -> anyhow::Result<()> {
    Case::of(&["agent"])
        .covering_times()
        .says(
            2,
            expect![[r#"
            error: the agent has no database to serve
              help: list its databases under `databases:` in the settings file
        "#]],
        )
        .await?;
    // Two processes with one id.
    let members = members(Server::shared().await?, &["bad_agents"]).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let _agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
    coordinator.wait_for_databases(&["bad_agents"]).await?;
    let settings = format!(
        "agent: {{ id: agent-a, coordinator: [\"{}\"] }}\ndatabases: [ {{ name: other, url: \"postgres://a@127.0.0.1:1/d\" }} ]\n",
        coordinator.url()
    );
    Case::of(&["agent", "--config", "c.yaml"])
        .file("c.yaml", settings.as_bytes())
        .only_errors()
        .says(
            1,
            expect![[r#"
            error: another process serves as agent `agent-a`: give each agent its own `agent.id`
        "#]],
        )
        .await
}
