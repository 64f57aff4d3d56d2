//! What clients ask about the catalog, and what other nodes do. Any node answers from its own copy.

use fleet_api::pb::peer::CatalogMessage;
use fleet_api::pb::peer::catalog_sync_server::CatalogSync;
use fleet_api::pb::v1;
use fleet_api::pb::v1::catalog_server::Catalog as CatalogApi;
use fleet_api::status::status_of;
use fleet_core::{Error, ErrorKind, NodeId};
use fleet_membership::{Membership, View};
use fleet_node::catalog::{Catalog, WorkflowRow};
use fleet_store::record::WorkflowName;
use prost::Message;
use tonic::{Request, Response, Status};

use super::intake::Intake;
use super::page::{PAGE_ITEMS_MAX, Room, page_items};
use crate::listener::PeerIdentity;
use crate::ports::InterpreterPort;
use crate::site::{Site, read_failed};

/// Most files of one deployment.
const FILES_MAX: usize = 1_000;

/// The services.
#[derive(Clone)]
pub struct CatalogService {
    catalog: Catalog,
    site: Site,
    membership: Membership,
    intake: Intake,
    reserve_bytes: u64,
}

impl CatalogService {
    /// Serves `catalog` at `site`, whose nodes `membership` knows; takes no new workflows while less than `reserve_bytes`
    /// are free.
    pub fn new(
        catalog: Catalog,
        site: Site,
        membership: Membership,
        interpreter: InterpreterPort,
        reserve_bytes: u64,
    ) -> Result<Self, Error> {
        let name = site.name().parse().map_err(|reason: String| Error::new(ErrorKind::Internal, reason))?;
        Ok(Self { catalog, site, membership, intake: Intake::new(name, interpreter), reserve_bytes })
    }

    async fn deploy_here(&self, request: v1::DeployRequest) -> Result<v1::DeployResponse, Error> {
        if self.site.store().is_below_reserve(self.reserve_bytes).map_err(read_failed)? {
            let message = format!("deploy: less than {} bytes are free on this node's disk", self.reserve_bytes);
            return Err(Error::new(ErrorKind::ResourceExhausted, message)
                .with_next_step("Free space on the node's disk, or deploy on another node."));
        }
        let count = request.files.len();
        if count == 0 || count > FILES_MAX {
            let message = format!("deploy: {count} files are given, 1 to {FILES_MAX} are taken at once");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let mut files = Vec::with_capacity(count);
        for (position, file) in (1..).zip(request.files) {
            let name = self.intake.check(&file).await.map_err(|error| at_file(error, position, count))?;
            files.push((name, file));
        }
        let deployed = self.catalog.deploy(files).await?;
        let workflows = deployed.into_iter().map(|one| v1::DeployedWorkflow {
            workflow: one.name.to_string(),
            digest: one.digest.0.to_vec(),
            is_new: one.is_new,
        });
        Ok(v1::DeployResponse { workflows: workflows.collect() })
    }

    fn list_here(&self, request: &v1::ListWorkflowsRequest) -> Result<v1::ListWorkflowsResponse, Error> {
        let refused = |message: String| Error::new(ErrorKind::InvalidInput, format!("list workflows: {message}"));
        let limit = page_items(request.limit, PAGE_ITEMS_MAX, "workflows").map_err(refused)?;
        let all = self.catalog.workflows(Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty()));
        // A page begins behind a name rather than at a number: the catalog changes between two pages.
        let from = match request.page.as_str() {
            "" => 0,
            page => {
                let after = parse_name(page).ok_or_else(|| refused(format!("`{page}` is not a page")))?;
                all.partition_point(|row| fleet_node::catalog::order(&row.name, &after).is_le())
            }
        };
        let (mut workflows, mut room) = (Vec::new(), Room::beside(0));
        let mut rows = all.get(from..).unwrap_or_default().iter().peekable();
        while let Some(row) = rows.peek() {
            let mut workflow = self.view(row);
            if request.with_files {
                workflow.file = self.catalog.file(&row.name)?.unwrap_or_default();
            }
            if workflows.len() >= limit || !room.takes(workflow.encoded_len()) {
                break;
            }
            workflows.push(workflow);
            rows.next();
        }
        let last = workflows.last().filter(|_| rows.peek().is_some());
        let next = last.map(|last| format!("{}/{}:{}", last.namespace, last.name, last.version)).unwrap_or_default();
        Ok(v1::ListWorkflowsResponse { workflows, next })
    }

