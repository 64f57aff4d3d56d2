//! The operators' client: any of several nodes, with a credential, one deadline per call, tries by error kind, and
//! leader hints followed. Used by `fleetctl` and by programs.
//!
//! It is not a cache and keeps nothing about jobs. Every failure is a [`fleet_core::Error`].
//!
//! Invariants: without a credential it talks only to loopback; a call that is sent again is one that may be.

mod catalog;
mod outbox;
mod retry;
mod watch;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, SiteName};
use tokio::time::Instant;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::client::retry::{Course, Failure, Next, Reach, Repeat};
use crate::connect::{Connector, Established, needs_credential};
use crate::credential::Credential;
use crate::pb::v1;
use crate::pb::v1::fleet_client::FleetClient as Stub;
use crate::status::error_of;
use crate::tls::{ALPN_CLIENT, ClientTls, Trust};

pub use watch::JobWatch;

/// How long one call may take, all its tries together, unless told otherwise.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(15);
/// Where a node listens if nobody said otherwise.
pub const ENDPOINT_DEFAULT: &str = "127.0.0.1:7000";

/// Whom to talk to and how.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `host:port` of nodes, tried in order. Empty means those of the credential, else [`ENDPOINT_DEFAULT`].
    pub endpoints: Vec<String>,
    /// What to show. None means a development fleet on loopback, whose root is believed as shown.
    pub credential: Option<Credential>,
    /// How long one call may take, all its tries together.
    pub deadline: Duration,
    /// How long one try may take before another node is asked.
    pub try_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { endpoints: Vec::new(), credential: None, deadline: DEADLINE_DEFAULT, try_timeout: DEADLINE_DEFAULT / 3 }
    }
}

/// The header in which a client names the site that its call is about, where it need not be that of the node asked.
pub const SITE_HEADER: &str = "fleet-site";

/// A client of the fleet. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct FleetClient {
    shared: Arc<Shared>,
    /// The site meant, where it need not be that of the node asked.
    site: Option<AsciiMetadataValue>,
}

struct Shared {
    endpoints: Vec<String>,
    /// The endpoint that last answered.
    preferred: AtomicUsize,
    connector: Connector,
    channels: Mutex<HashMap<String, Channel>>,
    deadline: Duration,
    try_timeout: Duration,
    has_credential: bool,
}

impl FleetClient {
    /// A client with `options`. Connects when first used.
    pub fn new(options: ClientOptions) -> Result<Self, Error> {
        let tls = match &options.credential {
            Some(credential) => credential.client_tls()?,
            None => ClientTls::new(Trust::Shown),
        };
        let named = options.credential.as_ref().map(|credential| credential.endpoints.clone()).unwrap_or_default();
        let endpoints = [options.endpoints, named, vec![ENDPOINT_DEFAULT.to_owned()]]
            .into_iter()
            .find(|list| !list.is_empty())
            .unwrap_or_default();
        let shared = Shared {
            endpoints,
            preferred: AtomicUsize::new(0),
            connector: Connector::new(tls, ALPN_CLIENT, Established::FirstByte)?,
            channels: Mutex::new(HashMap::new()),
            deadline: options.deadline,
            try_timeout: options.try_timeout,
            has_credential: options.credential.is_some(),
        };
        Ok(Self { shared: Arc::new(shared), site: None })
    }

    /// The same client, whose calls are about `site`, wherever the node asked belongs.
    ///
    /// # Errors
    /// `InvalidInput` if that is no name of a site.
    pub fn at_site(&self, site: &str) -> Result<Self, Error> {
        let wrong = |problem: String| Error::new(ErrorKind::InvalidInput, problem);
        let name = site.parse::<SiteName>().map_err(wrong)?;
        let value =
            AsciiMetadataValue::try_from(name.as_str()).map_err(|_| wrong(format!("`{name}` is no site name")))?;
        Ok(Self { shared: Arc::clone(&self.shared), site: Some(value) })
    }

    /// A request with what all requests of this client carry.
    fn request<Req>(&self, message: Req) -> Request<Req> {
        let mut request = Request::new(message);
        if let Some(site) = &self.site {
            request.metadata_mut().insert(SITE_HEADER, site.clone());
        }
        request
    }

    /// The endpoints tried, in order.
    pub fn endpoints(&self) -> &[String] {
        &self.shared.endpoints
    }

