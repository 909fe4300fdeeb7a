//! The statements of one batch loop. Boundaries travel as text arrays and are cast by the server, so that types and
//! collations need no code of ours. Open and closed ends of a range get texts of their own: `$1 IS NULL OR ..` would lose the index.

use crate::plan::{Batches, KeyColumn, RowChange};
use std::fmt::Write as _;

/// Locks the shard's row: fence, checkpoint and serialisation in one row lock. Parameters: set, version key, direction
/// (text), run, step, shard (int4). Gives state (text), epoch, token, local (int8), cursor or lower end (text[]), upper
/// end (text[]), sequence, rows (int8).
pub const LOCK_SHARD: &str = r"
SELECT state, epoch, token, local, coalesce(cursor, lower), upper, sequence, rows FROM confiture.shard
 WHERE (set_name, version, direction, run, step, shard) = ($1, $2, $3, $4, $5, $6) FOR NO KEY UPDATE";

/// Moves the cursor. Parameters: the shard's key as above, sequence as read (int8), new cursor (text[]), rows changed
/// (int8), new state (text). Exactly one row.
pub const MOVE_CURSOR: &str = r"
UPDATE confiture.shard SET cursor = $8, sequence = sequence + 1, rows = rows + $9, state = $10
 WHERE (set_name, version, direction, run, step, shard) = ($1, $2, $3, $4, $5, $6) AND sequence = $7";

/// Inserts a shard over the whole range. Parameters: the shard's key as above, epoch, token, local (int8), upper end
/// (text[]), state (text).
pub const INSERT_SHARD: &str = r"
INSERT INTO confiture.shard (set_name, version, direction, run, step, shard, epoch, token, local, upper, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

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

/// The batch loop's statements, made once.
#[derive(Debug, Clone, PartialEq)]
pub struct Statements<'a> {
    batches: &'a Batches,
    table: String,
    columns: String,
    texts: String,
}

impl<'a> Statements<'a> {
    /// The statements of this loop.
    pub fn of(batches: &'a Batches) -> Self {
        let names = |f: fn(&KeyColumn) -> String| batches.key.iter().map(f).collect::<Vec<_>>().join(", ");
        Self {
            batches,
            table: format!("{}.{}", batches.schema, batches.table),
            columns: names(|k| k.name.to_string()),
            // Qualified, here and in the order: a bare name would be the output column, and texts sort otherwise than keys.
            texts: names(|k| format!("r.{}::pg_catalog.text", k.name)),
        }
    }

    /// The largest key there is, as texts; no row when the table is empty.
    pub fn largest(&self) -> String {
        format!(
            "SELECT {} FROM {} r ORDER BY {} LIMIT 1",
            self.texts,
            self.table,
            self.descending()
        )
    }

    /// The end of a full batch, as texts; no row when the range holds fewer rows. Parameters: the ends named (text[], lower
    /// first), then how many rows of the batch come before its end (int8).
    pub fn full(&self, ends: Ends) -> String {
        let (filter, next) = self.filter(ends);
        format!(
            "SELECT {texts} FROM (SELECT {columns} FROM {table}{filter} ORDER BY {columns} OFFSET ${next} LIMIT 1) r",
            texts = self.texts,
            columns = self.columns,
            table = self.table,
        )
    }

    /// The end of the range's last batch, as texts; no row when the range holds none. Parameters: the ends named (text[],
    /// lower first).
    pub fn rest(&self, ends: Ends) -> String {
        let (filter, _) = self.filter(ends);
        format!(
            "SELECT {texts} FROM (SELECT {columns} FROM {table}{filter}) r ORDER BY {descending} LIMIT 1",
            texts = self.texts,
            columns = self.columns,
            table = self.table,
            descending = self.descending(),
        )
    }

    /// The change of one range. Parameters: the ends named (text[], lower first).
    pub fn change(&self, ends: Ends) -> String {
        let (mut filter, _) = self.range(ends, 1);
        if let Some(condition) = &self.batches.condition {
            let and = if filter.is_empty() { "" } else { " AND " };
            // The line feed ends a comment that the condition may end with.
            let _ = write!(filter, "{and}({condition}\n)");
        }
        let filter = if filter.is_empty() {
            filter
        } else {
            format!(" WHERE {filter}")
        };
        match &self.batches.change {
            RowChange::Update(set) => {
                let set: Vec<String> = (set.iter())
                    .map(|(column, value)| format!("{column} = ({value}\n)"))
                    .collect();
                format!("UPDATE {} SET {}{filter}", self.table, set.join(", "))
            }
            RowChange::Delete => format!("DELETE FROM {}{filter}", self.table),
        }
    }

