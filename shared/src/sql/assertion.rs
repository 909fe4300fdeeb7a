//! The query of an assertion, asked so that its answer has types that every client knows: to learn of another one the
//! client would prepare statements, which stay behind in a pooler's session.

/// What stands before the query.
pub const LEAD: &str = "SELECT confiture_fields.number, confiture_fields.value FROM (\n";

/// One row for each of the query's: the number of its columns (int8), and the value of the only one as JSON (text).
///
/// The query is one SELECT, and the line feed ends a comment that it may end with.
pub fn assertion(query: &str) -> String {
    format!(
        "{LEAD}{query}\n) confiture_row CROSS JOIN LATERAL (
  SELECT pg_catalog.count(*) AS number, pg_catalog.min(f.value::pg_catalog.text) AS value
    FROM pg_catalog.json_each(pg_catalog.to_json(confiture_row)) f) confiture_fields"
    )
}
