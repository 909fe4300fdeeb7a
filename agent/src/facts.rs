//! Reads the facts of the tables a step names.

use crate::error::Error;
use crate::session::{Params, Session};
use serde::Deserialize;
use shared::migration::{Change, expression::Expression};
use shared::name::{Ident, Table};
use shared::plan::{
    CheckFacts, ColumnFacts, ColumnUses, Dependent, EnumFacts, Facts, ForeignKeyFacts, KeyFacts, Lookup,
    MATERIALIZED_VIEW, Nullability, Nulls, Ordering, PartFacts, RelationKind, Sort, SortDirection, Source,
    Storage, SyncFacts, TableFacts, TypeLookup, UniqueKeyFacts, UniqueKeyKind,
};
use shared::retry::Retryability;
use shared::sql::{self, Commit, Limits, Tag, TypeName};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio_postgres::types::Type;

/// How long looking into the catalog may take; it waits for those only that keep even readers out of a table.
const LIMITS: Limits = Limits {
    lock: Duration::from_secs(5),
    statement: Some(Duration::from_secs(15)),
    commit: Commit::Deferred,
};

/// Adds the facts of all tables and types of a step that are not known yet.
pub(crate) async fn inspect(
    session: &mut Session,
    tag: &Tag,
    change: &Change,
    facts: &mut Facts,
) -> Result<(), Error> {
    inspect_within(session, tag, change, facts, LIMITS.lock).await
}

/// The same, waiting no longer for those that keep even readers out: one look of the catalog opens the table.
pub(crate) async fn inspect_within(
    session: &mut Session,
    tag: &Tag,
    change: &Change,
    facts: &mut Facts,
    lock: Duration,
) -> Result<(), Error> {
    let limits = Limits { lock, ..LIMITS };
    let functions: BTreeSet<&str> = change.expressions().iter().flat_map(|e| e.functions()).collect();
    for table in change.tables() {
        if !facts.tables.contains_key(table) || !functions.is_empty() {
            let found = look_up(session, tag, limits, table, &functions).await?;
            facts.server_version = found.server_version;
            facts.volatile.extend(found.volatile);
            facts.schema = found.schema;
            facts.tables.entry(table.clone()).or_insert(found.lookup);
        }
    }
    let relations: BTreeSet<&Table> = (change.expressions().iter())
        .flat_map(|e| e.relations())
        .collect();
    if !relations.is_empty() {
        for table in change.tables() {
            let same = same_rows(session, tag, limits, table, &relations).await?;
            facts.same_rows.extend(same.map(|same| (table.clone(), same)));
        }
    }
    for (table, column) in change.columns() {
        let key = (table.clone(), column);
        if facts.find(table).is_some() && !facts.uses.contains_key(&key) {
            let uses = look_up_column(session, tag, limits, table, &key.1).await?;
            facts.uses.extend(uses.map(|uses| (key, uses)));
        }
    }
    for data_type in change.data_types() {
        if !facts.type_names.contains_key(data_type.as_str()) {
            let name = name_of_type(session, tag, limits, data_type).await?;
            facts.type_names.insert(data_type.as_str().to_owned(), name);
        }
    }
    for name in change.types() {
        if !facts.types.contains_key(name) {
            let found = look_up_type(session, tag, limits, name).await?;
            facts.types.insert(name.clone(), found);
        }
    }
    Ok(())
}

/// What one look into the catalog gives.
struct Found {
    lookup: Lookup,
    server_version: u32,
    volatile: Vec<String>,
    schema: Option<Ident>,
}

async fn look_up(
    session: &mut Session,
    tag: &Tag,
    limits: Limits,
    table: &Table,
    functions: &BTreeSet<&str>,
) -> Result<Found, Error> {
    let (quoted, name) = (table.to_string(), table.name.as_str());
    let schema = table.schema.as_ref().map(Ident::as_str);
    let functions: Vec<&str> = functions.iter().copied().collect();
    let params: Params<'_> = &[
        (&quoted, Type::TEXT),
        (&name, Type::TEXT),
        (&schema, Type::TEXT),
        (&functions, Type::TEXT_ARRAY),
    ];
    // In a transaction, so that names lead where they lead in the step's own.
    let rows = session
        .begin_with(tag, limits, "reading the catalog", sql::facts::TABLE, params)
        .await;
    session.rollback(tag).await;
    let rows = rows?;
    let row = rows.first().ok_or(Error::Broken("the catalog gave no answer"))?;
    let lookup = match row.get::<_, Option<String>>(0) {
        Some(json) => {
            let found: Relation = serde_json::from_str(&json)
                .map_err(|_| Error::Broken("the catalog's answer cannot be read"))?;
            Lookup::Found(Box::new(found.into()))
        }
        None => Lookup::Missing { similar: row.get(1) },
    };
    Ok(Found {
        lookup,
        server_version: u32::try_from(row.get::<_, i32>(2)).unwrap_or(0),
        volatile: row.get(3),
        schema: row.get::<_, Option<String>>(4).map(ident),
    })
}

