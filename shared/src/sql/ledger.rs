//! The ledger: the schema `confiture` inside each target database, and the statements that read and write it.
//!
//! Records are keyed by `(set, version, direction, run, step[, shard])`. Parameters are listed at each statement in
//! their order.

/// The format this program writes. One that is newer is refused before anything is written, unless it says that
/// programs of ours can work with it.
pub const FORMAT: i32 = 3;

/// Whether there is a ledger. One boolean.
pub const EXISTS: &str = "SELECT pg_catalog.to_regclass('confiture.ledger') IS NOT NULL";

/// Creates the ledger in its first format, to be run inside one transaction and followed by all [`UPGRADES`]. Of several
/// that do so at once all but one fail with 23505, 42P06 or 42P07, and read again.
pub const CREATE: &str = r"
CREATE SCHEMA confiture;
COMMENT ON SCHEMA confiture IS 'What Confiture did to this database. Do not edit by hand.';
CREATE TABLE confiture.ledger (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  format integer NOT NULL,
  created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  created_by text NOT NULL DEFAULT session_user
);
CREATE TABLE confiture.fence (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  system_identifier bigint NOT NULL,
  database_oid oid NOT NULL,
  epoch bigint NOT NULL,
  token bigint NOT NULL,
  local bigint NOT NULL,
  holder uuid NOT NULL,
  store uuid,
  database_name text,
  taken_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
) WITH (fillfactor = 10);
CREATE TABLE confiture.holder (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  holder uuid NOT NULL,
  store uuid,
  description text NOT NULL,
  since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  held_until timestamptz NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE confiture.script (
  checksum text PRIMARY KEY,
  scheme integer NOT NULL,
  text text NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
CREATE TABLE confiture.run (
  set_name text,
  version text,
  direction text CHECK (direction IN ('up', 'down')),
  run integer,
  written text NOT NULL,
  name text NOT NULL,
  state text NOT NULL CHECK (state IN ('open', 'complete')),
  checksum text NOT NULL,
  scheme integer NOT NULL,
  steps integer NOT NULL,
  rollout text,
  by text NOT NULL,
  began_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  ended_at timestamptz,
  PRIMARY KEY (set_name, version, direction, run)
);
CREATE UNIQUE INDEX run_one_open ON confiture.run (set_name, version) WHERE state = 'open';
CREATE TABLE confiture.step (
  set_name text,
  version text,
  direction text,
  run integer,
  step integer,
  kind text NOT NULL,
  title text NOT NULL,
  checksum text NOT NULL,
  state text NOT NULL CHECK (state IN ('begun', 'done')),
  rows bigint NOT NULL DEFAULT 0,
  detail text,
  epoch bigint NOT NULL,
  token bigint NOT NULL,
  local bigint NOT NULL,
  xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  began_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  ended_at timestamptz,
  PRIMARY KEY (set_name, version, direction, run, step),
  FOREIGN KEY (set_name, version, direction, run) REFERENCES confiture.run
);
CREATE TABLE confiture.shard (
  set_name text,
  version text,
  direction text,
  run integer,
  step integer,
  shard integer,
  epoch bigint NOT NULL,
  token bigint NOT NULL,
  local bigint NOT NULL,
  lower text[],
  upper text[],
  cursor text[],
  sequence bigint NOT NULL DEFAULT 0,
  rows bigint NOT NULL DEFAULT 0,
  state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'closed')),
  PRIMARY KEY (set_name, version, direction, run, step, shard),
  FOREIGN KEY (set_name, version, direction, run, step) REFERENCES confiture.step
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
INSERT INTO confiture.ledger (format) VALUES (1);
";

/// What leads from each format to the next, beginning with the first; run inside a takeover. They only add: a format
/// raises `works_with`, the oldest format whose programs can go on, only where it must.
pub const UPGRADES: &[&str] = &[
    r"
ALTER TABLE confiture.ledger ADD COLUMN works_with integer NOT NULL DEFAULT 2;
ALTER TABLE confiture.run DROP CONSTRAINT run_state_check,
  ADD CONSTRAINT run_state_check CHECK (state IN ('open', 'complete', 'given_up')),
  ADD COLUMN down_checksum text;
CREATE TABLE confiture.identity (
  accepted_at timestamptz PRIMARY KEY DEFAULT pg_catalog.clock_timestamp(),
  system_identifier_before bigint NOT NULL,
  database_oid_before oid NOT NULL,
  system_identifier bigint NOT NULL,
  database_oid oid NOT NULL,
  reason text NOT NULL,
  by text NOT NULL
);
UPDATE confiture.ledger SET format = 2;
",
    r"
ALTER TABLE confiture.shard DROP CONSTRAINT shard_state_check,
  ADD CONSTRAINT shard_state_check CHECK (state IN ('open', 'done', 'closed', 'gone')),
  ADD COLUMN relation oid,
  ADD COLUMN relation_name text,
  ADD COLUMN paging text,
  ADD COLUMN pass integer NOT NULL DEFAULT 1,
  ADD COLUMN retries bigint NOT NULL DEFAULT 0;
ALTER TABLE confiture.step ADD COLUMN evidence text;
CREATE TABLE confiture.batch (
  set_name text,
  version text,
  direction text,
  run integer,
  step integer,
  shard integer,
  sequence bigint,
  epoch bigint NOT NULL,
  token bigint NOT NULL,
  local bigint NOT NULL,
  lower text[],
  upper text[],
  rows bigint NOT NULL,
  xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  PRIMARY KEY (set_name, version, direction, run, step, shard, sequence)
);
COMMENT ON TABLE confiture.batch IS 'One row for each batch: evidence that each range was changed once. Old ones are removed.';
UPDATE confiture.ledger SET format = 3, works_with = 3;
",
];

/// The ledger's format, as a JSON text of the row of `confiture.ledger`.
pub const FORMAT_ROW: &str = "SELECT pg_catalog.to_jsonb(l)::pg_catalog.text FROM confiture.ledger l";

/// Everything a decision needs, as one JSON text: see [`crate::ledger::Ledger`]. It reads every format up to ours: columns
/// of later ones are taken out of the whole row. Whether a statement of a holder runs that does not renew itself is asked
/// by [`WORKING`]. Parameter: set (text).
pub const READ: &str = r#"
SELECT pg_catalog.json_build_object(
  'ledger', (SELECT pg_catalog.to_jsonb(l) FROM confiture.ledger l),
  'system', (SELECT system_identifier FROM pg_catalog.pg_control_system()),
  'database', (SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
  'fence', (SELECT pg_catalog.row_to_json(f) FROM (
      SELECT epoch, token, local, holder, store, system_identifier AS system, database_oid::pg_catalog.int8 AS database,
             database_name
        FROM confiture.fence) f),
  'holder', (SELECT pg_catalog.row_to_json(h) FROM (
      SELECT holder, store, description, held_until > pg_catalog.clock_timestamp() AS held FROM confiture.holder) h),
  'runs', (SELECT coalesce(pg_catalog.json_agg(r), '[]') FROM (
      SELECT version, direction, run, written, name, state, checksum, scheme, steps, rollout, by,
             pg_catalog.to_char(began_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS began_at,
             pg_catalog.to_char(ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS ended_at,
             pg_catalog.date_part('epoch', ended_at - began_at) AS seconds,
             pg_catalog.to_jsonb(n) ->> 'down_checksum' AS down_checksum
        FROM confiture.run n WHERE set_name = $1 ORDER BY run) r),
  'steps', (SELECT coalesce(pg_catalog.json_agg(s), '[]') FROM (
      SELECT s.version, s.direction, s.run, s.step, s.kind, s.title, s.checksum, s.state, s.detail,
             CASE WHEN s.state = 'done' THEN s.rows ELSE
               (SELECT coalesce(pg_catalog.sum(h.rows), 0) FROM confiture.shard h
                 WHERE (h.set_name, h.version, h.direction, h.run, h.step) = (s.set_name, s.version, s.direction, s.run, s.step))
             END AS rows
        FROM confiture.step s WHERE s.set_name = $1 ORDER BY s.step) s)
)::pg_catalog.text"#;

/// What of [`READ`] decides whether there is something to do, where no run is half-way: no steps, and no times. It is the
/// first statement of most connections, which have to read the catalog for it, and there it costs half as much. Formats
/// before ours may lack its columns: whoever is refused reads all. Parameter: set (text).
pub const READ_BRIEFLY: &str = r"
SELECT pg_catalog.json_build_object(
  'ledger', (SELECT pg_catalog.json_build_object('format', format, 'works_with', works_with) FROM confiture.ledger),
  'system', (SELECT system_identifier FROM pg_catalog.pg_control_system()),
  'database', (SELECT oid::pg_catalog.int8 FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()),
  'fence', (SELECT pg_catalog.json_build_object('epoch', epoch, 'token', token, 'local', local, 'holder', holder,
      'store', store, 'system', system_identifier, 'database', database_oid::pg_catalog.int8,
      'database_name', database_name) FROM confiture.fence),
  'holder', (SELECT pg_catalog.json_build_object('holder', holder, 'store', store, 'description', description,
      'held', held_until > pg_catalog.clock_timestamp()) FROM confiture.holder),
  'runs', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('version', version, 'direction', direction,
      'run', run, 'written', written, 'name', name, 'state', state, 'checksum', checksum, 'scheme', scheme,
      'steps', steps, 'rollout', rollout, 'by', by, 'down_checksum', down_checksum) ORDER BY run), '[]')
     FROM confiture.run WHERE set_name = $1),
  'unfinished', EXISTS (SELECT FROM confiture.run WHERE state = 'open')
)::pg_catalog.text";

/// Whether a statement runs under the fence in force, by its tag, whose holder is the one that is written down. One boolean.
/// Not by `pg_stat_activity`: reading that view costs a new session more than the function behind it.
pub const WORKING: &str = r"
SELECT EXISTS (SELECT FROM confiture.fence f, confiture.holder h, pg_catalog.pg_stat_get_activity(NULL) a
   WHERE f.holder = h.holder
     AND a.datid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
     AND a.state <> 'idle' AND a.pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(a.query, '/*confiture ')
     AND pg_catalog.strpos(pg_catalog.split_part(a.query, '*/', 1) || ' ',
         ' f=' || f.epoch || '.' || f.token || '.' || f.local || ' ') > 0)";

/// Takes the fence for a lease. Parameters: epoch, token, local (int8), holder (uuid), store (uuid), the fleet's name
/// for the database (text). One row when it is ours now.
pub const TAKE: &str = r"
INSERT INTO confiture.fence AS f (system_identifier, database_oid, epoch, token, local, holder, store, database_name)
SELECT c.system_identifier, d.oid, $1, $2, $3, $4, $5, $6
  FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
ON CONFLICT (one) DO UPDATE
   SET epoch = EXCLUDED.epoch, token = EXCLUDED.token, local = EXCLUDED.local, holder = EXCLUDED.holder,
       store = EXCLUDED.store, database_name = EXCLUDED.database_name, taken_at = pg_catalog.clock_timestamp()
 WHERE f.system_identifier = EXCLUDED.system_identifier AND f.database_oid = EXCLUDED.database_oid
   AND (f.epoch, f.token, f.local) < (EXCLUDED.epoch, EXCLUDED.token, EXCLUDED.local)
RETURNING true";

/// Takes the fence for a run without a coordinator, by compare-and-set. Parameters: epoch, token, local (int8) as
/// wanted; holder (uuid); local (int8) and holder (uuid) as read, both NULL when there was no row; whether a living
/// holder is displaced (boolean). Store and name of the fleet stay as they are. One row when it is ours now.
pub const TAKE_LOCAL: &str = r"
INSERT INTO confiture.fence AS f (system_identifier, database_oid, epoch, token, local, holder)
SELECT c.system_identifier, d.oid, $1, $2, $3, $4
  FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
ON CONFLICT (one) DO UPDATE
   SET local = EXCLUDED.local, holder = EXCLUDED.holder, taken_at = pg_catalog.clock_timestamp()
 WHERE f.system_identifier = EXCLUDED.system_identifier AND f.database_oid = EXCLUDED.database_oid
   AND (f.epoch, f.token, f.local, f.holder) = (EXCLUDED.epoch, EXCLUDED.token, $5, $6)
   AND ($7 OR NOT EXISTS (SELECT FROM confiture.holder h WHERE h.held_until > pg_catalog.clock_timestamp()))
RETURNING true";

/// Stamps all open shards with the fence just taken. Parameters: epoch, token, local (int8).
pub const STAMP_SHARDS: &str = r"
UPDATE confiture.shard SET epoch = $1, token = $2, local = $3
 WHERE state = 'open' AND (epoch, token, local) < ($1, $2, $3)";

/// Says who holds the database. Parameters: holder (uuid), store (uuid), description (text), seconds it is held (float8).
pub const HOLD: &str = r"
INSERT INTO confiture.holder AS h (holder, store, description, held_until)
VALUES ($1, $2, $3, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $4))
ON CONFLICT (one) DO UPDATE SET holder = EXCLUDED.holder, store = EXCLUDED.store, description = EXCLUDED.description,
       since = EXCLUDED.since, held_until = EXCLUDED.held_until";

