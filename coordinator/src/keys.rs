//! The keys of the store, and the small records under them. Everything under them is JSON, except pieces.
//!
//! ```text
//! agent/<id>                      Agent       bound to the agent's lease
//! lease/<database>                Lease       bound to the agent's lease; its `created` is the fence's token
//! drain/<id>                      Drain       the agent gets no new work, with a lease or without
//! goodbye/<id>                    nothing     the agent said goodbye, and has not come back
//! database/<name>                 Database    who serves it, and what each says about it
//! forgotten/<name>                Forgotten   it was taken out of the inventory, and has not come back
//! rollout/<id>/spec/<n>           Spec        in pieces, with all its databases
//! rollout/<id>/course             Course      written last when founded, removed first when forgotten
//! rollout/<id>/action/<n>         Action      what someone asked of it
//! rollout/<id>/database/<name>    Assignment  from the first time it is not `Waiting` any more
//! story/<id>/<database>/<token>   Attempt     what happened to one, where there is something to tell
//! bundle/<digest>                 Manifest
//! piece/<digest>/<n>              bytes
//! ```

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shared::id::{AgentId, DatabaseName, Digest, Holder, RolloutId};
use shared::rollout::message::Holding;

/// Agents with a lease.
pub(crate) const AGENTS: &str = "agent/";
/// Leases of databases.
pub(crate) const LEASES: &str = "lease/";
/// Drained agents.
pub(crate) const DRAINS: &str = "drain/";
/// Agents that said goodbye.
pub(crate) const GOODBYES: &str = "goodbye/";
/// Databases that were taken out of the inventory.
pub(crate) const FORGOTTEN: &str = "forgotten/";
/// Databases.
pub(crate) const DATABASES: &str = "database/";
/// Rollouts.
pub(crate) const ROLLOUTS: &str = "rollout/";
/// What happened to attempts.
const STORIES: &str = "story/";
/// Manifests of bundles.
pub(crate) const BUNDLES: &str = "bundle/";

/// Values that can be long are cut into pieces of this size, a little below the store's limit for one value.
pub(crate) const PIECE_BYTES: usize = 60 * 1024;

pub(crate) fn agent(agent: &AgentId) -> String {
    format!("{AGENTS}{agent}")
}

pub(crate) fn lease(database: &DatabaseName) -> String {
    format!("{LEASES}{database}")
}

pub(crate) fn drain(agent: &AgentId) -> String {
    format!("{DRAINS}{agent}")
}

pub(crate) fn goodbye(agent: &AgentId) -> String {
    format!("{GOODBYES}{agent}")
}

pub(crate) fn database(database: &DatabaseName) -> String {
    format!("{DATABASES}{database}")
}

pub(crate) fn forgotten(database: &DatabaseName) -> String {
    format!("{FORGOTTEN}{database}")
}

pub(crate) fn rollout(rollout: &RolloutId) -> String {
    format!("{ROLLOUTS}{rollout}/")
}

pub(crate) fn spec_piece(rollout: &RolloutId, piece: usize) -> String {
    // Padded, so that the order of keys is the order of pieces.
    format!("{ROLLOUTS}{rollout}/spec/{piece:06}")
}

pub(crate) fn course(rollout: &RolloutId) -> String {
    format!("{ROLLOUTS}{rollout}/course")
}

pub(crate) fn action(rollout: &RolloutId, number: usize) -> String {
    // Padded, so that the order of keys is the order of actions.
    format!("{ROLLOUTS}{rollout}/action/{number:06}")
}

pub(crate) fn assignment(rollout: &RolloutId, database: &DatabaseName) -> String {
    format!("{ROLLOUTS}{rollout}/database/{database}")
}

/// What happened to the attempts of a rollout.
pub(crate) fn stories(rollout: &RolloutId) -> String {
    format!("{STORIES}{rollout}/")
}

