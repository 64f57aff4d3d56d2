//! The operators' client against real listeners: credentials, endpoints, hints, interruptions.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fleet_api::pb::v1;
use fleet_api::status::status_of;
use fleet_api::{ClientOptions, Credential, FleetClient};
use fleet_core::{Error, ErrorKind};

use crate::listener::Policy;
use crate::listener::tests::support::{Answer, Fleet, Setup, good, start, stream};
use crate::trust::authority::{SigningRequest, to_pem};
use crate::trust::node_key::NodeKey;

fn credential(fleet: &Fleet, endpoints: Vec<String>) -> Credential {
    let key = NodeKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let admin_id = uuid::Uuid::now_v7();
    let issued = fleet.authority.issue_admin(&request, admin_id, fleet.now).unwrap();
    Credential {
        version: fleet_api::credential::FORMAT_VERSION,
        fleet_id: fleet.authority.fleet(),
        admin_id,
        ca: to_pem(&[fleet.authority.root().clone()]),
        certificate: to_pem(&issued.chain),
        key: key.key_pem(),
        endpoints,
    }
}

fn client(fleet: &Fleet, endpoints: Vec<String>) -> FleetClient {
    let options = ClientOptions {
        credential: Some(credential(fleet, endpoints)),
        deadline: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    FleetClient::new(options).unwrap()
}

fn status_answer(node: &str) -> Answer {
    let status = v1::Status { node: node.to_owned(), ..v1::Status::default() };
    Arc::new(move |_| good(&status))
}

/// An address where nobody listens.
fn dead_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

async fn ask(client: &FleetClient) -> Result<String, Error> {
    client.get_status(v1::GetStatusRequest {}).await.map(|status| status.node)
}

#[tokio::test]
async fn a_credential_file_is_all_that_is_needed() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup { answer: status_answer("alpha"), ..Setup::default() });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.json");
    credential(&fleet, vec![node.address.to_string()]).write(&path).unwrap();
    let options = ClientOptions { credential: Some(Credential::read(&path).unwrap()), ..ClientOptions::default() };
    assert_eq!(ask(&FleetClient::new(options).unwrap()).await.unwrap(), "alpha");
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup { answer: status_answer("beta"), ..Setup::default() });
    let client = client(&fleet, vec![dead_address(), node.address.to_string()]);
    assert_eq!(ask(&client).await.unwrap(), "beta");
    assert_eq!(ask(&client).await.unwrap(), "beta");
}

#[tokio::test]
async fn a_leader_hint_is_followed() {
    let fleet = Fleet::found();
    let leader = start(&fleet, Setup { answer: status_answer("leader"), ..Setup::default() });
    let hint = leader.address.to_string();
    let answer: Answer = Arc::new(move |_| {
        status_of(&Error::new(ErrorKind::NotLeader, "not the leader").with_leader_hint(&hint)).into_http()
    });
    let follower = start(&fleet, Setup { answer, ..Setup::default() });
    let client = client(&fleet, vec![follower.address.to_string()]);
    assert_eq!(ask(&client).await.unwrap(), "leader");
}

