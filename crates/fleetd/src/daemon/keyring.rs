//! The gossip keys of this node: as the site's state has them, or as another node hands them out if this one missed a
//! rotation and understands nobody. On the leader: rotates them once a node was removed.
//!
//! Invariant: an older keyring never replaces a newer one, and a new one is on the disk before it is used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use fleet_api::pb::peer::GetKeyringRequest;
use fleet_api::status::error_of;
use fleet_core::{BootInstant, Clock, Error, ErrorKind, NodeId, SystemClock};
use fleet_membership::{GossipKey, Membership};
use fleet_replication::command::{ADMIT_VERSION, Action, TrustEntry};
use fleet_store::StateReader;
use fleet_store::record::{Keyring, NodeStanding, Payload, TrustKind};
use fleet_store::state::{jobs, members};

use super::asking::{ask_in_turn, candidates};
use super::parts::Parts;
use crate::identity::{Identity, StoredGossipKey};
use crate::ports::Purpose;
use crate::site::{Site, read_failed};
use crate::trust::rotation::{Step, carry_out, decide};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after a look that failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Follows and rotates for as long as the node runs.
pub(super) async fn run(parts: Parts, data_dir: PathBuf) {
    let mut follower = Follower { identity: parts.identity.clone(), membership: parts.membership.clone(), data_dir };
    let mut rotator = Rotator::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(error) = look(&parts, &mut follower, &mut rotator).await {
            tracing::warn!(error = fleet_core::error::chain(&error), "the gossip keys are not looked after");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

async fn look(parts: &Parts, follower: &mut Follower, rotator: &mut Rotator) -> Result<(), Error> {
    follower.adopt(&members::keyring(&parts.site.reader()?).map_err(read_failed)?)?;
    let is_deaf = *parts.membership.is_deaf().borrow();
    if is_deaf {
        let fetched = fetch(parts).await?;
        if follower.adopt(&fetched)? {
            tracing::info!(generation = fetched.generation, "gossip keys fetched: this node had missed a rotation");
        }
    }
    if parts.site.group().serving_term().is_some() {
        rotator.look(&parts.site, SystemClock.boot_now()).await?;
    }
    Ok(())
}

/// Asks whoever can be reached. Addresses are those of before, for gossip tells none any more.
async fn fetch(parts: &Parts) -> Result<Keyring, Error> {
    let site = &parts.site;
    let queue =
        candidates(parts.identity.node_id, site.other_leader(), &parts.membership.current_view(), &site.nodes()?);
    let ask = |node| async move {
        let mut client = site.peers().client(node, Purpose::Forward)?;
        let answer = client.get_keyring(GetKeyringRequest {}).await.map_err(|status| error_of(&status))?.into_inner();
        let keys = answer.keys.into_iter().map(|key| {
            let key_id = u8::try_from(key.key_id).map_err(|_| malformed())?;
            Ok(fleet_store::record::GossipKey { key_id, key: Payload::from(key.key) })
        });
        Ok(Keyring { generation: answer.generation, keys: keys.collect::<Result<_, Error>>()? })
    };
    ask_in_turn(queue, |address| site.peers().node_at(address), ask).await
}

fn malformed() -> Error {
    Error::new(ErrorKind::Internal, "take over gossip keys: one is malformed")
}

/// What this node seals and opens with.
pub(super) struct Follower {
    pub(super) identity: Identity,
    pub(super) membership: Membership,
    pub(super) data_dir: PathBuf,
}

impl Follower {
    /// Uses `keyring` from now on, if it is newer than the one in use.
    pub(super) fn adopt(&mut self, keyring: &Keyring) -> Result<bool, Error> {
        if keyring.keys.is_empty() || keyring.generation <= self.identity.keyring_generation {
            return Ok(false);
        }
        let stored = keyring.keys.iter().map(|key| {
            let bytes = key.key.as_slice().try_into().map_err(|_| malformed())?;
            Ok(StoredGossipKey { key_id: key.key_id, key: bytes })
        });
        let stored = stored.collect::<Result<Vec<StoredGossipKey>, Error>>()?;
        let is_news = stored != self.identity.gossip_keys;
        let mut identity = self.identity.clone();
        if is_news {
            identity.link_secret = identity.link_secret();
            identity.gossip_keys = stored;
        }
        identity.keyring_generation = keyring.generation;
        if is_news {
            let ring = ring(&identity)?;
            identity.save(&self.data_dir)?;
            self.membership.set_keyring(ring);
        }
        self.identity = identity;
        Ok(is_news)
    }
}

/// The keys in `identity` as gossip takes them.
///
/// # Errors
/// If there are none or too many.
pub(super) fn ring(identity: &Identity) -> Result<fleet_membership::Keyring, Error> {
    let keys: BTreeMap<u8, GossipKey> =
        identity.gossip_keys.iter().map(|stored| (stored.key_id, GossipKey::new(stored.key))).collect();
    let primary = identity.gossip_keys.first().map_or(0, |stored| stored.key_id);
    fleet_membership::Keyring::new(0, primary, keys)
        .map_err(|source| Error::new(source.kind(), "read the gossip keys").with_source(source))
}

/// What a leader remembers of the keyring between two looks.
#[derive(Default)]
pub(super) struct Rotator {
    /// The keyring's generation, and since when it is seen here.
    seen: Option<(u64, BootInstant)>,
    /// Who was removed and not excluded at the last look. A new key waits for a second look: by then the removed ones are
    /// cut off, and it does not reach them with the log.
    excluding: Vec<NodeId>,
}

impl Rotator {
    /// Takes the next step of a rotation, if it is time.
    pub(super) async fn look(&mut self, site: &Site, now: BootInstant) -> Result<(), Error> {
        let state = site.reader()?;
        if jobs::site(&state).map_err(read_failed)?.gate < ADMIT_VERSION {
            return Ok(());
        }
        let keyring = members::keyring(&state).map_err(read_failed)?;
        let since = match self.seen {
            Some((generation, since)) if generation == keyring.generation => since,
            _ => now,
        };
        self.seen = Some((keyring.generation, since));
        let removed = removed_since(&state)?;
        let is_wanted = !removed.is_empty() && removed == self.excluding;
        self.excluding = removed;
        let Some(step) = decide(&keyring, is_wanted, now.saturating_since(since)) else { return Ok(()) };
        let next = carry_out(&keyring, step, fresh_key()?);
        let generation = next.generation;
        site.propose(Action::PutKeyring(next)).await?;
        tracing::info!(?step, generation, "gossip keys rotate");
        if is_wanted && step == Step::Add {
            // The other steps only make room in a full ring: they bring no key that the removed ones do not know. A crash
            // before this only costs one more rotation.
            let row = |node: &NodeId| TrustEntry {
                kind: TrustKind::Excluded,
                name: node.to_string(),
                value: Payload::default(),
            };
            site.propose(Action::PutTrust { rows: self.excluding.iter().map(row).collect() }).await?;
        }
        Ok(())
    }
}

/// The removed nodes that know every gossip key there is.
fn removed_since(state: &StateReader) -> Result<Vec<NodeId>, Error> {
    let mut removed = Vec::new();
    for node in members::nodes(state).map_err(read_failed)? {
        let row = || members::trust(state, TrustKind::Excluded, &node.id.to_string()).map_err(read_failed);
        if node.standing == NodeStanding::Removed && row()?.is_none() {
            removed.push(node.id);
        }
    }
    Ok(removed)
}

fn fresh_key() -> Result<Payload, Error> {
    let key =
        GossipKey::generate().map_err(|source| Error::new(source.kind(), "make a gossip key").with_source(source))?;
    Ok(Payload::from(key.as_bytes().to_vec()))
}
