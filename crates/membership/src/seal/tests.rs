//! Tests of the envelope: what is opened once, and what never.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::keyring::KEY_BYTES;

const SOURCE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const NOW: Duration = Duration::from_secs(1);

fn node() -> NodeId {
    NodeId::from_bytes([1; 16])
}

fn ring(primary: u8, ids: &[u8]) -> Keyring {
    let keys = ids.iter().map(|id| (*id, GossipKey::new([*id; KEY_BYTES]))).collect::<BTreeMap<_, _>>();
    Keyring::new(0, primary, keys).unwrap()
}

fn pair() -> (Sealer, Opener) {
    (Sealer::new(node(), 1, &ring(1, &[1])).unwrap(), Opener::new(ring(1, &[1])))
}

#[test]
fn a_packet_opens_once() {
    let (mut sealer, mut opener) = pair();
    let packet = sealer.seal(b"hello").unwrap();
    assert_eq!(packet.len(), 5 + OVERHEAD_BYTES);
    assert_eq!(opener.open(NOW, SOURCE, &packet).unwrap(), b"hello");
    assert_eq!(opener.open(NOW, SOURCE, &packet), Err(Refusal::Replayed));
}

#[test]
fn the_header_is_laid_out_as_documented() {
    let salt = [0x55; SALT_BYTES];
    let mut sealer = Sealer::with_salt(node(), 0x0102_0304, salt, &ring(7, &[7])).unwrap();
    let packet = sealer.seal(b"").unwrap();
    let mut expected = vec![1, 0, 7];
    expected.extend_from_slice(&Digest::of(&[1; 16]).0[..8]);
    expected.extend_from_slice(&[1, 2, 3, 4]);
    expected.extend_from_slice(&salt);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(packet[..HEADER_BYTES], expected);
}

#[test]
fn every_changed_bit_is_noticed() {
    let (mut sealer, mut opener) = pair();
    let packet = sealer.seal(b"state of things").unwrap();
    for bit in 0..packet.len() * 8 {
        let mut tampered = packet.clone();
        tampered[bit / 8] ^= 1 << (bit % 8);
        assert!(opener.open(NOW, SOURCE, &tampered).is_err(), "bit {bit}");
    }
    assert!(opener.open(NOW, SOURCE, &packet).is_ok(), "forgeries left no trace");
}

#[test]
fn short_and_foreign_packets_are_told_apart() {
    let (mut sealer, mut opener) = pair();
    let packet = sealer.seal(b"x").unwrap();
    assert_eq!(opener.open(NOW, SOURCE, &[]), Err(Refusal::Truncated));
    assert_eq!(opener.open(NOW, SOURCE, &packet[..OVERHEAD_BYTES - 1]), Err(Refusal::Truncated));
    let with = |index: usize, value| {
        let mut changed = packet.clone();
        changed[index] = value;
        changed
    };
    assert_eq!(opener.open(NOW, SOURCE, &with(0, 2)), Err(Refusal::UnknownVersion));
    assert_eq!(opener.open(NOW, SOURCE, &with(1, 9)), Err(Refusal::OtherRing));
    assert_eq!(opener.open(NOW, SOURCE, &with(2, 9)), Err(Refusal::UnknownKey));
    assert_eq!(opener.open(NOW, SOURCE, &with(40, packet[40] ^ 1)), Err(Refusal::Forged));
}

#[test]
fn another_key_under_the_same_id_opens_nothing() {
    let (mut sealer, _) = pair();
    let other = Keyring::new(0, 1, BTreeMap::from([(1, GossipKey::new([9; KEY_BYTES]))])).unwrap();
    let packet = sealer.seal(b"x").unwrap();
    assert_eq!(Opener::new(other).open(NOW, SOURCE, &packet), Err(Refusal::Forged));
}

