//! `create_table`: a new table with its keys and checks, partitioned or not. Nobody can be waiting for it.
//!
//! It is undone by dropping it while it is empty; rows that applications have written meanwhile are not lost by an undo.

use super::drop_table::Rows;
use super::{DropTable, Kind, Undo, set_default};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{
    Action, CheckFacts, ColumnFacts, Facts, KeyFacts, Lookup, Nullability, Ordering, PartFacts, Refusal,
    RelationKind, Sort, Source, Storage, TableFacts, Transaction, UniqueKeyFacts, UniqueKeyKind,
};
use crate::sql::{self, NewColumn, Partitioning, Value};
use serde::Deserialize;
use std::collections::BTreeSet;

/// `create_table: { table, columns, primary_key, unique?, checks?, partition_by? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTable {
    /// The table.
    pub table: Table,
    /// In their order.
    pub columns: Vec<Column>,
    /// The columns of the primary key; `[]` for none.
    pub primary_key: Vec<Ident>,
    /// Further unique keys, each a list of columns.
    #[serde(default)]
    pub unique: Vec<Vec<Ident>>,
    /// Check constraints.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// How its rows are divided among partitions, which `sql` steps create.
    #[serde(default)]
    pub partition_by: Option<Partitioning>,
}

/// `{ name, type, not_null?, default?, generated?, identity? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: Ident,
    /// Its type, as SQL writes it.
    #[serde(rename = "type")]
    pub data_type: sql::TypeName,
    /// Refuse NULL. Columns of the primary key and identities do so anyway.
    #[serde(default)]
    pub not_null: bool,
    /// For rows that do not give a value: an expression without columns.
    #[serde(default)]
    pub default: Option<Expression>,
    /// Computed from other columns of the row, and stored.
    #[serde(default)]
    pub generated: Option<Expression>,
    /// Numbered by PostgreSQL.
    #[serde(default)]
    pub identity: Option<sql::Identity>,
}

/// `{ name, check }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The constraint's name.
    pub name: Ident,
    /// What must not be false for any row.
    pub check: Expression,
}

impl Kind for CreateTable {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if self.columns.is_empty() {
            problems.push("`columns` names no column".to_owned());
        }
        problems.extend(self.columns.iter().filter_map(Column::problem));
        let names: Vec<&Ident> = self.columns.iter().map(|column| &column.name).collect();
        problems.extend(twice("`columns`", names.iter().copied()));
        for (place, columns) in self.lists() {
            if columns.is_empty() && place != PRIMARY_KEY {
                problems.push(format!("{place} names no column"));
            }
            problems.extend(twice(place, columns.iter()));
            let unknown = columns.iter().filter(|column| !names.contains(column));
            problems.extend(
                unknown.map(|column| format!("{place} names {column}, which is not among `columns`")),
            );
        }
        let checks = self.checks.iter().map(|check| &check.name);
        problems.extend(twice("`checks`", checks));
        let expressions = (self.checks.iter().map(|check| &check.check))
            .chain(self.columns.iter().filter_map(|column| column.generated.as_ref()));
        for expression in expressions {
            let unknown = expression.columns().find(|name| !self.knows(name));
            if expression.has_subquery() {
                problems.push(format!(
                    "`{}` holds a sub-select: PostgreSQL takes the columns of a row alone",
                    expression.text()
                ));
            } else if let Some(name) = unknown {
                problems.push(format!(
                    "`{}` reads {name}, which is not among `columns`",
                    expression.text()
                ));
            }
        }
        if matches!(&self.partition_by, Some(Partitioning::List(columns)) if columns.len() > 1) {
            problems.push("`partition_by.list` takes one column".to_owned());
        }
        problems.extend(self.keys_without_partition_columns());
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        let mut canonical = Canonical::new().field("table", &self.table);
        for column in &self.columns {
            canonical = canonical.field("column", column.canonical());
        }
        canonical = canonical.field("primary_key", sql::list(&self.primary_key));
        for key in &self.unique {
            canonical = canonical.field("unique", sql::list(key));
        }
        for check in &self.checks {
            let check = Canonical::new()
                .field("name", &check.name)
                .field("check", tokens(check.check.text()));
            canonical = canonical.field("check", check.finish());
        }
        canonical
            .optional(
                "partition_by",
                self.partition_by.as_ref().map(Partitioning::as_sql),
            )
            .finish()
    }

    fn title(&self) -> String {
        format!("create table {}", self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        if let Some(there) = facts.find(&self.table) {
            return Err(Refusal::Input {
                what: format!("there is a relation {} already", there.full_name()),
                advice: Some(match self.table.schema {
                    Some(_) => "choose another name, or remove the step if the table is the one you want".to_owned(),
                    None => "choose another name, write the schema too if you mean another one, or remove the step if the table is the one you want".to_owned(),
                }),
            });
        }
        let schema = self.schema(facts).ok_or_else(|| Refusal::Input {
            what: format!("no schema of the search path is there for {}", self.table),
            advice: Some("write `table: schema.table`".to_owned()),
        })?;
        let columns: Vec<NewColumn<'_>> = self.columns.iter().map(Column::as_new).collect();
        let checks: Vec<(&Ident, &str)> = (self.checks.iter())
            .map(|check| (&check.name, check.check.text()))
            .collect();
        let statement = sql::create_table(&sql::NewTable {
            schema,
            name: &self.table.name,
            columns: &columns,
            primary_key: &self.primary_key,
            unique: &self.unique,
            checks: &checks,
            partition_by: self.partition_by.as_ref(),
        });
        Ok(vec![Action::Transaction(Transaction {
            creates_only: true,
            ..Transaction::bounded(statement)
        })])
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(schema) = self.schema(facts).cloned() {
            let table = self.facts(schema);
            let lookup = Lookup::Found(Box::new(table));
            facts.tables.insert(self.table.clone(), lookup);
        }
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::DropTable(DropTable {
            table: self.table.clone(),
            rows: Rows::None,
        })))
    }
}