/// Renews the holder, but for one that was released: a renewal may have been on its way. Parameters: holder (uuid), seconds
/// (float8).
pub const RENEW: &str = r"
UPDATE confiture.holder SET held_until = pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $2)
 WHERE holder = $1 AND held_until > '-infinity'";

/// Releases the holder. Parameter: holder (uuid).
pub const RELEASE: &str = "UPDATE confiture.holder SET held_until = '-infinity' WHERE holder = $1";

/// Locks the fence row by its full fence: one row, or we were replaced. Parameters: epoch, token, local (int8), holder (uuid).
pub const LOCK_FENCE: &str = r"
SELECT true FROM confiture.fence
 WHERE one AND (epoch, token, local, holder) = ($1, $2, $3, $4) FOR NO KEY UPDATE";

/// Who has the fence now: the holder's description, or the fence, for people; and epoch, token, local (int8).
pub const WHO: &str = r"
SELECT coalesce((SELECT h.description FROM confiture.holder h WHERE h.holder = f.holder), 'fence '
       || f.epoch || '.' || f.token || '.' || f.local), f.epoch, f.token, f.local
  FROM confiture.fence f";

/// Role and database, both quoted.
pub const WHO_WE_ARE: &str =
    "SELECT pg_catalog.quote_ident(current_user), pg_catalog.quote_ident(pg_catalog.current_database())";

