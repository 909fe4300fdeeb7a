//! What a coordinator says to an agent, on the wire.

use super::from_agent::holding;
use super::inquiry::{inquiry_from_wire, inquiry_to_wire};
use super::policy::{strategies_from_wire, strategies_to_wire};
use super::request::{bundle_from_wire, bundle_to_wire};
use super::work::{aim_from_wire, aim_to_wire};
use super::{Error, millis, name, required, uuid};
use crate::v1::{self, coordinator_message::Message};
use shared::fence::Fence;
use shared::id::{Holder, StoreId};
use shared::rollout::message::{Parting, Renewal, ToAgent, Welcome};
use shared::rollout::work::Order;
use std::time::Duration;

/// As sent.
pub fn to_wire(message: ToAgent) -> v1::CoordinatorMessage {
    let message = match message {
        ToAgent::Welcome(welcome) => Message::Welcome(v1::Welcome {
            term: welcome.term,
            lease_id: welcome.lease,
            lease_ttl_ms: millis(welcome.ttl),
            heartbeat_interval_ms: millis(welcome.heartbeat_interval),
            store_id: welcome.store.to_string(),
            epoch: welcome.epoch,
            version: welcome.version,
        }),
        ToAgent::Redirect { leader } => Message::Redirect(v1::Redirect {
            leader: leader.unwrap_or_default(),
        }),
        ToAgent::HeartbeatAnswer { sequence, renewal } => {
            Message::HeartbeatAnswer(heartbeat_answer_to_wire(sequence, renewal))
        }
        ToAgent::Bundle { digest, bundle } => Message::Bundle(v1::BundleContent {
            digest: digest.to_string(),
            bundle: Some(bundle_to_wire(bundle)),
        }),
        ToAgent::Look {
            term,
            look,
            database,
            bundle,
            aim,
        } => Message::Look(v1::LookRequest {
            term,
            look_id: look,
            database: database.into(),
            bundle: bundle.to_string(),
            aim: Some(aim_to_wire(aim)),
        }),
        ToAgent::Assign { term, order } => Message::Assign(assign_to_wire(term, order)),
        ToAgent::Stop { term, of, reason } => Message::Stop(v1::StopRequest {
            term,
            rollout: of.rollout.into(),
            database: of.database.into(),
            token: of.token,
            reason,
        }),
        ToAgent::Inquire {
            inquiry,
            databases,
            what,
        } => Message::Inquiry(v1::InquiryRequest {
            inquiry_id: inquiry,
            databases: databases.into_iter().map(String::from).collect(),
            what: Some(inquiry_to_wire(what)),
        }),
        ToAgent::Acknowledged(of) => Message::FinishedAck(v1::FinishedAck {
            rollout: of.rollout.into(),
            database: of.database.into(),
            token: of.token,
        }),
        ToAgent::Goodbye { parting, reason } => Message::Goodbye(v1::Goodbye {
            reason,
            agent_id_in_use: match parting {
                Parting::ForNow => false,
                Parting::IdInUse => true,
            },
        }),
    };
    v1::CoordinatorMessage {
        message: Some(message),
    }
}

/// As received.
pub fn from_wire(wire: v1::CoordinatorMessage) -> Result<ToAgent, Error> {
    Ok(match required("message", wire.message)? {
        Message::Welcome(welcome) => ToAgent::Welcome(Welcome {
            term: welcome.term,
            lease: welcome.lease_id,
            ttl: Duration::from_millis(welcome.lease_ttl_ms.into()),
            heartbeat_interval: Duration::from_millis(welcome.heartbeat_interval_ms.into()),
            store: StoreId(uuid("welcome.store_id", &welcome.store_id)?),
            epoch: welcome.epoch,
            version: welcome.version,
        }),
        Message::Redirect(redirect) => ToAgent::Redirect {
            leader: Some(redirect.leader).filter(|leader| !leader.is_empty()),
        },
        Message::HeartbeatAnswer(answer) => {
            let renewal = match (answer.store_unavailable, answer.lease_ttl_ms) {
                (true, _) => Renewal::StoreUnavailable,
                (false, 0) => Renewal::Gone,
                (false, ttl) => Renewal::Alive(Duration::from_millis(ttl.into())),
            };
            ToAgent::HeartbeatAnswer {
                sequence: answer.sequence,
                renewal,
            }
        }
        Message::Bundle(content) => ToAgent::Bundle {
            digest: name("bundle.digest", content.digest)?,
            bundle: bundle_from_wire(required("bundle.bundle", content.bundle)?)?,
        },
        Message::Look(look) => ToAgent::Look {
            term: look.term,
            look: look.look_id,
            database: name("look.database", look.database)?,
            bundle: name("look.bundle", look.bundle)?,
            aim: aim_from_wire(look.aim)?,
        },
        Message::Assign(assign) => ToAgent::Assign {
            term: assign.term,
            order: order_from_wire(assign)?,
        },
        Message::Stop(stop) => ToAgent::Stop {
            term: stop.term,
            of: holding(stop.rollout, stop.database, stop.token)?,
            reason: stop.reason,
        },
        Message::Inquiry(request) => {
            let databases = request.databases.into_iter();
            ToAgent::Inquire {
                inquiry: request.inquiry_id,
                databases: databases
                    .map(|database| name("inquiry.databases", database))
                    .collect::<Result<_, _>>()?,
                what: inquiry_from_wire(request.what)?,
            }
        }
        Message::FinishedAck(ack) => ToAgent::Acknowledged(holding(ack.rollout, ack.database, ack.token)?),
        Message::Goodbye(goodbye) => ToAgent::Goodbye {
            parting: if goodbye.agent_id_in_use {
                Parting::IdInUse
            } else {
                Parting::ForNow
            },
            reason: goodbye.reason,
        },
    })
}