/// Those of the relations that show rows of the table.
async fn same_rows<'a>(
    session: &mut Session,
    tag: &Tag,
    limits: Limits,
    table: &Table,
    relations: &'a BTreeSet<&Table>,
) -> Result<impl Iterator<Item = Table> + use<'a>, Error> {
    let written: Vec<String> = relations.iter().map(ToString::to_string).collect();
    let table = table.to_string();
    let params: Params<'_> = &[(&table, Type::TEXT), (&written, Type::TEXT_ARRAY)];
    let rows = session
        .begin_with(tag, limits, "reading the catalog", sql::facts::SAME_ROWS, params)
        .await;
    session.rollback(tag).await;
    let found: BTreeSet<String> = rows?.iter().map(|row| row.get(0)).collect();
    Ok((relations.iter())
        .filter(move |relation| found.contains(&relation.to_string()))
        .map(|relation| (*relation).clone()))
}

async fn look_up_type(
    session: &mut Session,
    tag: &Tag,
    limits: Limits,
    name: &Table,
) -> Result<TypeLookup, Error> {
    let (quoted, plain) = (name.to_string(), name.name.as_str());
    let schema = name.schema.as_ref().map(Ident::as_str);
    let params: Params<'_> = &[(&quoted, Type::TEXT), (&plain, Type::TEXT), (&schema, Type::TEXT)];
    let rows = session
        .begin_with(tag, limits, "reading the catalog", sql::facts::TYPE, params)
        .await;
    session.rollback(tag).await;
    let rows = rows?;
    let row = rows.first().ok_or(Error::Broken("the catalog gave no answer"))?;
    Ok(
        match (row.get::<_, Option<String>>(0), row.get::<_, Option<String>>(1)) {
            (Some(schema), Some(name)) if row.get(2) => TypeLookup::Enum(EnumFacts {
                schema: ident(schema),
                name: ident(name),
                values: row.get(3),
            }),
            (Some(_), Some(_)) => TypeLookup::Other,
            (None, _) | (_, None) => TypeLookup::Missing { similar: row.get(4) },
        },
    )
}

async fn look_up_column(
    session: &mut Session,
    tag: &Tag,
    limits: Limits,
    table: &Table,
    column: &Ident,
) -> Result<Option<ColumnUses>, Error> {
    let (table, column) = (table.to_string(), vec![column.as_str()]);
    let params: Params<'_> = &[(&table, Type::TEXT), (&column, Type::TEXT_ARRAY)];
    let rows = session
        .begin_with(tag, limits, "reading the catalog", sql::uses::COLUMNS, params)
        .await;
    session.rollback(tag).await;
    let rows = rows?;
    let Some(json) = rows.first().and_then(|row| row.get::<_, Option<String>>(0)) else {
        return Ok(None);
    };
    let found: BTreeMap<Ident, ColumnUses> =
        serde_json::from_str(&json).map_err(|_| Error::Broken("the catalog's answer cannot be read"))?;
    Ok(found.into_values().next())
}

/// As the catalog names it, or why there is no such type.
async fn name_of_type(
    session: &mut Session,
    tag: &Tag,
    limits: Limits,
    data_type: &TypeName,
) -> Result<Result<String, String>, Error> {
    let doing = "asking for a type";
    let asked = async {
        session.begin_with(tag, limits, doing, "SELECT", &[]).await?;
        let table = format!("{tag}{}", sql::uses::of_type(data_type.as_str()));
        let made = session.client().batch_execute(&table).await;
        made.map_err(Error::statement(doing))?;
        session.query(tag, doing, sql::uses::NAME_OF_TYPE, &[]).await
    };
    let asked = asked.await;
    session.rollback(tag).await;
    match asked {
        Ok(rows) => (rows.first())
            .map(|row| Ok(row.get(0)))
            .ok_or(Error::Broken("a type without a name")),
        Err(error) if error.retryability() == Retryability::GiveUp && error.sqlstate().is_some() => {
            Ok(Err(error.to_string()))
        }
        Err(error) => Err(error),
    }
}

/// As [`sql::facts::TABLE`] gives it.
#[derive(Deserialize)]
struct Relation {
    schema: String,
    name: String,
    kind: char,
    columns: Vec<Column>,
    parts: Vec<Part>,
    partition_columns: Vec<String>,
    partition_expressions: Vec<String>,
    syncs: Vec<Trigger>,
    checks: Vec<Check>,
    foreign_keys: Vec<ForeignKey>,
    unique_keys: Vec<UniqueKey>,
    dependents: Vec<Needing>,
}

#[derive(Deserialize)]
struct Part {
    oid: u32,
    schema: String,
    name: String,
    foreign: bool,
    keys: Vec<Vec<Key>>,
    estimated_rows: u64,
    blocks: u64,
    row_security: bool,
    unvalidated_checks: Vec<String>,
    foreign_keys: Vec<ForeignKey>,
}

#[derive(Deserialize)]
struct Key {
    column: String,
    descending: bool,
    nulls_first: bool,
}

#[derive(Deserialize)]
struct Trigger {
    relation: String,
    name: String,
    function: String,
    arguments: sql::sync::Arguments,
}

