//! The statements that add, validate and drop constraints, and the queries that find the rows which violate them.

use crate::name::Ident;
use crate::plan::TableFacts;
use serde::Deserialize;

/// A foreign key as its statements need it.
#[derive(Debug, Clone, Copy)]
pub struct ForeignKey<'a> {
    /// Its name.
    pub name: &'a Ident,
    /// The columns that reference.
    pub columns: &'a [Ident],
    /// The table they reference.
    pub references: &'a TableFacts,
    /// The columns they reference, one for each.
    pub referenced: &'a [Ident],
    /// What happens when a referenced row is deleted.
    pub on_delete: Option<ReferentialAction>,
    /// What happens when a referenced key is changed.
    pub on_update: Option<ReferentialAction>,
    /// When it is checked; after each statement where nothing is said.
    pub deferrable: Option<Deferrable>,
}

/// `no_action | restrict | cascade | set_null | set_default`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferentialAction {
    /// It is refused, when the constraint is checked.
    NoAction,
    /// It is refused at once.
    Restrict,
    /// The referencing rows follow.
    Cascade,
    /// The referencing columns become NULL.
    SetNull,
    /// The referencing columns become their defaults.
    SetDefault,
}

impl ReferentialAction {
    /// As SQL writes it.
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::NoAction => "NO ACTION",
            Self::Restrict => "RESTRICT",
            Self::Cascade => "CASCADE",
            Self::SetNull => "SET NULL",
            Self::SetDefault => "SET DEFAULT",
        }
    }
}

/// `initially_immediate | initially_deferred`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deferrable {
    /// Checked after each statement, unless a transaction says otherwise.
    InitiallyImmediate,
    /// Checked at COMMIT, unless a transaction says otherwise.
    InitiallyDeferred,
}

impl Deferrable {
    /// As SQL writes it.
    pub fn as_sql(self) -> &'static str {
        match self {
            Self::InitiallyImmediate => "DEFERRABLE INITIALLY IMMEDIATE",
            Self::InitiallyDeferred => "DEFERRABLE INITIALLY DEFERRED",
        }
    }
}

/// Whether a new constraint looks at the rows that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// It does, while it holds its locks.
    Valid,
    /// Only new rows obey, until [`validate_constraint`].
    NotValid,
}

/// Identifiers with commas between them.
pub fn list(names: &[Ident]) -> String {
    names
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A check that new rows obey at once; rows that exist are not looked at.
pub fn add_check(table: &TableFacts, name: &Ident, check: &str) -> String {
    format!(
        "ALTER TABLE {} ADD CONSTRAINT {name} CHECK ({check}\n) NOT VALID",
        table.full_name()
    )
}

/// A foreign key of a relation, by its full name.
pub fn add_foreign_key(relation: &str, key: &ForeignKey<'_>, validity: Validity) -> String {
    let action = |event: &str, action: Option<ReferentialAction>| {
        action.map_or(String::new(), |action| format!(" ON {event} {}", action.as_sql()))
    };
    let deferrable = (key.deferrable).map_or(String::new(), |when| format!(" {}", when.as_sql()));
    let not_valid = match validity {
        Validity::Valid => "",
        Validity::NotValid => " NOT VALID",
    };
    format!(
        "ALTER TABLE {relation} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}){}{}{deferrable}{not_valid}",
        key.name,
        list(key.columns),
        key.references.full_name(),
        list(key.referenced),
        action("DELETE", key.on_delete),
        action("UPDATE", key.on_update),
    )
}

/// Looks at all rows of a relation, by its full name, under a lock that blocks neither reads nor writes.
pub fn validate_constraint(relation: &str, name: &Ident) -> String {
    format!("ALTER TABLE {relation} VALIDATE CONSTRAINT {name}")
}

/// Drops a constraint of a relation, by its full name.
pub fn drop_constraint(relation: &str, name: &Ident) -> String {
    format!("ALTER TABLE {relation} DROP CONSTRAINT {name}")
}

/// The same, and it may be gone already.
pub fn drop_constraint_if_exists(relation: &str, name: &Ident) -> String {
    format!("ALTER TABLE {relation} DROP CONSTRAINT IF EXISTS {name}")
}

/// Finds the rows for which a check is false: NULL passes.
pub fn rows_against_check(table: &TableFacts, check: &str) -> String {
    // A comment at its end would swallow the bracket.
    let end = if check.contains("--") { "\n" } else { "" };
    format!("SELECT * FROM {} WHERE NOT ({check}{end})", table.full_name())
}

/// Finds the rows that have NULL in a column.
pub fn rows_where_null(table: &TableFacts, column: &Ident) -> String {
    format!("SELECT * FROM {} WHERE {column} IS NULL", table.full_name())
}

/// Finds the rows that reference one that is not there: a NULL among the columns passes.
pub fn rows_without_referenced(table: &TableFacts, key: &ForeignKey<'_>) -> String {
    let all = |part: &dyn Fn((&Ident, &Ident)) -> String| {
        let parts: Vec<String> = key.columns.iter().zip(key.referenced).map(part).collect();
        parts.join(" AND ")
    };
    format!(
        "SELECT * FROM {} t WHERE {} AND NOT EXISTS (SELECT FROM {} r WHERE {})",
        table.full_name(),
        all(&|(column, _)| format!("t.{column} IS NOT NULL")),
        key.references.full_name(),
        all(&|(column, referenced)| format!("r.{referenced} = t.{column}")),
    )
}
