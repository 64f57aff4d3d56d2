//! Counts ended jobs. A job is counted by the node whose robot ended it; one that nobody held any more, or whose holder
//! was lost, is counted by the leader of that time: a dead node counts nothing. So the sum over all nodes is right.

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
    let Event::JobChanged { to, released, settled, .. } = event else { return None };
    let by_robot = released.as_ref().filter(|_| *settled).map(|released| released.session.node);
    let is_ours = by_robot.map_or(leads, |node| node == own);
    (to.is_ended() && is_ours).then_some(if *to == JobState::Completed { "success" } else { "failed" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::{Fence, JobId, SessionId, Timestamp};
    use fleet_store::record::Assignment;

    fn ended(to: JobState, holder: Option<NodeId>, settled: bool) -> Event {
        let released = holder.map(|node| Assignment {
            session: SessionId { node, boot: 1, number: 1 },
            fence: Fence::default(),
            at: Timestamp(0),
        });
        let job = JobId::from_bytes([1; 16]);
        Event::JobChanged { job, from: None, to, attempt: 1, assignment: None, released, settled, stop: None }
    }

    #[test]
    fn each_end_is_counted_once_in_the_fleet() {
        let (us, them) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        assert_eq!(counted(&ended(JobState::Completed, Some(us), true), us, false), Some("success"));
        assert_eq!(counted(&ended(JobState::Completed, Some(them), true), us, true), None);
        assert_eq!(counted(&ended(JobState::Cancelled, None, false), us, true), Some("failed"));
        assert_eq!(counted(&ended(JobState::Cancelled, None, false), us, false), None);
        assert_eq!(counted(&ended(JobState::Running, Some(us), true), us, true), None);
    }

    #[test]
    fn a_job_whose_robot_died_is_counted_by_the_leader() {
        let (us, dead) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        for to in [JobState::DeadLettered, JobState::Cancelled, JobState::TimedOut] {
            assert_eq!(counted(&ended(to, Some(dead), false), us, true), Some("failed"), "{to:?} at the leader");
            assert_eq!(counted(&ended(to, Some(dead), false), us, false), None, "{to:?} at a follower");
            assert_eq!(counted(&ended(to, Some(dead), false), dead, false), None, "{to:?} at the node once it is back");
        }
    }
}
