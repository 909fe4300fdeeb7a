//! The pools of all agents of a fleet, by way of the coordinator.

use super::{Health, Stats, pools_json};
use crate::context::Global;
use crate::failure::{Failure, chain};
use crate::operator::Operator;
use crate::output::{self, Format};
use proto::convert::pool::pools_from_wire;
use proto::{convert, v1};
use serde_json::{Value, json};
use shared::pool::{Pools, Verdict};
use shared::rollout::Selector;
use shared::rollout::work::Exit;
use std::collections::{BTreeMap, BTreeSet};

/// What is looked at.
pub(super) struct Look {
    operator: Operator,
    request: v1::ShowPoolsRequest,
    format: Format,
}

/// The pools of a database in one agent.
struct Found {
    database: String,
    agent: String,
    pools: Result<Pools, String>,
}

impl Look {
    pub(super) fn new(stats: &Stats, global: &Global) -> Result<Self, Failure> {
        let labels = match &stats.select {
            None => BTreeMap::new(),
            Some(text) => match Selector::parse(text) {
                Ok(Selector::Labels(labels)) => labels,
                Ok(Selector::All) => BTreeMap::new(),
                Err(error) => return Err(Failure::usage(format!("--select: {error}"))),
            },
        };
        let databases: Vec<_> = stats.database.name().map(str::to_owned).into_iter().collect();
        Ok(Self {
            operator: Operator::new(&stats.at, global)?,
            request: v1::ShowPoolsRequest {
                all: labels.is_empty() && databases.is_empty(),
                labels: labels.into_iter().collect(),
                databases,
            },
            format: global.output,
        })
    }

    pub(super) async fn go_on(&mut self, stats: &Stats) -> Result<Exit, Failure> {
        stats.each(async || self.look().await).await
    }

    async fn look(&mut self) -> Result<Health, Failure> {
        let found = self.ask().await?;
        let healthy = |found: &Found| {
            let pools = found.pools.as_ref();
            pools.is_ok_and(|pools| Verdict::of(pools).is_healthy())
        };
        let health = if found.iter().all(healthy) {
            Health::Well
        } else {
            Health::Unwell
        };
        match self.format {
            Format::Json => output::json(&json!({
                "pools": found.iter().map(found_json).collect::<Vec<_>>(),
                "healthy": health == Health::Well,
            })),
            Format::Text => print(&found),
        }
        Ok(health)
    }

    /// Asks, and waits for all answers; by database and agent.
    async fn ask(&mut self) -> Result<Vec<Found>, Failure> {
        let request = self.request.clone();
        let asked = self.operator.ask_fleet("ask for the pools", async |mut fleet| {
            fleet.show_pools(request.clone()).await
        });
        let mut stream = asked.await?;
        let broken =
            |why: &str| Failure::failed(format!("cannot ask for the pools: the answer broke off: {why}"));
        let mut all = Vec::new();
        while let Some(wire) = stream
            .message()
            .await
            .map_err(|status| broken(status.message()))?
        {
            all.push(read(wire).map_err(|error| broken(&chain(&error)))?);
        }
        all.sort_by(|one, other| (&one.database, &one.agent).cmp(&(&other.database, &other.agent)));
        Ok(all)
    }
}

fn read(wire: v1::ShowPoolsResponse) -> Result<Found, convert::Error> {
    let pools = match (wire.problem.is_empty(), wire.pools) {
        (true, Some(pools)) => Ok(pools_from_wire(pools)?),
        (true, None) => return Err(convert::Error::Missing("pools")),
        (false, _) => Err(wire.problem),
    };
    Ok(Found {
        database: wire.database,
        agent: wire.agent,
        pools,
    })
}

fn print(found: &[Found]) {
    if found.is_empty() {
        return output::note("no agent has offered a database yet");
    }
    let head = [
        "DATABASE", "AGENT", "ACTIVE", "IDLE", "WAITING", "CREATED", "RECYCLED", "MAX", "VERDICT",
    ];
    let rows: Vec<_> = found.iter().map(row).collect();
    output::data(&output::table(&head, &rows));
    found
        .iter()
        .filter_map(beside)
        .for_each(|text| output::data(&text));
    let answers = found.iter().filter_map(|found| found.pools.as_ref().ok());
    let advice: BTreeSet<_> = answers
        .filter_map(|pools| {
            let verdict = Verdict::of(pools);
            Some(format!(
                "{}: {}",
                verdict.as_str().replace('_', " "),
                verdict.advice()?
            ))
        })
        .collect();
    for advice in advice {
        output::note(&advice);
    }
}

/// What the table does not show, where there is something: connections outside transactions, requests that got none.
fn beside(found: &Found) -> Option<String> {
    let pools = found.pools.as_ref().ok()?;
    let (pool, outside) = (&pools.transactions, &pools.outside);
    let mut told = Vec::new();
    if outside.size() > 0 {
        let (size, active) = (outside.size(), outside.active);
        told.push(format!(
            "{size} more for what cannot run in a transaction, {active} of them in use"
        ));
    }
    let given_up = pool.given_up + outside.given_up;
    if given_up > 0 {
        let longest = pool.longest_wait.max(outside.longest_wait);
        told.push(format!(
            "{given_up} requests got no connection since the agent began, the longest wait was {:.1} s",
            longest.as_secs_f64()
        ));
    }
    let of = format!("{} of {}: ", found.database, found.agent);
    (!told.is_empty()).then(|| of + &told.join("; "))
}

fn row(found: &Found) -> Vec<String> {
    let agent = if found.agent.is_empty() { "-" } else { &found.agent };
    let mut row = vec![found.database.clone(), agent.to_owned()];
    match &found.pools {
        Ok(pools) => {
            let pool = &pools.transactions;
            let numbers = [pool.active, pool.idle, pool.waiting].map(|number| number.to_string());
            row.extend(numbers);
            row.extend([
                pool.created.to_string(),
                pool.recycled.to_string(),
                pool.max.to_string(),
            ]);
            row.push(Verdict::of(pools).to_string());
        }
        Err(problem) => {
            row.extend(std::iter::repeat_n("-".to_owned(), 6));
            row.push(problem.lines().next().unwrap_or_default().to_owned());
        }
    }
    row
}

fn found_json(found: &Found) -> Value {
    let mut value = match &found.pools {
        Ok(pools) => pools_json(pools),
        Err(_) => json!({}),
    };
    value["database"] = json!(found.database);
    value["agent"] = json!(Some(&found.agent).filter(|agent| !agent.is_empty()));
    value["problem"] = json!(found.pools.as_ref().err());
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::pool::Stats;
    use std::time::Duration;

    #[test]
    fn what_the_table_leaves_out_is_told_where_there_is_some() {
        let found = |transactions, outside| Found {
            database: "orders".to_owned(),
            agent: "agent-a".to_owned(),
            pools: Ok(Pools {
                transactions,
                outside,
                places: None,
            }),
        };
        assert_eq!(beside(&found(Stats::default(), Stats::default())), None);
        let short = Stats {
            given_up: 3,
            longest_wait: Duration::from_millis(30_040),
            ..Stats::default()
        };
        let build = Stats {
            active: 1,
            ..Stats::default()
        };
        assert_eq!(
            beside(&found(short, build)).unwrap(),
            "orders of agent-a: 1 more for what cannot run in a transaction, 1 of them in use; \
             3 requests got no connection since the agent began, the longest wait was 30.0 s"
        );
    }
}
