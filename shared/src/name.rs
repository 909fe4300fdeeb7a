//! Identifiers and table names as users write them, by SQL's rules.
//!
//! A simple identifier without quotes folds to lower case, double quotes keep it exact, and a name that is no simple
//! identifier (`Total Qty`) is exact as it stands.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An identifier exactly as the catalog holds it. `Display` quotes it for SQL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ident(String);

/// A name that PostgreSQL could not hold, or that is not written as a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing there.
    #[error("the name is empty")]
    Empty,
    /// A NUL byte.
    #[error("the name contains a NUL byte")]
    Nul,
    /// More than PostgreSQL's 63 bytes; the server would cut it off silently.
    #[error("the name `{0}` is longer than 63 bytes, and PostgreSQL would cut it off")]
    TooLong(String),
    /// A double quote that is never closed, or text after a closing one.
    #[error("the double quotes in `{0}` do not match")]
    Quotes(String),
    /// More than `schema.table`.
    #[error("`{0}` has too many parts: write `table` or `schema.table`")]
    Parts(String),
}

impl Ident {
    /// Reads a name as a user writes it.
    ///
    /// # Errors
    /// When it is empty, too long, holds a NUL byte or has unmatched quotes.
    pub fn parse(written: &str) -> Result<Self, Error> {
        if written.contains('\0') {
            return Err(Error::Nul);
        }
        let exact = if let Some(rest) = written.strip_prefix('"') {
            let inner = rest
                .strip_suffix('"')
                .ok_or_else(|| Error::Quotes(written.to_owned()))?;
            let unescaped = inner.replace("\"\"", "\u{0}");
            if unescaped.contains('"') {
                return Err(Error::Quotes(written.to_owned()));
            }
            unescaped.replace('\u{0}', "\"")
        } else if is_simple(written) {
            written.to_ascii_lowercase()
        } else {
            written.to_owned()
        };
        Self::exact(exact)
    }

    /// A name exactly as the catalog holds it.
    ///
    /// # Errors
    /// When PostgreSQL could not hold it.
    pub fn exact(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        match name {
            name if name.is_empty() => Err(Error::Empty),
            name if name.contains('\0') => Err(Error::Nul),
            name if name.len() > 63 => Err(Error::TooLong(name)),
            name => Ok(Self(name)),
        }
    }

    /// The name as the catalog holds it, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[A-Za-z_][A-Za-z0-9_$]*`: what SQL folds.
fn is_simple(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$'))
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl TryFrom<String> for Ident {
    type Error = Error;
    fn try_from(written: String) -> Result<Self, Error> {
        Self::parse(&written)
    }
}

impl From<Ident> for String {
    fn from(ident: Ident) -> Self {
        ident.to_string()
    }
}

/// A table as users write it: `table` or `schema.table`. `Display` quotes it for SQL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Table {
    /// The schema, when one was written; otherwise the connection's `search_path` finds the table.
    pub schema: Option<Ident>,
    /// The table's own name.
    pub name: Ident,
}

impl Table {
    /// Reads `table` or `schema.table`.
    ///
    /// # Errors
    /// When a part is not a name or there are more than two.
    pub fn parse(written: &str) -> Result<Self, Error> {
        let parts = split_parts(written)?;
        match parts.as_slice() {
            [name] => Ok(Self {
                schema: None,
                name: Ident::parse(name)?,
            }),
            [schema, name] => Ok(Self {
                schema: Some(Ident::parse(schema)?),
                name: Ident::parse(name)?,
            }),
            _ => Err(Error::Parts(written.to_owned())),
        }
    }
}

/// Splits at dots that stand outside double quotes.
fn split_parts(written: &str) -> Result<Vec<&str>, Error> {
    let mut parts = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, c) in written.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => {
                parts.push(&written[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if quoted {
        return Err(Error::Quotes(written.to_owned()));
    }
    parts.push(&written[start..]);
    Ok(parts)
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => self.name.fmt(f),
        }
    }
}

impl TryFrom<String> for Table {
    type Error = Error;
    fn try_from(written: String) -> Result<Self, Error> {
        Self::parse(&written)
    }
}

impl From<Table> for String {
    fn from(table: Table) -> Self {
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ident(written: &str) -> String {
        Ident::parse(written).unwrap().as_str().to_owned()
    }

    #[test]
    fn names_fold_as_in_sql() {
        assert_eq!(ident("Orders"), "orders");
        assert_eq!(ident("\"Orders\""), "Orders");
        assert_eq!(ident("Total Qty"), "Total Qty");
        assert_eq!(ident("\"a\"\"b\""), "a\"b");
        assert_eq!(ident("Größe"), "Größe");
    }

    #[test]
    fn a_name_the_server_would_cut_off_is_refused() {
        assert!(Ident::parse(&"x".repeat(63)).is_ok());
        assert_eq!(Ident::parse(&"x".repeat(64)), Err(Error::TooLong("x".repeat(64))));
    }

    #[test]
    fn a_table_has_one_or_two_parts_and_quotes_protect_dots() {
        assert_eq!(
            Table::parse("Sales.Orders").unwrap().to_string(),
            "\"sales\".\"orders\""
        );
        assert_eq!(Table::parse("\"a.b\"").unwrap().to_string(), "\"a.b\"");
        assert_eq!(Table::parse("a.b.c"), Err(Error::Parts("a.b.c".to_owned())));
        assert_eq!(Table::parse("\"a"), Err(Error::Quotes("\"a".to_owned())));
        assert_eq!(Table::parse("a."), Err(Error::Empty));
    }
}