/// Records that a run begins; a run that has begun stays as it is. Parameters: set, version key, direction (text), run
/// (int4), version as written, name, checksum (text), scheme, steps (int4), rollout, by, checksum of the way down (text).
pub const BEGIN_RUN: &str = r"
INSERT INTO confiture.run (set_name, version, direction, run, written, name, state, checksum, scheme, steps, rollout, by,
                           down_checksum)
VALUES ($1, $2, $3, $4, $5, $6, 'open', $7, $8, $9, $10, $11, $12)
ON CONFLICT (set_name, version, direction, run) DO NOTHING";

/// Gives up a half-done up, and closes its shards. Parameters: set, version key, direction (text), run (int4).
pub const GIVE_UP_RUN: &str = r"
WITH closed AS (
  UPDATE confiture.shard SET state = 'closed'
   WHERE (set_name, version, direction, run) = ($1, $2, $3, $4) AND state = 'open')
UPDATE confiture.run SET state = 'given_up', ended_at = pg_catalog.clock_timestamp()
 WHERE (set_name, version, direction, run) = ($1, $2, $3, $4) AND state = 'open'";

/// Keeps a script's text. Parameters: checksum (text), scheme (int4), text (text).
pub const KEEP_SCRIPT: &str = r"
INSERT INTO confiture.script (checksum, scheme, text) VALUES ($1, $2, $3) ON CONFLICT (checksum) DO NOTHING";

