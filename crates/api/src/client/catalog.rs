//! The calls of the catalog. All are safe to repeat.

use fleet_core::Error;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use tonic::transport::Channel;

use crate::client::FleetClient;
use crate::client::retry::Repeat;
use crate::pb::v1;
use crate::pb::v1::catalog_client::CatalogClient;

impl FleetClient {
    /// Adds versions of workflows to the catalog, all or none.
    pub async fn deploy(&self, request: v1::DeployRequest) -> Result<v1::DeployResponse, Error> {
        let send = |channel, request| async move { catalog(channel).deploy(request).await };
        self.call_with(Repeat::Safe, request, send).await
    }

    /// Versions of workflows, in pages.
    pub async fn list_workflows(&self, request: v1::ListWorkflowsRequest) -> Result<v1::ListWorkflowsResponse, Error> {
        let send = |channel, request| async move { catalog(channel).list_workflows(request).await };
        self.call_with(Repeat::Safe, request, send).await
    }

    /// One version of a workflow, with its file.
    pub async fn get_workflow(&self, request: v1::GetWorkflowRequest) -> Result<v1::Workflow, Error> {
        let send = |channel, request| async move { catalog(channel).get_workflow(request).await };
        self.call_with(Repeat::Safe, request, send).await
    }

    /// Takes one version of a workflow out of the catalog.
    pub async fn delete_workflow(
        &self,
        request: v1::DeleteWorkflowRequest,
    ) -> Result<v1::DeleteWorkflowResponse, Error> {
        let send = |channel, request| async move { catalog(channel).delete_workflow(request).await };
        self.call_with(Repeat::Safe, request, send).await
    }
}

fn catalog(channel: Channel) -> CatalogClient<Channel> {
    CatalogClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}
