//! Migration files that cannot be read or must not be run. No database is asked.

use crate::case::Case;
use expect_test::expect;

#[tokio::test]
async fn folders() -> anyhow::Result<()> {
    // Nothing in it, not there, no folder, a link to itself, too large a name.
    Case::up(&[])
        .says(
            2,
            expect![[r#"
        error: there is no migration in `db`
          help: make one with `confiture new NAME`
    "#]],
        )
        .await?;
    Case::of(&[
        "migrate",
        "up",
        "--migrations",
        "nowhere",
        "--database-url",
        "postgres://a@h/d",
    ])
    .says(
        2,
        expect![[r#"
        error: cannot read the migrations in `nowhere`: No such file or directory (os error 2)
          help: name the folder with --migrations DIR, or make one with `confiture init`
    "#]],
    )
    .await?;
    Case::of(&[
        "migrate",
        "up",
        "--migrations",
        "file",
        "--database-url",
        "postgres://a@h/d",
    ])
    .file("file", b"")
    .says(
        2,
        expect![[r#"
        error: cannot read the migrations in `file`: Not a directory (os error 20)
    "#]],
    )
    .await?;
    Case::up(&[("README.md", "words"), ("1_a.sql", "SELECT 1")])
        .says(2, expect![[r#"
            error: db/1_a.sql: this is no migration by its name
              help: name it VERSION_name.up.sql, VERSION_name.down.sql or VERSION_name.yaml, such as 001_add_tax.up.sql; hidden files and *.md are ignored
        "#]])
        .await?;
    Case::up(&[("1_a.up.sql", "SELECT 1"), ("01_b.up.sql", "SELECT 1")])
        .says(
            2,
            expect![[r#"
            error: db/1_a.up.sql: version 1 stands in db/01_b.up.sql already
              help: give one of the two another version
        "#]],
        )
        .await?;
    Case::up(&[
        ("1_a.up.sql", "SELECT 1"),
        ("1_a.yaml", "up: [ { sql: SELECT 1 } ]"),
    ])
    .says(
        2,
        expect![[r#"
        error: db/1_a.yaml: version 1 stands in db/1_a.up.sql already
          help: give one of the two another version
    "#]],
    )
    .await?;
    Case::up(&[("1_a.down.sql", "SELECT 1")])
        .says(
            2,
            expect![[r#"
            error: db/1_a.down.sql: there is no up for version 1
              help: a down file needs an up file of the same version
        "#]],
        )
        .await?;
    Case::up(&[("a.up.sql", "SELECT 1")])
        .says(2, expect![[r#"
            error: db/a.up.sql: its name does not begin with a version: `a` is not a version: write 1 to 40 digits
              help: name it VERSION_name.up.sql, VERSION_name.down.sql or VERSION_name.yaml, such as 001_add_tax.up.sql; hidden files and *.md are ignored
        "#]])
        .await?;
    Case::up(&[("confiture.set.yaml", "sett: x\n"), ("1_a.up.sql", "SELECT 1")])
        .says(
            2,
            expect![[r#"
            error: db/confiture.set.yaml:1:1: the key `sett` is not known here
              help: did you mean `set`?
        "#]],
        )
        .await?;
    Case::up(&[
        ("confiture.set.yaml", "set: Über Uns\n"),
        ("1_a.up.sql", "SELECT 1"),
    ])
    .says(2, expect![[r#"
        error: db/confiture.set.yaml:1:6: set: set name `Über Uns` is not usable: it must begin with a letter or a digit
          help: write `set: NAME`
    "#]])
    .await
}

#[tokio::test]
async fn yaml() -> anyhow::Result<()> {
    for (file, message) in [
        (
            "",
            expect![[r#"
            error: db/1_a.yaml: the file is empty
              help: write at least `up:` with one step
        "#]],
        ),
        (
            "up:\n  - sql: [\n",
            expect![[r#"
            error: db/1_a.yaml:2:10: this is not YAML: unclosed bracket '['
        "#]],
        ),
        (
            "up: {}\n",
            expect![[r#"
            error: db/1_a.yaml:1:5: up: expected a list of steps, found a mapping
              help: begin each step with `- `
        "#]],
        ),
        (
            "up: []\n",
            expect![[r#"
            error: db/1_a.yaml:1:5: up: there is no step
        "#]],
        ),
        (
            "name: x\n",
            expect![[r#"
            error: db/1_a.yaml:1:1: the key `up` is missing
              help: write `up:` with a list of steps
        "#]],
        ),
        (
            "up:\n\t- sql: SELECT 1\n",
            expect![[r#"
            error: db/1_a.yaml:2:2: this is not YAML: tabs disallowed within this context (block indentation)
        "#]],
        ),
        (
            "up:\n  - sql: SELECT 1\nup:\n  - sql: SELECT 2\n",
            expect![[r#"
            error: db/1_a.yaml:3:1: the key `up` stands here a second time, first on line 1
        "#]],
        ),
        (
            "upp:\n  - sql: SELECT 1\n",
            expect![[r#"
            error: db/1_a.yaml:1:1: unknown key `upp`
              help: did you mean `up`?
            db/1_a.yaml:1:1: the key `up` is missing
              help: write `up:` with a list of steps
        "#]],
        ),
        (
            "up:\n  - backfil: {}\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: unknown step `backfil`
                  help: did you mean `backfill`? known steps are sql, create_table, rename_table, drop_table, add_column, rename_column, drop_column, change_type, contract, set_default, drop_default, set_not_null, drop_not_null, add_check, add_foreign_key, drop_constraint, add_enum_value, backfill, delete, drop_sync, assert, create_index, drop_index, reindex, add_unique, drop_unique
            "#]],
        ),
        (
            "up:\n  - repack: { table: t }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: unknown step `repack`
                  help: known steps are sql, create_table, rename_table, drop_table, add_column, rename_column, drop_column, change_type, contract, set_default, drop_default, set_not_null, drop_not_null, add_check, add_foreign_key, drop_constraint, add_enum_value, backfill, delete, drop_sync, assert, create_index, drop_index, reindex, add_unique, drop_unique
            "#]],
        ),
        (
            "up:\n  - sql: SELECT 1\n    assert: x\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: a step has exactly one key, its kind, and beside it at most lock_timeout, statement_timeout, cancel_blockers
                  help: begin each step with a `- ` of its own, and indent what belongs to it
            "#]],
        ),
        (
            "up:\n  - drop_column: { table: t, colum: x }\n",
            expect![[r#"
            error: db/1_a.yaml:2:30: drop_column: the key `colum` is not known here
              help: did you mean `column`?
        "#]],
        ),
        (
            "up:\n  - add_column: { table: t, column: x }\n",
            expect![[r#"
            error: db/1_a.yaml:2:17: add_column: the key `type` is missing
        "#]],
        ),
        (
            "up:\n  - add_column: { table: t, column: x, type: int, default: n + 1 }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: add_column: the default `n + 1` reads columns or tables: add the column without a default and fill it with a `backfill` step
            "#]],
        ),
        (
            "up:\n  - add_column: { table: t, column: x, type: int, not_null: true }\n",
            expect![[r#"
                error: db/1_a.yaml:2:61: add_column: `not_null` needs a `default`: rows that exist would have no value; or add the column nullable, `backfill` it, then `set_not_null`
            "#]],
        ),
        (
            "up:\n  - add_column: { table: t, column: x, type: bigserial }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: add_column: `bigserial` is no constant default: PostgreSQL would rewrite the table under an exclusive lock; add an integer column, and its sequence with a `sql` step
            "#]],
        ),
        (
            "up:\n  - add_column: { table: t, column: x, type: \"int; DROP TABLE t\" }\n",
            expect![[r#"
                error: db/1_a.yaml:2:46: add_column: type: `int; DROP TABLE t` is not a data type, or more than one: write it as in CREATE TABLE, such as `numeric(10,2)`
            "#]],
        ),
        (
            "up:\n  - backfill: { table: t, set: {} }\n",
            expect![[r#"
                error: db/1_a.yaml:2:32: backfill: `set` names no column
            "#]],
        ),
        (
            "up:\n  - backfill: { table: t, set: { x: \"1; DROP TABLE t\" } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:37: backfill: set.x: `1; DROP TABLE t` is not a SQL expression that can stand here: remove the `;` (line 1, column 2 of it)
            "#]],
        ),
        (
            "up:\n  - backfill: { table: t, set: { x: 1 }, batch: { size: 0 } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:57: backfill: `batch.size` must be between 1 and 1000000
            "#]],
        ),
        (
            "up:\n  - backfill: { table: t, set: { x: 1 }, batch: { pause: soon } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:58: backfill: batch.pause: `soon` is not a duration: write a number with a unit, such as 500ms, 30s, 5min or 1h
            "#]],
        ),
        (
            "up:\n  - backfill: { table: t, set: { x: 1 }, batch: { vacuum: often } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:59: backfill: batch.vacuum: expected true, false or a share of the rows such as 0.1, found string "often"
            "#]],
        ),
        (
            "up:\n  - delete: { table: t, where: x = 1, batch: { vacuum: 30 } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:56: delete: `batch.vacuum` must be true, false, or a share of the rows between 0.01 and 1
            "#]],
        ),
        (
            "up:\n  - add_column: { table: t, column: x, type: int, default: 1, batch: { vacuum: 0 } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:80: add_column: `batch.vacuum` must be true, false, or a share of the rows between 0.01 and 1
            "#]],
        ),
        (
            "up:\n  - backfill: { table: t, set: { x: 1 }, new_rows: maybe }\n",
            expect![[r#"
                error: db/1_a.yaml:2:52: backfill: new_rows: `maybe` is not known here
                  help: one of either, excluded is expected
            "#]],
        ),
        (
            "up:\n  - set_not_null: { table: a.b.c, column: x }\n",
            expect![[r#"
                error: db/1_a.yaml:2:28: set_not_null: table: `a.b.c` has too many parts: write `table` or `schema.table`
            "#]],
        ),
        (
            "up:\n  - sql: SELECT (1\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: sql: this cannot be read: expected `,` (line 1, column 10 of the text); correct it; if PostgreSQL does accept it, put `-- confiture: parse=off` at the top of a SQL file to run it unread
            "#]],
        ),
        (
            "up:\n  - sql: COMMIT\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: sql: COMMIT is not allowed: the step runs in one transaction together with its record (line 1, column 1 of the text); remove it; with `-- confiture: transaction=off` at the top of a SQL file each statement has a transaction of its own
            "#]],
        ),
        (
            "up:\n  - add_check: { table: t, name: c, check: a IN (SELECT 1) }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: add_check: the check `a IN (SELECT 1)` holds a sub-select: PostgreSQL checks a row by its own columns alone
            "#]],
        ),
        (
            "up:\n  - add_check: { table: t, name: c, check: a > }\n",
            expect![[r#"
                error: db/1_a.yaml:2:44: add_check: check: `a >` is not a SQL expression that can stand here: expected an expression, found `)` (line 1, column 4 of it)
            "#]],
        ),
        (
            "up:\n  - add_check: { table: t, check: a > 1 }\n",
            expect![[r#"
            error: db/1_a.yaml:2:16: add_check: the key `name` is missing
        "#]],
        ),
        (
            "up:\n  - add_foreign_key: { table: t, columns: [], references: { table: r } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:43: add_foreign_key: `columns` names no column
            "#]],
        ),
        (
            "up:\n  - add_foreign_key: { table: t, columns: [a, a], references: { table: r, columns: [x] } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:43: add_foreign_key: `columns` names a column twice
                db/1_a.yaml:2:43: add_foreign_key: `columns` and `references.columns` must name as many columns as each other: 2 and 1
            "#]],
        ),
        (
            "up:\n  - add_foreign_key: { table: t, columns: [a], references: { table: r }, on_delete: vanish }\n",
            expect![[r#"
                error: db/1_a.yaml:2:85: add_foreign_key: on_delete: `vanish` is not known here
                  help: one of no_action, restrict, cascade, set_null, set_default is expected
            "#]],
        ),
        (
            "up:\n  - add_foreign_key: { table: t_with_quite_a_long_name_that_says_it_all, columns: [and_a_column_of_it], references: { table: r } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: add_foreign_key: the name `t_with_quite_a_long_name_that_says_it_all_and_a_column_of_it_fkey` is longer than 63 bytes, and PostgreSQL would cut it off: write a shorter one as `name`
            "#]],
        ),
        (
            "up:\n  - set_default: { table: t, column: a, default: b + 1 }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: set_default: the default `b + 1` reads columns or tables: PostgreSQL takes none that does
            "#]],
        ),
        (
            "up:\n  - drop_default: { table: t, column: a, previous: (SELECT 1) }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: drop_default: the default `(SELECT 1)` reads columns or tables: PostgreSQL takes none that does
            "#]],
        ),
        (
            "up:\n  - rename_column: { table: t, column: a, to: A }\n",
            expect![[r#"
                error: db/1_a.yaml:2:47: rename_column: `to` is the name that column "a" has already
            "#]],
        ),
        (
            "up:\n  - rename_table: { table: t, to: other.t }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: rename_table: `to` names the schema "other", and `table` does not name the same: a rename keeps the schema; write `to` without one, or use a `sql` step with SET SCHEMA
            "#]],
        ),
        (
            "up:\n  - rename_table: { table: t, to: T }\n",
            expect![[r#"
                error: db/1_a.yaml:2:35: rename_table: `to` is the name that table "t" has already
            "#]],
        ),
        (
            "up:\n  - create_table: { table: t, columns: [], primary_key: [] }\n",
            expect![[r#"
                error: db/1_a.yaml:2:40: create_table: `columns` names no column
            "#]],
        ),
        (
            "up:\n  - create_table: { table: t, columns: [{ name: a, type: int, default: 1, identity: always }, { name: A, type: int, default: a + 1 }], primary_key: [b] }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: create_table: column "a" can have one of `default`, `generated` and `identity`
                db/1_a.yaml:2:5: create_table: column "a": the default `a + 1` reads columns or tables: PostgreSQL takes none that does
                db/1_a.yaml:2:40: create_table: `columns` names "a" twice
                db/1_a.yaml:2:149: create_table: `primary_key` names "b", which is not among `columns`
            "#]],
        ),
        (
            "up:\n  - create_table: { table: t, columns: [{ name: a, type: int }, { name: b, type: int, generated: c * 2 }], primary_key: [a], unique: [[]], checks: [{ name: x, check: z > 1 }, { name: x, check: EXISTS (SELECT 1) }], partition_by: { range: [b] } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: create_table: `z > 1` reads "z", which is not among `columns`
                db/1_a.yaml:2:5: create_table: `EXISTS (SELECT 1)` holds a sub-select: PostgreSQL takes the columns of a row alone
                db/1_a.yaml:2:5: create_table: `c * 2` reads "c", which is not among `columns`
                db/1_a.yaml:2:5: create_table: the unique key ("a") must hold "b", by which the table is partitioned
                db/1_a.yaml:2:134: create_table: `unique` names no column
                db/1_a.yaml:2:148: create_table: `checks` names "x" twice
            "#]],
        ),
        (
            "up:\n  - create_table: { table: t, columns: [{ name: a, type: int }], primary_key: [a], partition_by: { range: [a], hash: [a] } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:98: create_table: partition_by: say one of `range`, `list` and `hash`, with a list of columns
            "#]],
        ),
        (
            "up:\n  - create_table: { table: t, columns: [{ name: a, type: int }, { name: b, type: int }], primary_key: [a, b], partition_by: { list: [a, b] } }\n",
            expect![[r#"
                error: db/1_a.yaml:2:133: create_table: `partition_by.list` takes one column
            "#]],
        ),
        (
            "up:\n  - create_table: { table: t, columns: [{ name: a, type: int }] }\n",
            expect![[r#"
                error: db/1_a.yaml:2:19: create_table: the key `primary_key` is missing
            "#]],
        ),
        (
            "up:\n  - add_enum_value: { type: e, value: a, before: b, after: c }\n",
            expect![[r#"
                error: db/1_a.yaml:2:50: add_enum_value: `before` and `after` cannot both be said: name one neighbour
            "#]],
        ),
        (
            "up:\n  - add_enum_value: { type: e, value: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: add_enum_value: the value `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx` is longer than 63 bytes
            "#]],
        ),
        (
            "lock_timeout: 0\nup:\n  - sql: SELECT 1\n",
            expect![[r#"
            error: db/1_a.yaml:1:15: lock_timeout: it must be more than zero
        "#]],
        ),
        (
            "lock_timeout: long\nup:\n  - sql: SELECT 1\n",
            expect![[r#"
            error: db/1_a.yaml:1:15: lock_timeout: `long` is not a duration: write a number with a unit, such as 500ms, 30s, 5min or 1h
        "#]],
        ),
        (
            "up:\n  - create_index: { table: t, name: i, columns: [] }\n",
            expect![[r#"
                error: db/1_a.yaml:2:49: create_index: `columns` names no column
            "#]],
        ),
        (
            "up:\n  - create_index: { table: t, columns: [n] }\n",
            expect![[r#"
                error: db/1_a.yaml:2:19: create_index: the key `name` is missing
            "#]],
        ),
        (
            "up:\n  - create_index: { table: t, name: i, columns: [{ column: n, expression: n + 1 }] }\n",
            expect![[r#"
                error: db/1_a.yaml:2:50: create_index: columns: either `column` or `expression` must be given, and not both
            "#]],
        ),
        (
            "up:\n  - create_index: { table: t, name: i, columns: [{ column: n, ordre: desc }, 5] }\n",
            expect![[r#"
                error: db/1_a.yaml:2:63: create_index: columns: unknown field `ordre`, expected one of `column`, `expression`, `order`, `nulls`, `collation`, `opclass`
            "#]],
        ),
        (
            "up:\n  - create_index: { table: t, name: i, columns: [n], where: \"n IN (SELECT 1)\", wait: 0 }\n",
            expect![[r#"
                error: db/1_a.yaml:2:5: create_index: `n IN (SELECT 1)` reads other rows: an index can only read columns of its own row
                db/1_a.yaml:2:86: create_index: `wait`: it must be more than zero
            "#]],
        ),
        (
            "up:\n  - drop_index: { name: a.b.c }\n  - drop_index: { name: s.i, table: t }\n  - add_unique: { table: t, name: u, columns: [a], unique: true }\n",
            expect![[r#"
                error: db/1_a.yaml:2:25: drop_index: name: `a.b.c` has too many parts: write `table` or `schema.table`
                db/1_a.yaml:3:37: drop_index: `table` says in which schema the index is: write its name without one
                db/1_a.yaml:4:52: add_unique: the key `unique` is not known here
                  help: known here: table, name, columns, wait
            "#]],
        ),
    ] {
        Case::up(&[("1_a.yaml", file)]).says(2, message).await?;
    }
    Ok(())
}

#[tokio::test]
async fn sql() -> anyhow::Result<()> {
    for (file, message) in [
        (
            "",
            expect![[r#"
            error: db/1_a.up.sql:1:1: the file holds no statement
              help: write one, or remove the file
        "#]],
        ),
        (
            "-- only a comment\n",
            expect![[r#"
            error: db/1_a.up.sql:1:1: the file holds no statement
              help: write one, or remove the file
        "#]],
        ),
        (
            "SELECT 1;\nSELEC 2;\n",
            expect![[r#"
                error: db/1_a.up.sql:2:1: this cannot be read: expected command, found a name
                  help: correct it; if PostgreSQL does accept it, put `-- confiture: parse=off` at the top of a SQL file to run it unread
                db/1_a.up.sql:2:7: this cannot be read: expected command, found a number
                  help: correct it; if PostgreSQL does accept it, put `-- confiture: parse=off` at the top of a SQL file to run it unread
            "#]],
        ),
        (
            "SELECT 'open;\n",
            expect![[r#"
            error: db/1_a.up.sql:1:8: this quote is never closed
              help: close it
        "#]],
        ),
        (
            "SELECT 1;\n  COMMIT;\n",
            expect![[r#"
                error: db/1_a.up.sql:2:3: COMMIT is not allowed: the step runs in one transaction together with its record
                  help: remove it; with `-- confiture: transaction=off` at the top of a SQL file each statement has a transaction of its own
            "#]],
        ),
        (
            "BEGIN;\nSELECT 1;\nEND;\n",
            expect![[r#"
                error: db/1_a.up.sql:1:1: BEGIN is not allowed: the step runs in one transaction together with its record
                  help: remove it; with `-- confiture: transaction=off` at the top of a SQL file each statement has a transaction of its own
                db/1_a.up.sql:3:1: END is not allowed: the step runs in one transaction together with its record
                  help: remove it; with `-- confiture: transaction=off` at the top of a SQL file each statement has a transaction of its own
            "#]],
        ),
        (
            "PREPARE TRANSACTION 'x';\n",
            expect![[r#"
                error: db/1_a.up.sql:1:1: PREPARE TRANSACTION is not allowed: the step runs in one transaction together with its record
                  help: remove it; with `-- confiture: transaction=off` at the top of a SQL file each statement has a transaction of its own
            "#]],
        ),
        (
            "\\i other.sql\n",
            expect![[r#"
            error: db/1_a.up.sql:1:1: a backslash outside quotes is a command for psql, not SQL
              help: remove the command, or write the SQL it stands for
        "#]],
        ),
        (
            "COPY t FROM STDIN;\n1\t2\n\\.\n",
            expect![[r#"
            error: db/1_a.up.sql:1:1: COPY FROM STDIN is not allowed: a migration has no input
              help: write the rows as INSERT statements (`pg_dump --inserts`)
        "#]],
        ),
        (
            "CREATE TABLE a (i int);\nCREATE INDEX CONCURRENTLY x ON a (i);\n",
            expect![[r#"
                error: db/1_a.up.sql:2:1: CREATE INDEX CONCURRENTLY cannot run inside a transaction, and the file runs in one
                  help: put `-- confiture: transaction=off` at the top: each statement of the file is then a step of its own
            "#]],
        ),
        (
            "-- confiture: transaction=off\nCREATE DATABASE x;\n",
            expect![[r#"
                error: db/1_a.up.sql:2:1: CREATE DATABASE cannot run inside a transaction, its outcome cannot be verified after a crash, and it is not safe to repeat
                  help: run it by hand, outside of migrations
            "#]],
        ),
        (
            "-- confiture: transaction=maybe\nSELECT 1;\n",
            expect![[r#"
            error: db/1_a.up.sql:1:15: the value of `transaction` is wrong: `maybe` is neither `on` nor `off`
              help: correct `transaction=maybe`
        "#]],
        ),
        (
            "-- confiture: lock_timeot=1s\nSELECT 1;\n",
            expect![[r#"
            error: db/1_a.up.sql:1:15: the directive `lock_timeot` is not known
              help: did you mean `lock_timeout`?
        "#]],
        ),
        (
            "-- confiture: lock_timeout=0\nSELECT 1;\n",
            expect![[r#"
            error: db/1_a.up.sql:1:15: the value of `lock_timeout` is wrong: `lock_timeout=0` would never wait and never get a lock: give a time such as 30s
              help: correct `lock_timeout=0`
        "#]],
        ),
        (
            "SELECT :name;\n",
            expect![[r#"
            error: db/1_a.up.sql:1:8: a psql variable (`:name`) has no value here
              help: write its value
        "#]],
        ),
        (
            "SELECT 1;\0SELECT 2;\n",
            expect![[r#"
            error: db/1_a.up.sql:1:10: there is a NUL byte
              help: PostgreSQL takes none: remove it
        "#]],
        ),
    ] {
        Case::up(&[("1_a.up.sql", file)]).says(2, message).await?;
    }
    let latin: &[u8] = b"SELECT 'Gr\xfc\xdfe';\n";
    Case::up(&[])
        .file("db/1_a.up.sql", latin)
        .says(
            2,
            expect![[r#"
            error: db/1_a.up.sql:1:11: this is not UTF-8 text
              help: save the file as UTF-8
        "#]],
        )
        .await
}
