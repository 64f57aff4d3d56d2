//! How a node comes to be who it is: it founds a fleet, joins one, or resumes what its data directory says.
//!
//! Invariant: the identity file is written last, so a crash in the middle leaves a directory that can try again with the
//! same keys, and a repeated join gets the same answer.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;

use fleet_core::{Clock, Digest, Error, ErrorKind, FleetId, GroupId, NodeId, SystemClock};

use super::foundation::Foundation;
use super::joining;
use crate::cli::Secret;
use crate::config::{HostFacts, Settings};
use crate::identity::{DataDir, Identity, NewIdentity, StoredGossipKey};
use crate::trust::authority::{Authority, SigningRequest};
use crate::trust::joining::seed_of_other_fleet;
use crate::trust::node_key::{NodeKey, load_or_generate_sealing_key};
use crate::trust::sealing::SealingKey;
use crate::trust::token::JoinToken;

/// How a node is to begin if its directory belongs to no fleet yet.
#[derive(Clone, Debug)]
pub enum Beginning {
    /// Found a fleet.
    Found,
    /// Join by these seeds, with a token unless it is a development fleet.
    Join {
        /// `host:port` of nodes to ask.
        seeds: Vec<String>,
        /// The join token.
        token: Token,
    },
}

/// Where the join token is. It does not show in logs, and a file is read only by who has to join: a node that resumes
/// needs none, and the file may be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// Nowhere: the seed is a development fleet's.
    None,
    /// Here.
    Text(Secret),
    /// In this file.
    File(PathBuf),
}

impl Token {
    /// The token's text, if there is one.
    ///
    /// # Errors
    /// `InvalidInput` if the file cannot be read.
    pub fn read(&self) -> Result<Option<Secret>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Text(text) => Ok(Some(text.clone())),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| {
                    Error::new(ErrorKind::InvalidInput, format!("read token file {}", path.display()))
                        .with_source(source)
                })?;
                Ok(Some(Secret(text.trim().to_owned())))
            }
        }
    }
}

/// A node that knows who it is.
pub(super) struct Enrolled {
    pub(super) identity: Identity,
    pub(super) key: NodeKey,
    pub(super) sealing_key: SealingKey,
    /// What this node founds its site with, until that is done.
    pub(super) foundation: Option<Foundation>,
}

/// Who this node is; founds or joins if its directory does not say.
///
/// # Errors
/// What founding or joining failed with; `Conflict` if directory and store disagree.
pub(super) async fn enroll(
    settings: &Settings,
    beginning: &Beginning,
    directory: &DataDir,
    node: NodeId,
) -> Result<Enrolled, Error> {
    let key = NodeKey::load_or_generate(directory.path())?;
    let sealing_key = load_or_generate_sealing_key(directory.path())?;
    if let Some(identity) = directory.load_identity()? {
        refuse_other_fleet(beginning, &key, &identity).await?;
        refuse_other_site(settings, &identity)?;
        let identity = readdressed(settings, directory, identity)?;
        if identity.node_id != node {
            let message = format!("resume node {}: the store belongs to node {node}", identity.node_id);
            return Err(Error::new(ErrorKind::Conflict, message)
                .with_next_step("The data directory was mixed from two nodes. Join again with an empty one."));
        }
        tracing::info!(%node, fleet = %identity.fleet_id, site = %identity.site, "resuming");
        return Ok(Enrolled { identity, key, sealing_key, foundation: Foundation::load(directory)? });
    }
    match beginning {
        Beginning::Found => found(settings, directory, node, key, sealing_key),
        Beginning::Join { seeds, token } => {
            joining::join_by(settings, directory, node, (key, sealing_key), seeds, token.read()?).await
        }
    }
}

