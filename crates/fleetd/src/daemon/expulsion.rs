//! How a node learns that it was removed from the fleet, and stops: from the site's state, if the entry still reached it,
//! else from the others, who refuse its certificate as revoked.
//!
//! Invariant: what others say counts only while no leader is heard, only if nobody who hears one takes this node, and only
//! if it is said twice; a node that is merely cut off runs on.

use std::time::Duration;

use fleet_api::pb::v1;
use fleet_api::pb::v1::fleet_client::FleetClient;
use fleet_api::tls::is_revoked_here;
use fleet_core::{BootInstant, Clock, Error, ErrorKind, NodeId, SystemClock};
use fleet_store::record::{NodeRecord, NodeStanding};

use super::asking::ANSWER_TIMEOUT;
use super::parts::Parts;
use super::removed_sites::is_own_removed;
use super::silence::{Silence, has_leader};
use crate::ports::Purpose;
use crate::site::Site;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a node without a leader asks why.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long no leader must have been heard by a node that sees others: they may have been removed as well.
const SILENCE_MIN: Duration = Duration::from_secs(30);
/// Most nodes asked at once.
const ASKED_MAX: usize = 8;
/// How often it has to be said.
const TIMES: u32 = 2;

/// Resolves once this node is known to be removed.
pub(super) async fn noticed(parts: &Parts) {
    let mut doubt = Doubt::new(SystemClock.boot_now());
    let is_led_now = || has_leader(&parts.site.group().status().borrow());
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let is_site_removed = is_own_removed(parts).unwrap_or(false);
        let mut is_over = is_site_removed || is_removed(&parts.site).unwrap_or(false);
        let sees_others = parts.membership.current_view().active_peers().next().is_some();
        if !is_over && doubt.is_due(is_led_now(), sees_others, SystemClock.boot_now()) {
            let said = ask_some(parts, doubt.round).await;
            is_over = doubt.conclude(said, is_led_now());
        }
        if is_over {
            tracing::error!(node = %parts.identity.name, "this node was removed from the fleet and stops");
            return;
        }
    }
}

/// What one node, or several together, say of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// That it was removed.
    Removed,
    /// That it belongs to a fleet that has a leader.
    Belongs,
    /// Nothing: nobody could be reached, or those who take it hear no leader either and may have been removed with it.
    Nothing,
}

/// Whether this node may have been removed. Pure.
#[derive(Debug)]
struct Doubt {
    silence: Silence,
    asked: BootInstant,
    /// How often others were asked: each time it is others.
    round: usize,
    said: u32,
}

impl Doubt {
    fn new(now: BootInstant) -> Self {
        Self { silence: Silence::default(), asked: now, round: 0, said: 0 }
    }

    /// Whether the others are to be asked now.
    fn is_due(&mut self, is_led: bool, sees_others: bool, now: BootInstant) -> bool {
        let Some(silent) = self.silence.note(is_led, now) else {
            self.said = 0;
            return false;
        };
        let is_due = (!sees_others || silent >= SILENCE_MIN) && now.saturating_since(self.asked) >= ASK_EVERY;
        if is_due {
            self.asked = now;
            self.round = self.round.wrapping_add(1);
        }
        is_due
    }

    /// Whether it is certain, now that `said` was said too.
    fn conclude(&mut self, said: Said, is_led: bool) -> bool {
        match said {
            _ if is_led => self.said = 0,
            Said::Removed => self.said += 1,
            Said::Belongs => self.said = 0,
            Said::Nothing => {}
        }
        self.said >= TIMES
    }
}

/// What the process ends with.
pub(super) fn expelled() -> Error {
    Error::new(ErrorKind::PermissionDenied, "run the node: it was removed from the fleet")
        .with_next_step("To use this machine again, join with an empty data directory and a new token.")
}

/// Whether this node's own copy of the state says so.
pub(super) fn is_removed(site: &Site) -> Result<bool, Error> {
    let (roster, own) = (site.roster()?, site.group().node());
    Ok(roster.nodes.iter().any(|record| record.id == own && record.standing == NodeStanding::Removed))
}

async fn ask_some(parts: &Parts, round: usize) -> Said {
    let Ok(mut nodes) = parts.site.nodes() else { return Said::Nothing };
    nodes.retain(|node| node.id != parts.identity.node_id);
    let asked = sample(&nodes, round).map(|node| ask(parts, node));
    together(&futures_util::future::join_all(asked).await)
}

