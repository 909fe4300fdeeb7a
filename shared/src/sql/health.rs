//! The probe: everything that is read of a server's health, in one statement. See [`crate::batch::Sample`].
//!
//! It asks for no privilege: what a role may not see is NULL. A count of what only some roles may see is a lower bound
//! where it is not zero, and unknown where it is. `pg_monitor` makes it see all.

use super::{TAG_START, literal};

/// What the probe's text depends on. No parameters. Gives `server_version_num` (int4), and whether the folder of WAL
/// files to archive may be read: NULL where none are archived (bool).
pub const SERVER: &str = "
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
       CASE WHEN pg_catalog.current_setting('archive_mode') <> 'off'
            THEN pg_catalog.has_function_privilege('pg_catalog.pg_ls_archive_statusdir()', 'EXECUTE') END";

/// Ends the right to write in the transaction: what an operator asks is a question.
pub const READ_ONLY: &str = "SET LOCAL transaction_read_only = on";

/// What can be known of the WAL files that wait for the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Archive {
    /// None are archived.
    Off,
    /// Their folder may be read.
    Readable,
    /// Only whether archiving fails: a function that may not be called fails even where it would not be reached.
    Hidden,
}

/// A server, as far as the probe's text depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`.
    pub version: i32,
    /// Its archive.
    pub archive: Archive,
}

/// The most sessions waiting for locks that are asked whom they wait for, longest first: each question locks the lock
/// table for a moment, and in a jam of hundreds one answer more changes nothing.
const MOST_WAITERS: u32 = 50;

