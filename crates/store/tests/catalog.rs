//! Entries of the catalog as earlier versions stored them stay readable. The lines of the fixture are records in hexadecimal;
//! `FLEET_WRITE_FIXTURE=1` writes those of the present version, once per version and never again.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::{Path, PathBuf};

use fleet_core::{Digest, NodeId, SiteName, Timestamp};
use fleet_store::codec::{decode, encode};
use fleet_store::record::{
    CatalogContent, CatalogEntry, CatalogFacts, CatalogKey, CatalogStamp, CatalogTime, CatalogVector, Payload,
    SignedBy, WorkflowName,
};

fn fixture(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("catalog-{version}.txt"))
}

fn seen() -> CatalogVector {
    CatalogVector::from([(NodeId::from_bytes([4; 16]), 300), (NodeId::from_bytes([5; 16]), 1)])
}

fn entries() -> Vec<(CatalogKey, CatalogEntry)> {
    let node = NodeId::from_bytes([4; 16]);
    let stamp = CatalogStamp { version: 2, time: CatalogTime { at: Timestamp(1_800_000_000_000), count: 7 }, node };
    let entry = |number, content, signed_by| CatalogEntry { stamp, number, content, signed_by };
    let workflow = CatalogKey::Workflow(WorkflowName {
        namespace: "shop".to_owned(),
        name: "count".to_owned(),
        version: "1.0.0".to_owned(),
    });
    let digest = Digest::of(b"a file");
    let file = CatalogContent::Workflow { digest, file_bytes: 6, deflated: Payload::from("deflated") };
    let site = SignedBy::Site { authority: Payload::from("certificate"), signature: Payload::from("signed") };
    vec![
        (workflow.clone(), entry(300, file, SignedBy::Nobody)),
        (workflow, entry(301, CatalogContent::Deleted { digest }, SignedBy::Nobody)),
        (
            CatalogKey::RevokedNode(SiteName::default(), node),
            entry(1, CatalogContent::Revocation, SignedBy::Root(Payload::from("signed"))),
        ),
        (
            CatalogKey::RevokedSerial("plant".parse().unwrap(), "0aff".to_owned()),
            entry(2, CatalogContent::Revocation, site),
        ),
        (CatalogKey::Acknowledgement(node), entry(0, CatalogContent::Acknowledgement(seen()), SignedBy::Nobody)),
    ]
}

fn facts() -> CatalogFacts {
    CatalogFacts { written: 301, seen: seen(), outlived: 9 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn entries_of_version_1_are_readable() {
    let path = fixture(1);
    if std::env::var_os("FLEET_WRITE_FIXTURE").is_some() {
        let rows = entries()
            .into_iter()
            .map(|(key, entry)| format!("{} {}\n", hex(&key.to_bytes()), hex(&encode(&entry).unwrap())));
        let text: String = rows.chain([format!("facts {}\n", hex(&encode(&facts()).unwrap()))]).collect();
        std::fs::write(&path, text).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<(&str, &str)> = text.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let (rows, last) = lines.split_at(lines.len() - 1);
    let expected = entries();
    assert_eq!(rows.len(), expected.len());
    for ((key_hex, entry_hex), (key, entry)) in rows.iter().zip(&expected) {
        assert_eq!(*key_hex, hex(&key.to_bytes()), "the bytes of a key never change");
        assert_eq!(decode::<CatalogEntry>(&bytes(entry_hex)).unwrap(), *entry);
    }
    assert_eq!(decode::<CatalogFacts>(&bytes(last[0].1)).unwrap(), facts());
}
