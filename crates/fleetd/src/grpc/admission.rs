//! Joining: a token is checked and used in the group's log, a certificate is issued, and the joiner gets its place.
//!
//! Invariant: what a joiner gets is decided by the commit that redeems its token, under its public key, so a repeated
//! request gets the same certificate and uses the token up only once.

use fleet_api::pb::v1;
use fleet_api::pb::v1::admission_client::AdmissionClient;
use fleet_api::pb::v1::admission_server::Admission;
use fleet_api::status::status_of;
use fleet_core::{Digest, Error, ErrorKind, GroupId, NodeId, SiteName, limits};
use fleet_membership::Membership;
use fleet_replication::command::{ADMIT_VERSION, Action, FIRST_VERSION, NodeAdmission, Outcome, Redeeming};
use fleet_store::StateReader;
use fleet_store::record::{NodeCertificate, NodeProfile, Payload, TokenId};
use fleet_store::state::{jobs, members};
use tonic::{Request, Response, Status};

use super::convert::{gossip_keys, keyring};
use super::forward::answer;
use super::registry::{Destination, sent_on};
use super::removal;
use crate::config::{is_host_port, is_plain};
use crate::daemon::custody;
use crate::identity::Identity;
use crate::site::{Site, read_failed};
use crate::trust::authority::{Authority, Issued, SigningRequest};
use crate::trust::keeper::{TrustKeeper, sealed_row};
use crate::trust::token::JoinToken;

/// How much of an address that is refused is shown, characters.
const ADDRESS_SHOWN_MAX: usize = 80;

/// The service.
#[derive(Clone)]
pub struct AdmissionService {
    pub(super) site: Site,
    pub(super) identity: Identity,
    pub(super) trust: TrustKeeper,
    membership: Membership,
    /// SHA-256 of the fleet's root certificate.
    root: Digest,
}

impl AdmissionService {
    /// Admits to the fleet that `identity` names, whose root has the digest `root`.
    pub fn new(site: Site, identity: Identity, trust: TrustKeeper, membership: Membership, root: Digest) -> Self {
        Self { site, identity, trust, membership, root }
    }

    async fn admit(self, request: v1::JoinRequest) -> Result<v1::JoinResponse, Error> {
        let joiner = Joiner::check(&request, &self.identity.site)?;
        let token = self.token(&request.token)?;
        let state = self.site.current_reader().await?;
        let gate = jobs::site(&state).map_err(read_failed)?.gate;
        joiner.refuse_behind(gate)?;
        let authority = self.trust.authority(&state)?;
        let token = token.map(|token| self.redeemable(&token, &state)).transpose()?;
        refuse_crowd(&state, joiner.node)?;
        let replaces = self.replaced(&state, &joiner).await?;
        let _alone = match replaces {
            Some(node) => {
                let alone = self.site.removing().await;
                let operation = format!("join as `{}`", joiner.profile.name);
                removal::check(&self.site, node, &operation).await?;
                Some(alone)
            }
            None => None,
        };
        let issued = authority.issue_node(&joiner.signing_request, joiner.node, self.trust.now())?;
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
        let redeeming = Box::new(redeeming);
        let is_kept = gate >= ADMIT_VERSION;
        let action = match &joiner.sealing_key {
            Some(key) if is_kept => Action::Admit { redeeming, sealing_key: Payload::from(key.to_vec()) },
            _ => Action::RedeemToken(redeeming),
        };
        let outcome = self.site.propose(action).await?;
        let Outcome::Redeemed { node, answer } = outcome else {
            return Err(Error::new(ErrorKind::Internal, "redeem a token: the group gave another answer"));
        };
        if let Some(sealing_key) = joiner.sealing_key.filter(|_| !is_kept) {
            // Nobody could seal for it later, so it is done now, as earlier versions did for every joiner.
            let row = sealed_row(&authority, node, &sealing_key)?;
            self.site.propose(Action::PutTrust { rows: vec![row] }).await?;
        }
        if let Err(error) = custody::look(&self.site, &self.trust).await {
            // Looked after every second from here on.
            tracing::warn!(error = fleet_core::error::chain(&error), "the joiner does not have its keys yet");
        }
        self.response(&authority, &answer)
    }

    /// The token shown, checked as far as that costs nothing: whoever can reach the port may send one.
    pub(super) fn token(&self, text: &str) -> Result<Option<JoinToken>, Error> {
        if text.is_empty() {
            if self.identity.dev {
                return Ok(None);
            }
            return Err(Error::new(ErrorKind::Unauthenticated, "join without a token").with_next_step(
                "Run `fleetctl token create` on a machine with the fleet's credential, and pass --token.",
            ));
        }
        let token: JoinToken = text.parse()?;
        if token.root != self.root {
            return Err(foreign("fleet"));
        }
        Ok(Some(token))
    }