/// Whom to ask in `round`: others each time, until all had their turn.
fn sample<T>(nodes: &[T], round: usize) -> impl Iterator<Item = &T> {
    let first = round.wrapping_mul(ASKED_MAX).checked_rem(nodes.len()).unwrap_or(0);
    nodes.iter().cycle().skip(first).take(ASKED_MAX.min(nodes.len()))
}

async fn ask(parts: &Parts, node: &NodeRecord) -> Said {
    let address = parts.site.peers().address(node.id).unwrap_or_else(|| node.profile.address.clone());
    match parts.site.peers().dialer().greet(&address, node.id).await {
        Ok(()) if hears_leader(&parts.site, node.id).await => Said::Belongs,
        Err(error) if is_revoked_here(&error) => Said::Removed,
        Ok(()) | Err(_) => Said::Nothing,
    }
}

/// Whether `node`, which takes us, hears a leader. If it does not say, that is supposed.
async fn hears_leader(site: &Site, node: NodeId) -> bool {
    let asking = async {
        let channel = site.peers().channel(node, Purpose::Forward).ok()?;
        let status = FleetClient::new(channel).get_status(v1::GetStatusRequest {}).await.ok()?;
        status.into_inner().site.map(|site| !site.leader.is_empty())
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asking).await.ok().flatten().unwrap_or(true)
}

/// What all answers together say. A removal stays in the log for ever, so one who refuses us has read of it; only who
/// belongs to a group with a leader can know better.
fn together(answers: &[Said]) -> Said {
    if answers.contains(&Said::Belongs) {
        Said::Belongs
    } else if answers.contains(&Said::Removed) {
        Said::Removed
    } else {
        Said::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> BootInstant {
        BootInstant::default().saturating_add(Duration::from_secs(secs))
    }

    #[test]
    fn only_a_refusal_that_nobody_with_a_leader_contradicts_counts() {
        assert_eq!(together(&[]), Said::Nothing, "there is nobody");
        assert_eq!(together(&[Said::Nothing, Said::Nothing]), Said::Nothing, "nobody can be reached");
        assert_eq!(together(&[Said::Nothing, Said::Removed]), Said::Removed, "who takes us was removed as well");
        assert_eq!(together(&[Said::Removed, Said::Belongs]), Said::Belongs, "one of them still takes us");
    }

    #[test]
    fn a_node_without_a_leader_asks_whoever_gossips_with_it() {
        let mut doubt = Doubt::new(at(0));
        assert!(!doubt.is_due(false, true, at(1)), "the next leader comes soon");
        assert!(!doubt.is_due(false, true, at(30)));
        assert!(doubt.is_due(false, true, at(31)));
        assert!(!doubt.is_due(false, true, at(40)));
        assert!(doubt.is_due(false, true, at(41)));
        assert!(!doubt.is_due(true, false, at(60)), "a leader is heard");
        assert!(doubt.is_due(false, false, at(61)), "it is alone: nobody else tells it");
    }

    #[test]
    fn it_is_concluded_when_it_was_said_twice_and_never_while_there_is_a_leader() {
        let mut doubt = Doubt::new(at(0));
        assert!(!doubt.conclude(Said::Removed, false));
        assert!(!doubt.conclude(Said::Nothing, false), "others could not be reached");
        assert!(doubt.conclude(Said::Removed, false));
        let mut doubt = Doubt::new(at(0));
        for said in [Said::Removed, Said::Belongs, Said::Removed] {
            assert!(!doubt.conclude(said, false), "{said:?}");
        }
        assert!(!doubt.conclude(Said::Removed, true), "a leader was heard meanwhile");
        assert!(!doubt.conclude(Said::Removed, false));
        assert!(!doubt.is_due(true, true, at(1)), "and now one is heard");
        assert!(!doubt.conclude(Said::Removed, false), "which begins anew");
    }

    #[test]
    fn in_time_everybody_is_asked() {
        let nodes: Vec<usize> = (0..20).collect();
        let mut asked: Vec<usize> =
            (1..=5).flat_map(|round| sample(&nodes, round).copied().collect::<Vec<_>>()).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, nodes);
        assert_eq!(sample(&nodes[..3], 7).count(), 3, "nobody twice at once");
        assert_eq!(sample::<usize>(&[], 1).count(), 0);
    }
}
