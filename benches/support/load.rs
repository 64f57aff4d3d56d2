//! Clients in closed loops: each submits, waits for the answer, and submits again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;

use crate::harness::cluster::Cluster;

/// Connections that all clients of a load share: HTTP/2 carries many calls on one.
pub const CONNECTIONS_MAX: usize = 4;
/// Rare enough to cost the nodes nothing, and small beside runs of seconds.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// When a load stops.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// After this many jobs.
    Jobs(usize),
    /// After this long.
    Time(Duration),
}

/// What became of a load.
#[derive(Debug)]
pub struct Accepted {
    /// How long each submit took.
    pub times: Vec<Duration>,
    /// From the first submit to the last answer.
    pub took: Duration,
}

impl Accepted {
    /// Submits a second.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }
}

/// Clients of one fleet, on connections that are made.
pub struct Load {
    connections: Vec<FleetClient>,
    clients: usize,
}

impl Load {
    /// `clients` that ask the leader first, on at most [`CONNECTIONS_MAX`] connections.
    pub async fn new(cluster: &Cluster, clients: usize) -> Self {
        Self::at(cluster, &(0..cluster.nodes.len()).collect::<Vec<_>>(), clients).await
    }

    /// The same, of the site of the nodes `own`.
    pub async fn at(cluster: &Cluster, own: &[usize], clients: usize) -> Self {
        let leader = cluster.leader(own).await;
        let mut order = own.to_vec();
        order.rotate_left(own.iter().position(|node| *node == leader).expect("a site's leader is a node of it"));
        let connections: Vec<FleetClient> =
            (0..clients.min(CONNECTIONS_MAX)).map(|_| cluster.client_of(&order)).collect();
        for connection in &connections {
            connection.get_status(v1::GetStatusRequest {}).await.expect("the fleet answers");
        }
        Self { connections, clients }
    }

    /// One of the connections, for questions.
    pub fn connection(&self) -> &FleetClient {
        &self.connections[0]
    }

    /// Submits copies of `request`, each as a job of its own, until `bound`.
    pub async fn submit(&self, request: &v1::SubmitRequest, bound: Bound) -> Accepted {
        let started = Instant::now();
        let (jobs, deadline) = match bound {
            Bound::Jobs(jobs) => (jobs, None),
            Bound::Time(time) => (usize::MAX, Some(started + time)),
        };
        let left = Arc::new(AtomicUsize::new(jobs));
        let tasks: Vec<_> = (0..self.clients)
            .map(|number| {
                let client = self.connections[number % self.connections.len()].clone();
                let (request, left) = (request.clone(), Arc::clone(&left));
                tokio::spawn(closed_loop(client, request, left, deadline))
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("a client does not panic"));
        }
        Accepted { times, took: started.elapsed() }
    }

    /// How many jobs the fleet counts in `state`.
    pub async fn count(&self, state: &str) -> u64 {
        let status = self.connection().get_status(v1::GetStatusRequest {}).await.expect("the fleet answers");
        status.jobs.get(state).copied().unwrap_or(0)
    }

    /// Waits until the fleet counts at least `jobs` in `state`.
    ///
    /// # Panics
    /// If it does not within `bound`.
    pub async fn until_counted(&self, state: &str, jobs: u64, bound: Duration) {
        let deadline = Instant::now() + bound;
        loop {
            let counted = self.count(state).await;
            if counted >= jobs {
                return;
            }
            assert!(Instant::now() < deadline, "{counted} of {jobs} jobs are {state} after {bound:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

async fn closed_loop(
    client: FleetClient,
    request: v1::SubmitRequest,
    left: Arc<AtomicUsize>,
    deadline: Option<Instant>,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while deadline.is_none_or(|deadline| Instant::now() < deadline)
        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    {
        let call = Instant::now();
        client.submit(as_new_job(&request)).await.expect("accepted");
        times.push(call.elapsed());
    }
    times
}

/// `request` with an id of its own.
pub fn as_new_job(request: &v1::SubmitRequest) -> v1::SubmitRequest {
    v1::SubmitRequest { job_id: JobId::generate().as_bytes().to_vec(), ..request.clone() }
}

/// A request to run `workflow`; its id is still to be given.
pub fn request(workflow: Vec<u8>) -> v1::SubmitRequest {
    v1::SubmitRequest { workflow, ..v1::SubmitRequest::default() }
}
