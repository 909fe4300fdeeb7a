//! What needs one column of a table, and what belongs to it: as [`crate::sql::uses::COLUMNS`] gives it.

use super::Nulls;
use crate::index::{Definition, Element, Key, Order, Parameter};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::sql;
use serde::Deserialize;

/// What needs one column of a table, and what belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct ColumnUses {
    /// Its default; not that of an identity.
    pub default: Option<String>,
    /// Whether it is an identity.
    pub identity: Option<sql::Identity>,
    /// The sequence that belongs to it.
    pub sequence: Option<SequenceUse>,
    /// What COMMENT ON said.
    pub comment: Option<String>,
    /// What SET STATISTICS said.
    pub statistics: Option<i32>,
    /// Indexes over it, those of constraints too.
    pub indexes: Vec<IndexUse>,
    /// Check constraints that read it.
    pub checks: Vec<CheckUse>,
    /// Foreign keys that it is part of, on either side.
    pub foreign_keys: Vec<ForeignKeyUse>,
    /// Everything else, for people: `view public.v`.
    pub others: Vec<String>,
}

/// The sequence of a column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SequenceUse {
    /// Quoted in full.
    pub name: String,
    /// Its type.
    pub data_type: String,
    /// Its options, as ALTER SEQUENCE writes them, without the bounds that its type gives it.
    pub options: String,
}

/// An index over a column.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct IndexUse {
    /// Its name; its schema is the table's.
    pub name: Ident,
    /// Whether equal keys are refused.
    pub unique: bool,
    /// Whether queries use it.
    pub valid: bool,
    /// The access method.
    pub method: Ident,
    /// What it is sorted by.
    pub elements: Vec<ElementUse>,
    /// Columns that are only carried along.
    pub include: Vec<Ident>,
    /// Storage parameters, each `name=value`.
    pub with: Vec<String>,
    /// Where it is kept, if not where the database is.
    pub tablespace: Option<Ident>,
    /// Which rows it holds.
    pub condition: Option<String>,
    /// The constraint it belongs to.
    pub constraint: Option<ConstraintUse>,
    /// What else it is for the table.
    pub roles: Vec<IndexRole>,
    /// What cannot be said of a new index.
    pub unusual: Option<String>,
}

/// One key of an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ElementUse {
    /// Of a column.
    pub column: Option<Ident>,
    /// Of an expression.
    pub expression: Option<String>,
    /// Whether it goes downwards.
    pub descending: bool,
    /// Whether NULLs come first.
    pub nulls_first: bool,
    /// Its collation, where it is not the column's.
    pub collation: Option<Table>,
    /// Its operator class, where it is not that of its type.
    pub opclass: Option<Table>,
}

/// A constraint that has an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConstraintUse {
    /// `PRIMARY KEY` or `UNIQUE`.
    pub kind: String,
    /// When it is checked, as SQL writes it: empty, or beginning with a space.
    pub deferrable: String,
}

/// What an index is for its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexRole {
    /// CLUSTER sorts by it.
    Clustered,
    /// Logical replication tells rows apart by it.
    ReplicaIdentity,
}

/// A check constraint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CheckUse {
    /// Its name.
    pub name: Ident,
    /// What must not be false.
    pub expression: String,
    /// Whether it is known to hold for all rows.
    pub validated: bool,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ForeignKeyUse {
    /// Its name.
    pub name: Ident,
    /// The table whose rows reference, quoted in full.
    pub relation: String,
    /// The columns that reference.
    pub columns: Vec<Ident>,
    /// The table they reference, quoted in full.
    pub references: String,
    /// The columns they reference, one for each.
    pub referenced: Vec<Ident>,
    /// What follows in its definition: empty, or beginning with a space.
    pub options: String,
    /// Whether it is known to hold for all rows.
    pub validated: bool,
}

impl ColumnUses {
    /// Whether PostgreSQL keeps all that is over the column when its type comes to take more: constraints it would check
    /// again, indexes of expressions and of some of the rows build again.
    pub fn can_stay(&self) -> bool {
        let plain = |index: &IndexUse| {
            index.condition.is_none() && index.elements.iter().all(|element| element.expression.is_none())
        };
        self.checks.is_empty() && self.foreign_keys.is_empty() && self.indexes.iter().all(plain)
    }
}

impl IndexUse {
    /// The same over another column instead of one.
    ///
    /// # Errors
    /// Why there cannot be such an index, for people.
    pub fn over(&self, from: &Ident, to: &Ident) -> Result<Definition, String> {
        let renamed = |name: &Ident| if name == from { to } else { name }.clone();
        let expression = |text: &str| {
            Expression::parse(text)
                .and_then(|expression| expression.with_column(from, to))
                .map_err(|_| format!("`{text}` of index {} cannot be read", self.name))
        };
        if !self.valid {
            return Err(format!(
                "index {} is not valid: `confiture index repair` builds it again",
                self.name
            ));
        }
        if let Some(unusual) = &self.unusual {
            return Err(format!("index {} {unusual}", self.name));
        }
        let elements = self.elements.iter().map(|element| {
            let key = match (&element.column, &element.expression) {
                (Some(column), _) => Key::Column(renamed(column)),
                (None, Some(text)) => Key::Expression(expression(text)?),
                (None, None) => return Err(format!("index {} has a key of nothing", self.name)),
            };
            if element.opclass.is_some() && element.column.as_ref() == Some(from) {
                return Err(format!(
                    "index {} has an operator class for the type that the column has now",
                    self.name
                ));
            }
            Ok(Element {
                key,
                order: element.descending.then_some(Order::Desc),
                nulls: match (element.descending, element.nulls_first) {
                    (false, true) => Some(Nulls::First),
                    (true, false) => Some(Nulls::Last),
                    (false, false) | (true, true) => None,
                },
                collation: element.collation.clone(),
                opclass: element.opclass.clone(),
            })
        });
        let with = self.with.iter().map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let name = Ident::exact(name).map_err(|error| error.to_string())?;
            Ok((name, Parameter::new(value)))
        });
        Ok(Definition {
            unique: self.unique,
            method: Some(self.method.clone()),
            elements: elements.collect::<Result<_, String>>()?,
            include: self.include.iter().map(renamed).collect(),
            with: with.collect::<Result<_, String>>()?,
            tablespace: self.tablespace.clone(),
            condition: self.condition.as_deref().map(expression).transpose()?,
            written: None,
        })
    }
}

impl CheckUse {
    /// The same for another column instead of one.
    ///
    /// # Errors
    /// Why there cannot be such a check, for people.
    pub fn over(&self, from: &Ident, to: &Ident) -> Result<Expression, String> {
        Expression::parse(&self.expression)
            .and_then(|expression| expression.with_column(from, to))
            .map_err(|_| format!("check {} cannot be read", self.name))
    }
}

impl ForeignKeyUse {
    /// What follows its name in its definition, with another column instead of one of a table (quoted in full).
    pub fn over(&self, table: &str, from: &Ident, to: &Ident) -> String {
        let list = |columns: &[Ident], of: &str| {
            let renamed = |name: &Ident| if of == table && name == from { to } else { name }.clone();
            sql::list(&columns.iter().map(renamed).collect::<Vec<_>>())
        };
        format!(
            "FOREIGN KEY ({}) REFERENCES {} ({}){}",
            list(&self.columns, &self.relation),
            self.references,
            list(&self.referenced, &self.references),
            self.options
        )
    }
}
