//! The site's group as the actors' port: commands get an id, a time and a deadline here.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, watch};

use fleet_core::limits::INLINE_BYTES_MAX;
use fleet_core::{BootInstant, Clock, Error, ErrorKind};
use fleet_replication::command::{Action, Command, Outcome};
use fleet_replication::{AppliedEntry, Group, Status};
use fleet_store::record::{CommandId, Content, Payload};
use fleet_store::{StateReader, Store};

use crate::ports;
use crate::ports::GroupStanding;
use crate::session::LeaderTerm;

/// How long a proposal of the actors may take before its outcome counts as unknown.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(5);

/// The group of this node's site.
#[derive(Clone)]
pub struct SiteGroup {
    group: Group,
    clock: Arc<dyn Clock>,
    standing: watch::Receiver<GroupStanding>,
    store: Store,
    reserve_bytes: u64,
}

impl SiteGroup {
    /// `group` as a port, whose state is in `store`; new work is wanted while more than `reserve_bytes` are free there.
    /// Needs a runtime: a small task follows the group's status.
    pub fn new(group: Group, clock: Arc<dyn Clock>, store: Store, reserve_bytes: u64) -> Self {
        let mut status = group.status();
        let (sender, standing) = watch::channel(standing_of(&status.borrow_and_update()));
        tokio::spawn(async move {
            while status.changed().await.is_ok() {
                let now = standing_of(&status.borrow_and_update());
                let changes = |current: &mut GroupStanding| {
                    let is_new = *current != now;
                    *current = now;
                    is_new
                };
                sender.send_if_modified(changes);
            }
        });
        Self { group, clock, standing, store, reserve_bytes }
    }
}

fn standing_of(status: &Status) -> GroupStanding {
    let serving = status.serving_term.map(|term| LeaderTerm { epoch: status.epoch, term });
    GroupStanding { leader: status.leader, serving }
}

/// The group's error as one that crosses the port.
fn crossing(operation: &'static str) -> impl FnOnce(fleet_replication::Error) -> Error {
    move |error| Error::new(error.kind(), operation).with_source(error)
}

impl ports::Group for SiteGroup {
    fn standing(&self) -> watch::Receiver<GroupStanding> {
        self.standing.clone()
    }

    fn propose_as(&self, id: CommandId, action: Action) -> BoxFuture<'static, Result<Outcome, Error>> {
        let command = Command { id, at: self.clock.now(), action };
        let group = self.group.clone();
        async move { group.propose(command, PROPOSAL_DEADLINE).await.map_err(crossing("propose a command")) }.boxed()
    }

    fn confirm_leadership(&self) -> BoxFuture<'static, Result<(), Error>> {
        let group = self.group.clone();
        async move { group.confirm_leadership().await.map(drop).map_err(crossing("confirm the leadership")) }.boxed()
    }

    fn takeover_time(&self) -> BoxFuture<'static, Result<BootInstant, Error>> {
        let group = self.group.clone();
        async move { group.takeover_time().await.map_err(crossing("ask when an earlier leader was heard")) }.boxed()
    }

    fn applied(&self) -> broadcast::Receiver<Arc<AppliedEntry>> {
        self.group.applied()
    }

    fn reader(&self) -> Result<StateReader, Error> {
        self.group.reader().map_err(crossing("read the state"))
    }

    fn put_content(&self, bytes: Payload) -> BoxFuture<'static, Result<Content, Error>> {
        let length = bytes.0.len();
        if length <= INLINE_BYTES_MAX {
            return async move { Ok(Content::Inline(bytes)) }.boxed();
        }
        let group = self.group.clone();
        async move {
            let digest = group.put_blob(bytes.0).await.map_err(crossing("store a blob"))?;
            Ok(Content::Blob { digest, length: length as u64 })
        }
        .boxed()
    }

    fn has_room(&self) -> Result<bool, Error> {
        let is_below = self.store.is_below_reserve(self.reserve_bytes);
        let failed =
            |source: fleet_store::Error| Error::new(source.kind(), "measure the free space").with_source(source);
        is_below.map(|is_below| !is_below).map_err(failed)
    }

    fn read_content(&self, content: Content) -> BoxFuture<'static, Result<Payload, Error>> {
        let group = self.group.clone();
        async move {
            match content {
                Content::Inline(payload) => Ok(payload),
                Content::Blob { digest, .. } => {
                    let bytes = group.blob(digest).await.map_err(crossing("read a blob"))?;
                    let missing = || Error::new(ErrorKind::Unavailable, format!("read blob {digest}: nobody has it"));
                    bytes.map(Payload).ok_or_else(missing)
                }
            }
        }
        .boxed()
    }
}
