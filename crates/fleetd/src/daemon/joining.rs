//! How a node joins: it asks its seeds, goes to the nodes of its site where a seed names them, and founds the site where
//! there is none yet.
//!
//! Invariant: the identity file is written last. Until then every step can be repeated and asks for the same.

use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use fleet_core::{Clock, Digest, Error, ErrorKind, FleetId, GroupId, NodeId, SiteName, SystemClock, Timestamp, limits};
use fleet_replication::command::{COMMAND_VERSION, SiteNote};
use fleet_store::record::{FoundingToken, SiteRecord, TokenId};

use super::enroll::{Enrolled, address_towards, advertised, random_key};
use super::foundation::{Foundation, PendingSite};
use crate::cli::Secret;
use crate::config::Settings;
use crate::identity::{DataDir, Identity, NewIdentity, StoredGossipKey};
use crate::trust::authority::SigningRequest;
use crate::trust::joining::{Entitlement, accept, accept_authority, join};
use crate::trust::node_key::NodeKey;
use crate::trust::sealing::SealingKey;
use crate::trust::token::JoinToken;

/// How long a joiner asks its seeds before it gives up.
const JOIN_BOUND: Duration = Duration::from_secs(15);
/// Pause between two rounds over the seeds.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// How often a joiner goes where a seed sends it.
const SENT_ON_MAX: u32 = 3;

/// Joins by one of `seeds`; founds the site of the settings if the registry of the fleet has none of that name.
pub(super) async fn join_by(
    settings: &Settings,
    directory: &DataDir,
    node: NodeId,
    (key, sealing_key): (NodeKey, SealingKey),
    seeds: &[String],
    token: Option<Secret>,
) -> Result<Enrolled, Error> {
    let entitlement = match token {
        Some(text) => Entitlement::Token(text.0.parse::<JoinToken>()?),
        None => Entitlement::Development,
    };
    let joiner = Joiner { settings, node, key: &key, sealing_key: &sealing_key, entitlement: &entitlement };
    let pending = PendingSite::load(directory, settings.site.as_ref())?;
    let answer = joiner.ask(directory, seeds.to_vec(), pending).await?;
    let enrolled = match (&answer.response.founded, answer.pending) {
        (Some(founded), Some(pending)) => {
            let chain = accept_authority(&answer.response, &entitlement)?;
            let authority = pending.key()?.into_authority(chain)?;
            if authority.site() != Some(&pending.site) {
                return Err(Error::new(ErrorKind::Unauthenticated, "the seed's answer is for another site"));
            }
            let request = SigningRequest::parse(&key.signing_request()?)?;
            let key = key.with_chain(authority.issue_node(&request, node, SystemClock.now())?.chain)?;
            let sites = founded.sites.iter().map(note).collect::<Result<_, Error>>()?;
            let foundation = Foundation { authority, token: inherited(founded)?, sites };
            key.save(directory.path())?;
            foundation.save(directory)?;
            let identity = founder(settings, node, answer.advertise, &answer.response, &pending)?;
            Enrolled { identity, key, sealing_key, foundation: Some(foundation) }
        }
        _ => {
            let key = accept(&answer.response, key, node, &entitlement)?;
            key.save(directory.path())?;
            let identity = joined(settings, node, answer.advertise, &answer.response)?;
            Enrolled { identity, key, sealing_key, foundation: None }
        }
    };
    directory.save_identity(&enrolled.identity)?;
    PendingSite::forget(directory)?;
    let is_founder = enrolled.foundation.is_some();
    tracing::info!(%node, fleet = %enrolled.identity.fleet_id, site = %enrolled.identity.site, is_founder, "joined");
    Ok(enrolled)
}

/// Who asks.
struct Joiner<'a> {
    settings: &'a Settings,
    node: NodeId,
    key: &'a NodeKey,
    sealing_key: &'a SealingKey,
    entitlement: &'a Entitlement,
}

