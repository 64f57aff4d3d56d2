//! The gossip keys of this node: as the site's state has them, or as another node hands them out if this one missed a
//! rotation. On the leader: rotates them once a node was removed.
//!
//! Invariant: an older keyring never replaces a newer one, unless a group that has a leader insists on it; a new one is on
//! the disk before it is used.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_api::pb::peer::peer_client::PeerClient;
use fleet_api::pb::peer::{GetKeyringRequest, GetKeyringResponse};
use fleet_api::status::error_of;
use fleet_core::{BootInstant, Clock, Error, ErrorKind, NodeId, SystemClock};
use fleet_membership::{GossipKey, KEY_BYTES, KEYS_MAX, Membership};
use fleet_replication::Status;
use fleet_replication::command::{ADMIT_VERSION, Action, TrustEntry};
use fleet_store::StateReader;
use fleet_store::record::{Keyring, NodeStanding, Payload, TrustKind};
use fleet_store::state::{jobs, members};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::asking::{ANSWER_TIMEOUT, ASKED_MAX, ask_in_turn, candidates};
use super::parts::Parts;
use super::silence::{Silence, has_leader};
use crate::identity::{Identity, StoredGossipKey};
use crate::ports::Purpose;
use crate::site::{Site, read_failed};
use crate::trust::rotation::{Step, carry_out, decide};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pause after a look that failed, and before a deaf node asks again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long no leader must have been heard: one calls every node within seconds after a start or an election.
const SILENCE_MIN: Duration = Duration::from_secs(5);
/// How often a node that hears no leader asks.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How long keys may be newer than those of the group that this node follows: its copy of the state may be behind, but not
/// for ever, and a node that hands out too high a generation must not keep the others from what the group decides.
const AHEAD_MAX: Duration = Duration::from_secs(60);

