//! What a node does with the site's trust, on a group of one in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::revocation::Revocation;
use fleet_api::{PeerDialer, Revocations, Subject, ValidityClock};
use fleet_core::timing::Timing;
use fleet_core::{Clock, Digest, ErrorKind, FleetId, GroupId, NodeId, SiteName, SystemClock, Timestamp};
use fleet_membership::{Forgetful, Membership, MembershipConfig, Metadata, Profile};
use fleet_replication::command::{ADMIT_VERSION, Action, NodeAdmission, TokenGrant};
use fleet_replication::{Group, GroupConfig};
use fleet_store::Store;
use fleet_store::record::{Founding, GossipKey, Keyring, NodeProfile, Payload, TokenId};
use fleet_store::state::members;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::keyring::{Follower, Rotator, ring};
use super::renewal::sign_own;
use super::silence::Silence;
use super::{custody, expulsion};
use crate::grpc::{live_tokens, renew_certificate};
use crate::identity::tests::identity;
use crate::identity::{Identity, StoredGossipKey};
use crate::ports::{NetworkPort, Peers};
use crate::site::Site;
use crate::trust::authority::{Authority, SigningRequest};
use crate::trust::keeper::{TrustKeeper, dropped_row, sealed_for, sealed_row, sealing_key_row, sealing_keys};
use crate::trust::node_key::NodeKey;
use crate::trust::revoked;
use crate::trust::rotation::STEP_WAIT;
use crate::trust::sealing::SealingKey;

/// A founded site with one voter and nobody else.
pub(super) struct Alone {
    pub(super) site: Site,
    pub(super) trust: TrustKeeper,
    pub(super) authority: Authority,
    pub(super) key: NodeKey,
    pub(super) validity: ValidityClock,
}

impl Alone {
    pub(super) async fn found() -> Self {
        Self::found_as(SiteName::default()).await
    }

    /// The same, of a site called `name`, whose authority is the root all the same.
    pub(super) async fn found_as(name: SiteName) -> Self {
        let store = Store::in_memory().unwrap();
        let (node, fleet, group) = (store.node_id(), FleetId::generate(), GroupId::generate());
        let authority = Authority::found(fleet, SystemClock.now()).unwrap();
        let key = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
        let issued = authority.issue_node(&request, node, SystemClock.now()).unwrap();
        let key = key.with_chain(issued.chain).unwrap();
        let validity = ValidityClock::system();
        let dialer =
            PeerDialer::new(authority.root().clone(), key.cell().unwrap(), Revocations::new(), validity.clone());
        let peers = Peers::new(dialer, Handle::current());
        let config = GroupConfig {
            store: store.clone(),
            group,
            epoch: 1,
            timing: Timing::LAN,
            clock: Arc::new(SystemClock),
            network: Arc::new(NetworkPort::new(peers.clone())),
            apply_commands: fleet_replication::fsm::apply,
        };
        let group = Group::open(config).await.unwrap();
        group.found().await.unwrap();
        group.status().wait_for(|status| status.serving_term.is_some()).await.unwrap();
        let site = Site::new(group, store, peers, name.as_str());
        let founding = Founding { fleet, site: name.clone(), group: site.group().id(), founder: node, dev: false };
        site.propose(Action::Found(founding)).await.unwrap();
        let profile = NodeProfile { site: name, ..profile("alone") };
        let own = NodeAdmission { node, profile, certificate: None, replaces: None };
        site.propose(Action::PutNode(Box::new(own))).await.unwrap();
        let trust = TrustKeeper::new(node, SealingKey::generate().unwrap(), validity.clone());
        Self { site, trust, authority, key, validity }
    }

    pub(super) fn node(&self) -> NodeId {
        self.site.group().node()
    }
}

/// What a node called `name` says of itself.
pub(super) fn profile(name: &str) -> NodeProfile {
    NodeProfile {
        name: name.to_owned(),
        site: SiteName::default(),
        address: format!("{name}:7000"),
        http_address: format!("{name}:8000"),
        tags: Vec::new(),
        slots: 1,
        capabilities: Vec::new(),
        version: "0".to_owned(),
    }
}

