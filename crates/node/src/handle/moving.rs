//! The handle's part about other sites: which one a job goes to, and what an operator does about one that went.

use std::sync::Arc;

use fleet_core::JobId;
use fleet_replication::command::{Moving, SITES_VERSION, Submission};
use fleet_store::record::{JobSpec, PeerSite};
use fleet_store::state::listing::{Listed, listed};
use fleet_store::state::{jobs, moves};

use super::{JobRequest, Node};
use crate::Error;
use crate::courier::CourierServer;
use crate::routing::{self, Route};

impl Node {
    /// What answers the couriers of other sites where this node leads.
    pub fn courier_server(&self) -> CourierServer {
        self.shared.courier_server.clone()
    }

    /// Has `submission` accepted, here or for the site of `route`.
    pub(super) async fn submit_along(&self, submission: Submission, route: Option<Route>) -> Result<JobId, Error> {
        let Some(Route { to, because }) = route else { return self.submit_contents(submission).await };
        let job = submission.job;
        let submit = Moving::SubmitTo { submission: Box::new(submission), to, because };
        self.propose("submit a job for another site", submit.into()).await.map(|_| job)
    }

    /// Submits definition and input of the ended job `job` again, as `new_job`, for the site where it was.
    pub async fn retry(&self, job: JobId, new_job: JobId) -> Result<JobId, Error> {
        self.check_leading("retry a job")?;
        let reader = self.group().reader()?;
        let row = listed(&reader, job).map_err(Error::store("read a job"))?;
        let (state, priority, route) = match row.ok_or_else(|| Error::JobUnknown(job.to_string()))? {
            Listed::Here(row) => (row.state, row.priority, None),
            Listed::Elsewhere(moved, mirror) => {
                let route = Route { to: moved.to, because: String::new() };
                (mirror.standing.state, mirror.priority, Some(route))
            }
        };
        if !state.is_ended() {
            return Err(Error::JobNotEnded(job));
        }
        let spec = jobs::spec(&reader, job).map_err(Error::store("read a job"))?;
        let input = jobs::input(&reader, job).map_err(Error::store("read a job"))?;
        let unknown = || Error::JobUnknown(job.to_string());
        let spec = JobSpec { retry_of: Some(job), ..spec.ok_or_else(unknown)? };
        let input = input.ok_or_else(unknown)?;
        self.submit_along(Submission { job: new_job, spec, priority, input, definition: None }, route).await
    }

    /// The other site that the job goes to, if it goes to one.
    pub(super) fn route(&self, request: &JobRequest) -> Result<Option<Route>, Error> {
        let known = Arc::clone(&self.shared.ports.sites.known().borrow());
        // Most submits: nothing has to be read for them.
        if request.site.is_none() && known.is_empty() {
            return Ok(None);
        }
        let reader = self.group().reader()?;
        let site = jobs::site(&reader).map_err(Error::store("read the site"))?;
        let own = site.founding.map(|founding| founding.site).unwrap_or_default();
        match &request.site {
            Some(asked) if *asked == own => Ok(None),
            Some(asked) => {
                let unknown = || Error::SiteUnknown { site: asked.clone(), known: routing::names(&own, &known) };
                let group = known.get(asked).ok_or_else(unknown)?.group;
                Ok(Some(Route { to: PeerSite { group, site: asked.clone() }, because: String::new() }))
            }
            None if site.gate < SITES_VERSION => Ok(None),
            None => {
                let needs = routing::needs_anywhere(&request.spec);
                Ok(routing::route(
                    &needs,
                    &routing::own_robots(&reader).map_err(Error::store("read the nodes"))?,
                    &known,
                ))
            }
        }
    }

    /// Asks for a job back that is under way to another site. It comes if that site has not accepted it yet.
    pub async fn recall(&self, job: JobId) -> Result<(), Error> {
        let generation = self.generation(job)?;
        self.propose("recall a job", Moving::Recall { job, generation }.into()).await.map(drop)
    }

    /// Gives up the site where a job went, and queues the job here. It may run at both.
    pub async fn abandon_move(&self, job: JobId) -> Result<(), Error> {
        let generation = self.generation(job)?;
        self.propose("give up a job's move", Moving::Abandon { job, generation }.into()).await.map(drop)
    }

    /// The generation of a job by its last move.
    fn generation(&self, job: JobId) -> Result<u32, Error> {
        let moved = moves::of_job(&self.group().reader()?, job).map_err(Error::store("read a job"))?;
        // Where there is no move the group says so.
        Ok(moved.map_or(0, |moved| moved.generation))
    }
}
