//! What clients ask: one method a call, each either answered here, where that is right, or passed on to the leader.

mod jobs;

use std::sync::Arc;

use fleet_api::pb::v1;
use fleet_api::pb::v1::fleet_server::Fleet;
use fleet_api::status::status_of;
use fleet_api::tls::CertificateCell;
use fleet_core::{Clock, Digest, Error, ErrorKind, NodeId, SystemClock};
use fleet_membership::Membership;
use fleet_node::Node;
use fleet_node::catalog::Between;
use fleet_node::links::Links;
use fleet_node::ports::Sites;
use fleet_replication::command::Action;
use fleet_store::StateReader;
use fleet_store::record::{JobState, NodeRecord};
use fleet_store::state::{jobs as state, sites};
use tokio::sync::watch as tokio_watch;
use tonic::{Request, Response, Status};

use super::elsewhere::OtherSites;
use super::forward::{answer, fleet_client};
use super::intake::Intake;
use super::jobs::Jobs;
use super::{convert, doctor, live, recover, removal, site_removal, tokens};
use crate::http::FactsSource;
use crate::identity::Identity;
use crate::ports::InterpreterPort;
use crate::site::{Site, not_found, read_failed};
use crate::sites::SiteLinks;

/// How long a client waits that met a full queue or outbox.
const FULL_RETRY_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// The service.
#[derive(Clone)]
pub struct FleetService {
    site: Site,
    node: Node,
    identity: Identity,
    membership: Membership,
    certificate: CertificateCell,
    root: Digest,
    intake: Intake,
    jobs: Jobs,
    links: Option<Links>,
    links_wanted: bool,
    reserve_bytes: u64,
    health: Arc<dyn FactsSource>,
    other_sites: SiteLinks,
    catalogs: Between,
    others: OtherSites,
    restart: tokio_watch::Sender<bool>,
}

/// What the service is made of.
pub struct FleetServiceParts {
    /// The site's group.
    pub site: Site,
    /// The node's actors.
    pub node: Node,
    /// Who this node is.
    pub identity: Identity,
    /// Who is alive.
    pub membership: Membership,
    /// The node's certificate.
    pub certificate: CertificateCell,
    /// SHA-256 of the fleet's root certificate.
    pub root: Digest,
    /// Compiles definitions.
    pub interpreter: InterpreterPort,
    /// Links to other nodes' actors, if they could be started.
    pub links: Option<Links>,
    /// Whether there should be links.
    pub links_wanted: bool,
    /// Free space below which new work is refused, bytes.
    pub reserve_bytes: u64,
    /// What `/health` says.
    pub health: Arc<dyn FactsSource>,
    /// Links to other sites, and what is known of these.
    pub other_sites: SiteLinks,
    /// The catalog beside those of other sites.
    pub catalogs: Between,
    /// Turned true to send the node through a stop and a start.
    pub restart: tokio_watch::Sender<bool>,
}

impl FleetService {
    /// Serves with `parts`.
    pub fn new(parts: FleetServiceParts) -> Self {
        let FleetServiceParts {
            site,
            node,
            identity,
            membership,
            certificate,
            root,
            interpreter,
            links,
            links_wanted,
            reserve_bytes,
            health,
            other_sites,
            catalogs,
            restart,
        } = parts;
        let jobs = Jobs::new(site.clone(), interpreter.clone());
        let intake = Intake::new(identity.site.clone(), interpreter);
        Self {
            site,
            node,
            identity,
            membership,
            certificate,
            root,
            intake,
            jobs,
            links,
            links_wanted,
            reserve_bytes,
            health,
            others: OtherSites::new(Arc::new(other_sites.clone())),
            other_sites,
            catalogs,
            restart,
        }
    }

    async fn submit_here(self, request: v1::SubmitRequest) -> Result<v1::SubmitResponse, Error> {
        self.check_reserve()?;
        let request = self.intake.take(request).await?;
        let job = self.node.submit(request).await.map_err(|error| self.node_failed(error))?;
        Ok(v1::SubmitResponse { job_id: job.as_bytes().to_vec() })
    }

