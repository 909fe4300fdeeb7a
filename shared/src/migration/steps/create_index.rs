//! `create_index`: an index, built while applications read and write. How it gets there is [`crate::index`]'s.

use super::{DropIndex, Kind, Undo};
use crate::index::{Create, Definition, Element, Parameter, Published, WAIT, Work};
use crate::migration::checksum::Canonical;
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, RelationKind, Storage, TableFacts};
use crate::settings::duration::{self, Milliseconds, Zero};
use serde::Deserialize;
use std::collections::BTreeMap;

/// `create_index: { table, name, columns, unique?, method?, where?, include?, with?, tablespace?, wait? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateIndex {
    /// The table.
    pub table: Table,
    /// The index' own name; it is in the schema of its table.
    pub name: Ident,
    /// What it is sorted by: columns, or mappings with `column` or `expression`.
    pub columns: Vec<Element>,
    /// Refuse equal keys.
    #[serde(default)]
    pub unique: bool,
    /// Access method; B-tree when none is given.
    #[serde(default)]
    pub method: Option<Ident>,
    /// Which rows it holds.
    #[serde(default, rename = "where")]
    pub condition: Option<Expression>,
    /// Columns that are only carried along.
    #[serde(default)]
    pub include: Vec<Ident>,
    /// Storage parameters.
    #[serde(default, deserialize_with = "crate::yaml::unique")]
    pub with: BTreeMap<Ident, Parameter>,
    /// Where it is kept.
    #[serde(default)]
    pub tablespace: Option<Ident>,
    /// How long the build may wait for other sessions, in all.
    #[serde(default)]
    pub wait: Option<Milliseconds>,
    /// What follows the table's name, where it is a statement of SQL: then that is what the index is.
    #[serde(skip)]
    pub written: Option<String>,
    /// Whether partitions get theirs too.
    #[serde(skip)]
    pub extent: Extent,
}

/// Whether an index of a partitioned table is one of its partitions too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extent {
    /// It is.
    #[default]
    Whole,
    /// It is not: `ON ONLY`, which means nothing where there are no partitions.
    Only,
}

/// What is wrong with a budget of a step's `wait`.
pub(super) fn wait_problem(wait: Option<Milliseconds>) -> Option<String> {
    let why = duration::bounded(wait?.0, Zero::Refused).err()?;
    Some(format!("`wait`: {why}"))
}

impl CreateIndex {
    fn definition(&self) -> Definition {
        Definition {
            unique: self.unique,
            method: self.method.clone(),
            elements: self.columns.clone(),
            include: self.include.clone(),
            with: self.with.clone(),
            tablespace: self.tablespace.clone(),
            condition: self.condition.clone(),
            written: self.written.clone(),
        }
    }
}

/// The columns of an index must be there.
pub(super) fn columns_exist(table: &TableFacts, definition: &Definition) -> Result<(), Refusal> {
    definition
        .columns()
        .try_for_each(|column| table.column(column).map(drop))
}

impl Kind for CreateIndex {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = self.definition().problems();
        problems.extend(wait_problem(self.wait));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        let canonical = Canonical::new()
            .field("table", &self.table)
            .field("name", &self.name);
        self.definition().canonical(canonical).finish()
    }

    fn title(&self) -> String {
        let unique = if self.unique { "unique " } else { "" };
        format!("create {unique}index {} on {}", self.name, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_hold_indexes()?;
        let definition = self.definition();
        columns_exist(table, &definition)?;
        let partitioned = table.kind == RelationKind::Partitioned;
        if partitioned && self.extent == Extent::Only {
            return Err(Refusal::Unsafe {
                what: format!(
                    "{} is partitioned: an index ON ONLY it holds nothing and is not valid, so there is nothing to build concurrently",
                    table.full_name()
                ),
                advice: Some(
                    "remove ONLY, and it is built partition by partition; or remove CONCURRENTLY".to_owned(),
                ),
            });
        }
        if let Some(foreign) =
            (table.parts.iter()).find(|part| partitioned && part.storage == Storage::Foreign)
        {
            return Err(Refusal::Unsafe {
                what: format!(
                    "{}.{}, a partition of {}, is on another server: the index of the whole table could never be valid",
                    foreign.schema,
                    foreign.name,
                    table.full_name()
                ),
                advice: Some(
                    "create the index on the other partitions, each by a step of its own".to_owned(),
                ),
            });
        }
        let create = Box::new(Create {
            schema: table.schema.clone(),
            table: table.name.clone(),
            name: self.name.clone(),
            definition,
            published: Published::Index,
            wait: self.wait.map_or(WAIT, |wait| wait.0),
        });
        Ok(vec![Action::Index(if partitioned {
            Work::CreateParts(create)
        } else {
            Work::Create(create)
        })])
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::DropIndex(DropIndex::taking_back(
            &self.table,
            &self.name,
            self.wait,
        ))))
    }
}

#[cfg(test)]
mod tests {
    use crate::migration::steps::Change;
    use serde_json::{Value, json};

    fn checksum(step: Value) -> String {
        let change = Change::deserialize("create_index", step).unwrap().unwrap();
        change.checksum().to_string()
    }

    #[test]
    fn what_means_the_same_has_the_same_checksum() {
        let plain = checksum(json!({ "table": "t", "name": "i", "columns": ["a"] }));
        let long = json!({ "table": "T", "name": "i", "method": "btree", "wait": "1h",
            "columns": [{ "column": "A", "order": "asc", "nulls": "last" }] });
        assert_eq!(checksum(long), plain);
        for other in [
            json!({ "table": "t", "name": "i", "columns": ["a"], "unique": true }),
            json!({ "table": "t", "name": "i", "columns": [{ "column": "a", "order": "desc" }] }),
            json!({ "table": "t", "name": "i", "columns": [{ "column": "a", "nulls": "first" }] }),
            json!({ "table": "t", "name": "i", "columns": [{ "expression": "a" }] }),
            json!({ "table": "t", "name": "i", "columns": ["a"], "include": ["b"] }),
            json!({ "table": "t", "name": "i", "columns": ["a", "b"] }),
            json!({ "table": "t", "name": "i", "columns": ["a"], "with": { "fillfactor": "70" } }),
            json!({ "table": "t", "name": "i", "columns": ["a"], "where": "b" }),
            json!({ "table": "t", "name": "i", "columns": ["a"], "method": "hash" }),
        ] {
            assert_ne!(checksum(other.clone()), plain, "{other}");
        }
    }
}