/// What came of asking.
struct Answer {
    response: v1::JoinResponse,
    /// Where this node answers, as seen towards the seed.
    advertise: String,
    /// The site that was asked for, where there was none.
    pending: Option<PendingSite>,
}

impl Joiner<'_> {
    /// Asks `seeds` in turn until one admits this node, or sends it on, or has no such site.
    async fn ask(
        &self,
        directory: &DataDir,
        mut seeds: Vec<String>,
        mut pending: Option<PendingSite>,
    ) -> Result<Answer, Error> {
        let deadline = Instant::now() + JOIN_BOUND;
        let (mut round, mut sent_on) = (0_usize, 0);
        loop {
            let seed = &seeds[round % seeds.len()];
            let advertise = advertised(self.settings, address_towards(seed));
            let request = self.request(&advertise, pending.as_ref())?;
            match join(seed, self.entitlement, request).await {
                Ok(response) if response.unfounded => {
                    pending = Some(self.begin(directory, pending.is_some())?);
                    continue;
                }
                Ok(response) if !response.elsewhere.is_empty() => {
                    sent_on += 1;
                    if sent_on > SENT_ON_MAX {
                        let message = "join: the seeds send this node round in a circle";
                        return Err(Error::new(ErrorKind::Unavailable, message));
                    }
                    tracing::info!(seed, nodes = ?response.elsewhere, "the site has nodes elsewhere: asking them");
                    seeds = response.elsewhere;
                    seeds.truncate(limits::SITE_CONTACTS_MAX);
                    round = 0;
                    continue;
                }
                Ok(response) => return Ok(Answer { response, advertise, pending }),
                Err(error) if error.kind.is_retryable() && Instant::now() < deadline => {
                    tracing::debug!(seed, %error, "seed did not admit this node yet");
                }
                Err(error) => return Err(error),
            }
            round += 1;
            if round.is_multiple_of(seeds.len()) {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }

    /// Makes ready to found the site.
    fn begin(&self, directory: &DataDir, was_asked: bool) -> Result<PendingSite, Error> {
        match &self.settings.site {
            Some(site) if !was_asked => PendingSite::begin(directory, site.clone()),
            _ => Err(Error::new(ErrorKind::Internal, "join: the seed does not know its own site")),
        }
    }

    fn request(&self, advertise: &str, pending: Option<&PendingSite>) -> Result<v1::JoinRequest, Error> {
        let founding = pending.map(|pending| {
            let csr = pending.key()?.signing_request()?;
            Ok::<_, Error>(v1::SiteFounding { csr, group_id: pending.group.as_bytes().to_vec() })
        });
        let settings = self.settings;
        Ok(v1::JoinRequest {
            token: String::new(),
            node_id: self.node.as_bytes().to_vec(),
            name: settings.name.clone(),
            site: settings.site.as_ref().map(SiteName::to_string).unwrap_or_default(),
            csr: self.key.signing_request()?,
            address: advertise.to_owned(),
            http_address: settings.http.to_string(),
            tags: settings.tags.clone(),
            slots: settings.slots,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: settings.allow.words_to_join_with(),
            sealing_key: self.sealing_key.public_key().to_vec(),
            commands: COMMAND_VERSION,
            founding: founding.transpose()?,
        })
    }
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("read the seed's answer: {what} is malformed"))
}

