//! One database and one set.

use super::Of;
use crate::failure::Failure;
use crate::files;
use agent::database::Database;
use shared::id::SetName;
use shared::migration::Set;
use shared::settings::Settings;

/// What a command works on.
pub(super) struct Target {
    pub(super) database: Database,
    pub(super) set: Set,
}

impl Target {
    /// Reads the migrations and sets the pools up; connects to nothing yet.
    pub(super) fn of(of: &Of, settings: &Settings) -> Result<Self, Failure> {
        let name = match &of.set {
            Some(name) => {
                Some(SetName::try_from(name.as_str()).map_err(|e| Failure::usage(format!("--set: {e}")))?)
            }
            None => settings.migration.set.clone(),
        };
        let folder = of.migrations.as_ref().unwrap_or(&settings.migration.directory);
        let set = files::set(folder, name)?;
        let database = of.database.open(settings)?;
        Ok(Self { database, set })
    }
}
