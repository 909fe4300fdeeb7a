//! Connections of one database: which pool they come from, whose the server's session is, and why there is none.

use super::Database;
use crate::error::Error;
use crate::pool::{Object, PoolError, Trouble, Work};
use crate::pooler::{self, Standing};
use crate::session::Session;
use deadpool::managed::TimeoutType;
use shared::retry::{self, Retryability};
use std::sync::atomic::Ordering;

impl Database {
    /// A connection for transactions, and for single statements that set nothing.
    pub(crate) async fn session(&self) -> Result<Session, Error> {
        let taken = self.pool.get().await;
        taken
            .map(Session::new)
            .map_err(|error| connect_error(&self.address, error))
    }

    /// A connection for transactions that are much alike and follow each other: the server keeps their statements where its
    /// session is known to be ours alone. Each connection is asked once, by opening it anew.
    pub(crate) async fn busy_session(&self) -> Result<Session, Error> {
        let taken = self.pool.get().await;
        let mut object = taken.map_err(|error| connect_error(&self.address, error))?;
        if *object.standing() == Standing::Unknown {
            let asked = self.pool.manager().reopen(&mut object, "");
            if Box::pin(asked).await.is_err() {
                // The one before is as good as it was.
                object.set_lent();
            }
        }
        Ok(Session::new(object))
    }

    /// A connection for statements that cannot run in a transaction, without limits that would cut them off. Behind a
    /// pooler it has those of its role: nothing is set there, since others would get it.
    pub(crate) async fn direct_session(&self) -> Result<Session, Error> {
        match Box::pin(self.own()).await? {
            Some(object) => Ok(Session::new(object)),
            None => self.session().await,
        }
    }

    /// The same, of which the server's session is ours alone; none behind a pooler.
    pub(crate) async fn own_session(&self) -> Result<Option<Session>, Error> {
        Ok(Box::pin(self.own()).await?.map(Session::new))
    }

    /// The same, opened with `options` as libpq has them, and closed after use: for settings that no transaction can hold.
    /// It takes the place of a connection of the pool.
    pub(crate) async fn own_session_with(&self, options: &str) -> Result<Option<Session>, Error> {
        let Some(mut object) = Box::pin(self.own()).await? else {
            return Ok(None);
        };
        let reopened = self.outside.manager().reopen(&mut object, options).await;
        reopened.map_err(|trouble| connect_error(&self.outside_address, PoolError::Backend(trouble)))?;
        Ok(object.standing().is_own().then(|| Session::used_once(object)))
    }

    /// Opens the least number of connections, as if there were work.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn warm(&self) -> Result<(), Error> {
        let warmed = self.pool.warm(Work::Some).await;
        warmed.map_err(|error| connect_error(&self.address, error))
    }

    async fn own(&self) -> Result<Option<Object>, Error> {
        match self.outside.get().await {
            Ok(object) if object.standing().is_own() => return Ok(Some(object)),
            // The pooler left our options out.
            Ok(_) => {}
            Err(PoolError::Backend(Trouble::Postgres(error))) if pooler::refuses_options(&error) => {}
            Err(error) => return Err(connect_error(&self.outside_address, error)),
        }
        if !self.told_of_pooler.swap(true, Ordering::Relaxed) {
            tracing::info!(
                database = %self.name, address = self.outside_address,
                "a pooler is on the way to the server: a statement outside transactions keeps one of its connections while it runs, under the limits of its role, which a direct_url past the pooler would spare"
            );
        }
        Ok(None)
    }
}

fn connect_error(address: &str, error: PoolError) -> Error {
    let (why, advice, retry) = match error {
        PoolError::Timeout(TimeoutType::Wait) => (
            "all connections of the pool stayed in use".to_owned(),
            Some("raise connection.pool.max_size, or connection.pool.wait_timeout; `confiture pool stats` shows who is short of connections".to_owned()),
            Retryability::Retry,
        ),
        PoolError::Timeout(TimeoutType::Create) | PoolError::Backend(Trouble::Silent) => {
            (Trouble::Silent.to_string(), None, Retryability::Retry)
        }
        PoolError::Timeout(TimeoutType::Recycle) => (
            "a pooled connection did not answer in time".to_owned(),
            None,
            Retryability::Retry,
        ),
        PoolError::Backend(Trouble::Postgres(error)) => backend_error(address, &error),
        PoolError::Backend(full @ Trouble::Full(_)) => (
            full.to_string(),
            Some("raise agent.connections_per_server, or give fewer databases of it work at once".to_owned()),
            Retryability::Retry,
        ),
        PoolError::Backend(crowded @ Trouble::Crowded(_)) => (
            crowded.to_string(),
            Some("let less work at once, or raise connection.pool.max_size".to_owned()),
            Retryability::Retry,
        ),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            ("the pool is closed".to_owned(), None, Retryability::GiveUp)
        }
    };
    Error::Connect {
        address: address.to_owned(),
        why,
        advice,
        retry,
    }
}

fn backend_error(address: &str, error: &tokio_postgres::Error) -> (String, Option<String>, Retryability) {
    if let Some(error) = error.as_db_error() {
        let code = error.code().code();
        let advice = match code {
            "28P01" | "28000" => Some("check user and password in the URL, and the server's pg_hba.conf"),
            "3D000" => Some("check the database's name in the URL"),
            "08P01" => Some(
                "that is a pooler's answer: see whether its settings name this database and user, and its log",
            ),
            "53300" => Some(
                "the server has no connection left: lower connection.pool.max_size, or raise max_connections",
            ),
            _ => None,
        };
        return (
            error.message().to_owned(),
            advice.map(str::to_owned),
            retry::of_sqlstate(code),
        );
    }
    let source = std::error::Error::source(error).map(ToString::to_string);
    let why = source.unwrap_or_else(|| error.to_string());
    // The client's own refusals have no type to tell them by; the test of this file pins their words.
    if why.contains("password missing") {
        let advice =
            "the server asks for a password: give it in the URL, or keep the URL in `url_env` or `url_file`";
        return (why, Some(advice.to_owned()), Retryability::GiveUp);
    }
    if why.contains("does not support TLS") {
        let advice = "the server has no TLS: let it have a certificate, or say `sslmode=disable` in the URL if the way to it is safe";
        return (why, Some(advice.to_owned()), Retryability::GiveUp);
    }
    (
        why,
        Some(format!("is a PostgreSQL server listening at {address}?")),
        Retryability::Retry,
    )
}
