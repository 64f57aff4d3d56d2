//! What the leader answers to couriers of other sites. Every answer says only what is committed here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, OptionFuture, join, join_all, try_join5};

use fleet_core::limits::LETTER_ITEMS_MAX;
use fleet_core::{Digest, Error, ErrorKind, JobId, SiteName};
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
        let reading = Reading {
            group: Arc::clone(&self.group),
            incoming: Arc::clone(&self.incoming),
            source: source.clone(),
            robots,
            definitions: letter.definitions.into_iter().collect(),
        };
        // None of these waits for another: what they propose rides in few entries.
        let ((), mut verdicts, taken_over, obeyed, heard) = try_join5(
            self.pass(&source, letter.watermark),
            reading.recall(&letter.recalls),
            reading.accept(letter.moves),
            reading.stop(&letter.cancels),
            reading.hear(letter.reports),
        )
        .await?;
        verdicts.extend(taken_over.verdicts);
        let needs = [taken_over.needs, heard.needs].concat();
        let mut reply = Reply { verdicts, obeyed, heard: heard.heard, needs };
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
    async fn recall(&self, recalls: &[Serial]) -> Result<Vec<(Serial, Verdict)>, Error> {
        let decide = |number: &Serial| {
            let (source, number) = (self.source.clone(), *number);
            self.group.propose(Moving::Decide { source, number, verdict: Verdict::Recalled }.into())
        };
        let outcomes = join_all(recalls.iter().map(decide)).await;
        Ok(verdicts_of(recalls.iter().copied().zip(outcomes)))
    }

    /// Takes over what comes. Where space is short nothing new is, which decides nothing; what was decided is answered. Of
    /// each new definition one job goes ahead and brings it, so that it is committed once; then the others. One that is not
    /// taken brings no definition and holds up nobody: the next one goes ahead with it.
    async fn accept(&self, moves: Vec<MovedJob>) -> Result<Reply, Error> {
        let (mut reply, undecided) = self.undecided(moves)?;
        if undecided.is_empty() || !self.group.has_room()? {
            return Ok(reply);
        }
        let (mut left, mut proposed) = (Vec::new(), Vec::new());
        for looked_at in join_all(undecided.into_iter().map(|moved| self.look_at(moved))).await {
            match looked_at {
                LookedAt::Declined(number, why) => {
                    let verdict = Verdict::Declined(why);
                    proposed.push((number, Moving::Decide { source: self.source.clone(), number, verdict }));
                }
                LookedAt::Needs(digests) => reply.needs.extend(digests),
                LookedAt::Ready(moved) => left.push(*moved),
            }
        }
        while !left.is_empty() || !proposed.is_empty() {
            let (ready, waiting) = self.in_turn(left, &mut reply).await?;
            left = waiting;
            proposed.extend(ready.into_iter().map(|moved| (moved.number, self.arriving(moved))));
            let (numbers, moving): (Vec<_>, Vec<_>) = std::mem::take(&mut proposed).into_iter().unzip();
            let outcomes = join_all(moving.into_iter().map(|moving| self.group.propose(moving.into()))).await;
            reply.verdicts.extend(verdicts_of(numbers.into_iter().zip(outcomes)));
        }
        Ok(reply)
    }

    /// Those of `moves` that were not decided before; what was decided of the others is the answer again.
    fn undecided(&self, moves: Vec<MovedJob>) -> Result<(Reply, Vec<MovedJob>), Error> {
        let reader = self.reader()?;
        let (mut reply, mut undecided) = (Reply::default(), Vec::new());
        for moved in moves {
            match read(moves::arrival(&reader, self.source.group, moved.number))? {
                Some(known) => reply.verdicts.push((moved.number, known.verdict)),
                None => undecided.push(moved),
            }
        }
        Ok((reply, undecided))
    }

    /// Which of `moves` go now: every one whose definition is here, and of each new definition one, which brings it. And
    /// which wait for those: fewer than there were. Those whose definition cannot come yet are left undecided.
    async fn in_turn(&self, moves: Vec<MovedJob>, reply: &mut Reply) -> Result<(Vec<MovedJob>, Vec<MovedJob>), Error> {
        let here = self.definitions_here(&moves)?;
        let (mut ready, mut waiting) = (Vec::new(), Vec::new());
        let mut comes: BTreeMap<Digest, bool> = BTreeMap::new();
        for mut moved in moves {
            let digest = moved.submission.spec.definition;
            if here.contains(&digest) {
                ready.push(moved);
            } else if let Some(comes) = comes.get(&digest) {
                waiting.extend(comes.then_some(moved));
            } else {
                moved.submission.definition = self.definition(&moved, reply).await;
                let is_brought = moved.submission.definition.is_some();
                comes.insert(digest, is_brought);
                ready.extend(is_brought.then_some(moved));
            }
        }
        Ok((ready, waiting))
    }

    fn definitions_here(&self, moves: &[MovedJob]) -> Result<BTreeSet<Digest>, Error> {
        let (reader, mut here) = (self.reader()?, BTreeSet::new());
        let digests: BTreeSet<_> = moves.iter().map(|moved| moved.submission.spec.definition).collect();
        for digest in digests {
            if read(has_definition(&reader, digest))? {
                here.insert(digest);
            }
        }
        Ok(here)
    }

    async fn look_at(&self, moved: MovedJob) -> LookedAt {
        if let Some(why) = why_never(&moved.submission.spec, &self.robots) {
            return LookedAt::Declined(moved.number, why);
        }
        let needs = self.missing([&moved.submission.input].into_iter()).await;
        if needs.is_empty() { LookedAt::Ready(Box::new(moved)) } else { LookedAt::Needs(needs) }
    }

    /// The definition of `moved` as the letter brought it; none if its blob is not here yet.
    async fn definition(&self, moved: &MovedJob, reply: &mut Reply) -> Option<Content> {
        let definition = self.definitions.get(&moved.submission.spec.definition)?;
        let needs = self.missing([definition].into_iter()).await;
        let is_here = needs.is_empty();
        reply.needs.extend(needs);
        is_here.then(|| definition.clone())
    }

    fn arriving(&self, moved: MovedJob) -> Moving {
        let MovedJob { number, generation, created_at, submission } = moved;
        Moving::Accept(Box::new(Arriving { source: self.source.clone(), number, generation, created_at, submission }))
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

    /// Stops jobs; those of them that are settled. Whatever the state says is final: the job stops, has ended, or is not here.
    async fn stop(&self, cancels: &[(Serial, JobId)]) -> Result<Vec<Serial>, Error> {
        let stop = |(number, job): &(Serial, JobId)| {
            let source = self.source.group;
            self.group.propose(Moving::StopArrived { source, number: *number, job: *job }.into())
        };
        let outcomes = join_all(cancels.iter().map(stop)).await;
        Ok(cancels
            .iter()
            .zip(outcomes)
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|((number, _), _)| *number)
            .collect())
    }

    /// Hears reports, with the results that came whole.
    async fn hear(&self, reports: Vec<Report>) -> Result<Reply, Error> {
        let reports: Vec<(Report, bool)> = {
            let reader = self.reader()?;
            let of_source = |report: Report| Report { from: self.source.group, ..report };
            let with_settling = |report: Report| Ok((report.clone(), settles(&reader, &report)?));
            reports.into_iter().map(of_source).map(with_settling).collect::<Result<_, Error>>()?
        };
        let heard = reports.into_iter().map(|(report, settles)| self.hear_one(report, settles));
        let mut reply = Reply::default();
        for heard in join_all(heard).await {
            match heard {
                Heard::Committed(serial) => reply.heard.push(serial),
                Heard::Needs(digests) => reply.needs.extend(digests),
                Heard::Later => {}
            }
        }
        Ok(reply)
    }

    async fn hear_one(&self, report: Report, settles: bool) -> Heard {
        let serial = report.serial;
        if let Some(Ending::Output(content) | Ending::Error(content)) = &report.ending {
            let needs = self.missing([content].into_iter()).await;
            if !needs.is_empty() {
                return Heard::Needs(needs);
            }
        }
        let (target, number) = (report.from, report.number);
        let settle = Moving::Settle { target, number, verdict: Verdict::Accepted };
        let settled = settles.then(|| self.group.propose(settle.into()));
        let heard = self.group.propose(Moving::Report(Box::new(report)).into());
        // If the settling fails, so does the report, and both are said again.
        let (_, heard) = join(OptionFuture::from(settled), heard).await;
        match heard {
            Ok(Outcome::ReportStale) => {
                tracing::warn!(site = %self.source.site, %serial, "a site reported of a job that has moved on since");
                Heard::Committed(serial)
            }
            Ok(outcome) if outcome.clone().accepted().is_ok() => Heard::Committed(serial),
            Ok(_) | Err(_) => Heard::Later,
        }
    }
}

