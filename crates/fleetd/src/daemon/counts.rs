//! Counts ended jobs. A job is counted by the node whose robot ended it; one that ended without a holder is counted by
//! the leader of that time. So the sum over all nodes is right.

use fleet_core::NodeId;
use fleet_replication::fsm::Event;
use fleet_store::record::JobState;
use metrics::counter;
use tokio::sync::broadcast::error::RecvError;

use crate::site::Site;

/// Counts until the group ends.
pub(super) async fn run(site: Site) {
    for status in ["success", "failed"] {
        counter!("casare_workflows_total", "status" => status).absolute(0);
    }
    let mut applied = site.group().applied();
    loop {
        match applied.recv().await {
            Ok(entry) => {
                let leads = site.group().serving_term().is_some();
                for status in entry.events.iter().filter_map(|event| counted(event, site.group().node(), leads)) {
                    counter!("casare_workflows_total", "status" => status).increment(1);
                }
            }
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "some log entries were not counted in casare_workflows_total");
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// The status under which `own` counts what `event` says, if it does.
fn counted(event: &Event, own: NodeId, leads: bool) -> Option<&'static str> {
    let Event::JobChanged { to, released, .. } = event else { return None };
    let is_ours = released.as_ref().map_or(leads, |released| released.session.node == own);
    (to.is_ended() && is_ours).then_some(if *to == JobState::Completed { "success" } else { "failed" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::{Fence, JobId, SessionId, Timestamp};
    use fleet_store::record::Assignment;

    fn ended(to: JobState, holder: Option<NodeId>) -> Event {
        let released = holder.map(|node| Assignment {
            session: SessionId { node, boot: 1, number: 1 },
            fence: Fence::default(),
            at: Timestamp(0),
        });
        let job = JobId::from_bytes([1; 16]);
        Event::JobChanged { job, from: None, to, attempt: 1, assignment: None, released, stop: None }
    }

    #[test]
    fn each_end_is_counted_once_in_the_fleet() {
        let (us, them) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        assert_eq!(counted(&ended(JobState::Completed, Some(us)), us, false), Some("success"));
        assert_eq!(counted(&ended(JobState::Completed, Some(them)), us, true), None);
        assert_eq!(counted(&ended(JobState::Cancelled, None), us, true), Some("failed"));
        assert_eq!(counted(&ended(JobState::Cancelled, None), us, false), None);
        assert_eq!(counted(&ended(JobState::Running, Some(us)), us, true), None);
    }
}
