//! The statements of one batch loop over one relation. Boundaries travel as text arrays and are cast by the server, so
//! that types and collations need no code of ours. Open and closed ends of a range get texts of their own: `$1 IS NULL OR
//! ..` would lose the index.
//!
//! Rows are paged by the order of a key, ranges being `(lower, upper]` in that order; or by block, ranges being
//! `[lower, upper)` in block numbers.

use crate::plan::{
    Assignment, Batches, Comparison, KeyColumn, Paging, Part, Passes, RowChange, SortDirection,
};
use std::fmt::Write as _;

/// Locks the shard's row: fence, checkpoint and serialisation in one row lock. Parameters: set, version key, direction
/// (text), run, step, shard (int4). Gives state (text), epoch, token, local (int8), cursor or lower end (text[]), upper
/// end (text[]), sequence, rows (int8).
pub const LOCK_SHARD: &str = r"
SELECT state, epoch, token, local, coalesce(cursor, lower), upper, sequence, rows FROM confiture.shard
 WHERE (set_name, version, direction, run, step, shard) = ($1, $2, $3, $4, $5, $6) FOR NO KEY UPDATE";

/// Moves the cursor and leaves the batch's evidence. Parameters: the shard's key as above, sequence as read (int8), old
/// and new cursor (text[]), rows changed (int8), new state (text), failed tries before it (int8). Exactly one row.
pub const MOVE_CURSOR: &str = r"
WITH moved AS (
  UPDATE confiture.shard
     SET cursor = $9, sequence = sequence + 1, rows = rows + $10, state = $11, retries = retries + $12
   WHERE (set_name, version, direction, run, step, shard) = ($1, $2, $3, $4, $5, $6) AND sequence = $7
  RETURNING sequence, epoch, token, local)
INSERT INTO confiture.batch (set_name, version, direction, run, step, shard, sequence, epoch, token, local, lower, upper, rows)
SELECT $1, $2, $3, $4, $5, $6, m.sequence, m.epoch, m.token, m.local, $8, $9, $10 FROM moved m";

/// All shards of a step, in order. Parameters: set, version key, direction (text), run, step (int4). Gives shard (int4),
/// relation (oid), paging (text), pass (int4), state (text), rows (int8), lower, upper (text[]), sequence (int8).
pub const SHARDS: &str = r"
SELECT shard, relation, paging, pass, state, rows, lower, upper, sequence FROM confiture.shard
 WHERE (set_name, version, direction, run, step) = ($1, $2, $3, $4, $5) ORDER BY shard";

/// What all lives of a step did: batches committed and tries that failed (int8). Parameters as for [`SHARDS`].
pub const EFFORT: &str = r"
SELECT coalesce(pg_catalog.sum(sequence), 0)::pg_catalog.int8, coalesce(pg_catalog.sum(retries), 0)::pg_catalog.int8
  FROM confiture.shard WHERE (set_name, version, direction, run, step) = ($1, $2, $3, $4, $5)";

/// Inserts shards. Parameters: set, version key, direction (text), run, step (int4), epoch, token, local (int8), the shards
/// as a JSON array of objects (text): `shard`, `relation`, `relation_name`, `paging`, `pass`, `lower`, `upper`, `state`.
pub const INSERT_SHARDS: &str = r"
INSERT INTO confiture.shard (set_name, version, direction, run, step, epoch, token, local,
                             shard, relation, relation_name, paging, pass, lower, upper, state)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, x.shard, x.relation, x.relation_name, x.paging, x.pass, x.lower, x.upper, x.state
  FROM pg_catalog.json_to_recordset($9::pg_catalog.json)
    AS x(shard integer, relation oid, relation_name text, paging text, pass integer, lower text[], upper text[],
         state text)";

/// Ends shards of relations that are no longer there. Parameters: set, version key, direction (text), run, step (int4),
/// the relations that are (oid[]).
pub const CLOSE_GONE: &str = r"
UPDATE confiture.shard SET state = 'gone'
 WHERE (set_name, version, direction, run, step) = ($1, $2, $3, $4, $5) AND state = 'open'
   AND relation IS NOT NULL AND relation <> ALL ($6)";

/// Gives the one range of a step that an older program began its relation and paging. Parameters: set, version key,
/// direction (text), run, step (int4), relation (oid), its name, paging (text).
pub const ADOPT_SHARD: &str = r"
UPDATE confiture.shard SET relation = $6, relation_name = $7, paging = $8
 WHERE (set_name, version, direction, run, step) = ($1, $2, $3, $4, $5) AND relation IS NULL";

