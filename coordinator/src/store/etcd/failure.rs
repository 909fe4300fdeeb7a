//! What a failed call to etcd means: one table over gRPC's status codes, and how the causes are told to people.

use crate::store::error::{Cause, Error};
use etcd_client::Error as Client;
use std::fmt;
use tonic::{Code, ConnectError, Status};

/// What is known after a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// No connection was made: etcd never saw the request.
    NotSent,
    /// No answer came, or one that says that etcd is in trouble. It may have been carried out.
    Unanswered,
    /// etcd answered that it will not do it.
    Refused,
}

/// What a status code means.
///
/// etcd answers `Unavailable` without a leader or when its own time ran out, `ResourceExhausted` when it is overloaded
/// or its disk quota is used up (which ends when somebody makes room), and `Unknown` or `Internal` come from the
/// transport. Everything else is about the request.
fn of_code(code: Code) -> Meaning {
    match code {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unknown
        | Code::Internal => Meaning::Unanswered,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss => Meaning::Refused,
    }
}

/// What a failed call means.
pub(super) fn meaning(error: &Client) -> Meaning {
    match error {
        Client::GRpcStatus(status) if never_connected(status) => Meaning::NotSent,
        Client::GRpcStatus(status) => of_code(status.code()),
        Client::InvalidArgs(_)
        | Client::InvalidUri(_)
        | Client::Utf8Error(_)
        | Client::InvalidMetadataValue(_) => Meaning::Refused,
        // Trouble on the way, of a kind that says nothing of how far the request got.
        _ => Meaning::Unanswered,
    }
}

/// Whether etcd answered with this code.
pub(super) fn has_code(error: &Client, code: Code) -> bool {
    matches!(error, Client::GRpcStatus(status) if status.code() == code)
}

/// The store's error for a failed call.
pub(super) fn error(store: &str, error: Client) -> Error {
    let store = store.to_owned();
    match meaning(&error) {
        Meaning::NotSent | Meaning::Unanswered => Error::Unavailable {
            store,
            source: cause(error),
        },
        Meaning::Refused => Error::Refused {
            store,
            source: cause(error),
        },
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The client's error, with what etcd said in front instead of the client's own type names.
fn cause(error: Client) -> Cause {
    match error {
        Client::GRpcStatus(status) => Box::new(Said(status)),
        other => Box::new(other),
    }
}

/// A status as people read it: its message, and what caused it as the source.
#[derive(Debug)]
struct Said(Status);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.message() {
            "" => f.write_str(self.0.code().description()),
            message => f.write_str(message),
        }
    }
}

impl std::error::Error for Said {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The first cause repeats the message.
        std::error::Error::source(&self.0).and_then(std::error::Error::source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_meaning() {
        use Meaning::{Refused, Unanswered};
        let table = [
            (Code::Ok, Refused),
            (Code::Cancelled, Unanswered),
            (Code::Unknown, Unanswered),
            (Code::InvalidArgument, Refused),
            (Code::DeadlineExceeded, Unanswered),
            (Code::NotFound, Refused),
            (Code::AlreadyExists, Refused),
            (Code::PermissionDenied, Refused),
            (Code::ResourceExhausted, Unanswered),
            (Code::FailedPrecondition, Refused),
            (Code::Aborted, Unanswered),
            (Code::OutOfRange, Refused),
            (Code::Unimplemented, Refused),
            (Code::Internal, Unanswered),
            (Code::Unavailable, Unanswered),
            (Code::DataLoss, Refused),
            (Code::Unauthenticated, Refused),
        ];
        for (code, expected) in table {
            assert_eq!(
                meaning(&Client::GRpcStatus(Status::new(code, "x"))),
                expected,
                "{code:?}"
            );
        }
    }

    #[test]
    fn a_connection_that_was_never_made_carried_nothing() {
        let refused = ConnectError(Box::new(std::io::Error::from(
            std::io::ErrorKind::ConnectionRefused,
        )));
        let error = Client::GRpcStatus(Status::from_error(Box::new(refused)));
        assert_eq!(meaning(&error), Meaning::NotSent);
    }

    #[test]
    fn trouble_on_the_way_says_nothing_of_the_request_and_bad_settings_are_refused() {
        assert_eq!(
            meaning(&Client::IoError(std::io::ErrorKind::BrokenPipe.into())),
            Meaning::Unanswered
        );
        assert_eq!(
            meaning(&Client::InvalidArgs("no endpoints".to_owned())),
            Meaning::Refused
        );
    }

    #[test]
    fn people_read_what_etcd_said() {
        let status = Status::new(Code::PermissionDenied, "etcdserver: permission denied");
        let error = error("etcd://a:1/x", Client::GRpcStatus(status));
        assert!(matches!(error, Error::Refused { .. }));
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(said, "etcdserver: permission denied");
    }
}