/// The identity of a node that was admitted.
fn joined(
    settings: &Settings,
    node: NodeId,
    advertise: String,
    response: &v1::JoinResponse,
) -> Result<Identity, Error> {
    let site = response.site.parse::<SiteName>().map_err(|_| malformed("the site's name"))?;
    if let Some(wanted) = settings.site.as_ref().filter(|wanted| **wanted != site) {
        let message = format!("the seed's answer is refused: it admits to site `{site}`, not to `{wanted}`");
        return Err(Error::new(ErrorKind::Unauthenticated, message));
    }
    Ok(NewIdentity {
        fleet_id: FleetId::from_slice(&response.fleet_id).ok_or_else(|| malformed("the fleet's id"))?,
        node_id: node,
        name: settings.name.clone(),
        first_site: first_site(response)?.filter(|first| *first != site),
        site,
        group_id: GroupId::from_slice(&response.group_id).ok_or_else(|| malformed("the group's id"))?,
        epoch: response.epoch,
        dev: response.dev,
        advertise,
        gossip_keys: stored_keys(&response.gossip_keys)?,
        keyring_generation: response.keyring_generation,
        // Seeds of before there was a rotation name none: theirs is the first gossip key.
        link_secret: response.link_secret.as_slice().try_into().ok(),
        contacts: response.members.iter().map(|member| member.address.clone()).collect(),
    }
    .into())
}

/// The identity of a node that founds the site `pending`. Its gossip keys are the site's own, and new.
fn founder(
    settings: &Settings,
    node: NodeId,
    advertise: String,
    response: &v1::JoinResponse,
    pending: &PendingSite,
) -> Result<Identity, Error> {
    let first_site = first_site(response)?.filter(|first| *first != pending.site);
    let link_secret: Result<[u8; 32], _> = response.link_secret.as_slice().try_into();
    Ok(NewIdentity {
        fleet_id: FleetId::from_slice(&response.fleet_id).ok_or_else(|| malformed("the fleet's id"))?,
        node_id: node,
        name: settings.name.clone(),
        site: pending.site.clone(),
        group_id: pending.group,
        epoch: 1,
        dev: response.dev,
        advertise,
        gossip_keys: vec![StoredGossipKey { key_id: 1, key: random_key()? }],
        keyring_generation: 0,
        link_secret: Some(link_secret.map_err(|_| malformed("the link secret"))?),
        contacts: Vec::new(),
        first_site: Some(first_site.ok_or_else(|| malformed("the first site's name"))?),
    }
    .into())
}

fn first_site(response: &v1::JoinResponse) -> Result<Option<SiteName>, Error> {
    if response.first_site.is_empty() {
        return Ok(None);
    }
    response.first_site.parse().map(Some).map_err(|_| malformed("the first site's name"))
}

fn stored_keys(keys: &[v1::GossipKey]) -> Result<Vec<StoredGossipKey>, Error> {
    let stored = keys.iter().map(|key| {
        let bytes: [u8; 32] = key.key.as_slice().try_into().map_err(|_| malformed("a gossip key"))?;
        let key_id = u8::try_from(key.key_id).map_err(|_| malformed("a gossip key's number"))?;
        Ok(StoredGossipKey { key_id, key: bytes })
    });
    stored.collect()
}

/// What is left of the token, if there was one.
fn inherited(founded: &v1::SiteFounded) -> Result<Option<FoundingToken>, Error> {
    let Some(id) = founded.token_id else { return Ok(None) };
    let secret = founded.token_secret.as_slice().try_into().map_err(|_| malformed("the token"))?;
    let expires_at = Timestamp(founded.token_expires_ms);
    Ok(Some(FoundingToken { id: TokenId(id), secret: Digest(secret), uses_left: founded.token_uses, expires_at }))
}

/// What the registry told of another site.
fn note(site: &v1::OtherSite) -> Result<SiteNote, Error> {
    let wrong = || malformed("another site");
    let record = SiteRecord {
        group: GroupId::from_slice(&site.group_id).ok_or_else(wrong)?,
        founder: NodeId::from_slice(&site.founder).ok_or_else(wrong)?,
        public_key: Digest(site.public_key.as_slice().try_into().map_err(|_| wrong())?),
        authority: site.authority.clone().into(),
        contacts: site.contacts.iter().take(limits::SITE_CONTACTS_MAX).cloned().collect(),
        contacts_at: Timestamp(site.contacts_ms),
        founded_at: Timestamp(site.founded_ms),
        token: None,
    };
    Ok(SiteNote { site: site.name.parse().map_err(|_| wrong())?, record })
}