pub(crate) fn story(of: &Holding) -> String {
    let Holding {
        rollout,
        database,
        token,
    } = of;
    // Padded, so that the order of keys is the order of attempts.
    format!("{STORIES}{rollout}/{database}/{token:020}")
}

/// Which database and lease a key below [`stories`] is about.
pub(crate) fn of_story<'a>(key: &'a str, rollout: &RolloutId) -> Option<(&'a str, i64)> {
    let rest = key.strip_prefix(&stories(rollout))?;
    let (database, token) = rest.rsplit_once('/')?;
    Some((database, token.parse().ok()?))
}

pub(crate) fn bundle(digest: &Digest) -> String {
    format!("{BUNDLES}{digest}")
}

pub(crate) fn bundle_piece(digest: &Digest, piece: usize) -> String {
    format!("piece/{digest}/{piece:06}")
}

/// What a key below [`ROLLOUTS`] is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum OfRollout<'a> {
    Spec,
    Course,
    Action,
    Assignment(&'a str),
}

/// Takes a key below [`ROLLOUTS`] apart.
pub(crate) fn of_rollout(key: &str) -> Option<(&str, OfRollout<'_>)> {
    let (id, rest) = key.strip_prefix(ROLLOUTS)?.split_once('/')?;
    let what = match rest.split_once('/') {
        None if rest == "course" => OfRollout::Course,
        Some(("action", _)) => OfRollout::Action,
        Some(("spec", _)) => OfRollout::Spec,
        Some(("database", name)) => OfRollout::Assignment(name),
        None | Some(_) => return None,
    };
    Some((id, what))
}

/// The lease of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Who has it.
    pub(crate) agent: AgentId,
    /// For which rollout.
    pub(crate) rollout: RolloutId,
    /// The holder of the fence.
    pub(crate) holder: Holder,
}

/// What is kept of a bundle besides its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// How many pieces it has.
    pub(crate) pieces: usize,
    /// Whether they are all there: not before they are written, nor once they are being removed.
    pub(crate) complete: bool,
}

/// A record as it is stored.
pub(crate) fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("our records have text keys only, which is all that JSON asks for")
}

/// A stored record.
pub(crate) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, crate::store::Error> {
    serde_json::from_slice(value).map_err(|source| unreadable(key, source))
}

/// An entry that cannot be read.
pub(crate) fn unreadable(
    key: &str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> crate::store::Error {
    crate::store::Error::Unreadable {
        key: key.to_owned(),
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_rollouts_are_taken_apart_as_they_were_made() {
        let id = RolloutId::from_random(7);
        let name = DatabaseName::try_from("orders.eu-1").unwrap();
        let id = id.clone();
        assert_eq!(of_rollout(&course(&id)), Some((id.as_str(), OfRollout::Course)));
        assert_eq!(
            of_rollout(&action(&id, 3)),
            Some((id.as_str(), OfRollout::Action))
        );
        assert_eq!(
            of_rollout(&spec_piece(&id, 3)),
            Some((id.as_str(), OfRollout::Spec))
        );
        let of = OfRollout::Assignment("orders.eu-1");
        assert_eq!(of_rollout(&assignment(&id, &name)), Some((id.as_str(), of)));
        for strange in ["rollout/x", "rollout/x/y", "agent/x/course", "rollout/x/course/y"] {
            assert_eq!(of_rollout(strange), None, "{strange}");
        }
    }

    #[test]
    fn keys_of_stories_are_taken_apart_as_they_were_made() {
        let of = Holding {
            rollout: RolloutId::from_random(7),
            database: DatabaseName::try_from("orders.eu-1").unwrap(),
            token: 42,
        };
        assert_eq!(of_story(&story(&of), &of.rollout), Some(("orders.eu-1", 42)));
        assert_eq!(of_story(&story(&of), &RolloutId::from_random(8)), None);
    }

    #[test]
    fn pieces_sort_in_their_order() {
        let id = RolloutId::from_random(7);
        assert!(spec_piece(&id, 9) < spec_piece(&id, 10));
    }
}
