//! The triggers that keep columns right while and after a `backfill` fills them, for applications that do not know them;
//! and those that keep the old and the new column of a `change_type` in step.
//!
//! An INSERT gets the values where the step's condition holds for the new row. An UPDATE gets them when it changes a
//! column that the expressions or the condition read, and the condition holds for the row as if the columns were still
//! empty. Both triggers name every column they touch in their `WHEN`, so PostgreSQL refuses to drop one of those while
//! they live; nothing else of a row is looked at, and the batches' own updates do not call them.
//!
//! A value that does not fit the other type of a `change_type` makes that column NULL and never an application fail.

use crate::id::Digest;
use crate::name::Ident;
use crate::plan::{Assignment, ColumnFacts, Comparison, Ordering};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// All that live, as rows of relation (text), the columns they set (text[]), and the column whose type was changed where
/// that is what they are for (text).
pub const LIVE: &str = r"
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
       ARRAY(SELECT pg_catalog.json_array_elements_text(a.args -> 'set')), a.args ->> 'retyped'
  FROM pg_catalog.pg_trigger g
  JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_proc f ON f.oid = g.tgfoid
  JOIN pg_catalog.pg_namespace s ON s.oid = f.pronamespace AND s.nspname = 'confiture',
  LATERAL (SELECT pg_catalog.convert_from(pg_catalog.substring(g.tgargs, 1, pg_catalog.length(g.tgargs) - 1),
                                          pg_catalog.getdatabaseencoding())::pg_catalog.json AS args) a
 WHERE g.tgparentid = 0 AND g.tgname LIKE '%\_insert' ORDER BY 1, 2";

/// What the triggers carry as their argument, to be found again by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arguments {
    /// The columns they set.
    pub set: BTreeSet<String>,
    /// The columns they read.
    pub reads: BTreeSet<String>,
    /// Of what they compute: two with the same do the same.
    pub digest: String,
    /// The column whose type is changed, where that is what they are for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retyped: Option<String>,
}

/// The triggers of one step on one table.
#[derive(Debug, Clone, PartialEq)]
pub struct Sync<'a> {
    /// The table, as expressions may name it.
    pub table: &'a Ident,
    /// The relations to have triggers, quoted in full: the table, or each of its children by inheritance too.
    pub relations: Vec<String>,
    /// What is set.
    pub set: &'a [Assignment],
    /// For which rows; all when there is none.
    pub condition: Option<&'a str>,
    /// The columns that expressions and condition read, without those that are set.
    pub reads: Vec<&'a ColumnFacts>,
    /// The column whose type is changed, where that is what it is for: a value that does not fit becomes NULL.
    pub retyped: Option<&'a Ident>,
    /// What an INSERT does first: a statement of PL/pgSQL.
    pub first: Option<String>,
}