/// A directory belongs to one fleet: a token or a seed of another one is a mistake that must not pass in silence.
async fn refuse_other_fleet(beginning: &Beginning, key: &NodeKey, identity: &Identity) -> Result<(), Error> {
    let (Beginning::Join { seeds, token }, Some(root)) = (beginning, key.root()) else { return Ok(()) };
    let refused = |with: &str| {
        let message = format!("join with {with}: the data directory belongs to fleet {} already", identity.fleet_id);
        Error::new(ErrorKind::Conflict, message).with_next_step("Use an empty data directory to join another fleet.")
    };
    if let Token::Text(Secret(text)) = token {
        return if Digest::of(root) == text.parse::<JoinToken>()?.root { Ok(()) } else { Err(refused("this token")) };
    }
    match seed_of_other_fleet(seeds, root).await {
        Some(seed) => Err(refused(&format!("seed {seed}"))),
        None => Ok(()),
    }
}

/// A node stays at the site it joined.
fn refuse_other_site(settings: &Settings, identity: &Identity) -> Result<(), Error> {
    let Some(site) = settings.site.as_ref().filter(|site| **site != identity.site) else { return Ok(()) };
    let message = format!("use site `{site}`: the data directory belongs to site `{}` already", identity.site);
    Err(Error::new(ErrorKind::Conflict, message).with_next_step("Use an empty data directory for another site."))
}

/// The identity with the address that the settings give now, kept if it is another.
fn readdressed(settings: &Settings, directory: &DataDir, identity: Identity) -> Result<Identity, Error> {
    let host = identity.advertise.rsplit_once(':').and_then(|(host, _)| host.trim_matches(['[', ']']).parse().ok());
    let advertise = match (&settings.advertise, host) {
        (None, None) if settings.listen.ip().is_unspecified() => return Ok(identity),
        (_, host) => advertised(settings, host.unwrap_or(settings.listen.ip())),
    };
    if advertise == identity.advertise {
        return Ok(identity);
    }
    tracing::info!(before = identity.advertise, now = advertise, "this node has another address now");
    let mut identity = identity;
    identity.advertise = advertise;
    directory.save_identity(&identity)?;
    Ok(identity)
}

fn found(
    settings: &Settings,
    directory: &DataDir,
    node: NodeId,
    key: NodeKey,
    sealing_key: SealingKey,
) -> Result<Enrolled, Error> {
    let now = SystemClock.now();
    let fleet_id = FleetId::generate();
    let authority = Authority::found(fleet_id, now)?;
    let request = SigningRequest::parse(&key.signing_request()?)?;
    let key = key.with_chain(authority.issue_node(&request, node, now)?.chain)?;
    key.save(directory.path())?;
    let foundation = Foundation { authority, token: None, sites: Vec::new() };
    foundation.save(directory)?;
    let identity: Identity = NewIdentity {
        fleet_id,
        node_id: node,
        name: settings.name.clone(),
        site: settings.site.clone().unwrap_or_default(),
        group_id: GroupId::generate(),
        epoch: 1,
        dev: settings.dev,
        advertise: advertised(settings, HostFacts::read().route),
        gossip_keys: vec![StoredGossipKey { key_id: 1, key: random_key()? }],
        keyring_generation: 0,
        link_secret: None,
        contacts: Vec::new(),
        first_site: None,
    }
    .into();
    directory.save_identity(&identity)?;
    tracing::info!(%node, fleet = %fleet_id, site = %identity.site, "founded a fleet");
    Ok(Enrolled { identity, key, sealing_key, foundation: Some(foundation) })
}

/// `host:port` that others use: what was said, else where it listens, else `ip` with the port listened on.
pub(super) fn advertised(settings: &Settings, ip: IpAddr) -> String {
    settings.advertise.clone().unwrap_or_else(|| {
        let ip = if settings.listen.ip().is_unspecified() { ip } else { settings.listen.ip() };
        SocketAddr::new(ip, settings.listen.port()).to_string()
    })
}

/// The address the kernel would use towards `seed`; that of the default route if the seed cannot be resolved.
pub(super) fn address_towards(seed: &str) -> IpAddr {
    let towards = |seed: SocketAddr| {
        let any: SocketAddr = if seed.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(seed).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    seed.to_socket_addrs().ok().and_then(|mut found| found.find_map(towards)).unwrap_or_else(|| HostFacts::read().route)
}

pub(super) fn random_key() -> Result<[u8; 32], Error> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::new(ErrorKind::Internal, "make a gossip key: no randomness"))?;
    Ok(key)
}
