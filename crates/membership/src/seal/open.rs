//! Opening what comes: keys by sender, replay windows, boots in order. All tables are bounded, and nothing of a packet is
//! remembered before it was authenticated.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::aead::{Aad, LessSafeKey};
use fleet_core::NodeId;

use super::source::Sources;
use super::window::Window;
use super::{HEADER_BYTES, Header, OVERHEAD_BYTES, Salt, derive, sender_of};
use crate::keyring::Keyring;

/// Most senders remembered; past it the one not heard for longest goes.
const SENDERS_MAX: usize = 4_096;
/// Most salts of one boot of one sender: more than one only where a data directory was set back.
const SALTS_MAX: usize = 4;

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal {
    /// Its address sent too many.
    RateLimited,
    /// Its sender was removed from the fleet.
    Banned,
    /// It is shorter than an envelope.
    Truncated,
    /// It is not an envelope of a version known here.
    UnknownVersion,
    /// It belongs to another ring.
    OtherRing,
    /// It was sealed with a key that is not in the keyring.
    UnknownKey,
    /// It comes from an earlier boot of its sender.
    OldBoot,
    /// It was seen before, or is too old to tell.
    Replayed,
    /// It was not sealed with the key it names.
    Forged,
}

impl Refusal {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Banned => "banned",
            Self::Truncated => "truncated",
            Self::UnknownVersion => "unknown_version",
            Self::OtherRing => "other_ring",
            Self::UnknownKey => "unknown_key",
            Self::OldBoot => "old_boot",
            Self::Replayed => "replayed",
            Self::Forged => "forged",
        }
    }
}

/// One salt of one boot of one sender.
struct Session {
    salt: Salt,
    window: Window,
    /// The key in use and its id; `None` until the keyring that replaced its own was used.
    key: Option<(u8, LessSafeKey)>,
    heard_at: Duration,
}

struct Sender {
    boot: u32,
    sessions: Vec<Session>,
    heard_at: Duration,
}

/// Opens packets.
pub struct Opener {
    keyring: Keyring,
    senders: BTreeMap<u64, Sender>,
    sources: Sources,
    banned: BTreeSet<u64>,
}

impl Opener {
    /// An opener with these keys.
    pub fn new(keyring: Keyring) -> Self {
        Self { keyring, senders: BTreeMap::new(), sources: Sources::new(), banned: BTreeSet::new() }
    }

    /// Opens with these keys from now on. Replay windows stay.
    pub fn set_keyring(&mut self, keyring: Keyring) {
        self.keyring = keyring;
        for session in self.senders.values_mut().flat_map(|sender| sender.sessions.iter_mut()) {
            session.key = None;
        }
    }

    /// Opens nothing of `nodes` from now on, whichever key they have.
    pub fn ban(&mut self, nodes: &BTreeSet<NodeId>) {
        self.banned = nodes.iter().map(|node| sender_of(*node)).collect();
        self.senders.retain(|sender, _| !self.banned.contains(sender));
    }

    /// The payload of `packet`, which came from `source` at `now`.
    pub fn open(&mut self, now: Duration, source: IpAddr, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
        if !self.sources.allow(now, source) {
            return Err(Refusal::RateLimited);
        }
        let (head, body) = packet.split_first_chunk::<HEADER_BYTES>().ok_or(Refusal::Truncated)?;
        if packet.len() < OVERHEAD_BYTES {
            return Err(Refusal::Truncated);
        }
        let header = Header::decode(head).ok_or(Refusal::UnknownVersion)?;
        if self.banned.contains(&header.sender) {
            return Err(Refusal::Banned);
        }
        if header.ring != self.keyring.ring() {
            return Err(Refusal::OtherRing);
        }
        let ring_key = self.keyring.key(header.key_id).ok_or(Refusal::UnknownKey)?;
        let session = self.session(&header)?;
        if session.is_some_and(|session| !session.window.is_fresh(header.sequence)) {
            return Err(Refusal::Replayed);
        }
        let mut content = body.to_vec();
        let known_key = session.and_then(|session| session.key.as_ref()).filter(|(key_id, _)| *key_id == header.key_id);
        let fresh_key = match known_key {
            Some((_, key)) => {
                decrypt(key, &header, head, &mut content)?;
                None
            }
            None => {
                let key = derive(ring_key, header.ring, header.sender, &header.salt).map_err(|_| Refusal::Forged)?;
                decrypt(&key, &header, head, &mut content)?;
                Some(key)
            }
        };
        self.remember(now, &header, fresh_key);
        Ok(content)
    }

    fn session(&self, header: &Header) -> Result<Option<&Session>, Refusal> {
        let Some(sender) = self.senders.get(&header.sender) else { return Ok(None) };
        if header.boot < sender.boot {
            return Err(Refusal::OldBoot);
        }
        let is_current = header.boot == sender.boot;
        Ok(sender.sessions.iter().find(|session| is_current && session.salt == header.salt))
    }

    /// Notes an authenticated packet.
    fn remember(&mut self, now: Duration, header: &Header, fresh_key: Option<LessSafeKey>) {
        if !self.senders.contains_key(&header.sender) && self.senders.len() >= SENDERS_MAX {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.heard_at).map(|(sender, _)| *sender);
            oldest.and_then(|oldest| self.senders.remove(&oldest));
        }
        let sender = self.senders.entry(header.sender).or_insert_with(|| Sender {
            boot: header.boot,
            sessions: Vec::new(),
            heard_at: now,
        });
        sender.heard_at = now;
        if header.boot > sender.boot {
            sender.boot = header.boot;
            sender.sessions.clear();
        }
        let known = sender.sessions.iter().position(|session| session.salt == header.salt);
        match (known, fresh_key) {
            (Some(index), fresh_key) => {
                let session = &mut sender.sessions[index];
                session.window.mark(header.sequence);
                session.heard_at = now;
                if let Some(key) = fresh_key {
                    session.key = Some((header.key_id, key));
                }
            }
            (None, Some(key)) => {
                if sender.sessions.len() >= SALTS_MAX {
                    sender.sessions.sort_by_key(|session| std::cmp::Reverse(session.heard_at));
                    sender.sessions.pop();
                }
                let mut window = Window::default();
                window.mark(header.sequence);
                let session = Session { salt: header.salt, window, key: Some((header.key_id, key)), heard_at: now };
                sender.sessions.push(session);
            }
            (None, None) => {}
        }
    }
}

fn decrypt(
    key: &LessSafeKey,
    header: &Header,
    head: &[u8; HEADER_BYTES],
    content: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let opened = key.open_in_place(header.nonce(), Aad::from(head), content).map_err(|_| Refusal::Forged)?;
    let length = opened.len();
    content.truncate(length);
    Ok(())
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener").field("keyring", &self.keyring).field("senders", &self.senders.len()).finish()
    }
}
