//! How two copies come to agree: the one that asks compares sums, then goes through the parts that differ, taking what it
//! lacks and giving what the other lacks. Pure: whoever drives it sends what it says and merges what comes.
//!
//! Nothing is remembered between two runs and nothing needs to be: what was merged is there, so a run that broke off is
//! taken up by the next one where it ended, to the row.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fleet_core::{Error, ErrorKind};
use fleet_store::record::{CatalogEntry, CatalogKey, Payload};

use super::message::{Answer, Exchange, Request, pack, pack_sums, unpack, unpack_sums};
use super::replica::{Exact, Head, Merge, Replica};
use super::row::{FILES_BYTES_MAX, Row};
use super::sums::{BITS_MAX, bits_for, part_of, short};

/// Most entries named in one question.
const BRIEFS_MAX: usize = 256;
/// Most parts in one question.
const PARTS_MAX: usize = 256;
/// Most hashes that one answer asks for.
const WANTED_MAX: usize = 1_024;
/// Most bytes of rows in one answer, whatever the asker offers room for.
const ROOM_BYTES_MAX: usize = 512 * 1024;

/// Reads entries whole.
pub(super) type Load<'a> = &'a dyn Fn(&CatalogKey) -> Result<Option<CatalogEntry>, Error>;

/// The first question: whether there is anything to do.
pub(super) fn compare(replica: &Replica) -> Request {
    Request::Compare {
        root: replica.sums().root(),
        bits: bits_for(replica.len()),
        seen: replica.seen().clone(),
        outlived: replica.outlived(),
    }
}

/// The answer to it, and whether the copies are the same.
pub(super) fn answer_compare(replica: &Replica, root: u128, bits: u8) -> (Answer, bool) {
    if replica.sums().root() == root {
        return (Answer::Same { seen: replica.seen().clone(), outlived: replica.outlived() }, true);
    }
    let bits = bits.max(bits_for(replica.len())).min(BITS_MAX);
    (Answer::Differ { bits, sums: pack_sums(&replica.sums().of_parts(bits)) }, false)
}

/// What still goes into a message of rows; the first of them always does.
#[derive(Debug)]
struct Room {
    bytes: usize,
    file_bytes: usize,
    is_empty: bool,
}

impl Room {
    fn new(bytes: usize) -> Self {
        Self { bytes, file_bytes: FILES_BYTES_MAX, is_empty: true }
    }

    /// Whether the entry with `head` goes in; then it has.
    fn takes(&mut self, head: &Head) -> bool {
        if !self.is_empty && (head.bytes > self.bytes || head.file_bytes() > self.file_bytes) {
            return false;
        }
        self.bytes = self.bytes.saturating_sub(head.bytes);
        self.file_bytes = self.file_bytes.saturating_sub(head.file_bytes());
        self.is_empty = false;
        true
    }
}

/// A run of who asks.
#[derive(Debug)]
pub(super) struct Run {
    bits: u8,
    room_bytes: usize,
    /// Parts still to be gone through.
    parts: VecDeque<u16>,
    /// Parts of the question under way.
    asked: usize,
    /// Keys whose entries the other one shall have.
    give: VecDeque<u64>,
    given: BTreeSet<u64>,
    /// What the other one may drop.
    gone: Vec<Exact>,
    /// Rows of the other one that are not taken here: named as if they were, so that they do not come again.
    passed: BTreeMap<u16, BTreeSet<Exact>>,
}

/// Rows that are not taken here yet: there is no use in sending them.
pub(super) type Waiting = BTreeSet<Exact>;

impl Run {
    /// The run that follows [`Answer::Differ`]; rows come and go in pieces of about `room_bytes`, those that are `waiting`
    /// left out.
    ///
    /// # Errors
    /// `InvalidInput` if the sums are not those that were asked for.
    pub(super) fn begin(
        replica: &Replica,
        bits: u8,
        sums: &Payload,
        room_bytes: usize,
        waiting: &Waiting,
    ) -> Result<Self, Error> {
        let (theirs, ours) = (unpack_sums(sums), replica.sums().of_parts(bits));
        if theirs.len() != ours.len() {
            return Err(Error::new(ErrorKind::InvalidInput, "compare catalogs: the answer has other parts"));
        }
        let differ = |(part, (ours, theirs)): (u16, (&u64, &u64))| (ours != theirs).then_some(part);
        let parts = (0_u16..).zip(ours.iter().zip(&theirs)).filter_map(differ).collect();
        let mut run = Self {
            bits,
            room_bytes,
            parts,
            asked: 0,
            give: VecDeque::new(),
            given: BTreeSet::new(),
            gone: Vec::new(),
            passed: BTreeMap::new(),
        };
        waiting.iter().for_each(|exact| run.pass(*exact));
        Ok(run)
    }

    /// Names `exact` from now on as if it were here.
    fn pass(&mut self, exact: Exact) {
        let part = u16::try_from(part_of(exact.0, self.bits)).unwrap_or_default();
        self.passed.entry(part).or_default().insert(exact);
    }

