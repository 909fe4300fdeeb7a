//! What an agent finds out about the tables a step names.

use super::{ColumnUses, Refusal, Strategies};
use crate::migration::expression::Expression;
use crate::migration::{Change, Step};
use crate::name::{Ident, Table};
use crate::sql::TypeName;
use std::collections::{BTreeMap, BTreeSet};

/// What an agent found out about the tables a step names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// By the name as written in the step.
    pub tables: BTreeMap<Table, Lookup>,
    /// Of the enum types a step names, by the name as written in the step.
    pub types: BTreeMap<Table, TypeLookup>,
    /// Of the columns a step asks about, by the table's name as written in the step: see [`ColumnUses`].
    pub uses: BTreeMap<(Table, Ident), ColumnUses>,
    /// The types a step names, by their text: as the catalog names them, or why there is no such type.
    pub type_names: BTreeMap<String, Result<String, String>>,
    /// Where a table is created whose schema is not written.
    pub schema: Option<Ident>,
    /// As PostgreSQL numbers it: 150004 is 15.4. 0 before anything was inspected.
    pub server_version: u32,
    /// Those of the functions the step's expressions call that PostgreSQL calls volatile, by name without a schema.
    pub volatile: BTreeSet<String>,
    /// By the table's name as written in the step: those of the relations its expressions read that show rows of the table
    /// itself, as a parent, a partition, a child or a view does.
    pub same_rows: BTreeSet<(Table, Table)>,
    /// Columns that a later step of the same migration sets NOT NULL.
    pub not_null_later: BTreeSet<(Table, Ident)>,
    /// How tables are to be gone about as somebody says.
    pub strategies: Strategies,
    /// Whether the step has begun before.
    pub stage: Stage,
    /// In a dry run: an earlier step's effect is not known, so a table or column may exist by then.
    pub uncertain: bool,
    /// In a dry run: the tables, and constraints of tables, that earlier steps drop.
    pub gone: BTreeSet<(Ident, Ident, Option<Ident>)>,
}

/// Whether a step has begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing of it is done.
    #[default]
    New,
    /// Its record is written; some of its parts may be done.
    Begun,
}

/// What a table's name led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// There is such a relation.
    Found(Box<TableFacts>),
    /// There is none.
    Missing {
        /// A relation whose exact name is what the user may have meant, quoted as it must be written.
        similar: Option<String>,
    },
}

/// What a type's name led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeLookup {
    /// There is such an enum.
    Enum(EnumFacts),
    /// There is such a type, of another kind.
    Other,
    /// There is none.
    Missing {
        /// An enum whose exact name is what the user may have meant, quoted as it must be written.
        similar: Option<String>,
    },
}

/// One enum as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumFacts {
    /// The schema it was found in.
    pub schema: Ident,
    /// Its name.
    pub name: Ident,
    /// Its values, in their order.
    pub values: Vec<String>,
}

/// What kind of relation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary table.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view, materialized view, foreign table, or another relation whose rows cannot be changed in place.
    Other(&'static str),
}

/// What a materialized view is called; it can have indexes.
pub const MATERIALIZED_VIEW: &str = "materialized view";

/// One relation as the catalog has it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableFacts {
    /// The schema it was found in.
    pub schema: Ident,
    /// Its name.
    pub name: Ident,
    /// What it is.
    pub kind: RelationKind,
    /// In the table's order, without dropped ones.
    pub columns: Vec<ColumnFacts>,
    /// The relations that hold its rows: itself, its partitions or its children, leaves only, in order of their names.
    pub parts: Vec<PartFacts>,
    /// Columns that decide, on any level, which partition a row belongs to.
    pub partition_columns: BTreeSet<Ident>,
    /// The triggers of ours that keep columns right.
    pub syncs: Vec<SyncFacts>,
    /// Check constraints.
    pub checks: Vec<CheckFacts>,
    /// Foreign keys of it, that is, by which its rows reference others.
    pub foreign_keys: Vec<ForeignKeyFacts>,
    /// The keys that a foreign key may reference; the primary key first.
    pub unique_keys: Vec<UniqueKeyFacts>,
    /// What PostgreSQL would not drop along with it.
    pub dependents: Vec<Dependent>,
}

/// Something that needs a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent {
    /// For people: `view "public"."v"`.
    pub what: String,
    /// Its schema; of a constraint, that of its table.
    pub schema: Ident,
    /// Its name; of a constraint, that of its table.
    pub name: Ident,
    /// The constraint's own name.
    pub constraint: Option<Ident>,
}

