//! Nothing that arrives makes membership panic, and nothing without the key changes anything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use fleet_core::NodeId;
use fleet_membership::identity::Identity;
use fleet_membership::seal::{Opener, Sealer};
use fleet_membership::swim::{Effect, Input, Swim, SwimConfig};
use fleet_membership::{GossipKey, Keyring, Metadata, MetadataItem, Profile, Remembered};
use proptest::collection::vec;
use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

const SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

fn swim(number: u8, seeds: Vec<SocketAddr>) -> (Swim, Vec<Effect>) {
    let config = SwimConfig {
        identity: Identity {
            node: NodeId::from_bytes([number; 16]),
            address: SocketAddr::from(([10, 0, 0, number], 7_000)),
            incarnation: 1 << 32,
        },
        profile: Profile::Lan,
        seeds,
        remembered: Vec::new(),
        metadata: Metadata::default(),
        random_seed: 1,
    };
    Swim::new(config, Duration::ZERO)
}

/// Two nodes that know each other, and every payload they exchanged meanwhile.
fn pair() -> (Swim, Vec<Vec<u8>>) {
    let (mut first, _) = swim(1, Vec::new());
    let (mut second, mut for_first) = swim(2, vec![SocketAddr::from(([10, 0, 0, 1], 7_000))]);
    let mut exchanged = Vec::new();
    for step in 0..40 {
        let now = Duration::from_millis(50 * step);
        let mut for_second = Vec::new();
        for payload in payloads(for_first) {
            for_second.extend(first.handle(now, Input::Packet { from: second.identity().address, payload: &payload }));
            exchanged.push(payload);
        }
        for_second.extend(first.handle(now, Input::Tick));
        for_first = Vec::new();
        for payload in payloads(for_second) {
            for_first.extend(second.handle(now, Input::Packet { from: first.identity().address, payload: &payload }));
            exchanged.push(payload);
        }
        for_first.extend(second.handle(now, Input::Tick));
    }
    assert_eq!(first.view().active().count(), 2);
    (first, exchanged)
}

fn payloads(effects: Vec<Effect>) -> Vec<Vec<u8>> {
    let sent = effects.into_iter().filter_map(|effect| match effect {
        Effect::Send { payload, .. } => Some(payload),
        _ => None,
    });
    sent.collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_payloads_do_no_harm(inputs in vec(vec(any::<u8>(), 0..200), 1..20), kind in 0u8..8) {
        let (mut swim, _) = swim(1, Vec::new());
        for (step, mut payload) in inputs.into_iter().enumerate() {
            let now = Duration::from_millis(10 * step as u64);
            if let Some(first) = payload.first_mut() {
                *first = kind;
            }
            swim.handle(now, Input::Packet { from: SOURCE, payload: &payload });
            swim.handle(now, Input::Tick);
        }
        prop_assert!(swim.view().is_active(NodeId::from_bytes([1; 16])));
    }

    #[test]
    fn mangled_real_payloads_do_no_harm(changes in vec((any::<usize>(), any::<usize>(), any::<u8>()), 1..60)) {
        let (mut swim, exchanged) = pair();
        for (step, (which, place, value)) in changes.into_iter().enumerate() {
            let mut payload = exchanged[which % exchanged.len()].clone();
            let place = place % payload.len();
            payload[place] = value;
            payload.truncate(payload.len() - (value as usize % 3).min(payload.len()));
            let now = Duration::from_millis(2_000 + 20 * step as u64);
            swim.handle(now, Input::Packet { from: SOURCE, payload: &payload });
            swim.handle(now, Input::Tick);
        }
        prop_assert!(swim.view().is_active(NodeId::from_bytes([1; 16])));
    }

    #[test]
    fn random_datagrams_open_never(packet in vec(any::<u8>(), 0..200)) {
        let mut opener = Opener::new(Keyring::single(GossipKey::new([1; 32])));
        prop_assert!(opener.open(Duration::ZERO, SOURCE.ip(), &packet).is_err());
    }

    #[test]
    fn any_payload_survives_the_seal(payload in vec(any::<u8>(), 0..1_400)) {
        let keyring = Keyring::single(GossipKey::new([1; 32]));
        let mut sealer = Sealer::new(NodeId::from_bytes([1; 16]), 1, &keyring).unwrap();
        let packet = sealer.seal(&payload).unwrap();
        let mut opener = Opener::new(keyring);
        prop_assert_eq!(opener.open(Duration::ZERO, SOURCE.ip(), &packet).unwrap(), payload);
    }

    #[test]
    fn random_items_and_records_are_read_or_refused(bytes in vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        let _read_or_not = (MetadataItem::decode(&bytes), Remembered::decode(&bytes));
        if let Some(first) = bytes.first_mut() {
            *first = 1;
        }
        let _read_or_not = (MetadataItem::decode(&bytes), Remembered::decode(&bytes));
    }
}
