//! Every kind of step, each on a table that it can be met on, and how one sees that it was done once.

/// One kind of step: a file with it alone, on a table that it can be met on.
#[derive(Debug)]
pub struct Step {
    /// For messages.
    pub name: &'static str,
    /// A migration that is applied before, in peace.
    pub before: Option<&'static str>,
    /// Its file: name and content.
    pub file: (&'static str, &'static str),
    /// A query that gives one number: 0 when the step has been done, and once.
    pub wrong: &'static str,
    /// Which transactions it consists of.
    pub shape: Shape,
}

/// Which transactions a step consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// So many that each change something and keep books.
    Transactions(u32),
    /// A statement of its own between a transaction before it, a check of the fence, and a transaction after it.
    Outside,
    /// One that begins, a check of the fence, a statement of its own, one that publishes what it made.
    Built,
    /// One that gives it up, a check of the fence, a statement of its own, one that ends.
    Dropped,
    /// One that begins, at least four that change rows, one that ends.
    Batches,
    /// The same, with one before the end that keeps what a comparison of all rows found.
    VerifiedBatches,
    /// One on a copy, one that begins, one that divides the rows, at least four that change them, one that keeps what a
    /// comparison of all rows found, two for a constraint, one that ends.
    Changed,
    /// One that keeps books, after a query that changed nothing.
    Assertion,
}

/// Forty rows in batches of ten (or of one block of some), and who was changed how often, by a trigger: what the program
/// counts is not believed.
pub const TABLE: &str = "
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0, note text, spare int);
INSERT INTO t (note) SELECT 'a' FROM generate_series(1, 40);
CREATE TABLE touched (id bigint);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO touched VALUES (old.id); RETURN NULL; END $$;
CREATE TRIGGER touch AFTER UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION touch();
";

/// What only some are met on: a word, and what is needed where a step says it.
const FURTHER: [(&str, &str); 4] = [
    (
        "strict",
        "CREATE TABLE strict (id bigint PRIMARY KEY, note text NOT NULL);",
    ),
    (
        "keyless",
        "CREATE TABLE keyless (id bigint, n int, ballast text);
         INSERT INTO keyless SELECT g, NULL, repeat('x', 1500) FROM generate_series(1, 40) g;
         CREATE TRIGGER touch AFTER UPDATE OR DELETE ON keyless FOR EACH ROW EXECUTE FUNCTION touch();",
    ),
    (
        "parts",
        "CREATE TABLE parts (id int, strict_id bigint) PARTITION BY RANGE (id);
         CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
         INSERT INTO parts SELECT g FROM generate_series(1, 40) g;",
    ),
    ("state", "CREATE TYPE state AS ENUM ('new');"),
];

impl Step {
    /// What it is met on: [`TABLE`], and whatever else it names.
    #[must_use]
    pub fn ground(&self) -> String {
        let further = FURTHER.iter().filter(|(word, _)| self.file.1.contains(word));
        std::iter::once(TABLE)
            .chain(further.map(|(_, sql)| *sql))
            .collect()
    }
}

/// Rows that were not touched exactly once, or have not become what they must be.
const COUNTED: &str =
    "SELECT count(*) FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
 WHERE n <> 1 OR times IS DISTINCT FROM 1";

/// Indexes beside the primary key that are not the one, or not valid.
const ONE_INDEX: &str =
    "SELECT abs(1 - count(*)) + count(*) FILTER (WHERE NOT indisvalid OR relname <> 't_n')
  FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = 't'::regclass AND NOT indisprimary";

/// The same for a column that is computed from others.
const DERIVED: &str =
    "SELECT count(*) FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
 WHERE spare IS DISTINCT FROM 7 OR times IS DISTINCT FROM 1";

