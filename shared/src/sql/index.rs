//! The statements that look at indexes, build and drop them: see [`crate::index`].

use super::{TAG_START, Tag, literal};
use crate::index::Definition;
use crate::name::Ident;
use std::fmt;

/// What the tags of builds begin with.
pub const BUILD_TAG_START: &str = "/*confiture-build ";

/// The tag of a statement that goes on when its agent is gone, and that whoever follows adopts: it neither shows a
/// living holder nor stands in a takeover's way, so it is told apart from all others.
#[derive(Debug, Clone, Copy)]
pub struct BuildTag<'a>(pub &'a Tag);

impl fmt::Display for BuildTag<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = self.0.to_string();
        write!(
            f,
            "{BUILD_TAG_START}{}",
            tag.strip_prefix(TAG_START).unwrap_or(&tag)
        )
    }
}

/// A statement of a build without its tag.
pub fn untagged(statement: &str) -> &str {
    let rest = statement
        .strip_prefix(BUILD_TAG_START)
        .and_then(|rest| rest.split_once("*/"));
    rest.map_or(statement, |(_, rest)| rest.trim_start())
}

/// `CREATE INDEX CONCURRENTLY`.
pub fn create(name: &Ident, table: &str, definition: &Definition) -> String {
    format!(
        "CREATE {}INDEX CONCURRENTLY {name} ON {table} {}",
        unique(definition),
        definition.as_sql()
    )
}

/// `CREATE INDEX` on a partitioned table alone: it holds nothing, and is valid once its partitions' are attached.
pub fn create_on_parent(name: &Ident, table: &str, definition: &Definition) -> String {
    format!(
        "CREATE {}INDEX {name} ON ONLY {table} {}",
        unique(definition),
        definition.as_sql()
    )
}

fn unique(definition: &Definition) -> &'static str {
    if definition.unique { "UNIQUE " } else { "" }
}

/// `DROP INDEX CONCURRENTLY`. Never with IF EXISTS: what is not there was seen not to be there.
pub fn drop(index: &str) -> String {
    format!("DROP INDEX CONCURRENTLY {index}")
}

/// `DROP INDEX`, for indexes of partitioned tables.
pub fn drop_at_once(index: &str) -> String {
    format!("DROP INDEX {index}")
}

/// Gives an index its final name.
pub fn rename(index: &str, name: &Ident) -> String {
    format!("ALTER INDEX {index} RENAME TO {name}")
}

/// Makes an index the one of a unique constraint, and names it so.
pub fn add_unique(table: &str, name: &Ident, index: &Ident) -> String {
    format!("ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {index}")
}

/// Drops a unique constraint with its index.
pub fn drop_constraint(table: &str, name: &Ident) -> String {
    format!("ALTER TABLE {table} DROP CONSTRAINT {name}")
}

/// The SQLSTATE of an index that is not valid.
const INVALID: &str = "CFIDX";

/// Ends the transaction where an index is not what queries can use. To be said after the rename, whose lock keeps it so.
pub fn must_be_valid(index: &str) -> String {
    let check = format!(
        "BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass({}) AND indisvalid AND indisready AND indislive) THEN RAISE EXCEPTION USING ERRCODE = '{INVALID}', MESSAGE = 'the index is not valid'; END IF; END",
        literal(index)
    );
    format!("DO {}", literal(&check))
}

/// The name of the index of [`shape`].
const SHAPE: &str = "confiture_shape";

/// An empty copy of a table, on which the server says what a definition means. For a transaction that is rolled back.
pub fn shape(schema: &Ident, table: &Ident) -> String {
    format!("CREATE TEMPORARY TABLE pg_temp.{table} (LIKE {schema}.{table})")
}

/// The index on it.
pub fn shape_index(table: &Ident, definition: &Definition) -> String {
    format!(
        "CREATE {}INDEX {SHAPE} ON pg_temp.{table} {}",
        unique(definition),
        definition.as_sql()
    )
}

