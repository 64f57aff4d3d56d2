//! Puts together what a robot needs to run a job: definition, input and journal, read from the applied state.

use std::collections::HashSet;
use std::sync::Arc;

use fleet_core::{Digest, Error, ErrorKind, JobId, SessionId};
use fleet_store::StateReader;
use fleet_store::record::{Content, Payload};
use fleet_store::state::jobs;

use crate::link::{Assignment, WorkDown};
use crate::ports::Group;
use crate::session::{LeaderTerm, Pair};

/// Bytes of journal in one message. Also what an assignment may have with its journal in it: a larger one is sent without,
/// because definition and input may fill most of a message.
const JOURNAL_MESSAGE_BYTES: usize = 1024 * 1024;
/// Records read from the store at a time.
const RECORDS_PER_READ: usize = 256;
/// Most definitions remembered as sent on one stream.
const SENT_MAX: usize = 256;

/// Loads assignments for one work stream.
pub(super) struct Loader {
    group: Arc<dyn Group>,
    /// Definitions that this stream carried already.
    sent: HashSet<Digest>,
}

impl Loader {
    pub(super) fn new(group: Arc<dyn Group>) -> Self {
        Self { group, sent: HashSet::new() }
    }

    /// The messages that bring `pair` to its robot; none if the assignment is over meanwhile.
    pub(super) async fn load(
        &mut self,
        term: LeaderTerm,
        session: SessionId,
        pair: Pair,
        with_text: bool,
    ) -> Result<Vec<WorkDown>, Error> {
        let reader = self.group.reader()?;
        let found = (jobs::job(&reader, pair.job).map_err(failed)?, jobs::spec(&reader, pair.job).map_err(failed)?);
        let (Some(job), Some(spec)) = found else { return Ok(Vec::new()) };
        if job.assignment.is_none_or(|assignment| assignment.fence != pair.fence) {
            return Ok(Vec::new());
        }
        let digest = spec.definition;
        let definition_text = match with_text || !self.sent.contains(&digest) {
            true => Some(jobs::definition(&reader, digest).map_err(failed)?.ok_or_else(|| missing(pair.job))?),
            false => None,
        };
        let input = jobs::input(&reader, pair.job).map_err(failed)?.ok_or_else(|| missing(pair.job))?;
        let journal = read_journal(&reader, pair.job, job.journal_length)?;
        drop(reader);
        let definition_text = match definition_text {
            Some(content) => Some(self.bytes(content).await?),
            None => None,
        };
        if self.sent.len() >= SENT_MAX {
            self.sent.clear();
        }
        self.sent.insert(digest);
        let input = self.bytes(input).await?;
        let text_bytes = definition_text.as_ref().map_or(0, |text| text.as_slice().len());
        let taken = text_bytes + input.as_slice().len();
        let pieces = pieces(self.journal_bytes(journal).await?, JOURNAL_MESSAGE_BYTES.saturating_sub(taken));
        let assignment = Assignment {
            term,
            session,
            pair,
            definition: digest,
            definition_text,
            input,
            interpreter: spec.interpreter,
            journal: pieces.first,
            journal_len: job.journal_length,
        };
        let assignment = Box::new(assignment);
        let mut messages = vec![match spec.finish_within_ms {
            None => WorkDown::Assign(assignment),
            Some(finish_within_ms) => WorkDown::AssignFinishing { assignment, finish_within_ms },
        }];
        messages.extend(pieces.more.into_iter().map(|(first, records)| WorkDown::Journal {
            session,
            pair,
            first,
            records,
        }));
        Ok(messages)
    }

    async fn journal_bytes(&self, journal: Vec<Content>) -> Result<Vec<Payload>, Error> {
        let mut records = Vec::with_capacity(journal.len());
        for content in journal {
            records.push(self.bytes(content).await?);
        }
        Ok(records)
    }

