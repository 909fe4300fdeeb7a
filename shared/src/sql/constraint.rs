//! The statements that add, validate and drop constraints, and the queries that find the rows which violate them.

use super::literal;
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

/// The SQLSTATE of something that has come to need what was to be free: it may be gone at the next try.
pub const IN_USE: &str = "CFUSE";

/// Ends the transaction where something but its default, its sequence and NOT NULL still needs a column.
pub fn must_be_free(relation: &str, column: &Ident) -> String {
    let body = format!(
        "DECLARE needed pg_catalog.text; BEGIN
  SELECT pg_catalog.pg_describe_object(e.classid, e.objid, e.objsubid) INTO needed
    FROM pg_catalog.pg_depend e
    JOIN pg_catalog.pg_attribute a ON a.attrelid = e.refobjid AND a.attnum = e.refobjsubid
   WHERE e.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.refobjid = {}::pg_catalog.regclass AND a.attname = {}
     AND NOT (e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_class s WHERE s.oid = e.objid AND s.relkind = 'S'))
     AND NOT (e.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_attrdef d WHERE d.oid = e.objid AND d.adrelid = e.refobjid AND d.adnum = e.refobjsubid))
     AND NOT (e.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
              AND EXISTS (SELECT FROM pg_catalog.pg_constraint o WHERE o.oid = e.objid
                             AND (o.contype = 'n' OR pg_catalog.starts_with(o.conname, 'confiture_type_'))))
   LIMIT 1;
  IF needed IS NOT NULL THEN
    RAISE EXCEPTION USING MESSAGE = 'the column is needed by ' || needed || ', which was not there before',
      ERRCODE = '{IN_USE}', HINT = 'run the same command again';
  END IF; END",
        literal(relation),
        literal(column.as_str()),
    );
    format!("DO LANGUAGE plpgsql {}", literal(&body))
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
    rows_without_counterpart(
        &table.full_name(),
        key.columns,
        &key.references.full_name(),
        key.referenced,
    )
}

/// The same between two relations, by their full names.
pub fn rows_without_counterpart(relation: &str, columns: &[Ident], others: &str, keys: &[Ident]) -> String {
    let all = |part: &dyn Fn((&Ident, &Ident)) -> String| {
        let parts: Vec<String> = columns.iter().zip(keys).map(part).collect();
        parts.join(" AND ")
    };
    format!(
        "SELECT * FROM {relation} t WHERE {} AND NOT EXISTS (SELECT FROM {others} r WHERE {})",
        all(&|(column, _)| format!("t.{column} IS NOT NULL")),
        all(&|(column, key)| format!("r.{key} = t.{column}")),
    )
}