/// One column as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Its name.
    pub name: Ident,
    /// Its type as `format_type` writes it.
    pub data_type: String,
    /// Its collation, quoted in full, where it is not that of its type.
    pub collation: Option<String>,
    /// Whether NULL is refused.
    pub nullability: Nullability,
    /// Where its value comes from when a row does not give one.
    pub source: Source,
    /// Whether keys of this type can be ordered and compared exactly.
    pub ordering: Ordering,
}

/// One relation that holds rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartFacts {
    /// Its oid, which it keeps when it is renamed.
    pub oid: u32,
    /// Its schema.
    pub schema: Ident,
    /// Its name.
    pub name: Ident,
    /// Whether rows of it can be changed here.
    pub storage: Storage,
    /// Unique keys over all its rows, of columns without NULL; the primary key first.
    pub keys: Vec<Vec<KeyFacts>>,
    /// As many rows as the planner takes it to have; 0 where it holds none here.
    pub estimated_rows: u64,
    /// Its size in blocks.
    pub blocks: u64,
    /// Whether a policy hides rows of it from our role.
    pub row_security: bool,
    /// Its check constraints that are not known to hold for all of its rows.
    pub unvalidated_checks: BTreeSet<Ident>,
    /// Foreign keys of it.
    pub foreign_keys: Vec<ForeignKeyFacts>,
}

/// Where the rows of a relation are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Here.
    Local,
    /// On another server.
    Foreign,
}

/// One column of a unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its name.
    pub column: Ident,
    /// How the index sorts it.
    pub sort: Sort,
}

/// How an index sorts one of its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sort {
    /// Upwards or downwards.
    pub direction: SortDirection,
    /// Where NULLs would be: the planner uses an index only for the very order it has.
    pub nulls: Nulls,
}

/// Upwards or downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortDirection {
    /// Smaller values first.
    Ascending,
    /// Larger values first.
    Descending,
}

/// Where NULLs are in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// Before all values.
    First,
    /// After all values.
    Last,
}

/// Triggers of ours that keep columns right: see [`crate::sql::sync`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncFacts {
    /// The name of its function, in the schema `confiture`.
    pub function: Ident,
    /// The relations, quoted in full, and the triggers on them.
    pub triggers: Vec<(String, Ident)>,
    /// The columns it sets.
    pub columns: BTreeSet<Ident>,
    /// The columns it reads.
    pub reads: BTreeSet<Ident>,
    /// The column whose type is being changed, where it is there for that.
    pub retyped: Option<Ident>,
    /// Of what it computes.
    pub digest: String,
}

/// Whether a column takes NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nullability {
    /// It does.
    Nullable,
    /// It does not.
    NotNull,
}

/// Where a column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The row, or a default of no further interest.
    Plain,
    /// An identity or a sequence's next value: it grows with insertion.
    Growing,
    /// Generated from other columns: it cannot be set.
    Generated,
}

/// Whether a type can carry a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// It has a default B-tree order, and equal means identical.
    Exact,
    /// Floating point: equal values may not be found again.
    Float,
    /// A collation in which different texts can be equal.
    Nondeterministic,
    /// No default B-tree order.
    None,
}

/// One check constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFacts {
    /// Its name.
    pub name: Ident,
    /// As `pg_get_constraintdef` writes it.
    pub definition: String,
    /// Whether it is known to hold for all rows.
    pub validated: bool,
}

/// One foreign key, seen from the table whose rows reference others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignKeyFacts {
    /// Its name.
    pub name: Ident,
    /// Whether it is known to hold for all rows.
    pub validated: bool,
}

/// A key that a foreign key may reference: unique at once, over all rows, of columns alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueKeyFacts {
    /// In the key's order.
    pub columns: Vec<Ident>,
    /// Primary or not.
    pub kind: UniqueKeyKind,
}

/// Whether a unique key is the primary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UniqueKeyKind {
    /// It is.
    Primary,
    /// It is not.
    Unique,
}

impl Facts {
    /// The facts of a table that must exist.
    ///
    /// # Errors
    /// When it does not; the message names a table that may have been meant.
    pub fn table(&self, table: &Table) -> Result<&TableFacts, Refusal> {
        match self.tables.get(table) {
            Some(Lookup::Found(facts)) => Ok(facts),
            Some(Lookup::Missing { similar }) => Err(Refusal::Input {
                what: format!("table {table} does not exist"),
                advice: Some(match similar {
                    Some(similar) => format!("there is {similar}: write it as shown"),
                    None => "check the name, its schema, and that an earlier migration creates it".to_owned(),
                }),
            }),
            None => Err(Refusal::Input {
                what: format!("table {table} was not inspected"),
                advice: None,
            }),
        }
    }

