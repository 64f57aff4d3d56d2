//! What a robot writes down by itself of jobs that run on while it is cut off from its group (`onDisconnect: finish`):
//! the records that the group has not committed, by job and fence, outside every group's state.
//!
//! They are synced before the next effect of their job begins, delivered when the group can be reached again, and
//! forgotten once it has them. What the group refuses is kept as evidence, bounded in journals and bytes.

use fleet_core::limits::JOURNAL_BYTES_MAX;
use fleet_core::{Fence, JobId, Timestamp};
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Record};
use crate::database::{self, ByteRows, OWN_JOURNAL};
use crate::key::StateKey;
use crate::pending::Pending;
use crate::record::JournalRecord;
use crate::transaction::end_of_prefix;
use crate::writer::Urgency;
use crate::{Error, Store};

/// Most refused journals that are kept; the oldest give way.
pub const REFUSED_JOURNALS_MAX: usize = 64;
/// Most bytes of refused journals together, as many as one journal may have: nobody admits them by the free space on the
/// disk. The oldest give way, the one that was refused last never does.
pub const REFUSED_JOURNALS_BYTES_MAX: u64 = JOURNAL_BYTES_MAX;

/// Bytes of a key before the position of a record: job, epoch, index and position of the fence.
const HEAD_BYTES: usize = 16 + 8 + 8 + 4;

/// The head of one robot's own journal of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnJournal {
    /// The job.
    pub job: JobId,
    /// The right under which it was written.
    pub fence: Fence,
    /// How long the robot might run on, milliseconds.
    pub finish_within_ms: u64,
    /// When the group refused it, by this node's clock; `None` while it may still be delivered.
    pub refused_at: Option<Timestamp>,
}

/// What became of journals when the group refused one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// How many records the refused journal has; 0 if there is none.
    pub records: usize,
    /// How many journals that were refused earlier gave way.
    pub dropped: usize,
}

impl Record for OwnJournal {
    const NAME: &'static str = "head of a robot's own journal";
}

impl Store {
    /// Writes down `records` of `journal`, the first at position `from`. Done when they are on the disk.
    pub fn write_own_journal(&self, journal: OwnJournal, from: u32, records: Vec<JournalRecord>) -> Pending<()> {
        let bytes = records.iter().map(|record| usize::try_from(record.event.length()).unwrap_or(usize::MAX)).sum();
        self.submit("write a robot's own journal", Urgency::Synced, bytes, move |tables| {
            let mut rows = tables.other(OWN_JOURNAL)?;
            let head = head_key(journal.job, journal.fence);
            insert(&mut rows, &head, &codec::encode(&journal)?)?;
            for (position, record) in (from..).zip(&records) {
                insert(&mut rows, &record_key(&head, position), &codec::encode(record)?)?;
            }
            Ok(())
        })
    }

    /// Every journal that robots of this node wrote down by themselves, in the order of jobs.
    pub fn own_journals(&self) -> Result<Vec<OwnJournal>, Error> {
        heads(&database::read_table(&*self.database("read a robot's own journals")?, OWN_JOURNAL)?)
    }

    /// At most `limit` records of the journal of `job` under `fence` from position `from` on, with their positions.
    pub fn own_records(
        &self,
        job: JobId,
        fence: Fence,
        from: u32,
        limit: usize,
    ) -> Result<Vec<(u32, JournalRecord)>, Error> {
        let rows = database::read_table(&*self.database("read a robot's own journal")?, OWN_JOURNAL)?;
        let head = head_key(job, fence);
        let (start, end) = (record_key(&head, from), end_of_prefix(&head).unwrap_or_default());
        let range = rows.range::<&[u8]>(start.as_slice()..end.as_slice()).map_err(failed)?;
        let mut found = Vec::new();
        for row in range.take(limit) {
            let (key, value) = row.map_err(failed)?;
            let mut position = key.value().get(HEAD_BYTES..).unwrap_or_default();
            let position = u32::decode_from(&mut position)
                .ok_or_else(|| Error::corrupt("robot's own journal", "a key is malformed"))?;
            found.push((position, codec::decode(value.value())?));
        }
        Ok(found)
    }

    /// Forgets the journal of `job` under `fence`: the group has it, or nobody wants it.
    pub fn forget_own_journal(&self, job: JobId, fence: Fence) -> Pending<()> {
        self.submit("forget a robot's own journal", Urgency::Readable, 0, move |tables| {
            remove(&mut tables.other(OWN_JOURNAL)?, job, fence)
        })
    }

