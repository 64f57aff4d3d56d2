//! What a letter says: read from the state, bounded in items and bytes. Pure.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::limits::{LETTER_BYTES_MAX, LETTER_ITEMS_MAX};
use fleet_core::{Digest, GroupId};
use fleet_replication::command::{Arriving, Moving};
use fleet_replication::outgoing;
use fleet_store::record::{Content, Ending, PeerSite, Serial};
use fleet_store::state::{jobs, moves};
use fleet_store::{Error, StateRead};

use super::wire::{Letter, MovedJob, Reply};

/// Bytes of a letter that reports may take, so that neither direction starves the other.
const REPORT_BYTES_MAX: usize = LETTER_BYTES_MAX / 2;

/// A letter, and the blobs that it names with their lengths: only those are sent when they are asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Composed {
    pub(super) letter: Letter,
    pub(super) blobs: BTreeMap<Digest, u64>,
}

impl Composed {
    fn name_blob(&mut self, content: &Content) {
        if let Content::Blob { digest, length } = content {
            self.blobs.insert(*digest, *length);
        }
    }
}

/// What `own` has to say to `peer` now.
pub(super) fn compose(state: &impl StateRead, own: &PeerSite, peer: GroupId) -> Result<Composed, Error> {
    let watermark = moves::watermark(state, peer)?;
    let letter = Letter {
        from: own.group,
        to: peer,
        watermark,
        definitions: Vec::new(),
        moves: Vec::new(),
        recalls: Vec::new(),
        cancels: moves::cancels(state, peer, None, LETTER_ITEMS_MAX)?,
        reports: Vec::new(),
    };
    let mut composed = Composed { letter, blobs: BTreeMap::new() };
    let mut room = LETTER_BYTES_MAX;
    add_reports(state, own.group, &mut composed, &mut room)?;
    add_moves(state, own, &mut composed, &mut room)?;
    Ok(composed)
}

fn add_reports(state: &impl StateRead, own: GroupId, composed: &mut Composed, room: &mut usize) -> Result<(), Error> {
    let peer = composed.letter.to;
    let floor = *room - REPORT_BYTES_MAX;
    for (serial, job) in moves::reports(state, peer, LETTER_ITEMS_MAX)? {
        let Some(report) = outgoing::report(state, own, peer, serial, job)? else { continue };
        let bytes = size(&report);
        if *room < floor + bytes && !composed.letter.reports.is_empty() {
            break;
        }
        *room = room.saturating_sub(bytes);
        if let Some(Ending::Output(content) | Ending::Error(content)) = &report.ending {
            composed.name_blob(content);
        }
        composed.letter.reports.push(report);
    }
    Ok(())
}

fn add_moves(state: &impl StateRead, own: &PeerSite, composed: &mut Composed, room: &mut usize) -> Result<(), Error> {
    let mut known = BTreeSet::new();
    for (number, job) in moves::outbox(state, composed.letter.to, None, LETTER_ITEMS_MAX)? {
        if moves::of_job(state, job)?.is_some_and(|moved| moved.wish.is_some()) {
            composed.letter.recalls.push(number);
            continue;
        }
        let Some(arriving) = outgoing::arriving(state, own, number, job)? else { continue };
        let Arriving { number, generation, created_at, mut submission, .. } = arriving;
        let definition = submission.definition.take();
        let digest = submission.spec.definition;
        let moved = MovedJob { number, generation, created_at, submission };
        let new_definition = definition.filter(|_| !known.contains(&digest));
        let bytes = size(&moved) + new_definition.as_ref().map_or(0, size);
        if *room < bytes && !composed.letter.moves.is_empty() {
            break;
        }
        *room = room.saturating_sub(bytes);
        composed.name_blob(&moved.submission.input);
        if let Some(content) = new_definition {
            composed.name_blob(&content);
            composed.letter.definitions.push((digest, content));
            known.insert(digest);
        }
        composed.letter.moves.push(moved);
    }
    Ok(())
}

/// Bytes of `part` in a letter.
fn size(part: &impl serde::Serialize) -> usize {
    postcard::serialize_with_flavor(part, postcard::ser_flavors::Size::default()).unwrap_or(usize::MAX / 4)
}

/// What is to be committed here after the reply of `peer`.
pub(super) fn committed_by(reply: &Reply, peer: GroupId) -> Vec<Moving> {
    let settle = |(number, verdict): &(Serial, _)| Moving::Settle {
        target: peer,
        number: *number,
        verdict: Clone::clone(verdict),
    };
    let mut moving: Vec<Moving> = reply.verdicts.iter().map(settle).collect();
    if !reply.obeyed.is_empty() {
        moving.push(Moving::Obeyed { target: peer, numbers: reply.obeyed.clone() });
    }
    if !reply.heard.is_empty() {
        moving.push(Moving::Acknowledge { source: peer, reports: reply.heard.clone() });
    }
    moving
}

/// Whether the state has a definition, so that it need not be sent along.
pub(super) fn has_definition(state: &impl StateRead, digest: Digest) -> Result<bool, Error> {
    Ok(jobs::definition_uses(state, digest)? > 0)
}
