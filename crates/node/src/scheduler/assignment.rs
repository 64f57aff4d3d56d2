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

/// Bytes of journal in one message.
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
        let mut journal = read_journal(&reader, pair.job, job.journal_length)?;
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
        let rest = self.split_off_rest(&mut journal).await?;
        let assignment = Assignment {
            term,
            session,
            pair,
            definition: digest,
            definition_text,
            input,
            interpreter: spec.interpreter,
            journal: rest.first,
            journal_len: job.journal_length,
        };
        let mut messages = vec![WorkDown::Assign(Box::new(assignment))];
        messages.extend(rest.more.into_iter().map(|(first, records)| WorkDown::Journal {
            session,
            pair,
            first,
            records,
        }));
        Ok(messages)
    }

    /// The journal's bytes in pieces that fit a message.
    async fn split_off_rest(&self, journal: &mut Vec<Content>) -> Result<Pieces, Error> {
        let mut pieces = Pieces { first: Vec::new(), more: Vec::new() };
        let (mut piece, mut bytes, mut position) = (Vec::new(), 0, 0_u32);
        let mut first_of_piece = 0;
        for content in journal.drain(..) {
            let payload = self.bytes(content).await?;
            if bytes > 0 && bytes + payload.as_slice().len() > JOURNAL_MESSAGE_BYTES {
                pieces.push(first_of_piece, std::mem::take(&mut piece));
                (bytes, first_of_piece) = (0, position);
            }
            bytes += payload.as_slice().len();
            piece.push(payload);
            position += 1;
        }
        pieces.push(first_of_piece, piece);
        Ok(pieces)
    }

    async fn bytes(&self, content: Content) -> Result<Payload, Error> {
        match content {
            Content::Inline(payload) => Ok(payload),
            blob => self.group.read_content(blob).await,
        }
    }
}

/// A journal in pieces.
struct Pieces {
    first: Vec<Payload>,
    more: Vec<(u32, Vec<Payload>)>,
}

impl Pieces {
    fn push(&mut self, position: u32, records: Vec<Payload>) {
        if position == 0 {
            self.first = records;
        } else {
            self.more.push((position, records));
        }
    }
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