/// What makes an index the one it is: everything in its definition but its name and its table. Of `i` (`pg_index`), `c`
/// (its relation), `t` and `n` (its table and schema).
const ESSENCE: &str = r"
  CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END || pg_catalog.substr(pg_catalog.pg_get_indexdef(i.indexrelid),
    2 + pg_catalog.length('CREATE ' || CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END || 'INDEX '
      || pg_catalog.quote_ident(c.relname) || ' ON ' || CASE WHEN c.relkind = 'I' THEN 'ONLY ' ELSE '' END
      || CASE WHEN t.relnamespace = pg_catalog.pg_my_temp_schema()
              THEN (pg_catalog.regexp_match(pg_catalog.pg_get_indexdef(i.indexrelid), ' ON (pg_temp(_\d+)?)\.'))[1]
              ELSE pg_catalog.quote_ident(n.nspname) END
      || '.' || pg_catalog.quote_ident(t.relname)))";

/// The essence of the index on the empty copy.
pub fn shape_essence() -> String {
    format!(
        r"SELECT {ESSENCE} FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE c.relname = '{SHAPE}' AND c.relnamespace = pg_catalog.pg_my_temp_schema()"
    )
}

/// Relations by name: one of the exact name (text, as `to_regclass` reads it), and indexes whose name begins with one of
/// several texts (text[]) in a schema (text), in all where it is NULL. See [`crate::index::Present`].
pub fn named() -> String {
    format!(
        r"
SELECT pg_catalog.format('%I.%I', s.nspname, c.relname), c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       coalesce(c.oid = pg_catalog.to_regclass($1), false), coalesce(i.indisvalid AND i.indisready AND i.indislive, false),
       {ESSENCE}, pg_catalog.pg_get_indexdef(i.indexrelid), n.nspname::pg_catalog.text, t.relname::pg_catalog.text,
       (SELECT o.conname::pg_catalog.text FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid AND o.conrelid = t.oid AND o.contype IN ('p', 'u', 'x') LIMIT 1),
       (SELECT pg_catalog.format('%I.%I', e.nspname, p.relname) FROM pg_catalog.pg_inherits h
          JOIN pg_catalog.pg_class p ON p.oid = h.inhparent JOIN pg_catalog.pg_namespace e ON e.oid = p.relnamespace
         WHERE h.inhrelid = c.oid LIMIT 1),
       coalesce(i.indisreplident AND t.relreplident = 'i', false),
       EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.conindid = i.indexrelid AND o.conrelid = t.oid AND o.contype = 'u')
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  LEFT JOIN pg_catalog.pg_class t ON t.oid = i.indrelid LEFT JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE c.oid = pg_catalog.to_regclass($1)
    OR (c.relkind IN ('i', 'I') AND ($3 IS NULL OR s.nspname = $3)
        AND EXISTS (SELECT FROM pg_catalog.unnest($2) p(start) WHERE pg_catalog.starts_with(c.relname, p.start)))
 ORDER BY 1"
    )
}

/// Sessions at work on an index of ours, by what its names begin with (text[]): pid (int4), statement (text), phase, blocks
/// and tuples done and in all (int8), whether it waits (bool); and of the session it waits for pid (int4), user,
/// application, state (text), age of its transaction in seconds (float8), statement (text).
pub const WORKERS: &str = r"
SELECT a.pid, a.query, p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total,
       a.wait_event_type IS NOT DISTINCT FROM 'Lock', w.pid, b.usename::pg_catalog.text, b.application_name, b.state,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - b.xact_start), pg_catalog.left(b.query, 120)
  FROM pg_catalog.pg_stat_activity a
  LEFT JOIN pg_catalog.pg_stat_progress_create_index p ON p.pid = a.pid
  LEFT JOIN LATERAL (SELECT x.pid FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) x(pid) LIMIT 1) w
         ON a.wait_event_type = 'Lock'
  LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = w.pid
 WHERE a.datname = pg_catalog.current_database() AND a.state <> 'idle' AND a.pid <> pg_catalog.pg_backend_pid()
   AND pg_catalog.starts_with(a.query, '/*confiture-build ')
   AND EXISTS (SELECT FROM pg_catalog.unnest($1) s(start) WHERE pg_catalog.strpos(a.query, s.start) > 0)
 ORDER BY a.query_start";

/// Ends the statement of a session if it still runs it. Parameters: pid (int4), statement without its tag (text).
pub const CANCEL: &str = r"
SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE pid = $1 AND pg_catalog.strpos(query, $2) > 0 AND state <> 'idle' AND datname = pg_catalog.current_database()";

