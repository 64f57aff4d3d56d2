//! What a letter says: read from the state, bounded in items and bytes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::limits::{LETTER_BYTES_MAX, LETTER_ITEMS_MAX};
use fleet_core::{Digest, GroupId, JobId};
use fleet_replication::command::{Arriving, Moving};
use fleet_replication::outgoing;
use fleet_store::record::{Content, Ending, PeerSite, Serial};
use fleet_store::state::{jobs, moves};
use fleet_store::{Error, StateRead};

use super::walk::Walk;
use super::wire::{Letter, MovedJob, Reply};

/// Bytes of a letter that reports may take, so that neither direction starves the other.
const REPORT_BYTES_MAX: usize = LETTER_BYTES_MAX / 2;

/// A letter, and the blobs that it names with their lengths: only those are sent when they are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Composed {
    pub(super) letter: Letter,
    pub(super) blobs: BTreeMap<Digest, u64>,
    /// How far it has come through what waits.
    pub walk: Walk,
    /// Whether there may be more behind.
    pub has_more: bool,
}

impl Composed {
    fn name_blob(&mut self, content: &Content) {
        if let Content::Blob { digest, length } = content {
            self.blobs.insert(*digest, *length);
        }
    }
}

/// What `own` has to say to `peer` now of what waits behind `walk`.
pub(super) fn compose(state: &impl StateRead, own: &PeerSite, peer: GroupId, walk: Walk) -> Result<Composed, Error> {
    let cancels = moves::cancels(state, peer, walk.cancels, LETTER_ITEMS_MAX)?;
    let has_more = cancels.len() == LETTER_ITEMS_MAX;
    let walk = Walk { cancels: cancels.last().map(|(number, _)| *number).or(walk.cancels), ..walk };
    let letter = Letter {
        from: own.group,
        to: peer,
        watermark: moves::watermark(state, peer)?,
        definitions: Vec::new(),
        moves: Vec::new(),
        recalls: Vec::new(),
        cancels,
        reports: Vec::new(),
    };
    let mut composed = Composed { letter, blobs: BTreeMap::new(), walk, has_more };
    let mut room = LETTER_BYTES_MAX;
    add_reports(state, own.group, &mut composed, &mut room)?;
    add_moves(state, own, &mut composed, &mut room)?;
    Ok(composed)
}

fn add_reports(state: &impl StateRead, own: GroupId, composed: &mut Composed, room: &mut usize) -> Result<(), Error> {
    let peer = composed.letter.to;
    let floor = *room - REPORT_BYTES_MAX;
    let rows = moves::reports(state, peer, composed.walk.reports, LETTER_ITEMS_MAX)?;
    composed.has_more |= rows.len() == LETTER_ITEMS_MAX;
    for (serial, job) in rows {
        if let Some(report) = outgoing::report(state, own, peer, serial, job)? {
            let bytes = size(&report);
            if *room < floor + bytes && !composed.letter.reports.is_empty() {
                composed.has_more = true;
                break;
            }
            *room = room.saturating_sub(bytes);
            if let Some(Ending::Output(content) | Ending::Error(content)) = &report.ending {
                composed.name_blob(content);
            }
            composed.letter.reports.push(report);
        }
        composed.walk.reports = Some(serial);
    }
    Ok(())
}

fn add_moves(state: &impl StateRead, own: &PeerSite, composed: &mut Composed, room: &mut usize) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    let mut is_full = false;
    let rows = moves::outbox(state, composed.letter.to, composed.walk.moves, LETTER_ITEMS_MAX)?;
    composed.has_more |= rows.len() == LETTER_ITEMS_MAX;
    for (number, job) in rows {
        if moves::of_job(state, job)?.is_some_and(|moved| moved.wish.is_some()) {
            composed.letter.recalls.push(number);
        } else if !is_full {
            is_full = !add_move(state, own, (number, job), &mut known, composed, room)?;
            composed.has_more |= is_full;
        }
        if !is_full {
            composed.walk.moves = Some(number);
        }
    }
    Ok(())
}