/// Whether `report` settles the move of its job: who reports of a job has accepted it, though the answer to the letter that
/// brought it is still under way, or was lost.
fn settles(reader: &StateReader, report: &Report) -> Result<bool, Error> {
    if read(moves::unanswered(reader, report.from, report.number))? != Some(report.job) {
        return Ok(false);
    }
    let moved = read(moves::of_job(reader, report.job))?;
    Ok(moved.is_some_and(|moved| (moved.number, moved.generation) == (report.number, report.generation)))
}

enum LookedAt {
    Declined(Serial, String),
    Needs(Vec<Digest>),
    Ready(Box<MovedJob>),
}

enum Heard {
    Committed(Serial),
    Needs(Vec<Digest>),
    Later,
}

/// What was decided of moves. What was not, because the queue is full or the outcome is not known, is asked again.
fn verdicts_of(outcomes: impl IntoIterator<Item = (Serial, Result<Outcome, Error>)>) -> Vec<(Serial, Verdict)> {
    let mut verdicts = Vec::new();
    for (number, outcome) in outcomes {
        match outcome {
            Ok(Outcome::Decided(verdict)) => verdicts.push((number, verdict)),
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
    verdicts
}

/// The state's answer, or its error for the other site.
fn read<T>(result: Result<T, fleet_store::Error>) -> Result<T, Error> {
    result.map_err(|source| Error::new(source.kind(), "read the state for another site").with_source(source))
}