/// Ends a range of an older program that covered all partitions at once. Parameters as for [`SHARDS`].
pub const CLOSE_WHOLE: &str = r"
UPDATE confiture.shard SET state = 'gone'
 WHERE (set_name, version, direction, run, step) = ($1, $2, $3, $4, $5) AND relation IS NULL AND state = 'open'";

/// Cuts a locked shard's upper end off. Parameters: the shard's key (see [`LOCK_SHARD`]), its new upper end (text[]).
pub const CUT_SHARD: &str = r"
UPDATE confiture.shard SET upper = $7
 WHERE (set_name, version, direction, run, step, shard) = ($1, $2, $3, $4, $5, $6) AND state = 'open'";

/// Removes evidence of steps that were done so long ago, at most [`FORGOTTEN_AT_ONCE`] rows: range by range from the
/// first batch on, so that what is left of a range has no gap at any moment. Parameter: seconds (float8).
pub const FORGET_BATCHES: &str = r"
DELETE FROM confiture.batch WHERE ctid = ANY (ARRAY(
  SELECT b.ctid FROM confiture.batch b JOIN confiture.step s USING (set_name, version, direction, run, step)
   WHERE s.ended_at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)
   ORDER BY b.set_name, b.version, b.direction, b.run, b.step, b.shard, b.sequence LIMIT 10000))";

/// Few enough for a short transaction.
pub const FORGOTTEN_AT_ONCE: u64 = 10_000;

/// How many blocks a relation has; NULL when there is no such relation. Parameter: oid.
pub const BLOCKS: &str = r"
SELECT pg_catalog.pg_relation_size($1::pg_catalog.oid::pg_catalog.regclass)
       / pg_catalog.current_setting('block_size')::pg_catalog.int8";

/// Transactions of others that write to a relation: virtual transaction, and who it is for people (text). Parameter: oid.
pub const WRITERS: &str = r"
SELECT l.virtualtransaction,
       CASE WHEN l.pid IS NULL THEN 'a prepared transaction'
            ELSE pg_catalog.format('pid %s, user %s, application %s, %s, open for %s s', l.pid, a.usename,
                   pg_catalog.quote_literal(coalesce(a.application_name, '')), coalesce(a.state, 'unknown'),
                   coalesce(pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start)::pg_catalog.int8::pg_catalog.text, 'unknown')) END
  FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted
   AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
   AND l.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
   AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()";

/// How much WAL the server has written since it was made (int8).
pub const WAL_WRITTEN: &str =
    "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::pg_catalog.int8";

/// The first version that reads a range of blocks without reading the others.
const TID_RANGE_SCAN: u32 = 140_000;

/// Whether a statement means the same however often it runs once it was read. PostgreSQL computes `'today'` and the like when
/// it reads a statement, so one that the server keeps would say yesterday after midnight. Whatever may be such a word counts.
pub fn is_read_once(statement: &str) -> bool {
    let statement = statement.to_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let says = |word: &str| {
        statement.match_indices(word).any(|(at, _)| {
            let (before, after) = (&statement[..at], &statement[at + word.len()..]);
            // A function is called each time.
            let is_call = after.trim_start().starts_with('(');
            !before.ends_with(is_part) && !after.starts_with(is_part) && !is_call
        })
    };
    !["now", "today", "tomorrow", "yesterday"].into_iter().any(says)
}

/// Which ends of the range a statement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// All rows.
    Neither,
    /// `(lower, ..`.
    Lower,
    /// `.., upper]`.
    Upper,
    /// `(lower, upper]`.
    Both,
}

impl Ends {
    /// Which ends there are.
    pub fn of(lower: bool, upper: bool) -> Self {
        match (lower, upper) {
            (false, false) => Self::Neither,
            (true, false) => Self::Lower,
            (false, true) => Self::Upper,
            (true, true) => Self::Both,
        }
    }
}

/// The statements over one relation, made once.
#[derive(Debug, Clone)]
pub struct Statements<'a> {
    batches: &'a Batches,
    part: &'a Part,
    /// Quoted in full, with `ONLY`.
    relation: String,
}

