//! The ledger seen from outside: what is in it, whether it contradicts itself, and a new identity for its database.

/// The sets of a ledger, as rows of set (text), versions applied, versions half done, newest applied version as written
/// (text or NULL).
pub const SETS: &str = r"
SELECT set_name,
       count(*) FILTER (WHERE direction = 'up' AND state = 'complete'),
       count(*) FILTER (WHERE state = 'open'),
       (pg_catalog.array_agg(written ORDER BY version DESC) FILTER (WHERE direction = 'up' AND state = 'complete'))[1]
  FROM (SELECT DISTINCT ON (set_name, version) set_name, version, written, direction, state
          FROM confiture.run ORDER BY set_name, version, run DESC) newest
 GROUP BY set_name ORDER BY set_name";

/// Steps that were verified, oldest first, as rows of set, version as written, direction (text), run, step (int4), title
/// (text), whether the step is done (bool), evidence as JSON (text).
pub const VERIFIED: &str = r"
SELECT s.set_name, r.written, s.direction, s.run, s.step, s.title, s.state = 'done', s.evidence
  FROM confiture.step s JOIN confiture.run r USING (set_name, version, direction, run)
 WHERE s.evidence IS NOT NULL ORDER BY s.began_at, s.set_name, s.version, s.run, s.step";

/// Identities that were accepted, oldest first, as rows of when (text), system identifier (int8) and oid (oid) before, the
/// same after, reason, by whom (text).
pub const ACCEPTED: &str = r#"
SELECT pg_catalog.to_char(accepted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       system_identifier_before, database_oid_before, system_identifier, database_oid, reason, by
  FROM confiture.identity ORDER BY accepted_at"#;

/// Writes the present identity over the one that was read, and takes the fence with it, so that nobody who held the
/// database it was copied from holds this one. Parameters: holder (uuid), system identifier (int8) and oid (oid) as read.
/// Gives the new epoch, token and local (int8); no row when somebody lives who holds it, or another was quicker.
pub const ACCEPT: &str = r"
UPDATE confiture.fence f
   SET system_identifier = c.system_identifier, database_oid = d.oid, local = f.local + 1, holder = $1,
       taken_at = pg_catalog.clock_timestamp()
  FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d
 WHERE d.datname = pg_catalog.current_database() AND (f.system_identifier, f.database_oid) = ($2, $3)
   AND NOT EXISTS (SELECT FROM confiture.holder h WHERE h.held_until > pg_catalog.clock_timestamp())
RETURNING f.epoch, f.token, f.local";

/// Keeps the record of it. Parameters: system identifier (int8) and oid (oid) before, reason, by (text).
pub const RECORD_ACCEPTED: &str = r"
INSERT INTO confiture.identity (system_identifier_before, database_oid_before, system_identifier, database_oid, reason, by)
SELECT $1, $2, system_identifier, database_oid, $3, $4 FROM confiture.fence";

/// What must hold in every ledger at any moment, and a query that gives one line of text for each place where it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invariant {
    /// Counted from 1.
    pub number: u32,
    /// In one sentence.
    pub sentence: &'static str,
    /// Gives one column of text.
    pub query: &'static str,
}

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        number: 1,
        sentence: "the fence is that of this database",
        query: r"