    /// Marks the journal of `job` under `fence` as refused by the group at `at`, and keeps it as evidence.
    pub fn refuse_own_journal(&self, job: JobId, fence: Fence, at: Timestamp) -> Pending<Evidence> {
        self.submit("mark a robot's own journal as refused", Urgency::Synced, 0, move |tables| {
            refuse(&mut tables.other(OWN_JOURNAL)?, &head_key(job, fence), at, REFUSED_JOURNALS_BYTES_MAX)
        })
    }
}

/// As [`Store::refuse_own_journal`], with at most `bytes_max` of refused journals.
fn refuse(rows: &mut ByteRows<'_>, head: &[u8], at: Timestamp, bytes_max: u64) -> Result<Evidence, Error> {
    let Some(journal) = read_head(rows, head)? else { return Ok(Evidence::default()) };
    let refused = OwnJournal { refused_at: Some(journal.refused_at.unwrap_or(at)), ..journal };
    insert(rows, head, &codec::encode(&refused)?)?;
    let mut kept: Vec<OwnJournal> = heads(rows)?;
    kept.retain(|kept| kept.refused_at.is_some() && (kept.job, kept.fence) != (refused.job, refused.fence));
    kept.sort_by_key(|kept| std::cmp::Reverse(kept.refused_at));
    let (records, mut bytes) = size(rows, head)?;
    let (mut others, mut dropped) = (0, 0);
    // From the latest back, so that what is to go is not read.
    for older in kept {
        let is_room_left = dropped == 0 && others + 1 < REFUSED_JOURNALS_MAX && {
            bytes += size(rows, &head_key(older.job, older.fence))?.1;
            bytes <= bytes_max
        };
        if is_room_left {
            others += 1;
        } else {
            remove(rows, older.job, older.fence)?;
            dropped += 1;
        }
    }
    Ok(Evidence { records, dropped })
}

/// How many records the journal under `head` has, and how many bytes they take.
fn size(rows: &impl ReadableTable<&'static [u8], &'static [u8]>, head: &[u8]) -> Result<(usize, u64), Error> {
    let (start, end) = (record_key(head, 0), end_of_prefix(head).unwrap_or_default());
    let (mut records, mut bytes) = (0, 0);
    for row in rows.range::<&[u8]>(start.as_slice()..end.as_slice()).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        records += 1;
        bytes += (key.value().len() + value.value().len()) as u64;
    }
    Ok((records, bytes))
}

fn failed(error: redb::StorageError) -> Error {
    Error::database("use a robot's own journal", error)
}

fn head_key(job: JobId, fence: Fence) -> Vec<u8> {
    let mut key = Vec::with_capacity(HEAD_BYTES + 4);
    job.encode_into(&mut key);
    fence.epoch.encode_into(&mut key);
    fence.index.encode_into(&mut key);
    fence.position.encode_into(&mut key);
    key
}

fn record_key(head: &[u8], position: u32) -> Vec<u8> {
    let mut key = head.to_vec();
    position.encode_into(&mut key);
    key
}

fn insert(rows: &mut ByteRows<'_>, key: &[u8], value: &[u8]) -> Result<(), Error> {
    rows.insert(key, value).map_err(failed).map(drop)
}

fn remove(rows: &mut ByteRows<'_>, job: JobId, fence: Fence) -> Result<(), Error> {
    let start = head_key(job, fence);
    let end = end_of_prefix(&start).unwrap_or_default();
    rows.retain_in::<&[u8], _>(start.as_slice()..end.as_slice(), |_, _| false).map_err(failed)
}

fn read_head(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    head: &[u8],
) -> Result<Option<OwnJournal>, Error> {
    rows.get(head).map_err(failed)?.map(|value| codec::decode(value.value())).transpose()
}

