//! Joining: a token is checked and used in the group's log, a certificate is issued, and the joiner gets its place.
//!
//! Invariant: what a joiner gets is decided by the commit that redeems its token, under its public key, so a repeated
//! request gets the same certificate and uses the token up only once.

use fleet_api::pb::v1;
use fleet_api::pb::v1::admission_client::AdmissionClient;
use fleet_api::pb::v1::admission_server::Admission;
use fleet_core::{Clock, Error, ErrorKind, GroupId, NodeId, SystemClock, limits};
use fleet_membership::Membership;
use fleet_replication::command::{Action, NodeAdmission, Outcome, Redeeming};
use fleet_store::StateReader;
use fleet_store::record::{NodeCertificate, NodeProfile, Payload};
use fleet_store::state::members;
use tonic::{Request, Response, Status};

use super::convert::gossip_keys;
use super::forward::answer;
use crate::config::is_host_port;
use crate::identity::Identity;
use crate::site::{Site, read_failed};
use crate::trust::authority::{Authority, Issued, SigningRequest};
use crate::trust::keeper::{TrustKeeper, sealed_row};
use crate::trust::token::JoinToken;

/// Longest `host:port` of a joiner, bytes: the longest name that DNS knows, and a port.
const ADDRESS_BYTES_MAX: usize = 253 + 6;
/// How much of an address that is refused is shown, characters.
const ADDRESS_SHOWN_MAX: usize = 80;

/// The service.
#[derive(Clone)]
pub struct AdmissionService {
    site: Site,
    identity: Identity,
    trust: TrustKeeper,
    membership: Membership,
}

impl AdmissionService {
    /// Admits to the fleet that `identity` names.
    pub fn new(site: Site, identity: Identity, trust: TrustKeeper, membership: Membership) -> Self {
        Self { site, identity, trust, membership }
    }

    async fn admit(self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Error> {
        let joiner = Joiner::check(&request, &self.identity)?;
        let state = self.site.current_reader().await?;
        let authority = self.trust.authority(&state)?;
        let token = self.token(&request.token, &authority)?;
        let replaces = self.replaced(&state, &joiner)?;
        let issued = authority.issue_node(&joiner.signing_request, joiner.node, SystemClock.now())?;
        let redeeming = Redeeming {
            token,
            public_key: joiner.signing_request.public_key_digest(),
            admission: NodeAdmission {
                node: joiner.node,
                profile: joiner.profile,
                certificate: Some(certificate_row(&issued)),
                replaces,
            },
            answer: encode_chain(&issued)?,
        };
        let outcome = self.site.propose(Action::RedeemToken(Box::new(redeeming))).await?;
        let Outcome::Redeemed { node, answer } = outcome else {
            return Err(Error::new(ErrorKind::Internal, "redeem a token: the group gave another answer"));
        };
        if let Some(sealing_key) = joiner.sealing_key {
            let row = sealed_row(&authority, node, &sealing_key)?;
            self.site.propose(Action::PutTrust { rows: vec![row] }).await?;
        }
        self.response(&authority, &answer)
    }

    /// The token shown, checked as far as that is possible without the state.
    fn token(
        &self,
        text: &str,
        authority: &Authority,
    ) -> Result<Option<(fleet_store::record::TokenId, fleet_core::Digest)>, Error> {
        if text.is_empty() {
            if self.identity.dev {
                return Ok(None);
            }
            return Err(Error::new(ErrorKind::Unauthenticated, "join without a token").with_next_step(
                "Run `fleetctl token create` on a machine with the fleet's credential, and pass --token.",
            ));
        }
        let token: JoinToken = text.parse()?;
        if token.root != fleet_core::Digest::of(authority.root()) {
            return Err(Error::new(ErrorKind::PermissionDenied, "join with a token of another fleet")
                .with_next_step("Make one here with `fleetctl token create`, and pass it with --token."));
        }
        if token.group != self.identity.group_id {
            return Err(Error::new(ErrorKind::PermissionDenied, "join with a token of another site")
                .with_next_step("Make one here with `fleetctl token create`, and pass it with --token."));
        }
        Ok(Some((token.id, token.secret_digest())))
    }

    /// The node of the same name that the joiner takes the place of.
    fn replaced(&self, state: &StateReader, joiner: &Joiner) -> Result<Option<NodeId>, Error> {
        let Some(named) = members::node_named(state, &joiner.profile.name).map_err(read_failed)? else {
            return Ok(None);
        };
        if named.id == joiner.node {
            return Ok(None);
        }
        if self.membership.current_view().is_active(named.id) {
            let message = format!("join as `{}`: a live node has this name", joiner.profile.name);
            return Err(Error::new(ErrorKind::Conflict, message).with_next_step("Choose another name with --name."));
        }
        Ok(Some(named.id))
    }

    fn response(&self, authority: &Authority, answer: &Payload) -> Result<v1::JoinResponse, Error> {
        let certificates: Vec<Vec<u8>> = postcard::from_bytes(answer.as_slice())
            .map_err(|source| Error::new(ErrorKind::Internal, "read a kept certificate chain").with_source(source))?;
        let members = self
            .site
            .nodes()?
            .into_iter()
            .map(|node| v1::Node {
                node_id: node.id.as_bytes().to_vec(),
                name: node.profile.name,
                site: node.profile.site.to_string(),
                address: node.profile.address,
                http_address: node.profile.http_address,
                ..v1::Node::default()
            })
            .collect();
        Ok(v1::JoinResponse {
            fleet_id: self.identity.fleet_id.as_bytes().to_vec(),
            certificates,
            root: authority.root().to_vec(),
            gossip_keys: gossip_keys(&self.identity),
            site: self.site.name().to_owned(),
            group_id: group_bytes(self.site.group().id()),
            epoch: self.site.group().epoch(),
            members,
            dev: self.identity.dev,
        })
    }
}

#[tonic::async_trait]
impl Admission for AdmissionService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let service = self.clone();
        answer(
            &self.site,
            request,
            |request| service.admit(request),
            |channel, request| async move { AdmissionClient::new(channel).join(request).await },
        )
        .await
    }
}

