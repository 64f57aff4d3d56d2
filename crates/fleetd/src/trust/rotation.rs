//! How gossip keys are replaced once a node was removed that knows them: the new key is added everywhere, then seals
//! everywhere, then the others are dropped. Pure; the keyring itself says how far a rotation has come.
//!
//! Invariant: whoever follows the steps, each with its wait, opens what everybody else seals.

use std::time::Duration;

use fleet_store::record::{GossipKey, Keyring, Payload};

/// How long a step may take to reach all nodes that can be reached. Who misses it longer fetches the keyring: once it gets
/// packets that it cannot open, and, since nobody need address it, whenever it hears no leader.
pub const STEP_WAIT: Duration = Duration::from_secs(30);
/// Most keys of a ring.
const KEYS_MAX: usize = fleet_membership::KEYS_MAX;

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A new key, which seals nothing yet.
    Add,
    /// The newest key seals.
    Promote,
    /// Only the key that seals is left.
    Retire,
}

/// What is to be done about `keyring`, in force since `held`. A new key is wanted once somebody was removed who knows all
/// there are; that may come in the middle of a rotation.
pub fn decide(keyring: &Keyring, is_wanted: bool, held: Duration) -> Option<Step> {
    let first = keyring.keys.first()?;
    if is_wanted && keyring.keys.len() < KEYS_MAX {
        return Some(Step::Add);
    }
    if held < STEP_WAIT {
        return None;
    }
    if Some(first.key_id) != newest(keyring) {
        return Some(Step::Promote);
    }
    (keyring.keys.len() > 1).then_some(Step::Retire)
}

/// The keyring after `step`; `fresh` is the key that is added.
pub fn carry_out(keyring: &Keyring, step: Step, fresh: Payload) -> Keyring {
    let mut keys = keyring.keys.clone();
    let newest = newest(keyring);
    match step {
        Step::Add => keys.push(GossipKey { key_id: newest.unwrap_or_default().wrapping_add(1), key: fresh }),
        Step::Promote => keys.sort_by_key(|key| Some(key.key_id) != newest),
        Step::Retire => keys.truncate(1),
    }
    Keyring { generation: keyring.generation + 1, keys }
}

/// The newest key: numbers follow one another, around the end of their range too, and there are few of them.
fn newest(keyring: &Keyring) -> Option<u8> {
    let is_there = |key_id: u8| keyring.keys.iter().any(|key| key.key_id == key_id);
    keyring.keys.iter().map(|key| key.key_id).find(|key_id| !is_there(key_id.wrapping_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(generation: u64, ids: &[u8]) -> Keyring {
        let keys = ids.iter().map(|key_id| GossipKey { key_id: *key_id, key: Payload::from(vec![*key_id; 32]) });
        Keyring { generation, keys: keys.collect() }
    }

    fn run(keyring: Keyring, is_wanted: bool) -> Keyring {
        let step = decide(&keyring, is_wanted, STEP_WAIT).unwrap();
        let fresh = newest(&keyring).unwrap().wrapping_add(1);
        carry_out(&keyring, step, Payload::from(vec![fresh; 32]))
    }

    #[test]
    fn a_rotation_adds_then_promotes_then_retires_and_comes_to_rest() {
        let added = run(ring(1, &[1]), true);
        assert_eq!(added, ring(2, &[1, 2]));
        assert_eq!(decide(&added, false, Duration::ZERO), None, "not before it came to all");
        let promoted = run(added, false);
        assert_eq!(promoted, ring(3, &[2, 1]));
        let retired = run(promoted, false);
        assert_eq!(retired, ring(4, &[2]));
        assert_eq!(decide(&retired, false, STEP_WAIT * 100), None);
        assert_eq!(decide(&Keyring::default(), true, STEP_WAIT), None, "there is no ring yet");
    }

    #[test]
    fn who_is_removed_in_the_middle_does_not_know_the_last_key() {
        let twice = run(run(ring(1, &[1]), true), true);
        assert_eq!(twice, ring(3, &[1, 2, 3]));
        assert_eq!(run(run(twice, false), false), ring(5, &[3]));
        let again = run(ring(3, &[2, 1]), true);
        assert_eq!(again, ring(4, &[2, 1, 3]));
        assert_eq!(run(again, false), ring(5, &[3, 2, 1]));
    }

    #[test]
    fn numbers_go_around_the_end_and_keys_stay_few() {
        let around = run(ring(1, &[255]), true);
        assert_eq!(around, ring(2, &[255, 0]));
        assert_eq!(run(around, false), ring(3, &[0, 255]));
        let full = ring(9, &[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(decide(&full, true, STEP_WAIT), Some(Step::Promote), "room is made first");
    }
}
