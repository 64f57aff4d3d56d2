//! Following a job over interruptions: the stream is opened again, and what was already seen is left out.
//!
//! Invariants: the sequence ends when the job has ended, never because a link broke; one broken link costs no item.

use std::time::Duration;

use fleet_core::{Error, ErrorKind};
use tonic::Streaming;

use crate::client::FleetClient;
use crate::client::retry::backoff;
use crate::pb::v1;
use crate::status::error_of;

/// Streams that may break one after the other without an item between them.
const BREAKS_MAX: u32 = 8;
/// The states in which a job has ended.
const ENDED: [&str; 5] = ["completed", "failed", "cancelled", "timed_out", "dead_lettered"];

/// A job being followed. Dropping it ends the stream.
pub struct JobWatch {
    client: FleetClient,
    request: v1::WatchJobRequest,
    stream: Option<Streaming<v1::JobChange>>,
    /// The job as last told.
    last: Option<v1::Job>,
    breaks: u32,
}

impl JobWatch {
    pub(crate) fn new(client: FleetClient, request: v1::WatchJobRequest, stream: Streaming<v1::JobChange>) -> Self {
        Self { client, request, stream: Some(stream), last: None, breaks: 0 }
    }

    /// The next change; `None` after the job has ended. Tasks may be told again after a link broke.
    pub async fn next(&mut self) -> Result<Option<v1::JobChange>, Error> {
        loop {
            if self.last.as_ref().is_some_and(has_ended) {
                return Ok(None);
            }
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let opened = self.client.open_watch(self.request.clone()).await?;
                    self.stream.insert(opened)
                }
            };
            match stream.message().await {
                Ok(Some(change)) if change.tasks.is_empty() && self.last == change.job => {}
                Ok(Some(change)) => {
                    self.breaks = 0;
                    if change.job.is_some() {
                        self.last.clone_from(&change.job);
                    }
                    return Ok(Some(change));
                }
                Ok(None) => {
                    self.broken(Error::new(ErrorKind::Unavailable, "the node ended the watch before the job ended"))
                        .await?;
                }
                Err(status) => self.broken(error_of(&status)).await?,
            }
        }
    }

    /// Prepares for another stream after `error`, or gives up with it.
    async fn broken(&mut self, error: Error) -> Result<(), Error> {
        self.stream = None;
        self.breaks += 1;
        if !error.kind.is_retryable() || self.breaks > BREAKS_MAX {
            return Err(error);
        }
        let delay: Duration = backoff(self.breaks - 1, rand::random());
        tokio::time::sleep(delay).await;
        Ok(())
    }
}

impl std::fmt::Debug for JobWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JobWatch").field("job", &self.request.job).field("breaks", &self.breaks).finish_non_exhaustive()
    }
}

fn has_ended(job: &v1::Job) -> bool {
    ENDED.contains(&job.state.as_str())
}