/// The probe: one row, one JSON text, its keys named as in [`crate::batch::Sample`], times with `_ms`. Parameter: the
/// tables at work, by oid (oid[]).
pub fn probe(server: Server) -> String {
    // Until 14 nobody noted since when a lock is waited for; the statement's start is not far from it. Who may not see
    // that either sees when our transaction began: nobody has waited for it longer.
    let waiting_since = if server.version >= 140_000 {
        "l.waitstart"
    } else {
        "NULL::pg_catalog.timestamptz"
    };
    let waited_from = if server.version >= 140_000 {
        // Set a moment after the wait began.
        "coalesce(l.since, pg_catalog.clock_timestamp())"
    } else {
        "a.query_start"
    };
    let checkpoints = if server.version >= 170_000 {
        "SELECT c.num_requested FROM pg_catalog.pg_stat_checkpointer c"
    } else {
        "SELECT c.checkpoints_req FROM pg_catalog.pg_stat_bgwriter c"
    };
    let (archive_failing, archive_files) = match server.archive {
        Archive::Off => ("false", "0"),
        Archive::Readable => (ARCHIVE_FAILING, ARCHIVE_FILES),
        Archive::Hidden => (ARCHIVE_FAILING, "NULL"),
    };
    let ours = format!(
        "coalesce(pg_catalog.left(a.query, {}) = {}, false)",
        TAG_START.len(),
        literal(TAG_START)
    );
    format!(
        r"
WITH me AS MATERIALIZED (
  SELECT d.oid AS database, pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
         CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END AS lsn
    FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
activity AS MATERIALIZED (
  SELECT a.pid, a.datid, a.backend_type, a.state, a.wait_event, a.xact_start, a.query_start, a.state_change,
         a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL AS holds, {ours} AS ours
    FROM pg_catalog.pg_stat_activity a WHERE a.pid <> pg_catalog.pg_backend_pid()),
locks AS MATERIALIZED (
  SELECT l.pid, l.granted, l.database, l.relation, {waiting_since} AS since
    FROM pg_catalog.pg_locks l
   WHERE NOT l.granted OR (l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock')),
replicas AS MATERIALIZED (
  SELECT r.replay_lag AS lag, r.replay_lsn AS lsn FROM pg_catalog.pg_stat_replication r
   WHERE coalesce(r.state IN ('streaming', 'catchup'), true))
SELECT pg_catalog.json_build_object(
  'replica_lag_ms', (SELECT CASE WHEN pg_catalog.count(*) = 0 OR me.sees_all THEN coalesce({replica_lag}, 0) END
       FROM replicas r),
  'replica_bytes', (SELECT CASE WHEN pg_catalog.count(*) = 0 OR me.sees_all
       THEN coalesce(pg_catalog.max(pg_catalog.pg_wal_lsn_diff(me.lsn, r.lsn)), 0)::pg_catalog.int8 END FROM replicas r),
  'slot_bytes', (SELECT coalesce(pg_catalog.max(pg_catalog.pg_wal_lsn_diff(me.lsn, s.restart_lsn)), 0)::pg_catalog.int8
       FROM pg_catalog.pg_replication_slots s WHERE s.restart_lsn IS NOT NULL AND s.wal_status <> 'lost'),
  'lock_wait_ms', (SELECT CASE WHEN pg_catalog.count(*) = 0 THEN 0 ELSE {lock_wait} END
       FROM (SELECT l.pid, {waited_from} AS since FROM locks l JOIN activity a ON a.pid = l.pid
              WHERE NOT l.granted AND a.datid = me.database AND NOT a.ours ORDER BY 2 LIMIT {MOST_WAITERS}) w
       JOIN LATERAL (SELECT pg_catalog.min(a.xact_start) AS since
                       FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) b(pid)
                       JOIN activity a ON a.pid = b.pid WHERE a.ours HAVING pg_catalog.count(*) > 0) o ON true),
  'active', (SELECT CASE WHEN me.sees_all THEN pg_catalog.count(*) ELSE nullif(pg_catalog.count(*), 0) END
       FROM activity a WHERE a.state = 'active' AND a.wait_event IS NULL AND NOT a.ours
        AND a.backend_type IN ('client backend', 'parallel worker')),
  'company', (SELECT pg_catalog.count(*) FROM activity a
      WHERE NOT a.ours AND a.datid IS NOT NULL AND coalesce(a.backend_type = 'client backend', true)
        AND coalesce(a.state = 'active' OR a.state_change > pg_catalog.clock_timestamp() - interval '1 second', true)),
  'commit_waiters', (SELECT CASE WHEN me.sees_all THEN pg_catalog.count(*) ELSE nullif(pg_catalog.count(*), 0) END
       FROM activity a WHERE pg_catalog.lower(a.wait_event) IN ('walwrite', 'walsync', 'syncrep') AND NOT a.ours),
  'wal_bytes', pg_catalog.pg_wal_lsn_diff(me.lsn, '0/0')::pg_catalog.int8,
  'max_wal_bytes', pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_wal_size')),
  'checkpoints', ({checkpoints}),
  'archive_failing', {archive_failing},
  'archive_files', {archive_files},
  'vacuums', (SELECT pg_catalog.count(DISTINCT v.pid) FROM pg_catalog.pg_stat_progress_vacuum v JOIN locks l ON l.pid = v.pid
      WHERE v.datid = me.database AND l.granted AND l.database = me.database AND l.relation = ANY ($1)
        AND NOT EXISTS (SELECT FROM activity a WHERE a.pid = v.pid AND a.ours)),
  'oldest_snapshot_ms', (SELECT CASE WHEN me.sees_all THEN coalesce({oldest}, 0) ELSE {oldest} END
       FROM (SELECT a.xact_start AS since FROM activity a
              WHERE a.datid = me.database AND a.holds AND NOT a.ours AND a.backend_type = 'client backend'
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_vacuum v WHERE v.pid = a.pid)
             UNION ALL
             SELECT p.prepared FROM pg_catalog.pg_prepared_xacts p
              WHERE p.database = pg_catalog.current_database()) o)
  )::pg_catalog.text FROM me",
        replica_lag = milliseconds("pg_catalog.max(r.lag)"),
        lock_wait = milliseconds("pg_catalog.max(pg_catalog.clock_timestamp() - coalesce(w.since, o.since))"),
        oldest = milliseconds("pg_catalog.clock_timestamp() - pg_catalog.min(o.since)"),
    )
}

/// Whether the last try failed. Public, other than the files themselves.
const ARCHIVE_FAILING: &str = "(SELECT coalesce(s.last_failed_time > s.last_archived_time, \
                               s.last_failed_time IS NOT NULL) FROM pg_catalog.pg_stat_archiver s)";

const ARCHIVE_FILES: &str = "(SELECT pg_catalog.count(*) FROM pg_catalog.pg_ls_archive_statusdir() f \
                             WHERE f.name LIKE '%.ready')";

/// An interval as whole milliseconds, at least 0: the clocks of two sessions' notes need not agree to the last digit.
fn milliseconds(interval: &str) -> String {
    format!(
        "CASE WHEN {interval} IS NOT NULL THEN GREATEST(extract(epoch FROM {interval}) * 1000, 0)::pg_catalog.int8 END"
    )
}

/// The operator's query as one text. It must give one value of one row; its own parentheses keep it one statement, and
/// the line feed ends a comment that it may end with.
pub fn operator(query: &str) -> String {
    format!("SELECT (\n{query}\n)::pg_catalog.text")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: i32, archive: Archive) -> String {
        probe(Server { version, archive })
    }

    #[test]
    fn each_version_is_asked_for_what_it_has() {
        let thirteen = text(130_000, Archive::Off);
        assert!(thirteen.contains("pg_stat_bgwriter") && !thirteen.contains("waitstart"));
        let sixteen = text(160_004, Archive::Off);
        assert!(sixteen.contains("pg_stat_bgwriter") && sixteen.contains("waitstart"));
        let seventeen = text(170_000, Archive::Off);
        assert!(seventeen.contains("pg_stat_checkpointer") && !seventeen.contains("pg_stat_bgwriter"));
    }

    #[test]
    fn a_folder_that_may_not_be_read_is_not_named() {
        let folder = "pg_ls_archive_statusdir";
        assert!(text(150_000, Archive::Readable).contains(folder));
        assert!(!text(150_000, Archive::Hidden).contains(folder));
        assert!(!text(150_000, Archive::Off).contains("pg_stat_archiver"));
    }

    /// Whatever a role's `search_path` is, the names lead into the catalog.
    #[test]
    fn every_name_is_qualified() {
        for version in [130_000, 140_000, 170_000] {
            let text = text(version, Archive::Readable);
            for (at, _) in text.match_indices("pg_") {
                let before = &text[..at];
                let inside = before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '\'');
                let qualified = before.ends_with("pg_catalog.") || text[at..].starts_with("pg_catalog.");
                assert!(inside || qualified, "{}", &text[at..at + 30]);
            }
            for function in [
                "count(",
                "max(",
                "min(",
                "left(",
                "lower(",
                "unnest(",
                "clock_timestamp(",
            ] {
                let all = text.matches(function).count();
                assert_eq!(
                    all,
                    text.matches(&format!("pg_catalog.{function}")).count(),
                    "{function}"
                );
            }
        }
    }

    #[test]
    fn a_comment_at_the_end_of_the_operators_query_hides_nothing() {
        assert_eq!(
            operator("SELECT 1 -- yes"),
            "SELECT (\nSELECT 1 -- yes\n)::pg_catalog.text"
        );
    }
}
