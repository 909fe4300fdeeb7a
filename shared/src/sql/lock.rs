//! Who is in the way of a strong lock, and who stands behind us. All of it confined to this database: processes of others
//! that happen to work on a relation with the same oid elsewhere are nobody's blockers.

/// The server's `deadlock_timeout` in milliseconds (int8).
pub const DEADLOCK_TIMEOUT: &str = "
SELECT (pg_catalog.date_part('epoch', pg_catalog.current_setting('deadlock_timeout')::pg_catalog.interval) * 1000)::pg_catalog.int8";

/// Those of some tables that our role may lock as a vacuum does. Parameter: their names, quoted in full (text[]). A right to
/// reference a table, which is enough for a foreign key, is none to lock it by a statement; an index cannot be locked so.
pub const LOCKABLE: &str = "
SELECT n.name FROM pg_catalog.unnest($1) n(name) JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(n.name)
 WHERE c.relkind IN ('r', 'p') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE')";

/// Ends those of some sessions (pids, int4[]) that have been idle in a transaction for longer than some seconds (float8):
/// clients of this database, no superusers, none who may replicate, none of ours. Gives pid (int4), user, application
/// (text), seconds idle and since the transaction began (float8), statement (text), and whether it was ended (bool): NULL
/// where our role may not, or is not shown what the session does.
pub const END_IDLE: &str = r"
SELECT a.pid, a.usename::pg_catalog.text, a.application_name,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.state_change),
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start), pg_catalog.left(a.query, 120),
       CASE WHEN a.state IS NOT NULL
             AND (pg_catalog.pg_has_role(a.usesysid, 'USAGE') OR pg_catalog.pg_has_role('pg_signal_backend', 'USAGE'))
            THEN pg_catalog.pg_terminate_backend(a.pid) END
  FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid
 WHERE a.pid = ANY ($1) AND a.pid <> pg_catalog.pg_backend_pid()
   AND a.datname = pg_catalog.current_database() AND NOT r.rolsuper AND NOT r.rolreplication
   AND (a.state IS NULL
        OR (a.backend_type = 'client backend' AND a.state IN ('idle in transaction', 'idle in transaction (aborted)')
            AND pg_catalog.clock_timestamp() - a.state_change > pg_catalog.make_interval(secs => $2)
            AND NOT pg_catalog.starts_with(a.query, '/*confiture')))";

/// That a process is a vacuum by PostgreSQL itself. Who may not see its type sees that it is in a database without a user.
const AUTOVACUUM: &str =
    "coalesce(a.backend_type = 'autovacuum worker', a.datid IS NOT NULL AND a.usesysid IS NULL)";

/// How a session or a prepared transaction is described: pid (int4), user, application (text), state (text), seconds its
/// transaction has been open (float8), its statement (text), kind (text: `session`, `autovacuum`, `wraparound`, `prepared`).
fn described() -> String {
    format!(
        r"
       a.pid, a.usename::pg_catalog.text AS username, a.application_name, a.state,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared)) AS age,
       pg_catalog.left(coalesce(a.query, p.gid), 120) AS query,
       CASE WHEN a.pid IS NULL THEN 'prepared'
            WHEN {AUTOVACUUM} AND a.query LIKE '%to prevent wraparound%' THEN 'wraparound'
            WHEN {AUTOVACUUM} THEN 'autovacuum'
            ELSE 'session' END AS kind"
    )
}

/// Those whom the sessions of one step wait for, oldest first. Parameter: the start of the step's statements (text). Gives
/// the columns of [`described`].
pub fn blockers() -> String {
    format!(
        r"
SELECT DISTINCT {described}
  FROM pg_catalog.pg_stat_activity w
 CROSS JOIN LATERAL pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) AS blocking(pid)
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = blocking.pid
  LEFT JOIN pg_catalog.pg_prepared_xacts p ON blocking.pid = 0 AND p.database = w.datname
 WHERE w.datname = pg_catalog.current_database() AND w.wait_event_type = 'Lock' AND pg_catalog.starts_with(w.query, $1)
 ORDER BY age DESC NULLS LAST LIMIT 5",
        described = described()
    )
}

