//! One call to etcd: its deadline, and when it is sent again.

use super::failure::{self, Meaning};
use crate::store::Error;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How long a call may take, all tries together.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// The pause before another try.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The most tries at once for a cluster of this many members or more.
const MOST_MEMBERS: usize = 5;

/// Whether a request may be sent again when nobody knows if etcd carried it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is as good as once.
    Harmless,
    /// The second time would not be the same.
    Harmful,
}

/// No answer came in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", TIMEOUT.as_secs())]
struct Late;

/// Which member is asked. All calls go to one until it fails one of them; then they go to the next. Asking them in turn
/// would lose a share of the commits for as long as one member hangs.
#[derive(Debug)]
pub(super) struct Choice {
    members: usize,
    current: AtomicUsize,
}

impl Choice {
    /// Among this many members, at least one.
    pub(super) fn new(members: usize) -> Self {
        Self {
            members: members.max(1),
            current: AtomicUsize::new(0),
        }
    }

    /// The member to ask.
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed)
    }

    /// The member to ask instead of one that failed. Calls that failed together move on by one, not by as many.
    pub(super) fn after(&self, failed: usize) -> usize {
        let next = (failed + 1) % self.members;
        match self
            .current
            .compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => next,
            Err(current) => current,
        }
    }
}

/// Sends a request to a member, and sends it again where that is right: what never left for want of a connection
/// always, the rest if it is harmless. With several members one that hangs gets only its share of the time.
pub(super) async fn call<T, F>(
    store: &str,
    choice: &Choice,
    repeat: Repeat,
    request: impl Fn(usize) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, etcd_client::Error>>,
{
    let deadline = Instant::now() + TIMEOUT;
    let members = choice.members.min(MOST_MEMBERS);
    let share = match repeat {
        // It is at most `MOST_MEMBERS`.
        Repeat::Harmless => TIMEOUT / u32::try_from(members).unwrap_or(1),
        Repeat::Harmful => TIMEOUT,
    };
    let mut member = choice.current();
    let mut tries_left = 2 * members;
    loop {
        tries_left -= 1;
        let until = deadline.min(Instant::now() + share);
        let (error, again) = match timeout_at(until, request(member)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => {
                let again = match failure::meaning(&error) {
                    Meaning::NotSent => true,
                    Meaning::Unanswered => repeat == Repeat::Harmless,
                    Meaning::Refused => return Err(failure::error(store, error)),
                };
                (failure::error(store, error), again)
            }
            Err(_elapsed) => {
                let error = Error::Unavailable {
                    store: store.to_owned(),
                    source: Box::new(Late),
                };
                (error, repeat == Repeat::Harmless)
            }
        };
        member = choice.after(member);
        if !again || tries_left == 0 || Instant::now() + RETRY_PAUSE >= deadline {
            return Err(error);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tonic::{ConnectError, Status};

    fn unconnected() -> etcd_client::Error {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        etcd_client::Error::GRpcStatus(Status::from_error(Box::new(ConnectError(Box::new(refused)))))
    }

    fn unanswered() -> etcd_client::Error {
        etcd_client::Error::GRpcStatus(Status::unavailable("etcdserver: no leader"))
    }

    /// Fails twice with an error, then answers; how it ended, and how often it was sent.
    async fn third_time(repeat: Repeat, error: fn() -> etcd_client::Error) -> (bool, u32) {
        let sent = Cell::new(0);
        let request = |_| {
            sent.set(sent.get() + 1);
            let answer = if sent.get() < 3 { Err(error()) } else { Ok(()) };
            async { answer }
        };
        let answer = call("etcd://test", &Choice::new(3), repeat, request).await;
        (answer.is_ok(), sent.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_never_left_is_always_sent_again() {
        assert_eq!(third_time(Repeat::Harmful, unconnected).await, (true, 3));
        assert_eq!(third_time(Repeat::Harmless, unconnected).await, (true, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_carried_out_is_sent_again_only_where_that_is_harmless() {
        assert_eq!(third_time(Repeat::Harmful, unanswered).await, (false, 1));
        assert_eq!(third_time(Repeat::Harmless, unanswered).await, (true, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_final() {
        let refused = || etcd_client::Error::GRpcStatus(Status::permission_denied("no"));
        assert_eq!(third_time(Repeat::Harmless, refused).await, (false, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_hangs_gets_its_share_and_all_of_them_the_whole_time() {
        let asked = RefCell::new(Vec::new());
        let start = Instant::now();
        let choice = Choice::new(3);
        let hang = |member| {
            asked.borrow_mut().push(member);
            std::future::pending::<Result<(), etcd_client::Error>>()
        };
        assert!(matches!(
            call("etcd://test", &choice, Repeat::Harmless, hang).await,
            Err(Error::Unavailable { .. })
        ));
        assert_eq!(asked.take(), [0, 1, 2]);
        assert!(start.elapsed() <= TIMEOUT);

        assert!(call("etcd://test", &choice, Repeat::Harmful, hang).await.is_err());
        assert_eq!(asked.take().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_failed_a_call_is_not_asked_next() {
        let choice = Choice::new(3);
        let first_is_down = |member| async move {
            if member == 0 {
                Err(unanswered())
            } else {
                Ok(member)
            }
        };
        assert!(
            call("etcd://test", &choice, Repeat::Harmful, first_is_down)
                .await
                .is_err()
        );
        for _ in 0..3 {
            assert_eq!(
                call("etcd://test", &choice, Repeat::Harmful, first_is_down)
                    .await
                    .unwrap(),
                1
            );
        }
    }

    #[test]
    fn calls_that_failed_together_move_on_by_one() {
        let choice = Choice::new(3);
        assert_eq!((choice.after(0), choice.after(0), choice.current()), (1, 1, 1));
        assert_eq!((choice.after(1), choice.after(2), choice.current()), (2, 0, 0));
    }
}
