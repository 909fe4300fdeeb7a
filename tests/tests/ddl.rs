//! The steps that change a schema, on real tables: up, down and up again, half-way, and where they are refused.

use std::time::Duration;
use tests::eventually;
use tests::migrations::Migrations;
use tests::postgres::{Database, Server};
use tests::process::{Confiture, Ended};

const SOON: Duration = Duration::from_secs(30);

/// A database and a set of one migration with these steps, each on a line of its own.
struct Case {
    database: Database,
    set: Migrations,
}

impl Case {
    async fn new(create: &str, steps: &[&str]) -> anyhow::Result<Self> {
        let database = Server::shared().await?.fresh_database().await?;
        database.execute(create).await?;
        let set = Migrations::write(&[("1_a.yaml", &file(steps))])?;
        Ok(Self { database, set })
    }

    /// Other steps in the place of those there were.
    fn edit(&self, steps: &[&str]) -> anyhow::Result<()> {
        self.set.put("1_a.yaml", &file(steps))
    }

    fn call(&self, args: &[&str]) -> Confiture {
        Confiture::new(["migrate"].iter().chain(args))
            .arg("--migrations")
            .arg(self.set.path())
            .env("DATABASE_URL", self.database.url())
    }

    async fn up(&self) -> anyhow::Result<String> {
        // Whoever was killed before counts as alive for a while.
        let said = self.call(&["up", "--take-over"]).succeed().await?;
        self.verify().await?;
        Ok(said)
    }

    async fn down(&self) -> anyhow::Result<String> {
        let said = self.call(&["down", "--take-over"]).succeed().await?;
        self.verify().await?;
        Ok(said)
    }

    /// The ledger must be as it must be.
    async fn verify(&self) -> anyhow::Result<()> {
        Confiture::new(["ledger", "verify"])
            .env("DATABASE_URL", self.database.url())
            .succeed()
            .await
            .map(drop)
    }

    /// The message of a call that fails with this code.
    async fn fails(&self, direction: &str, code: i32) -> anyhow::Result<String> {
        let ended: Ended = self.call(&[direction]).run().await?;
        assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
        assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
        Ok(ended.stderr)
    }

    async fn holds(&self, query: &str) -> anyhow::Result<()> {
        assert!(self.is(query).await?, "{query}");
        Ok(())
    }

    async fn is(&self, query: &str) -> anyhow::Result<bool> {
        let row = self.database.connect().await?.query_one(query, &[]).await?;
        Ok(row.get::<_, Option<bool>>(0) == Some(true))
    }

    /// Up, down, up again: `done` holds after each up, and not after the down.
    async fn there_and_back(&self, done: &str) -> anyhow::Result<()> {
        self.up().await?;
        self.holds(done).await?;
        self.down().await?;
        assert!(!self.is(done).await?, "still there after down: {done}");
        self.up().await?;
        self.holds(done).await
    }

    /// Kills an `up` once `half` holds; something must keep it from going on by itself.
    async fn killed_when(&self, half: &str) -> anyhow::Result<()> {
        let mut process = self.call(&["up"]).start("up")?;
        eventually(half, SOON, || async { Ok(self.is(half).await?.then_some(())) }).await?;
        process.kill();
        Ok(())
    }
}

fn file(steps: &[&str]) -> String {
    let steps: Vec<String> = steps.iter().map(|step| format!("  - {step}\n")).collect();
    format!("up:\n{}", steps.concat())
}