    fn get_here(&self, request: &v1::GetWorkflowRequest) -> Result<v1::Workflow, Error> {
        let version = Some(request.version.as_str()).filter(|version| !version.is_empty());
        let (row, file) = self.catalog.workflow(&request.namespace, &request.name, version)?;
        Ok(v1::Workflow { file, ..self.view(&row) })
    }

    async fn delete_here(&self, request: v1::DeleteWorkflowRequest) -> Result<v1::DeleteWorkflowResponse, Error> {
        let v1::DeleteWorkflowRequest { namespace, name, version } = request;
        self.catalog.delete(WorkflowName { namespace, name, version }).await?;
        Ok(v1::DeleteWorkflowResponse {})
    }

    fn view(&self, row: &WorkflowRow) -> v1::Workflow {
        v1::Workflow {
            namespace: row.name.namespace.clone(),
            name: row.name.name.clone(),
            version: row.name.version.clone(),
            digest: row.digest.0.to_vec(),
            file_bytes: row.file_bytes,
            deployed_ms: row.deployed_at.0,
            deployed_by: self.node_name(row.deployed_by),
            file: Vec::new(),
        }
    }

    fn node_name(&self, node: NodeId) -> String {
        let elsewhere = self.membership.wan_view().borrow().clone();
        name_of(node, &self.membership.current_view(), &elsewhere)
    }
}

/// The name of `node`: of one of this site by `view`, of one that is found `elsewhere` with its site before it, else its id.
/// Of another site gossip knows the leader and up to two more voters.
fn name_of(node: NodeId, view: &View, elsewhere: &View) -> String {
    let own = view.get(node).and_then(|member| member.metadata.as_ref()).map(|metadata| metadata.name.clone());
    let other = || {
        let metadata = elsewhere.get(node)?.metadata.as_ref()?;
        Some(format!("{}/{}", metadata.site, metadata.name))
    };
    own.or_else(other).unwrap_or_else(|| node.to_string())
}

/// The name in `namespace/name:version`.
fn parse_name(text: &str) -> Option<WorkflowName> {
    let (namespace, rest) = text.split_once('/')?;
    let (name, version) = rest.split_once(':')?;
    Some(WorkflowName { namespace: namespace.to_owned(), name: name.to_owned(), version: version.to_owned() })
}

/// `error` with which of several files it is about.
fn at_file(mut error: Error, position: usize, count: usize) -> Error {
    let message = error.message.strip_prefix("submit: ").unwrap_or(&error.message);
    let which = if count > 1 { format!("file {position} of {count}: ") } else { String::new() };
    error.message = format!("deploy: {which}{message}");
    error
}

fn done<T>(result: Result<T, Error>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| status_of(&error))
}

#[tonic::async_trait]
impl CatalogApi for CatalogService {
    async fn deploy(&self, request: Request<v1::DeployRequest>) -> Result<Response<v1::DeployResponse>, Status> {
        done(self.deploy_here(request.into_inner()).await)
    }

    async fn list_workflows(
        &self,
        request: Request<v1::ListWorkflowsRequest>,
    ) -> Result<Response<v1::ListWorkflowsResponse>, Status> {
        done(self.list_here(&request.into_inner()))
    }

    async fn get_workflow(&self, request: Request<v1::GetWorkflowRequest>) -> Result<Response<v1::Workflow>, Status> {
        done(self.get_here(&request.into_inner()))
    }

    async fn delete_workflow(
        &self,
        request: Request<v1::DeleteWorkflowRequest>,
    ) -> Result<Response<v1::DeleteWorkflowResponse>, Status> {
        done(self.delete_here(request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl CatalogSync for CatalogService {
    async fn ask(&self, request: Request<CatalogMessage>) -> Result<Response<CatalogMessage>, Status> {
        PeerIdentity::of_request(request.extensions()).require_node().map_err(|error| status_of(&error))?;
        let answer = self.catalog.answer(&request.into_inner().payload.into()).await;
        done(answer.map(|payload| CatalogMessage { payload: payload.0.into() }))
    }
}