/// All of them.
pub static STEPS: [Step; 33] = [
    Step {
        name: "sql",
        before: None,
        file: ("1_it.up.sql", "UPDATE t SET n = n + 1;\n"),
        wrong: COUNTED,
        shape: Shape::Transactions(1),
    },
    Step {
        name: "sql outside a transaction",
        before: None,
        file: ("1_it.up.sql", "-- confiture: transaction=off\nVACUUM (ANALYZE) t;\n"),
        wrong: "SELECT abs(40 - reltuples)::int8 FROM pg_class WHERE relname = 't'",
        shape: Shape::Outside,
    },
    Step {
        name: "sql that builds an index",
        before: None,
        file: (
            "1_it.up.sql",
            "-- confiture: transaction=off\nCREATE INDEX CONCURRENTLY t_n ON t (n);\n",
        ),
        wrong: ONE_INDEX,
        shape: Shape::Built,
    },
    Step {
        name: "add_column",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_column: { table: t, column: fresh, type: text }\n"),
        wrong: "SELECT abs(5 - count(*)) + abs(1 - count(*) FILTER (WHERE attname = 'fresh'))
                  FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "drop_column",
        before: None,
        file: ("1_it.yaml", "up:\n  - drop_column: { table: t, column: spare }\n"),
        wrong: "SELECT abs(4 - count(*)) + abs(1 - count(*) FILTER (WHERE attisdropped))
                  FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "change_type",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - change_type: { table: t, column: n, type: bigint, batch: { size: 10 } }\n",
        ),
        wrong: "SELECT count(*) FILTER (WHERE n <> 0 OR confiture_old_n <> 0 OR times IS DISTINCT FROM 1) + abs(40 - count(*))
                     + (SELECT abs(1 - count(*) FILTER (WHERE attname = 'n' AND atttypid = 'bigint'::regtype AND attnotnull))
                             + count(*) FILTER (WHERE attname = 'confiture_new_n')
                          FROM pg_attribute WHERE attrelid = 't'::regclass)
                     + (SELECT count(*) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c')
                  FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)",
        shape: Shape::Changed,
    },
    Step {
        name: "contract",
        before: Some("up:\n  - change_type: { table: t, column: n, type: bigint }\n"),
        file: ("1_it.yaml", "up:\n  - contract: { table: t, column: n }\n"),
        wrong: "SELECT abs(4 - count(*)) + (SELECT abs(1 - count(*)) FROM pg_trigger WHERE tgrelid = 't'::regclass)
                  FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0 AND NOT attisdropped",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "set_not_null",
        before: None,
        file: ("1_it.yaml", "up:\n  - set_not_null: { table: t, column: note }\n"),
        wrong: "SELECT count(*) FROM pg_attribute a WHERE attrelid = 't'::regclass AND attname = 'note'
                   AND (NOT attnotnull OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c'))",
        shape: Shape::Transactions(3),
    },
    Step {
        name: "drop_not_null",
        before: None,
        file: ("1_it.yaml", "up:\n  - drop_not_null: { table: strict, column: note }\n"),
        wrong: "SELECT count(*) FROM pg_attribute WHERE attrelid = 'strict'::regclass AND attname = 'note' AND attnotnull",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "add_check",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_check: { table: parts, name: small, check: id < 99 }\n"),
        wrong: "SELECT abs(2 - count(*)) + count(*) FILTER (WHERE NOT convalidated) FROM pg_constraint WHERE conname = 'small'",
        shape: Shape::Transactions(3),
    },
    Step {
        name: "add_foreign_key",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - add_foreign_key: { table: parts, name: to_strict, columns: [strict_id], references: { table: strict } }\n",
        ),
        wrong: "SELECT abs(2 - count(*)) + count(*) FILTER (WHERE NOT convalidated) FROM pg_constraint WHERE conname = 'to_strict'",
        shape: Shape::Transactions(3),
    },
    Step {
        name: "create_table",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - create_table: { table: fresh, columns: [{ name: id, type: int }], primary_key: [id] }\n",
        ),
        wrong: "SELECT abs(1 - count(*)) FROM pg_class WHERE relname = 'fresh'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "set_default",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - set_default: { table: t, column: note, default: \"'b'\", previous: \"NULL\" }\n",
        ),
        wrong: "SELECT abs(1 - count(*)) FROM pg_attrdef WHERE pg_get_expr(adbin, adrelid) = '''b''::text'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "drop_default",
        before: None,
        file: ("1_it.yaml", "up:\n  - drop_default: { table: t, column: n, previous: \"0\" }\n"),
        wrong: "SELECT count(*) FROM pg_attrdef WHERE adrelid = 't'::regclass",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "rename_column",
        before: None,
        file: ("1_it.yaml", "up:\n  - rename_column: { table: t, column: note, to: remark }\n"),
        wrong: "SELECT abs(1 - count(*)) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'remark'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "drop_constraint",
        before: Some("up:\n  - add_check: { table: t, name: small, check: id < 99 }\n"),
        file: ("1_it.yaml", "up:\n  - drop_constraint: { table: t, name: small }\n"),
        wrong: "SELECT count(*) FROM pg_constraint WHERE conname = 'small'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "drop_unique",
        before: Some("up:\n  - add_unique: { table: t, columns: [n, id], name: t_n }\n"),
        file: ("1_it.yaml", "up:\n  - drop_unique: { table: t, name: t_n }\n"),
        wrong: "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisprimary",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "drop_table",
        before: None,
        file: ("1_it.yaml", "up:\n  - drop_table: { table: keyless }\n"),
        wrong: "SELECT count(*) FROM pg_class WHERE relname = 'keyless'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "rename_table",
        before: None,
        file: ("1_it.yaml", "up:\n  - rename_table: { table: strict, to: stricter }\n"),
        wrong: "SELECT abs(1 - count(*)) FROM pg_class WHERE relname = 'stricter'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "add_enum_value",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_enum_value: { type: state, value: paid }\n"),
        wrong: "SELECT abs(2 - count(*)) FROM pg_enum",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "backfill that reads what it sets",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 10 } }\n",
        ),
        wrong: COUNTED,
        shape: Shape::Batches,
    },
    Step {
        name: "derived backfill",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { spare: n + 7 }, batch: { size: 10 } }\n",
        ),
        wrong: DERIVED,
        shape: Shape::Batches,
    },
    Step {
        name: "backfill that is verified",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { spare: n + 7 }, batch: { size: 10, verify: true } }\n",
        ),
        wrong: DERIVED,
        shape: Shape::VerifiedBatches,
    },
    Step {
        name: "add_column with a default for each row",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - add_column: { table: t, column: fresh, type: uuid, default: gen_random_uuid(), not_null: true, batch: { size: 10 } }\n",
        ),
        wrong: "SELECT count(*) FILTER (WHERE times IS DISTINCT FROM 1) + abs(40 - count(DISTINCT fresh))
                     + (SELECT count(*) FROM pg_attribute a WHERE attrelid = 't'::regclass AND attname = 'fresh'
                           AND (NOT attnotnull OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c')))
                  FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)",
        shape: Shape::Batches,
    },
    Step {
        name: "backfill with a trigger",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { spare: n + 7 }, sync: trigger, batch: { size: 10 } }\n",
        ),
        wrong: "SELECT count(*) + (SELECT abs(3 - count(*)) FROM pg_trigger WHERE tgrelid = 't'::regclass)
                  FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
                 WHERE spare IS DISTINCT FROM 7 OR times IS DISTINCT FROM 1",
        shape: Shape::Batches,
    },
    Step {
        name: "drop_sync",
        before: Some("up:\n  - backfill: { table: t, set: { spare: n + 7 }, sync: trigger }\n"),
        file: ("1_it.yaml", "up:\n  - drop_sync: { table: t, column: spare }\n"),
        wrong: "SELECT abs(1 - count(*)) FROM pg_trigger WHERE tgrelid = 't'::regclass",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "backfill by blocks",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: keyless, set: { n: 7 }, where: n IS NULL, batch: { size: 10 } }\n",
        ),
        wrong: "SELECT count(*) FROM keyless LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
                 WHERE n IS DISTINCT FROM 7 OR times IS DISTINCT FROM 1",
        shape: Shape::Batches,
    },
    Step {
        name: "delete",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - delete: { table: t, where: \"id % 2 = 0\", batch: { size: 10 } }\n",
        ),
        wrong: "SELECT abs(20 - count(*)) + count(*) FILTER (WHERE id % 2 = 0)
                     + (SELECT abs(20 - count(*)) + abs(20 - count(DISTINCT id)) FROM touched) FROM t",
        shape: Shape::Batches,
    },
    Step {
        name: "create_index",
        before: None,
        file: ("1_it.yaml", "up:\n  - create_index: { table: t, columns: [n], name: t_n }\n"),
        wrong: ONE_INDEX,
        shape: Shape::Built,
    },
    Step {
        name: "drop_index",
        before: Some("up:\n  - create_index: { table: t, columns: [n], name: t_n }\n"),
        file: ("1_it.yaml", "up:\n  - drop_index: { name: t_n }\n"),
        wrong: "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisprimary",
        shape: Shape::Dropped,
    },
    Step {
        name: "reindex",
        before: Some(
            "up:\n  - create_index: { table: t, columns: [n], name: t_n }\n  - sql: CREATE TABLE was AS SELECT 't_n'::regclass::oid AS oid\n",
        ),
        file: ("1_it.yaml", "up:\n  - reindex: { index: t_n }\n"),
        wrong: "SELECT abs(1 - count(*)) + count(*) FILTER (WHERE NOT indisvalid OR relname <> 't_n')
                     + (SELECT count(*) FROM was WHERE oid = 't_n'::regclass)
                  FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = 't'::regclass AND NOT indisprimary",
        shape: Shape::Outside,
    },
    Step {
        name: "add_unique",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_unique: { table: t, columns: [n, id], name: t_n }\n"),
        wrong: ONE_INDEX,
        shape: Shape::Built,
    },
    Step {
        name: "assert",
        before: None,
        file: ("1_it.yaml", "up:\n  - assert: { query: SELECT count(*) = 40 FROM t }\n"),
        wrong: "SELECT count(*) FROM touched",
        shape: Shape::Assertion,
    },
];