    /// What is redeemed for `token`, if it is of this site, or was of the registry and went on here with the founding.
    fn redeemable(&self, token: &JoinToken, state: &StateReader) -> Result<(TokenId, Digest), Error> {
        if token.group != self.identity.group_id && members::token(state, token.id).map_err(read_failed)?.is_none() {
            // The last step of a founding notes the founder; what is left of its token is taken over before that.
            let is_founded = members::node(state, self.identity.node_id).map_err(read_failed)?.is_some();
            return Err(if is_founded { foreign("site") } else { being_founded() });
        }
        Ok((token.id, token.secret_digest()))
    }

    /// The node of the same name that the joiner takes the place of.
    async fn replaced(&self, state: &StateReader, joiner: &Joiner) -> Result<Option<NodeId>, Error> {
        let Some(named) = members::node_named(state, &joiner.profile.name).map_err(read_failed)? else {
            return Ok(None);
        };
        if named.id == joiner.node {
            return Ok(None);
        }
        // Gossip may be wrong about it, and taking its place is for good: it is asked itself, too.
        let is_active = self.membership.current_view().is_active(named.id);
        if is_active || self.site.peers().dialer().greet(&named.profile.address, named.id).await.is_ok() {
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
        let keyring = keyring(&self.site.reader()?, &self.identity)?;
        Ok(v1::JoinResponse {
            fleet_id: self.identity.fleet_id.as_bytes().to_vec(),
            certificates,
            root: authority.root().to_vec(),
            gossip_keys: gossip_keys(&keyring),
            keyring_generation: keyring.generation,
            link_secret: self.identity.link_secret().map(|secret| secret.to_vec()).unwrap_or_default(),
            site: self.site.name().to_owned(),
            group_id: group_bytes(self.site.group().id()),
            epoch: self.site.group().epoch(),
            members,
            dev: self.identity.dev,
            first_site: self.identity.first_site().to_string(),
            ..v1::JoinResponse::default()
        })
    }
}

fn foreign(what: &str) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("join with a token of another {what}"))
        .with_next_step("Make one here with `fleetctl token create`, and pass it with --token.")
}

fn being_founded() -> Error {
    Error::new(ErrorKind::Unavailable, "join: the site is being founded")
        .with_retry_after(std::time::Duration::from_millis(200))
        .with_next_step("Try again: it takes a second or two.")
}

/// Refuses a new node where the site has as many as it can list, those that were removed included.
fn refuse_crowd(state: &StateReader, joiner: NodeId) -> Result<(), Error> {
    let is_known = members::node(state, joiner).map_err(read_failed)?.is_some();
    if is_known || members::nodes(state).map_err(read_failed)?.len() < members::NODES_MAX {
        return Ok(());
    }
    let message = format!("join: the site has {} nodes, removed ones included, and takes no more", members::NODES_MAX);
    Err(Error::new(ErrorKind::ResourceExhausted, message))
}

#[tonic::async_trait]
impl Admission for AdmissionService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let destination = self.destination(request.get_ref()).map_err(|error| status_of(&error))?;
        let service = self.clone();
        let pass_on = |channel, request| async move { AdmissionClient::new(channel).join(request).await };
        match destination {
            Destination::Here => answer(&self.site, request, |request| service.admit(request), pass_on).await,
            Destination::Registry => answer(&self.site, request, |request| service.record(request), pass_on).await,
            Destination::OtherRegistry => self.ask_registry(request.into_inner()).await,
            Destination::Site(contacts) => Ok(Response::new(sent_on(contacts))),
        }
    }
}

/// A join request whose form is right.
pub(super) struct Joiner {
    pub(super) node: NodeId,
    pub(super) profile: NodeProfile,
    pub(super) signing_request: SigningRequest,
    sealing_key: Option<[u8; 32]>,
    /// Version of the commands that it can apply.
    commands: u32,
}

impl Joiner {
    /// A joiner that cannot apply what the group may commit would stop at the first such entry.
    fn refuse_behind(&self, gate: u32) -> Result<(), Error> {
        if self.commands >= gate {
            return Ok(());
        }
        let message = format!(
            "join: the site commits commands of version {gate}, this program {} knows them up to {}",
            self.profile.version, self.commands
        );
        Err(Error::new(ErrorKind::FailedPrecondition, message)
            .with_next_step("Upgrade first: install the fleet's version of fleetd on this machine."))
    }