/// Every head: the row right after one is found by leaving its records out, so that long journals cost nothing.
fn heads(rows: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<Vec<OwnJournal>, Error> {
    let mut found = Vec::new();
    let mut from = Vec::new();
    loop {
        let Some(row) = rows.range::<&[u8]>(from.as_slice()..).map_err(failed)?.next() else { return Ok(found) };
        let (key, value) = row.map_err(failed)?;
        let Some(head) = key.value().get(..HEAD_BYTES).filter(|head| head.len() == key.value().len()) else {
            return Err(Error::corrupt("robot's own journal", "records without a head"));
        };
        found.push(codec::decode(value.value())?);
        let Some(next) = end_of_prefix(head) else { return Ok(found) };
        from = next;
    }
}

#[cfg(test)]
mod tests {
    use fleet_workflow::machine::event::Event;

    use super::*;

    fn journal(job: u8, index: u64) -> OwnJournal {
        let fence = Fence::mint(1, index, 0);
        OwnJournal { job: JobId::from_bytes([job; 16]), fence, finish_within_ms: 60_000, refused_at: None }
    }

    fn record(at_ms: u64) -> JournalRecord {
        JournalRecord::of_event(None, &Event::Started { at_ms }).unwrap()
    }

    #[test]
    fn a_robots_own_journal_is_read_as_it_was_written_and_forgotten_by_job_and_fence() {
        let store = Store::in_memory().unwrap();
        let (first, second) = (journal(1, 5), journal(1, 6));
        store.write_own_journal(first, 3, vec![record(3), record(4)]).wait().unwrap();
        store.write_own_journal(second, 0, vec![record(0)]).wait().unwrap();
        store.write_own_journal(first, 5, vec![record(5)]).wait().unwrap();
        assert_eq!(store.own_journals().unwrap(), [first, second]);
        let read = |from, limit| store.own_records(first.job, first.fence, from, limit).unwrap();
        assert_eq!(read(0, 10), [(3, record(3)), (4, record(4)), (5, record(5))]);
        assert_eq!(read(4, 1), [(4, record(4))]);
        store.forget_own_journal(first.job, first.fence).wait().unwrap();
        assert_eq!(store.own_journals().unwrap(), [second]);
        assert_eq!(read(0, 10), []);
    }

    #[test]
    fn what_the_group_refused_is_kept_as_evidence_and_the_oldest_give_way() {
        let store = Store::in_memory().unwrap();
        assert_eq!(
            store.refuse_own_journal(journal(1, 1).job, journal(1, 1).fence, Timestamp(1)).wait().unwrap(),
            Evidence::default()
        );
        for index in 0..=REFUSED_JOURNALS_MAX as u64 {
            let journal = journal(1, index);
            store.write_own_journal(journal, 0, vec![record(0), record(1)]).wait().unwrap();
            let kept = store.refuse_own_journal(journal.job, journal.fence, Timestamp(index)).wait().unwrap();
            let dropped = usize::from(index == REFUSED_JOURNALS_MAX as u64);
            assert_eq!(kept, Evidence { records: 2, dropped });
        }
        let kept = store.own_journals().unwrap();
        assert_eq!(kept.len(), REFUSED_JOURNALS_MAX);
        assert_eq!((kept[0].fence.index, kept[0].refused_at), (1, Some(Timestamp(1))), "the oldest is gone");
    }

    #[test]
    fn refused_journals_take_a_bounded_room_and_the_oldest_give_way() {
        let store = Store::in_memory().unwrap();
        let all = [journal(3, 1), journal(1, 2), journal(2, 3)];
        for journal in all {
            store.write_own_journal(journal, 0, vec![record(0), record(1)]).wait().unwrap();
        }
        let refuse_within = |journal: OwnJournal, at, bytes_max| {
            let head = head_key(journal.job, journal.fence);
            let refusing = store.submit("test", Urgency::Synced, 0, move |tables| {
                refuse(&mut tables.other(OWN_JOURNAL)?, &head, Timestamp(at), bytes_max)
            });
            refusing.wait().unwrap()
        };
        let kept = || {
            let heads = store.own_journals().unwrap().into_iter().filter(|head| head.refused_at.is_some());
            heads.map(|head| head.fence.index).collect::<Vec<_>>()
        };
        let each = {
            let reader = database::read_table(&store.database("test").unwrap(), OWN_JOURNAL).unwrap();
            size(&reader, &head_key(all[0].job, all[0].fence)).unwrap().1
        };
        assert_eq!(refuse_within(all[0], 10, 0), Evidence { records: 2, dropped: 0 }, "the last one stays at any size");
        assert_eq!(refuse_within(all[1], 20, 2 * each), Evidence { records: 2, dropped: 0 });
        assert_eq!(refuse_within(all[2], 30, 2 * each), Evidence { records: 2, dropped: 1 });
        assert_eq!(kept(), [2, 3], "the oldest is gone, whatever its job");
        assert_eq!(refuse_within(all[2], 40, 2 * each), Evidence { records: 2, dropped: 0 }, "a repeat drops nothing");
    }

    #[test]
    fn a_head_of_version_1_is_read_as_it_was_meant() {
        let kept = [1, 16, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 2, 0xac, 2, 4, 0xe0, 0xd4, 3, 1, 5];
        let head = OwnJournal {
            job: JobId::from_bytes([7; 16]),
            fence: Fence::mint(2, 300, 4),
            finish_within_ms: 60_000,
            refused_at: Some(Timestamp(5)),
        };
        assert_eq!(codec::encode(&head).unwrap(), kept);
        assert_eq!(codec::decode::<OwnJournal>(&kept).unwrap(), head);
    }
}