const PRIMARY_KEY: &str = "`primary_key`";

/// Names that stand in a list more than once.
fn twice<'a>(place: &str, names: impl Iterator<Item = &'a Ident>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names
        .filter(|name| !seen.insert(*name))
        .map(|name| format!("{place} names {name} twice"))
        .collect()
}

impl CreateTable {
    /// The lists of columns beside `columns`, by their place.
    fn lists(&self) -> Vec<(&'static str, &[Ident])> {
        let unique = self.unique.iter().map(|key| ("`unique`", key.as_slice()));
        let partition_by = self
            .partition_by
            .iter()
            .map(|by| ("`partition_by`", by.columns()));
        std::iter::once((PRIMARY_KEY, self.primary_key.as_slice()))
            .chain(unique)
            .chain(partition_by)
            .collect()
    }

    /// Whether an expression may read the name.
    fn knows(&self, name: &Ident) -> bool {
        *name == self.table.name || self.columns.iter().any(|column| column.name == *name)
    }

    /// PostgreSQL has no unique key over partitions but by what divides the rows among them.
    fn keys_without_partition_columns(&self) -> Vec<String> {
        let Some(by) = &self.partition_by else {
            return Vec::new();
        };
        let keys = std::iter::once(&self.primary_key).chain(&self.unique);
        keys.filter(|key| !key.is_empty())
            .filter_map(|key| {
                let missing = by.columns().iter().find(|column| !key.contains(column))?;
                Some(format!(
                    "the unique key ({}) must hold {missing}, by which the table is partitioned",
                    sql::list(key)
                ))
            })
            .collect()
    }

    /// The schema it is created in; `None` when none is written and the search path leads nowhere.
    fn schema<'a>(&'a self, facts: &'a Facts) -> Option<&'a Ident> {
        self.table.schema.as_ref().or(facts.schema.as_ref())
    }