#[tokio::test]
async fn a_node_that_has_no_room_is_asked_again_after_its_delay() {
    let fleet = Fleet::found();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer: Answer = Arc::new(move |_| {
        if counted.fetch_add(1, Ordering::SeqCst) < 2 {
            let full = Error::new(ErrorKind::ResourceExhausted, "full").with_retry_after(Duration::from_millis(5));
            return status_of(&full).into_http();
        }
        good(&v1::Status { node: "gamma".to_owned(), ..v1::Status::default() })
    });
    let node = start(&fleet, Setup { answer, ..Setup::default() });
    assert_eq!(ask(&client(&fleet, vec![node.address.to_string()])).await.unwrap(), "gamma");
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_is_wrong_is_not_sent_again() {
    let fleet = Fleet::found();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer: Answer = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let refusal = Error::new(ErrorKind::InvalidInput, "line 3: unknown key").with_next_step("Remove it.");
        status_of(&refusal).into_http()
    });
    let node = start(&fleet, Setup { answer, ..Setup::default() });
    let refusal = ask(&client(&fleet, vec![node.address.to_string()])).await.unwrap_err();
    assert_eq!((refusal.kind, refusal.message.as_str()), (ErrorKind::InvalidInput, "line 3: unknown key"));
    assert_eq!(refusal.next_step.as_deref(), Some("Remove it."));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_unreachable_fleet_is_unavailable_within_the_deadline() {
    let fleet = Fleet::found();
    let options = ClientOptions {
        credential: Some(credential(&fleet, vec![dead_address()])),
        deadline: Duration::from_millis(400),
        ..ClientOptions::default()
    };
    let started = std::time::Instant::now();
    let refusal = ask(&FleetClient::new(options).unwrap()).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn without_a_credential_only_a_development_fleet_on_loopback_answers() {
    let fleet = Fleet::found();
    let dev = Setup { policy: Policy::Development, answer: status_answer("dev"), ..Setup::default() };
    let dev = start(&fleet, dev);
    let closed = start(&fleet, Setup { answer: status_answer("closed"), ..Setup::default() });
    let bare = |endpoint: String| {
        FleetClient::new(ClientOptions { endpoints: vec![endpoint], ..ClientOptions::default() }).unwrap()
    };
    assert_eq!(ask(&bare(dev.address.to_string())).await.unwrap(), "dev");
    for endpoint in [closed.address.to_string(), "192.0.2.1:7000".to_owned()] {
        let refusal = ask(&bare(endpoint.clone())).await.unwrap_err();
        assert_eq!(refusal.kind.exit_code(), 5, "{endpoint}: {refusal}");
        assert!(refusal.next_step.unwrap().contains("admin.json"), "{endpoint}");
    }
}

#[tokio::test]
async fn the_certificates_of_another_fleet_are_named_as_such() {
    let fleet = Fleet::found();
    let foreign = Fleet::found();
    let node = start(&fleet, Setup { answer: status_answer("alpha"), ..Setup::default() });
    let refusal = ask(&client(&foreign, vec![node.address.to_string()])).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated);
    assert!(refusal.message.contains("another fleet"), "{refusal}");
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let fleet = Fleet::found();
    let first = start(&fleet, Setup { answer: status_answer("one"), ..Setup::default() });
    let second = start(&fleet, Setup { answer: status_answer("two"), ..Setup::default() });
    let client = client(&fleet, vec![first.address.to_string(), second.address.to_string()]);
    assert_eq!(ask(&client).await.unwrap(), "one");
    first.listener.shutdown(Duration::ZERO).await;
    assert_eq!(ask(&client).await.unwrap(), "two");
}

fn change(state: &str) -> v1::JobChange {
    v1::JobChange { job: Some(v1::Job { state: state.to_owned(), ..v1::Job::default() }), tasks: Vec::new() }
}

/// Answers the first watch with `first` and the others with the rest of a job's life.
fn interrupted(first: Vec<v1::JobChange>, end: Option<Error>) -> (Answer, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer: Answer = Arc::new(move |_| {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            stream(&first, end.as_ref())
        } else {
            stream(&[change("running"), change("completed")], None)
        }
    });
    (answer, calls)
}

async fn states(client: &FleetClient) -> Result<Vec<String>, Error> {
    let mut watch =
        client.watch_job(v1::WatchJobRequest { job: "j".to_owned(), ..v1::WatchJobRequest::default() }).await?;
    let mut states = Vec::new();
    while let Some(change) = watch.next().await? {
        states.push(change.job.unwrap_or_default().state);
    }
    Ok(states)
}

#[tokio::test]
async fn a_watch_goes_on_after_its_stream_broke() {
    let fleet = Fleet::found();
    for end in [None, Some(Error::new(ErrorKind::Unavailable, "stopping"))] {
        let (answer, calls) = interrupted(vec![change("queued"), change("running")], end);
        let node = start(&fleet, Setup { answer, ..Setup::default() });
        let seen = states(&client(&fleet, vec![node.address.to_string()])).await.unwrap();
        assert_eq!(seen, ["queued", "running", "completed"], "nothing twice, nothing missing");
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_job_or_with_what_is_wrong() {
    let fleet = Fleet::found();
    let (answer, calls) = interrupted(vec![change("queued"), change("failed"), change("more")], None);
    let node = start(&fleet, Setup { answer, ..Setup::default() });
    let seen = states(&client(&fleet, vec![node.address.to_string()])).await.unwrap();
    assert_eq!(seen, ["queued", "failed"]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let (answer, calls) = interrupted(vec![], Some(Error::new(ErrorKind::NotFound, "no such job")));
    let node = start(&fleet, Setup { answer, ..Setup::default() });
    let refusal = states(&client(&fleet, vec![node.address.to_string()])).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::NotFound);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_token_is_not_made_twice_when_the_outcome_is_unknown() {
    let fleet = Fleet::found();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer: Answer = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        status_of(&Error::new(ErrorKind::Unavailable, "lost the leader")).into_http()
    });
    let node = start(&fleet, Setup { answer, ..Setup::default() });
    let client = client(&fleet, vec![node.address.to_string()]);
    let refusal = client.create_token(v1::CreateTokenRequest::default()).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unavailable);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}