impl<'a> Statements<'a> {
    /// The statements of this loop over one of its relations.
    pub fn of(batches: &'a Batches, part: &'a Part) -> Self {
        Self {
            batches,
            part,
            relation: format!("ONLY {}", part.full_name()),
        }
    }

    /// The largest key there is, as texts; no row when the relation is empty, no statement without a key.
    pub fn largest(&self) -> Option<String> {
        let key = self.key()?;
        Some(format!(
            "SELECT {} FROM {} r ORDER BY {} LIMIT 1",
            texts(key),
            self.relation,
            order(key, Way::Backwards)
        ))
    }

    /// The end of a full batch, as texts; no row when the range holds fewer rows, no statement without a key. Parameters:
    /// the ends named (text[], lower first), then how many rows of the batch come before its end (int8).
    pub fn full(&self, ends: Ends) -> Option<String> {
        let key = self.key()?;
        let (range, next) = self.range(ends, 1);
        Some(format!(
            "SELECT {texts} FROM (SELECT {columns} FROM {relation}{filter} ORDER BY {order} OFFSET ${next} LIMIT 1) r",
            texts = texts(key),
            columns = columns(key),
            relation = self.relation,
            filter = filter(&range),
            order = order(key, Way::Forwards),
        ))
    }

    /// The change of one range, in one of the loop's passes. Parameters: the ends named (text[], lower first).
    pub fn change(&self, ends: Ends, pass: u32) -> String {
        let (mut range, _) = self.range(ends, 1);
        let unchanged = self.left_out(pass).then(|| self.not_yet());
        for condition in self.batches.condition.iter().chain(&unchanged) {
            let and = if range.is_empty() { "" } else { " AND " };
            // The line feed ends a comment that the condition may end with.
            let _ = write!(range, "{and}({condition}\n)");
        }
        let filter = filter(&range);
        let relation = self.aliased();
        match &self.batches.change {
            RowChange::Update(set) => {
                let set: Vec<String> = (set.iter())
                    .map(|assignment| format!("{} = ({}\n)", assignment.column, assignment.value))
                    .collect();
                format!("UPDATE {relation} SET {}{filter}", set.join(", "))
            }
            RowChange::Delete => format!("DELETE FROM {relation}{filter}"),
        }
    }

    /// Counts the rows of one range, those that differ, and those that remain (int8), and sums up the hashes of keys and
    /// values (text, below 2^64). Parameters: the ends named (text[], lower first).
    pub fn check(&self, ends: Ends) -> String {
        let (range, _) = self.range(ends, 1);
        let verification = self.batches.verification.as_ref();
        let count = |condition: Option<&String>| {
            condition.map_or("0::pg_catalog.int8".to_owned(), |condition| {
                format!("count(*) FILTER (WHERE {condition}\n)")
            })
        };
        let mut hashed: Vec<String> = match &self.batches.change {
            RowChange::Update(set) => set.iter().map(|a| a.column.to_string()).collect(),
            RowChange::Delete => Vec::new(),
        };
        hashed.extend(self.key().into_iter().flatten().map(|k| k.name.to_string()));
        format!(
            "SELECT count(*), {differing}, {remaining}, \
             (coalesce(pg_catalog.sum(pg_catalog.hashtextextended(ROW({hashed})::pg_catalog.text, 0)::pg_catalog.numeric \
             + 9223372036854775808), 0) % 18446744073709551616)::pg_catalog.text FROM {relation}{filter}",
            differing = count(verification.and_then(|v| v.differing.as_ref())),
            remaining = count(verification.and_then(|v| v.remaining.as_ref())),
            hashed = hashed.join(", "),
            relation = self.aliased(),
            filter = filter(&range),
        )
    }

    /// Keys that cut the relation into ranges of about as many rows, as texts, in order, by a sample of its blocks; no
    /// statement without a key. Parameters: the upper end if it is named (text[]), percent of the blocks to look at
    /// (float8), number of ranges (int8).
    pub fn sampled_cuts(&self, ends: Ends) -> Option<String> {
        let key = self.key()?;
        let (sample, next) = self.sample(key, ends);
        Some(format!(
            "SELECT {texts} FROM {sample} r WHERE {ends} ORDER BY r.\"#\"",
            texts = texts(key),
            ends = ends_a_share("r.\"#\"", "r.\"##\"", next),
        ))
    }

