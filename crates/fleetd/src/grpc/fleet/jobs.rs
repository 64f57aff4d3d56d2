//! What clients ask about one job or several. A job that is at another site is answered for as it was last heard, and
//! stopped from here; what only that site has or can do is asked there, where it can be reached.
//!
//! No question goes round: a job that came from another site is at no third one.

use std::pin::Pin;

use fleet_api::pb::v1;
use fleet_api::status::{error_of, status_of};
use fleet_core::{Clock, Error, ErrorKind, JobId, SiteName, SystemClock};
use fleet_node::JobAction;
use fleet_node::ports::Sites;
use fleet_store::StateReader;
use fleet_store::record::{CommandId, JobState};
use fleet_store::state::moves;
use futures_util::TryStreamExt;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::super::elsewhere::other_site_of;
use super::super::forward::{Place, TIMEOUT_HEADER, fleet_client, passed_on, place};
use super::super::{moving, watch};
use super::FleetService;
use crate::site::read_failed;

/// The changes of a job, as they are told.
pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<v1::JobChange, Status>> + Send>>;

impl FleetService {
    pub(super) async fn get_here(self, request: v1::GetJobRequest) -> Result<v1::Job, Error> {
        let reader = self.site.current_reader().await?;
        let id = self.jobs.id(&reader, &request.job)?;
        self.explained(&reader, self.jobs.view(&reader, id, &request).await?, id).await
    }

    pub(super) async fn list_here(&self, request: &v1::ListJobsRequest) -> Result<v1::ListJobsResponse, Error> {
        let reader = self.site.current_reader().await?;
        let mut page = self.jobs.list(&reader, request)?;
        for job in &mut page.jobs {
            if let Some(id) = JobId::from_slice(&job.job_id).filter(|_| job.reason.is_empty()) {
                *job = self.explained(&reader, std::mem::take(job), id).await?;
            }
        }
        Ok(page)
    }

    /// Why a job that went to another site is where it is; `None` if it went to none.
    fn explain_move(&self, reader: &StateReader, job: &v1::Job, id: JobId) -> Result<Option<String>, Error> {
        let moved = moves::of_job(reader, id).map_err(read_failed)?;
        let known = self.other_sites.known().borrow().clone();
        Ok(moved.map(|moved| moving::why(id, &moved, known.get(&moved.to.site), &job.reason, SystemClock.now())))
    }

    /// The job with why it is still queued or how long its robot has been away, where the scheduler knows better than the row.
    async fn explained(&self, reader: &StateReader, mut job: v1::Job, id: JobId) -> Result<v1::Job, Error> {
        let is_held = JobState::from_word(&job.state).is_some_and(JobState::has_holder);
        if (is_held || job.state == JobState::Queued.as_str())
            && let Some(reason) = self.node.explain(id).await
        {
            job.reason = reason;
        }
        if let Some(reason) = self.explain_move(reader, &job, id)? {
            job.reason = reason;
        }
        Ok(job)
    }

    pub(super) async fn control_here(self, request: v1::ControlJobRequest) -> Result<v1::Job, Error> {
        let action = match request.action() {
            v1::JobAction::Cancel => JobAction::Cancel,
            v1::JobAction::Pause => JobAction::Pause,
            v1::JobAction::Resume => JobAction::Resume,
            v1::JobAction::Unspecified => {
                return Err(Error::new(ErrorKind::InvalidInput, "control a job: no action was given"));
            }
        };
        let (_, id, elsewhere) = self.find(&request.job).await?;
        // A cancel waits for the link by itself; the other wishes are worth something only now.
        if let Some(site) = elsewhere.filter(|_| action != JobAction::Cancel) {
            let there = v1::ControlJobRequest { job: id.to_string(), ..request };
            return self.others.ask(&site, "ControlJob", &there).await;
        }
        self.node
            .control_as(command_id(&request.request_id)?, id, action)
            .await
            .map_err(|error| self.node_failed(error))?;
        let reader = self.site.reader()?;
        self.jobs.brief(&reader, &self.jobs.rows(&reader, id)?).await
    }