    /// Accepts a workflow as a job. Safe to repeat: the request carries the job's id.
    pub async fn submit(&self, request: v1::SubmitRequest) -> Result<v1::SubmitResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.submit(request).await }).await
    }

    /// One job, by id or unique prefix.
    pub async fn get_job(&self, request: v1::GetJobRequest) -> Result<v1::Job, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.get_job(request).await }).await
    }

    /// Jobs, newest first, in pages.
    pub async fn list_jobs(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.list_jobs(request).await }).await
    }

    /// The records of a job's journal.
    pub async fn get_journal(&self, request: v1::GetJournalRequest) -> Result<v1::GetJournalResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.get_journal(request).await }).await
    }

    /// What the processes of a job printed.
    pub async fn get_logs(&self, request: v1::GetLogsRequest) -> Result<v1::GetLogsResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.get_logs(request).await }).await
    }

    /// Cancels, pauses or resumes a job. Safe to repeat: the request carries its own id.
    pub async fn control_job(&self, request: v1::ControlJobRequest) -> Result<v1::Job, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.control_job(request).await }).await
    }

    /// Submits an ended job again as a new one. Safe to repeat: the request carries the new job's id.
    pub async fn retry_job(&self, request: v1::RetryJobRequest) -> Result<v1::SubmitResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.retry_job(request).await }).await
    }

    /// The nodes of the site.
    pub async fn list_nodes(&self, request: v1::ListNodesRequest) -> Result<v1::ListNodesResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.list_nodes(request).await }).await
    }

    /// Stops or resumes placing jobs on a node.
    pub async fn drain_node(&self, request: v1::DrainNodeRequest) -> Result<v1::Node, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.drain_node(request).await }).await
    }

    /// Takes a node out of the fleet for good.
    pub async fn remove_node(&self, request: v1::RemoveNodeRequest) -> Result<v1::RemoveNodeResponse, Error> {
        self.call(Repeat::OnlyIfRefused, request, |mut stub, request| async move { stub.remove_node(request).await })
            .await
    }

    /// Takes a site out of the fleet.
    pub async fn remove_site(&self, request: v1::RemoveSiteRequest) -> Result<v1::RemoveSiteResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.remove_site(request).await }).await
    }

    /// The sites of the fleet.
    pub async fn list_sites(&self, request: v1::ListSitesRequest) -> Result<v1::ListSitesResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.list_sites(request).await }).await
    }

    /// Founds a new group after a majority was lost for good.
    pub async fn recover_site(&self, request: v1::RecoverSiteRequest) -> Result<v1::RecoverSiteResponse, Error> {
        self.call(Repeat::OnlyIfRefused, request, |mut stub, request| async move { stub.recover_site(request).await })
            .await
    }

    /// Makes a join token. Each token counts, so an unknown outcome is reported, not repeated.
    pub async fn create_token(&self, request: v1::CreateTokenRequest) -> Result<v1::CreateTokenResponse, Error> {
        self.call(Repeat::OnlyIfRefused, request, |mut stub, request| async move { stub.create_token(request).await })
            .await
    }

    /// The join tokens that can still be used.
    pub async fn list_tokens(&self, request: v1::ListTokensRequest) -> Result<v1::ListTokensResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.list_tokens(request).await }).await
    }

    /// Ends a join token.
    pub async fn revoke_token(&self, request: v1::RevokeTokenRequest) -> Result<v1::RevokeTokenResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.revoke_token(request).await }).await
    }

    /// The state of fleet, site and queue.
    pub async fn get_status(&self, request: v1::GetStatusRequest) -> Result<v1::Status, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.get_status(request).await }).await
    }

    /// The node's own checks.
    pub async fn run_doctor(&self, request: v1::RunDoctorRequest) -> Result<v1::RunDoctorResponse, Error> {
        self.call(Repeat::Safe, request, |mut stub, request| async move { stub.run_doctor(request).await }).await
    }

    /// Follows a job until it has ended, over broken links and changes of leader.
    pub async fn watch_job(&self, request: v1::WatchJobRequest) -> Result<JobWatch, Error> {
        let stream = self.open_watch(request.clone()).await?;
        Ok(JobWatch::new(self.clone(), request, stream))
    }

    async fn open_watch(&self, request: v1::WatchJobRequest) -> Result<Streaming<v1::JobChange>, Error> {
        self.run(Repeat::Safe, |channel, timeout| {
            let (mut stub, request) = (fleet(channel), self.request(request.clone()));
            async move {
                // The deadline is for the opening alone: the stream itself may last as long as the job.
                match tokio::time::timeout(timeout, stub.watch_job(request)).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(Status::deadline_exceeded("no answer before the deadline")),
                }
            }
        })
        .await
    }

    async fn call<Req, Res, Send, Answer>(&self, repeat: Repeat, request: Req, send: Send) -> Result<Res, Error>
    where
        Req: Clone,
        Send: Fn(Stub<Channel>, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        self.call_with(repeat, request, |channel, request| send(fleet(channel), request)).await
    }

    /// One call of any service: `send` makes it over a channel.
    async fn call_with<Req, Res, Send, Answer>(&self, repeat: Repeat, request: Req, send: Send) -> Result<Res, Error>
    where
        Req: Clone,
        Send: Fn(Channel, Request<Req>) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        self.run(repeat, |channel, timeout| {
            let mut request = self.request(request.clone());
            request.set_timeout(timeout);
            let answer = send(channel, request);
            async move {
                match tokio::time::timeout(timeout, answer).await {
                    Ok(outcome) => outcome,
                    Err(_) => Err(Status::deadline_exceeded("no answer before the deadline")),
                }
            }
        })
        .await
    }

    /// Runs one call to its end: tries, waits, hints.
    async fn run<Res, Send, Answer>(&self, repeat: Repeat, send: Send) -> Result<Res, Error>
    where
        Send: Fn(Channel, Duration) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        let deadline = Instant::now() + self.shared.deadline;
        let position = self.shared.preferred.load(Ordering::Relaxed);
        let mut course = Course::new(self.shared.endpoints.clone(), position, repeat);
        let Some(mut address) = course.first() else {
            return Err(Error::new(ErrorKind::InvalidInput, "no endpoint is known"));
        };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (reach, error) = match self.try_once(&address, left.min(self.shared.try_timeout), &send).await {
                Ok(answer) => {
                    self.shared.preferred.store(course.position(), Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let failure = Failure {
                kind: error.kind,
                reach,
                retry_after: error.retry_after,
                leader_hint: error.leader_hint.clone(),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match course.after(&failure, left, rand::random()) {
                Next::Try { address: next, after } if !left.is_zero() => {
                    tracing::debug!(address, next, ?after, error = %error, "call failed, trying again");
                    tokio::time::sleep(after).await;
                    address = next;
                }
                Next::Try { .. } | Next::GiveUp => return Err(self.explained(&address, error)),
            }
        }
    }

    async fn try_once<Res, Send, Answer>(
        &self,
        address: &str,
        timeout: Duration,
        send: &Send,
    ) -> Result<Res, (Reach, Error)>
    where
        Send: Fn(Channel, Duration) -> Answer,
        Answer: Future<Output = Result<Response<Res>, Status>>,
    {
        let started = Instant::now();
        let channel = self.shared.channel(address, timeout).await.map_err(|error| (Reach::NotSent, error))?;
        match send(channel, timeout.saturating_sub(started.elapsed())).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => {
                let error = error_of(&status);
                if matches!(error.kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded) {
                    self.shared.forget(address);
                }
                Err((Reach::Sent, error))
            }
        }
    }

    /// `error` with what to do about it, where the missing credential is the reason.
    fn explained(&self, address: &str, error: Error) -> Error {
        if error.kind == ErrorKind::Unauthenticated && !self.shared.has_credential && error.next_step.is_none() {
            return needs_credential(address).with_source(error);
        }
        error
    }
}

/// The client service at the other end of `channel`.
fn fleet(channel: Channel) -> Stub<Channel> {
    Stub::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}

impl Shared {
    /// A connected channel to `address`, kept for the next call.
    async fn channel(&self, address: &str, timeout: Duration) -> Result<Channel, Error> {
        if let Some(channel) = self.channels.lock().unwrap_or_else(PoisonError::into_inner).get(address) {
            return Ok(channel.clone());
        }
        let connector = self.connector.clone().with_timeout(timeout.min(crate::connect::CONNECT_TIMEOUT));
        let channel = connector.channel(address).await?;
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// Drops the channel to `address`: its next use connects anew.
    fn forget(&self, address: &str) {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}

impl std::fmt::Debug for FleetClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetClient").field("endpoints", &self.shared.endpoints).finish_non_exhaustive()
    }
}