    /// What the catalog will say of it.
    fn facts(&self, schema: Ident) -> TableFacts {
        let columns: Vec<ColumnFacts> = (self.columns.iter())
            .map(|column| column.facts(self.primary_key.contains(&column.name)))
            .collect();
        let not_null = |name: &Ident| {
            (columns.iter()).any(|column| column.name == *name && column.nullability == Nullability::NotNull)
        };
        let keys = std::iter::once((&self.primary_key, UniqueKeyKind::Primary))
            .chain(self.unique.iter().map(|key| (key, UniqueKeyKind::Unique)))
            .filter(|(key, _)| !key.is_empty());
        let paged: Vec<Vec<KeyFacts>> = (keys.clone())
            .filter(|(key, _)| key.iter().all(not_null))
            .map(|(key, _)| {
                (key.iter().cloned())
                    .map(|column| KeyFacts {
                        column,
                        sort: Sort::ASCENDING,
                    })
                    .collect()
            })
            .collect();
        let part = PartFacts {
            oid: 0,
            schema: schema.clone(),
            name: self.table.name.clone(),
            storage: Storage::Local,
            keys: paged,
            estimated_rows: 0,
            blocks: 0,
            row_security: false,
            unvalidated_checks: BTreeSet::new(),
            foreign_keys: Vec::new(),
        };
        let unique_keys = keys
            .map(|(key, kind)| UniqueKeyFacts {
                columns: key.clone(),
                kind,
            })
            .collect();
        TableFacts {
            schema,
            name: self.table.name.clone(),
            kind: match self.partition_by {
                Some(_) => RelationKind::Partitioned,
                None => RelationKind::Table,
            },
            parts: match self.partition_by {
                Some(_) => Vec::new(),
                None => vec![part],
            },
            partition_columns: (self.partition_by.iter())
                .flat_map(|by| by.columns().iter().cloned())
                .collect(),
            syncs: Vec::new(),
            checks: (self.checks.iter())
                .map(|check| CheckFacts {
                    name: check.name.clone(),
                    definition: format!("CHECK ({})", check.check.text()),
                    validated: true,
                })
                .collect(),
            foreign_keys: Vec::new(),
            unique_keys,
            dependents: Vec::new(),
            columns,
        }
    }
}

impl Column {
    fn problem(&self) -> Option<String> {
        let sources = [
            self.default.is_some(),
            self.generated.is_some(),
            self.identity.is_some(),
        ];
        if sources.into_iter().filter(|given| *given).count() > 1 {
            return Some(format!(
                "column {} can have one of `default`, `generated` and `identity`",
                self.name
            ));
        }
        self.default
            .as_ref()
            .and_then(set_default::problem)
            .map(|problem| format!("column {}: {problem}", self.name))
    }

    fn value(&self) -> Value<'_> {
        match (&self.default, &self.generated, self.identity) {
            (Some(default), _, _) => Value::Default(default.text()),
            (None, Some(generated), _) => Value::Generated(generated.text()),
            (None, None, Some(identity)) => Value::Identity(identity),
            (None, None, None) => Value::Given,
        }
    }

    fn nullability(&self) -> Nullability {
        if self.not_null || self.identity.is_some() {
            Nullability::NotNull
        } else {
            Nullability::Nullable
        }
    }

    fn as_new(&self) -> NewColumn<'_> {
        NewColumn {
            name: &self.name,
            data_type: &self.data_type,
            nullability: self.nullability(),
            value: self.value(),
        }
    }

    fn canonical(&self) -> String {
        let value = match self.value() {
            Value::Given => None,
            Value::Default(text) => Some(("default", tokens(text))),
            Value::Generated(text) => Some(("generated", tokens(text))),
            Value::Identity(identity) => Some(("identity", identity.as_sql().to_owned())),
        };
        let canonical = Canonical::new()
            .field("name", &self.name)
            .field("type", tokens(self.data_type.as_str()))
            .optional("not_null", self.not_null.then_some(true));
        match value {
            Some((source, value)) => canonical.field(source, value).finish(),
            None => canonical.finish(),
        }
    }

    fn facts(&self, is_key: bool) -> ColumnFacts {
        ColumnFacts {
            name: self.name.clone(),
            data_type: self.data_type.as_str().to_owned(),
            collation: None,
            nullability: if is_key {
                Nullability::NotNull
            } else {
                self.nullability()
            },
            source: match self.value() {
                Value::Generated(_) => Source::Generated,
                Value::Identity(_) => Source::Growing,
                Value::Given | Value::Default(_) => {
                    if self.data_type.is_serial() {
                        Source::Growing
                    } else {
                        Source::Plain
                    }
                }
            },
            ordering: Ordering::Exact,
        }
    }
}
