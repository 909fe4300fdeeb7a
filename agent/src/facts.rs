//! Reads the facts of the tables a step names.

use crate::error::Error;
use crate::session::{Params, Session};
use serde::Deserialize;
use shared::migration::Change;
use shared::name::{Ident, Table};
use shared::plan::{
    CheckFacts, ColumnFacts, Facts, Lookup, Nullability, Ordering, RelationKind, Source, TableFacts,
};
use shared::sql::{self, Commit, Limits, Tag};
use std::time::Duration;
use tokio_postgres::types::Type;

/// How long looking into the catalog may take; it waits for no lock but that of a catalog being rewritten.
const LIMITS: Limits = Limits {
    lock: Duration::from_secs(5),
    statement: Some(Duration::from_secs(15)),
    commit: Commit::Deferred,
};

/// Adds the facts of all tables of a step that are not known yet.
pub(crate) async fn inspect(
    session: &mut Session,
    tag: &Tag,
    change: &Change,
    facts: &mut Facts,
) -> Result<(), Error> {
    for table in change.tables() {
        if !facts.tables.contains_key(table) {
            let lookup = look_up(session, tag, table).await?;
            facts.tables.insert(table.clone(), lookup);
        }
    }
    Ok(())
}

async fn look_up(session: &mut Session, tag: &Tag, table: &Table) -> Result<Lookup, Error> {
    let (quoted, name) = (table.to_string(), table.name.as_str());
    let schema = table.schema.as_ref().map(Ident::as_str);
    let params: Params<'_> = &[(&quoted, Type::TEXT), (&name, Type::TEXT), (&schema, Type::TEXT)];
    // In a transaction, so that names lead where they lead in the step's own.
    let rows = session
        .begin_with(tag, LIMITS, "reading the catalog", sql::facts::TABLE, params)
        .await;
    session.rollback(tag).await;
    let rows = rows?;
    let row = rows.first().ok_or(Error::Broken("the catalog gave no answer"))?;
    match row.get::<_, Option<String>>(0) {
        Some(json) => {
            let found: Relation = serde_json::from_str(&json)
                .map_err(|_| Error::Broken("the catalog's answer cannot be read"))?;
            Ok(Lookup::Found(found.into()))
        }
        None => Ok(Lookup::Missing { similar: row.get(1) }),
    }
}

/// As [`sql::facts::TABLE`] gives it.
#[derive(Deserialize)]
struct Relation {
    schema: String,
    name: String,
    kind: char,
    estimated_rows: u64,
    bytes: u64,
    columns: Vec<Column>,
    primary_key: Vec<String>,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the catalog's answers, turned into enums at once"
)]
struct Column {
    name: String,
    data_type: String,
    not_null: bool,
    generated: bool,
    growing: bool,
    ordered: bool,
    floating: bool,
    loose: bool,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    definition: String,
    validated: bool,
}

fn ident(name: String) -> Ident {
    Ident::exact(name).expect("a name out of the catalog is a name")
}

impl From<Relation> for TableFacts {
    fn from(relation: Relation) -> Self {
        Self {
            schema: ident(relation.schema),
            name: ident(relation.name),
            kind: match relation.kind {
                'r' => RelationKind::Table,
                'p' => RelationKind::Partitioned,
                'v' => RelationKind::Other("view"),
                'm' => RelationKind::Other("materialized view"),
                'f' => RelationKind::Other("foreign table"),
                'S' => RelationKind::Other("sequence"),
                'i' | 'I' => RelationKind::Other("index"),
                _ => RelationKind::Other("relation without rows of its own"),
            },
            columns: relation.columns.into_iter().map(Into::into).collect(),
            primary_key: relation.primary_key.into_iter().map(ident).collect(),
            checks: (relation.checks.into_iter())
                .map(|c| CheckFacts {
                    name: ident(c.name),
                    definition: c.definition,
                    validated: c.validated,
                })
                .collect(),
            estimated_rows: relation.estimated_rows,
            bytes: relation.bytes,
        }
    }
}

impl From<Column> for ColumnFacts {
    fn from(column: Column) -> Self {
        let source = if column.generated {
            Source::Generated
        } else if column.growing {
            Source::Growing
        } else {
            Source::Plain
        };
        let ordering = if column.floating {
            Ordering::Float
        } else if column.loose {
            Ordering::Nondeterministic
        } else if column.ordered {
            Ordering::Exact
        } else {
            Ordering::None
        };
        Self {
            name: ident(column.name),
            data_type: column.data_type,
            nullability: if column.not_null {
                Nullability::NotNull
            } else {
                Nullability::Nullable
            },
            source,
            ordering,
        }
    }
}