SELECT pg_catalog.format('the fence row names system identifier %s and oid %s', f.system_identifier, f.database_oid)
  FROM confiture.fence f, pg_catalog.pg_control_system() c, pg_catalog.pg_database d
 WHERE d.datname = pg_catalog.current_database()
   AND (f.system_identifier, f.database_oid) IS DISTINCT FROM (c.system_identifier, d.oid)",
    },
    Invariant {
        number: 2,
        sentence: "the runs of a version count from 1 without a gap, ups and downs in turn, beginning with an up",
        query: r"
SELECT pg_catalog.format('set %s, version %s: run %s is number %s, %s', set_name, written, run, n, direction)
  FROM (SELECT *, pg_catalog.row_number() OVER (PARTITION BY set_name, version ORDER BY run, direction) AS n
          FROM confiture.run) r
 WHERE run <> n OR direction <> CASE WHEN n % 2 = 1 THEN 'up' ELSE 'down' END",
    },
    Invariant {
        number: 3,
        sentence: "only the newest run of a version is open, and only an up with a down after it is given up",
        query: r"
SELECT pg_catalog.format('set %s, version %s: run %s (%s) is %s', set_name, written, run, direction, state)
  FROM (SELECT *, pg_catalog.max(run) OVER (PARTITION BY set_name, version) AS newest FROM confiture.run) r
 WHERE (state = 'open' AND run < newest) OR (state = 'given_up' AND (run = newest OR direction <> 'up'))",
    },
    Invariant {
        number: 4,
        sentence: "the steps of a run are recorded from 1 without a gap, and only the last one may have begun only",
        query: r"
SELECT pg_catalog.format('set %s, version %s, run %s: step %s is number %s, %s', set_name, version, run, step, n, state)
  FROM (SELECT *, pg_catalog.row_number() OVER (PARTITION BY set_name, version, direction, run ORDER BY step) AS n,
               pg_catalog.max(step) OVER (PARTITION BY set_name, version, direction, run) AS newest
          FROM confiture.step) s
 WHERE step <> n OR (state = 'begun' AND step < newest)",
    },
    Invariant {
        number: 5,
        sentence: "a complete run has all its steps done",
        query: r"
SELECT pg_catalog.format('set %s, version %s, run %s: %s of %s steps done', r.set_name, r.written, r.run, count(s.step), r.steps)
  FROM confiture.run r LEFT JOIN confiture.step s
    ON (s.set_name, s.version, s.direction, s.run, s.state) = (r.set_name, r.version, r.direction, r.run, 'done')
 WHERE r.state = 'complete'
 GROUP BY r.set_name, r.version, r.written, r.direction, r.run, r.steps HAVING count(s.step) <> r.steps",
    },
    Invariant {
        number: 6,
        sentence: "the ranges of a step that is done have ended, and a range is closed only with a run that was given up",
        query: r"
SELECT pg_catalog.format('set %s, version %s, run %s, step %s: range %s is %s', h.set_name, h.version, h.run, h.step, h.shard, h.state)
  FROM confiture.shard h JOIN confiture.step s USING (set_name, version, direction, run, step)
  JOIN confiture.run r USING (set_name, version, direction, run)
 WHERE (s.state = 'done' AND h.state = 'open') OR (h.state = 'closed' AND r.state <> 'given_up')
    OR (h.state = 'open' AND r.state <> 'open')",
    },
    Invariant {
        number: 7,
        sentence: "no record carries a fence that was never in force here",
        query: r"
SELECT pg_catalog.format('%s of set %s, version %s, run %s, step %s: fence %s.%s.%s', what, set_name, version, run, step,
                         s.epoch, s.token, s.local)
  FROM (SELECT 'step' AS what, set_name, version, run, step, epoch, token, local FROM confiture.step
        UNION ALL SELECT 'range', set_name, version, run, step, epoch, token, local FROM confiture.shard) s, confiture.fence f
 WHERE (s.epoch, s.token, s.local) > (f.epoch, f.token, f.local)",
    },
    Invariant {
        number: 8,
        sentence: "the text of every run is kept",
        query: r"
SELECT pg_catalog.format('set %s, version %s, run %s: no text with checksum %s', set_name, written, run, checksum)
  FROM confiture.run WHERE state <> 'given_up' AND NOT EXISTS (SELECT FROM confiture.script s WHERE s.checksum = run.checksum)",
    },
    Invariant {
        number: 9,
        sentence: "there is one fence and one holder",
        query: r"
SELECT pg_catalog.format('%s fences and %s holders', (SELECT count(*) FROM confiture.fence), (SELECT count(*) FROM confiture.holder))
 WHERE EXISTS (SELECT FROM confiture.run)
   AND ((SELECT count(*) FROM confiture.fence) <> 1 OR (SELECT count(*) FROM confiture.holder) <> 1)",
    },
    Invariant {
        number: 10,
        sentence: "the ranges of a relation are disjoint and cover it: each but the last is followed by exactly one",
        query: r"
SELECT pg_catalog.format('set %s, version %s, run %s, step %s: %s ranges of %s in pass %s, %s of them first, %s followed, %s beginnings',
                         set_name, version, run, step, count(*), pg_catalog.max(relation_name), pass,
                         count(*) FILTER (WHERE lower IS NULL), count(*) FILTER (WHERE followed), count(DISTINCT lower))
  FROM (SELECT h.*, EXISTS (SELECT FROM confiture.shard n
                 WHERE (n.set_name, n.version, n.direction, n.run, n.step, n.pass) = (h.set_name, h.version, h.direction, h.run, h.step, h.pass)
                   AND n.relation = h.relation AND n.lower = h.upper) AS followed
          FROM confiture.shard h WHERE h.relation IS NOT NULL) h
 GROUP BY set_name, version, direction, run, step, relation, pass
HAVING count(*) FILTER (WHERE lower IS NULL) <> 1 OR count(*) FILTER (WHERE followed) <> count(*) - 1
    OR count(DISTINCT lower) <> count(*) - 1",
    },
    Invariant {
        number: 11,
        sentence: "the batches of a range count without a gap, each begins where the one before ended, and no fence goes back",
        query: r"
SELECT pg_catalog.format('set %s, version %s, run %s, step %s, range %s: batch %s', set_name, version, run, step, shard, sequence)
  FROM (SELECT b.*,
               pg_catalog.lag(b.sequence) OVER w AS sequence_before, pg_catalog.lag(b.upper) OVER w AS upper_before,
               pg_catalog.lag((b.epoch, b.token, b.local)) OVER w AS fence_before
          FROM confiture.batch b
        WINDOW w AS (PARTITION BY b.set_name, b.version, b.direction, b.run, b.step, b.shard ORDER BY b.sequence)) b
 WHERE sequence_before IS NOT NULL
   AND (sequence <> sequence_before + 1 OR lower IS DISTINCT FROM upper_before OR (epoch, token, local) < fence_before)",
    },
    Invariant {
        number: 12,
        sentence: "a range stands where its last batch left it, and its rows are theirs",
        query: r"
SELECT pg_catalog.format('set %s, version %s, run %s, step %s, range %s: %s batches and %s rows, its evidence says %s and %s',
                         h.set_name, h.version, h.run, h.step, h.shard, h.sequence, h.rows, b.last, b.rows)
  FROM confiture.shard h, LATERAL (
       SELECT pg_catalog.min(b.sequence) AS first, pg_catalog.max(b.sequence) AS last, pg_catalog.sum(b.rows) AS rows
         FROM confiture.batch b
        WHERE (b.set_name, b.version, b.direction, b.run, b.step, b.shard) = (h.set_name, h.version, h.direction, h.run, h.step, h.shard)) b
 WHERE b.first = 1 AND (b.last <> h.sequence OR b.rows <> h.rows)",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariants_are_numbered_in_order() {
        for (place, invariant) in (1..).zip(INVARIANTS) {
            assert_eq!(invariant.number, place);
        }
    }
}