    /// The same by the planner's histogram, for a key of one column; no row when there is none. Whether the bounds still
    /// rise in the column's order is checked: a collation may have changed. Parameters: number of ranges (int8), schema,
    /// relation, column (text).
    pub fn histogram_cuts(&self) -> Option<String> {
        let [column] = self.key()? else {
            return None;
        };
        let way = match column.sort.direction {
            SortDirection::Ascending => "",
            SortDirection::Descending => " DESC",
        };
        Some(format!(
            "SELECT c.k::pg_catalog.text FROM (\
             SELECT b.k, b.n, count(*) OVER () AS total, pg_catalog.bool_and(b.rises) OVER () AS sound FROM (\
             SELECT u.k, u.n, coalesce(pg_catalog.lag(u.k) OVER (ORDER BY u.n) < u.k, true) AS rises FROM (\
             SELECT t.bound::{cast} AS k, t.n FROM pg_catalog.pg_stats s, \
             pg_catalog.unnest(s.histogram_bounds::pg_catalog.text::pg_catalog.text[]) WITH ORDINALITY t(bound, n) \
             WHERE (s.schemaname, s.tablename, s.attname) = ($2, $3, $4) AND NOT s.inherited) u) b) c \
             WHERE c.sound AND {ends} ORDER BY c.n{way}",
            cast = cast(column),
            // The first bound has no rows before it.
            ends = ends_a_share("(c.n - 1)", "(c.total - 1)", 1),
        ))
    }

    /// The key in the middle of what a sample finds of a range, as texts, and before them how many rows the sample found
    /// (int8); no row when that is none, no statement without a key. Parameters: the ends named (text[], lower first),
    /// percent of the blocks to look at (float8).
    pub fn middle(&self, ends: Ends) -> Option<String> {
        let key = self.key()?;
        let (sample, _) = self.sample(key, ends);
        Some(format!(
            "SELECT r.\"##\", {texts} FROM {sample} r WHERE r.\"#\" = (r.\"##\" + 1) / 2",
            texts = texts(key),
        ))
    }

    /// A range's keys in a sample of the blocks, each with its place (`#`) and their number (`##`), and the number of the next
    /// parameter. The ends named come first, then percent of the blocks to look at.
    fn sample(&self, key: &[KeyColumn], ends: Ends) -> (String, usize) {
        let (range, percent) = self.range(ends, 1);
        let sample = format!(
            "(SELECT {columns}, pg_catalog.row_number() OVER (ORDER BY {order}) AS \"#\", count(*) OVER () AS \"##\" \
             FROM {relation} TABLESAMPLE SYSTEM (${percent}){filter})",
            columns = columns(key),
            order = order(key, Way::Forwards),
            relation = self.relation,
            filter = filter(&range),
        );
        (sample, percent + 1)
    }

    fn key(&self) -> Option<&'a [KeyColumn]> {
        match &self.part.paging {
            Paging::Key(key) => Some(key),
            Paging::Blocks => None,
        }
    }

    /// The relation under the name by which the expressions may call it.
    fn aliased(&self) -> String {
        if self.part.name == self.batches.table {
            self.relation.clone()
        } else {
            format!("{} AS {}", self.relation, self.batches.table)
        }
    }

    /// Whether rows that have their new values already are left out.
    fn left_out(&self, pass: u32) -> bool {
        match self.batches.passes {
            Passes::One => false,
            Passes::UntilNone {
                unchanged_left_out_from,
            } => unchanged_left_out_from.is_some_and(|from| pass >= from),
        }
    }

    /// That some column has not its new value yet.
    fn not_yet(&self) -> String {
        match &self.batches.change {
            RowChange::Delete => "true".to_owned(),
            RowChange::Update(set) => set.iter().map(differs).collect::<Vec<_>>().join(" OR "),
        }
    }

    /// The range's condition, and the number of the next parameter.
    fn range(&self, ends: Ends, first: usize) -> (String, usize) {
        let (lower, upper) = match ends {
            Ends::Neither => (None, None),
            Ends::Lower => (Some(first), None),
            Ends::Upper => (None, Some(first)),
            Ends::Both => (Some(first), Some(first + 1)),
        };
        let next = first + usize::from(lower.is_some()) + usize::from(upper.is_some());
        let range = match &self.part.paging {
            Paging::Key(key) => {
                let after = lower.map(|parameter| beyond(key, parameter, Edge::After));
                let up_to = upper.map(|parameter| beyond(key, parameter, Edge::UpTo));
                after.into_iter().chain(up_to).collect::<Vec<_>>().join(" AND ")
            }
            Paging::Blocks => blocks(lower, upper, self.batches.server_version),
        };
        (range, next)
    }
}

