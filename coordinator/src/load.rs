//! From the store to a [`Book`].

use crate::keys::{self, OfRollout};
use crate::store::{Entry, Error, Store};
use shared::id::{AgentId, DatabaseName, RolloutId};
use shared::rollout::book::Change;
use shared::rollout::control::Action;
use shared::rollout::{Assignment, Book, Course, Fleet, Rollout, Spec, Time};
use std::collections::{BTreeMap, BTreeSet};

/// What a store holds.
pub(crate) struct Loaded {
    /// All of it that is whole.
    pub(crate) book: Book,
    /// Work whose lease is gone has been set back; to be written by a leader.
    pub(crate) changes: Vec<Change>,
    /// Parts of rollouts that were never founded to the end, or not forgotten to the end.
    pub(crate) fragments: BTreeSet<RolloutId>,
    /// Leases that no work has; to be removed by a leader.
    pub(crate) stray_leases: Vec<DatabaseName>,
}

/// Reads everything.
///
/// A leader may read the parts one after the other: its predecessor's writes are refused since its own term began, so
/// only leases can end meanwhile. For one who does not lead the parts may be of slightly different moments.
pub(crate) async fn load(store: &dyn Store, now: Time) -> Result<Loaded, Error> {
    let mut parts = Parts::default();
    for entry in store.list(keys::ROLLOUTS).await?.entries {
        parts.take(entry)?;
    }
    let agents = records::<AgentId, _>(store, keys::AGENTS).await?;
    let databases = records::<DatabaseName, _>(store, keys::DATABASES).await?;
    let drains = records::<AgentId, _>(store, keys::DRAINS).await?;
    let goodbyes = store.list(keys::GOODBYES).await?.entries;
    let goodbyes = goodbyes.iter().map(|entry| name(&entry.key, keys::GOODBYES));
    let goodbyes = goodbyes.collect::<Result<_, _>>()?;
    let forgotten = records::<DatabaseName, _>(store, keys::FORGOTTEN).await?;
    let mut leases = BTreeMap::new();
    for entry in store.list(keys::LEASES).await?.entries {
        let database: DatabaseName = name(&entry.key, keys::LEASES)?;
        let lease: keys::Lease = keys::decode(&entry.key, &entry.value)?;
        leases.insert(database, (lease, entry.created));
    }
    let fragments = parts.fragments();
    let rollouts = parts.rollouts()?;
    let fleet = Fleet::restored(agents, databases)
        .with_drains(drains)
        .with_goodbyes(goodbyes)
        .with_forgotten(forgotten);
    let mut book = Book::restored(rollouts.clone(), fleet);
    let mut changes = Vec::new();
    for rollout in &rollouts {
        let id = &rollout.spec().id;
        for (database, assignment) in rollout.assignments() {
            let Some(work) = assignment.work() else { continue };
            let ours = |(lease, _): &(keys::Lease, i64)| lease.holder == work.holder && lease.rollout == *id;
            match leases.get(database).filter(|lease| ours(lease)) {
                Some((_, token)) => {
                    book.granted(id, database, *token, now);
                    leases.remove(database);
                }
                None => changes.extend(book.lost(id, database, now)),
            }
        }
    }
    Ok(Loaded {
        book,
        changes,
        fragments,
        stray_leases: leases.into_keys().collect(),
    })
}

/// The parts of all rollouts.
#[derive(Default)]
struct Parts {
    specs: BTreeMap<String, Vec<u8>>,
    courses: BTreeMap<String, Course>,
    actions: BTreeMap<String, Vec<Action>>,
    records: BTreeMap<String, BTreeMap<DatabaseName, Assignment>>,
}

impl Parts {
    fn take(&mut self, entry: Entry) -> Result<(), Error> {
        let Some((id, what)) = keys::of_rollout(&entry.key) else {
            return Err(keys::unreadable(
                &entry.key,
                "this version knows no such key".to_owned(),
            ));
        };
        let id = id.to_owned();
        match what {
            // Entries come in the order of their keys.
            OfRollout::Spec => self.specs.entry(id).or_default().extend(entry.value),
            OfRollout::Course => {
                self.courses.insert(id, keys::decode(&entry.key, &entry.value)?);
            }
            OfRollout::Action => {
                let action = keys::decode(&entry.key, &entry.value)?;
                self.actions.entry(id).or_default().push(action);
            }
            OfRollout::Assignment(database) => {
                let database = DatabaseName::try_from(database);
                let database = database.map_err(|source| keys::unreadable(&entry.key, source))?;
                let record = keys::decode(&entry.key, &entry.value)?;
                self.records.entry(id).or_default().insert(database, record);
            }
        }
        Ok(())
    }

    fn fragments(&self) -> BTreeSet<RolloutId> {
        let all = self
            .specs
            .keys()
            .chain(self.records.keys())
            .chain(self.actions.keys());
        all.filter(|id| !self.courses.contains_key(*id))
            .filter_map(|id| RolloutId::try_from(id.as_str()).ok())
            .collect()
    }

    fn rollouts(mut self) -> Result<Vec<Rollout>, Error> {
        let mut rollouts = Vec::new();
        for (id, course) in self.courses {
            let key = format!("{}{id}/spec/", keys::ROLLOUTS);
            let spec: Spec = keys::decode(&key, &self.specs.remove(&id).unwrap_or_default())?;
            let records = self.records.remove(&id).unwrap_or_default();
            let actions = self.actions.remove(&id).unwrap_or_default();
            rollouts.push(Rollout::restored(spec, course, records, actions));
        }
        Ok(rollouts)
    }
}

/// All records below a prefix, by the names after it.
async fn records<N, R>(store: &dyn Store, prefix: &str) -> Result<BTreeMap<N, R>, Error>
where
    N: TryFrom<String, Error = shared::id::Error> + Ord,
    R: serde::de::DeserializeOwned,
{
    let mut records = BTreeMap::new();
    for entry in store.list(prefix).await?.entries {
        records.insert(name(&entry.key, prefix)?, keys::decode(&entry.key, &entry.value)?);
    }
    Ok(records)
}

fn name<N: TryFrom<String, Error = shared::id::Error>>(key: &str, prefix: &str) -> Result<N, Error> {
    let text = key.strip_prefix(prefix).unwrap_or(key).to_owned();
    N::try_from(text).map_err(|source| keys::unreadable(key, source))
}

/// The leases that agents have now.
pub(crate) async fn agent_leases(store: &dyn Store) -> Result<BTreeMap<AgentId, i64>, Error> {
    let agents = records::<AgentId, shared::rollout::fleet::Agent>(store, keys::AGENTS).await?;
    Ok(agents.into_iter().map(|(id, agent)| (id, agent.lease)).collect())
}
