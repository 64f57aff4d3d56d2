//! What operators see and do about jobs that go to other sites. Answered by the leader.

use std::sync::Arc;

use fleet_api::pb::v1;
use fleet_api::pb::v1::outbox_client::OutboxClient;
use fleet_api::pb::v1::outbox_server::Outbox;
use fleet_core::{Clock, Error, ErrorKind, JobId, SiteName, SystemClock};
use fleet_node::Node;
use fleet_node::ports::{KnownSites, Sites};
use fleet_store::record::{JobState, Move, MoveWish};
use fleet_store::state::{jobs as state, moves};
use fleet_store::{StateRead, StateReader};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::fleet::node_failed;
use super::forward::answer;
use super::jobs::Jobs;
use super::moving;
use super::page::page_items;
use crate::ports::InterpreterPort;
use crate::site::{Site, read_failed};

/// Jobs of one page if nobody said how many.
const PAGE_DEFAULT: u32 = 50;
/// Most rows that one page looks at.
const ROWS_PER_PAGE_MAX: usize = 10_000;

/// The service.
#[derive(Clone)]
pub struct OutboxService {
    site: Site,
    node: Node,
    jobs: Jobs,
    sites: Arc<dyn Sites>,
}

impl OutboxService {
    /// Serves the outbox of `site`; `sites` knows the others.
    pub fn new(site: Site, node: Node, interpreter: InterpreterPort, sites: Arc<dyn Sites>) -> Self {
        let jobs = Jobs::new(site.clone(), interpreter);
        Self { site, node, jobs, sites }
    }

    async fn list_here(self, request: v1::ListOutboxRequest) -> Result<v1::ListOutboxResponse, Error> {
        let refused = |message: String| Error::new(ErrorKind::InvalidInput, format!("list the outbox: {message}"));
        let limit = page_items(request.limit, PAGE_DEFAULT, "jobs").map_err(refused)?;
        let site = match request.site.as_str() {
            "" => None,
            name => Some(name.parse::<SiteName>().map_err(refused)?),
        };
        let after = match request.after.as_slice() {
            [] => None,
            bytes => Some(JobId::from_slice(bytes).ok_or_else(|| refused("`after` is not a page".to_owned()))?),
        };
        let reader = self.site.current_reader().await?;
        let known = self.sites.known().borrow().clone();
        page(&reader, &known, site.as_ref(), after, limit)
    }

    /// The job that `text` names, and its state after `act` on it.
    async fn act<Acted>(&self, text: &str, act: impl FnOnce(Node, JobId) -> Acted) -> Result<(JobId, JobState), Error>
    where
        Acted: Future<Output = Result<(), fleet_node::Error>>,
    {
        let id = self.jobs.id(&self.site.current_reader().await?, text)?;
        let address = |named: Option<_>| self.site.peers().address(named.or_else(|| self.site.other_leader())?);
        act(self.node.clone(), id).await.map_err(|error| node_failed(error, address))?;
        Ok((id, self.jobs.rows(&self.site.reader()?, id)?.job.state))
    }

    async fn abandon_here(self, request: v1::AbandonRequest) -> Result<v1::AbandonResponse, Error> {
        let (job, state) = self.act(&request.job, |node, job| async move { node.abandon_move(job).await }).await?;
        Ok(v1::AbandonResponse { job_id: job.as_bytes().to_vec(), state: state.to_string() })
    }

    async fn recall_here(self, request: v1::RecallRequest) -> Result<v1::RecallResponse, Error> {
        let (job, state) = self.act(&request.job, |node, job| async move { node.recall(job).await }).await?;
        Ok(v1::RecallResponse { job_id: job.as_bytes().to_vec(), state: state.to_string() })
    }
}

/// At most `limit` jobs after `after` that went to `site`, or anywhere, and have not ended.
fn page(
    reader: &StateReader,
    known: &KnownSites,
    site: Option<&SiteName>,
    after: Option<JobId>,
    limit: usize,
) -> Result<v1::ListOutboxResponse, Error> {
    let rows = moves::after(reader, after, ROWS_PER_PAGE_MAX).map_err(read_failed)?;
    let is_last = rows.len() < ROWS_PER_PAGE_MAX;
    let (mut jobs, mut next) = (Vec::new(), None);
    for (id, moved) in rows {
        if jobs.len() == limit {
            let next = next.map_or_else(Vec::new, |id: JobId| id.as_bytes().to_vec());
            return Ok(v1::ListOutboxResponse { jobs, next, waiting: waiting(reader)? });
        }
        next = Some(id);
        let has_ended = moved.mirror.as_ref().is_some_and(|mirror| mirror.standing.state.is_ended());
        if !has_ended && site.is_none_or(|site| *site == moved.to.site) {
            jobs.push(view(reader, known, id, &moved)?);
        }
    }
    let next = next.filter(|_| !is_last).map_or_else(Vec::new, |id| id.as_bytes().to_vec());
    Ok(v1::ListOutboxResponse { jobs, next, waiting: waiting(reader)? })
}

fn waiting(reader: &impl StateRead) -> Result<u64, Error> {
    Ok(state::site(reader).map_err(read_failed)?.counters.jobs_in(JobState::Transferring))
}

fn view(reader: &StateReader, known: &KnownSites, id: JobId, moved: &Move) -> Result<v1::OutboxJob, Error> {
    let spec = state::spec(reader, id).map_err(read_failed)?;
    let state = moved.mirror.as_ref().map_or(JobState::Transferring, |mirror| mirror.standing.state);
    let wish = match moved.wish {
        Some(MoveWish::Recall) => "recall",
        Some(MoveWish::Cancel) => "cancel",
        None => "",
    };
    let said = match &moved.mirror {
        None => {
            state::job(reader, id).map_err(read_failed)?.and_then(|job| job.reason).map(|reason| reason.to_string())
        }
        Some(mirror) => Some(mirror.standing.reason.clone()).filter(|told| !told.is_empty()),
    };
    let said = said.unwrap_or_else(|| format!("at site {}", moved.to.site));
    Ok(v1::OutboxJob {
        reason: moving::why(id, moved, known.get(&moved.to.site), &said, SystemClock.now()),
        job_id: id.as_bytes().to_vec(),
        workflow: spec.map(|spec| spec.workflow.to_string()).unwrap_or_default(),
        site: moved.to.site.to_string(),
        state: state.to_string(),
        accepted: moved.mirror.is_some(),
        generation: moved.generation,
        since_ms: moved.since.0,
        wish: wish.to_owned(),
    })
}

#[tonic::async_trait]
impl Outbox for OutboxService {
    async fn list(&self, request: Request<v1::ListOutboxRequest>) -> Result<Response<v1::ListOutboxResponse>, Status> {
        let here = self.clone();
        let remote = |channel: Channel, r| async move { OutboxClient::new(channel).list(r).await };
        answer(&self.site, request, |r| here.list_here(r), remote).await
    }

    async fn abandon(&self, request: Request<v1::AbandonRequest>) -> Result<Response<v1::AbandonResponse>, Status> {
        let here = self.clone();
        let remote = |channel: Channel, r| async move { OutboxClient::new(channel).abandon(r).await };
        answer(&self.site, request, |r| here.abandon_here(r), remote).await
    }

    async fn recall(&self, request: Request<v1::RecallRequest>) -> Result<Response<v1::RecallResponse>, Status> {
        let here = self.clone();
        let remote = |channel: Channel, r| async move { OutboxClient::new(channel).recall(r).await };
        answer(&self.site, request, |r| here.recall_here(r), remote).await
    }
}