/// Admits `node` as `name`.
pub(super) fn admission(node: NodeId, name: &str) -> Action {
    let profile = profile(name);
    Action::PutNode(Box::new(NodeAdmission { node, profile, certificate: None, replaces: None }))
}

#[tokio::test]
async fn the_root_key_is_sealed_for_voters_and_taken_from_others() {
    let alone = Alone::found().await;
    let (site, own) = (&alone.site, alone.node());
    site.propose(alone.trust.founding_rows(&alone.authority).unwrap()).await.unwrap();
    let (learner, removed) = (NodeId::generate(), NodeId::generate());
    let sealing = SealingKey::generate().unwrap();
    site.propose(admission(NodeId::generate(), "third")).await.unwrap();
    for (node, name) in [(learner, "learner"), (removed, "removed")] {
        site.propose(admission(node, name)).await.unwrap();
        let row = sealed_row(&alone.authority, node, &sealing.public_key()).unwrap();
        site.propose(Action::PutTrust { rows: vec![row] }).await.unwrap();
    }
    site.propose(Action::RemoveNode { node: removed }).await.unwrap();

    custody::look(site, &alone.trust).await.unwrap();
    assert_eq!(sealed_for(&site.reader().unwrap()).unwrap().len(), 3, "not before all programs know such rows");
    site.propose(Action::Gate { version: ADMIT_VERSION }).await.unwrap();
    custody::look(site, &alone.trust).await.unwrap();
    assert_eq!(sealed_for(&site.reader().unwrap()).unwrap(), [own, learner].into(), "nobody could give it back yet");
    site.propose(Action::PutTrust { rows: vec![sealing_key_row(learner, &sealing.public_key())] }).await.unwrap();
    custody::look(site, &alone.trust).await.unwrap();
    assert_eq!(sealed_for(&site.reader().unwrap()).unwrap(), [own].into());
    assert_eq!(sealing_keys(&site.reader().unwrap()).unwrap().get(&own), Some(&alone.trust.public_key()));

    // A voter whose row is missing gets it from a leader that can open the key.
    let authority = alone.trust.authority(&site.reader().unwrap()).unwrap();
    assert_eq!(authority.root(), alone.authority.root());
    site.propose(Action::PutTrust { rows: vec![dropped_row(&site.reader().unwrap(), own).unwrap()] }).await.unwrap();
    let blind = TrustKeeper::new(own, SealingKey::generate().unwrap(), ValidityClock::system());
    assert_eq!(blind.authority(&site.reader().unwrap()).unwrap_err().kind, ErrorKind::Unavailable);
    custody::look(site, &alone.trust).await.unwrap();
    assert_eq!(sealed_for(&site.reader().unwrap()).unwrap(), [own].into());
    site.group().shutdown().await;
}

#[tokio::test]
async fn a_live_token_is_found_among_any_number_that_are_over() {
    let alone = Alone::found().await;
    let now = SystemClock.now();
    for number in 0..7 {
        let expires_at = if number == 6 { now.saturating_add(Duration::from_secs(60)) } else { Timestamp(1) };
        let (token, site) = (TokenId(number), SiteName::default());
        let grant = TokenGrant { token, secret: Digest::of(b"secret"), site, uses: 1, expires_at };
        alone.site.propose(Action::CreateToken(grant)).await.unwrap();
    }
    let state = alone.site.reader().unwrap();
    for at_once in [1, 2, 3, 7, 100] {
        let found: Vec<_> = live_tokens(&state, now, at_once).unwrap().into_iter().map(|(id, _)| id).collect();
        assert_eq!(found, [TokenId(6)], "{at_once} at a time");
    }
    alone.site.group().shutdown().await;
}

