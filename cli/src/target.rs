//! From flags, settings and environment to one database.

use crate::context;
use crate::failure::Failure;
use agent::database::Database;
use agent::pool::Servers;
use shared::id::DatabaseName;
use shared::settings::{self, Secret, Settings};

/// Which database.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Of {
    /// PostgreSQL URL [default: the only database of the settings file, else `DATABASE_URL`]
    #[arg(long, value_name = "URL", hide_env_values = true, conflicts_with = "database")]
    database_url: Option<String>,
    /// A database of the settings file, by its name
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

impl Of {
    /// Whether its URL is on the command line.
    pub(crate) fn has_url(&self) -> bool {
        self.database_url.is_some()
    }

    /// The name on the command line.
    pub(crate) fn name(&self) -> Option<&str> {
        self.database.as_deref()
    }

    /// The flag that leads another command to the same database, but for a URL, which may hold a password.
    pub(crate) fn repeated(&self) -> String {
        let name = self.database.as_ref();
        name.map_or(String::new(), |name| format!(" --database {name}"))
    }

    /// Sets its pools up; connects to nothing yet.
    pub(crate) fn open(&self, settings: &Settings) -> Result<Database, Failure> {
        let found = database(self, settings)?;
        Ok(Database::open(
            &found,
            &settings.connection,
            &settings.migration,
            &Servers::unbounded(),
        )?)
    }
}

/// The database: by URL, by name, the only one of the settings, or `DATABASE_URL`.
fn database(of: &Of, settings: &Settings) -> Result<settings::Database, Failure> {
    if let Some(url) = &of.database_url {
        return unnamed(url);
    }
    let names: Vec<&DatabaseName> = settings.database_names().collect();
    let known = || {
        names
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    if let Some(name) = &of.database {
        let name =
            DatabaseName::try_from(name.as_str()).map_err(|e| Failure::usage(format!("--database: {e}")))?;
        let found = context::with_lookups(|lookups| settings.database(&name, lookups));
        return found.ok_or_else(|| match names.as_slice() {
            [] => Failure::usage(format!("--database {name}: the settings name no database\n  help: give --database-url, or list it under `databases:` in confiture.yaml")),
            _ => Failure::usage(format!("--database {name}: the settings name no such database\n  help: they name {}", known())),
        })?.map_err(Into::into);
    }
    match (
        names.as_slice(),
        context::variable("DATABASE_URL").filter(|url| !url.is_empty()),
    ) {
        ([name], _) => {
            let found = context::with_lookups(|lookups| settings.database(name, lookups));
            found
                .ok_or_else(|| Failure::failed("a database of the settings vanished"))?
                .map_err(Into::into)
        }
        (_, Some(url)) => unnamed(&url),
        ([], None) => Err(Failure::usage(
            "no database is named\n  help: give --database-url URL, set DATABASE_URL, or list one under `databases:` in confiture.yaml",
        )),
        (_, None) => Err(Failure::usage(format!(
            "which database?\n  help: choose with --database NAME one of {}",
            known()
        ))),
    }
}

/// A database that only its URL names: it is called as in the server.
fn unnamed(url: &str) -> Result<settings::Database, Failure> {
    let url = Secret::new(url);
    let address = agent::connect::target(&url)
        .map_err(agent::error::Error::from)?
        .address;
    let own: String = (address.rsplit('/').next().unwrap_or_default().chars())
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect();
    let name = DatabaseName::try_from(own.trim_start_matches(['.', '_', '-']))
        .or_else(|_| DatabaseName::try_from("database"));
    let name = name.map_err(|e| Failure::usage(e.to_string()))?;
    Ok(settings::Database {
        machine: settings::Machine::default(),
        name,
        url,
        direct_url: None,
        labels: std::collections::BTreeMap::new(),
    })
}
