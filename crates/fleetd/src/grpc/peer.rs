//! What nodes say to each other: the group's messages, the robot link, renewal of certificates, the keyring.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use fleet_api::pb::peer;
use fleet_api::pb::peer::peer_server::Peer;
use fleet_api::status::{error_of, status_of};
use fleet_core::{Error, ErrorKind, NodeId};
use fleet_node::Node;
use fleet_replication::command::{ADMIT_VERSION, Action, NodeAdmission};
use fleet_store::StateReader;
use fleet_store::record::{Keyring, NodeRecord, NodeStanding};
use fleet_store::state::{jobs, members};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::admission::certificate_row;
use super::convert::peer_gossip_keys;
use crate::listener::PeerIdentity;
use crate::ports::{Purpose, pump};
use crate::site::{Site, not_found, read_failed};
use crate::trust::authority::SigningRequest;
use crate::trust::keeper::{TrustKeeper, dropped_row, sealing_key_row, sealing_keys};
use crate::trust::sealing::PUBLIC_KEY_BYTES;

/// How long the leader may take over a certificate: less than the node waits that asked for it.
const PASS_ON_TIMEOUT: Duration = Duration::from_secs(4);

type Frames = Pin<Box<dyn Stream<Item = Result<peer::LinkFrame, Status>> + Send>>;

/// The service.
#[derive(Clone)]
pub struct PeerService {
    site: Site,
    node: Node,
    gossip_keys: watch::Receiver<Keyring>,
    trust: TrustKeeper,
}

impl PeerService {
    /// Serves for this node, which uses `gossip_keys`.
    pub fn new(site: Site, node: Node, gossip_keys: watch::Receiver<Keyring>, trust: TrustKeeper) -> Self {
        Self { site, node, gossip_keys, trust }
    }

    /// The keyring, if the same state says that `caller` belongs to the site.
    fn keyring_for(&self, caller: NodeId) -> Result<Keyring, Error> {
        let state = self.site.reader()?;
        check_member(caller, members::node(&state, caller).map_err(read_failed)?.as_ref())?;
        let (agreed, in_use) = (members::keyring(&state).map_err(read_failed)?, self.gossip_keys.borrow().clone());
        Ok(if in_use.generation > agreed.generation { in_use } else { agreed })
    }

    async fn renewed(
        &self,
        node: NodeId,
        request: &peer::RenewCertificateRequest,
    ) -> Result<Response<peer::RenewCertificateResponse>, Status> {
        let renewed = renew_certificate(&self.site, &self.trust, node, &request.csr, &request.sealing_key).await;
        renewed
            .map(|certificates| Response::new(peer::RenewCertificateResponse { certificates }))
            .map_err(|error| status_of(&error))
    }

    /// Passes what `node` asked for on to `leader`.
    async fn pass_on(
        &self,
        leader: NodeId,
        node: NodeId,
        request: peer::RenewCertificateRequest,
    ) -> Result<Response<peer::RenewCertificateResponse>, Error> {
        let mut client = self.site.peers().client(leader, Purpose::Forward)?;
        let onward = peer::RenewCertificateForRequest { node: node.as_bytes().to_vec(), request: Some(request) };
        let mut onward = Request::new(onward);
        onward.set_timeout(PASS_ON_TIMEOUT);
        client.renew_certificate_for(onward).await.map_err(|status| error_of(&status))
    }
}

/// The leader to which this node, `own`, passes on what a node asks whose certificate may have expired: that one may not
/// know the leader, or not be able to tell it from its address. Only a voter does so, for only a voter is believed.
fn passed_on_to(status: &fleet_replication::Status, own: NodeId) -> Option<NodeId> {
    let leader = status.leader.filter(|leader| *leader != own && status.serving_term.is_none())?;
    status.voters().contains(&own).then_some(leader)
}

/// Whether `caller` is believed when it says which other node proved who it is. A voter could sign that certificate by
/// itself, because it holds the root key; a robot must not get one in another's name.
fn check_voter(caller: NodeId, voters: &BTreeSet<NodeId>) -> Result<(), Error> {
    if voters.contains(&caller) {
        return Ok(());
    }
    let message = format!("renew a certificate of another node: node {caller} is no voter");
    Err(Error::new(ErrorKind::PermissionDenied, message))
}