#[derive(Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the catalog's answers, turned into enums at once"
)]
struct Column {
    name: String,
    data_type: String,
    collation: Option<String>,
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

/// Something that needs a table.
#[derive(Deserialize)]
struct Needing {
    kind: String,
    schema: String,
    name: String,
    constraint: Option<String>,
}

#[derive(Deserialize)]
struct ForeignKey {
    name: String,
    validated: bool,
}

#[derive(Deserialize)]
struct UniqueKey {
    columns: Vec<String>,
    primary: bool,
}

fn ident(name: String) -> Ident {
    Ident::exact(name).expect("a name out of the catalog is a name")
}

fn idents<C: FromIterator<Ident>>(names: impl IntoIterator<Item = String>) -> C {
    names.into_iter().map(ident).collect()
}

impl From<Relation> for TableFacts {
    fn from(relation: Relation) -> Self {
        let mut partition_columns: BTreeSet<Ident> = idents(relation.partition_columns);
        for expressions in &relation.partition_expressions {
            match Expression::parse(&format!("ROW({expressions})")) {
                Ok(read) => partition_columns.extend(read.columns().cloned()),
                // Not to be understood: any column may be among them.
                Err(_) => partition_columns.extend(relation.columns.iter().map(|c| ident(c.name.clone()))),
            }
        }
        Self {
            schema: ident(relation.schema),
            name: ident(relation.name),
            kind: match relation.kind {
                'r' => RelationKind::Table,
                'p' => RelationKind::Partitioned,
                'v' => RelationKind::Other("view"),
                'm' => RelationKind::Other(MATERIALIZED_VIEW),
                'f' => RelationKind::Other("foreign table"),
                'S' => RelationKind::Other("sequence"),
                'i' | 'I' => RelationKind::Other("index"),
                _ => RelationKind::Other("relation without rows of its own"),
            },
            columns: relation.columns.into_iter().map(Into::into).collect(),
            parts: relation.parts.into_iter().map(Into::into).collect(),
            partition_columns,
            syncs: syncs(relation.syncs),
            checks: (relation.checks.into_iter())
                .map(|c| CheckFacts {
                    name: ident(c.name),
                    definition: c.definition,
                    validated: c.validated,
                })
                .collect(),
            foreign_keys: relation.foreign_keys.into_iter().map(Into::into).collect(),
            unique_keys: relation.unique_keys.into_iter().map(Into::into).collect(),
            dependents: relation.dependents.into_iter().map(Into::into).collect(),
        }
    }
}

/// The triggers by their functions.
fn syncs(triggers: Vec<Trigger>) -> Vec<SyncFacts> {
    let mut syncs: Vec<SyncFacts> = Vec::new();
    for trigger in triggers {
        let function = ident(trigger.function);
        let on = (trigger.relation, ident(trigger.name));
        match syncs.iter_mut().find(|sync| sync.function == function) {
            Some(sync) => sync.triggers.push(on),
            None => syncs.push(SyncFacts {
                function,
                triggers: vec![on],
                columns: idents(trigger.arguments.set),
                reads: idents(trigger.arguments.reads),
                digest: trigger.arguments.digest,
                retyped: trigger.arguments.retyped.map(ident),
            }),
        }
    }
    syncs
}

impl From<Part> for PartFacts {
    fn from(part: Part) -> Self {
        let storage = if part.foreign {
            Storage::Foreign
        } else {
            Storage::Local
        };
        Self {
            oid: part.oid,
            schema: ident(part.schema),
            name: ident(part.name),
            storage,
            keys: (part.keys.into_iter())
                .map(|key| key.into_iter().map(Into::into).collect())
                .collect(),
            estimated_rows: part.estimated_rows,
            blocks: part.blocks,
            row_security: part.row_security,
            unvalidated_checks: idents(part.unvalidated_checks),
            foreign_keys: part.foreign_keys.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Needing> for Dependent {
    fn from(needing: Needing) -> Self {
        let (schema, name) = (ident(needing.schema), ident(needing.name));
        let constraint = needing.constraint.map(ident);
        let what = match &constraint {
            Some(constraint) => format!("{} {constraint} of {schema}.{name}", needing.kind),
            None => format!("{} {schema}.{name}", needing.kind),
        };
        Self {
            what,
            schema,
            name,
            constraint,
        }
    }
}

impl From<ForeignKey> for ForeignKeyFacts {
    fn from(key: ForeignKey) -> Self {
        Self {
            name: ident(key.name),
            validated: key.validated,
        }
    }
}

impl From<UniqueKey> for UniqueKeyFacts {
    fn from(key: UniqueKey) -> Self {
        Self {
            columns: idents(key.columns),
            kind: if key.primary {
                UniqueKeyKind::Primary
            } else {
                UniqueKeyKind::Unique
            },
        }
    }
}

impl From<Key> for KeyFacts {
    fn from(key: Key) -> Self {
        Self {
            column: ident(key.column),
            sort: Sort {
                direction: if key.descending {
                    SortDirection::Descending
                } else {
                    SortDirection::Ascending
                },
                nulls: if key.nulls_first {
                    Nulls::First
                } else {
                    Nulls::Last
                },
            },
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
            collation: column.collation,
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
