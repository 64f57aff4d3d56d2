//! One robot's work stream on the leader: assignments and stops down as the scheduler orders, records up into the log.
//!
//! Records are proposed as they come, many at a time; what came of them is answered in the order in which it is known. A
//! proposal whose outcome is not known ends the stream: the robot sends on the next one what is not acknowledged.
//!
//! Invariant: no job holds up the others of its robot. What cannot be committed or loaded, however often it is tried,
//! fails the job it belongs to under the same fence, and the stream goes on.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use fleet_core::limits::INLINE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, NodeId, SessionId};
use fleet_replication::command::{Action, Next, Outcome, Records, Refusal};
use fleet_store::record::{Content, Payload};
use fleet_workflow::machine::event::ErrorObject;

use super::actor::SchedulerMessage;
use super::assignment::Loader;
use super::seats::WorkOrder;
use crate::link::{Duplex, WorkDown, WorkUp};
use crate::ports::Group;
use crate::session::Pair;
use crate::tasks::Slot;

/// Most proposals of one robot under way; its records wait in the stream meanwhile.
const PROPOSALS_MAX: usize = 4_096;

/// What is to be said of something proposed; `None` if there is nothing to say.
type Proposed = BoxFuture<'static, Result<Option<WorkDown>, Error>>;

/// Serves a work stream until it ends.
pub(super) async fn serve(
    node: NodeId,
    group: &Arc<dyn Group>,
    scheduler: &Slot<SchedulerMessage>,
    mut orders: mpsc::Receiver<WorkOrder>,
    streams: Duplex<WorkDown, WorkUp>,
) {
    let Duplex { sender, mut receiver } = streams;
    let mut loader = Loader::new(Arc::clone(group));
    let mut proposals: FuturesUnordered<Proposed> = FuturesUnordered::new();
    loop {
        let messages = tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(WorkOrder::Stop { term, session, pair, cause }) => {
                    vec![WorkDown::Stop { term, session, pair, cause }]
                }
                Some(WorkOrder::Ask { term, session, pair }) => vec![WorkDown::Ask { term, session, pair }],
                Some(WorkOrder::Refuse { session, pair }) => vec![WorkDown::Refused { session, pair }],
                Some(WorkOrder::Assign { term, session, pair, with_text }) => {
                    match loader.load(term, session, pair, with_text).await {
                        Ok(messages) => messages,
                        Err(error) => {
                            proposals.push(Box::pin(not_loaded(Arc::clone(group), session, pair, error)));
                            continue;
                        }
                    }
                }
            },
            message = receiver.recv(), if proposals.len() < PROPOSALS_MAX => {
                let Some(message) = message else { return };
                if session_of(&message).node != node {
                    return tracing::warn!(%node, "a robot sent work in another's name");
                }
                if let Some((session, records)) = pass_on(scheduler, message) {
                    proposals.push(Box::pin(propose(Arc::clone(group), session, records)));
                }
                continue;
            },
            Some(proposed) = proposals.next(), if !proposals.is_empty() => match proposed {
                Ok(message) => Vec::from_iter(message),
                Err(error) => {
                    let error = fleet_core::error::chain(&error);
                    return tracing::warn!(%node, error, "commit records: the work stream ends");
                }
            },
        };
        for message in messages {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    }
}

fn session_of(message: &WorkUp) -> SessionId {
    match message {
        WorkUp::Records { session, .. }
        | WorkUp::Stopped { session, .. }
        | WorkUp::Gone { session, .. }
        | WorkUp::NeedDefinition { session, .. }
        | WorkUp::Returned { session, .. } => *session,
    }
}

/// Passes reports on to the scheduler; records are left to be proposed.
fn pass_on(scheduler: &Slot<SchedulerMessage>, message: WorkUp) -> Option<(SessionId, Box<Records>)> {
    let report = match message {
        WorkUp::Records { session, records } => return Some((session, records)),
        WorkUp::Stopped { session, pair } => SchedulerMessage::Stopped { session, pair },
        WorkUp::Gone { session, pair } => SchedulerMessage::Gone { session, pair },
        WorkUp::NeedDefinition { session, pair } => SchedulerMessage::NeedDefinition { session, pair },
        WorkUp::Returned { session, pair } => SchedulerMessage::Returned { session, pair },
    };
    scheduler.tell(report);
    None
}