/// Whether `caller` may have the gossip keys, by its `record` here. A valid certificate is not enough: a node that was
/// removed has one where nobody knows yet, and a node that has applied nothing knows of nobody. The caller asks another.
fn check_member(caller: NodeId, record: Option<&NodeRecord>) -> Result<(), Error> {
    let denied = |why: &str| {
        Err(Error::new(ErrorKind::PermissionDenied, format!("hand out the gossip keys: node {caller} {why}")))
    };
    match record.map(|record| record.standing) {
        Some(NodeStanding::Removed) => denied("was removed from the fleet"),
        Some(_) => Ok(()),
        None => denied("is not known here"),
    }
}

/// Issues `node` a certificate for the key that signed `csr`, and notes it in the log.
///
/// # Errors
/// `NotFound` for a node that the group does not know, `PermissionDenied` for one that was removed, `NotLeader` elsewhere
/// than on the leader.
pub(crate) async fn renew_certificate(
    site: &Site,
    trust: &TrustKeeper,
    node: NodeId,
    csr: &[u8],
    sealing_key: &[u8],
) -> Result<Vec<Vec<u8>>, Error> {
    let request = SigningRequest::parse(csr)?;
    let state = site.current_reader().await?;
    let record =
        members::node(&state, node).map_err(read_failed)?.ok_or_else(|| not_found("node", &node.to_string()))?;
    if record.standing == NodeStanding::Removed {
        // Its certificate is refused at the handshake too, but perhaps not yet where it asked.
        let message = format!("renew a certificate: node {node} was removed from the fleet");
        return Err(Error::new(ErrorKind::PermissionDenied, message));
    }
    let issued = trust.authority(&state)?.issue_node(&request, node, trust.now())?;
    let admission =
        NodeAdmission { node, profile: record.profile, certificate: Some(certificate_row(&issued)), replaces: None };
    site.propose(Action::PutNode(Box::new(admission))).await?;
    keep_sealing_key(site, &state, node, sealing_key).await?;
    Ok(issued.chain.iter().map(|certificate| certificate.to_vec()).collect())
}