    /// As the catalog names a type.
    ///
    /// # Errors
    /// When there is none.
    pub fn type_name<'a>(&'a self, written: &'a TypeName) -> Result<&'a str, Refusal> {
        match self.type_names.get(written.as_str()) {
            Some(Ok(name)) => Ok(name),
            Some(Err(why)) => Err(Refusal::Input {
                what: format!("there is no type `{}`: {why}", written.as_str()),
                advice: Some("check the name and its schema".to_owned()),
            }),
            None => Ok(written.as_str()),
        }
    }

    /// A relation that an expression reads and that shows rows of this table. `written` is the table's name in the step.
    pub fn read_again<'a>(
        &self,
        expression: &'a Expression,
        table: &TableFacts,
        written: &Table,
    ) -> Option<&'a Table> {
        // A table that an earlier step of a dry run creates is not in the catalog yet.
        let by_name = |relation: &Table| {
            (relation.name == table.name || relation.name == written.name)
                && (relation.schema.as_ref()).is_none_or(|schema| *schema == table.schema)
        };
        expression.relations().find(|relation| {
            by_name(relation) || self.same_rows.contains(&(written.clone(), (*relation).clone()))
        })
    }

    /// What needs a column; nothing where it was not asked about.
    pub fn uses(&self, table: &Table, column: &Ident) -> ColumnUses {
        let key = (table.clone(), column.clone());
        self.uses.get(&key).cloned().unwrap_or_default()
    }

    /// The facts of a table, if there is one.
    pub fn find(&self, table: &Table) -> Option<&TableFacts> {
        match self.tables.get(table) {
            Some(Lookup::Found(facts)) => Some(facts),
            Some(Lookup::Missing { .. }) | None => None,
        }
    }

    /// Notes that a table is gone; gives what was known of it.
    pub fn remove_table(&mut self, table: &Table) -> Option<TableFacts> {
        let lookup = self.tables.get_mut(table)?;
        match std::mem::replace(lookup, Lookup::Missing { similar: None }) {
            Lookup::Found(facts) => Some(*facts),
            Lookup::Missing { .. } => None,
        }
    }

    /// Whether an earlier step of a dry run drops what needs a table.
    pub fn is_gone(&self, dependent: &Dependent) -> bool {
        let with = |constraint| {
            let key = (dependent.schema.clone(), dependent.name.clone(), constraint);
            self.gone.contains(&key)
        };
        with(None) || with(dependent.constraint.clone())
    }

    /// The facts of an enum that must exist.
    ///
    /// # Errors
    /// When it does not, or is a type of another kind; the message names an enum that may have been meant.
    pub fn enumeration(&self, name: &Table) -> Result<&EnumFacts, Refusal> {
        match self.types.get(name) {
            Some(TypeLookup::Enum(facts)) => Ok(facts),
            Some(TypeLookup::Other) => Err(Refusal::Input {
                what: format!("type {name} is not an enum"),
                advice: Some("name an enum".to_owned()),
            }),
            Some(TypeLookup::Missing { similar }) => Err(Refusal::Input {
                what: format!("enum {name} does not exist"),
                advice: Some(match similar {
                    Some(similar) => format!("there is {similar}: write it as shown"),
                    None => "check the name, its schema, and that an earlier migration creates it".to_owned(),
                }),
            }),
            None => Err(Refusal::Input {
                what: format!("enum {name} was not inspected"),
                advice: None,
            }),
        }
    }

    /// The facts of an enum for [`crate::migration::steps::Kind::effect`], which ignores one that is missing.
    pub fn enumeration_mut(&mut self, name: &Table) -> Option<&mut EnumFacts> {
        match self.types.get_mut(name) {
            Some(TypeLookup::Enum(facts)) => Some(facts),
            Some(TypeLookup::Other | TypeLookup::Missing { .. }) | None => None,
        }
    }

    /// Notes what later steps of the same migration will refuse.
    pub fn look_ahead(&mut self, later: &[Step]) {
        self.not_null_later = (later.iter())
            .filter_map(|step| match &step.change {
                Change::SetNotNull(set) => Some((set.table.clone(), set.column.clone())),
                _ => None,
            })
            .collect();
    }

    /// Notes that a column takes NULL or no longer does; nothing happens where there is no such column.
    pub fn set_nullability(&mut self, table: &Table, column: &Ident, nullability: Nullability) {
        if let Some(column) = self
            .table_mut(table)
            .and_then(|t| t.columns.iter_mut().find(|c| c.name == *column))
        {
            column.nullability = nullability;
        }
    }

    /// Notes where a column's value comes from; nothing happens where there is no such column.
    pub fn set_source(&mut self, table: &Table, column: &Ident, source: Source) {
        if let Some(column) = self
            .table_mut(table)
            .and_then(|t| t.columns.iter_mut().find(|c| c.name == *column))
        {
            column.source = source;
        }
    }

    /// The facts of a table for [`crate::migration::steps::Kind::effect`], which ignores one that is missing.
    pub fn table_mut(&mut self, table: &Table) -> Option<&mut TableFacts> {
        match self.tables.get_mut(table) {
            Some(Lookup::Found(facts)) => Some(facts),
            _ => None,
        }
    }
}

