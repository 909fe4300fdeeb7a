use super::*;
use crate::migration::steps::Outside;
use std::fmt::Write as _;
use std::time::Duration;

fn parsed(text: &str) -> Parsed {
    parse("001_a.up.sql", text)
        .unwrap_or_else(|problems| panic!("{text}\n{}", super::super::Problems(problems)))
}

/// All problems as `line:column what`.
fn refused(text: &str) -> Vec<String> {
    let Err(problems) = parse("001_a.up.sql", text) else {
        panic!("accepted: {text}");
    };
    problems
        .into_iter()
        .map(|problem| {
            assert!(problem.advice.is_some_and(|advice| !advice.is_empty()));
            let at = problem.at.unwrap();
            format!("{}:{} {}", at.line, at.column, problem.what)
        })
        .collect()
}

fn sessions(text: &str) -> Session {
    match &sqls(text)[..] {
        [
            Sql {
                execution: Execution::Transaction(session),
                ..
            },
        ] => *session,
        other => panic!("{other:?}"),
    }
}

fn sqls(text: &str) -> Vec<Sql> {
    parsed(text)
        .steps
        .into_iter()
        .map(|step| match step.change {
            Change::Sql(sql) => sql,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The statements of a file with `transaction=off`, and how they run.
fn separate(text: &str) -> Vec<(String, Execution)> {
    sqls(&format!("-- confiture: transaction=off\n{text}"))
        .into_iter()
        .map(|sql| (sql.text, sql.execution))
        .collect()
}

#[test]
fn a_file_is_one_step_with_its_whole_text() {
    let text = "-- first\nCREATE TABLE a (id int);\n\n  INSERT INTO a VALUES (1);\n";
    let parsed = parsed(text);
    assert_eq!(parsed.options, Options::default());
    assert_eq!(parsed.steps.len(), 1);
    assert_eq!(parsed.steps[0].at, Position { line: 2, column: 1 });
    assert_eq!(
        sqls(text),
        [Sql {
            text: text.to_owned(),
            execution: Execution::Transaction(Session::Clean),
            locks: Vec::new(),
            creates_only: false,
            loses_data: false,
        }]
    );
}

#[test]
fn transaction_control_is_refused_with_its_place() {
    for (text, verb) in [
        ("BEGIN", "BEGIN"),
        ("begin work", "BEGIN WORK"),
        (
            "BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "BEGIN TRANSACTION",
        ),
        ("START TRANSACTION", "START TRANSACTION"),
        ("COMMIT", "COMMIT"),
        ("COMMIT AND CHAIN", "COMMIT AND"),
        ("END", "END"),
        ("ROLLBACK", "ROLLBACK"),
        ("ABORT", "ABORT"),
        ("PREPARE TRANSACTION 'x'", "PREPARE TRANSACTION"),
        ("COMMIT PREPARED 'x'", "COMMIT PREPARED"),
        ("ROLLBACK PREPARED 'x'", "ROLLBACK PREPARED"),
    ] {
        assert_eq!(
            refused(&format!("SELECT 1;\n /* ü */ {text};\nSELECT 2;")),
            [format!(
                "2:10 {verb} is not allowed: the step runs in one transaction together with its record"
            )],
            "{text}"
        );
        assert_eq!(refused(text).len(), 1, "{text}");
    }
}

#[test]
fn every_problem_of_a_file_is_told() {
    let problems = refused("BEGIN;\nSELECT 1;\nSELECT FROM WHERE;\nCOMMIT;\n");
    let places: Vec<&str> = problems.iter().map(|p| p.split(' ').next().unwrap()).collect();
    assert_eq!(places, ["1:1", "3:13", "4:1"], "{problems:?}");
}

#[test]
fn savepoints_and_settings_of_the_transaction_are_allowed_and_clean() {
    for text in [
        "SAVEPOINT a; ROLLBACK TO a; ROLLBACK TO SAVEPOINT a; ROLLBACK TRANSACTION TO SAVEPOINT a; RELEASE a; RELEASE SAVEPOINT a",
        "SET LOCAL lock_timeout = '1s'",
        "SET LOCAL ROLE owner",
        "SET LOCAL SESSION AUTHORIZATION owner",
        "SET CONSTRAINTS ALL DEFERRED",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SELECT set_config('search_path', 'app', true)",
        "SELECT pg_catalog.set_config('a.b', x, is_local => TRUE) FROM t",
        "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
        "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1 AS a",
        "DECLARE c CURSOR FOR SELECT 1",
        "ALTER ROLE app SET search_path = app",
        "ALTER DATABASE app SET search_path = app",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = app AS 'SELECT 1'",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql RETURN set_config('a.b', 'c', false)",
        "CREATE VIEW v AS SELECT set_config('a.b', 'c', false)",
        "SELECT reset FROM settings",
        "SELECT 'SET search_path = app', $$RESET ALL$$ /* LISTEN x */ -- DISCARD ALL",
    ] {
        assert_eq!(sessions(text), Session::Clean, "{text}");
    }
}

#[test]
fn what_outlives_the_transaction_is_seen() {
    for text in [
        "SET search_path = app",
        "SET SESSION lock_timeout TO '1s'",
        "SET TIME ZONE 'UTC'",
        "SET ROLE owner",
        "SET SESSION ROLE owner",
        "SET SESSION AUTHORIZATION owner",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "RESET ALL",
        "RESET ROLE",
        "RESET SESSION AUTHORIZATION",
        "RESET search_path",
        "DISCARD TEMP",
        "LISTEN x",
        "UNLISTEN *",
        "LOAD 'x'",
        "PREPARE p AS SELECT 1",
        "DEALLOCATE p",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "SELECT pg_catalog.set_config('search_path', '', false)",
        "SELECT \"set_config\"('search_path', '', false)",
        "SELECT Set_Config('search_path', '', x)",
        "INSERT INTO t SELECT set_config('a.b', 'c', false)",
        "WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x",
        "SELECT set_config('a.b', 'c', true), set_config('a.b', 'c', false)",
        "CREATE TEMP TABLE t (a int)",
        "CREATE TEMPORARY TABLE t AS SELECT 1 AS a",
        "CREATE TABLE pg_temp.t (a int)",
        "CREATE TEMP VIEW v AS SELECT 1",
        "CREATE TEMP SEQUENCE s",
        "SELECT 1 AS a INTO TEMP t",
        "SELECT 1 AS a INTO TEMP t UNION SELECT 2",
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ] {
        assert_eq!(sessions(text), Session::Changed, "{text}");
        assert_eq!(
            sessions(&format!("SELECT 1; {text}; SELECT 2")),
            Session::Changed,
            "{text}"
        );
    }
}

#[test]
fn nothing_in_quotes_comments_or_bodies_is_taken_for_a_statement() {
    for text in [
        "SELECT 'COMMIT;', '; COMMIT; --', E'\\'; COMMIT; --', U&'\\0041; COMMIT', $a$; COMMIT; $$ $a$",
        "SELECT ';\nCOMMIT;\n'; -- ; COMMIT;\n/* COMMIT; /* nested */ COMMIT; */ SELECT 1",
        "CREATE TABLE \"; COMMIT; \" (\"BEGIN\" int, \"a\"\"; COMMIT;\" int)",
        "CREATE TABLE t (begin int, commit int, \"end\" int); SELECT begin, commit FROM t",
        "DO $$ BEGIN IF true THEN PERFORM 1; END IF; END $$",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $body$ BEGIN COMMIT; BEGIN NULL; END; END; $body$",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN COMMIT; SET search_path = ''x''; END'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT 3",
        "CREATE PROCEDURE p() BEGIN ATOMIC INSERT INTO t VALUES (1); END",
        "SELECT CASE WHEN true THEN 1 END; SELECT 1 AS commit",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM u; DELETE FROM v)",
        "COMMENT ON TABLE t IS 'VACUUM; \\d; COPY t FROM STDIN'",
        "SELECT '\\d', E'\\\\', $$\\copy$$ -- \\q\n",
        "SELECT a$b$, c$b$ FROM t",
    ] {
        assert_eq!(sessions(text), Session::Clean, "{text}");
    }
}

#[test]
fn a_commit_behind_quotes_is_found() {
    for text in [
        "SELECT 'a'; COMMIT",
        "SELECT 'a\\'; COMMIT; SELECT 'b'",
        "SELECT E'a\\\\'; COMMIT",
        "SELECT $a$ $b$ $a$; COMMIT; SELECT $b$ $b$",
        "SELECT \"a\"\"\"; COMMIT",
        "/* /* */ */ COMMIT",
        "-- a\rCOMMIT",
        "SELECT 1/* */;/**/COMMIT/**/",
        "DO $$ BEGIN END $$; COMMIT",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END; COMMIT",
        "; ; COMMIT ; ;",
    ] {
        let problems = refused(text);
        assert!(
            problems.len() == 1 && problems[0].contains("COMMIT is not allowed"),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn a_string_that_postgresql_would_end_elsewhere_is_refused() {
    // PostgreSQL reads the second line by the rules of E'..' too.
    for text in [
        "SELECT E'a'\n'b\\'; COMMIT; --'",
        "SELECT E'a' -- c\n'\\' || '; COMMIT; --'",
        "SELECT E'a'\n'b'\n'\\''",
    ] {
        let problems = refused(text);
        assert!(
            problems.iter().any(|p| p.contains("where this string ends")),
            "{text}: {problems:?}"
        );
    }
    assert_eq!(sessions("SELECT E'a'\n'b', 'c\\'"), Session::Clean);
}

#[test]
fn psql_commands_are_refused_once_for_each_line() {
    assert_eq!(
        refused("\\set ON_ERROR_STOP on\n\\c app \\d\nSELECT 1;\n"),
        [
            "1:1 a backslash outside quotes is a command for psql, not SQL",
            "2:1 a backslash outside quotes is a command for psql, not SQL"
        ]
    );
    assert_eq!(
        refused("SELECT 1 \\gexec")[0],
        "1:10 a backslash outside quotes is a command for psql, not SQL"
    );
    for (text, at) in [("SELECT :name", "1:8"), ("INSERT INTO t VALUES (:'v')", "1:23")] {
        assert_eq!(
            refused(text),
            [format!("{at} a psql variable (`:name`) has no value here")]
        );
    }
    assert_eq!(sessions("SELECT a[1:2], b[:c], '1'::int"), Session::Clean);
}

#[test]
fn rows_after_copy_from_stdin_are_not_taken_for_sql() {
    let text = "SELECT 1;\nCOPY public.t (a, b) FROM stdin;\n1\tit's\n2\t(\\N\n\\.\n\nCOMMIT;\n";
    assert_eq!(
        refused(text),
        ["2:1 COPY FROM STDIN is not allowed: a migration has no input"]
    );
    assert_eq!(
        refused("COPY t TO STDOUT"),
        ["1:1 COPY TO STDOUT is not allowed: a migration has no output"]
    );
    assert_eq!(refused("COPY t FROM STDOUT").len(), 1);
    assert_eq!(
        sessions("COPY t FROM '/tmp/t.csv' WITH (FORMAT csv); COPY t FROM PROGRAM 'stdin'"),
        Session::Clean
    );
}

#[test]
fn empty_files_are_refused() {
    for text in [
        "",
        " \n",
        "-- only a comment\n/* and */",
        ";;",
        "\u{feff}",
        "-- confiture: parse=off\n",
    ] {
        assert_eq!(refused(text), ["1:1 the file holds no statement"], "{text:?}");
    }
}

#[test]
fn byte_order_marks_and_carriage_returns_are_tolerated() {
    let parsed = parsed("\u{feff}-- confiture: lock_timeout=1s\r\nSELECT 1;\r\nSELECT 2;\r\n");
    assert_eq!(parsed.options.lock_timeout, Some(Duration::from_secs(1)));
    assert_eq!(parsed.steps[0].at, Position { line: 2, column: 1 });
    let Change::Sql(sql) = &parsed.steps[0].change else {
        panic!("not sql");
    };
    assert!(
        sql.text.starts_with("--"),
        "PostgreSQL would stumble over the mark"
    );
    assert_eq!(refused("SELECT 1;\r\n\u{feff}COMMIT;\r\n").len(), 1);
    assert_eq!(
        refused("SELECT 1;\r\n  COMMIT;\r\n"),
        ["2:3 COMMIT is not allowed: the step runs in one transaction together with its record"]
    );
}

#[test]
fn what_cannot_be_read_is_refused_with_the_parsers_message() {
    let problems = refused("SELECT 1;\nALTER TABLE t ADD COLUMN (;\nSELECT 2;\n");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].starts_with("2:26 this cannot be read: expected"),
        "{problems:?}"
    );
    assert_eq!(
        refused("SELECT 1;\nSELECT 'a;\nSELECT 2"),
        ["2:8 this quote is never closed"]
    );
    assert_eq!(refused("SELECT 1 /* a"), ["1:10 this comment is never closed"]);
    assert_eq!(refused("SELECT $a$ b"), ["1:8 this dollar quote is never closed"]);
    assert_eq!(refused("SELECT \"a"), ["1:8 this double quote is never closed"]);
    assert_eq!(
        refused("SELECT\0 1"),
        ["1:7 there is a NUL byte, where PostgreSQL would stop reading"]
    );
    assert_eq!(refused("SELECT 1 SELECT 2").len(), 1);
}

#[test]
fn at_most_twenty_problems_are_shown() {
    assert_eq!(refused(&"COMMIT;\n".repeat(100)).len(), MOST_SHOWN);
}

#[test]
fn parse_off_runs_anything_whole_on_a_connection_of_its_own() {
    let text = "-- confiture: parse=off statement_timeout=0\nFROBNICATE ((;";
    let parsed = parsed(text);
    assert_eq!(parsed.options.statement_timeout, Some(Duration::ZERO));
    assert_eq!(
        sqls(text),
        [Sql {
            text: text.to_owned(),
            execution: Execution::Transaction(Session::Changed),
            locks: Vec::new(),
            creates_only: false,
            loses_data: false,
        }]
    );
    assert_eq!(refused("-- confiture: parse=off\nSELECT\0 1").len(), 1);
    assert_eq!(
        refused("-- confiture: transaction=off\n-- confiture: parse=off\nSELECT 1").len(),
        1
    );
}

#[test]
fn directives_are_read_from_the_head() {
    let options = |text: &str| parsed(text).options;
    let both = Options {
        lock_timeout: Some(Duration::from_mins(1)),
        statement_timeout: Some(Duration::from_mins(5)),
        cancel_idle_in_transaction: None,
    };
    for text in [
        "-- confiture: lock_timeout=60s statement_timeout=5min transaction=on parse=on\nSELECT 1",
        "/* licence */\n--confiture:lock_timeout=60000\n-- CONFITURE : statement_timeout=300s,\nSELECT 1",
    ] {
        assert_eq!(options(text), both, "{text}");
    }
    for text in [
        "-- confiture migrates this\nSELECT 1",
        "SELECT '-- confiture: lock_timeout=1s'",
        "-- see confiture: the book\nSELECT 1",
    ] {
        assert_eq!(options(text), Options::default(), "{text}");
    }
}

#[test]
fn wrong_directives_are_refused_with_their_place() {
    for (text, problem) in [
        (
            "-- confiture: lock_timout=1s\n",
            "1:15 the directive `lock_timout` is not known",
        ),
        (
            "\n--  confiture: parse=off  x=1\n",
            "2:27 the directive `x` is not known",
        ),
        (
            "-- confiture: lock_timeout\n",
            "1:15 `lock_timeout` is not a directive",
        ),
        (
            "-- confiture: lock_timeout = 1s\n",
            "1:15 `lock_timeout` is not a directive",
        ),
        (
            "-- confiture: lock_timeout=soon\n",
            "1:15 the value of `lock_timeout` is wrong: `soon` is not a duration: write a number with a unit, such as \
             500ms, 30s, 5min or 1h",
        ),
        (
            "-- confiture: transaction=no\n",
            "1:15 the value of `transaction` is wrong: `no` is neither `on` nor `off`",
        ),
        (
            "-- confiture: parse=on\n-- confiture: parse=off\n",
            "2:15 the directive `parse` stands there twice",
        ),
        (
            "/* confiture: parse=off */",
            "1:1 directives are not read from this kind of comment",
        ),
        (
            "SELECT 1; -- confiture: parse=off\n",
            "1:11 this directive comes after the first statement, where it has no effect",
        ),
    ] {
        let problems = refused(&format!("{text}SELECT 1"));
        assert_eq!(problems[0], problem, "{text}");
    }
    let Err(problems) = parse("f", "-- confiture: lock_timout=1s\nSELECT 1") else {
        panic!("accepted");
    };
    assert_eq!(
        problems[0].advice.as_deref(),
        Some("did you mean `lock_timeout`?")
    );
}

#[test]
fn what_cannot_run_in_a_transaction_needs_transaction_off() {
    for text in [
        "CREATE INDEX CONCURRENTLY i ON t (a)",
        "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a)",
        "DROP INDEX CONCURRENTLY i",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX (CONCURRENTLY) INDEX i",
        "REINDEX DATABASE",
        "REINDEX SYSTEM",
        "REINDEX SCHEMA s",
        "VACUUM",
        "VACUUM (ANALYZE) t",
        "VACUUM FULL t",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "CLUSTER",
        "CLUSTER VERBOSE",
        "ALTER DATABASE d SET TABLESPACE x",
        "DROP DATABASE IF EXISTS d",
        "DROP TABLESPACE IF EXISTS x",
        "ALTER SUBSCRIPTION s REFRESH PUBLICATION",
        "ALTER SUBSCRIPTION s SET PUBLICATION p",
    ] {
        let problems = refused(&format!("SELECT 1;\n{text};"));
        assert_eq!(problems.len(), 1, "{text}");
        assert!(
            problems[0].starts_with("2:1 ")
                && problems[0].contains("cannot run inside a transaction, and the file runs in one"),
            "{text}: {problems:?}"
        );
        assert_eq!(separate(&format!("SELECT 1;\n{text};")).len(), 2, "{text}");
    }
}

#[test]
fn each_statement_without_a_transaction_is_a_step_that_can_be_repeated() {
    let of = |text: &str| separate(text).remove(0).1;
    // PostgreSQL refuses some of these inside a transaction for partitioned tables.
    for text in [
        "REINDEX TABLE t",
        "REINDEX SCHEMA CONCURRENTLY s",
        "REINDEX (CONCURRENTLY, TABLESPACE fast) INDEX i",
        "CLUSTER t USING i",
        "CLUSTER i ON t",
        "DROP SUBSCRIPTION IF EXISTS s",
    ] {
        assert!(matches!(of(text), Execution::Outside(_)), "{text}");
    }
    for text in [
        "CREATE INDEX i ON t (a)",
        "CREATE SUBSCRIPTION s CONNECTION 'c' PUBLICATION p WITH (create_slot = 'off')",
    ] {
        assert_eq!(of(text), Execution::Transaction(Session::Clean), "{text}");
    }

    let text =
        "-- confiture: transaction=off\n/* a */ CREATE TABLE t (a int) ; ;\n-- b\n  VACUUM /* c */ t; -- d\n";
    let parsed = parsed(text);
    assert_eq!(
        sqls(text).iter().map(|sql| sql.text.as_str()).collect::<Vec<_>>(),
        ["CREATE TABLE t (a int)", "VACUUM /* c */ t"]
    );
    assert_eq!(
        parsed.steps.iter().map(|step| step.at).collect::<Vec<_>>(),
        [Position { line: 2, column: 9 }, Position { line: 4, column: 3 }]
    );
    assert_ne!(parsed.steps[0].checksum, parsed.steps[1].checksum);
}

/// What a statement is carried out as: the title of that step, and what it is on its table.
fn step_of(text: &str) -> String {
    match separate(text).remove(0).1 {
        Execution::Step(change) => match &*change {
            Change::CreateIndex(create) => format!(
                "{}: {}",
                change.title(),
                create.written.as_deref().unwrap_or_default()
            ),
            _ => change.title(),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn statements_about_indexes_are_carried_out_as_the_steps_that_do_the_same() {
    for (text, step) in [
        (
            "CREATE INDEX CONCURRENTLY Idx ON t (a)",
            "create index \"idx\" on \"t\": (a)",
        ),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"Idx\" ON ONLY App.t USING gist (a gist_ops (siglen = 3) DESC, (b || ';')) INCLUDE (c) WITH (fillfactor = 70) WHERE b > 0 /* x */; -- y",
            "create unique index \"Idx\" on \"app\".\"t\": USING gist (a gist_ops (siglen = 3) DESC, (b || ';')) INCLUDE (c) WITH (fillfactor = 70) WHERE b > 0 /* x */",
        ),
        (
            "DROP INDEX CONCURRENTLY IF EXISTS app.i",
            "drop index \"app\".\"i\"",
        ),
        (
            "REINDEX INDEX CONCURRENTLY db.app.i",
            "rebuild index \"app\".\"i\"",
        ),
        (
            "REINDEX (VERBOSE, CONCURRENTLY) TABLE T",
            "rebuild the indexes of \"t\"",
        ),
    ] {
        assert_eq!(step_of(text), step, "{text}");
    }
}

#[test]
fn what_a_file_made_is_new_to_others_until_it_is_committed() {
    let text = "CREATE TABLE n (a int);\nALTER TABLE n ADD b int;";
    let whole = sqls(text).remove(0);
    assert_eq!((whole.creates_only, whole.locks.len()), (true, 0));
    let each = sqls(&format!("-- confiture: transaction=off\n{text}\nVACUUM FULL n;"));
    let said: Vec<_> = each
        .iter()
        .map(|sql| (sql.creates_only, sql.locks.len()))
        .collect();
    assert_eq!(said, [(true, 0), (false, 1), (false, 1)]);
}

#[test]
fn the_tables_of_all_statements_are_known_unless_their_names_may_lead_elsewhere() {
    let locks = |text: &str| {
        let locks = sqls(text).remove(0).locks;
        locks
            .iter()
            .map(|(_, table)| table.to_string())
            .collect::<Vec<_>>()
    };
    let text = "ALTER TABLE a ADD b int; DROP TABLE s.c;";
    assert_eq!(locks(text), ["\"a\"", "\"s\".\"c\""]);
    assert_eq!(
        locks(&format!("SET LOCAL search_path = s; {text}")),
        ["\"s\".\"c\""]
    );
    assert_eq!(
        locks(&format!("-- confiture: parse=off\n{text}")),
        Vec::<String>::new()
    );
}

#[test]
fn statements_that_take_rows_or_values_away_are_known() {
    let loses = |text: &str| sqls(text).iter().any(|sql| sql.loses_data);
    for text in [
        "SELECT 1; DROP TABLE a",
        "ALTER TABLE a ADD b int, DROP c",
        "ALTER TABLE a DROP COLUMN IF EXISTS c",
        "TRUNCATE a",
        "WITH gone AS (DELETE FROM a RETURNING *) SELECT FROM gone",
        "MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN DELETE",
        "DROP TYPE t CASCADE",
        "DO $$ BEGIN delete from a; END $$",
        "-- confiture: parse=off\nDROP TABLE a",
    ] {
        assert!(loses(text), "{text}");
    }
    for text in [
        "ALTER TABLE a DROP CONSTRAINT c, ALTER d DROP NOT NULL",
        "DROP TYPE t",
        "DROP INDEX i",
        "UPDATE a SET b = 1",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'DELETE FROM a'",
        "SELECT 'drop table a'",
    ] {
        assert!(!loses(text), "{text}");
    }
}

#[test]
fn how_a_statement_is_carried_out_does_not_change_its_checksum() {
    let text = "CREATE INDEX CONCURRENTLY i ON t (a)";
    let step = &parsed(&format!("-- confiture: transaction=off\n{text};\n")).steps[0];
    let of_text = checksum::Canonical::new().field("sql", checksum::tokens(text));
    assert_eq!(step.checksum, checksum::step("sql", &of_text.finish()));
}

#[test]
fn what_can_be_neither_verified_nor_repeated_is_refused_either_way() {
    for (text, part) in [
        ("CREATE DATABASE d", "cannot be verified"),
        ("DROP DATABASE d", "cannot be verified"),
        ("CREATE TABLESPACE x LOCATION '/x'", "cannot be verified"),
        ("DROP TABLESPACE x", "cannot be verified"),
        (
            "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
            "cannot be verified",
        ),
        (
            "CREATE SUBSCRIPTION s CONNECTION 'c' PUBLICATION p",
            "cannot be verified",
        ),
        ("ALTER SUBSCRIPTION s ADD PUBLICATION p", "cannot be verified"),
        ("CREATE INDEX CONCURRENTLY ON t (a)", "needs a name"),
        ("DROP INDEX CONCURRENTLY i, j", "takes one index"),
        ("DROP INDEX CONCURRENTLY i CASCADE", "cannot drop what needs"),
        ("DISCARD ALL", "DISCARD ALL"),
    ] {
        for head in ["", "-- confiture: transaction=off\n"] {
            let problems = refused(&format!("{head}{text}"));
            assert!(
                problems.len() == 1 && problems[0].contains(part),
                "{text}: {problems:?}"
            );
        }
    }
}

#[test]
fn what_would_have_no_effect_alone_is_refused_with_transaction_off() {
    for text in [
        "SET search_path = app",
        "SET LOCAL search_path = app",
        "SELECT set_config('search_path', 'app', true)",
        "SAVEPOINT a",
        "LOCK TABLE t",
        "CREATE TEMP TABLE t (a int)",
        "SET ROLE owner",
    ] {
        let problems = refused(&format!("-- confiture: transaction=off\n{text};\nSELECT 1"));
        assert!(
            problems.len() == 1 && problems[0].contains("has no effect on the statements after it"),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn sql_in_yaml_obeys_the_same_rules() {
    let built = inline("CREATE INDEX CONCURRENTLY i ON t (a);").unwrap();
    assert_eq!(built.text, "CREATE INDEX CONCURRENTLY i ON t (a)");
    assert!(matches!(built.execution, Execution::Step(_)), "{built:?}");
    assert_eq!(
        inline("VACUUM t;").unwrap().execution,
        Execution::Outside(Outside::Weak)
    );
    let full = inline("VACUUM FULL t;").unwrap();
    assert_eq!(full.execution, Execution::Outside(Outside::Rewrite));
    assert_eq!(full.locks.len(), 1);
    assert_eq!(
        inline("SET search_path = a; SELECT 1").unwrap().execution,
        Execution::Transaction(Session::Changed)
    );
    for (text, part) in [
        ("", "there is no statement"),
        (";", "there is no statement"),
        ("COMMIT", "line 1, column 1"),
        ("SELECT 1;\n VACUUM", "line 2, column 2"),
        ("-- confiture: parse=off\nSELECT 1", "SQL files only"),
    ] {
        let error = inline(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn the_checksum_follows_tokens_and_directives() {
    let checksum = |text: &str| parsed(text).checksum;
    let base = checksum("CREATE TABLE t (a int); SELECT 'x'");
    for same in [
        "create table T(a int);select 'x'",
        "-- why\nCREATE /* x */ TABLE t (a int);\r\n\tSELECT 'x'",
        "\u{feff}CREATE TABLE t (a int); SELECT 'x'",
    ] {
        assert_eq!(checksum(same), base, "{same}");
    }
    for other in [
        "CREATE TABLE t (a int); SELECT 'X'",
        "CREATE TABLE \"T\" (a int); SELECT 'x'",
        "CREATE TABLE t (a int); SELECT 'x';",
        "-- confiture: lock_timeout=1s\nCREATE TABLE t (a int); SELECT 'x'",
        "-- confiture: statement_timeout=1s\nCREATE TABLE t (a int); SELECT 'x'",
        "-- confiture: transaction=off\nCREATE TABLE t (a int); SELECT 'x'",
    ] {
        assert_ne!(checksum(other), base, "{other}");
    }
    assert_eq!(
        checksum("-- confiture: lock_timeout=60s\nSELECT 1"),
        checksum("-- confiture:\tlock_timeout=1min\nSELECT 1")
    );
}

#[test]
fn deep_nesting_is_refused_instead_of_overflowing_the_stack() {
    let n = 200_000;
    let many = |part: &str| part.repeat(n);
    for text in [
        format!("SELECT {}1{}", many("("), many(")")),
        format!("SELECT {}", many("(")),
        format!("SELECT {}1", many("- ")),
        format!("SELECT {}true", many("NOT ")),
        format!("SELECT 1{}", many(" || 1")),
        format!("SELECT 1{}", many("::int")),
        format!("SELECT 1{}", many(" UNION SELECT 1, 2")),
        format!("SELECT {}1{}", many("CASE WHEN a THEN "), many(" END")),
        format!("SELECT 1 FROM a{}", many(" JOIN b ON c")),
        format!("SELECT 1 FROM a{}{}", many(" JOIN b"), many(" ON c")),
        format!("SELECT {}1{}", many("array["), many("]")),
        format!("SELECT {}1{}", many("(SELECT "), many(")")),
        many("EXPLAIN "),
        format!(
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT {}1{} $$",
            many("("),
            many(")")
        ),
    ] {
        let problems = refused(&text);
        assert!(
            problems[0].contains("nested too deeply"),
            "{}: {problems:?}",
            &text[..40]
        );
    }
}

#[test]
fn long_is_not_deep() {
    let mut values = "INSERT INTO t VALUES (1, 'a')".to_owned();
    let mut statements = String::new();
    let mut list = "SELECT a IN (1".to_owned();
    let mut branches = "SELECT CASE".to_owned();
    let mut arms = "SELECT 1".to_owned();
    for i in 0..2_000 {
        let _ = write!(values, ",\n({i}, 'it''s', now() - interval '1 day')");
        let _ = writeln!(statements, "UPDATE t SET a = ({i}) WHERE b = 'x';");
        let _ = write!(list, ", -{i}");
        let _ = write!(branches, " WHEN a = {i} AND b THEN f({i})");
        let _ = write!(arms, " UNION ALL SELECT {i}");
    }
    for text in [values, statements, list + ")", branches + " END", arms] {
        parsed(&text);
    }
    // As deep as it may be, on the small stack of a test's thread.
    for (open, close) in [("(", ")"), ("(SELECT ", ")"), ("f(", ")"), ("ARRAY[", "]")] {
        parsed(&format!("SELECT {}1{}", open.repeat(280), close.repeat(280)));
    }
    parsed(&format!("SELECT {}1", "- ".repeat(2_900)));
    parsed(&format!("SELECT 1{}", " || 1".repeat(980)));
}

#[test]
fn a_large_file_is_read_in_pieces_with_right_places() {
    let statement = "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;\n";
    let text = format!(
        "-- confiture: transaction=off\n{}\nCOMMIT;\nSELECT (;\n",
        statement.repeat(10_000)
    );
    let told = parse("m", &text).unwrap_err();
    let places: Vec<_> = told
        .iter()
        .map(|problem| problem.at.map(|at| (at.line, at.column)))
        .collect();
    assert_eq!(places, [Some((10_003, 1)), Some((10_004, 9))], "{told:?}");
    let steps = parse("m", text.split("\nCOMMIT").next().unwrap()).unwrap().steps;
    assert_eq!((steps.len(), steps[9_999].at.line), (10_000, 10_001));
}
