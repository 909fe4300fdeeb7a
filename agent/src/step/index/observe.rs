//! What the catalog says about an index.

use crate::error::{Error, statement_message};
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use shared::index::{Blocker, Create, Kind, Part, PartKind, Present, Progress, Seen, Worker};
use shared::name::Ident;
use shared::retry::{self, Retryability};
use shared::sql::{Tag, index as texts};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// Which relations are looked for.
pub(super) struct Names<'a> {
    /// The final name, quoted.
    pub(super) exact: String,
    /// What names of ours for it begin with.
    pub(super) starts: Vec<String>,
    /// The schema of those, where it is known.
    pub(super) schema: Option<&'a str>,
}

/// What is there, and who is at work on it.
pub(super) async fn seen(run: &Run<'_>, tag: &Tag, names: &Names<'_>, wanted: &str) -> Result<Seen, Error> {
    let session = run.database.session().await?;
    // Whoever ends between the two looks has left what it left: so first who is at work, then what is there.
    let workers = workers(&session, tag, &names.starts).await?;
    let params = [
        (
            &names.exact as &(dyn tokio_postgres::types::ToSql + Sync),
            Type::TEXT,
        ),
        (&names.starts, Type::TEXT_ARRAY),
        (&names.schema, Type::TEXT),
    ];
    let rows = session
        .query(tag, "looking for the index", &texts::named(), &params)
        .await?;
    let mut seen = Seen {
        workers: workers.into_iter().map(|(worker, _)| worker).collect(),
        wanted: wanted.to_owned(),
        ..Seen::default()
    };
    for row in &rows {
        if row.get(3) {
            seen.named = Some(present(row));
        } else {
            seen.temporary.push(present(row));
        }
    }
    Ok(seen)
}

fn present(row: &Row) -> Present {
    let text = |column: usize| row.get::<_, Option<String>>(column);
    let table = |schema: Option<String>, name: Option<String>| {
        let [schema, name] = [schema, name].map(|part| {
            // A name out of the catalog is one.
            part.and_then(|part| Ident::exact(part).ok())
        });
        schema.zip(name).map(|(schema, name)| format!("{schema}.{name}"))
    };
    let kind = match row.get::<_, &str>(2) {
        "i" => Kind::Index,
        "I" => Kind::Partitioned,
        _ => Kind::Other,
    };
    Present {
        full_name: row.get(0),
        name: row.get(1),
        kind,
        valid: row.get(4),
        essence: text(5).unwrap_or_default(),
        definition: text(6).unwrap_or_default(),
        table: table(text(7), text(8)).unwrap_or_default(),
        constraint: text(9),
        part_of: text(10),
        replica_identity: row.get(11),
        unique: row.get(12),
    }
}

/// Backends at work on an index, with how far they are.
pub(super) async fn workers(
    session: &Session,
    tag: &Tag,
    starts: &[String],
) -> Result<Vec<(Worker, Progress)>, Error> {
    let rows = session
        .query(
            tag,
            "looking for builds",
            texts::WORKERS,
            &[(&starts, Type::TEXT_ARRAY)],
        )
        .await?;
    Ok(rows.iter().map(worker).collect())
}

/// Reads a row of [`texts::WORKERS`].
pub(crate) fn worker(row: &Row) -> (Worker, Progress) {
    let count = |column: usize| {
        row.get::<_, Option<i64>>(column)
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0)
    };
    let worker = Worker {
        pid: row.get(0),
        statement: row
            .get::<_, Option<&str>>(1)
            .map_or_else(String::new, |query| texts::untagged(query).to_owned()),
    };
    let progress = Progress {
        phase: row.get(2),
        blocks: (count(3), count(4)),
        tuples: (count(5), count(6)),
        waits: row.get(7),
        blocker: row.get::<_, Option<i32>>(8).map(|pid| Blocker {
            pid,
            user: row.get(9),
            application: row.get(10),
            state: row.get(11),
            age: row.get(12),
            query: row.get(13),
        }),
    };
    (worker, progress)
}

/// A partitioned table and all its partitions, parents first.
pub(super) async fn parts(run: &Run<'_>, tag: &Tag, whole: &Create) -> Result<Vec<Part>, Error> {
    let session = run.database.session().await?;
    let (table, index) = (whole.full_table(), whole.full_name());
    let rows = session
        .query(
            tag,
            "looking for partitions",
            texts::PARTS,
            &[(&table, Type::TEXT), (&index, Type::TEXT)],
        )
        .await?;
    rows.iter().map(part).collect()
}

fn part(row: &Row) -> Result<Part, Error> {
    let ident = |column: usize| {
        Ident::exact(row.get::<_, String>(column)).map_err(|_| Error::Broken("the catalog gave no name"))
    };
    Ok(Part {
        schema: ident(0)?,
        name: ident(1)?,
        kind: match row.get::<_, &str>(2) {
            "p" => PartKind::Partitioned,
            _ => PartKind::Leaf,
        },
        index: row.get(3),
        valid: row.get(4),
        parent_index: row.get(5),
    })
}

/// What a definition means on its table, in the server's own words: an empty copy of the table gets the index, in a
/// transaction that is rolled back. What the server would refuse it refuses here, before anything is begun.
pub(super) async fn essence(run: &Run<'_>, tag: &Tag, create: &Create) -> Result<String, Error> {
    let mut session = run.database.session().await?;
    let essence = copy(&mut session, tag, create).await;
    session.rollback(tag).await;
    essence
}

async fn copy(session: &mut Session, tag: &Tag, create: &Create) -> Result<String, Error> {
    let doing = "asking what the index means";
    session
        .begin_with(tag, ledger::book_limits(), doing, "SELECT 1", &[])
        .await?;
    let copy = format!("{tag}{}", texts::shape(&create.schema, &create.table));
    session
        .client()
        .batch_execute(&copy)
        .await
        .map_err(Error::statement("making an empty copy of the table"))?;
    let index = texts::shape_index(&create.table, &create.definition);
    session
        .client()
        .batch_execute(&format!("{tag}{index}"))
        .await
        .map_err(|error| refused(&error, create))?;
    let rows = session.query(tag, doing, &texts::shape_essence(), &[]).await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or(Error::Broken("an index that was just created is not there"))
}

/// The server's complaint, about the statement as people know it.
pub(super) fn refused(error: &tokio_postgres::Error, create: &Create) -> Error {
    let code = error.code().map(|code| code.code().to_owned());
    let retry = code.as_deref().map_or(Retryability::Retry, retry::of_sqlstate);
    Error::User {
        message: format!(
            "{}\nin the statement: {}",
            statement_message(error),
            create
                .statement(&create.name)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        ),
        code,
        retry,
    }
}
