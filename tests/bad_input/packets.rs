//! Packets at the gossip port: none is answered, each is counted with its reason, and nobody becomes a member.

use std::time::Duration;

use tokio::net::UdpSocket;

use crate::harness::{raw, wait};
use crate::stage::Stage;

const COUNTED_BOUND: Duration = Duration::from_secs(10);
const REFUSED: &str = "fleet_membership_decrypt_fail_total";
const DROPPED: &str = "fleet_membership_dropped_total";
/// Version, ring, key, sender, boot, salt, sequence: what stands before the sealed part.
const HEADER_BYTES: usize = 39;
const TAG_BYTES: usize = 16;

/// A packet with this version, ring and key whose sealed part is nonsense.
fn packet(version: u8, ring: u8, key: u8, sealed: usize) -> Vec<u8> {
    let mut bytes = vec![version, ring, key];
    bytes.resize(HEADER_BYTES + TAG_BYTES + sealed, 0x5a);
    bytes
}

/// Sends `packet` and waits until it was counted under `reason`; an answer is an error.
async fn verdict(stage: &Stage, packet: &[u8], name: &str, reason: &str) -> Result<(), String> {
    let node = &stage.cluster.nodes[0];
    let counter = format!("{name}{{reason=\"{reason}\"}}");
    let before = raw::metric(node.http_port, &counter).await?;
    let socket = UdpSocket::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    socket.send_to(packet, node.endpoint()).await.map_err(|error| error.to_string())?;
    wait::until(&format!("one more {counter}"), COUNTED_BOUND, || async {
        let now = raw::metric(node.http_port, &counter).await?;
        if now > before { Ok(()) } else { Err(format!("{now}")) }
    })
    .await;
    let mut answer = [0; 64];
    match socket.try_recv(&mut answer) {
        Ok(length) => Err(format!("it answered {:?}", &answer[..length])),
        Err(_) => Ok(()),
    }
}

pub(crate) async fn judge(stage: &mut Stage) {
    let rows: [(&str, Vec<u8>, &str, &str); 7] = [
        ("a single byte", vec![1], REFUSED, "truncated"),
        ("text", b"hello, is anybody there?".to_vec(), REFUSED, "truncated"),
        ("a header alone", packet(1, 0, 1, 0)[..HEADER_BYTES].to_vec(), REFUSED, "truncated"),
        ("a later version", packet(9, 0, 1, 40), REFUSED, "unknown_version"),
        ("another ring", packet(1, 77, 1, 40), REFUSED, "other_ring"),
        ("an unknown key", packet(1, 0, 99, 40), REFUSED, "unknown_key"),
        ("forged under our key", packet(1, 0, 1, 40), REFUSED, "forged"),
    ];
    for (name, packet, counter, reason) in rows {
        let verdict = verdict(stage, &packet, counter, reason).await;
        stage.judged(&format!("packet: {name}"), verdict).await;
    }
    let verdict = verdict(stage, &packet(1, 0, 1, 60_000), DROPPED, "oversize").await;
    stage.judged("packet: larger than may be", verdict).await;
}
