//! `site recover`: what would be lost and run twice, whether it is needed at all, and the mark that sets it going.

use fleet_api::pb::v1;
use fleet_core::{Error, ErrorKind};
use fleet_membership::Membership;
use fleet_replication::command::Action;
use fleet_replication::{Status, Survey};
use fleet_store::StateRead;
use fleet_store::record::JobState;
use fleet_store::state::jobs;
use fleet_store::state::listing::{Filter, list};
use tokio::sync::watch;

use crate::daemon::recovery;
use crate::site::{Site, read_failed};

/// Most jobs of one state named in an answer.
const DOUBTFUL_JOBS_MAX: usize = 1_000;
/// The states of jobs that some robot holds.
const HELD: [JobState; 3] = [JobState::Assigned, JobState::Running, JobState::Stopping];

/// Answers `request` on this node. Without the operator's consent it only says what would happen.
pub(super) async fn recover(
    site: &Site,
    membership: &Membership,
    restart: &watch::Sender<bool>,
    request: v1::RecoverSiteRequest,
) -> Result<v1::RecoverSiteResponse, Error> {
    let epoch = site.group().epoch();
    if request.release_hold {
        site.propose(Action::EndHold).await?;
        return Ok(v1::RecoverSiteResponse { epoch, ..v1::RecoverSiteResponse::default() });
    }
    if request.site != site.name() {
        let problem = format!("this node belongs to another site than `{}`", request.site);
        return Err(refused(site.name(), ErrorKind::InvalidInput, &problem));
    }
    let status = site.group().status().borrow().clone();
    let view = membership.current_view();
    let gossiped = status.voters().iter().filter(|voter| view.is_active(**voter)).count();
    check(site.name(), &status, gossiped, &site.group().survey().await)?;
    let (doubtful_jobs, doubtful_count) = doubtful(&site.reader()?).map_err(read_failed)?;
    if request.accept_loss {
        recovery::ask(site.store()).await?;
        restart.send_replace(true);
    }
    Ok(v1::RecoverSiteResponse {
        epoch: epoch + 1,
        doubtful_jobs,
        doubtful_count,
        recovered: request.accept_loss,
        applied_index: status.last_applied.unwrap_or_default(),
    })
}

fn refused(site: &str, kind: ErrorKind, problem: &str) -> Error {
    Error::new(kind, format!("recover site {site}: {problem}"))
}

/// Refuses where the group works, or was recovered already: a second group beside a living one would run jobs twice.
/// `gossiped` is how many voters gossip holds alive; the voters themselves were asked too, because gossip may be blind.
fn check(site: &str, status: &Status, gossiped: usize, survey: &Survey) -> Result<(), Error> {
    let refuse =
        |problem: String, next: &str| Err(refused(site, ErrorKind::FailedPrecondition, &problem).with_next_step(next));
    let nothing_to_do = "Nothing needs to be recovered; `fleetctl status` shows who leads.";
    if let Some(epoch) = survey.superseded_by {
        let next = "This node comes back to that group by itself; ask a node of it.";
        return refuse(format!("it was recovered elsewhere, in epoch {epoch}"), next);
    }
    if let Some(leader) = survey.leader {
        return refuse(format!("node {leader} leads it"), nothing_to_do);
    }
    let living = gossiped.max(survey.answered.len());
    if survey.is_majority || living * 2 > survey.voters {
        return refuse(format!("{living} of {} voters are alive, which is a majority", survey.voters), nothing_to_do);
    }
    if status.last_applied.is_none() {
        return refuse("this node has no copy of it".to_owned(), "Ask a node that was a member.");
    }
    Ok(())
}

/// Jobs that some robot holds by this node's copy, and how many there are: they may run twice after a recovery.
fn doubtful(reader: &impl StateRead) -> Result<(Vec<String>, u64), fleet_store::Error> {
    let counters = jobs::site(reader)?.counters;
    let mut named = Vec::new();
    for state in HELD {
        let filter = Filter { states: vec![state], workflow: None };
        let page = list(reader, &filter, None, DOUBTFUL_JOBS_MAX)?;
        named.extend(page.jobs.iter().map(|(job, _, _)| job.to_string()));
    }
    Ok((named, HELD.iter().map(|state| counters.jobs_in(*state)).sum()))
}

#[cfg(test)]
mod tests {
    use fleet_core::NodeId;

    use super::*;

    fn lost() -> (Status, Survey) {
        let status = Status { last_applied: Some(7), ..Status::default() };
        let survey = Survey { voters: 3, answered: [NodeId::from_bytes([1; 16])].into(), ..Survey::default() };
        (status, survey)
    }

    fn problem(status: &Status, gossiped: usize, survey: &Survey) -> String {
        let error = check("default", status, gossiped, survey).unwrap_err();
        assert_eq!(error.kind, ErrorKind::FailedPrecondition);
        assert!(error.next_step.is_some());
        error.message
    }

    #[test]
    fn a_group_without_a_majority_may_be_recovered() {
        let (status, survey) = lost();
        assert!(check("default", &status, 1, &survey).is_ok());
    }

    #[test]
    fn a_group_that_works_is_left_alone_whatever_gossip_sees() {
        let (status, survey) = lost();
        let leader = Survey { leader: Some(NodeId::from_bytes([2; 16])), ..survey.clone() };
        assert!(problem(&status, 1, &leader).ends_with("leads it"));
        let two = [1, 2].map(|byte| NodeId::from_bytes([byte; 16])).into();
        let answering = Survey { answered: two, is_majority: true, ..survey.clone() };
        assert_eq!(
            problem(&status, 1, &answering),
            "recover site default: 2 of 3 voters are alive, which is a majority",
            "with UDP blocked gossip sees only this node"
        );
        assert!(problem(&status, 2, &survey).contains("a majority"), "and where only gossip gets through");
        let elsewhere = Survey { superseded_by: Some(3), ..survey.clone() };
        assert!(problem(&status, 1, &elsewhere).contains("epoch 3"));
        assert!(problem(&Status::default(), 1, &survey).contains("no copy"));
    }
}