/// Adds the job of one move, and its definition if that is not `known` in this letter; false if it does not fit.
fn add_move(
    state: &impl StateRead,
    own: &PeerSite,
    (number, job): (Serial, JobId),
    known: &mut BTreeSet<Digest>,
    composed: &mut Composed,
    room: &mut usize,
) -> Result<bool, Error> {
    let Some(arriving) = outgoing::arriving(state, own, number, job)? else { return Ok(true) };
    let Arriving { number, generation, created_at, mut submission, .. } = arriving;
    let definition = submission.definition.take();
    let digest = submission.spec.definition;
    let moved = MovedJob { number, generation, created_at, submission };
    let new_definition = definition.filter(|_| !known.contains(&digest));
    let bytes = size(&moved) + new_definition.as_ref().map_or(0, size);
    if *room < bytes && !composed.letter.moves.is_empty() {
        // What is taken back takes hardly any room, and is looked for further on.
        return Ok(false);
    }
    *room = room.saturating_sub(bytes);
    composed.name_blob(&moved.submission.input);
    if let Some(content) = new_definition {
        composed.name_blob(&content);
        composed.letter.definitions.push((digest, content));
        known.insert(digest);
    }
    composed.letter.moves.push(moved);
    Ok(true)
}

/// Bytes of `part` in a letter.
fn size(part: &impl serde::Serialize) -> usize {
    postcard::serialize_with_flavor(part, postcard::ser_flavors::Size::default()).unwrap_or(usize::MAX / 4)
}

/// What a letter asked, by number: nothing else is answered by its reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    moves: BTreeSet<Serial>,
    cancels: BTreeSet<Serial>,
    reports: BTreeSet<Serial>,
}

impl Asked {
    /// What `letter` asks.
    pub(super) fn by(letter: &Letter) -> Self {
        let moves = letter.moves.iter().map(|moved| moved.number).chain(letter.recalls.iter().copied());
        Self {
            moves: moves.collect(),
            cancels: letter.cancels.iter().map(|(number, _)| *number).collect(),
            reports: letter.reports.iter().map(|report| report.serial).collect(),
        }
    }

    /// What is to be committed here after the `reply` of `peer`: each answer once, and only to what was asked.
    pub(super) fn committed_by(mut self, reply: Reply, peer: GroupId) -> Vec<Moving> {
        let mut moving = Vec::new();
        for (number, verdict) in reply.verdicts {
            if self.moves.remove(&number) {
                moving.push(Moving::Settle { target: peer, number, verdict });
            }
        }
        let numbers: Vec<Serial> = reply.obeyed.into_iter().filter(|number| self.cancels.remove(number)).collect();
        if !numbers.is_empty() {
            moving.push(Moving::Obeyed { target: peer, numbers });
        }
        let reports: Vec<Serial> = reply.heard.into_iter().filter(|serial| self.reports.remove(serial)).collect();
        if !reports.is_empty() {
            moving.push(Moving::Acknowledge { source: peer, reports });
        }
        moving
    }
}

/// Whether the state has a definition, so that it need not be sent along.
pub(super) fn has_definition(state: &impl StateRead, digest: Digest) -> Result<bool, Error> {
    Ok(jobs::definition_uses(state, digest)? > 0)
}

#[cfg(test)]
mod tests {
    use fleet_core::{SiteName, Timestamp};
    use fleet_store::Store;
    use fleet_store::record::{Job, JobSpec, Move, MoveWish, Outgoing, Verdict, WorkflowName};
    use fleet_store::state::tables::{JOB_INPUTS, JOB_SPECS, JOBS, MOVES, OUTBOX};

    use super::*;

    fn site(number: u8, name: &str) -> PeerSite {
        PeerSite { group: GroupId::from_bytes([number; 16]), site: name.parse().unwrap() }
    }

    fn serial(number: u64) -> Serial {
        Serial { epoch: 1, number }
    }

