//! One robot's work stream on the leader: assignments and stops down as the scheduler orders, records up into the log.
//!
//! Records are proposed as they come, many at a time; what came of them is answered in the order in which it is known. A
//! proposal whose outcome is not known ends the stream: the robot sends on the next one what is not acknowledged.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use fleet_core::limits::INLINE_BYTES_MAX;
use fleet_core::{Error, NodeId, SessionId};
use fleet_replication::command::{Action, Next, Outcome, Records, Refusal};
use fleet_store::record::Content;

use super::actor::SchedulerMessage;
use super::assignment::Loader;
use super::seats::WorkOrder;
use crate::link::{Duplex, WorkDown, WorkUp};
use crate::ports::Group;
use crate::session::Pair;
use crate::tasks::Slot;

/// Most proposals of one robot under way; its records wait in the stream meanwhile.
const PROPOSALS_MAX: usize = 4_096;

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
    let mut proposals: FuturesUnordered<BoxFuture<'static, Result<WorkDown, Error>>> = FuturesUnordered::new();
    loop {
        let messages = tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(WorkOrder::Stop { term, session, pair, cause }) => {
                    vec![WorkDown::Stop { term, session, pair, cause }]
                }
                Some(WorkOrder::Assign { term, session, pair, with_text }) => {
                    match loader.load(term, session, pair, with_text).await {
                        Ok(messages) => messages,
                        Err(error) => return warn(node, "load an assignment", &error),
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
                Ok(message) => vec![message],
                Err(error) => return warn(node, "commit records", &error),
            },
        };
        for message in messages {
            if sender.send(message).await.is_err() {
                return;
            }
        }
    }
}

fn warn(node: NodeId, operation: &'static str, error: &Error) {
    tracing::warn!(%node, error = %fleet_core::error::chain(error), "{operation}: the work stream ends");
}

fn session_of(message: &WorkUp) -> SessionId {
    match message {
        WorkUp::Records { session, .. }
        | WorkUp::Stopped { session, .. }
        | WorkUp::Gone { session, .. }
        | WorkUp::NeedDefinition { session, .. } => *session,
    }
}

/// Passes reports on to the scheduler; records are left to be proposed.
fn pass_on(scheduler: &Slot<SchedulerMessage>, message: WorkUp) -> Option<(SessionId, Box<Records>)> {
    let report = match message {
        WorkUp::Records { session, records } => return Some((session, records)),
        WorkUp::Stopped { session, pair } => SchedulerMessage::Stopped { session, pair },
        WorkUp::Gone { session, pair } => SchedulerMessage::Gone { session, pair },
        WorkUp::NeedDefinition { session, pair } => SchedulerMessage::NeedDefinition { session, pair },
    };
    scheduler.tell(report);
    None
}

/// Has records committed and says what came of them.
async fn propose(group: Arc<dyn Group>, session: SessionId, mut records: Box<Records>) -> Result<WorkDown, Error> {
    let pair = Pair { job: records.job, fence: records.fence };
    let leaves = records.next != Next::Continue;
    outsource(&group, &mut records).await?;
    match group.propose(Action::Record(records)).await? {
        Outcome::Recorded { length, state } => {
            Ok(WorkDown::Ack { session, pair, journal_len: length, is_over: leaves || state.is_ended() })
        }
        Outcome::Refused(Refusal::JournalGap { .. }) => {
            Err(Error::new(fleet_core::ErrorKind::FailedPrecondition, "commit records: earlier ones are missing"))
        }
        _ => Ok(WorkDown::Refused { session, pair }),
    }
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
