//! What the leader answers to couriers of other sites. Every answer says only what is committed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use fleet_core::limits::LETTER_ITEMS_MAX;
use fleet_core::{Digest, Error, ErrorKind, GroupId, SiteName};
use fleet_replication::command::{Arriving, Moving, Outcome, Refusal, Report, SITES_VERSION};
use fleet_store::StateReader;
use fleet_store::record::{Content, Ending, Payload, PeerSite, Serial, Verdict};
use fleet_store::state::{jobs, moves};

use super::incoming::{Incoming, Taken};
use super::letter::has_definition;
use super::wire::{Answer, Ask, Letter, MovedJob, Part, Reply, decode, encode};
use crate::placement::RobotView;
use crate::ports::{Group, SiteServer, Sites};
use crate::routing::{own_robots, why_never};

/// Most entries in which what a source has settled is forgotten for one letter.
const PASSES_MAX: usize = 64;
/// How long a site waits that asked one which cannot answer now.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Answers other sites' couriers. Cheap to clone.
#[derive(Clone)]
pub struct CourierServer {
    group: Arc<dyn Group>,
    sites: Arc<dyn Sites>,
    incoming: Arc<Mutex<Incoming>>,
}

impl fmt::Debug for CourierServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CourierServer").finish_non_exhaustive()
    }
}

impl SiteServer for CourierServer {
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        let server = self.clone();
        async move {
            let answer = match decode(&message)? {
                Ask::Letter(letter) => Answer::Letter(server.read(from, *letter).await?),
                Ask::Part(part) => Answer::Part { have: server.take(part).await? },
            };
            encode(&answer)
        }
        .boxed()
    }
}

impl CourierServer {
    /// Answers for `group`; `sites` says which other sites there are.
    pub fn new(group: Arc<dyn Group>, sites: Arc<dyn Sites>) -> Self {
        Self { group, sites, incoming: Arc::default() }
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, part: Part) -> Result<u64, Error> {
        let taken = self.incoming().take(&part);
        match taken {
            Taken::More(have) => Ok(have),
            Taken::Known => Ok(part.length),
            Taken::Whole(content) => {
                self.group.put_content(Payload::from(content)).await?;
                self.incoming().note_whole(part.digest);
                Ok(part.length)
            }
            Taken::Refused => {
                let message = format!("take blob {}: it is too large, or its bytes are others", part.digest);
                Err(Error::new(ErrorKind::InvalidInput, message))
            }
        }
    }

    /// Does what a letter of site `from` asks, as far as it can be done now.
    async fn read(&self, from: SiteName, letter: Letter) -> Result<Reply, Error> {
        let (source, robots) = self.check(from, &letter)?;
        self.pass(&source, letter.watermark).await?;
        let reading = Reading {
            group: Arc::clone(&self.group),
            incoming: Arc::clone(&self.incoming),
            source,
            robots,
            definitions: letter.definitions.into_iter().collect(),
        };
        let mut reply = Reply::default();
        reading.recall(&letter.recalls, &mut reply).await?;
        reading.accept(letter.moves, &mut reply).await?;
        reading.stop(&letter.cancels, &mut reply).await?;
        reading.hear(letter.reports, &mut reply).await?;
        reply.needs.sort_unstable();
        reply.needs.dedup();
        Ok(reply)
    }

    /// Whether the letter is for this group and of that site's, and this node may answer it.
    fn check(&self, from: SiteName, letter: &Letter) -> Result<(PeerSite, Vec<RobotView>), Error> {
        let refused = |kind, why: &str| Error::new(kind, format!("read a letter of site {from}: {why}"));
        if self.group.standing().borrow().serving.is_none() {
            let message = "this node does not lead its site now";
            return Err(refused(ErrorKind::Unavailable, message).with_retry_after(RETRY_AFTER));
        }
        let reader = self.group.reader()?;
        let site = read(jobs::site(&reader))?;
        if site.founding.as_ref().is_none_or(|founding| founding.group != letter.to) {
            return Err(refused(ErrorKind::FailedPrecondition, "it is for another group of this site's name"));
        }
        if site.gate < SITES_VERSION {
            let message = "not every node of this site runs a program yet that knows several sites";
            return Err(refused(ErrorKind::Unavailable, message).with_retry_after(RETRY_AFTER));
        }
        if self.sites.known().borrow().get(&from).is_none_or(|known| known.group != letter.from) {
            return Err(refused(ErrorKind::PermissionDenied, "it is of another group than is known by that name"));
        }
        let items = letter.moves.len().max(letter.recalls.len()).max(letter.cancels.len()).max(letter.reports.len());
        if items > LETTER_ITEMS_MAX {
            return Err(refused(ErrorKind::InvalidInput, "it has too many items"));
        }
        Ok((PeerSite { group: letter.from, site: from }, read(own_robots(&reader))?))
    }