#[test]
fn a_rotation_in_three_steps_loses_no_packet() {
    let (mut sealer, mut opener) = pair();
    let exchange = |sealer: &mut Sealer, opener: &mut Opener| {
        let packet = sealer.seal(b"x").unwrap();
        opener.open(NOW, SOURCE, &packet).map(drop)
    };
    exchange(&mut sealer, &mut opener).unwrap();
    opener.set_keyring(ring(1, &[1, 2]));
    exchange(&mut sealer, &mut opener).unwrap();
    sealer.set_keyring(&ring(2, &[1, 2])).unwrap();
    exchange(&mut sealer, &mut opener).unwrap();
    opener.set_keyring(ring(2, &[2]));
    exchange(&mut sealer, &mut opener).unwrap();
    sealer.set_keyring(&ring(1, &[1])).unwrap();
    assert_eq!(exchange(&mut sealer, &mut opener), Err(Refusal::UnknownKey), "the old key is gone");
}

#[test]
fn a_changed_key_under_the_same_id_replaces_the_derived_one() {
    let (mut sealer, mut opener) = pair();
    opener.open(NOW, SOURCE, &sealer.seal(b"x").unwrap()).unwrap();
    let other = Keyring::new(0, 1, BTreeMap::from([(1, GossipKey::new([9; KEY_BYTES]))])).unwrap();
    opener.set_keyring(other.clone());
    assert_eq!(opener.open(NOW, SOURCE, &sealer.seal(b"x").unwrap()), Err(Refusal::Forged));
    sealer.set_keyring(&other).unwrap();
    opener.open(NOW, SOURCE, &sealer.seal(b"x").unwrap()).unwrap();
}

#[test]
fn a_replay_across_a_rotation_is_refused() {
    let (mut sealer, mut opener) = pair();
    let packet = sealer.seal(b"x").unwrap();
    opener.open(NOW, SOURCE, &packet).unwrap();
    opener.set_keyring(ring(2, &[1, 2]));
    assert_eq!(opener.open(NOW, SOURCE, &packet), Err(Refusal::Replayed));
}

#[test]
fn an_earlier_boot_is_heard_no_more_once_a_later_one_spoke() {
    let keyring = ring(1, &[1]);
    let (mut first, mut opener) = pair();
    let mut second = Sealer::new(node(), 2, &keyring).unwrap();
    opener.open(NOW, SOURCE, &first.seal(b"x").unwrap()).unwrap();
    opener.open(NOW, SOURCE, &second.seal(b"x").unwrap()).unwrap();
    assert_eq!(opener.open(NOW, SOURCE, &first.seal(b"x").unwrap()), Err(Refusal::OldBoot));
    opener.open(NOW, SOURCE, &second.seal(b"x").unwrap()).unwrap();
}

#[test]
fn a_forged_later_boot_does_not_silence_the_node() {
    let (mut sealer, mut opener) = pair();
    opener.open(NOW, SOURCE, &sealer.seal(b"x").unwrap()).unwrap();
    let mut forged = sealer.seal(b"x").unwrap();
    forged[11] = 0xFF;
    assert_eq!(opener.open(NOW, SOURCE, &forged), Err(Refusal::Forged));
    opener.open(NOW, SOURCE, &sealer.seal(b"x").unwrap()).unwrap();
}

#[test]
fn a_directory_set_back_to_an_old_boot_gets_other_keys_and_is_heard() {
    let keyring = ring(1, &[1]);
    let (mut first, mut opener) = pair();
    let mut again = Sealer::new(node(), 1, &keyring).unwrap();
    let (one, other) = (first.seal(b"same").unwrap(), again.seal(b"same").unwrap());
    assert_ne!(one[HEADER_BYTES..], other[HEADER_BYTES..], "same boot, same sequence, other key");
    opener.open(NOW, SOURCE, &one).unwrap();
    opener.open(NOW, SOURCE, &other).unwrap();
    assert_eq!(opener.open(NOW, SOURCE, &one), Err(Refusal::Replayed));
}

#[test]
fn a_flood_is_refused_before_it_is_opened() {
    let (mut sealer, mut opener) = pair();
    let rubbish = [0; 64];
    let refused = (0..10_000).filter(|_| opener.open(NOW, SOURCE, &rubbish) == Err(Refusal::RateLimited)).count();
    assert_eq!(refused, 5_000);
    assert_eq!(opener.open(NOW, SOURCE, &sealer.seal(b"x").unwrap()), Err(Refusal::RateLimited));
    let elsewhere = IpAddr::from([10, 0, 0, 9]);
    opener.open(NOW, elsewhere, &sealer.seal(b"x").unwrap()).unwrap();
}