/// That a column has not its new value yet. The cast is the assignment's: it rounds as the column does.
pub fn differs(assignment: &Assignment) -> String {
    let Assignment {
        column,
        value,
        data_type,
        comparison,
    } = assignment;
    match comparison {
        Comparison::Direct => format!("{column} IS DISTINCT FROM ({value}\n)::{data_type}"),
        Comparison::AsText => {
            format!("{column}::pg_catalog.text IS DISTINCT FROM (({value}\n)::{data_type})::pg_catalog.text")
        }
    }
}

/// Along the key's order or against it.
#[derive(Clone, Copy)]
enum Way {
    Forwards,
    Backwards,
}

/// Which rows a boundary leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Edge {
    /// Those after it.
    After,
    /// It, and those before it.
    UpTo,
}

/// That a place among so many, counted from 1, is the first one at or behind the end of one of equal shares, but for the last
/// share. `shares`: the parameter that tells their number.
fn ends_a_share(place: &str, of: &str, shares: usize) -> String {
    format!(
        "{place} BETWEEN 1 AND {of} - 1 \
         AND {place} * ${shares} / NULLIF({of}, 0) > ({place} - 1) * ${shares} / NULLIF({of}, 0)"
    )
}

fn columns(key: &[KeyColumn]) -> String {
    join(key, |k| k.name.to_string())
}

/// Qualified, here and in the order: a bare name would be the output column, and texts sort otherwise than keys.
fn texts(key: &[KeyColumn]) -> String {
    join(key, |k| format!("r.{}::pg_catalog.text", k.name))
}

fn order(key: &[KeyColumn], way: Way) -> String {
    match way {
        Way::Forwards => join(key, |k| format!("{}{}", k.name, k.sort.as_sql())),
        Way::Backwards => join(key, |k| format!("r.{}{}", k.name, k.sort.reversed().as_sql())),
    }
}

