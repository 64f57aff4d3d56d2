//! Following a job: its state now, then each change as it is applied, until it has ended.

use fleet_api::pb::v1;
use fleet_api::status::status_of;
use fleet_core::{Error, ErrorKind, JobId};
use fleet_node::Node;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::jobs::{Jobs, has_ended};
use crate::site::Site;

/// Changes that wait for a slow client; past that it is waited for, and what it missed is read from the state.
const CHANGES_WAITING_MAX: usize = 16;

/// Follows the job that `name` names.
///
/// # Errors
/// `NotFound` if there is none.
pub(super) async fn follow(
    site: Site,
    node: &Node,
    jobs: Jobs,
    name: &str,
) -> Result<impl Stream<Item = Result<v1::JobChange, Status>> + Send + use<>, Error> {
    let id = jobs.id(&site.current_reader().await?, name)?;
    // Watched before the first read, so that no change falls between them.
    let mut changes = node.watch(id);
    let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
    // Owned by its stream: it ends when the job or its reader does.
    tokio::spawn(async move {
        let mut told = String::new();
        loop {
            match tell(&site, &jobs, id, &mut told, &sender).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // A reader that is gone misses nothing.
                    let _gone = sender.send(Err(status_of(&error))).await;
                    return;
                }
            }
            tokio::select! {
                more = changes.changed() => if !more { return },
                () = deposed(&site) => {
                    let _gone = sender.send(Err(status_of(&no_longer_leading(&site)))).await;
                    return;
                }
                () = sender.closed() => return,
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Resolves once this node does not lead and serve any more: what it would tell could be old.
async fn deposed(site: &Site) {
    let mut status = site.group().status();
    // An error means that the group is gone, and with it the leadership.
    let _gone = status.wait_for(|status| status.serving_term.is_none()).await;
}

/// Why a watch ends early: the client opens it again, at the new leader.
fn no_longer_leading(site: &Site) -> Error {
    Error::new(ErrorKind::Unavailable, format!("watch a job: this node leads site {} no more", site.name()))
}

/// Sends the job as it is now, unless its state is the one told last; whether there is more to come.
async fn tell(
    site: &Site,
    jobs: &Jobs,
    id: JobId,
    told: &mut String,
    sender: &mpsc::Sender<Result<v1::JobChange, Status>>,
) -> Result<bool, Error> {
    let reader = site.reader()?;
    let ended = has_ended(&reader, id)?;
    let mut job = jobs.view(&reader, id, !ended).await?;
    if job.state == *told {
        return Ok(!ended);
    }
    told.clone_from(&job.state);
    job.input.clear();
    let sent = sender.send(Ok(v1::JobChange { job: Some(job) })).await;
    Ok(sent.is_ok() && !ended)
}
