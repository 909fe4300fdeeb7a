//! One connection out of a pool, with at most one transaction of ours on it.
//!
//! A connection goes back to its pool only when no transaction is open and nothing failed on it; otherwise it is closed.
//! Statements are sent unnamed, so they work behind a pooler in transaction mode; but for those of batches, where the
//! server's session is known to be ours alone.

use crate::error::Error;
use crate::pool::Object;
use crate::pooler;
use shared::sql::{self, Limits, Tag};
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

/// A statement's parameters with their types.
pub(crate) type Params<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// After how long without an answer it is said that we wait. Statements that are to wait for longer are not sent this way.
const LATE: Duration = Duration::from_secs(5);

/// One connection out of a pool.
pub(crate) struct Session {
    // Always there; taken only when it is closed.
    object: Option<Object>,
    state: State,
}

/// A statement to be run.
pub(crate) enum Ready<'t> {
    /// The server keeps it.
    Kept(Statement),
    /// The server reads it anew.
    New(&'t str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Clean,
    /// A transaction is open, or its end was not seen, or the session was changed: not to be used again.
    Doubtful,
}

/// Of a session's connection.
const THERE: &str = "the connection is taken only when the session is dropped";

impl Session {
    pub(crate) fn new(object: Object) -> Self {
        Self {
            object: Some(object),
            state: State::Clean,
        }
    }

    /// Of a connection that was opened with settings of its own: it is closed after use.
    pub(crate) fn used_once(object: Object) -> Self {
        Self {
            object: Some(object),
            state: State::Doubtful,
        }
    }

    pub(crate) fn client(&self) -> &tokio_postgres::Client {
        self.object()
    }

    fn object(&self) -> &Object {
        self.object.as_ref().expect(THERE)
    }

    fn object_mut(&mut self) -> &mut Object {
        self.object.as_mut().expect(THERE)
    }

    /// Opens a transaction and, in the same flight, runs a first statement in it.
    pub(crate) async fn begin_with(
        &mut self,
        tag: &Tag,
        limits: Limits,
        doing: &'static str,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        self.open_with(sql::begin(tag, limits), tag, doing, statement, params)
            .await
    }

    /// The same for a transaction of the ledger alone.
    pub(crate) async fn begin_books_with(
        &mut self,
        tag: &Tag,
        limits: Limits,
        doing: &'static str,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        self.open_with(sql::begin_books(tag, limits), tag, doing, statement, params)
            .await
    }

    /// The same as [`Self::begin_with`] for a transaction that is one of many: see [`Database::busy_session`].
    ///
    /// [`Database::busy_session`]: crate::database::Database::busy_session
    pub(crate) async fn begin_often_with(
        &mut self,
        tag: &Tag,
        limits: Limits,
        doing: &'static str,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        let (settings, first) = (sql::settings(tag, limits), format!("{tag}{statement}"));
        let object = self.object();
        if let (true, Some(settings), Some(first)) = (
            object.standing().is_own(),
            object.kept(&settings),
            object.kept(&first),
        ) && let Some(rows) = self.begin_kept(tag, doing, [&settings, &first], params).await?
        {
            return Ok(rows);
        }
        let rows = Box::pin(self.begin_with(tag, limits, doing, statement, params)).await?;
        if self.object().standing().is_own() {
            // For the next one, and within the limits of this one.
            let keeping = Box::pin(self.keep_beginning(&settings, &first, params));
            keeping.await.map_err(Error::statement(doing))?;
        }
        Ok(rows)
    }

