//! SQL expressions, queries and types inside YAML: checked by the parser, kept as written.
//!
//! They go into our own statements as `(TEXT` line feed `)`, a type without brackets. So each must be exactly one of
//! its kind in every reading that PostgreSQL's settings allow: nothing in it may close the bracket, end the statement,
//! or open a quote or comment that swallows what follows. Tokens and tree are both checked (`check.rs`).

mod check;
mod names;

use crate::name::{Ident, Table};
use crate::yaml::SCALAR;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;
use std::fmt;

pub use check::{Error, is_type};

/// One SQL expression over the columns of a row, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    columns: BTreeSet<Ident>,
    relations: BTreeSet<Table>,
    hides_columns: bool,
    functions: BTreeSet<String>,
    constant: bool,
    subquery: bool,
}

/// One SELECT, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    text: String,
}

impl Expression {
    /// Reads exactly one expression.
    ///
    /// # Errors
    /// What else it is, or why it is refused.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check::expression(text)
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same with another name for a column.
    ///
    /// # Errors
    /// None that is known: what can be read once can be read again.
    pub fn with_column(&self, from: &Ident, to: &Ident) -> Result<Self, Error> {
        check::renamed(&self.text, from, to)
    }

    /// The names it may read as columns of the row; the name of the table itself stands for the whole row.
    ///
    /// With a sub-select ([`Expression::has_subquery`]) those of other tables are among them.
    pub fn columns(&self) -> impl Iterator<Item = &Ident> {
        self.columns.iter()
    }

    /// Whether it reads this column.
    pub fn reads(&self, column: &Ident) -> bool {
        self.columns.contains(column)
    }

    /// The relations that its sub-selects read, and the names that a `WITH` gives.
    pub fn relations(&self) -> impl Iterator<Item = &Table> {
        self.relations.iter()
    }

    /// Whether its sub-selects may read columns that [`Expression::columns`] does not name: by `*`, as a whole row, or
    /// under other names.
    pub fn hides_columns(&self) -> bool {
        self.hides_columns
    }

    /// The functions it calls, without their schemas. `current_timestamp` and the like count as `now`.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(String::as_str)
    }

    /// Whether its value depends on when it is computed, given the functions PostgreSQL calls volatile: it would differ the
    /// next time.
    pub fn changes_by_itself(&self, volatile: &BTreeSet<String>) -> bool {
        /// Stable within a transaction only.
        const CLOCKS: &[&str] = &["now", "transaction_timestamp", "statement_timestamp"];
        self.volatile_call(volatile).is_some() || self.functions().any(|function| CLOCKS.contains(&function))
    }

    /// A function it calls that PostgreSQL calls volatile, given those: its value may differ from row to row.
    pub fn volatile_call(&self, volatile: &BTreeSet<String>) -> Option<&str> {
        self.functions().find(|function| volatile.contains(*function))
    }

    /// Whether it has the same value for every row and at any time: a literal, a signed number, an array or cast of
    /// those.
    pub fn is_constant(&self) -> bool {
        self.constant
    }

    /// Whether it holds a sub-select, so that its names may belong to other tables.
    pub fn has_subquery(&self) -> bool {
        self.subquery
    }
}

impl Query {
    /// Reads exactly one query that changes and locks nothing.
    ///
    /// # Errors
    /// What else it is, or why it is refused.
    pub fn parse(text: &str) -> Result<Self, Error> {
        check::query(text)
    }

    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As written: the literal `1.10` must not become the number 1.1.
        deserializer.deserialize_newtype_struct(SCALAR, Scalar)
    }
}

/// Takes any scalar as SQL.
struct Scalar;

impl<'de> Visitor<'de> for Scalar {
    type Value = Expression;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SQL expression")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Expression, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Expression, E> {
        Expression::parse(text).map_err(E::custom)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Expression, E> {
        self.visit_str(if value { "TRUE" } else { "FALSE" })
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Expression, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Expression, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Expression, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Expression, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Expression, E> {
        if value.is_finite() {
            self.visit_str(&value.to_string())
        } else {
            Err(E::invalid_value(Unexpected::Float(value), &self))
        }
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Expression, E> {
        self.visit_str("NULL")
    }
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod scanner;
#[cfg(test)]
mod tests;