fn has(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// `t` by range of `k`: `t_1` below 10, `t_2` above, which is divided once more; and `r` with the keys 1 to 5.
const PARTITIONED: &str = "
    CREATE TABLE r (id int PRIMARY KEY, code text UNIQUE, plain int);
    INSERT INTO r SELECT g, 'c' || g, g FROM generate_series(1, 5) g;
    CREATE TABLE t (k int, r_id int) PARTITION BY RANGE (k);
    CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (10);
    CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (10) TO (100) PARTITION BY RANGE (k);
    CREATE TABLE \"T 21\" PARTITION OF t_2 FOR VALUES FROM (10) TO (20);
    CREATE TABLE t_22 PARTITION OF t_2 FOR VALUES FROM (20) TO (100);
    INSERT INTO t SELECT g, 1 + g % 5 FROM generate_series(0, 99) g;";

const PLAIN: &str = "
    CREATE TABLE r (id int PRIMARY KEY, code text UNIQUE, plain int);
    INSERT INTO r SELECT g, 'c' || g, g FROM generate_series(1, 5) g;
    CREATE TABLE t (k int, r_id int);
    INSERT INTO t SELECT g, 1 + g % 5 FROM generate_series(0, 99) g;";

const ODD: &str = "
    CREATE SCHEMA \"My Shop\"; CREATE TABLE \"My Shop\".\"Orders\" (\"Id\" int PRIMARY KEY, \"Parent Id\" int);
    INSERT INTO \"My Shop\".\"Orders\" SELECT g, g FROM generate_series(1, 9) g;";

#[tokio::test]
async fn a_check_is_added_validated_and_dropped_again() -> anyhow::Result<()> {
    let validated = "SELECT count(*) FILTER (WHERE convalidated) = count(*) AND count(*) > 0
                       FROM pg_constraint WHERE conname = 'k_small'";
    for create in [PLAIN, PARTITIONED] {
        let step = "add_check: { table: t, name: k_small, check: k < 1000 }";
        Case::new(create, &[step])
            .await?
            .there_and_back(validated)
            .await?;
    }
    let odd = "add_check: { table: '\"My Shop\".\"Orders\"', name: K_Small, check: '\"Parent Id\" < 1000 -- not more' }";
    Case::new(ODD, &[odd]).await?.there_and_back(validated).await
}

#[tokio::test]
async fn a_check_that_rows_violate_is_taken_back_and_says_how_to_find_them() -> anyhow::Result<()> {
    for create in [PLAIN, PARTITIONED] {
        let case = Case::new(create, &["add_check: { table: t, name: small, check: k <> 77 }"]).await?;
        let said = case.fails("up", 1).await?;
        has(
            &said,
            &[
                "check constraint \"small\"",
                "is taken back",
                "SELECT * FROM \"public\".\"t\" WHERE NOT (k <> 77)",
            ],
        );
        case.holds("SELECT count(*) = 0 FROM pg_constraint WHERE conname = 'small'")
            .await?;
        case.holds("SELECT k = 77 FROM \"public\".\"t\" WHERE NOT (k <> 77)")
            .await?;

        case.database.execute("UPDATE t SET k = 78 WHERE k = 77").await?;
        case.up().await?;
        case.holds("SELECT bool_and(convalidated) FROM pg_constraint WHERE conname = 'small'")
            .await?;
        case.down().await?;
        case.holds("SELECT count(*) = 0 FROM pg_constraint WHERE conname = 'small'")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_check_killed_between_its_parts_is_finished_or_undone() -> anyhow::Result<()> {
    // Whoever computes the check waits for whoever holds 7, and the helper's ADD computes nothing.
    let gate = "CREATE FUNCTION gate(int) RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN IF current_setting('application_name') <> 'free' THEN PERFORM pg_advisory_xact_lock_shared(7); END IF; RETURN true; END $$;";
    for (create, end) in [
        (PLAIN, "up"),
        (PARTITIONED, "up"),
        (PLAIN, "down"),
        (PARTITIONED, "down"),
    ] {
        let case = Case::new(
            &format!("{create}{gate}"),
            &["add_check: { table: t, name: gated, check: gate(k) }"],
        )
        .await?;
        let holder = case.database.connect().await?;
        holder.batch_execute("SELECT pg_advisory_lock(7)").await?;
        case.killed_when("SELECT bool_and(NOT convalidated) FROM pg_constraint WHERE conname = 'gated'")
            .await?;
        holder.batch_execute("SELECT pg_advisory_unlock(7)").await?;
        if end == "up" {
            case.up().await?;
            case.holds("SELECT bool_and(convalidated) FROM pg_constraint WHERE conname = 'gated'")
                .await?;
        } else {
            case.down().await?;
            case.holds("SELECT count(*) = 0 FROM pg_constraint WHERE conname = 'gated'")
                .await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_key_is_added_validated_and_dropped_again() -> anyhow::Result<()> {
    let validated = "SELECT count(*) > 0 AND bool_and(convalidated) FROM pg_constraint
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND conrelid = 't'::regclass AND conname = 't_r_id_fkey'
          AND confdeltype = 'c' AND confupdtype = 'n' AND condeferrable AND condeferred";
    let step = "add_foreign_key: { table: t, columns: [r_id], references: { table: r }, on_delete: cascade, on_update: set_null, deferrable: initially_deferred }";
    for create in [PLAIN, PARTITIONED] {
        let case = Case::new(create, &[step]).await?;
        case.there_and_back(validated).await?;
        case.holds("SELECT count(*) = (SELECT count(*) FROM pg_class WHERE relname ~* '^t(_| |$)' AND relkind IN ('r', 'p'))
                      FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND convalidated").await?;
        let refused = case.database.execute("INSERT INTO t VALUES (15, 99)").await;
        assert!(refused.is_err(), "a row that references nothing got in");
        case.down().await?;
        case.holds("SELECT count(*) = 0 FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_key_references_partitioned_tables_itself_and_odd_names() -> anyhow::Result<()> {
    let validated = |name: &str| {
        format!(
            "SELECT count(*) = 1 AND bool_and(convalidated) FROM pg_constraint
              WHERE contype = 'f' AND conname = '{name}' AND conparentid = 0"
        )
    };
    let parts = "
        CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
        CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (3);
        CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (3) TO (100);
        INSERT INTO p SELECT g FROM generate_series(0, 99) g;";
    let step =
        "add_foreign_key: { table: t, name: to_p, columns: [r_id], references: { table: p, columns: [id] } }";
    for create in [PLAIN, PARTITIONED] {
        let case = Case::new(&format!("{create}{parts}"), &[step]).await?;
        case.there_and_back(&validated("to_p")).await?;
        let refused = case.database.execute("DELETE FROM p WHERE id = 4").await;
        assert!(refused.is_err(), "a referenced row went");
    }
    let itself = "add_foreign_key: { table: p, columns: [parent], references: { table: p } }";
    let case = Case::new(
        &format!("{parts} ALTER TABLE p ADD parent int; UPDATE p SET parent = id / 2;"),
        &[itself],
    )
    .await?;
    case.there_and_back(&validated("p_parent_fkey")).await?;
    let odd = "add_foreign_key: { table: '\"My Shop\".\"Orders\"', columns: [Parent Id], references: { table: My Shop.\"Orders\", columns: ['\"Id\"'] } }";
    Case::new(ODD, &[odd])
        .await?
        .there_and_back(&validated("Orders_Parent Id_fkey"))
        .await
}

#[tokio::test]
async fn a_foreign_key_that_rows_violate_is_taken_back_and_says_how_to_find_them() -> anyhow::Result<()> {
    let step = "add_foreign_key: { table: t, columns: [r_id], references: { table: r } }";
    for create in [PLAIN, PARTITIONED] {
        let case = Case::new(
            &format!(
                "{create} UPDATE t SET r_id = 31337 WHERE k = 55; UPDATE t SET r_id = NULL WHERE k = 56;"
            ),
            &[step],
        )
        .await?;
        let said = case.fails("up", 1).await?;
        has(
            &said,
            &[
                "\"t_r_id_fkey\"",
                "is taken back",
                "they are: SELECT * FROM \"public\".\"t\" t WHERE",
            ],
        );
        assert!(!said.contains("31337"), "a value of a row is said: {said}");
        case.holds("SELECT count(*) = 0 FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace")
            .await?;
        let query = said
            .split("they are: ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .unwrap_or_default();
        let rows = case.database.connect().await?.query(query, &[]).await?;
        let found: Vec<i32> = rows.iter().map(|row| row.get("k")).collect();
        assert_eq!(found, [55]);

        case.database
            .execute("UPDATE t SET r_id = 1 WHERE k = 55")
            .await?;
        case.up().await?;
        case.holds("SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace")
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_foreign_key_killed_between_partitions_is_finished_or_undone() -> anyhow::Result<()> {
    let step = "add_foreign_key: { table: t, columns: [r_id], references: { table: r } }";
    for end in ["up", "down"] {
        let case = Case::new(PARTITIONED, &[step]).await?;
        let mut holder = case.database.connect().await?;
        let writing = holder.transaction().await?;
        writing
            .batch_execute("LOCK TABLE t_22 IN ROW EXCLUSIVE MODE")
            .await?;
        // Long enough to be waited for outside the queue, by the change of that partition alone.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        case.killed_when(
            "SELECT count(*) = 2 AND bool_and(convalidated) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
        )
        .await?;
        writing.rollback().await?;
        if end == "up" {
            case.up().await?;
            case.holds(
                    "SELECT count(*) = 5 AND bool_and(convalidated) FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace",
                )
                .await?;
        } else {
            case.down().await?;
            case.holds("SELECT count(*) = 0 FROM pg_constraint WHERE contype = 'f' AND connamespace = 'public'::regnamespace")
                    .await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_rows_of_a_partition_are_looked_at_once_and_not_by_the_tables_own_add() -> anyhow::Result<()> {
    let step = "add_foreign_key: { table: t, columns: [r_id], references: { table: r } }";
    let case = Case::new(PARTITIONED, &[step]).await?;
    let plan = case.call(&["up", "--dry-run"]).succeed().await?;
    assert_eq!(plan.matches("NOT VALID").count(), 3, "{plan}");
    assert_eq!(plan.matches("VALIDATE CONSTRAINT").count(), 3, "{plan}");
    let admin = case.database.admin().await?;
    case.up().await?;
    // A session counts what it scanned at its end at the latest.
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    eventually("all sessions to end", SOON, || async {
        Ok((admin.number(sessions).await? == 0).then_some(()))
    })
    .await?;
    let scans =
        "SELECT sum(seq_scan)::bigint FROM pg_stat_user_tables WHERE relname IN ('t_1', 'T 21', 't_22')";
    assert_eq!(admin.number(scans).await?, 3, "one VALIDATE for each");
    Ok(())
}

#[tokio::test]
async fn a_constraint_is_refused_where_it_cannot_be() -> anyhow::Result<()> {
    let case = Case::new(
        &format!("{PLAIN} ALTER TABLE t ADD CONSTRAINT taken CHECK (k < 1000);"),
        &[],
    )
    .await?;
    for (step, code, parts) in [
        (
            "add_check: { table: nope, name: a, check: k < 5 }",
            2,
            ["table \"nope\" does not exist", "check the name"],
        ),
        (
            "add_check: { table: t, name: a, check: z < 5 }",
            2,
            ["has no column \"z\"", "it has \"k\", \"r_id\""],
        ),
        (
            "add_check: { table: t, name: taken, check: k < 5 }",
            2,
            ["already has a constraint \"taken\"", "choose another name"],
        ),
        (
            "add_foreign_key: { table: t, columns: [r_id], references: { table: r, columns: [plain] } }",
            2,
            [
                "(\"plain\") is no unique key of \"public\".\"r\"",
                "it has (\"id\"), (\"code\")",
            ],
        ),
        (
            "add_foreign_key: { table: r, columns: [plain], references: { table: t } }",
            2,
            ["has no primary key", "it has none"],
        ),
        (
            "add_foreign_key: { table: t, columns: [k, r_id], references: { table: r } }",
            2,
            [
                "the primary key of \"public\".\"r\" is (\"id\")",
                "one column for each",
            ],
        ),
        (
            "add_foreign_key: { table: t, columns: [zz], references: { table: r } }",
            2,
            ["has no column \"zz\"", "it has"],
        ),
        (
            "add_foreign_key: { table: t, columns: [r_id], references: { table: rr } }",
            2,
            ["table \"rr\" does not exist", "check the name"],
        ),
        (
            "drop_constraint: { table: t, name: nope }",
            2,
            ["has no check and no foreign key \"nope\"", "it has \"taken\""],
        ),
    ] {
        case.edit(&[step])?;
        has(&case.fails("up", code).await?, &parts);
    }
    case.holds("SELECT count(*) = 1 FROM pg_constraint WHERE conrelid = 't'::regclass")
        .await
}

#[tokio::test]
async fn a_foreign_key_to_a_unique_key_that_is_no_primary_one_is_taken() -> anyhow::Result<()> {
    let case = Case::new(
        &format!("{PLAIN} ALTER TABLE t ADD code text; UPDATE t SET code = 'c' || r_id;"),
        &["add_foreign_key: { table: t, columns: [code], references: { table: r, columns: [code] } }"],
    )
    .await?;
    case.there_and_back(
        "SELECT count(*) = 1 FROM pg_constraint WHERE conname = 't_code_fkey' AND convalidated",
    )
    .await
}

#[tokio::test]
async fn a_default_is_set_dropped_and_restored_where_it_is_said() -> anyhow::Result<()> {
    let default = |text: &str| {
        format!(
            "SELECT pg_get_expr(adbin, adrelid) = '{text}' FROM pg_attrdef WHERE adrelid = 't'::regclass AND adnum = 2"
        )
    };
    let partition = "SELECT count(*) = 5 FROM pg_attrdef WHERE adrelid::regclass::text ~* '^\"?t( |_|$)' AND pg_get_expr(adbin, adrelid) = '7'";
    for create in [PLAIN, PARTITIONED] {
        let case = Case::new(
            &format!("{create} ALTER TABLE t ALTER r_id SET DEFAULT 3;"),
            &["set_default: { table: t, column: r_id, default: 7, previous: 3 }"],
        )
        .await?;
        case.there_and_back(&default("7")).await?;
        if create == PARTITIONED {
            case.holds(partition).await?;
        }
        case.down().await?;
        case.holds(&default("3")).await?;

        case.edit(&["drop_default: { table: t, column: r_id, previous: 3 }"])?;
        case.up().await?;
        case.holds("SELECT count(*) = 0 FROM pg_attrdef WHERE adrelid = 't'::regclass")
            .await?;
        case.down().await?;
        case.holds(&default("3")).await?;
        case.holds("SELECT count(*) = 100 AND count(r_id) = 100 FROM t")
            .await?;
    }
    let case = Case::new(PLAIN, &["set_default: { table: t, column: r_id, default: 7 }"]).await?;
    case.up().await?;
    has(
        &case.fails("down", 3).await?,
        &["has no automatic undo", "say it as `previous`"],
    );
    case.holds(&default("7")).await?;
    // The column was added by the same migration: it goes, and its default with it.
    let case = Case::new(
        PLAIN,
        &[
            "add_column: { table: t, column: x, type: int }",
            "set_default: { table: t, column: x, default: 7 }",
        ],
    )
    .await?;
    case.there_and_back("SELECT count(*) = 1 FROM pg_attrdef WHERE adrelid = 't'::regclass")
        .await?;
    for step in [
        "set_default: { table: t, column: zz, default: 7 }",
        "drop_default: { table: t, column: zz }",
    ] {
        let case = Case::new(PLAIN, &[step]).await?;
        has(&case.fails("up", 2).await?, &["has no column \"zz\""]);
    }
    Ok(())
}

#[tokio::test]
async fn columns_and_tables_are_renamed_there_and_back() -> anyhow::Result<()> {
    for create in [PLAIN, PARTITIONED] {
        let case = Case::new(
            create,
            &[
                "rename_column: { table: t, column: r_id, to: '\"Referenced\"' }",
                "rename_table: { table: t, to: Things and more }",
                "rename_column: { table: Things and more, column: k, to: kk }",
            ],
        )
        .await?;
        case.there_and_back(
            "SELECT count(*) = 2 FROM pg_attribute WHERE attrelid = to_regclass('\"Things and more\"') AND attname IN ('Referenced', 'kk')",
        )
        .await?;
        case.holds("SELECT count(*) = 100 FROM \"Things and more\"")
            .await?;
    }
    let case = Case::new(
        ODD,
        &["rename_table: { table: My Shop.\"Orders\", to: My Shop.purchases }"],
    )
    .await?;
    case.there_and_back("SELECT to_regclass('\"My Shop\".purchases') IS NOT NULL")
        .await
}

#[tokio::test]
async fn what_is_renamed_already_is_done_and_what_cannot_be_is_refused() -> anyhow::Result<()> {
    let case = Case::new(
        PLAIN,
        &[
            "rename_column: { table: t, column: old, to: k }",
            "rename_table: { table: older, to: t }",
        ],
    )
    .await?;
    case.up().await?;
    case.holds("SELECT count(*) = 100 FROM t WHERE k IS NOT NULL")
        .await?;
    let case = Case::new(PLAIN, &[]).await?;
    for (step, part) in [
        (
            "rename_column: { table: t, column: k, to: r_id }",
            "already has a column \"r_id\"",
        ),
        (
            "rename_column: { table: t, column: a, to: b }",
            "has no column \"a\"",
        ),
        (
            "rename_table: { table: t, to: r }",
            "there is a relation \"public\".\"r\" already",
        ),
        ("rename_table: { table: a, to: b }", "table \"a\" does not exist"),
    ] {
        case.edit(&[step])?;
        has(&case.fails("up", 2).await?, &[part]);
    }
    let synced = "backfill: { table: t, set: { r_id: k * 2 }, sync: trigger }";
    let case = Case::new(
        &PLAIN.replace(
            "r_id int);\n    INSERT INTO t",
            "r_id int, id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);\n    INSERT INTO t",
        ),
        &[synced],
    )
    .await?;
    case.up().await?;
    case.set.put(
        "2_b.yaml",
        &file(&["rename_column: { table: t, column: k, to: kk }"]),
    )?;
    has(
        &case.fails("up", 3).await?,
        &["a trigger that keeps \"r_id\"", "drop_sync"],
    );
    Ok(())
}

const ACCOUNTS: &str = "create_table: { table: accounts, columns: [
    { name: id, type: bigint, identity: always }, { name: Region, type: text, not_null: true, default: \"'eu' -- home\" },
    { name: '\"Total Net\"', type: 'numeric(10, 2)' }, { name: gross, type: numeric, generated: '\"Total Net\" * 1.2' },
    { name: made, type: timestamptz, default: now() } ],
    primary_key: [id, region], unique: [[region, gross]], checks: [{ name: Positive, check: gross > 0 }], partition_by: { list: [region] } }";

#[tokio::test]
async fn a_table_is_created_used_and_dropped_while_it_is_empty() -> anyhow::Result<()> {
    let plain = ACCOUNTS.replace(", partition_by: { list: [region] }", "");
    for step in [plain.as_str(), ACCOUNTS] {
        let case = Case::new(PLAIN, &[step]).await?;
        case.there_and_back("SELECT to_regclass('accounts') IS NOT NULL")
            .await?;
        case.database
            .execute(if step == ACCOUNTS {
                "CREATE TABLE accounts_eu PARTITION OF accounts DEFAULT"
            } else {
                "SELECT 1"
            })
            .await?;
        case.database
            .execute("INSERT INTO accounts (\"Total Net\") VALUES (10)")
            .await?;
        case.holds("SELECT id = 1 AND region = 'eu' AND gross = 12 AND made IS NOT NULL FROM accounts")
            .await?;
        assert!(
            case.database
                .execute("INSERT INTO accounts (\"Total Net\") VALUES (-1)")
                .await
                .is_err()
        );

        let said = case.fails("down", 3).await?;
        has(
            &said,
            &[
                "\"public\".\"accounts\" holds rows, which an undo must not lose",
                "drop_table",
            ],
        );
        case.holds("SELECT count(*) = 1 FROM accounts").await?;
        case.database.execute("DELETE FROM accounts").await?;
        case.down().await?;
        case.holds("SELECT to_regclass('accounts') IS NULL").await?;
    }
    Ok(())
}

#[tokio::test]
async fn rows_that_a_policy_hides_are_not_lost_by_an_undo() -> anyhow::Result<()> {
    let case = Case::new(
        PLAIN,
        &["create_table: { table: public.a, columns: [{ name: id, type: int }], primary_key: [id] }"],
    )
    .await?;
    case.up().await?;
    case.database
        .execute(
            "INSERT INTO a VALUES (1); ALTER TABLE a ENABLE ROW LEVEL SECURITY; ALTER TABLE a FORCE ROW LEVEL SECURITY;
             CREATE POLICY none ON a USING (false)",
        )
        .await?;
    has(&case.fails("down", 1).await?, &["row-level security"]);
    assert_eq!(
        case.database
            .admin()
            .await?
            .number("SELECT count(*) FROM a")
            .await?,
        1
    );
    Ok(())
}

#[tokio::test]
async fn later_steps_of_a_dry_run_see_what_earlier_ones_create_and_drop() -> anyhow::Result<()> {
    let case = Case::new(
        &format!("{PLAIN} CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE t ADD CONSTRAINT to_r FOREIGN KEY (r_id) REFERENCES r;"),
        &[
            "create_table: { table: a, columns: [{ name: id, type: int }, { name: t_id, type: int }], primary_key: [id] }",
            "add_column: { table: a, column: n, type: int, default: 5 }",
            "rename_column: { table: a, column: n, to: m }",
            "add_check: { table: a, name: m_small, check: m < 9 }",
            "rename_table: { table: a, to: b }",
            "add_foreign_key: { table: t, columns: [k], references: { table: b, columns: [id] }, name: to_b }",
            "drop_constraint: { table: t, name: to_b }",
            "drop_table: { table: b }",
            "add_enum_value: { type: mood, value: glad }",
            "add_enum_value: { type: mood, value: merry, after: glad }",
            "drop_constraint: { table: t, name: to_r }",
            "drop_table: { table: r }",
        ],
    )
    .await?;
    case.database.execute("DELETE FROM t").await?;
    let plan = case.call(&["up", "--dry-run"]).succeed().await?;
    has(
        &plan,
        &[
            "CREATE TABLE \"public\".\"a\"",
            "ALTER TABLE \"public\".\"a\" RENAME TO \"b\"",
            "REFERENCES \"public\".\"b\" (\"id\")",
            "DROP TABLE \"public\".\"r\"",
            "ADD VALUE 'merry' AFTER 'glad'",
        ],
    );
    case.holds("SELECT to_regclass('a') IS NULL AND to_regclass('r') IS NOT NULL")
        .await?;
    case.up().await?;
    case.holds("SELECT to_regclass('b') IS NULL AND to_regclass('r') IS NULL AND enum_range(NULL::mood)::text = '{sad,glad,merry}'").await
}

#[tokio::test]
async fn a_table_that_is_there_or_needed_is_refused() -> anyhow::Result<()> {
    let create = format!(
        "{PLAIN} CREATE VIEW v AS SELECT id FROM r; ALTER TABLE t ADD CONSTRAINT to_r FOREIGN KEY (r_id) REFERENCES r;
         CREATE TABLE itself (id int PRIMARY KEY, p int REFERENCES itself);
         CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent)"
    );
    let case = Case::new(&create, &[]).await?;
    for (step, code, parts) in [
        (
            "create_table: { table: t, columns: [{ name: id, type: int }], primary_key: [id] }",
            2,
            [
                "there is a relation \"public\".\"t\" already",
                "choose another name",
            ],
        ),
        (
            "create_table: { table: nope.t, columns: [{ name: id, type: int }], primary_key: [id] }",
            1,
            ["schema \"nope\" does not exist", "3F000"],
        ),
        (
            "create_table: { table: a, columns: [{ name: id, type: intt }], primary_key: [id] }",
            1,
            ["type \"intt\" does not exist", "in the statement"],
        ),
        (
            "drop_table: { table: nope }",
            2,
            ["table \"nope\" does not exist", "check the name"],
        ),
        (
            "drop_table: { table: v }",
            2,
            ["is a view, not a table", "name a table"],
        ),
        (
            "drop_table: { table: r }",
            3,
            [
                "needed by foreign key \"to_r\" of \"public\".\"t\", view \"public\".\"v\"",
                "drop those first",
            ],
        ),
        (
            "drop_table: { table: parent }",
            3,
            ["needed by table \"public\".\"child\"", "drop those first"],
        ),
    ] {
        case.edit(&[step])?;
        has(&case.fails("up", code).await?, &parts);
    }
    case.edit(&["drop_table: { table: itself }"])?;
    case.up().await?;
    case.holds("SELECT to_regclass('itself') IS NULL AND to_regclass('r') IS NOT NULL")
        .await?;
    has(&case.fails("down", 3).await?, &["the rows of the table are gone"]);
    Ok(())
}

#[tokio::test]
async fn a_dropped_table_takes_its_partitions_and_the_triggers_of_ours_along() -> anyhow::Result<()> {
    let case = Case::new(
        PARTITIONED,
        &[
            "backfill: { table: t, set: { r_id: k * 2 }, where: k >= 0, sync: trigger }",
            "drop_table: { table: t }",
        ],
    )
    .await?;
    case.up().await?;
    case.holds("SELECT count(*) = 0 FROM pg_class WHERE relname ~* '^t( |_|$)' AND relnamespace = 'public'::regnamespace").await?;
    case.holds("SELECT count(*) = 0 FROM pg_proc WHERE pronamespace = 'confiture'::regnamespace")
        .await
}

#[tokio::test]
async fn a_value_is_added_to_an_enum_once_where_it_belongs() -> anyhow::Result<()> {
    let case = Case::new(
        "CREATE SCHEMA \"My Shop\"; CREATE TYPE \"My Shop\".\"State\" AS ENUM ('new', 'it''s \\ done');
         CREATE TABLE public.o (s \"My Shop\".\"State\"); CREATE TYPE pair AS (a int, b int)",
        &[
            "add_enum_value: { type: My Shop.\"State\", value: paid, before: 'it''s \\ done' }",
            "add_enum_value: { type: My Shop.\"State\", value: Sent, after: paid }",
            "add_enum_value: { type: My Shop.\"State\", value: \"it's \\\\ gone\" }",
            "add_enum_value: { type: My Shop.\"State\", value: paid }",
            "sql: INSERT INTO public.o VALUES ('paid'), ('Sent')",
        ],
    )
    .await?;
    case.up().await?;
    case.holds("SELECT array_agg(enumlabel ORDER BY enumsortorder)::text[] = ARRAY['new', 'paid', 'Sent', 'it''s \\ done', 'it''s \\ gone'] FROM pg_enum").await?;
    has(&case.fails("down", 3).await?, &["has no automatic undo"]);
    case.set.put("2_b.yaml", "")?;
    for (step, part) in [
        (
            "add_enum_value: { type: My Shop.state, value: x }",
            "there is \"My Shop\".\"State\": write it as shown",
        ),
        (
            "add_enum_value: { type: nope, value: x }",
            "enum \"nope\" does not exist",
        ),
        (
            "add_enum_value: { type: pair, value: x }",
            "type \"pair\" is not an enum",
        ),
        (
            "add_enum_value: { type: My Shop.\"State\", value: x, after: sent }",
            "has no value 'sent'",
        ),
    ] {
        case.set.put("2_b.yaml", &file(&[step]))?;
        has(&case.fails("up", 2).await?, &[part]);
    }
    Ok(())
}

#[tokio::test]
async fn a_lock_that_is_not_to_be_had_changes_nothing_and_names_who_has_it() -> anyhow::Result<()> {
    for step in [
        "add_check: { table: t, name: a, check: k >= 0 }",
        "add_foreign_key: { table: t, columns: [r_id], references: { table: r } }",
        "set_default: { table: t, column: k, default: 1 }",
        "rename_column: { table: t, column: k, to: kk }",
        "rename_table: { table: t, to: tt }",
        "drop_table: { table: t }",
    ] {
        let case = Case::new(PLAIN, &[step]).await?;
        let mut holder = case.database.connect().await?;
        let writing = holder.transaction().await?;
        writing.batch_execute("INSERT INTO t VALUES (1, 1)").await?;
        let ended = case.call(&["up", "--lock-timeout", "700"]).run().await?;
        assert_eq!(ended.code, Some(1), "{step}: {}", ended.stderr);
        has(&ended.stderr, &["held by pid", "INSERT INTO t"]);
        writing.commit().await?;
        case.up().await?;
        case.holds("SELECT count(*) = 1 FROM confiture.step WHERE state = 'done'")
            .await?;
    }
    Ok(())
}