    /// Opens a transaction by statements that the server keeps: one that sets its limits and gives the session's mark, and a
    /// first one. `None`, and no transaction, where the session turns out to be somebody else's.
    async fn begin_kept(
        &mut self,
        tag: &Tag,
        doing: &'static str,
        [settings, first]: [&Statement; 2],
        params: Params<'_>,
    ) -> Result<Option<Vec<Row>>, Error> {
        self.state = State::Doubtful;
        let (client, opening, values) = (self.client(), sql::begin_alone(tag), values(params));
        let all = async {
            tokio::join!(
                biased;
                client.batch_execute(&opening),
                client.query(settings, &[]),
                client.query(first, &values),
            )
        };
        let (begun, set, rows) = answered(doing, Box::pin(all)).await;
        begun.map_err(pooler::not_begun(doing))?;
        // There other statements may have these names: what they did is rolled back.
        if !set.is_ok_and(|set| self.object().standing().is_of(&set)) {
            self.end_of_look(tag).await?;
            self.object_mut().set_lent();
            return Ok(None);
        }
        rows.map(Some).map_err(Error::statement(doing))
    }

    /// Lets the server keep what transactions of this kind begin with, if the session is ours in this one.
    async fn keep_beginning(
        &mut self,
        settings: &str,
        first: &str,
        params: Params<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        let answered = self.client().query_typed(sql::pooler::MARK, &[]).await?;
        let object = self.object_mut();
        if object.standing().is_of(&answered) {
            object.keep(settings, &[]).await?;
            object.keep(first, &types(params)).await?;
        } else {
            object.set_lent();
        }
        Ok(())
    }

    async fn open_with(
        &mut self,
        opening: String,
        tag: &Tag,
        doing: &'static str,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        self.state = State::Doubtful;
        let first = format!("{tag}{statement}");
        let client = self.client();
        let both = async {
            tokio::join!(
                biased;
                client.batch_execute(&opening),
                client.query_typed(&first, params),
            )
        };
        let (begun, rows) = answered(doing, Box::pin(both)).await;
        begun.map_err(pooler::not_begun(doing))?;
        rows.map_err(Error::statement(doing))
    }

    /// Opens a transaction that sees one moment and changes nothing.
    pub(crate) async fn begin_reading(
        &mut self,
        tag: &Tag,
        limits: Limits,
        doing: &'static str,
    ) -> Result<(), Error> {
        self.state = State::Doubtful;
        let opening = sql::begin_reading(tag, limits);
        let begun = answered(doing, Box::pin(self.client().batch_execute(&opening))).await;
        begun.map_err(pooler::not_begun(doing))
    }

    /// A transaction of one statement of the ledger, in one flight; how many rows it changed.
    pub(crate) async fn only(
        &mut self,
        tag: &Tag,
        limits: Limits,
        doing: &'static str,
        statement: &str,
        params: Params<'_>,
    ) -> Result<u64, Error> {
        self.state = State::Doubtful;
        let client = self.client();
        let (opening, end) = (sql::begin_books(tag, limits), format!("{tag}COMMIT"));
        let statement = format!("{tag}{statement}");
        let (begun, done, ended) = tokio::join!(
            biased;
            client.batch_execute(&opening),
            client.execute_typed(&statement, params),
            // After a failed statement PostgreSQL takes it for a ROLLBACK.
            client.batch_execute(&end),
        );
        begun.map_err(pooler::not_begun(doing))?;
        let rows = done.map_err(Error::statement(doing))?;
        ended.map_err(Error::statement(doing))?;
        self.state = State::Clean;
        Ok(rows)
    }