    /// A store in which `jobs` are under way from site 1 to site 2, each with what is wished of it and bytes of input.
    fn store_with(jobs: Vec<(Option<MoveWish>, usize)>) -> Store {
        let (own, to) = (site(1, "here"), site(2, "there"));
        let store = Store::in_memory().unwrap();
        let fill = store.apply(own.group, move |state| {
            for (number, (wish, length)) in (1_u64..).zip(&jobs) {
                let job = JobId::from_bytes(u128::from(number).to_be_bytes());
                let spec = JobSpec {
                    workflow: WorkflowName { namespace: "n".into(), name: "w".into(), version: "1.0.0".into() },
                    definition: Digest::of(b"definition"),
                    interpreter: 1,
                    site: SiteName::default(),
                    tags: Vec::new(),
                    capabilities: Vec::new(),
                    lost_max: 5,
                    finish_within_ms: None,
                    retry_of: None,
                };
                let (to, since, wish) = (to.clone(), Timestamp(1), *wish);
                let group = to.group;
                state.put(
                    &MOVES,
                    &job,
                    &Move { to, number: serial(number), generation: 1, since, wish, mirror: None },
                )?;
                state.put(&OUTBOX, &(group, serial(number)), &Outgoing { job })?;
                state.put(&JOBS, &job, &Job::queued(number, 10, since))?;
                state.put(&JOB_SPECS, &job, &spec)?;
                state.put(&JOB_INPUTS, &job, &Content::inline(vec![b'1'; *length]))?;
            }
            Ok(())
        });
        fill.wait().unwrap();
        store
    }

    fn composed(store: &Store, walk: Walk) -> Composed {
        let (own, peer) = (site(1, "here"), site(2, "there"));
        compose(&store.reader(own.group).unwrap(), &own, peer.group, walk).unwrap()
    }

    fn moves_of(composed: &Composed) -> Vec<u64> {
        composed.letter.moves.iter().map(|moved| moved.number.number).collect()
    }

    #[test]
    fn a_recall_goes_although_the_moves_before_it_do_not_fit() {
        let half = LETTER_BYTES_MAX / 2;
        let store = store_with(vec![(None, half), (None, half), (Some(MoveWish::Recall), half), (None, half)]);
        let first = composed(&store, Walk::default());
        assert_eq!(moves_of(&first), [1], "they go in their order");
        assert_eq!(first.letter.recalls, [serial(3)]);
        assert_eq!((first.walk.moves, first.has_more), (Some(serial(1)), true));
        let second = composed(&store, first.walk);
        assert_eq!((moves_of(&second), second.has_more), (vec![2], true));
        let third = composed(&store, second.walk);
        assert_eq!((moves_of(&third), third.walk.moves, third.has_more), (vec![4], Some(serial(4)), false));
        assert_eq!(moves_of(&composed(&store, third.walk)), [0_u64; 0], "the walk has come to its end");
    }

    #[test]
    fn jobs_that_are_never_taken_keep_none_behind_them_from_being_asked() {
        let store = store_with(vec![(None, 1); 2 * LETTER_ITEMS_MAX + 3]);
        let (mut walk, mut asked) = (Walk::default(), Vec::new());
        loop {
            let next = composed(&store, walk);
            asked.extend(moves_of(&next));
            walk = next.walk;
            if !next.has_more {
                break;
            }
        }
        assert_eq!(
            asked,
            (1..=2 * LETTER_ITEMS_MAX as u64 + 3).collect::<Vec<_>>(),
            "each once, though none was answered"
        );
    }

    #[test]
    fn a_reply_counts_once_for_each_thing_that_was_asked_and_for_nothing_else() {
        let number = |number| Serial { epoch: 1, number };
        let (own, peer) = (GroupId::from_bytes([1; 16]), GroupId::from_bytes([2; 16]));
        let letter = Letter {
            from: own,
            to: peer,
            watermark: number(1),
            definitions: Vec::new(),
            moves: Vec::new(),
            recalls: vec![number(1)],
            cancels: vec![(number(2), JobId::from_bytes([3; 16]))],
            reports: Vec::new(),
        };
        let verdict = Verdict::Recalled;
        let reply = Reply {
            verdicts: [1, 1, 2].map(|at| (number(at), verdict.clone())).to_vec(),
            obeyed: [2, 2, 1].map(number).to_vec(),
            heard: vec![number(1)],
            needs: Vec::new(),
        };
        let moving = Asked::by(&letter).committed_by(reply, peer);
        let settle = Moving::Settle { target: peer, number: number(1), verdict };
        assert_eq!(moving, [settle, Moving::Obeyed { target: peer, numbers: vec![number(2)] }]);
    }
}