/// Keeps what secrets for `node` are sealed to, if that is news. What was sealed to an earlier key is of no use any more.
async fn keep_sealing_key(site: &Site, state: &StateReader, node: NodeId, key: &[u8]) -> Result<(), Error> {
    let Ok(key) = <[u8; PUBLIC_KEY_BYTES]>::try_from(key) else { return Ok(()) };
    let known = sealing_keys(state)?.remove(&node);
    if known == Some(key) || jobs::site(state).map_err(read_failed)?.gate < ADMIT_VERSION {
        return Ok(());
    }
    let mut rows = vec![sealing_key_row(node, &key)];
    if node != site.group().node() && known.is_some() {
        rows.push(dropped_row(state, node)?);
    }
    site.propose(Action::PutTrust { rows }).await.map(drop)
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn group(&self, request: Request<peer::GroupMessage>) -> Result<Response<peer::GroupMessage>, Status> {
        let sender =
            PeerIdentity::of_request(request.extensions()).require_node().map_err(|error| status_of(&error))?;
        self.site.peers().heard(sender);
        let answer = self.site.group().handle(sender, &request.into_inner().payload).await;
        match answer {
            Ok(bytes) => Ok(Response::new(peer::GroupMessage { payload: bytes.into() })),
            Err(source) => {
                let error = Error::new(ErrorKind::InvalidInput, "read a message of the group").with_source(source);
                Err(status_of(&error))
            }
        }
    }

    type HeartbeatsStream = Frames;

    async fn heartbeats(
        &self,
        request: Request<Streaming<peer::LinkFrame>>,
    ) -> Result<Response<Self::HeartbeatsStream>, Status> {
        let robot = PeerIdentity::of_request(request.extensions()).require_node().map_err(|error| status_of(&error))?;
        let (duplex, answers) = pump(request.into_inner());
        self.node.link_server().accept_heartbeats(robot, duplex);
        Ok(Response::new(Box::pin(answers)))
    }

    type WorkStream = Frames;

    async fn work(&self, request: Request<Streaming<peer::LinkFrame>>) -> Result<Response<Self::WorkStream>, Status> {
        let robot = PeerIdentity::of_request(request.extensions()).require_node().map_err(|error| status_of(&error))?;
        let (duplex, answers) = pump(request.into_inner());
        self.node.link_server().accept_work(robot, duplex);
        Ok(Response::new(Box::pin(answers)))
    }

    async fn renew_certificate(
        &self,
        request: Request<peer::RenewCertificateRequest>,
    ) -> Result<Response<peer::RenewCertificateResponse>, Status> {
        let identity = PeerIdentity::of_request(request.extensions());
        let node = identity.require_renewing_node().map_err(|error| status_of(&error))?;
        let request = request.into_inner();
        let leader = passed_on_to(&self.site.group().status().borrow(), self.site.group().node());
        if let Some(leader) = leader {
            let answer = self.pass_on(leader, node, request.clone()).await;
            // A leader of an older version does not know the call: the node is told who leads, as ever.
            if !answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Unsupported) {
                return answer.map_err(|error| status_of(&error));
            }
        }
        self.renewed(node, &request).await
    }

    async fn renew_certificate_for(
        &self,
        request: Request<peer::RenewCertificateForRequest>,
    ) -> Result<Response<peer::RenewCertificateResponse>, Status> {
        let caller = PeerIdentity::of_request(request.extensions()).require_node();
        let voters = self.site.group().status().borrow().voters();
        caller.and_then(|caller| check_voter(caller, &voters)).map_err(|error| status_of(&error))?;
        let malformed = || Error::new(ErrorKind::InvalidInput, "renew a certificate: the request is malformed");
        let request = request.into_inner();
        let node = <[u8; 16]>::try_from(request.node).map_err(|_| status_of(&malformed()))?;
        let request = request.request.ok_or_else(|| status_of(&malformed()))?;
        self.renewed(NodeId::from_bytes(node), &request).await
    }

    async fn get_keyring(
        &self,
        request: Request<peer::GetKeyringRequest>,
    ) -> Result<Response<peer::GetKeyringResponse>, Status> {
        let caller = PeerIdentity::of_request(request.extensions()).require_node();
        let keyring = caller.and_then(|caller| self.keyring_for(caller)).map_err(|error| status_of(&error))?;
        let keys = peer_gossip_keys(&keyring);
        Ok(Response::new(peer::GetKeyringResponse { keys, generation: keyring.generation }))
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{SiteName, Timestamp};
    use fleet_store::record::NodeProfile;

    use super::*;

    #[test]
    fn only_a_node_that_is_known_here_gets_the_gossip_keys() {
        let node = NodeId::generate();
        let profile = NodeProfile {
            name: "robot".to_owned(),
            site: SiteName::default(),
            address: "robot:7000".to_owned(),
            http_address: "robot:8000".to_owned(),
            tags: Vec::new(),
            slots: 1,
            capabilities: Vec::new(),
            version: "0".to_owned(),
        };
        let record = |standing| NodeRecord {
            id: node,
            profile: profile.clone(),
            certificate: None,
            standing,
            joined_at: Timestamp(0),
        };
        let refusal = |record: Option<&NodeRecord>| check_member(node, record).err().map(|error| error.kind);
        assert_eq!(refusal(Some(&record(NodeStanding::Active))), None);
        assert_eq!(refusal(Some(&record(NodeStanding::Removed))), Some(ErrorKind::PermissionDenied));
        assert_eq!(refusal(None), Some(ErrorKind::PermissionDenied), "a state with nothing applied");
    }

    #[test]
    fn a_voter_passes_a_renewal_on_to_the_leader_and_only_a_voter_is_believed() {
        let (own, leader) = (NodeId::generate(), NodeId::generate());
        let status = |voters: &[NodeId], leader, serving_term| fleet_replication::Status {
            leader,
            serving_term,
            voter_sets: vec![voters.iter().copied().collect()],
            ..fleet_replication::Status::default()
        };
        assert_eq!(passed_on_to(&status(&[own, leader], Some(leader), None), own), Some(leader));
        assert_eq!(passed_on_to(&status(&[own, leader], Some(own), Some(3)), own), None, "it serves by itself");
        assert_eq!(passed_on_to(&status(&[own, leader], None, None), own), None, "it hears none");
        assert_eq!(passed_on_to(&status(&[leader], Some(leader), None), own), None, "it would not be believed");
        assert!(check_voter(own, &[own, leader].into()).is_ok());
        assert_eq!(check_voter(own, &[leader].into()).unwrap_err().kind, ErrorKind::PermissionDenied);
    }
}