    /// Refuses new work while the disk has less than the reserve; what was accepted goes on.
    fn check_reserve(&self) -> Result<(), Error> {
        if !self.site.store().is_below_reserve(self.reserve_bytes).map_err(read_failed)? {
            return Ok(());
        }
        let message = format!("accept a job: less than {} bytes are free on the leader's disk", self.reserve_bytes);
        Err(Error::new(ErrorKind::ResourceExhausted, message)
            .with_retry_after(std::time::Duration::from_secs(10))
            .with_next_step("Free space on the leader's disk; it takes work again by itself."))
    }

    fn node_failed(&self, error: fleet_node::Error) -> Error {
        node_failed(error, |named| self.site.peers().address(named.or_else(|| self.site.other_leader())?))
    }

    fn record(&self, name: &str) -> Result<NodeRecord, Error> {
        let nodes = self.site.nodes()?;
        nodes
            .into_iter()
            .find(|node| node.profile.name == name || node.id.to_string() == name)
            .ok_or_else(|| not_found("node", name))
    }

    fn nodes(&self) -> Result<Vec<v1::Node>, Error> {
        let (view, status) = (self.membership.current_view(), self.site.group().status().borrow().clone());
        let mut nodes: Vec<v1::Node> =
            self.site.nodes()?.iter().map(|record| convert::node(record, &view, &status)).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// The nodes with their slots at work as they say themselves, where they can be asked; else as gossip has it.
    async fn live_nodes(&self) -> Result<Vec<v1::Node>, Error> {
        let mut nodes = self.nodes()?;
        if let Some(links) = &self.links {
            let live = live::slots_busy(links, self.identity.node_id).await;
            for node in &mut nodes {
                let known = NodeId::from_slice(&node.node_id).and_then(|id| live.get(&id));
                node.slots_busy = known.copied().unwrap_or(node.slots_busy);
            }
        }
        Ok(nodes)
    }

    async fn checks(&self, local_only: bool) -> Vec<v1::Check> {
        let own = doctor::OwnParts {
            name: &self.identity.name,
            site: &self.site,
            certificate: &self.certificate,
            links: self.links.as_ref(),
            links_wanted: self.links_wanted,
            membership: &self.membership,
            other_sites: &self.other_sites,
            catalogs: &self.catalogs,
            own_address: &self.identity.advertise,
        };
        if local_only {
            return doctor::run(own).await;
        }
        let view = self.membership.current_view();
        let (mut checks, others) = tokio::join!(doctor::run(own), doctor::ask_others(&self.site, &view));
        checks.extend(others);
        checks
    }

    async fn drain_here(self, request: v1::DrainNodeRequest) -> Result<v1::Node, Error> {
        let record = self.record(&request.node)?;
        if request.drain {
            let at = |ms| SystemClock.now().saturating_add(std::time::Duration::from_millis(ms));
            let deadline = request.deadline_ms.map(at);
            self.node.drain(record.id, deadline).await.map_err(|error| self.node_failed(error))?;
        } else {
            self.node.undrain(record.id).await.map_err(|error| self.node_failed(error))?;
        }
        let (view, status) = (self.membership.current_view(), self.site.group().status().borrow().clone());
        Ok(convert::node(&self.record(&request.node)?, &view, &status))
    }

    async fn remove_here(self, request: v1::RemoveNodeRequest) -> Result<v1::RemoveNodeResponse, Error> {
        let record = self.record(&request.node)?;
        if record.id == self.identity.node_id {
            return Err(Error::new(
                ErrorKind::FailedPrecondition,
                format!("remove node {}: it leads the site", request.node),
            )
            .with_next_step(
                "Stop it first, where the site has three nodes or more: another one then leads and can remove it.",
            ));
        }
        let _alone = self.site.removing().await;
        removal::check(&self.site, record.id, &format!("remove node {}", request.node)).await?;
        self.site.propose(Action::RemoveNode { node: record.id }).await?;
        Ok(v1::RemoveNodeResponse {})
    }

    fn site_here(&self) -> Result<v1::Site, Error> {
        let reader = self.site.reader()?;
        let held = state::site(&reader).map_err(read_failed)?.hold.is_some();
        Ok(convert::site(self.site.name(), self.site.group(), &self.site.nodes()?, held))
    }

    /// Every site that is known here, by name.
    fn sites_here(&self) -> Result<Vec<v1::Site>, Error> {
        let state = self.site.reader()?;
        let mut all = self.other_sites_here(&state)?;
        all.push(self.site_here()?);
        for (group, removed) in sites::all_removed(&state).map_err(read_failed)? {
            // One that was founded under the name since is what it means now.
            if !all.iter().any(|site| site.name == removed.site.as_str()) {
                all.push(convert::removed_site(&removed.site, group));
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    /// Every other site that is known here, by name.
    fn other_sites_here(&self, state: &StateReader) -> Result<Vec<v1::Site>, Error> {
        let heard = self.other_sites.known().borrow().clone();
        let noted = sites::sites(state).map_err(read_failed)?;
        Ok(noted.iter().map(|(name, record)| convert::other_site(name, record, heard.get(name))).collect())
    }

    fn status_here(&self) -> Result<v1::Status, Error> {
        let reader = self.site.reader()?;
        let counters = state::site(&reader).map_err(read_failed)?.counters;
        let jobs = JobState::ALL.iter().map(|state| (state.as_str().to_owned(), counters.jobs_in(*state))).collect();
        let mut nodes = std::collections::HashMap::new();
        for node in self.nodes()? {
            *nodes.entry(node.state).or_default() += 1;
        }
        let health = self.health.facts().document();
        Ok(v1::Status {
            fleet_id: self.identity.fleet_id.as_bytes().to_vec(),
            node: self.identity.name.clone(),
            site: Some(self.site_here()?),
            other_sites: self.other_sites_here(&reader)?,
            nodes,
            jobs,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            health: health.status.as_str().to_owned(),
            dev: self.identity.dev,
            now_ms: SystemClock.now().0,
            checks: convert::health_checks(&self.identity.name, health),
        })
    }
}

/// An error of the node's actors as callers see it. Where another node leads, `leader` is where it answers.
pub(super) fn node_failed(error: fleet_node::Error, leader: impl FnOnce(Option<NodeId>) -> Option<String>) -> Error {
    let named = match &error {
        fleet_node::Error::NotLeader { leader, .. } => *leader,
        _ => None,
    };
    let kind = error.kind();
    let next_step = match &error {
        fleet_node::Error::Refused { refusal, .. } => refusal.next_step(),
        _ => None,
    };
    let mut failed = Error::new(kind, fleet_core::error::chain(&error)).with_source(error);
    failed.next_step = next_step.map(str::to_owned);
    if kind == ErrorKind::ResourceExhausted {
        failed.retry_after = Some(FULL_RETRY_AFTER);
    }
    match (kind == ErrorKind::NotLeader).then(|| leader(named)).flatten() {
        Some(address) => failed.with_leader_hint(address),
        None => failed,
    }
}

fn done<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| status_of(&error))
}

#[tonic::async_trait]
impl Fleet for FleetService {
    async fn submit(&self, request: Request<v1::SubmitRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let here = self.clone();
        answer(&self.site, request, |r| here.submit_here(r), |c, r| async move { fleet_client(c).submit(r).await })
            .await
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        let here = self.clone();
        answer(&self.site, request, |r| here.get_here(r), |c, r| async move { fleet_client(c).get_job(r).await }).await
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        let here = self.clone();
        let local = |request: v1::ListJobsRequest| async move { here.list_here(&request).await };
        answer(&self.site, request, local, |c, r| async move { fleet_client(c).list_jobs(r).await }).await
    }

    type WatchJobStream = jobs::Changes;

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        self.watch(request).await
    }

    async fn get_journal(
        &self,
        request: Request<v1::GetJournalRequest>,
    ) -> Result<Response<v1::GetJournalResponse>, Status> {
        let here = self.clone();
        let remote = |c, r| async move { fleet_client(c).get_journal(r).await };
        answer(&self.site, request, |r| here.journal_here(r), remote).await
    }

    async fn get_logs(&self, request: Request<v1::GetLogsRequest>) -> Result<Response<v1::GetLogsResponse>, Status> {
        let here = self.clone();
        answer(&self.site, request, |r| here.logs_here(r), |c, r| async move { fleet_client(c).get_logs(r).await })
            .await
    }

    async fn control_job(&self, request: Request<v1::ControlJobRequest>) -> Result<Response<v1::Job>, Status> {
        let here = self.clone();
        let remote = |c, r| async move { fleet_client(c).control_job(r).await };
        answer(&self.site, request, |r| here.control_here(r), remote).await
    }

    async fn retry_job(&self, request: Request<v1::RetryJobRequest>) -> Result<Response<v1::SubmitResponse>, Status> {
        let here = self.clone();
        answer(&self.site, request, |r| here.retry_here(r), |c, r| async move { fleet_client(c).retry_job(r).await })
            .await
    }

    async fn list_nodes(&self, _: Request<v1::ListNodesRequest>) -> Result<Response<v1::ListNodesResponse>, Status> {
        done(self.live_nodes().await.map(|nodes| v1::ListNodesResponse { nodes }))
    }

    async fn drain_node(&self, request: Request<v1::DrainNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let here = self.clone();
        answer(&self.site, request, |r| here.drain_here(r), |c, r| async move { fleet_client(c).drain_node(r).await })
            .await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let here = self.clone();
        let remote = |c, r| async move { fleet_client(c).remove_node(r).await };
        answer(&self.site, request, |r| here.remove_here(r), remote).await
    }

    async fn list_sites(&self, _: Request<v1::ListSitesRequest>) -> Result<Response<v1::ListSitesResponse>, Status> {
        done(self.sites_here().map(|sites| v1::ListSitesResponse { sites }))
    }

    async fn remove_site(
        &self,
        request: Request<v1::RemoveSiteRequest>,
    ) -> Result<Response<v1::RemoveSiteResponse>, Status> {
        let here = self.clone();
        let local = |request: v1::RemoveSiteRequest| async move {
            site_removal::remove(&here.site, &here.identity, &request.site).await
        };
        answer(&self.site, request, local, |c, r| async move { fleet_client(c).remove_site(r).await }).await
    }

    async fn recover_site(
        &self,
        request: Request<v1::RecoverSiteRequest>,
    ) -> Result<Response<v1::RecoverSiteResponse>, Status> {
        done(recover::recover(&self.site, &self.membership, &self.restart, request.into_inner()).await)
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let here = self.clone();
        let local = |request| async move { tokens::create(&here.site, &here.identity, here.root, request).await };
        answer(&self.site, request, local, |c, r| async move { fleet_client(c).create_token(r).await }).await
    }

    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let here = self.clone();
        let local = |_| async move { tokens::list(&here.site).await };
        answer(&self.site, request, local, |c, r| async move { fleet_client(c).list_tokens(r).await }).await
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let here = self.clone();
        let local =
            |request: v1::RevokeTokenRequest| async move { tokens::revoke(&here.site, &request.token_id).await };
        answer(&self.site, request, local, |c, r| async move { fleet_client(c).revoke_token(r).await }).await
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        done(self.status_here())
    }

    async fn run_doctor(
        &self,
        request: Request<v1::RunDoctorRequest>,
    ) -> Result<Response<v1::RunDoctorResponse>, Status> {
        let checks = self.checks(request.into_inner().local_only).await;
        Ok(Response::new(v1::RunDoctorResponse { checks }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_lead_says_who_does() {
        let leader = NodeId::generate();
        let error = fleet_node::Error::NotLeader { operation: "submit a job", leader: Some(leader) };
        let failed = node_failed(error, |named| named.filter(|node| *node == leader).map(|_| "host:7000".to_owned()));
        assert_eq!((failed.kind, failed.leader_hint.as_deref()), (ErrorKind::NotLeader, Some("host:7000")));
        let other = node_failed(fleet_node::Error::JobUnknown("a".to_owned()), |_| Some("host:7000".to_owned()));
        assert_eq!((other.kind, other.leader_hint), (ErrorKind::NotFound, None));
    }
}