    /// Runs a statement of ours.
    pub(crate) async fn query(
        &self,
        tag: &Tag,
        doing: &'static str,
        statement: &str,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Error> {
        let text = format!("{tag}{statement}");
        answered(doing, Box::pin(self.client().query_typed(&text, params)))
            .await
            .map_err(Error::statement(doing))
    }

    /// Runs a statement of ours and gives the number of rows it changed.
    pub(crate) async fn execute(
        &self,
        tag: &Tag,
        doing: &'static str,
        statement: &str,
        params: Params<'_>,
    ) -> Result<u64, Error> {
        self.client()
            .execute_typed(&format!("{tag}{statement}"), params)
            .await
            .map_err(Error::statement(doing))
    }

    /// A statement (its tag included) that is one of many alike, to be run in a transaction begun by
    /// [`Self::begin_often_with`]: the server keeps it where its session is ours.
    pub(crate) async fn ready<'t>(
        &mut self,
        text: &'t str,
        params: Params<'_>,
    ) -> Result<Ready<'t>, tokio_postgres::Error> {
        let object = self.object_mut();
        if object.standing().is_own() {
            object.keep(text, &types(params)).await.map(Ready::Kept)
        } else {
            Ok(Ready::New(text))
        }
    }

    /// Runs it, and gives the number of rows it changed and how long it took.
    pub(crate) async fn execute_ready(
        &self,
        statement: &Ready<'_>,
        params: Params<'_>,
    ) -> Result<(u64, Duration), tokio_postgres::Error> {
        let begun = Instant::now();
        let changed = match statement {
            Ready::Kept(kept) => self.client().execute(kept, &values(params)).await,
            Ready::New(text) => self.client().execute_typed(text, params).await,
        };
        Ok((changed?, begun.elapsed()))
    }

    /// Runs it, and gives its rows and how long it took.
    pub(crate) async fn query_ready(
        &self,
        statement: &Ready<'_>,
        params: Params<'_>,
    ) -> Result<(Vec<Row>, Duration), tokio_postgres::Error> {
        let begun = Instant::now();
        let found = match statement {
            Ready::Kept(kept) => self.client().query(kept, &values(params)).await,
            Ready::New(text) => self.client().query_typed(text, params).await,
        };
        Ok((found?, begun.elapsed()))
    }

    /// Runs a statement outside a transaction that may take long. Whoever gives up waiting for its end closes the
    /// connection; the server goes on with it.
    pub(crate) async fn outside(&mut self, statement: &str) -> Result<(), tokio_postgres::Error> {
        self.state = State::Doubtful;
        let done = self.client().batch_execute(statement).await;
        self.state = State::Clean;
        done
    }

    /// Ends the transaction. When it fails the outcome is unknown: the next transaction's row lock waits for it.
    pub(crate) async fn commit(&mut self, tag: &Tag) -> Result<(), Error> {
        let done = self.client().batch_execute(&format!("{tag}COMMIT")).await;
        done.map_err(Error::statement("committing"))?;
        self.state = State::Clean;
        Ok(())
    }

    /// Gives the transaction up. A connection that cannot even do that is closed.
    pub(crate) async fn rollback(&mut self, tag: &Tag) {
        // What was held is gone either way.
        let _lost = self.end_of_look(tag).await;
    }

    /// Ends a transaction that changed nothing. An error says that what it held may have been gone for some time.
    pub(crate) async fn end_of_look(&mut self, tag: &Tag) -> Result<(), Error> {
        let done = self.client().batch_execute(&format!("{tag}ROLLBACK")).await;
        done.map_err(Error::statement("ending a look"))?;
        self.state = State::Clean;
        Ok(())
    }

    /// The session was changed by the user's statements: it is closed after use.
    pub(crate) fn spoil(mut self) {
        self.state = State::Doubtful;
    }

    /// Whether the connection can still be used.
    pub(crate) fn is_usable(&self) -> bool {
        self.state == State::Clean && !self.client().is_closed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(mut object) = self.object.take() else {
            return;
        };
        match self.state {
            State::Clean => object.rests(),
            State::Doubtful => drop(Object::take(object)),
        }
    }
}

/// The types of parameters.
fn types(params: Params<'_>) -> Vec<Type> {
    params.iter().map(|(_, kind)| kind.clone()).collect()
}

/// Parameters without their types.
fn values(params: Params<'_>) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|(value, _)| *value).collect()
}

/// Waits for an answer, and says so where it takes long: a pooler lets its clients wait in silence. On the heap: a run of
/// many steps is one future.
async fn answered<T>(doing: &'static str, mut answer: Pin<Box<impl Future<Output = T>>>) -> T {
    if let Ok(answer) = tokio::time::timeout(LATE, &mut answer).await {
        return answer;
    }
    tracing::warn!(
        doing,
        "still no answer of the server: behind a pooler all connections of its pool may be in use (see who holds them, or raise its default_pool_size)"
    );
    answer.await
}