    pub(super) async fn retry_here(self, request: v1::RetryJobRequest) -> Result<v1::SubmitResponse, Error> {
        self.check_reserve()?;
        let new_job = JobId::from_slice(&request.new_job_id)
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "retry a job: the new id is not 16 bytes"))?;
        let reader = self.site.current_reader().await?;
        let id = self.jobs.id(&reader, &request.job)?;
        let job = self.node.retry(id, new_job).await.map_err(|error| self.node_failed(error))?;
        Ok(v1::SubmitResponse { job_id: job.as_bytes().to_vec() })
    }

    /// The records of a job's journal, from the site that has it.
    pub(super) async fn journal_here(self, request: v1::GetJournalRequest) -> Result<v1::GetJournalResponse, Error> {
        match self.find(&request.job).await? {
            (reader, id, None) => self.jobs.journal(&reader, id, request.from).await,
            (_, id, Some(site)) => {
                let there = v1::GetJournalRequest { job: id.to_string(), ..request };
                self.others.ask(&site, "GetJournal", &there).await
            }
        }
    }

    /// What a job printed, from the site that has its journal.
    pub(super) async fn logs_here(self, request: v1::GetLogsRequest) -> Result<v1::GetLogsResponse, Error> {
        match self.find(&request.job).await? {
            (reader, id, None) => self.jobs.logs(&reader, id, request.from).await,
            (_, id, Some(site)) => {
                let there = v1::GetLogsRequest { job: id.to_string(), ..request };
                self.others.ask(&site, "GetLogs", &there).await
            }
        }
    }

    /// The job that `named` names, by a reader that knows it, and the other site that has it, if one has.
    async fn find(&self, named: &str) -> Result<(StateReader, JobId, Option<SiteName>), Error> {
        let reader = self.site.current_reader().await?;
        let id = self.jobs.id(&reader, named)?;
        let elsewhere = self.jobs.rows(&reader, id)?.other_site().cloned();
        Ok((reader, id, elsewhere))
    }

    /// Follows a job: here where this node leads, at the leader, or at the site that the request means.
    pub(super) async fn watch(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Changes>, Status> {
        let refused = |error: Error| status_of(&error);
        if let Some(site) = other_site_of(&request, &self.identity.site).map_err(refused)? {
            let changes = watch::there::follow(self.others.clone(), site, request.into_inner()).await;
            return Ok(Response::new(Box::pin(changes.map_err(refused)?)));
        }
        match place(&self.site, &request).map_err(refused)? {
            Place::Here => {
                let (site, jobs, others) = (self.site.clone(), self.jobs.clone(), self.others.clone());
                let changes = watch::follow(site, &self.node, jobs, others, request.into_inner()).await;
                Ok(Response::new(Box::pin(changes.map_err(refused)?)))
            }
            Place::There(_, channel) => {
                let mut onward = passed_on(request);
                onward.metadata_mut().remove(TIMEOUT_HEADER);
                let changes = fleet_client(channel).watch_job(onward).await?.into_inner();
                // A connection to the leader that breaks is an error that the client tries again after.
                let changes = changes.map_err(|status| status_of(&error_of(&status)));
                Ok(Response::new(Box::pin(changes)))
            }
        }
    }
}

/// The id under which a job obeys the request: the client's, the same at each of its tries, or a new one.
fn command_id(request_id: &[u8]) -> Result<CommandId, Error> {
    if request_id.is_empty() {
        return Ok(CommandId(Uuid::now_v7().as_u128()));
    }
    Uuid::from_slice(request_id)
        .map(|id| CommandId(id.as_u128()))
        .map_err(|_| Error::new(ErrorKind::InvalidInput, "control a job: the request id is not 16 bytes"))
}
