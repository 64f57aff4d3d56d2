//! A store whose process ends without warning: what was acknowledged as synced is there again, and the state is a prefix
//! of what was applied.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use fleet_core::GroupId;
use fleet_store::{Record, StateRead, StateTable, Store};
use serde::{Deserialize, Serialize};

const GROUP: GroupId = GroupId::from_bytes([3; 16]);
const STEPS: StateTable<u64, Step> = StateTable::new(250, "steps");
/// Names the file for the process that is to be killed.
const VICTIM: &str = "FLEET_CRASH_STORE";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Step(u64);

impl Record for Step {
    const NAME: &'static str = "step";
}

/// Appends entry `index` and waits until it is synced; its effect on the state is only queued.
fn work(store: &Store, index: u64) {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    store.append_log(GROUP, vec![(index, Bytes::from(index.to_be_bytes().to_vec()))], move |result| {
        sender.send(result).unwrap();
    });
    let applied = store.apply(GROUP, move |state| {
        state.put(&STEPS, &index, &Step(index))?;
        state.put_applied(&index.to_be_bytes())
    });
    receiver.recv().unwrap().unwrap();
    applied.wait().unwrap();
}

/// The state must be exactly the steps up to what it says is applied, and the log must reach `acknowledged`.
fn check(path: &Path, acknowledged: u64) {
    let store = Store::open(path).unwrap();
    let log = store.read_log(GROUP, 0..u64::MAX, usize::MAX).unwrap();
    assert!(log.len() as u64 > acknowledged, "the log has {} entries, {acknowledged} was acknowledged", log.len());
    let state = store.reader(GROUP).unwrap();
    let steps = state.scan(&STEPS, &(), None, usize::MAX).unwrap();
    let applied = state.applied().unwrap().map(|bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    assert_eq!(steps.len() as u64, applied.map_or(0, |index| index + 1), "the state is no prefix");
    assert!(steps.iter().zip(0..).all(|((key, step), index)| *key == index && *step == Step(index)));
    // And it goes on.
    work(&store, log.len() as u64);
}

/// The process that is killed: runs only when the test below starts it.
#[test]
fn victim() {
    let Some(path) = std::env::var_os(VICTIM) else { return };
    let store = Store::open(Path::new(&path)).unwrap();
    for index in 0.. {
        work(&store, index);
        println!("acknowledged {index}");
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.redb");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let number = line.split("acknowledged ").nth(1).and_then(|text| text.parse().ok());
        acknowledged = number.or(acknowledged);
        if acknowledged == Some(200_u64) {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    check(&path, acknowledged.unwrap());
}

#[test]
fn a_store_that_another_process_holds_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fleet.redb");
    let store = Store::open(&path).unwrap();
    assert_eq!(Store::open(&path).unwrap_err().to_string(), "open the store: another process holds it");
    drop(store);
    Store::open(&path).unwrap();
}
