//! A node that is asked directly, without other nodes around it.

use std::time::Duration;

use fleet_core::timing::Timing;
use fleet_core::{GroupId, SystemClock};
use fleet_store::MemoryDisk;
use openraft::raft::VoteRequest;

use super::*;
use crate::fsm;
use crate::group::{Group, GroupConfig};
use crate::network::{CallError, CallFuture, GroupNetwork};

const GROUP: GroupId = GroupId::from_bytes([7; 16]);

/// A network on which nobody answers.
struct Nobody;

impl GroupNetwork for Nobody {
    fn call(&self, _target: NodeId, _request: Bytes, _deadline: Duration) -> CallFuture<'_> {
        Box::pin(async { Err(CallError::Unreachable("nobody is there".to_owned())) })
    }
}

fn other(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 16])
}

async fn open(store: &Store) -> Group {
    let config = GroupConfig {
        store: store.clone(),
        group: GROUP,
        epoch: 1,
        timing: Timing::LAN,
        clock: Arc::new(SystemClock),
        network: Arc::new(Nobody),
        apply_commands: fsm::apply,
    };
    Group::open(config).await.unwrap()
}

/// What `group` answers to `request` of `sender` in `epoch`.
async fn ask(group: &Group, sender: NodeId, epoch: u64, request: Request) -> Response {
    ask_as(group, sender, sender, epoch, request).await
}

/// What `group` answers to `request` of `sender`, which says that it is `named`.
async fn ask_as(group: &Group, sender: NodeId, named: NodeId, epoch: u64, request: Request) -> Response {
    let envelope = Envelope { group: GROUP, epoch, sender: named, target: group.node(), run: 1, request };
    let bytes = consensus::encode("message of the group", &envelope).unwrap();
    consensus::decode("answer of the group", &group.handle(sender, &bytes).await.unwrap()).unwrap()
}

fn sign_of_life(leader: NodeId, term: u64) -> Request {
    let vote = Vote::new_committed(term, VoterId(leader));
    Request::Append(AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None })
}

#[tokio::test]
async fn a_pledge_to_a_new_leader_outlives_the_process() {
    let disk = MemoryDisk::new();
    let store = disk.open().unwrap();
    let group = open(&store).await;
    let (old, new) = (other(1), other(2));
    assert!(matches!(ask(&group, old, 1, sign_of_life(old, 1)).await, Response::Append(_)));

    // It neither voted for the new leader nor heard it: after a restart it would follow the old one again.
    let early = ask(&group, new, 1, Request::Takeover { term: 2 }).await;
    assert!(matches!(early, Response::Refused(Refusal::NotFollowing(2))), "{early:?}");
    assert!(matches!(
        ask(&group, old, 1, sign_of_life(old, 1)).await,
        Response::Append(AppendEntriesResponse::Success)
    ));

    // Once it heard the new leader it answers, and stands by it after a power loss.
    let heard = ask(&group, new, 1, sign_of_life(new, 2)).await;
    assert!(matches!(heard, Response::Append(AppendEntriesResponse::Success)), "{heard:?}");
    assert!(matches!(ask(&group, new, 1, Request::Takeover { term: 2 }).await, Response::Takeover(_)));
    let disk = disk.lose_power();
    group.shutdown().await;
    let group = open(&disk.open().unwrap()).await;
    let refused = ask(&group, old, 1, sign_of_life(old, 1)).await;
    assert!(matches!(refused, Response::Append(AppendEntriesResponse::HigherVote(_))), "{refused:?}");
    assert!(matches!(ask(&group, new, 1, Request::Takeover { term: 2 }).await, Response::Takeover(_)));
    group.shutdown().await;
}

#[tokio::test]
async fn a_vote_for_the_new_leader_is_enough_for_a_pledge() {
    let group = open(&Store::in_memory().unwrap()).await;
    let new = other(2);
    let asked = Request::Vote(VoteRequest { vote: Vote::new(5, VoterId(new)), last_log_id: None });
    assert!(matches!(ask(&group, new, 1, asked).await, Response::Vote(answer) if answer.vote_granted));
    assert!(matches!(ask(&group, new, 1, Request::Takeover { term: 5 }).await, Response::Takeover(_)));
    group.shutdown().await;
}

#[tokio::test]
async fn only_a_member_can_declare_the_epoch_void() {
    let group = open(&Store::in_memory().unwrap()).await;
    group.found().await.unwrap();
    let mut status = group.status();
    status.wait_for(|status| status.serving_term.is_some()).await.unwrap();
    let stranger = ask(&group, other(9), 9, Request::Poll).await;
    assert!(matches!(stranger, Response::Refused(Refusal::OtherEpoch(1))), "{stranger:?}");
    ask(&group, group.node(), 3, Request::Poll).await;
    let told = status.wait_for(|status| status.superseded_by.is_some()).await.unwrap().superseded_by;
    assert_eq!(told, Some(3), "the stranger is not believed, the member is");
    group.shutdown().await;
}

#[tokio::test]
async fn nobody_speaks_in_the_name_of_another() {
    let group = open(&Store::in_memory().unwrap()).await;
    let (member, liar) = (other(1), other(9));
    let is_refused =
        |answer: &Response| matches!(answer, Response::Refused(Refusal::OtherSender(node)) if *node == liar);
    let asked = |candidate| Request::Vote(VoteRequest { vote: Vote::new(7, VoterId(candidate)), last_log_id: None });
    for request in [sign_of_life(member, 9), asked(member), Request::Takeover { term: 9 }, Request::Poll] {
        let answer = ask_as(&group, liar, member, 1, request).await;
        assert!(is_refused(&answer), "{answer:?}");
    }
    // Nor inside a message that is rightly its own.
    for request in [sign_of_life(member, 9), asked(member)] {
        let answer = ask(&group, liar, 1, request).await;
        assert!(is_refused(&answer), "{answer:?}");
    }
    // An epoch said by a liar is not heard either, though the one it names is a member.
    group.found().await.unwrap();
    let mut status = group.status();
    status.wait_for(|status| status.serving_term.is_some()).await.unwrap();
    let answer = ask_as(&group, liar, group.node(), 4, Request::Poll).await;
    assert!(is_refused(&answer), "{answer:?}");
    assert_eq!(status.borrow().superseded_by, None);
    group.shutdown().await;
}
