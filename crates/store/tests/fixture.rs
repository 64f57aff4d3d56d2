//! Files of earlier schemas are kept for ever and must stay readable. `FLEET_WRITE_FIXTURE=1` writes the file of the
//! present schema; do that once per schema, never again.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::path::{Path, PathBuf};

use bytes::Bytes;
use fleet_core::{Digest, GroupId, NodeId, SiteName};
use fleet_store::{LogFact, Member, Record, StateRead, StateTable, Store};
use serde::{Deserialize, Serialize};

const GROUP: GroupId = GroupId::from_bytes([3; 16]);
const WORDS: StateTable<(u64, String), Word> = StateTable::new(250, "words");

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Word {
    text: String,
    count: u32,
}

impl Record for Word {
    const NAME: &'static str = "word";
}

fn fixture(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("schema-{schema}.redb"))
}

fn member() -> Member {
    Member {
        node: NodeId::from_bytes([4; 16]),
        name: "press-7".to_owned(),
        site: SiteName::default(),
        address: "192.0.2.7:7000".to_owned(),
        incarnation: 12,
    }
}

fn write_fixture(path: &Path) {
    let store = Store::open(path).unwrap();
    store.put_meta("colour", b"green".to_vec()).wait().unwrap();
    assert_eq!(store.raise_counter("boot").wait().unwrap(), 1);
    store.update_members(vec![member()], Vec::new()).wait().unwrap();
    store.put_log_fact(GROUP, LogFact::Vote, b"vote".to_vec()).wait().unwrap();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    let entries = (5..8_u8).map(|index| (u64::from(index), Bytes::from(vec![index; 3]))).collect();
    store.append_log(GROUP, entries, move |result| sender.send(result).unwrap());
    receiver.recv().unwrap().unwrap();
    let written = store.apply(GROUP, |state| {
        state.put(&WORDS, &(1, "a\0b".to_owned()), &Word { text: "x".to_owned(), count: 9 })?;
        state.put_applied(b"up to here")
    });
    written.wait().unwrap();
    store.put_blob(Bytes::from_static(b"blob")).wait().unwrap();
    store.close();
}

#[test]
fn a_file_of_schema_1_is_readable() {
    let source = fixture(1);
    if std::env::var_os("FLEET_WRITE_FIXTURE").is_some() {
        write_fixture(&source);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.redb");
    std::fs::copy(&source, &path).unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.meta("colour").unwrap(), Some(b"green".to_vec()));
    assert_eq!(store.raise_counter("boot").wait().unwrap(), 2);
    assert_eq!(store.members().unwrap(), [member()]);
    assert_eq!(store.log_fact(GROUP, LogFact::Vote).unwrap(), Some(b"vote".to_vec()));
    assert_eq!(store.read_log(GROUP, 5..100, usize::MAX).unwrap(), [[5; 3], [6; 3], [7; 3]].map(|row| row.to_vec()));
    let state = store.reader(GROUP).unwrap();
    let word = state.get(&WORDS, &(1, "a\0b".to_owned())).unwrap();
    assert_eq!(word, Some(Word { text: "x".to_owned(), count: 9 }));
    assert_eq!(state.applied().unwrap(), Some(b"up to here".to_vec()));
    assert_eq!(store.blob(Digest::of(b"blob")).unwrap(), Some(b"blob".to_vec()));
}
