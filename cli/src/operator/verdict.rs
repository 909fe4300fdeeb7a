//! What a failed answer of a coordinator means: one table for gRPC's status codes.

use shared::rollout::work::Exit;
use tonic::{Code, Status};

/// The trailer with which one that does not lead names the leader.
const LEADER: &str = "confiture-leader";

/// What to do after a failed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ask the leader at this URL.
    Follow(String),
    /// Ask again, or somebody else.
    Again,
    /// The answer will not change; end with this exit code.
    Final(Exit),
}

impl Verdict {
    pub(crate) fn of(status: &Status) -> Self {
        // What the transport made up has a cause; what a coordinator said has none.
        let of_transport = std::error::Error::source(status).is_some();
        match status.code() {
            Code::FailedPrecondition => match status.metadata().get(LEADER).map(|url| url.to_str()) {
                Some(Ok(leader)) if !leader.is_empty() => Self::Follow(leader.to_owned()),
                // There is no leader at the moment.
                Some(Ok(_) | Err(_)) | None => Self::Again,
            },
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => Self::Again,
            Code::Unknown | Code::Internal if of_transport => Self::Again,
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::OutOfRange => {
                Self::Final(Exit::Usage)
            }
            Code::PermissionDenied | Code::Unauthenticated => Self::Final(Exit::Refused),
            Code::Ok
            | Code::Unknown
            | Code::Internal
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::DataLoss => Self::Final(Exit::Failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::metadata::MetadataMap;

    fn with_leader(leader: &'static str) -> Status {
        let mut metadata = MetadataMap::new();
        metadata.insert(LEADER, leader.parse().unwrap());
        Status::with_metadata(Code::FailedPrecondition, "not the leader", metadata)
    }

    #[test]
    fn one_that_does_not_lead_is_left_for_the_leader() {
        assert_eq!(
            Verdict::of(&with_leader("http://b:1")),
            Verdict::Follow("http://b:1".to_owned())
        );
        assert_eq!(Verdict::of(&with_leader("")), Verdict::Again);
        assert_eq!(
            Verdict::of(&Status::failed_precondition("no leader")),
            Verdict::Again
        );
    }

    #[test]
    fn what_the_transport_made_up_is_asked_again_and_what_a_coordinator_said_is_not() {
        let broken = Status::from_error(Box::new(std::io::Error::other("connection reset")));
        assert_eq!(broken.code(), Code::Unknown);
        assert_eq!(Verdict::of(&broken), Verdict::Again);
        assert_eq!(
            Verdict::of(&Status::unknown("a mistake of ours")),
            Verdict::Final(Exit::Failed)
        );
    }

    #[test]
    fn wrong_input_ends_with_two() {
        for status in [
            Status::not_found("no rollout x"),
            Status::invalid_argument("no such label"),
        ] {
            assert_eq!(Verdict::of(&status), Verdict::Final(Exit::Usage));
        }
    }
}