#[tokio::test]
async fn removing_a_node_replaces_the_gossip_keys_once() {
    let alone = Alone::found().await;
    let site = &alone.site;
    let first = GossipKey { key_id: 1, key: Payload::from(vec![1; 32]) };
    site.propose(Action::PutKeyring(Keyring { generation: 1, keys: vec![first] })).await.unwrap();
    let removed = NodeId::generate();
    site.propose(admission(removed, "removed")).await.unwrap();
    let ids = || {
        let keyring = members::keyring(&site.reader().unwrap()).unwrap();
        keyring.keys.iter().map(|key| key.key_id).collect::<Vec<_>>()
    };
    let (mut rotator, mut now) = (Rotator::default(), SystemClock.boot_now());
    let mut look = async || {
        now = now.saturating_add(STEP_WAIT);
        rotator.look(site, now).await.unwrap();
    };
    site.propose(Action::RemoveNode { node: removed }).await.unwrap();
    look().await;
    look().await;
    assert_eq!(ids(), [1], "not before every program knows the rows");
    site.propose(Action::Gate { version: ADMIT_VERSION }).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..12 {
        look().await;
        seen.push(ids());
    }
    seen.dedup();
    assert_eq!(seen, [vec![1], vec![1, 2], vec![2, 1], vec![2]], "once for one removal");
    site.group().shutdown().await;
}

#[tokio::test]
async fn a_full_ring_is_emptied_before_a_removed_node_counts_as_shut_out() {
    let alone = Alone::found().await;
    let site = &alone.site;
    let key = |key_id: u8| GossipKey { key_id, key: Payload::from(vec![key_id; 32]) };
    site.propose(Action::PutKeyring(Keyring { generation: 1, keys: (1..=8).map(key).collect() })).await.unwrap();
    let removed = NodeId::generate();
    site.propose(admission(removed, "removed")).await.unwrap();
    site.propose(Action::RemoveNode { node: removed }).await.unwrap();
    site.propose(Action::Gate { version: ADMIT_VERSION }).await.unwrap();
    let (mut rotator, mut now) = (Rotator::default(), SystemClock.boot_now());
    let mut seen = Vec::new();
    for _ in 0..12 {
        now = now.saturating_add(STEP_WAIT);
        rotator.look(site, now).await.unwrap();
        let keyring = members::keyring(&site.reader().unwrap()).unwrap();
        seen.push(keyring.keys.iter().map(|key| key.key_id).collect::<Vec<_>>());
    }
    seen.dedup();
    let full = vec![1, 2, 3, 4, 5, 6, 7, 8];
    let promoted = vec![8, 1, 2, 3, 4, 5, 6, 7];
    assert_eq!(seen, [full, promoted, vec![8], vec![8, 9], vec![9, 8], vec![9]], "it ends with a key that is new");
    site.group().shutdown().await;
}

/// A follower of a node that was never told of a rotation, with gossip that nobody answers.
fn follower(data_dir: &Path) -> Follower {
    let mut identity = identity();
    identity.gossip_keys = vec![StoredGossipKey { key_id: 1, key: [1; 32] }];
    let config = MembershipConfig {
        node: identity.node_id,
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        seeds: Vec::new(),
        keyring: ring(&identity).unwrap(),
        wan_keyring: None,
        profile: Profile::Lan,
        metadata: Metadata::default(),
    };
    let membership = Membership::start(config, Arc::new(Forgetful)).unwrap();
    let in_use = watch::Sender::new(identity.keyring());
    Follower { identity, membership, data_dir: data_dir.to_owned(), in_use, ahead: Silence::default() }
}