    async fn bytes(&self, content: Content) -> Result<Payload, Error> {
        match content {
            Content::Inline(payload) => Ok(payload),
            blob => self.group.read_content(blob).await,
        }
    }
}

/// A journal in pieces.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pieces {
    /// What goes with the assignment.
    first: Vec<Payload>,
    /// What follows it, each piece with the position of its first record.
    more: Vec<(u32, Vec<Payload>)>,
}

/// The records of a journal in pieces that each fit a message; the first has at most `room` bytes.
fn pieces(records: Vec<Payload>, room: usize) -> Pieces {
    let mut pieces = Pieces::default();
    let (mut bytes, mut position) = (0, 0_u32);
    for record in records {
        let length = record.as_slice().len();
        let is_with_assignment = pieces.more.is_empty() && bytes + length <= room;
        match pieces.more.last_mut() {
            _ if is_with_assignment => pieces.first.push(record),
            Some((_, piece)) if bytes + length <= JOURNAL_MESSAGE_BYTES => piece.push(record),
            _ => {
                bytes = 0;
                pieces.more.push((position, vec![record]));
            }
        }
        bytes += length;
        position += 1;
    }
    pieces
}

fn read_journal(reader: &StateReader, job: JobId, length: u32) -> Result<Vec<Content>, Error> {
    let mut journal = Vec::new();
    while journal.len() < length as usize {
        let from = u32::try_from(journal.len()).unwrap_or(u32::MAX);
        let records = jobs::journal(reader, job, from, RECORDS_PER_READ).map_err(failed)?;
        if records.is_empty() {
            return Err(missing(job));
        }
        journal.extend(records.into_iter().map(|record| record.event));
    }
    Ok(journal)
}

fn failed(error: fleet_store::Error) -> Error {
    Error::new(error.kind(), "read a job").with_source(error)
}

fn missing(job: JobId) -> Error {
    Error::new(ErrorKind::Internal, format!("read job {job}: a part of it is missing"))
}

#[cfg(test)]
mod tests {
    use fleet_core::limits::{DEFINITION_BYTES_MAX, EFFECT_RESULT_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX, INPUT_BYTES_MAX};

    use super::*;

    fn records(lengths: &[usize]) -> Vec<Payload> {
        lengths.iter().map(|length| Payload::from(vec![b'x'; *length])).collect()
    }

    #[test]
    fn every_record_is_in_one_piece_in_order_and_no_piece_is_too_large() {
        let kib = 1024;
        for (lengths, room, first, more) in [
            (vec![], 0, 0, vec![]),
            (vec![10, 10], 20, 2, vec![]),
            (vec![10, 10, 10], 20, 2, vec![(2, 1)]),
            (vec![10, 10], 0, 0, vec![(0, 2)]),
            (vec![600 * kib, 600 * kib, 10], JOURNAL_MESSAGE_BYTES, 1, vec![(1, 2)]),
            (vec![10, 1200 * kib, 10, 10], JOURNAL_MESSAGE_BYTES, 1, vec![(1, 1), (2, 2)]),
        ] {
            let pieces = pieces(records(&lengths), room);
            let counts: Vec<(u32, usize)> = pieces.more.iter().map(|(from, piece)| (*from, piece.len())).collect();
            assert_eq!((pieces.first.len(), counts), (first, more), "{lengths:?} into {room}");
        }
    }

    #[test]
    fn the_largest_assignment_fits_a_message() {
        let (definition, input) = (DEFINITION_BYTES_MAX, INPUT_BYTES_MAX);
        let room = JOURNAL_MESSAGE_BYTES.saturating_sub(definition + input);
        let pieces = pieces(records(&[EFFECT_RESULT_BYTES_MAX; 4]), room);
        let assignment: usize = pieces.first.iter().map(|record| record.as_slice().len()).sum();
        assert!(definition + input + assignment + 64 * 1024 <= GRPC_MESSAGE_BYTES_MAX);
        assert_eq!(pieces.more.len(), 4);
    }
}