/// Ends a statement wherever it runs: behind a pooler nobody knows its session beforehand. Parameter: all of it (text).
pub const CANCEL_STATEMENT: &str = r"
SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE query = $1 AND state <> 'idle' AND pid <> pg_catalog.pg_backend_pid() AND datname = pg_catalog.current_database()";

/// The limits that a session has by default: `lock_timeout` and `statement_timeout` (text), both `0` where there is none.
pub const TIMEOUTS: &str =
    "SELECT pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('statement_timeout')";

/// Rebuilds an index beside itself, and changes places with it.
pub fn reindex(index: &str) -> String {
    format!("REINDEX INDEX CONCURRENTLY {index}")
}

/// What a row about an index to be built anew holds: see [`crate::index::Found`]. Of `c` (a relation), `i` (`pg_index`), `s`
/// (its schema), `t` and `n` (its table, or itself, and the table's schema).
fn found() -> String {
    format!(
        r"c.oid, s.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       n.nspname::pg_catalog.text, t.relname::pg_catalog.text,
       coalesce(i.indisvalid AND i.indisready AND i.indislive, true), coalesce(i.indisexclusion, false),
       CASE WHEN i.indexrelid IS NULL THEN '' ELSE {ESSENCE} END,
       ARRAY(SELECT pg_catalog.pg_get_indexdef(i.indexrelid, k, true)
               FROM pg_catalog.generate_series(1, i.indnkeyatts) k ORDER BY k),
       pg_catalog.pg_get_expr(i.indpred, i.indrelid)"
    )
}

/// A relation by name (text, as `to_regclass` reads it), with the indexes of the partitions where it is partitioned or an
/// index of such a table, and all indexes of the tables in question. Gives the columns of [`found`], and what it has to do
/// with the name (text): it is the `target`, it is `within` it, or it is only `beside` it on the same table.
pub fn to_rebuild() -> String {
    format!(
        r"
WITH RECURSIVE tree(oid, kind) AS (
  SELECT c.oid, c.relkind FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)
   UNION ALL
  SELECT c.oid, c.relkind FROM tree JOIN pg_catalog.pg_inherits h ON h.inhparent = tree.oid
    JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid WHERE tree.kind IN ('p', 'I'))
SELECT {}, CASE WHEN c.oid = pg_catalog.to_regclass($1) THEN 'target'
            WHEN c.oid IN (SELECT tree.oid FROM tree) OR i.indrelid IN (SELECT tree.oid FROM tree) THEN 'within'
            ELSE 'beside' END
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_class t ON t.oid = coalesce(i.indrelid, c.oid) JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE c.oid IN (SELECT tree.oid FROM tree) OR i.indrelid IN (SELECT tree.oid FROM tree)
    OR i.indrelid IN (SELECT o.indrelid FROM pg_catalog.pg_index o JOIN tree ON tree.oid = o.indexrelid)
 ORDER BY 5, 6, 3",
        found()
    )
}

/// All indexes of the tables that have one of some indexes, by oid (oid[]). Gives the columns of [`to_rebuild`].
pub fn rebuilt() -> String {
    format!(
        r"
SELECT {}, 'beside'
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE i.indrelid IN (SELECT o.indrelid FROM pg_catalog.pg_index o WHERE o.indexrelid = ANY ($1))
 ORDER BY 5, 6, 3",
        found()
    )
}

/// The query that finds keys that stand more than once in a table. It reads the table itself: an index may be broken.
pub fn equal_keys(table: &str, keys: &[String], condition: Option<&str>) -> String {
    let conditions: Vec<String> = (keys.iter().map(|key| format!("{key} IS NOT NULL")))
        .chain(condition.map(str::to_owned))
        .collect();
    let keys = keys.join(", ");
    format!(
        "SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_bitmapscan = off; SELECT {keys}, count(*) FROM {table} WHERE {} GROUP BY {keys} HAVING count(*) > 1",
        conditions.join(" AND ")
    )
}

/// The same for all indexes of a table, as people know it.
pub fn reindex_table(table: &str) -> String {
    format!("REINDEX TABLE CONCURRENTLY {table}")
}