/// Those who hold a lock in the way on a table or what it is made of (partitions, inheritance children), with transactions
/// that have been open for longer than a try is worth; oldest first. Parameters: names of the tables, quoted in full
/// (text[]), the modes in the way (text[]), seconds (float8). Gives the columns of [`described`].
pub fn in_the_way() -> String {
    format!(
        r"
WITH RECURSIVE tree(oid) AS (
  SELECT pg_catalog.to_regclass(n.name)::pg_catalog.oid FROM pg_catalog.unnest($1) n(name)
   UNION
  SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN tree t ON i.inhparent = t.oid)
SELECT DISTINCT {described}
  FROM pg_catalog.pg_locks l
  LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pg_catalog.pg_prepared_xacts p ON l.pid IS NULL AND l.virtualtransaction = '-1/' || p.transaction::pg_catalog.text
 WHERE l.locktype = 'relation' AND l.granted AND l.relation IN (SELECT t.oid FROM tree t)
   AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
   AND l.mode = ANY ($2) AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
   AND ({AUTOVACUUM}
        OR pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared) > pg_catalog.make_interval(secs => $3))
 ORDER BY age DESC NULLS LAST LIMIT 5",
        described = described()
    )
}

/// How it stands with one step's statements at this moment. Parameter: their start (text). Gives whether one of them waits
/// for a lock (bool), and how many sessions of others wait behind them (int8).
pub const QUEUE: &str = r"
WITH ours AS MATERIALIZED (
  SELECT a.pid FROM pg_catalog.pg_stat_activity a
   WHERE a.datname = pg_catalog.current_database() AND pg_catalog.starts_with(a.query, $1) AND a.state <> 'idle'
     AND a.pid <> pg_catalog.pg_backend_pid()),
waiting AS MATERIALIZED (SELECT DISTINCT l.pid FROM pg_catalog.pg_locks l WHERE NOT l.granted)
SELECT EXISTS (SELECT FROM waiting w JOIN ours o ON o.pid = w.pid),
       (SELECT pg_catalog.count(*) FROM waiting w
         WHERE w.pid NOT IN (SELECT o.pid FROM ours o)
           AND pg_catalog.pg_blocking_pids(w.pid) && (SELECT pg_catalog.array_agg(o.pid) FROM ours o))";

/// Sessions of this database that wait for a lock, those who wait longest first. Gives pid (int4), user, application, lock
/// type, mode, object (text), seconds waited, seconds its transaction has been open (float8), its statement (text), and
/// whom it waits for (int4[]; 0 is a prepared transaction).
pub const WAITING: &str = r"
SELECT a.pid, a.usename::pg_catalog.text, a.application_name, l.locktype, l.mode,
       CASE WHEN l.relation IS NOT NULL AND l.page IS NOT NULL
            THEN pg_catalog.format('a row of %s', l.relation::pg_catalog.regclass)
            WHEN l.relation IS NOT NULL THEN l.relation::pg_catalog.regclass::pg_catalog.text
            WHEN l.transactionid IS NOT NULL THEN pg_catalog.format('transaction %s', l.transactionid)
            WHEN l.virtualxid IS NOT NULL THEN pg_catalog.format('virtual transaction %s', l.virtualxid)
            WHEN l.locktype = 'advisory' THEN pg_catalog.format('%s, %s', l.classid, l.objid)
            ELSE pg_catalog.format('object %s of class %s', l.objid, l.classid) END,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()
         - coalesce((pg_catalog.to_jsonb(l) ->> 'waitstart')::pg_catalog.timestamptz, a.query_start)) AS waited,
       pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start),
       pg_catalog.left(a.query, 200), pg_catalog.pg_blocking_pids(a.pid)
  FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE NOT l.granted AND a.datname = pg_catalog.current_database()
 ORDER BY waited DESC NULLS LAST, a.pid";

/// Some sessions, and the prepared transactions of this database. Parameter: pids (int4[]). Gives the columns of
/// [`described`].
pub fn holders() -> String {
    format!(
        r"
SELECT {described}
  FROM pg_catalog.pg_stat_activity a LEFT JOIN pg_catalog.pg_prepared_xacts p ON false
 WHERE a.pid = ANY ($1)
 UNION ALL
SELECT {described}
  FROM pg_catalog.pg_prepared_xacts p LEFT JOIN pg_catalog.pg_stat_activity a ON false
 WHERE 0 = ANY ($1) AND p.database = pg_catalog.current_database()
 ORDER BY age DESC NULLS LAST",
        described = described()
    )
}
