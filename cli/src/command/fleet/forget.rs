//! `confiture fleet forget`.

use crate::context::{self, Global};
use crate::failure::{Failure, chain};
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::{convert, v1};
use serde_json::{Value, json};
use shared::id::DatabaseName;
use shared::rollout::forget::Forgotten;
use shared::rollout::work::Exit;

/// `confiture fleet forget DATABASE --reason TEXT`
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "For a database that is gone for good: it leaves the inventory, so that no selector chooses it any more. Refused (exit 3) \
        while an agent serves it, or a rollout that has not ended is not finished with it. An agent that serves a database of \
        this name again simply brings it back. Forgetting what is forgotten changes nothing; `confiture fleet databases --forgotten` \
        shows by whom and why.\n\n\
        JSON (--output json): name, changed, by, reason, at_unix_ms."
)]
pub(crate) struct Forget {
    /// The database's name in the fleet
    #[arg(value_name = "DATABASE")]
    database: String,
    /// Why, for the record and for those who read it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    at: At,
}

impl Forget {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let database = DatabaseName::try_from(self.database)
            .map_err(|error| Failure::usage(format!("DATABASE: {error}")))?;
        let mut operator = Operator::new(&self.at, global)?;
        let doing = format!("forget database {database}");
        let request = v1::ForgetDatabaseRequest {
            database: database.into(),
            reason: self.reason,
            requested_by: context::who("confiture fleet forget"),
        };
        let answer = operator
            .ask_fleet(&doing, async |mut fleet| {
                fleet.forget_database(request.clone()).await
            })
            .await?;
        let (database, forgotten) = convert::fleet::forgotten_from_wire(answer.forgotten.unwrap_or_default())
            .map_err(|error| {
                Failure::failed(format!("cannot read the coordinator's answer: {}", chain(&error)))
            })?;
        match global.output {
            Format::Json => {
                let mut value = json_of(&database, &forgotten);
                value["changed"] = answer.changed.into();
                output::json(&value);
            }
            Format::Text => {
                output::data(&format!(
                    "database {database} is forgotten since {}, by {}: {}",
                    forgotten.at, forgotten.by, forgotten.reason
                ));
                if !answer.changed {
                    output::note("it was forgotten already: nothing was changed");
                }
            }
        }
        Ok(Exit::Done)
    }
}

/// A forgotten database as JSON.
pub(super) fn json_of(database: &DatabaseName, forgotten: &Forgotten) -> Value {
    json!({
        "name": database,
        "by": forgotten.by,
        "reason": forgotten.reason,
        "at_unix_ms": forgotten.at.0,
    })
}