/// Has records committed and says what came of them.
async fn propose(
    group: Arc<dyn Group>,
    session: SessionId,
    mut records: Box<Records>,
) -> Result<Option<WorkDown>, Error> {
    let pair = Pair { job: records.job, fence: records.fence };
    let (from, leaves) = (records.from, records.next != Next::Continue);
    let proposed = match outsource(&group, &mut records).await {
        Ok(()) => group.propose(Action::Record(records)).await,
        Err(error) => Err(error),
    };
    match proposed {
        Ok(outcome) => Ok(Some(answer(session, pair, leaves, outcome))),
        Err(error) if is_permanent(&error) => fail(&group, session, pair, from, &error).await.map(Some),
        Err(error) => Err(error),
    }
}

/// What the robot is told of its records.
fn answer(session: SessionId, pair: Pair, leaves: bool, outcome: Outcome) -> WorkDown {
    match outcome {
        Outcome::Recorded { length, state } => {
            WorkDown::Ack { session, pair, journal_len: length, is_over: leaves || state.is_ended() }
        }
        outcome => {
            // With a gap before its records the robot's journal is not the group's: it gives the job up, and whoever gets
            // it next is sent the journal as it is.
            if let Outcome::Refused(refusal @ Refusal::JournalGap { .. }) = outcome {
                tracing::warn!(node = %session.node, %refusal, "a robot's records do not follow those committed");
            }
            WorkDown::Refused { session, pair }
        }
    }
}

/// An assignment could not be loaded. The scheduler orders it again, unless that can never help.
async fn not_loaded(
    group: Arc<dyn Group>,
    session: SessionId,
    pair: Pair,
    error: Error,
) -> Result<Option<WorkDown>, Error> {
    let said = match is_permanent(&error) {
        true => fail(&group, session, pair, 0, &error).await.map(Some),
        false => Err(error),
    };
    Ok(said.unwrap_or_else(|error| {
        let error = fleet_core::error::chain(&error);
        tracing::warn!(job = %pair.job, node = %session.node, error, "load an assignment: it is tried again");
        None
    }))
}

/// Whether the same attempt would fail for ever.
fn is_permanent(error: &Error) -> bool {
    matches!(error.kind, ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::Internal)
}

/// Fails the job of `pair`, whose journal has at least `from` records, because of `error`. Where the fault is this node's
/// and not the job's, such as a broken disk, this cannot be committed either, and nothing has changed.
async fn fail(
    group: &Arc<dyn Group>,
    session: SessionId,
    pair: Pair,
    from: u32,
    error: &Error,
) -> Result<WorkDown, Error> {
    let reason = fleet_core::error::chain(error);
    tracing::warn!(job = %pair.job, node = %session.node, error = reason, "a job fails because it cannot go on");
    let error = ErrorObject::standard("runtime", 500, "the job cannot go on", reason);
    let error = serde_json::to_vec(&error)
        .map_err(|source| Error::new(ErrorKind::Internal, "write a job's error").with_source(source))?;
    let next = Next::Fail { error: group.put_content(Payload::from(error)).await? };
    let records = Records { job: pair.job, fence: pair.fence, from, records: Vec::new(), next };
    let outcome = group.propose(Action::Record(Box::new(records))).await?;
    Ok(answer(session, pair, true, outcome))
}

/// Makes blobs of contents too large for the log.
async fn outsource(group: &Arc<dyn Group>, records: &mut Records) -> Result<(), Error> {
    for record in &mut records.records {
        outsource_one(group, &mut record.event).await?;
    }
    match &mut records.next {
        Next::Complete { output: content } | Next::Fail { error: content } | Next::TimeOut { error: content } => {
            outsource_one(group, content).await
        }
        Next::Continue | Next::Park { .. } | Next::HandBack => Ok(()),
    }
}

async fn outsource_one(group: &Arc<dyn Group>, content: &mut Content) -> Result<(), Error> {
    if let Content::Inline(payload) = content
        && payload.as_slice().len() > INLINE_BYTES_MAX
    {
        *content = group.put_content(payload.clone()).await?;
    }
    Ok(())
}