fn heartbeat_answer_to_wire(sequence: u64, renewal: Renewal) -> v1::HeartbeatAnswer {
    let (lease_ttl_ms, store_unavailable) = match renewal {
        // 0 would say that it is gone.
        Renewal::Alive(ttl) => (millis(ttl).max(1), false),
        Renewal::Gone => (0, false),
        Renewal::StoreUnavailable => (0, true),
    };
    v1::HeartbeatAnswer {
        sequence,
        lease_ttl_ms,
        store_unavailable,
    }
}

fn assign_to_wire(term: i64, order: Order) -> v1::AssignRequest {
    v1::AssignRequest {
        term,
        rollout: order.rollout.into(),
        database: order.database.into(),
        bundle: order.bundle.to_string(),
        aim: Some(aim_to_wire(order.aim)),
        // `local` is 0 in every fence of a lease and does not travel.
        epoch: order.fence.epoch,
        token: order.fence.token,
        holder: order.holder.to_string(),
        attempt: order.attempt,
        canary: order.canary,
        strategies: strategies_to_wire(&order.strategies),
        traceparent: order.trace.map(String::from).unwrap_or_default(),
    }
}

fn order_from_wire(wire: v1::AssignRequest) -> Result<Order, Error> {
    Ok(Order {
        rollout: name("assign.rollout", wire.rollout)?,
        database: name("assign.database", wire.database)?,
        bundle: name("assign.bundle", wire.bundle)?,
        aim: aim_from_wire(wire.aim)?,
        fence: Fence::of_lease(wire.epoch, wire.token),
        holder: Holder(uuid("assign.holder", &wire.holder)?),
        attempt: wire.attempt,
        canary: wire.canary,
        strategies: strategies_from_wire("assign.strategies", wire.strategies)?,
        // Of no one who tells traces.
        trace: wire.traceparent.parse().ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::uuid::Uuid;
    use shared::id::{DatabaseName, Digest, RolloutId, SetName};
    use shared::inquiry::Inquiry;
    use shared::plan::strategy::Tables;
    use shared::plan::{Strategies, Strategy};
    use shared::rollout::Bundle;
    use shared::rollout::message::Holding;
    use shared::rollout::work::Aim;
    use shared::trace::Place;

    fn database() -> DatabaseName {
        DatabaseName::try_from("orders").unwrap()
    }

    fn of() -> Holding {
        Holding {
            rollout: RolloutId::from_random(7),
            database: database(),
            token: 42,
        }
    }

    fn order() -> Order {
        Order {
            rollout: RolloutId::from_random(7),
            database: database(),
            bundle: Digest::of(b"b"),
            aim: Aim::Apply,
            fence: Fence::of_lease(1_790_000_000, 42),
            holder: Holder(Uuid::from_u128(8)),
            attempt: 2,
            canary: true,
            strategies: [(Tables::All, Strategy::Direct)].into_iter().collect(),
            trace: Some(Place::root("r")),
        }
    }

    #[test]
    fn every_message_of_a_coordinator_survives_the_wire() {
        let bundle = Bundle {
            set: SetName::default_set(),
            files: Vec::new(),
        };
        let answer = |renewal| ToAgent::HeartbeatAnswer { sequence: 4, renewal };
        let messages = [
            ToAgent::Welcome(Welcome {
                term: 3,
                lease: 9,
                ttl: Duration::from_secs(30),
                heartbeat_interval: Duration::from_secs(5),
                store: StoreId(Uuid::from_u128(1)),
                epoch: 1_790_000_000,
                version: "0.1.0".to_owned(),
            }),
            ToAgent::Redirect {
                leader: Some("http://127.0.0.1:7070".to_owned()),
            },
            ToAgent::Inquire {
                inquiry: 7,
                databases: vec!["orders".try_into().unwrap()],
                what: Inquiry::Plan {
                    bundle: bundle.digest(),
                    strategies: Strategies::default(),
                },
            },
            ToAgent::Redirect { leader: None },
            answer(Renewal::Alive(Duration::from_secs(30))),
            answer(Renewal::Gone),
            answer(Renewal::StoreUnavailable),
            ToAgent::Bundle {
                digest: bundle.digest(),
                bundle,
            },
            ToAgent::Look {
                term: 3,
                look: 1,
                database: database(),
                bundle: Digest::of(b"b"),
                aim: Aim::Apply,
            },
            ToAgent::Assign {
                term: 3,
                order: order(),
            },
            ToAgent::Stop {
                term: 3,
                of: of(),
                reason: "aborted by ada".to_owned(),
            },
            ToAgent::Acknowledged(of()),
            ToAgent::Goodbye {
                parting: Parting::ForNow,
                reason: "shutting down".to_owned(),
            },
            ToAgent::Goodbye {
                parting: Parting::IdInUse,
                reason: "another process serves as agent a".to_owned(),
            },
        ];
        for message in messages {
            assert_eq!(from_wire(to_wire(message.clone())).unwrap(), message);
        }
    }

    #[test]
    fn a_lease_with_hardly_any_time_left_is_not_told_as_gone() {
        assert_eq!(
            heartbeat_answer_to_wire(1, Renewal::Alive(Duration::ZERO)).lease_ttl_ms,
            1
        );
    }
}