/// All builds at work in the database: the columns of [`WORKERS`], and user, application (text), for how many seconds it
/// has been at work (float8), the table and the index, which is not known at first (text), the command (text).
pub const BUILDS: &str = r"
SELECT a.pid, a.query, p.phase, p.blocks_done, p.blocks_total, p.tuples_done, p.tuples_total,
       a.wait_event_type IS NOT DISTINCT FROM 'Lock', w.pid, b.usename::pg_catalog.text, b.application_name, b.state,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - b.xact_start), pg_catalog.left(b.query, 120),
       a.usename::pg_catalog.text, a.application_name, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.query_start),
       (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p.relid),
       (SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c
          JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = p.index_relid),
       p.command
  FROM pg_catalog.pg_stat_progress_create_index p
  JOIN pg_catalog.pg_stat_activity a ON a.pid = p.pid
  LEFT JOIN LATERAL (SELECT x.pid FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) x(pid) LIMIT 1) w
         ON a.wait_event_type = 'Lock'
  LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = w.pid
 WHERE p.datname = pg_catalog.current_database()
 ORDER BY a.query_start";

/// Indexes that no query uses, and those under names of ours: index and table quoted in full (text), its own name (text),
/// the statement that would create it (text), whether queries use it (bool), whether it is of a partitioned table (bool),
/// whether somebody is at work on its table (bool).
pub const BROKEN: &str = r"
SELECT pg_catalog.format('%I.%I', s.nspname, c.relname), pg_catalog.format('%I.%I', n.nspname, t.relname),
       c.relname::pg_catalog.text, pg_catalog.pg_get_indexdef(i.indexrelid), i.indisvalid AND i.indisready AND i.indislive,
       c.relkind = 'I',
       EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index p
                WHERE p.datname = pg_catalog.current_database() AND p.relid = i.indrelid)
       OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a
                   WHERE a.datname = pg_catalog.current_database() AND a.state <> 'idle' AND a.pid <> pg_catalog.pg_backend_pid()
                     AND pg_catalog.strpos(a.query, 'INDEX CONCURRENTLY') > 0 AND pg_catalog.strpos(a.query, c.relname) > 0)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 WHERE n.nspname !~ '^pg_'
   AND (NOT (i.indisvalid AND i.indisready AND i.indislive) OR c.relname ~ '^confiture_[bd]_')
 ORDER BY 1";

/// Attaches the index of a partition to that of its table.
pub fn attach(parent: &str, index: &str) -> String {
    format!("ALTER INDEX {parent} ATTACH PARTITION {index}")
}

/// A partitioned table with all its partitions, parents first: schema, name, kind (text); the index that belongs to the
/// one looked for, quoted in full (text); whether that is valid (bool); the same index of its parent (text). Parameters:
/// the table, the index, both quoted (text).
pub const PARTS: &str = r"
WITH RECURSIVE tree(oid, level, index, parent_index) AS (
  SELECT pg_catalog.to_regclass($1)::pg_catalog.oid, 0, pg_catalog.to_regclass($2)::pg_catalog.oid, NULL::pg_catalog.oid
  UNION ALL
  SELECT h.inhrelid, tree.level + 1,
         (SELECT i.indexrelid FROM pg_catalog.pg_index i JOIN pg_catalog.pg_inherits x ON x.inhrelid = i.indexrelid
           WHERE i.indrelid = h.inhrelid AND x.inhparent = tree.index LIMIT 1),
         tree.index
    FROM tree JOIN pg_catalog.pg_inherits h ON h.inhparent = tree.oid)
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text,
       (SELECT pg_catalog.format('%I.%I', s.nspname, o.relname) FROM pg_catalog.pg_class o
          JOIN pg_catalog.pg_namespace s ON s.oid = o.relnamespace WHERE o.oid = tree.index),
       coalesce((SELECT i.indisvalid AND i.indisready AND i.indislive FROM pg_catalog.pg_index i WHERE i.indexrelid = tree.index), false),
       (SELECT pg_catalog.format('%I.%I', s.nspname, o.relname) FROM pg_catalog.pg_class o
          JOIN pg_catalog.pg_namespace s ON s.oid = o.relnamespace WHERE o.oid = tree.parent_index)
  FROM tree JOIN pg_catalog.pg_class c ON c.oid = tree.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 ORDER BY tree.level, 1, 2";