fn join(key: &[KeyColumn], text: impl Fn(&KeyColumn) -> String) -> String {
    key.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn filter(range: &str) -> String {
    if range.is_empty() {
        String::new()
    } else {
        format!(" WHERE {range}")
    }
}

fn cast(column: &KeyColumn) -> String {
    match &column.collation {
        Some(collation) => format!("{} COLLATE {collation}", column.data_type),
        None => column.data_type.clone(),
    }
}

/// One column of a boundary.
fn bound(key: &[KeyColumn], place: usize, parameter: usize) -> String {
    format!(
        "(${parameter}::pg_catalog.text[])[{}]::{}",
        place + 1,
        key[place].data_type
    )
}

/// Rows on one side of a boundary. An index of one direction takes a row comparison; one of mixed directions takes the
/// first column's bound, and the others filter among rows equal in it.
fn beyond(key: &[KeyColumn], parameter: usize, edge: Edge) -> String {
    let first = key[0].sort.direction;
    if key.iter().all(|column| column.sort.direction == first) {
        let operator = match (edge, first) {
            (Edge::After, SortDirection::Ascending) => ">",
            (Edge::After, SortDirection::Descending) => "<",
            (Edge::UpTo, SortDirection::Ascending) => "<=",
            (Edge::UpTo, SortDirection::Descending) => ">=",
        };
        let bounds: Vec<String> = (0..key.len()).map(|place| bound(key, place, parameter)).collect();
        return format!("({}) {operator} ({})", columns(key), bounds.join(", "));
    }
    let mut text = String::new();
    for place in (0..key.len()).rev() {
        let (name, value) = (&key[place].name, bound(key, place, parameter));
        let strict = match (edge, key[place].sort.direction) {
            (Edge::After, SortDirection::Ascending) | (Edge::UpTo, SortDirection::Descending) => ">",
            (Edge::After, SortDirection::Descending) | (Edge::UpTo, SortDirection::Ascending) => "<",
        };
        text = if text.is_empty() {
            let equal = if edge == Edge::UpTo { "=" } else { "" };
            format!("{name} {strict}{equal} {value}")
        } else {
            format!("({name} {strict}= {value} AND ({name} {strict} {value} OR ({text})))")
        };
    }
    text
}

/// Rows of a range of blocks. Before PostgreSQL 14 only single row addresses are read without the whole relation, so each
/// that a block can have is named.
fn blocks(lower: Option<usize>, upper: Option<usize>, server_version: u32) -> String {
    let number = |parameter: usize| format!("(${parameter}::pg_catalog.text[])[1]");
    match (lower, upper) {
        (None, Some(upper)) if server_version < TID_RANGE_SCAN => addresses("0", &number(upper)),
        (Some(lower), Some(upper)) if server_version < TID_RANGE_SCAN => {
            addresses(&number(lower), &number(upper))
        }
        (lower, upper) => {
            let edge = |operator: &str, parameter: usize| {
                format!(
                    "ctid {operator} ('(' || {} || ',0)')::pg_catalog.tid",
                    number(parameter)
                )
            };
            let lower = lower.map(|parameter| edge(">=", parameter));
            let upper = upper.map(|parameter| edge("<", parameter));
            lower.into_iter().chain(upper).collect::<Vec<_>>().join(" AND ")
        }
    }
}

/// A line pointer takes 4 bytes and its tuple at least 24.
fn addresses(lower: &str, upper: &str) -> String {
    format!(
        "ctid = ANY (ARRAY(SELECT ('(' || b || ',' || o || ')')::pg_catalog.tid \
         FROM pg_catalog.generate_series({lower}::pg_catalog.int8, {upper}::pg_catalog.int8 - 1) b, \
         pg_catalog.generate_series(1, pg_catalog.current_setting('block_size')::pg_catalog.int4 / 28) o))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Ident;
    use crate::plan::{Kept, Nulls, Pacing, Sort, Upper};

    const DESCENDING: Sort = Sort {
        direction: SortDirection::Descending,
        nulls: Nulls::First,
    };

    fn ident(name: &str) -> Ident {
        Ident::exact(name).unwrap()
    }

    fn key(name: &str, data_type: &str, sort: Sort) -> KeyColumn {
        KeyColumn {
            name: ident(name),
            data_type: data_type.to_owned(),
            collation: None,
            sort,
        }
    }

    fn batches(paging: Paging) -> Batches {
        Batches {
            schema: ident("app"),
            table: ident("Order"),
            parts: vec![Part {
                oid: 1,
                schema: ident("app"),
                name: ident("Order"),
                paging,
                estimated_rows: 0,
                blocks: 0,
            }],
            change: RowChange::Update(vec![Assignment {
                column: ident("n"),
                value: "n + 1".to_owned(),
                data_type: "integer".to_owned(),
                comparison: Comparison::Direct,
            }]),
            condition: Some("n < 5".to_owned()),
            upper: Upper::Open,
            passes: Passes::One,
            kept: Kept::ByApplications,
            verification: None,
            pacing: Pacing::default(),
            server_version: 150_000,
        }
    }

    fn composite(first: Sort, second: Sort) -> Batches {
        batches(Paging::Key(vec![
            key("a", "bigint", first),
            key("b", "text", second),
        ]))
    }

    fn with<T>(batches: &Batches, look: impl FnOnce(&Statements<'_>) -> T) -> T {
        look(&Statements::of(batches, &batches.parts[0]))
    }

    #[test]
    fn a_composite_key_is_compared_as_a_row_and_bounds_are_cast_by_the_server() {
        let batches = composite(Sort::ASCENDING, Sort::ASCENDING);
        assert_eq!(
            with(&batches, |s| s.change(Ends::Both, 1)),
            "UPDATE ONLY \"app\".\"Order\" SET \"n\" = (n + 1\n) WHERE (\"a\", \"b\") > (($1::pg_catalog.text[])[1]::bigint, \
             ($1::pg_catalog.text[])[2]::text) AND (\"a\", \"b\") <= (($2::pg_catalog.text[])[1]::bigint, \
             ($2::pg_catalog.text[])[2]::text) AND (n < 5\n)"
        );
        assert_eq!(
            with(&batches, |s| s.full(Ends::Neither)).unwrap(),
            "SELECT r.\"a\"::pg_catalog.text, r.\"b\"::pg_catalog.text FROM (SELECT \"a\", \"b\" FROM ONLY \"app\".\"Order\" \
             ORDER BY \"a\", \"b\" OFFSET $1 LIMIT 1) r"
        );
    }

    #[test]
    fn a_descending_key_is_paged_downwards() {
        let batches = composite(DESCENDING, DESCENDING);
        let full = with(&batches, |s| s.full(Ends::Lower)).unwrap();
        assert!(full.contains("(\"a\", \"b\") < ("), "{full}");
        assert!(full.contains("ORDER BY \"a\" DESC, \"b\" DESC"), "{full}");
    }

    #[test]
    fn a_key_of_mixed_directions_is_compared_column_by_column() {
        let batches = composite(DESCENDING, Sort::ASCENDING);
        let change = with(&batches, |s| s.change(Ends::Both, 1));
        let [a, b] = [1, 2].map(|parameter| {
            [1, 2].map(|place| {
                let data_type = if place == 1 { "bigint" } else { "text" };
                format!("(${parameter}::pg_catalog.text[])[{place}]::{data_type}")
            })
        });
        let lower = format!("(\"a\" <= {} AND (\"a\" < {} OR (\"b\" > {})))", a[0], a[0], a[1]);
        let upper = format!(
            "(\"a\" >= {} AND (\"a\" > {} OR (\"b\" <= {})))",
            b[0], b[0], b[1]
        );
        assert!(
            change.contains(&format!("WHERE {lower} AND {upper} AND")),
            "{change}"
        );
    }

    #[test]
    fn a_range_without_ends_and_condition_has_no_filter() {
        let mut batches = composite(Sort::ASCENDING, Sort::ASCENDING);
        batches.condition = None;
        assert!(!with(&batches, |s| s.change(Ends::Neither, 1)).contains("WHERE"));
    }

    #[test]
    fn rows_are_deleted_by_the_same_ranges() {
        let mut batches = composite(Sort::ASCENDING, Sort::ASCENDING);
        batches.change = RowChange::Delete;
        let change = with(&batches, |s| s.change(Ends::Upper, 1));
        assert!(
            change.starts_with("DELETE FROM ONLY \"app\".\"Order\" WHERE (\"a\", \"b\") <= ("),
            "{change}"
        );
        assert!(change.ends_with(" AND (n < 5\n)"), "{change}");
    }

    #[test]
    fn blocks_are_read_as_a_range_where_the_server_can_and_by_address_before() {
        let mut batches = batches(Paging::Blocks);
        let range = with(&batches, |s| s.change(Ends::Both, 1));
        assert!(
            range.contains("ctid >= ('(' || ($1::pg_catalog.text[])[1] || ',0)')"),
            "{range}"
        );
        batches.server_version = 130_000;
        let addresses = with(&batches, |s| s.change(Ends::Upper, 1));
        assert!(addresses.contains("ctid = ANY (ARRAY("), "{addresses}");
    }

    #[test]
    fn later_passes_leave_out_rows_that_have_their_values() {
        let mut batches = composite(Sort::ASCENDING, Sort::ASCENDING);
        batches.passes = Passes::UntilNone {
            unchanged_left_out_from: Some(2),
        };
        let guard = " AND (\"n\" IS DISTINCT FROM (n + 1\n)::integer\n)";
        assert!(!with(&batches, |s| s.change(Ends::Both, 1)).contains(guard));
        assert!(with(&batches, |s| s.change(Ends::Both, 2)).ends_with(guard));
    }

    #[test]
    fn a_partition_answers_to_the_name_of_its_table() {
        let mut batches = composite(Sort::ASCENDING, Sort::ASCENDING);
        batches.parts[0].name = ident("order_2024");
        let change = with(&batches, |s| s.change(Ends::Both, 1));
        assert!(
            change.starts_with("UPDATE ONLY \"app\".\"order_2024\" AS \"Order\" SET "),
            "{change}"
        );
    }

    #[test]
    fn words_for_a_moment_are_read_anew() {
        for once in [
            "UPDATE t SET a = now()",
            "UPDATE t SET a = pg_catalog.NOW ( )",
            "UPDATE t SET known = 'snow', today_at = x",
        ] {
            assert!(is_read_once(once), "{once}");
        }
        for anew in [
            "UPDATE t SET a = 'now'",
            "UPDATE t SET a = date ' Today 04:00'",
            "DELETE FROM t WHERE a < $$yesterday$$::date",
            "UPDATE t SET a = E'tomorrow'",
        ] {
            assert!(!is_read_once(anew), "{anew}");
        }
    }
}