/// A script's text, by its checksum (text).
pub const SCRIPT: &str = "SELECT text FROM confiture.script WHERE checksum = $1";

/// Records a step as begun or done; the key makes a second application impossible. Parameters: set, version key,
/// direction (text), run, step (int4), kind, title, checksum, state, detail (text), epoch, token, local (int8). Gives the
/// transaction's id as text.
pub const RECORD_STEP: &str = r"
INSERT INTO confiture.step (set_name, version, direction, run, step, kind, title, checksum, state, detail, epoch, token, local, ended_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
        CASE WHEN $9 = 'done' THEN pg_catalog.clock_timestamp() END)
RETURNING xid::pg_catalog.text";

/// Rows a second (float8) of the last steps that changed many in batches; NULL where there is none.
pub const RATE: &str = r"
SELECT pg_catalog.sum(s.rows)::pg_catalog.float8 / NULLIF(pg_catalog.sum(s.seconds), 0)
  FROM (SELECT rows, pg_catalog.date_part('epoch', ended_at - began_at) AS seconds FROM confiture.step
         WHERE state = 'done' AND rows >= 10000 AND ended_at > began_at ORDER BY ended_at DESC LIMIT 10) s";

/// Keeps what verification of a step found. Parameters: set, version key, direction (text), run, step (int4), evidence as
/// JSON (text).
pub const KEEP_EVIDENCE: &str = r"
UPDATE confiture.step SET evidence = $6 WHERE (set_name, version, direction, run, step) = ($1, $2, $3, $4, $5)";

