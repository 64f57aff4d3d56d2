//! How a node comes to be who it is: it founds a fleet, joins one, or resumes what its data directory says.
//!
//! Invariant: the identity file is written last, so a crash in the middle leaves a directory that can try again with the
//! same keys, and a repeated join gets the same answer.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use fleet_core::{Clock, Digest, Error, ErrorKind, FleetId, GroupId, NodeId, SiteName, SystemClock};
use fleet_replication::command::COMMAND_VERSION;

use crate::cli::Secret;
use crate::config::{HostFacts, Settings};
use crate::identity::{DataDir, Identity, NewIdentity, StoredGossipKey};
use crate::trust::authority::{Authority, SigningRequest};
use crate::trust::joining::{Entitlement, accept, join, seed_of_other_fleet};
use crate::trust::node_key::{NodeKey, load_or_generate_sealing_key};
use crate::trust::sealing::SealingKey;
use crate::trust::token::JoinToken;

/// How long a joiner asks its seeds before it gives up.
const JOIN_BOUND: Duration = Duration::from_secs(15);
/// Pause between two rounds over the seeds.
const ROUND_PAUSE: Duration = Duration::from_millis(200);

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
    /// The new fleet's root, if this node just founded it.
    pub(super) authority: Option<Authority>,
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
        let identity = readdressed(settings, directory, identity)?;
        if identity.node_id != node {
            let message = format!("resume node {}: the store belongs to node {node}", identity.node_id);
            return Err(Error::new(ErrorKind::Conflict, message)
                .with_next_step("The data directory was mixed from two nodes. Join again with an empty one."));
        }
        tracing::info!(%node, fleet = %identity.fleet_id, site = %identity.site, "resuming");
        return Ok(Enrolled { identity, key, sealing_key, authority: founding_authority(directory)? });
    }
    match beginning {
        Beginning::Found => found(settings, directory, node, key, sealing_key),
        Beginning::Join { seeds, token } => {
            join_by(settings, directory, node, (key, sealing_key), seeds, token.read()?).await
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
    refuse_other_site(&settings.site)?;
    let now = SystemClock.now();
    let fleet_id = FleetId::generate();
    let authority = Authority::found(fleet_id, now)?;
    let request = SigningRequest::parse(&key.signing_request()?)?;
    let key = key.with_chain(authority.issue_node(&request, node, now)?.chain)?;
    key.save(directory.path())?;
    save_founding_authority(directory, &authority)?;
    let identity: Identity = NewIdentity {
        fleet_id,
        node_id: node,
        name: settings.name.clone(),
        site: settings.site.clone(),
        group_id: GroupId::generate(),
        epoch: 1,
        dev: settings.dev,
        advertise: advertised(settings, HostFacts::read().route),
        gossip_keys: vec![StoredGossipKey { key_id: 1, key: random_key()? }],
        keyring_generation: 0,
        link_secret: None,
        contacts: Vec::new(),
    }
    .into();
    directory.save_identity(&identity)?;
    tracing::info!(%node, fleet = %fleet_id, site = %identity.site, "founded a fleet");
    Ok(Enrolled { identity, key, sealing_key, authority: Some(authority) })
}

async fn join_by(
    settings: &Settings,
    directory: &DataDir,
    node: NodeId,
    (key, sealing_key): (NodeKey, SealingKey),
    seeds: &[String],
    token: Option<Secret>,
) -> Result<Enrolled, Error> {
    refuse_other_site(&settings.site)?;
    let entitlement = match token {
        Some(text) => Entitlement::Token(text.0.parse::<JoinToken>()?),
        None => Entitlement::Development,
    };
    let deadline = Instant::now() + JOIN_BOUND;
    let mut round = 0_usize;
    let (response, advertise) = loop {
        let seed = &seeds[round % seeds.len()];
        let advertise = advertised(settings, address_towards(seed));
        let request = join_request(settings, node, &key, &sealing_key, &advertise)?;
        match join(seed, &entitlement, request).await {
            Ok(response) => break (response, advertise),
            Err(error) if error.kind.is_retryable() && Instant::now() < deadline => {
                tracing::debug!(seed, %error, "seed did not admit this node yet");
            }
            Err(error) => return Err(error),
        }
        round += 1;
        if round.is_multiple_of(seeds.len()) {
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    };
    let key = accept(&response, key, node, &entitlement)?;
    key.save(directory.path())?;
    let identity = joined(settings, node, advertise, &response)?;
    directory.save_identity(&identity)?;
    tracing::info!(%node, fleet = %identity.fleet_id, site = %identity.site, "joined");
    Ok(Enrolled { identity, key, sealing_key, authority: None })
}

fn join_request(
    settings: &Settings,
    node: NodeId,
    key: &NodeKey,
    sealing_key: &SealingKey,
    advertise: &str,
) -> Result<v1::JoinRequest, Error> {
    Ok(v1::JoinRequest {
        token: String::new(),
        node_id: node.as_bytes().to_vec(),
        name: settings.name.clone(),
        site: settings.site.to_string(),
        csr: key.signing_request()?,
        address: advertise.to_owned(),
        http_address: settings.http.to_string(),
        tags: settings.tags.clone(),
        slots: settings.slots,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capabilities: settings.allow.capabilities(),
        sealing_key: sealing_key.public_key().to_vec(),
        commands: COMMAND_VERSION,
    })
}

fn joined(
    settings: &Settings,
    node: NodeId,
    advertise: String,
    response: &v1::JoinResponse,
) -> Result<Identity, Error> {
    let malformed =
        |what: &str| Error::new(ErrorKind::Internal, format!("read the seed's answer: {what} is malformed"));
    let gossip_keys = response
        .gossip_keys
        .iter()
        .map(|key| {
            let bytes: [u8; 32] = key.key.as_slice().try_into().map_err(|_| malformed("a gossip key"))?;
            let key_id = u8::try_from(key.key_id).map_err(|_| malformed("a gossip key's number"))?;
            Ok(StoredGossipKey { key_id, key: bytes })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(NewIdentity {
        fleet_id: FleetId::from_slice(&response.fleet_id).ok_or_else(|| malformed("the fleet's id"))?,
        node_id: node,
        name: settings.name.clone(),
        site: response.site.parse::<SiteName>().map_err(|_| malformed("the site's name"))?,
        group_id: GroupId::from_slice(&response.group_id).ok_or_else(|| malformed("the group's id"))?,
        epoch: response.epoch,
        dev: response.dev,
        advertise,
        gossip_keys,
        keyring_generation: response.keyring_generation,
        // Seeds of before there was a rotation name none: theirs is the first gossip key.
        link_secret: response.link_secret.as_slice().try_into().ok(),
        contacts: response.members.iter().map(|member| member.address.clone()).collect(),
    }
    .into())
}

/// One site is what this version knows.
fn refuse_other_site(site: &SiteName) -> Result<(), Error> {
    if site.as_str() == SiteName::DEFAULT {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("use site `{site}`: this version has one site, `default`"))
        .with_next_step("Leave --site away; several sites come in a later version."))
}

/// `host:port` that others use: what was said, else where it listens, else `ip` with the port listened on.
fn advertised(settings: &Settings, ip: IpAddr) -> String {
    settings.advertise.clone().unwrap_or_else(|| {
        let ip = if settings.listen.ip().is_unspecified() { ip } else { settings.listen.ip() };
        SocketAddr::new(ip, settings.listen.port()).to_string()
    })
}

/// The address the kernel would use towards `seed`; that of the default route if the seed cannot be resolved.
fn address_towards(seed: &str) -> IpAddr {
    let towards = |seed: SocketAddr| {
        let any: SocketAddr = if seed.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(seed).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    seed.to_socket_addrs().ok().and_then(|mut found| found.find_map(towards)).unwrap_or_else(|| HostFacts::read().route)
}

fn random_key() -> Result<[u8; 32], Error> {
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| Error::new(ErrorKind::Internal, "make a gossip key: no randomness"))?;
    Ok(key)
}

/// The root key of a fleet that is being founded waits here until the group has it sealed and its founder was greeted with
/// the first credential; then the file is removed.
const FOUNDING_FILE: &str = "founding.json";

#[derive(serde::Serialize, serde::Deserialize)]
struct FoundingFile {
    version: u32,
    root: Vec<u8>,
    key: Vec<u8>,
}

fn save_founding_authority(directory: &DataDir, authority: &Authority) -> Result<(), Error> {
    let file = FoundingFile { version: 1, root: authority.root().to_vec(), key: authority.key().to_vec() };
    let failed = || Error::new(ErrorKind::Internal, "keep the root key of the new fleet");
    let text = serde_json::to_vec(&file).map_err(|source| failed().with_source(source))?;
    crate::identity::write_secret(directory.path(), FOUNDING_FILE, &text).map_err(|source| failed().with_source(source))
}

fn founding_authority(directory: &DataDir) -> Result<Option<Authority>, Error> {
    let failed = || Error::new(ErrorKind::Internal, "read the root key of the new fleet");
    let text = match std::fs::read(directory.path().join(FOUNDING_FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed().with_source(error)),
    };
    let file: FoundingFile = serde_json::from_slice(&text).map_err(|source| failed().with_source(source))?;
    Authority::from_parts(file.root.into(), &file.key).map(Some)
}

/// Whether this node founded a fleet and its founder was not greeted yet.
pub(super) fn is_founding(directory: &DataDir) -> bool {
    directory.path().join(FOUNDING_FILE).exists()
}

/// Removes the root key's file once the group has it and the founder was greeted.
pub(super) fn forget_founding_authority(directory: &DataDir) -> Result<(), Error> {
    match std::fs::remove_file(directory.path().join(FOUNDING_FILE)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::new(ErrorKind::Internal, "remove the root key's file").with_source(error))
        }
        _ => Ok(()),
    }
}
