//! What a `change_type` becomes on a database, forth and back.

use super::super::batched::{BatchOptions, Repeatable, Rows};
use super::super::{Kind as _, sync};
use super::carry::{Carry, is_integer};
use super::names::{leave_ours_out, new_name, old_name};
use super::swap::After;
use super::{ChangeType, rehearsal, widening};
use crate::index::WAIT;
use crate::migration::expression::Expression;
use crate::plan::{
    Action, Assignment, ColumnFacts, ColumnUses, Facts, Kept, Nullability, Refusal, RelationKind, RowChange,
    Source, Stage, TableFacts, Transaction, Upper, Verdict, Verification, When,
};
use crate::sql;
use crate::sql::batch::differs;
use crate::sql::sync::comparison;
use std::time::Duration;

impl ChangeType {
    pub(super) fn plan_up(&self, facts: &Facts, table: &TableFacts) -> Result<Vec<Action>, Refusal> {
        if self.is_changed(facts, table)? {
            return Ok(Vec::new());
        }
        let (new, old) = (new_name(&self.column), old_name(&self.column));
        let live = table.column(&self.column)?;
        let data_type = facts.type_name(&self.data_type)?;
        let uses = self.uses(facts, table, live)?;
        if table.find(&new).is_none() {
            if live.data_type == data_type {
                return self.changed_already(table, data_type);
            }
            if self.using.is_none() && uses.can_stay() && widening::is_in_place(&live.data_type, data_type) {
                return Ok(vec![Action::Transaction(Transaction::bounded(sql::alter_type(
                    table,
                    &self.column,
                    &self.data_type,
                )))]);
            }
        }
        if uses.identity.is_some() && !is_integer(data_type) {
            return Err(Refusal::Input {
                what: format!(
                    "{} of {} is an identity, which is always an integer",
                    self.column,
                    table.full_name()
                ),
                advice: Some("write `smallint`, `integer` or `bigint`".to_owned()),
            });
        }
        self.cannot_vary(facts)?;
        let changed = ColumnFacts {
            name: new.clone(),
            data_type: data_type.to_owned(),
            collation: None,
            nullability: Nullability::Nullable,
            ..live.clone()
        };
        let (other, copies) = (
            table.find(&new).unwrap_or(&changed),
            facts.uses(&self.table, &new),
        );
        let carry = Carry {
            table,
            live,
            other,
            uses: &uses,
            copies: &copies,
            value: self.value(self.using.as_ref()),
            custom: self.using.is_some(),
            wait: self.waits(),
        };
        let mut actions = Vec::new();
        if table.find(&new).is_none() {
            let reverse = self.back.as_ref().map(Expression::text);
            actions.push(rehearsal::transaction(&carry, &self.data_type, reverse)?);
            let mut statements = vec![sql::add_column(
                table,
                &new,
                &self.data_type,
                None,
                Nullability::Nullable,
            )];
            statements.extend(carry.keep_in_step());
            actions.push(Action::Transaction(Transaction::bounded_all(statements)));
            actions.push(Action::LookAgain);
        }
        if !carry.is_filled() {
            actions.push(self.batches(facts, table, &carry)?);
        }
        actions.extend(carry.prepare()?);
        // Rows take their time: by then something else may need the column.
        if !actions.is_empty() {
            actions.push(Action::LookAgain);
        }
        let back = self.value(self.back.as_ref());
        let after = After::Kept {
            name: &old,
            value: &back,
        };
        actions.push(Action::Transaction(carry.swap(&self.column, &after)));
        Ok(actions)
    }

    /// Whether the names are swapped already.
    fn is_changed(&self, facts: &Facts, table: &TableFacts) -> Result<bool, Refusal> {
        let (new, old) = (new_name(&self.column), old_name(&self.column));
        match (table.find(&new), table.find(&old), facts.stage) {
            (None, Some(_), Stage::Begun) => Ok(true),
            (_, Some(_), _) => Err(Refusal::Unsafe {
                what: format!(
                    "{old}, what {} of {} was before its type was changed last, is still there",
                    self.column,
                    table.full_name()
                ),
                advice: Some("end that change first with a `contract` step".to_owned()),
            }),
            (Some(_), None, Stage::New) => Err(Refusal::Input {
                what: format!(
                    "table {} has a column {new} already, of no run of ours",
                    table.full_name()
                ),
                advice: Some("drop it: the change makes a column of this name".to_owned()),
            }),
            (None, None, _) | (Some(_), None, Stage::Begun) => Ok(false),
        }
    }

    pub(super) fn plan_down(&self, facts: &Facts, table: &TableFacts) -> Result<Vec<Action>, Refusal> {
        let (new, old) = (new_name(&self.column), old_name(&self.column));
        let live = table.column(&self.column)?;
        if let Some(unfinished) = table.find(&new) {
            let uses = facts.uses(&self.table, &self.column);
            return Ok(self.give_up(table, live, unfinished, &uses, &facts.uses(&self.table, &new)));
        }
        let Some(kept) = table.find(&old) else {
            if facts.stage == Stage::Begun || live.data_type != facts.type_name(&self.data_type)? {
                return Ok(Vec::new());
            }
            return Err(Refusal::Unsafe {
                what: format!(
                    "{} of {} has no old column to go back to: its type was changed in place, or the change was ended",
                    self.column,
                    table.full_name()
                ),
                advice: Some("write a `down` with a `change_type` to the type it had".to_owned()),
            });
        };
        let uses = self.uses(facts, table, live)?;
        let copies = facts.uses(&self.table, &old);
        let carry = Carry {
            table,
            live,
            other: kept,
            uses: &uses,
            copies: &copies,
            value: self.value(self.back.as_ref()),
            custom: self.back.is_some(),
            wait: self.waits(),
        };
        let mut actions = carry.prepare()?;
        if !actions.is_empty() {
            actions.push(Action::LookAgain);
        }
        actions.push(Action::Transaction(carry.swap(&self.column, &After::Dropped)));
        Ok(actions)
    }