    fn descending(&self) -> String {
        self.batches
            .key
            .iter()
            .map(|k| format!("r.{} DESC", k.name))
            .collect::<Vec<_>>()
            .join(", ")
    }

    /// The range as a WHERE clause, and the number of the next parameter.
    fn filter(&self, ends: Ends) -> (String, usize) {
        let (range, next) = self.range(ends, 1);
        if range.is_empty() {
            (range, next)
        } else {
            (format!(" WHERE {range}"), next)
        }
    }

    /// The range's condition, and the number of the next parameter.
    fn range(&self, ends: Ends, first: usize) -> (String, usize) {
        let bound = |operator: &str, parameter: usize| {
            let values: Vec<String> = (self.batches.key.iter().enumerate())
                .map(|(i, k)| format!("(${parameter}::pg_catalog.text[])[{}]::{}", i + 1, k.data_type))
                .collect();
            format!("({}) {operator} ({})", self.columns, values.join(", "))
        };
        match ends {
            Ends::Neither => (String::new(), first),
            Ends::Lower => (bound(">", first), first + 1),
            Ends::Upper => (bound("<=", first), first + 1),
            Ends::Both => (
                format!("{} AND {}", bound(">", first), bound("<=", first + 1)),
                first + 2,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Ident;
    use crate::plan::Upper;
    use std::time::Duration;

    fn batches() -> Batches {
        let ident = |name: &str| Ident::exact(name).unwrap();
        let key = |name: &str, data_type: &str| KeyColumn {
            name: ident(name),
            data_type: data_type.to_owned(),
        };
        Batches {
            schema: ident("app"),
            table: ident("Order"),
            key: vec![key("a", "bigint"), key("b", "text")],
            change: RowChange::Update(vec![(ident("n"), "n + 1".to_owned())]),
            condition: Some("n < 5".to_owned()),
            upper: Upper::Open,
            first_rows: None,
            pause: Duration::ZERO,
            estimated_rows: 0,
        }
    }

    #[test]
    fn a_composite_key_is_compared_as_a_row_and_bounds_are_cast_by_the_server() {
        let batches = batches();
        let statements = Statements::of(&batches);
        assert_eq!(
            statements.change(Ends::Both),
            "UPDATE \"app\".\"Order\" SET \"n\" = (n + 1\n) WHERE (\"a\", \"b\") > (($1::pg_catalog.text[])[1]::bigint, \
             ($1::pg_catalog.text[])[2]::text) AND (\"a\", \"b\") <= (($2::pg_catalog.text[])[1]::bigint, \
             ($2::pg_catalog.text[])[2]::text) AND (n < 5\n)"
        );
        assert_eq!(
            statements.full(Ends::Neither),
            "SELECT r.\"a\"::pg_catalog.text, r.\"b\"::pg_catalog.text FROM (SELECT \"a\", \"b\" FROM \"app\".\"Order\" \
             ORDER BY \"a\", \"b\" OFFSET $1 LIMIT 1) r"
        );
        assert_eq!(
            statements.rest(Ends::Upper),
            "SELECT r.\"a\"::pg_catalog.text, r.\"b\"::pg_catalog.text FROM (SELECT \"a\", \"b\" FROM \"app\".\"Order\" \
             WHERE (\"a\", \"b\") <= (($1::pg_catalog.text[])[1]::bigint, ($1::pg_catalog.text[])[2]::text)) r \
             ORDER BY r.\"a\" DESC, r.\"b\" DESC LIMIT 1"
        );
    }

    #[test]
    fn a_range_without_ends_and_condition_has_no_filter() {
        let mut batches = batches();
        batches.condition = None;
        assert!(!Statements::of(&batches).change(Ends::Neither).contains("WHERE"));
    }

    #[test]
    fn rows_are_deleted_by_the_same_ranges() {
        let mut batches = batches();
        batches.change = RowChange::Delete;
        let change = Statements::of(&batches).change(Ends::Upper);
        assert!(
            change.starts_with("DELETE FROM \"app\".\"Order\" WHERE (\"a\", \"b\") <= ("),
            "{change}"
        );
        assert!(change.ends_with(" AND (n < 5\n)"), "{change}");
    }
}