#[tokio::test]
async fn a_newer_keyring_is_kept_and_used_and_an_older_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let mut follower = follower(directory.path());
    let keyring = |generation, ids: &[u8]| {
        let keys = ids.iter().map(|key_id| GossipKey { key_id: *key_id, key: Payload::from(vec![*key_id; 32]) });
        Keyring { generation, keys: keys.collect() }
    };
    let kept = || std::fs::read(directory.path().join("identity.json")).ok();
    assert!(!follower.adopt(&keyring(1, &[1])).unwrap() && kept().is_none(), "these are the keys it has");
    assert!(follower.adopt(&keyring(3, &[2, 1])).unwrap());
    assert!(!follower.adopt(&keyring(2, &[1, 2])).unwrap(), "the state may be behind what was fetched");
    assert!(!follower.adopt(&Keyring::default()).unwrap(), "a state with nothing applied");
    let read: Identity = serde_json::from_slice(&kept().unwrap()).unwrap();
    assert_eq!((read.keyring_generation, read.gossip_keys[0].key_id), (3, 2));
    assert_eq!(read.link_secret(), Some([1; 32]), "the links of actors stay as they are");
    assert!(follower.adopt(&keyring(4, &[2])).unwrap());
    assert_eq!(follower.identity.link_secret(), Some([1; 32]));
    let damaged = Keyring { generation: 9, keys: vec![GossipKey { key_id: 1, key: Payload::from("short") }] };
    assert!(follower.adopt(&damaged).is_err());
    assert_eq!(follower.identity.keyring_generation, 4, "nothing of a damaged one is used");
    assert_eq!(*follower.in_use.borrow(), keyring(4, &[2]), "others get what this node uses");
    follower.membership.leave().await;
}

#[tokio::test]
async fn keys_that_a_group_with_a_leader_does_not_have_are_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut follower = follower(directory.path());
    let keyring = |generation, id: u8| {
        let keys = vec![GossipKey { key_id: id, key: Payload::from(vec![id; 32]) }];
        Keyring { generation, keys }
    };
    let at = |secs| SystemClock.boot_now().saturating_add(Duration::from_secs(secs));
    assert!(follower.adopt(&keyring(u64::MAX, 9)).unwrap(), "from a node that lies");
    let agreed = keyring(3, 2);
    assert!(!follower.follow(&agreed, true, at(0)).unwrap(), "the state may be behind");
    assert!(!follower.follow(&agreed, false, at(100)).unwrap(), "nobody says that the state is current");
    assert!(!follower.follow(&agreed, true, at(101)).unwrap());
    assert!(!follower.follow(&agreed, true, at(150)).unwrap());
    assert!(follower.follow(&agreed, true, at(170)).unwrap());
    assert_eq!(*follower.in_use.borrow(), agreed);
    follower.membership.leave().await;
}

#[tokio::test]
async fn a_node_reads_of_its_own_removal() {
    let alone = Alone::found().await;
    assert!(!expulsion::is_removed(&alone.site).unwrap());
    alone.site.propose(Action::RemoveNode { node: alone.node() }).await.unwrap();
    assert!(expulsion::is_removed(&alone.site).unwrap());
    let state = alone.site.reader().unwrap();
    let revoked = revoked::read(&state, &members::nodes(&state).unwrap()).unwrap();
    assert!(revoked.contains(&Revocation::Subject(Subject::Node(alone.node()))), "{revoked:?}");
    alone.site.group().shutdown().await;
}

#[tokio::test]
async fn a_voter_renews_by_itself_and_a_removed_one_does_not() {
    let alone = Alone::found().await;
    let csr = alone.key.signing_request().unwrap();
    let renew = || sign_own(&alone.site, &alone.trust, alone.node(), &csr);
    assert_eq!(renew().unwrap_err().kind, ErrorKind::Unavailable, "the root key is not sealed for it");
    alone.site.propose(alone.trust.founding_rows(&alone.authority).unwrap()).await.unwrap();
    assert_eq!(renew().unwrap().last().map(Vec::as_slice), Some(alone.authority.root().as_ref()));
    let stranger = sign_own(&alone.site, &alone.trust, NodeId::generate(), &csr);
    assert_eq!(stranger.unwrap_err().kind, ErrorKind::FailedPrecondition, "it is no voter");
    alone.site.propose(Action::RemoveNode { node: alone.node() }).await.unwrap();
    assert_eq!(renew().unwrap_err().kind, ErrorKind::FailedPrecondition, "it was removed");
    let by_leader = renew_certificate(&alone.site, &alone.trust, alone.node(), &csr, &[]).await;
    assert_eq!(by_leader.unwrap_err().kind, ErrorKind::PermissionDenied, "whoever passes its request on");
    alone.site.group().shutdown().await;
}
