//! Work with every actor link down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use fleet_core::{Error, ErrorKind, NodeId, SiteName};
use fleet_membership::{Member, MemberState, Metadata, MetadataVersion, View};
use fleet_node::links::{Answer, Answerer, Dialer, LinkStream, Links, LinksConfig, Request};
use fleet_store::record::JobState;

use crate::support::{Fleet, done, id};

/// Reaches nobody, and counts how often it was to.
#[derive(Default)]
struct Unreachable {
    dials: AtomicUsize,
}

impl Dialer for Unreachable {
    fn dial(&self, _: NodeId, _: String) -> BoxFuture<'static, Result<LinkStream, Error>> {
        self.dials.fetch_add(1, Ordering::SeqCst);
        async { Err(Error::new(ErrorKind::Unavailable, "connect")) }.boxed()
    }
}

struct Silent;

impl Answerer for Silent {
    fn answer(&self, _: Request) -> BoxFuture<'static, Result<Answer, Error>> {
        async { Err(Error::new(ErrorKind::Unsupported, "answer")) }.boxed()
    }
}

fn view(own: NodeId, nodes: &[NodeId]) -> View {
    let member = |node: &NodeId| Member {
        node: *node,
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        incarnation: 1,
        state: MemberState::Alive,
        metadata_version: MetadataVersion::default(),
        metadata: Some(Arc::new(Metadata { grpc_address: "nowhere:1".to_owned(), ..Metadata::default() })),
    };
    View::new(own, 1, nodes.iter().map(|node| (*node, member(node))).collect())
}

#[tokio::test(start_paused = true)]
async fn jobs_run_and_are_controlled_while_no_actor_link_can_be_made() {
    let fleet = Fleet::start(3, &[2, 3]).await;
    let dialer = Arc::new(Unreachable::default());
    let (_views, viewed) = watch::channel(Arc::new(view(id(1), &[id(1), id(2), id(3)])));
    let config = LinksConfig { node: id(1), site: SiteName::default(), cookie: "secret".to_owned() };
    let links = Links::start(config, viewed, dialer.clone(), Arc::new(Silent)).await.unwrap();

    let job = fleet.submit(1, "call call").await;
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    let cancelled = fleet.submit(1, "call").await;
    let run = fleet.effects.next().await;
    fleet.node(1).control(cancelled, fleet_node::JobAction::Cancel).await.unwrap();
    fleet.log.reaches(cancelled, JobState::Cancelled).await;
    assert!(run.end.is_closed());

    assert!(links.linked().is_empty());
    let asked_at = tokio::time::Instant::now();
    let refused = links.ask(id(2), Request::Status, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    assert!(asked_at.elapsed() < Duration::from_secs(1), "who cannot be asked is not waited for");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(dialer.dials.load(Ordering::SeqCst) > 2, "links are tried on and on");
    links.stop().await;
}