impl EnumFacts {
    /// The full name, quoted for SQL.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

impl TableFacts {
    /// The full name, quoted for SQL.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Passes what can have indexes.
    ///
    /// # Errors
    /// When it is something else.
    pub fn must_hold_indexes(&self) -> Result<(), Refusal> {
        match self.kind {
            RelationKind::Other(MATERIALIZED_VIEW) => Ok(()),
            RelationKind::Table | RelationKind::Partitioned | RelationKind::Other(_) => {
                self.must_be_a_table()
            }
        }
    }

    /// Passes for ordinary and partitioned tables.
    ///
    /// # Errors
    /// For views and other relations.
    pub fn must_be_a_table(&self) -> Result<(), Refusal> {
        match self.kind {
            RelationKind::Table | RelationKind::Partitioned => Ok(()),
            RelationKind::Other(what) => Err(Refusal::Input {
                what: format!("{} is a {what}, not a table", self.full_name()),
                advice: Some("name a table, or use a `sql` step".to_owned()),
            }),
        }
    }

    /// The check constraint of this name, if there is one.
    pub fn check(&self, name: &Ident) -> Option<&CheckFacts> {
        self.checks.iter().find(|check| check.name == *name)
    }

    /// The foreign key of this name, if there is one.
    pub fn foreign_key(&self, name: &Ident) -> Option<&ForeignKeyFacts> {
        self.foreign_keys.iter().find(|key| key.name == *name)
    }

    /// Passes when no constraint has this name, neither here nor on a partition.
    ///
    /// # Errors
    /// When there is one.
    pub fn constraint_is_new(&self, name: &Ident) -> Result<(), Refusal> {
        let on = if self.check(name).is_some() || self.foreign_key(name).is_some() {
            self.full_name()
        } else if let Some(part) = self.parts.iter().find(|part| part.foreign_key(name).is_some()) {
            part.full_name()
        } else {
            return Ok(());
        };
        Err(Refusal::Input {
            what: format!("{on} already has a constraint {name}"),
            advice: Some(
                "choose another name, or remove the step if the constraint is the one you want".to_owned(),
            ),
        })
    }

    /// A column, if there is one.
    pub fn find(&self, name: &Ident) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == *name)
    }

    /// What to say to one who looks for a column that is not there.
    fn columns_like(&self, name: &Ident) -> String {
        const SHOWN: usize = 12;
        let same = |column: &&ColumnFacts| column.name.as_str().eq_ignore_ascii_case(name.as_str());
        if let Some(column) = self.columns.iter().find(same) {
            return format!("there is {}: write it as shown", column.name);
        }
        let names: Vec<String> = (self.columns.iter().take(SHOWN))
            .map(|column| column.name.to_string())
            .collect();
        let more = if self.columns.len() > SHOWN { ", .." } else { "" };
        format!("it has {}{more}", names.join(", "))
    }

    /// A column that must exist.
    ///
    /// # Errors
    /// When it does not; the message names a column that may have been meant.
    pub fn column(&self, name: &Ident) -> Result<&ColumnFacts, Refusal> {
        self.find(name).ok_or_else(|| Refusal::Input {
            what: format!("table {} has no column {name}", self.full_name()),
            advice: Some(self.columns_like(name)),
        })
    }
}

impl PartFacts {
    /// The full name, quoted for SQL.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The foreign key of this name, if there is one.
    pub fn foreign_key(&self, name: &Ident) -> Option<&ForeignKeyFacts> {
        self.foreign_keys.iter().find(|key| key.name == *name)
    }
}

impl Sort {
    /// Of an ordinary index.
    pub const ASCENDING: Self = Self {
        direction: SortDirection::Ascending,
        nulls: Nulls::Last,
    };

    /// What follows a column's name in ORDER BY: nothing for the ordinary order.
    pub fn as_sql(self) -> &'static str {
        match (self.direction, self.nulls) {
            (SortDirection::Ascending, Nulls::Last) => "",
            (SortDirection::Ascending, Nulls::First) => " NULLS FIRST",
            (SortDirection::Descending, Nulls::First) => " DESC",
            (SortDirection::Descending, Nulls::Last) => " DESC NULLS LAST",
        }
    }

    /// The other way round.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            direction: match self.direction {
                SortDirection::Ascending => SortDirection::Descending,
                SortDirection::Descending => SortDirection::Ascending,
            },
            nulls: match self.nulls {
                Nulls::First => Nulls::Last,
                Nulls::Last => Nulls::First,
            },
        }
    }
}