    /// What takes an unfinished change back.
    fn give_up(
        &self,
        table: &TableFacts,
        live: &ColumnFacts,
        unfinished: &ColumnFacts,
        uses: &ColumnUses,
        copies: &ColumnUses,
    ) -> Vec<Action> {
        let carry = Carry {
            table,
            live,
            other: unfinished,
            uses,
            copies,
            value: self.value(self.using.as_ref()),
            custom: self.using.is_some(),
            wait: self.waits(),
        };
        let mut actions = Vec::new();
        let statements = sync::end(table, &unfinished.name);
        if !statements.is_empty() {
            actions.push(Action::Transaction(Transaction::bounded_all(statements)));
        }
        actions.extend(carry.end_builds());
        actions.push(Action::Transaction(Transaction::bounded_all(carry.drop_other())));
        actions
    }

    fn changed_already(&self, table: &TableFacts, data_type: &str) -> Result<Vec<Action>, Refusal> {
        match self.using {
            None => Ok(Vec::new()),
            Some(_) => Err(Refusal::Input {
                what: format!(
                    "{} of {} is of type {data_type} already",
                    self.column,
                    table.full_name()
                ),
                advice: Some("new values of the same type are the work of a `backfill` step".to_owned()),
            }),
        }
    }

    /// What needs the column; ours is left out.
    fn uses(&self, facts: &Facts, table: &TableFacts, live: &ColumnFacts) -> Result<ColumnUses, Refusal> {
        let refused = |what: String, advice: &str| {
            Err(Refusal::Unsafe {
                what,
                advice: Some(advice.to_owned()),
            })
        };
        let name = format!("{} of {}", self.column, table.full_name());
        if table.kind == RelationKind::Partitioned || table.parts.len() > 1 {
            return refused(
                format!(
                    "{name} cannot get another type: its rows are in several tables, and the swap of names would not be one"
                ),
                "add a column with the new type, `backfill` it from the old one, and let the applications move over",
            );
        }
        if live.source == Source::Generated {
            return Err(Refusal::Input {
                what: format!("{name} is generated: its type is that of its expression"),
                advice: Some("drop the column and add it again with a `sql` step".to_owned()),
            });
        }
        if let Some(live) = table.syncs.iter().find(|live| {
            live.retyped.is_none()
                && (live.columns.contains(&self.column) || live.reads.contains(&self.column))
        }) {
            return Err(sync::needs(live, table, &self.column));
        }
        let mut uses = facts.uses(&self.table, &self.column);
        leave_ours_out(&mut uses);
        if uses.others.is_empty() {
            return Ok(uses);
        }
        refused(
            format!(
                "{name} cannot get another type while it is needed by {}",
                uses.others.join(", ")
            ),
            "drop what needs it in a step before, and create it again in a step after: PostgreSQL ties it to the old column",
        )
    }

    fn cannot_vary(&self, facts: &Facts) -> Result<(), Refusal> {
        let varying = (self.expressions().into_iter()).find(|e| e.changes_by_itself(&facts.volatile));
        varying.map_or(Ok(()), |expression| {
            Err(Refusal::Unsafe {
                what: format!(
                    "`{}` has another value each time it is computed: the old and the new column could not be kept in step",
                    expression.text()
                ),
                advice: Some("compute the value from columns of the row alone".to_owned()),
            })
        })
    }

    fn batches(&self, facts: &Facts, table: &TableFacts, carry: &Carry<'_>) -> Result<Action, Refusal> {
        let assignment = Assignment {
            column: carry.other.name.clone(),
            value: carry.value.clone(),
            data_type: carry.other.data_type.clone(),
            comparison: comparison(carry.other),
        };
        let rows = Rows {
            table,
            verification: Verification {
                differing: Some(differs(&assignment)),
                remaining: None,
                verdict: Verdict::Fail,
                when: When::Always,
            },
            change: RowChange::Update(vec![assignment]),
            condition: None,
            repeatable: Repeatable::Seen,
            kept: Kept::ByTrigger,
        };
        let options = BatchOptions {
            verify: Some(true),
            ..self.batch.clone()
        };
        let batches = rows.batches(facts, &options, |_| Ok(Upper::Open))?;
        Ok(Action::Batches(Box::new(batches)))
    }

    /// A value under the column's name.
    fn value(&self, expression: Option<&Expression>) -> String {
        expression.map_or_else(|| self.column.to_string(), |e| e.text().to_owned())
    }

    fn waits(&self) -> Duration {
        self.wait.map_or(WAIT, |wait| wait.0)
    }
}
