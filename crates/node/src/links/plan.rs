//! Whom to dial and which sessions to close: a pure machine fed with views, results and time.
//!
//! Invariants: only the lower id dials; a node is dialled by one dial at a time and never while a session with it is
//! open; a peer that gossip has given up keeps no session longer than the grace.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::NodeId;

/// First pause after a failed dial; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause between dials.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a peer must be given up by gossip before its session goes: a false report ends sooner.
const GRACE: Duration = Duration::from_secs(1);
/// How long a peer may have a session before gossip ever showed it.
const STRANGER_GRACE: Duration = Duration::from_secs(10);
/// How long a dial, or a session's handshake, may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Most sessions at once.
const SESSIONS_MAX: usize = 512;

/// Names a session within ractor_cluster's node server.
pub(super) type SessionNumber = u64;

/// What the manager must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Open a stream to this node there.
    Dial { node: NodeId, address: String },
    /// End this session.
    Close { session: SessionNumber, reason: &'static str },
}

#[derive(Debug)]
struct Peer {
    /// Where it answers, while gossip holds it alive.
    address: Option<String>,
    given_up_at: Duration,
    dialing_since: Option<Duration>,
    retry_at: Duration,
    failures: u32,
}

#[derive(Debug)]
struct Session {
    peer: NodeId,
    opened_at: Duration,
    is_ready: bool,
}

/// All that is known about links.
#[derive(Debug)]
pub(super) struct Plan {
    own: NodeId,
    peers: BTreeMap<NodeId, Peer>,
    sessions: BTreeMap<SessionNumber, Session>,
}

impl Plan {
    /// The plan of node `own`, with nobody known.
    pub(super) fn new(own: NodeId) -> Self {
        Self { own, peers: BTreeMap::new(), sessions: BTreeMap::new() }
    }

    /// Gossip now holds exactly these nodes alive, each answering at its address.
    pub(super) fn alive(&mut self, now: Duration, alive: impl Iterator<Item = (NodeId, String)>) {
        let mut alive: BTreeMap<_, _> = alive.filter(|(node, _)| *node != self.own).collect();
        for (node, peer) in &mut self.peers {
            match (alive.remove(node), peer.address.is_some()) {
                (Some(address), was_alive) => {
                    if !was_alive || peer.address.as_ref() != Some(&address) {
                        (peer.retry_at, peer.failures) = (now, 0);
                    }
                    peer.address = Some(address);
                }
                (None, true) => (peer.address, peer.given_up_at) = (None, now),
                (None, false) => {}
            }
        }
        for (node, address) in alive {
            let peer =
                Peer { address: Some(address), given_up_at: now, dialing_since: None, retry_at: now, failures: 0 };
            self.peers.insert(node, peer);
        }
        let in_use: Vec<_> = self.sessions.values().map(|session| session.peer).collect();
        self.peers.retain(|node, peer| peer.address.is_some() || in_use.contains(node));
    }

    /// A dial ended. `jitter` is random in 0..1.
    pub(super) fn dialled(&mut self, now: Duration, node: NodeId, succeeded: bool, jitter: f64) {
        if succeeded {
            // The dial counts as under way until its session opens.
            return;
        }
        self.failed(now, node, jitter);
    }