/// Follows and rotates for as long as the node runs.
pub(super) async fn run(parts: Parts, data_dir: PathBuf) {
    let in_use = parts.gossip_keys.clone();
    let identity = parts.identity.clone();
    let mut follower =
        Follower { identity, membership: parts.membership.clone(), data_dir, in_use, ahead: Silence::default() };
    let mut rotator = Rotator::default();
    let mut hearing = Hearing::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let followed = follow(&parts, &mut follower, &mut hearing).await;
        let rotated = if parts.site.group().serving_term().is_some() {
            rotator.look(&parts.site, SystemClock.boot_now()).await
        } else {
            Ok(())
        };
        if let Err(error) = followed.and(rotated) {
            tracing::warn!(error = fleet_core::error::chain(&error), "the gossip keys are not looked after");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Uses what the state says, and asks the others if this node may have missed something.
async fn follow(parts: &Parts, follower: &mut Follower, hearing: &mut Hearing) -> Result<(), Error> {
    let (mut status, now) = (parts.site.group().status(), SystemClock.boot_now());
    let (is_led, serves) = {
        let status = status.borrow();
        (has_leader(&status), status.serving_term.is_some())
    };
    follower.follow(&parts.site.roster()?.keyring, is_led, now)?;
    let is_deaf = *parts.membership.is_deaf().borrow();
    if serves || !hearing.is_due(is_deaf, is_led, now) {
        return Ok(());
    }
    // Who leads has what the others follow, and who hears a leader again gets it: asking on would only hold that up.
    let is_needless = |status: &Status| status.serving_term.is_some() || (!is_deaf && !is_led && has_leader(status));
    let fetched = tokio::select! {
        fetched = fetch(parts, follower.identity.keyring_generation) => fetched,
        _ = status.wait_for(is_needless) => return Ok(()),
    };
    match fetched {
        Ok(fetched) => {
            if follower.adopt(&fetched)? {
                tracing::info!(generation = fetched.generation, "gossip keys fetched: this node had missed a rotation");
            }
            Ok(())
        }
        Err(error) if is_deaf => Err(error),
        Err(error) => {
            tracing::debug!(%error, "no newer gossip keys were found");
            Ok(())
        }
    }
}

/// When the others are asked for the keyring.
#[derive(Debug, Default)]
struct Hearing {
    silence: Silence,
    asked: Option<BootInstant>,
}

impl Hearing {
    /// Whether to ask now. A node that gets packets which it cannot open has missed a rotation. One that hears no leader may
    /// have, and get no packets either: it came back at another address, or was off before anybody had heard of it.
    fn is_due(&mut self, is_deaf: bool, is_led: bool, now: BootInstant) -> bool {
        let silent = self.silence.note(is_led, now);
        let every = match (is_deaf, silent) {
            (true, _) => RETRY_AFTER,
            (false, Some(silent)) if silent >= SILENCE_MIN => ASK_EVERY,
            (false, _) => return false,
        };
        let is_due = self.asked.is_none_or(|asked| now.saturating_since(asked) >= every);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }
}

/// Asks whoever can be reached for keys newer than those of the generation `own`: the nodes that are known, at the addresses
/// of before, for gossip may tell none any more. If none of them answers, then who answers where this node was first told
/// to look: one that was switched off before it heard of anybody knows nothing else.
async fn fetch(parts: &Parts, own: u64) -> Result<Keyring, Error> {
    let site = &parts.site;
    let queue =
        candidates(parts.identity.node_id, site.other_leader(), &parts.membership.current_view(), &site.nodes()?);
    let answered = AtomicBool::new(false);
    let ask = async |node| {
        let answer = keyring_of(site.peers().client(node, Purpose::Forward)?).await?;
        answered.store(true, Ordering::Relaxed);
        newer(answer, own)
    };
    let mut fetched = ask_in_turn(queue, |address| site.peers().node_at(address), ask).await;
    for contact in parts.identity.contacts.iter().take(ASKED_MAX) {
        if fetched.is_ok() || answered.load(Ordering::Relaxed) {
            break;
        }
        let answer = async { newer(keyring_of(site.peers().client_at(contact)?).await?, own) };
        if let Ok(answer) = tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            fetched = answer;
        }
    }
    fetched
}

async fn keyring_of(mut client: PeerClient<Channel>) -> Result<GetKeyringResponse, Error> {
    let answer = client.get_keyring(GetKeyringRequest {}).await.map_err(|status| error_of(&status))?;
    Ok(answer.into_inner())
}

/// The keys in `answer`. Who has none newer than `own`, or none that can be used, is no help: others are to be asked.
fn newer(answer: GetKeyringResponse, own: u64) -> Result<Keyring, Error> {
    if answer.generation <= own {
        let message = format!("take over gossip keys: those of generation {} are not newer", answer.generation);
        return Err(Error::new(ErrorKind::Unavailable, message));
    }
    if answer.keys.is_empty() || answer.keys.len() > KEYS_MAX {
        return Err(malformed());
    }
    let keys = answer.keys.into_iter().map(|key| {
        if key.key.len() != KEY_BYTES {
            return Err(malformed());
        }
        let key_id = u8::try_from(key.key_id).map_err(|_| malformed())?;
        Ok(fleet_store::record::GossipKey { key_id, key: Payload::from(key.key) })
    });
    Ok(Keyring { generation: answer.generation, keys: keys.collect::<Result<_, Error>>()? })
}

fn malformed() -> Error {
    Error::new(ErrorKind::Internal, "take over gossip keys: one is malformed")
}

/// What this node seals and opens with.
pub(super) struct Follower {
    pub(super) identity: Identity,
    pub(super) membership: Membership,
    pub(super) data_dir: PathBuf,
    /// Tells the keys in use.
    pub(super) in_use: watch::Sender<Keyring>,
    /// Since when they have been ahead of a group that has a leader.
    pub(super) ahead: Silence,
}

impl Follower {
    /// Uses the keys of the group's state, `keyring`, if they are newer than those in use, or if a group that `is_led` has
    /// stayed with them.
    pub(super) fn follow(&mut self, keyring: &Keyring, is_led: bool, now: BootInstant) -> Result<bool, Error> {
        let is_ahead = is_led && keyring.generation < self.identity.keyring_generation;
        let ahead_for = self.ahead.note(!is_ahead, now);
        if !keyring.keys.is_empty() && ahead_for.is_some_and(|long| long >= AHEAD_MAX) {
            tracing::warn!(generation = keyring.generation, "gossip keys that the group does not have are given up");
            return self.take(keyring);
        }
        self.adopt(keyring)
    }

    /// Uses `keyring` from now on, if it is newer than the one in use.
    pub(super) fn adopt(&mut self, keyring: &Keyring) -> Result<bool, Error> {
        if keyring.keys.is_empty() || keyring.generation <= self.identity.keyring_generation {
            return Ok(false);
        }
        self.take(keyring)
    }

    fn take(&mut self, keyring: &Keyring) -> Result<bool, Error> {
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
        self.in_use.send_replace(self.identity.keyring());
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

/// The key of gossip between sites: the same on every node of the fleet, and not rotated, for sites may be cut off from each
/// other for as long as they like. Whoever has it may only mislead: what is decided is decided by links and logs.
pub(super) fn wan_ring(identity: &Identity) -> Option<fleet_membership::Keyring> {
    identity.secret_between_sites().map(|secret| fleet_membership::Keyring::single(GossipKey::new(secret)))
}

/// What a leader remembers of the keyring between two looks.
#[derive(Default)]
pub(super) struct Rotator {
    /// The keyring's generation, and since when it is seen here.
    seen: Option<(u64, BootInstant)>,
    /// Who was removed and not excluded at the last look. A new key waits for a second look: by then the removed ones are
    /// cut off, and it does not reach them with the log.
    excluding: Vec<NodeId>,
    /// The applied index at which nothing was to be done and no wait was running.
    at_rest: Option<u64>,
}

impl Rotator {
    /// Takes the next step of a rotation, if it is time.
    pub(super) async fn look(&mut self, site: &Site, now: BootInstant) -> Result<(), Error> {
        let applied = site.group().applied_index();
        if applied.is_some() && self.at_rest == applied {
            return Ok(());
        }
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
        self.at_rest = applied.filter(|_| self.excluding.is_empty() && keyring.keys.len() == 1);
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

#[cfg(test)]
mod tests {
    use fleet_api::pb::peer::PeerGossipKey;

    use super::*;

    #[test]
    fn who_hears_no_leader_asks_though_it_is_not_deaf() {
        let at = |secs| BootInstant::default().saturating_add(Duration::from_secs(secs));
        let mut hearing = Hearing::default();
        assert!(!hearing.is_due(false, false, at(1)), "the leader has not called yet after a start");
        assert!(hearing.is_due(false, false, at(6)), "nobody sends anything");
        assert!(!hearing.is_due(false, true, at(100)), "the leader sends what is new");
        assert!(!hearing.is_due(false, false, at(101)));
        assert!(hearing.is_due(false, false, at(106)));
        assert!(!hearing.is_due(false, false, at(135)));
        assert!(hearing.is_due(false, false, at(136)));
        assert!(!hearing.is_due(true, true, at(140)));
        assert!(hearing.is_due(true, true, at(141)), "it understands nobody");
    }

    #[test]
    fn an_answer_that_is_not_newer_is_none() {
        let answer = |generation, key_id| GetKeyringResponse {
            keys: vec![PeerGossipKey { key_id, key: vec![1; 32] }],
            generation,
        };
        assert_eq!(newer(answer(4, 2), 3).unwrap().generation, 4);
        assert_eq!(newer(answer(3, 2), 3).unwrap_err().kind, ErrorKind::Unavailable);
        assert_eq!(newer(answer(4, 300), 3).unwrap_err().kind, ErrorKind::Internal);
        let none = GetKeyringResponse { keys: Vec::new(), generation: 4 };
        assert_eq!(newer(none, 3).unwrap_err().kind, ErrorKind::Internal);
        let short = PeerGossipKey { key_id: 1, key: vec![1; 31] };
        let short = GetKeyringResponse { keys: vec![short], generation: 4 };
        assert_eq!(newer(short, 3).unwrap_err().kind, ErrorKind::Internal);
    }
}