    /// Checks the form of what a joiner for `site` says.
    pub(super) fn check(request: &v1::JoinRequest, site: &SiteName) -> Result<Self, Error> {
        let refused = |message: String| Error::new(ErrorKind::InvalidInput, format!("join: {message}"));
        let node =
            NodeId::from_slice(&request.node_id).ok_or_else(|| refused("the node id is not 16 bytes".to_owned()))?;
        if !is_plain(&request.name, limits::TAG_BYTES_MAX) {
            return Err(refused(format!(
                "the name must have 1 to {} bytes and no control characters",
                limits::TAG_BYTES_MAX
            )));
        }
        if !is_host_port(&request.address) || !is_plain(&request.address, limits::ADDRESS_BYTES_MAX) {
            return Err(refused(format!("the address `{}` is not host:port", shown(&request.address))));
        }
        if !is_plain(&request.http_address, limits::ADDRESS_BYTES_MAX) {
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
        if !request.version.is_empty() && !is_plain(&request.version, limits::TAG_BYTES_MAX) {
            return Err(refused(format!(
                "the version must have at most {} bytes and no control characters",
                limits::TAG_BYTES_MAX
            )));
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
            site: site.clone(),
            address: request.address.clone(),
            http_address: request.http_address.clone(),
            tags: sorted(&request.tags),
            slots: request.slots,
            capabilities: sorted(&request.capabilities),
            version: request.version.clone(),
        };
        // Programs from before there was a gate do not say.
        let commands = request.commands.max(FIRST_VERSION);
        Ok(Self { node, profile, signing_request: SigningRequest::parse(&request.csr)?, sealing_key, commands })
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::identity;
    use crate::trust::node_key::NodeKey;

    fn request() -> v1::JoinRequest {
        v1::JoinRequest {
            node_id: NodeId::generate().as_bytes().to_vec(),
            name: "beta".to_owned(),
            csr: NodeKey::generate().unwrap().signing_request().unwrap(),
            address: "beta:7000".to_owned(),
            http_address: "beta:8000".to_owned(),
            slots: 1,
            version: "0.1.0".to_owned(),
            capabilities: vec!["http".to_owned()],
            ..v1::JoinRequest::default()
        }
    }

    #[test]
    fn a_site_takes_no_more_nodes_than_it_can_list() {
        let store = fleet_store::Store::in_memory().unwrap();
        let group = GroupId::from_bytes([3; 16]);
        let id = |number: usize| NodeId::from_bytes((number as u128).to_be_bytes());
        let profile = Joiner::check(&request(), &identity().site).unwrap().profile;
        let filled = move |state: &mut fleet_store::StateTransaction<'_>, from: usize, to: usize| {
            (from..to).try_for_each(|number| {
                let (id, profile) = (id(number), profile.clone());
                let standing = fleet_store::record::NodeStanding::Removed;
                let joined_at = fleet_core::Timestamp(1);
                let row = fleet_store::record::NodeRecord { id, profile, standing, joined_at, certificate: None };
                state.put(&fleet_store::state::tables::NODES, &row.id, &row)
            })
        };
        let last = members::NODES_MAX - 1;
        let more = filled.clone();
        store.apply(group, move |state| filled(state, 0, last)).wait().unwrap();
        assert!(refuse_crowd(&store.reader(group).unwrap(), id(last)).is_ok());
        store.apply(group, move |state| more(state, last, last + 1)).wait().unwrap();
        let refused = refuse_crowd(&store.reader(group).unwrap(), id(last + 1)).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::ResourceExhausted);
        assert!(refuse_crowd(&store.reader(group).unwrap(), id(last)).is_ok(), "one that belongs to it joins again");
    }

    #[test]
    fn a_joiner_that_says_too_much_or_what_cannot_be_shown_is_refused() {
        let identity = identity();
        assert!(Joiner::check(&request(), &identity.site).is_ok());
        let long = "x".repeat(300);
        let requests = [
            ("version", v1::JoinRequest { version: long.clone(), ..request() }),
            ("version's form", v1::JoinRequest { version: "0\u{7}".to_owned(), ..request() }),
            ("long http", v1::JoinRequest { http_address: format!("{long}:80"), ..request() }),
            ("capability", v1::JoinRequest { capabilities: vec![long.clone()], ..request() }),
            ("capabilities", v1::JoinRequest { capabilities: vec!["a".to_owned(); 1_000], ..request() }),
            ("name", v1::JoinRequest { name: "be\u{1b}[2Jta".to_owned(), ..request() }),
            ("tag", v1::JoinRequest { tags: vec!["a\nb".to_owned()], ..request() }),
            ("address", v1::JoinRequest { address: "be\rta:7000".to_owned(), ..request() }),
        ];
        for (what, request) in requests {
            let refusal = Joiner::check(&request, &identity.site).err().map(|error| error.kind);
            assert_eq!(refusal, Some(ErrorKind::InvalidInput), "{what}");
        }
    }

    #[test]
    fn a_joiner_behind_the_gate_is_told_to_upgrade() {
        let joiner = |commands| {
            let request = v1::JoinRequest { commands, ..request() };
            Joiner::check(&request, &identity().site).unwrap()
        };
        assert!(joiner(0).refuse_behind(1).is_ok(), "an old program, an old group");
        assert_eq!(joiner(0).refuse_behind(2).unwrap_err().kind, ErrorKind::FailedPrecondition);
        assert_eq!(joiner(3).refuse_behind(4).unwrap_err().kind, ErrorKind::FailedPrecondition);
        assert!(joiner(4).refuse_behind(4).is_ok() && joiner(9).refuse_behind(4).is_ok());
    }
}
