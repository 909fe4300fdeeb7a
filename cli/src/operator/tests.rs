//! The client against coordinators over real gRPC.

use super::*;
use proto::v1;
use proto::v1::operator_server::{Operator as Service, OperatorServer};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Request;
use tonic::metadata::MetadataMap;

/// What a coordinator answers, one after the other; the last again and again.
#[derive(Clone)]
struct Script(Arc<Mutex<Vec<Result<(), Status>>>>);

impl Script {
    fn answer<T: Default>(&self) -> Result<Response<T>, Status> {
        let mut answers = self.0.lock().unwrap();
        let answer = if answers.len() > 1 {
            answers.remove(0)
        } else {
            answers[0].clone()
        };
        answer.map(|()| Response::new(T::default()))
    }
}

#[tonic::async_trait]
impl Service for Script {
    async fn create_rollout(
        &self,
        _: Request<v1::CreateRolloutRequest>,
    ) -> Result<Response<v1::CreateRolloutResponse>, Status> {
        self.answer()
    }
    async fn get_rollout(
        &self,
        _: Request<v1::GetRolloutRequest>,
    ) -> Result<Response<v1::GetRolloutResponse>, Status> {
        self.answer()
    }
    async fn list_rollouts(
        &self,
        _: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        self.answer()
    }
    type PlanRolloutStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<v1::PlanRolloutResponse, Status>> + Send>>;
    async fn plan_rollout(
        &self,
        _: Request<v1::PlanRolloutRequest>,
    ) -> Result<Response<Self::PlanRolloutStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    type TraceRolloutStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<v1::TraceRolloutResponse, Status>> + Send>>;
    async fn trace_rollout(
        &self,
        _: Request<v1::TraceRolloutRequest>,
    ) -> Result<Response<Self::TraceRolloutStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
    type WatchRolloutStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<v1::WatchRolloutResponse, Status>> + Send>>;
    async fn watch_rollout(
        &self,
        _: Request<v1::WatchRolloutRequest>,
    ) -> Result<Response<Self::WatchRolloutStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
    async fn control_rollout(
        &self,
        _: Request<v1::ControlRolloutRequest>,
    ) -> Result<Response<v1::ControlRolloutResponse>, Status> {
        self.answer()
    }
    async fn list_databases(
        &self,
        _: Request<v1::ListDatabasesRequest>,
    ) -> Result<Response<v1::ListDatabasesResponse>, Status> {
        self.answer()
    }
    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        self.answer()
    }
    async fn undo_rollout(
        &self,
        _: Request<v1::UndoRolloutRequest>,
    ) -> Result<Response<v1::UndoRolloutResponse>, Status> {
        self.answer()
    }
    async fn recover(&self, _: Request<v1::RecoverRequest>) -> Result<Response<v1::RecoverResponse>, Status> {
        self.answer()
    }
}

/// A coordinator; it serves until the test ends.
async fn coordinator(answers: Vec<Result<(), Status>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = OperatorServer::new(Script(Arc::new(Mutex::new(answers))));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    url
}

fn operator(coordinators: &[&str]) -> Operator {
    Operator {
        coordinators: coordinators.iter().map(|&url| url.to_owned()).collect(),
        at: 0,
        leader: None,
        channels: BTreeMap::new(),
        patience: Duration::from_secs(2),
    }
}

fn points_at(leader: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("confiture-leader", leader.parse().unwrap());
    Status::with_metadata(tonic::Code::FailedPrecondition, "it does not lead", metadata)
}

async fn ask(operator: &mut Operator) -> Result<(), Failure> {
    let request = v1::CreateRolloutRequest::default();
    let answer = operator
        .ask("start the rollout", async |mut client| {
            client.create_rollout(request.clone()).await
        })
        .await;
    answer.map(|_| ())
}

#[tokio::test]
async fn the_leader_is_followed() {
    let leader = coordinator(vec![Ok(())]).await;
    let follower = coordinator(vec![Err(points_at(&leader))]).await;
    let mut operator = operator(&[&follower]);
    ask(&mut operator).await.unwrap();
    assert_eq!(operator.leader, Some(leader));
}

#[tokio::test]
async fn a_dead_coordinator_is_passed_over() {
    let alive = coordinator(vec![Ok(())]).await;
    let dead = format!(
        "http://{}",
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    );
    ask(&mut operator(&[&dead, &alive])).await.unwrap();
}

#[tokio::test]
async fn a_leader_that_is_dead_leads_back_to_who_named_it() {
    let dead = format!(
        "http://{}",
        std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
    );
    let follower = coordinator(vec![Err(points_at(&dead)), Ok(())]).await;
    ask(&mut operator(&[&follower])).await.unwrap();
}

#[tokio::test]
async fn a_time_without_a_leader_is_waited_out() {
    let url = coordinator(vec![
        Err(Status::failed_precondition("there is no leader")),
        Err(Status::unavailable("the store does not answer")),
        Ok(()),
    ]);
    ask(&mut operator(&[&url.await])).await.unwrap();
}

#[tokio::test]
async fn a_final_answer_is_not_asked_for_twice() {
    let url = coordinator(vec![Err(Status::not_found("there is no rollout x")), Ok(())]).await;
    let failure = ask(&mut operator(&[&url])).await.unwrap_err();
    assert_eq!(failure.message, "cannot start the rollout: there is no rollout x");
    assert_eq!(failure.exit.code(), 2);
}

#[tokio::test]
async fn a_coordinator_that_does_not_know_the_question_is_of_another_version() {
    let url = coordinator(vec![Err(Status::unimplemented("no such method")), Ok(())]).await;
    let failure = ask(&mut operator(&[&url])).await.unwrap_err();
    assert_eq!(
        failure.message,
        format!(
            "cannot start the rollout: the coordinator at {url} does not know how\n  help: it is of another version than this program ({}): use the same one",
            env!("CARGO_PKG_VERSION")
        )
    );
    assert_eq!(failure.exit.code(), 1);
}

#[tokio::test]
async fn patience_ends_and_says_who_was_asked_last_and_why() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let failure = ask(&mut operator(&[&dead])).await.unwrap_err();
    assert_eq!(failure.exit.code(), 1);
    for part in [dead.as_str(), "connection refused", "help:"] {
        assert!(failure.message.contains(part), "{}", failure.message);
    }
}

#[tokio::test]
async fn two_that_point_at_each_other_do_not_keep_us_busy_for_ever() {
    let one = coordinator(vec![Err(points_at("http://127.0.0.1:1"))]).await;
    let two = coordinator(vec![Err(points_at(&one))]).await;
    let failure = ask(&mut operator(&[&two])).await.unwrap_err();
    assert!(
        failure.message.starts_with("cannot start the rollout"),
        "{}",
        failure.message
    );
}

#[test]
fn what_is_no_coordinator_is_refused_and_a_password_not_repeated() {
    for bad in [
        "127.0.0.1:7070",
        "http://",
        "postgres://x",
        "https://a:1",
        "http://a b",
    ] {
        assert_eq!(check(bad).unwrap_err().exit.code(), 2, "{bad}");
    }
    let failure = check("http://ada:hunter2@host:1").unwrap_err();
    assert!(!failure.message.contains("hunter2"), "{}", failure.message);
    assert!(check("http://127.0.0.1:7070").is_ok() && check("http://[::1]:7070").is_ok());
}