/// A join request whose form is right.
struct Joiner {
    node: NodeId,
    profile: NodeProfile,
    signing_request: SigningRequest,
    sealing_key: Option<[u8; 32]>,
}

impl Joiner {
    fn check(request: &v1::JoinRequest, identity: &Identity) -> Result<Self, Error> {
        let refused = |message: String| Error::new(ErrorKind::InvalidInput, format!("join: {message}"));
        let node =
            NodeId::from_slice(&request.node_id).ok_or_else(|| refused("the node id is not 16 bytes".to_owned()))?;
        if !is_plain(&request.name, limits::TAG_BYTES_MAX) {
            return Err(refused(format!(
                "the name must have 1 to {} bytes and no control characters",
                limits::TAG_BYTES_MAX
            )));
        }
        if !request.site.is_empty() && request.site != identity.site.as_str() {
            return Err(refused(format!("site `{}` is not here; this version has one site", request.site)));
        }
        if !is_host_port(&request.address) || !is_plain(&request.address, ADDRESS_BYTES_MAX) {
            return Err(refused(format!("the address `{}` is not host:port", shown(&request.address))));
        }
        if !is_plain(&request.http_address, ADDRESS_BYTES_MAX) {
            return Err(refused(format!("the HTTP address `{}` is not host:port", shown(&request.http_address))));
        }
        for (what, words) in [("tags", &request.tags), ("capabilities", &request.capabilities)] {
            if words.len() > limits::TAGS_MAX || !words.iter().all(|word| is_plain(word, limits::TAG_BYTES_MAX)) {
                return Err(refused(format!(
                    "the {what} must be at most {}, each of 1 to {} bytes without control characters",
                    limits::TAGS_MAX,
                    limits::TAG_BYTES_MAX
                )));
            }
        }
        if request.version.len() > limits::TAG_BYTES_MAX {
            return Err(refused(format!("the version must have at most {} bytes", limits::TAG_BYTES_MAX)));
        }
        if request.slots == 0 || request.slots > limits::SLOTS_MAX {
            return Err(refused(format!("slots must be 1 to {}", limits::SLOTS_MAX)));
        }
        let sealing_key = match request.sealing_key.as_slice() {
            [] => None,
            bytes => Some(bytes.try_into().map_err(|_| refused("the sealing key is not 32 bytes".to_owned()))?),
        };
        let profile = NodeProfile {
            name: request.name.clone(),
            site: identity.site.clone(),
            address: request.address.clone(),
            http_address: request.http_address.clone(),
            tags: sorted(&request.tags),
            slots: request.slots,
            capabilities: sorted(&request.capabilities),
            version: request.version.clone(),
        };
        Ok(Self { node, profile, signing_request: SigningRequest::parse(&request.csr)?, sealing_key })
    }
}

/// Whether `text` has 1 to `bytes_max` bytes that can stand in one line of a table or a log.
fn is_plain(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.contains(char::is_control)
}

/// As much of `text` as a message shows.
fn shown(text: &str) -> String {
    text.chars().take(ADDRESS_SHOWN_MAX).collect()
}

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort();
    words.dedup();
    words
}

/// What the state keeps of an issued certificate.
pub(crate) fn certificate_row(issued: &Issued) -> NodeCertificate {
    NodeCertificate { serial: issued.facts.serial.clone(), not_after: issued.facts.not_after }
}

fn encode_chain(issued: &Issued) -> Result<Payload, Error> {
    let chain: Vec<&[u8]> = issued.chain.iter().map(AsRef::as_ref).collect();
    let bytes = postcard::to_stdvec(&chain)
        .map_err(|source| Error::new(ErrorKind::Internal, "keep a certificate chain").with_source(source))?;
    Ok(bytes.into())
}

fn group_bytes(group: GroupId) -> Vec<u8> {
    group.as_bytes().to_vec()
}
