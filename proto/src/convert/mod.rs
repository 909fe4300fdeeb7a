//! Between the wire and the core, both ways.
//!
//! | module | owns |
//! |---|---|
//! | [`request`], [`policy`] | what a new rollout is made of |
//! | [`control`] | what operators ask of a rollout |
//! | [`view`] | what operators read: rollouts, databases, agents |
//! | [`fleet`] | drains and surveys |
//! | [`inquiry`] | what is asked about a database, and the answers |
//! | [`pool`] | pools of connections |
//! | [`from_agent`] | what an agent says |
//! | [`to_agent`] | what a coordinator says |
//!
//! `to_wire` cannot fail; `from_wire` checks everything that the core's types promise. Nothing of a message is
//! believed before that. 0 and the empty text stand for "none" where the wire has no better word.

pub mod control;
pub mod fleet;
pub mod from_agent;
pub mod inquiry;
pub mod policy;
pub mod pool;
pub mod request;
pub mod story;
pub mod to_agent;
pub mod view;
mod work;

/// A message that does not say what it must.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Something there that is not usable.
    #[error("`{field}` is not usable")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A value of a newer version, or none at all.
    #[error("`{field}` holds {value}, which this version does not know")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// The number on the wire.
        value: i32,
    },
}

impl Error {
    /// The whole chain in one line, for a status or a log.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// A name or id out of a text field.
fn name<T>(field: &'static str, given: String) -> Result<T, Error>
where
    T: TryFrom<String>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    if given.is_empty() {
        return Err(Error::Missing(field));
    }
    T::try_from(given).map_err(|source| Error::Invalid {
        field,
        source: Box::new(source),
    })
}

/// A name or id out of a text field that may be empty.
fn name_or_none<T>(field: &'static str, given: String) -> Result<Option<T>, Error>
where
    T: TryFrom<String>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    if given.is_empty() {
        Ok(None)
    } else {
        name(field, given).map(Some)
    }
}

/// A UUID out of a text field.
fn uuid(field: &'static str, given: &str) -> Result<uuid::Uuid, Error> {
    uuid::Uuid::parse_str(given).map_err(|source| Error::Invalid {
        field,
        source: Box::new(source),
    })
}

/// A message field that must be there.
fn required<T>(field: &'static str, given: Option<T>) -> Result<T, Error> {
    given.ok_or(Error::Missing(field))
}

/// Milliseconds as the wire has them.
fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