    /// Forgets what the source has settled.
    async fn pass(&self, source: &PeerSite, watermark: Serial) -> Result<(), Error> {
        let known = read(moves::peer(&self.group.reader()?, source.group))?;
        if known.is_none_or(|peer| watermark <= peer.passed) {
            return Ok(());
        }
        for _ in 0..PASSES_MAX {
            let outcome = self.group.propose(Moving::Pass { source: source.clone(), watermark }.into()).await?;
            if !matches!(outcome, Outcome::Forgotten { more: true, .. }) {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The reading of one letter.
struct Reading {
    group: Arc<dyn Group>,
    incoming: Arc<Mutex<Incoming>>,
    source: PeerSite,
    robots: Vec<RobotView>,
    definitions: BTreeMap<Digest, Content>,
}

impl Reading {
    fn reader(&self) -> Result<StateReader, Error> {
        self.group.reader()
    }

    /// Refuses what was not accepted yet; what was decided is answered so.
    async fn recall(&self, recalls: &[Serial], reply: &mut Reply) -> Result<(), Error> {
        let decide = |number: &Serial| {
            let (source, number) = (self.source.clone(), *number);
            self.group.propose(Moving::Decide { source, number, verdict: Verdict::Recalled }.into())
        };
        let outcomes = join_all(recalls.iter().map(decide)).await;
        note_verdicts(recalls.iter().copied().zip(outcomes), reply);
        Ok(())
    }

    /// Takes over what comes. The first job of each definition that is new goes ahead, so that the definition is committed
    /// once; then the others. A first one that is not taken brings no definition, and holds up nobody: the next one goes
    /// ahead with it.
    async fn accept(&self, moves: Vec<MovedJob>, reply: &mut Reply) -> Result<(), Error> {
        let mut left = self.undecided(moves, reply)?;
        while !left.is_empty() {
            let (ready, later) = self.in_turn(left)?;
            let decided = join_all(ready.into_iter().map(|(moved, definition)| self.decide(moved, definition))).await;
            let mut outcomes = Vec::with_capacity(decided.len());
            for decided in decided {
                match decided {
                    Decided::Proposed(number, outcome) => outcomes.push((number, outcome)),
                    Decided::Needs(digests) => reply.needs.extend(digests),
                }
            }
            note_verdicts(outcomes, reply);
            left = later;
        }
        Ok(())
    }

    /// Those of `moves` that were not decided before; what was decided of the others is the answer again.
    fn undecided(&self, moves: Vec<MovedJob>, reply: &mut Reply) -> Result<Vec<MovedJob>, Error> {
        let reader = self.reader()?;
        let mut left = Vec::with_capacity(moves.len());
        for moved in moves {
            match read(moves::arrival(&reader, self.source.group, moved.number))? {
                Some(known) => reply.verdicts.push((moved.number, known.verdict)),
                None => left.push(moved),
            }
        }
        Ok(left)
    }

    /// Which of `moves` go now: every one whose definition is here, and of each new definition one, which brings it. And
    /// which wait for those: fewer than there were.
    fn in_turn(&self, moves: Vec<MovedJob>) -> Result<(Vec<(MovedJob, Option<Content>)>, Vec<MovedJob>), Error> {
        let reader = self.reader()?;
        let mut begun = BTreeSet::new();
        let (mut ready, mut later) = (Vec::new(), Vec::new());
        for moved in moves {
            let digest = moved.submission.spec.definition;
            if read(has_definition(&reader, digest))? {
                ready.push((moved, None));
            } else if begun.insert(digest) {
                ready.push((moved, self.definitions.get(&digest).cloned()));
            } else {
                later.push(moved);
            }
        }
        Ok((ready, later))
    }

    async fn decide(&self, moved: MovedJob, definition: Option<Content>) -> Decided {
        let MovedJob { number, generation, created_at, mut submission } = moved;
        let source = self.source.clone();
        if let Some(why) = why_never(&submission.spec, &self.robots) {
            let declined = Moving::Decide { source, number, verdict: Verdict::Declined(why) };
            return Decided::Proposed(number, self.group.propose(declined.into()).await);
        }
        submission.definition = definition;
        let contents = [Some(&submission.input), submission.definition.as_ref()];
        let needs = self.missing(contents.into_iter().flatten()).await;
        if !needs.is_empty() {
            return Decided::Needs(needs);
        }
        let arriving = Arriving { source, number, generation, created_at, submission };
        Decided::Proposed(number, self.group.propose(Moving::Accept(Box::new(arriving)).into()).await)
    }

    /// The blobs of `contents` that are not on a majority's disks. What was there is stored there again, so that an entry
    /// may name it now.
    async fn missing(&self, contents: impl Iterator<Item = &Content>) -> Vec<Digest> {
        let mut missing = Vec::new();
        for content in contents {
            let Some(digest) = content.blob() else { continue };
            if !self.incoming().has(digest) {
                missing.push(digest);
                continue;
            }
            let stored = match self.group.read_content(content.clone()).await {
                Ok(bytes) => self.group.put_content(bytes).await,
                Err(error) => Err(error),
            };
            if let Err(error) = stored {
                tracing::debug!(%digest, error = %fleet_core::error::chain(&error), "a blob must come again");
                self.incoming().note_gone(digest);
                missing.push(digest);
            }
        }
        missing
    }

    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops jobs. Whatever the state says to it is final: the job stops, has ended, or is not here.
    async fn stop(&self, cancels: &[(Serial, fleet_core::JobId)], reply: &mut Reply) -> Result<(), Error> {
        let stop = |(number, job): &(Serial, fleet_core::JobId)| {
            let source = self.source.group;
            self.group.propose(Moving::StopArrived { source, number: *number, job: *job }.into())
        };
        let outcomes = join_all(cancels.iter().map(stop)).await;
        let obeyed = cancels.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
        reply.obeyed.extend(obeyed.map(|((number, _), _)| *number));
        Ok(())
    }

    /// Hears reports, with the results that came whole.
    async fn hear(&self, reports: Vec<Report>, reply: &mut Reply) -> Result<(), Error> {
        let heard = join_all(reports.into_iter().map(|report| self.hear_one(report))).await;
        for heard in heard {
            match heard {
                Heard::Committed(serial) => reply.heard.push(serial),
                Heard::Needs(digests) => reply.needs.extend(digests),
                Heard::Later => {}
            }
        }
        Ok(())
    }

    async fn hear_one(&self, report: Report) -> Heard {
        let (serial, from): (Serial, GroupId) = (report.serial, self.source.group);
        if let Some(Ending::Output(content) | Ending::Error(content)) = &report.ending {
            let needs = self.missing([content].into_iter()).await;
            if !needs.is_empty() {
                return Heard::Needs(needs);
            }
        }
        let report = Report { from, ..report };
        match self.group.propose(Moving::Report(Box::new(report)).into()).await {
            Ok(Outcome::ReportStale) => {
                tracing::warn!(site = %self.source.site, %serial, "a site reported of a job that has moved on since");
                Heard::Committed(serial)
            }
            Ok(outcome) if outcome.clone().accepted().is_ok() => Heard::Committed(serial),
            Ok(_) | Err(_) => Heard::Later,
        }
    }
}

enum Decided {
    Proposed(Serial, Result<Outcome, Error>),
    Needs(Vec<Digest>),
}

enum Heard {
    Committed(Serial),
    Needs(Vec<Digest>),
    Later,
}

/// What was decided of moves. What was not, because the queue is full or the outcome is not known, is asked again.
fn note_verdicts(outcomes: impl IntoIterator<Item = (Serial, Result<Outcome, Error>)>, reply: &mut Reply) {
    for (number, outcome) in outcomes {
        match outcome {
            Ok(Outcome::Decided(verdict)) => reply.verdicts.push((number, verdict)),
            Ok(Outcome::Refused(refusal @ (Refusal::QueueFull(_) | Refusal::DefinitionMissing(_)))) => {
                tracing::debug!(%refusal, %number, "a job of another site is taken later");
            }
            Ok(Outcome::Refused(refusal)) => tracing::warn!(%refusal, %number, "a job of another site was not taken"),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = %fleet_core::error::chain(&error), %number, "a decision was not committed");
            }
        }
    }
}

/// The state's answer, or its error for the other site.
fn read<T>(result: Result<T, fleet_store::Error>) -> Result<T, Error> {
    result.map_err(|source| Error::new(source.kind(), "read the state for another site").with_source(source))
}