impl Sync<'_> {
    /// The argument of the triggers.
    pub fn arguments(&self) -> Arguments {
        let meaning: Vec<&str> = (self.set.iter())
            .flat_map(|assignment| [assignment.column.as_str(), &assignment.value])
            .chain(self.condition)
            .collect();
        Arguments {
            set: (self.set.iter()).map(|a| a.column.as_str().to_owned()).collect(),
            reads: self.reads.iter().map(|c| c.name.as_str().to_owned()).collect(),
            digest: Digest::of(meaning.join("\0").as_bytes()).short(),
            retyped: self.retyped.map(|column| column.as_str().to_owned()),
        }
    }

    /// The function's name, in the schema `confiture`.
    pub fn function(&self) -> Ident {
        let relations = self.relations.join(",");
        let set: Vec<String> = self.set.iter().map(|a| a.column.to_string()).collect();
        let digest = Digest::of(format!("{relations}({})", set.join(",")).as_bytes());
        Ident::exact(format!("sync_{}", digest.short())).expect("17 ASCII characters are a name")
    }

    /// Creates the function and its triggers.
    pub fn create(&self) -> Vec<String> {
        let function = self.function();
        let arguments = serde_json::to_string(&self.arguments()).expect("texts are JSON");
        let mut statements = vec![self.create_function(&function)];
        let touched: Vec<String> = (self.set.iter().map(|a| &a.column))
            .chain(self.reads.iter().map(|c| &c.name))
            .map(|column| format!("NEW.{column} IS NULL"))
            .collect();
        let touched = touched.join(" OR ");
        let changed: Vec<String> = self.reads.iter().map(|column| differs(column)).collect();
        for relation in &self.relations {
            let trigger = |event: &str, name: &Ident, when: &str| {
                format!(
                    "CREATE TRIGGER {name} BEFORE {event} ON {relation} FOR EACH ROW WHEN ({when}) \
                     EXECUTE FUNCTION confiture.{function}({})",
                    super::literal(&arguments)
                )
            };
            let [insert, update] = triggers(&function);
            statements.push(trigger("INSERT", &insert, &format!("true OR {touched}")));
            if !changed.is_empty() {
                statements.push(trigger("UPDATE", &update, &changed.join(" OR ")));
            }
        }
        statements
    }

    /// Drops what [`Sync::create`] made.
    pub fn end(&self) -> Vec<String> {
        let function = self.function();
        let [insert, update] = triggers(&function);
        let of = |trigger: &Ident| {
            let on = self.relations.iter();
            on.map(|relation| (relation.clone(), trigger.clone()))
                .collect::<Vec<_>>()
        };
        let update = Some(&update).filter(|_| !self.reads.is_empty());
        let triggers: Vec<_> = std::iter::once(&insert).chain(update).flat_map(of).collect();
        drop_sync(&triggers, &function)
    }

    fn create_function(&self, function: &Ident) -> String {
        let row = self.row(|assignment| format!("NEW.{} AS {}", assignment.column, assignment.column));
        let empty = self.row(|assignment| format!("NULL::{} AS {}", assignment.data_type, assignment.column));
        let values: Vec<String> = (self.set.iter())
            .map(|assignment| {
                let (column, value) = (&assignment.column, &assignment.value);
                let set = format!("  NEW.{column} := (SELECT ({value}\n) FROM {row});\n");
                match self.retyped {
                    None => set,
                    Some(_) => {
                        format!("  BEGIN\n{set}  EXCEPTION WHEN OTHERS THEN NEW.{column} := NULL;\n  END;\n")
                    }
                }
            })
            .collect();
        let guard = self.condition.map_or(String::new(), |condition| {
            format!(
                "  IF TG_OP = 'INSERT' AND (SELECT ({condition}\n) FROM {row}) IS NOT TRUE\n\
                 \x20    OR TG_OP = 'UPDATE' AND (SELECT ({condition}\n) FROM {empty}) IS NOT TRUE THEN\n\
                 \x20   RETURN NEW;\n  END IF;\n"
            )
        });
        let body = format!(
            "#variable_conflict use_column\nBEGIN\n{}{guard}{}  RETURN NEW;\nEND",
            self.first.as_ref().map_or(String::new(), |first| format!(
                "  IF TG_OP = 'INSERT' THEN\n    {first}\n  END IF;\n"
            )),
            values.concat()
        );
        // The functions that the expressions call are found as they are here, whoever writes the row.
        format!(
            "CREATE OR REPLACE FUNCTION confiture.{function}() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS {}",
            super::literal(&body)
        )
    }

    /// The row's columns that matter, under the table's name.
    fn row(&self, set: impl Fn(&Assignment) -> String) -> String {
        let reads = (self.reads.iter()).map(|column| format!("NEW.{} AS {}", column.name, column.name));
        let columns: Vec<String> = reads.chain(self.set.iter().map(set)).collect();
        format!("(SELECT {}) AS {}", columns.join(", "), self.table)
    }
}

