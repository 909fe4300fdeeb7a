//! The change on an empty copy of the table: what PostgreSQL would refuse it refuses there, before anything is begun.

use super::carry::Carry;
use crate::lock::Mode;
use crate::name::Ident;
use crate::plan::{Action, Refusal, Transaction};
use crate::sql::{TypeName, list};

/// Gone with the transaction, as are the copies of tables that have foreign keys with it.
const COPY: &str = "pg_temp.confiture_copy";

/// A transaction that makes the copy, changes it in every way, and leaves nothing. `back` is the expression for the old
/// value, where the author wrote one.
pub(super) fn transaction(
    carry: &Carry<'_>,
    data_type: &TypeName,
    back: Option<&str>,
) -> Result<Action, Refusal> {
    let (live, other, value) = (&carry.live.name, &carry.other.name, &carry.value);
    let table = carry.table.full_name();
    let mut statements = vec![
        format!("CREATE TEMPORARY TABLE {COPY} (LIKE {table}) ON COMMIT DROP"),
        format!("ALTER TABLE {COPY} ADD COLUMN {other} {}", data_type.as_str()),
        format!("UPDATE {COPY} AS {} SET {other} = {value}\n", carry.table.name),
    ];
    if let Some(back) = back {
        let columns: Vec<String> = (carry.table.columns.iter())
            .map(|column| {
                let from = if column.name == *live { other } else { &column.name };
                format!("{from} AS {}", column.name)
            })
            .collect();
        statements.push(format!(
            "INSERT INTO {COPY} ({live}) SELECT {back}\n FROM (SELECT {} FROM {COPY}) AS {}",
            columns.join(", "),
            carry.table.name
        ));
    }
    if let Some(default) = &carry.uses.default {
        statements.push(format!(
            "ALTER TABLE {COPY} ALTER COLUMN {other} SET DEFAULT ({default}\n)"
        ));
    }
    for check in &carry.uses.checks {
        let check = carry.understood(check.over(live, other))?;
        statements.push(format!("ALTER TABLE {COPY} ADD CHECK ({}\n)", check.text()));
    }
    for index in &carry.uses.indexes {
        let definition = carry.understood(index.over(live, other))?;
        let unique = if definition.unique { "UNIQUE " } else { "" };
        statements.push(format!("CREATE {unique}INDEX ON {COPY} {}", definition.as_sql()));
    }
    for (number, key) in carry.uses.foreign_keys.iter().enumerate() {
        let renamed = |columns: &[Ident], of: &str| {
            let renamed = columns
                .iter()
                .map(|name| if of == table && name == live { other } else { name }.clone());
            list(&renamed.collect::<Vec<_>>())
        };
        let (columns, referenced) = (
            renamed(&key.columns, &key.relation),
            renamed(&key.referenced, &key.references),
        );
        let [from, to] = [(&key.relation, 'f'), (&key.references, 't')].map(|(relation, side)| {
            if *relation == table {
                COPY.to_owned()
            } else {
                let copy = format!("pg_temp.confiture_copy_{number}_{side}");
                statements.push(format!(
                    "CREATE TEMPORARY TABLE {copy} (LIKE {relation}) ON COMMIT DROP"
                ));
                copy
            }
        });
        statements.push(format!("CREATE UNIQUE INDEX ON {to} ({referenced})"));
        statements.push(format!(
            "ALTER TABLE {from} ADD FOREIGN KEY ({columns}) REFERENCES {to} ({referenced})"
        ));
    }
    Ok(Action::Transaction(
        Transaction::bounded_all(statements).locking(Mode::IndexOnly),
    ))
}
