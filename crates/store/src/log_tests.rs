use std::sync::mpsc::sync_channel;

use super::*;

const GROUP: GroupId = GroupId::from_bytes([1; 16]);

fn append(store: &Store, range: Range<u64>, byte: u8, length: usize) {
    let (sender, receiver) = sync_channel(1);
    let entries = range.map(|index| (index, Bytes::from(vec![byte; length]))).collect();
    store.append_log(GROUP, entries, move |result| sender.send(result).unwrap());
    receiver.recv().unwrap().unwrap();
}

fn first_bytes(store: &Store, range: Range<u64>) -> Vec<u8> {
    store.read_log(GROUP, range, usize::MAX).unwrap().iter().map(|entry| entry[0]).collect()
}

#[test]
fn entries_are_readable_before_they_are_synced() {
    let store = Store::in_memory().unwrap();
    let (sender, receiver) = sync_channel(1);
    store.append_log(GROUP, vec![(0, Bytes::from_static(b"x"))], move |result| sender.send(result).unwrap());
    assert_eq!(first_bytes(&store, 0..9), b"x");
    receiver.recv().unwrap().unwrap();
}

#[test]
fn a_truncated_suffix_is_gone_from_cache_and_file() {
    let store = Store::in_memory().unwrap();
    append(&store, 0..10, 1, 1);
    store.truncate_log(GROUP, 6).wait().unwrap();
    append(&store, 6..8, 2, 1);
    assert_eq!(first_bytes(&store, 0..99), [1, 1, 1, 1, 1, 1, 2, 2]);
    assert_eq!(store.log_extent(GROUP).unwrap().last.unwrap().0, 7);
}

#[test]
fn what_the_cache_let_go_of_is_read_from_the_file() {
    let store = Store::in_memory().unwrap();
    let large = CACHE_BYTES_MAX / 8;
    for index in 0..20 {
        append(&store, index..index + 1, u8::try_from(index).unwrap(), large);
    }
    assert!(store.log_cache().lock().bytes <= CACHE_BYTES_MAX);
    assert_eq!(first_bytes(&store, 0..20), (0..20).collect::<Vec<u8>>());
    assert_eq!(store.read_log(GROUP, 3..20, large * 2).unwrap().len(), 2, "bounded by bytes");
    assert_eq!(store.read_log(GROUP, 3..20, 1).unwrap().len(), 1, "but never empty");
}

#[test]
fn a_long_purge_leaves_only_what_is_behind_it() {
    let store = Store::in_memory().unwrap();
    append(&store, 0..5_000, 1, 1);
    store.purge_log(GROUP, 3_999, b"purged".to_vec()).wait().unwrap();
    assert_eq!(store.log_fact(GROUP, LogFact::Purged).unwrap(), Some(b"purged".to_vec()));
    // The rows go step by step, each behind the one before: what is queued after them sees the end.
    for _ in 0..8 {
        store.put_meta("turn", Vec::new()).wait().unwrap();
    }
    let extent = store.log_extent(GROUP).unwrap();
    assert_eq!((extent.first, extent.sizes.len()), (4_000, 1_000));
}
