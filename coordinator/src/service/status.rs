//! Errors as gRPC statuses.

use crate::bundles::Error as BundleError;
use crate::chain::chain;
use crate::reign::{NoControl, Refusal};
use crate::store::Error as StoreError;
use shared::retry::Retryability;
use shared::rollout::{drain, forget, show};
use tonic::{Code, Status};

/// The trailer with the leader's URL.
const LEADER: &str = "confiture-leader";

/// The longest message of a status: it travels in a header, where `%` escapes can make it three times as long, and
/// servers and proxies refuse headers beyond 8 to 16 KiB.
const LONGEST_MESSAGE_BYTES: usize = 2_000;

pub(super) fn invalid(message: &str) -> Status {
    Status::invalid_argument(clipped(message))
}

/// A rule of safety forbids it.
pub(super) fn refused(message: &str) -> Status {
    Status::permission_denied(clipped(message))
}

fn clipped(message: &str) -> String {
    if message.len() <= LONGEST_MESSAGE_BYTES {
        return message.to_owned();
    }
    format!(
        "{} .. (cut off)",
        &message[..message.floor_char_boundary(LONGEST_MESSAGE_BYTES)]
    )
}

/// A write came to one who does not lead.
pub(super) fn not_leading(leader: Option<&str>) -> Status {
    let mut status = match leader {
        Some(leader) => Status::new(
            Code::FailedPrecondition,
            format!("this coordinator does not lead; {leader} does"),
        ),
        None => Status::new(
            Code::FailedPrecondition,
            "no coordinator leads at the moment; try again",
        ),
    };
    if let Some(value) = leader.and_then(|leader| leader.parse().ok()) {
        status.metadata_mut().insert(LEADER, value);
    }
    status
}

/// The leadership moved while the answer was awaited, or ended; the client asks again, perhaps elsewhere.
pub(super) fn leadership_moved() -> Status {
    Status::unavailable("the leadership moved; ask again")
}

pub(super) fn stopping() -> Status {
    Status::unavailable("this coordinator is stopping")
}

pub(super) fn of_store(error: &StoreError) -> Status {
    let text = clipped(&chain(error));
    match error.retryability() {
        Retryability::Retry => Status::unavailable(text),
        Retryability::GiveUp | Retryability::StopRollout => Status::internal(text),
    }
}

pub(super) fn of_bundle(error: &BundleError) -> Status {
    match error {
        BundleError::Store { source, .. } => of_store(source),
        BundleError::Deposed(_) => leadership_moved(),
        BundleError::Missing(_) | BundleError::Damaged { .. } | BundleError::Changed { .. } => {
            Status::data_loss(clipped(&chain(error)))
        }
    }
}

pub(super) fn of_refusal(refusal: &Refusal) -> Status {
    match refusal {
        Refusal::OtherContent { .. } => Status::already_exists(clipped(&refusal.to_string())),
        Refusal::Search(error) => of_search(error),
        Refusal::NoMatch { .. } | Refusal::Waves(_) | Refusal::Undo(_) => invalid(&refusal.to_string()),
    }
}

pub(super) fn of_control(error: &NoControl) -> Status {
    match error {
        NoControl::Search(error) => of_search(error),
        NoControl::Impossible(error) => invalid(&chain(error)),
    }
}

pub(super) fn of_agent(unknown: &drain::Unknown) -> Status {
    missing(&unknown.to_string())
}

pub(super) fn of_forget(error: &forget::Error) -> Status {
    match error {
        forget::Error::Unknown { .. } => missing(&error.to_string()),
        forget::Error::Served { .. } | forget::Error::Unfinished { .. } => refused(&error.to_string()),
    }
}

/// Something that was named is not there.
pub(super) fn missing(message: &str) -> Status {
    Status::not_found(clipped(message))
}

pub(super) fn of_search(error: &show::Error) -> Status {
    match error {
        show::Error::Unknown(_) => Status::not_found(clipped(&error.to_string())),
        show::Error::Ambiguous { .. } => invalid(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_who_does_not_lead_names_the_leader_in_a_trailer() {
        let status = not_leading(Some("http://127.0.0.1:7070"));
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.metadata().get(LEADER).unwrap(), "http://127.0.0.1:7070");
        assert!(not_leading(None).metadata().get(LEADER).is_none());
    }

    #[test]
    fn a_message_fits_into_a_header() {
        let status = invalid(&"ä".repeat(5_000));
        assert!(status.message().len() < LONGEST_MESSAGE_BYTES + 20);
        assert!(status.message().ends_with("(cut off)"));
    }
}