    fn failed(&mut self, now: Duration, node: NodeId, jitter: f64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            let pause = PAUSE_MIN.saturating_mul(1 << peer.failures.min(10)).min(PAUSE_MAX);
            peer.retry_at = now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
            peer.failures = peer.failures.saturating_add(1);
            peer.dialing_since = None;
        }
    }

    /// Whether one more stream may be taken.
    pub(super) fn has_room(&self) -> bool {
        self.sessions.len() < SESSIONS_MAX
    }

    /// A session with `peer` was opened.
    pub(super) fn opened(&mut self, now: Duration, session: SessionNumber, peer: NodeId) {
        self.sessions.insert(session, Session { peer, opened_at: now, is_ready: false });
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.dialing_since = None;
        }
    }

    /// The handshake of a session is done.
    pub(super) fn ready(&mut self, session: SessionNumber) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        session.is_ready = true;
        if let Some(peer) = self.peers.get_mut(&session.peer) {
            peer.failures = 0;
        }
    }

    /// A session ended.
    pub(super) fn closed(&mut self, now: Duration, session: SessionNumber, jitter: f64) {
        if let Some(session) = self.sessions.remove(&session) {
            self.failed(now, session.peer, jitter);
        }
    }

    /// Every session ended: the node server was replaced.
    pub(super) fn all_closed(&mut self, now: Duration, jitter: f64) {
        for session in std::mem::take(&mut self.sessions).into_values() {
            self.failed(now, session.peer, jitter);
        }
    }

    /// What is to be done at `now`.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        for (number, session) in &self.sessions {
            let reason = match self.peers.get(&session.peer) {
                _ if !session.is_ready && now >= session.opened_at + HANDSHAKE_MAX => Some("handshake took too long"),
                None if now >= session.opened_at + STRANGER_GRACE => Some("gossip does not know the peer"),
                Some(peer) if peer.address.is_none() && now >= peer.given_up_at + GRACE => Some("gossip gave it up"),
                _ => None,
            };
            actions.extend(reason.map(|reason| Action::Close { session: *number, reason }));
        }
        let linked: Vec<_> = self.sessions.values().map(|session| session.peer).collect();
        let room = SESSIONS_MAX.saturating_sub(self.sessions.len());
        let own = self.own;
        let may_dial = |node: &NodeId, peer: &Peer| {
            let is_dialing = peer.dialing_since.is_some_and(|since| now < since + 2 * HANDSHAKE_MAX);
            own < *node && !is_dialing && now >= peer.retry_at && !linked.contains(node)
        };
        for (node, peer) in self.peers.iter_mut().filter(|(node, peer)| may_dial(node, peer)).take(room) {
            if let Some(address) = peer.address.clone() {
                peer.dialing_since = Some(now);
                actions.push(Action::Dial { node: *node, address });
            }
        }
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(value: u64) -> Duration {
        Duration::from_millis(value)
    }

    fn id(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn alive(numbers: &[u8]) -> impl Iterator<Item = (NodeId, String)> {
        numbers.iter().map(|number| (id(*number), format!("host:{number}"))).collect::<Vec<_>>().into_iter()
    }

    fn dial(number: u8) -> Action {
        Action::Dial { node: id(number), address: format!("host:{number}") }
    }

    #[test]
    fn only_the_lower_id_dials_and_only_once_at_a_time() {
        let mut plan = Plan::new(id(2));
        plan.alive(millis(0), alive(&[1, 2, 3]));
        assert_eq!(plan.due(millis(0)), [dial(3)]);
        assert_eq!(plan.due(millis(100)), []);
        plan.opened(millis(150), 7, id(3));
        plan.ready(7);
        assert_eq!(plan.due(millis(60_000)), []);
    }

    #[test]
    fn failed_dials_are_tried_again_with_growing_pauses() {
        let mut plan = Plan::new(id(1));
        plan.alive(millis(0), alive(&[2]));
        let mut now = millis(0);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let asked = now;
            while plan.due(now).is_empty() {
                now += millis(10);
            }
            pauses.push((now - asked).as_millis());
            plan.dialled(now, id(2), false, 1.0);
        }
        assert_eq!(pauses, [0, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        plan.alive(now, alive(&[]));
        plan.alive(now, alive(&[2]));
        assert_eq!(plan.due(now), [dial(2)], "back from the dead, it is dialled at once");
    }

    #[test]
    fn jitter_shortens_a_pause_by_at_most_half() {
        let mut plan = Plan::new(id(1));
        plan.alive(millis(0), alive(&[2]));
        plan.due(millis(0));
        plan.dialled(millis(0), id(2), false, 0.0);
        assert_eq!(plan.due(millis(99)), []);
        assert_eq!(plan.due(millis(100)), [dial(2)]);
    }

    #[test]
    fn a_session_ends_when_gossip_keeps_its_peer_down_and_not_before() {
        let mut plan = Plan::new(id(1));
        plan.alive(millis(0), alive(&[2]));
        plan.due(millis(0));
        plan.opened(millis(0), 5, id(2));
        plan.ready(5);
        plan.alive(millis(1_000), alive(&[]));
        assert_eq!(plan.due(millis(1_500)), []);
        plan.alive(millis(1_600), alive(&[2]));
        assert_eq!(plan.due(millis(3_000)), [], "a false report");
        plan.alive(millis(4_000), alive(&[]));
        assert_eq!(plan.due(millis(5_000)), [Action::Close { session: 5, reason: "gossip gave it up" }]);
        plan.closed(millis(5_000), 5, 0.5);
        assert_eq!(plan.due(millis(60_000)), [], "nobody dials the dead");
    }

    #[test]
    fn a_handshake_that_hangs_is_ended() {
        let mut plan = Plan::new(id(2));
        plan.alive(millis(0), alive(&[1]));
        plan.opened(millis(0), 1, id(1));
        assert_eq!(plan.due(millis(4_999)), []);
        assert_eq!(plan.due(millis(5_000)), [Action::Close { session: 1, reason: "handshake took too long" }]);
    }

    #[test]
    fn strangers_have_ten_seconds_to_show_up_in_gossip() {
        let mut plan = Plan::new(id(2));
        plan.opened(millis(0), 1, id(1));
        plan.ready(1);
        assert_eq!(plan.due(millis(9_999)), []);
        assert_eq!(plan.due(millis(10_000)), [Action::Close { session: 1, reason: "gossip does not know the peer" }]);
        plan.alive(millis(10_000), alive(&[1]));
        assert_eq!(plan.due(millis(10_001)), []);
    }

    #[test]
    fn a_dial_whose_result_got_lost_is_repeated() {
        let mut plan = Plan::new(id(1));
        plan.alive(millis(0), alive(&[2]));
        plan.due(millis(0));
        plan.dialled(millis(10), id(2), true, 0.5);
        assert_eq!(plan.due(millis(9_999)), []);
        assert_eq!(plan.due(millis(10_000)), [dial(2)]);
    }

    #[test]
    fn a_lost_session_is_dialled_again() {
        let mut plan = Plan::new(id(1));
        plan.alive(millis(0), alive(&[2]));
        plan.due(millis(0));
        plan.opened(millis(0), 1, id(2));
        plan.ready(1);
        plan.closed(millis(500), 1, 1.0);
        assert_eq!(plan.due(millis(600)), []);
        assert_eq!(plan.due(millis(700)), [dial(2)]);
    }
}