    /// The next question; `None` at the end.
    ///
    /// # Errors
    /// If an entry cannot be read.
    pub(super) fn ask(&mut self, replica: &Replica, load: Load<'_>) -> Result<Option<Request>, Error> {
        let mut keys = Vec::new();
        let mut room = Room::new(self.room_bytes);
        while let Some(hash) = self.give.front().copied() {
            if let Some((key, head)) = replica.key_of(hash).and_then(|key| Some((key, replica.head(key)?))) {
                if !room.takes(head) {
                    break;
                }
                keys.push(key.clone());
            }
            self.give.pop_front();
        }
        let rows = read(&keys, load)?;
        let mut parts: Vec<(u16, Payload)> = Vec::new();
        let mut briefs = 0;
        for part in self.parts.iter().take(PARTS_MAX) {
            let names = self.names(replica, *part);
            if briefs + names.len() > BRIEFS_MAX && !parts.is_empty() {
                break;
            }
            briefs += names.len();
            parts.push((*part, pack(names.into_iter())));
        }
        self.asked = parts.len();
        let gone = pack(std::mem::take(&mut self.gone).into_iter());
        if parts.is_empty() && rows.is_empty() && gone.as_slice().is_empty() {
            return Ok(None);
        }
        let room_bytes = u32::try_from(self.room_bytes).unwrap_or(u32::MAX);
        Ok(Some(Request::Exchange(Exchange { bits: self.bits, parts, rows, gone, room_bytes })))
    }

    fn names(&self, replica: &Replica, part: u16) -> Vec<Exact> {
        let own = replica.part(part, self.bits).map(|(hash, _, head)| (hash, short(head.digest)));
        own.chain(self.passed.get(&part).into_iter().flatten().copied()).collect()
    }

    /// Notes what the answer said beside its rows.
    ///
    /// # Errors
    /// `InvalidInput` if the other one neither gave a row nor finished a part: that would never end.
    pub(super) fn heard(&mut self, rows: usize, done: u16, wanted: Vec<u64>) -> Result<(), Error> {
        let done = usize::from(done).min(self.asked);
        if self.asked > 0 && done == 0 && rows == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "exchange rows of the catalog: the answer is empty"));
        }
        for part in self.parts.drain(..done) {
            self.passed.remove(&part);
        }
        for hash in wanted {
            self.give(hash);
        }
        Ok(())
    }

    /// Notes what became of the rows of an answer.
    pub(super) fn merged(&mut self, merge: &Merge) {
        for exact in &merge.not_taken {
            self.pass(*exact);
        }
        self.gone.extend(&merge.gone);
        for hash in &merge.later_here {
            self.give(*hash);
        }
    }

    /// Each key once a run: what the other one does not take now it would not take again.
    fn give(&mut self, hash: u64) {
        if self.given.insert(hash) {
            self.give.push_back(hash);
        }
    }
}

/// The answer to `asked`, whose rows are merged already; `gone` names those of them that were outlived. What is `waiting` is
/// not asked for.
///
/// # Errors
/// If an entry cannot be read.
pub(super) fn answer_exchange(
    replica: &Replica,
    asked: &Exchange,
    gone: &[Exact],
    waiting: &Waiting,
    load: Load<'_>,
) -> Result<Answer, Error> {
    let mut room = Room::new(usize::try_from(asked.room_bytes).unwrap_or(usize::MAX).min(ROOM_BYTES_MAX));
    let bits = asked.bits.min(BITS_MAX);
    let is_gone: BTreeSet<Exact> = gone.iter().copied().collect();
    let (mut keys, mut wanted, mut done) = (Vec::new(), Vec::new(), 0_u16);
    'parts: for (part, names) in asked.parts.iter().take(PARTS_MAX) {
        let theirs: BTreeSet<Exact> = unpack(names).collect();
        for (hash, key, head) in replica.part(*part, bits) {
            if theirs.contains(&(hash, short(head.digest))) {
                continue;
            }
            if !room.takes(head) {
                break 'parts;
            }
            keys.push(key.clone());
        }
        let is_lacking = |exact: &&Exact| {
            replica.key_of(exact.0).is_none() && !is_gone.contains(*exact) && !waiting.contains(*exact)
        };
        let lacking = theirs.iter().filter(is_lacking);
        wanted.extend(lacking.map(|exact| exact.0));
        done += 1;
        if wanted.len() >= WANTED_MAX {
            break;
        }
    }
    Ok(Answer::Rows { rows: read(&keys, load)?, done, wanted, gone: pack(gone.iter().copied()) })
}

/// The rows under `keys`, those that went meanwhile left out.
fn read(keys: &[CatalogKey], load: Load<'_>) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::with_capacity(keys.len());
    for key in keys {
        if let Some(entry) = load(key)? {
            rows.push((key.clone(), entry));
        }
    }
    Ok(rows)
}
