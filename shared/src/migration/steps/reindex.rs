//! `reindex`: indexes are built anew while applications read and write. How that goes is [`crate::index`]'s.

use super::create_index::wait_problem;
use super::{Kind, Undo};
use crate::index::{Rebuild, Target, WAIT, Work, rebuild_refused_in};
use crate::migration::checksum::Canonical;
use crate::name::Table;
use crate::plan::{Action, Facts, Refusal};
use crate::settings::duration::Milliseconds;
use serde::Deserialize;

/// `reindex: { index | table, wait? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reindex {
    /// One index, or those of the partitions where it is of a partitioned table.
    #[serde(default)]
    pub index: Option<Table>,
    /// All indexes of a table, or of its partitions. That of its TOAST table stays as it is: only a superuser may name it.
    #[serde(default)]
    pub table: Option<Table>,
    /// How long each rebuild may wait for other sessions, in all.
    #[serde(default)]
    pub wait: Option<Milliseconds>,
}

impl Reindex {
    fn rebuild(&self, target: Target) -> Action {
        Action::Index(Work::Rebuild(Rebuild {
            target,
            wait: self.wait.map_or(WAIT, |wait| wait.0),
        }))
    }
}

impl Kind for Reindex {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems: Vec<String> = wait_problem(self.wait).into_iter().collect();
        if self.index.is_some() == self.table.is_some() {
            problems.push("either `index` or `table` must be given, and not both".to_owned());
        }
        let schemas = [&self.index, &self.table].into_iter().flatten();
        let refused = (schemas.filter_map(|name| name.schema.as_ref())).find_map(rebuild_refused_in);
        problems.extend(refused.map(str::to_owned));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .optional("index", self.index.as_ref())
            .optional("table", self.table.as_ref())
            .finish()
    }

    fn title(&self) -> String {
        match (&self.index, &self.table) {
            (Some(index), _) => format!("rebuild index {index}"),
            (None, Some(table)) => format!("rebuild the indexes of {table}"),
            (None, None) => "rebuild nothing".to_owned(),
        }
    }

    fn tables(&self) -> Vec<&Table> {
        self.table.iter().collect()
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        if let Some(table) = &self.table {
            let table = facts.table(table)?;
            table.must_hold_indexes()?;
            return Ok(vec![self.rebuild(Target::Table(table.full_name()))]);
        }
        let index = self.index.iter().cloned().map(Target::Index);
        Ok(index.map(|target| self.rebuild(target)).collect())
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn undo(&self) -> Undo {
        Undo::Nothing
    }
}

#[cfg(test)]
mod tests {
    use crate::migration::steps::{Change, Undo};
    use serde_json::{Value, json};

    fn read(step: Value) -> Change {
        Change::deserialize("reindex", step).unwrap().unwrap()
    }

    #[test]
    fn one_index_or_one_table_is_named_and_nothing_of_the_system() {
        for step in [json!({ "index": "s.i" }), json!({ "table": "t", "wait": "1h" })] {
            let change = read(step);
            assert_eq!(change.check(), Ok(()));
            assert_eq!(change.undo(), Undo::Nothing);
        }
        for (step, word) in [
            (json!({}), "either `index` or `table`"),
            (json!({ "index": "i", "table": "t" }), "either `index` or `table`"),
            (
                json!({ "index": "pg_catalog.pg_class_oid_index" }),
                "system catalogs",
            ),
            (json!({ "index": "pg_toast.pg_toast_1_index" }), "TOAST"),
            (json!({ "index": "i", "wait": 0 }), "`wait`"),
        ] {
            let problems = read(step).check().unwrap_err();
            assert!(
                problems.iter().any(|problem| problem.contains(word)),
                "{problems:?}"
            );
        }
    }
}