/// The names of a function's triggers. PostgreSQL fires in the order of names: other triggers that change the row come
/// before.
fn triggers(function: &Ident) -> [Ident; 2] {
    ["insert", "update"].map(|event| {
        Ident::exact(format!("zzz_confiture_{}_{event}", function.as_str()))
            .expect("38 ASCII characters are a name")
    })
}

/// Drops what [`Sync::create`] made. `triggers`: the relation, quoted in full, and the trigger.
pub fn drop_sync(triggers: &[(String, Ident)], function: &Ident) -> Vec<String> {
    (triggers.iter())
        .map(|(relation, trigger)| format!("DROP TRIGGER {trigger} ON {relation}"))
        .chain([format!("DROP FUNCTION confiture.{function}()")])
        .collect()
}

/// A row of the table as if the columns that are set were still empty, under the table's name, for a sub-select over it.
pub fn as_if_empty(table: &Ident, set: &[Assignment], reads: &[&ColumnFacts]) -> String {
    let reads = (reads.iter()).map(|column| format!("{table}.{} AS {}", column.name, column.name));
    let empty = (set.iter()).map(|a| format!("NULL::{} AS {}", a.data_type, a.column));
    let columns: Vec<String> = reads.chain(empty).collect();
    format!("(SELECT {}) AS {table}", columns.join(", "))
}

fn differs(column: &ColumnFacts) -> String {
    let name = &column.name;
    match comparison(column) {
        Comparison::Direct => format!("OLD.{name} IS DISTINCT FROM NEW.{name}"),
        Comparison::AsText => {
            format!("OLD.{name}::pg_catalog.text IS DISTINCT FROM NEW.{name}::pg_catalog.text")
        }
    }
}

/// How two values of a column are compared.
pub fn comparison(column: &ColumnFacts) -> Comparison {
    match column.ordering {
        Ordering::Exact | Ordering::Float | Ordering::Nondeterministic => Comparison::Direct,
        Ordering::None => Comparison::AsText,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Nullability, Source};

    fn ident(name: &str) -> Ident {
        Ident::exact(name).unwrap()
    }

    fn column(name: &str, ordering: Ordering) -> ColumnFacts {
        ColumnFacts {
            name: ident(name),
            data_type: "numeric".to_owned(),
            collation: None,
            nullability: Nullability::Nullable,
            source: Source::Plain,
            ordering,
        }
    }

    #[test]
    fn only_changes_of_what_is_read_call_the_function() {
        let (total, note) = (column("total", Ordering::Exact), column("note", Ordering::None));
        let set = [Assignment {
            column: ident("tax"),
            value: "orders.total * 1.2".to_owned(),
            data_type: "numeric(10,2)".to_owned(),
            comparison: Comparison::Direct,
        }];
        let table = ident("orders");
        let sync = Sync {
            table: &table,
            relations: vec!["\"public\".\"orders\"".to_owned()],
            set: &set,
            condition: Some("tax IS NULL"),
            reads: vec![&total, &note],
            retyped: None,
            first: None,
        };
        let [function, insert, update] = sync.create().try_into().unwrap();
        assert!(function.contains("(SELECT NEW.\"total\" AS \"total\", NEW.\"note\" AS \"note\", NEW.\"tax\" AS \"tax\") AS \"orders\""), "{function}");
        assert!(function.contains("NULL::numeric(10,2) AS \"tax\""), "{function}");
        assert!(
            insert.contains("WHEN (true OR NEW.\"tax\" IS NULL OR NEW.\"total\" IS NULL"),
            "{insert}"
        );
        assert!(
            update.contains(
                "WHEN (OLD.\"total\" IS DISTINCT FROM NEW.\"total\" OR \
                 OLD.\"note\"::pg_catalog.text IS DISTINCT FROM NEW.\"note\"::pg_catalog.text)"
            ),
            "{update}"
        );
        assert!(update.contains("\"reads\":[\"note\",\"total\"]"), "{update}");
    }
}