/// Marks a step that had begun as done; its rows are those of its shards, all of which must be done. One row, or
/// something is wrong. Parameters: set, version key, direction (text), run, step (int4).
pub const FINISH_STEP: &str = r"
UPDATE confiture.step s SET state = 'done', ended_at = pg_catalog.clock_timestamp(),
       rows = (SELECT coalesce(pg_catalog.sum(h.rows), 0) FROM confiture.shard h
                WHERE (h.set_name, h.version, h.direction, h.run, h.step) = ($1, $2, $3, $4, $5))
 WHERE (s.set_name, s.version, s.direction, s.run, s.step) = ($1, $2, $3, $4, $5) AND s.state = 'begun'
   AND NOT EXISTS (SELECT FROM confiture.shard h
                    WHERE (h.set_name, h.version, h.direction, h.run, h.step) = ($1, $2, $3, $4, $5) AND h.state = 'open')
RETURNING pg_catalog.pg_current_xact_id()::pg_catalog.text";

/// Marks a run complete. Parameters: set, version key, direction (text), run (int4), checksum (text), steps (int4),
/// checksum of the way down (text). One row, or something is wrong.
pub const COMPLETE_RUN: &str = r"
UPDATE confiture.run SET state = 'complete', ended_at = pg_catalog.clock_timestamp(), checksum = $5, steps = $6,
       down_checksum = $7, rollout = $8
 WHERE (set_name, version, direction, run) = ($1, $2, $3, $4) AND state = 'open'";

/// The id of the transaction we are in, as text; NULL when it has written nothing. A hidden COMMIT shows here.
pub const CURRENT_XID: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text";

/// Sessions of this database and role that are at work for a smaller fence: they stand in a takeover's way. Gives pid
/// (int4) and statement (text); the caller reads the fence out of the statement's tag.
pub const OUR_BACKENDS: &str = r"
SELECT pid, query FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND usename = session_user AND state <> 'idle'
   AND pid <> pg_catalog.pg_backend_pid() AND pg_catalog.starts_with(query, '/*confiture ')";

/// Ends a session if it still runs the same statement: one that is idle may be lent to somebody else by a pooler.
/// Parameters: pid (int4), statement (text).
pub const TERMINATE: &str = r"
SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE pid = $1 AND query = $2 AND state <> 'idle' AND datname = pg_catalog.current_database()";

/// Where the database physically is: system identifier (int8), oid (oid), server version number (int4).
pub const IDENTITY: &str = r"
SELECT c.system_identifier, d.oid, pg_catalog.current_setting('server_version_num')::pg_catalog.int4
  FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()";
