//! The client's part about jobs that go to other sites.

use fleet_core::Error;
use tonic::{Request, Response, Status};

use super::FleetClient;
use super::retry::Repeat;
use crate::pb::v1;
use crate::pb::v1::outbox_client::OutboxClient as Stub;

type Connected = Stub<tonic::transport::Channel>;

impl FleetClient {
    /// Jobs that wait for other sites, or are at one, in pages.
    pub async fn list_outbox(&self, request: v1::ListOutboxRequest) -> Result<v1::ListOutboxResponse, Error> {
        self.call_outbox(request, |mut stub, request| async move { stub.list(request).await }).await
    }

    /// Gives up the site where a job went. A repeat is refused: the job is not under way any more.
    pub async fn abandon_move(&self, request: v1::AbandonRequest) -> Result<v1::AbandonResponse, Error> {
        self.call_outbox(request, |mut stub, request| async move { stub.abandon(request).await }).await
    }

    /// Asks for a job back that is under way to another site.
    pub async fn recall_job(&self, request: v1::RecallRequest) -> Result<v1::RecallResponse, Error> {
        self.call_outbox(request, |mut stub, request| async move { stub.recall(request).await }).await
    }

    async fn call_outbox<Req, Res, Send, Answer>(&self, request: Req, send: Send) -> Result<Res, Error>
    where
        Req: Clone,
        Send: Fn(Connected, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        self.call_with(Repeat::Safe, request, |channel, request| send(Stub::new(channel), request)).await
    }
}
