//! Clients that keep a fleet busy while faults happen: each submits under idempotency keys, to any node, and to another
//! one where that gives no answer.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{ErrorKind, JobId, SiteName};

use crate::harness::history::{History, Told};
use crate::harness::seed::Random;
use crate::harness::workflows;

/// How long a client waits for one node.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);
/// Nodes that a client asks before it gives a job up for now.
const TRIES_MAX: usize = 4;
/// Pause of a client between two jobs, milliseconds: shortest and longest.
const PAUSE_MS: (usize, usize) = (400, 1_200);
/// How long after its acceptance a client changes its mind about a job, at most, milliseconds: about as long as a move takes.
const MIND_MS_MAX: usize = 600;

/// What a client submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// Several short calls in a row.
    Calls,
    /// Few long ones.
    LongCalls,
    /// A wait, for which the job leaves its robot, then a call.
    Wait,
    /// A process that calls several times.
    Process,
}

/// A job that a client wants, with all that is needed to ask for it again.
#[derive(Clone)]
struct Wanted {
    key: String,
    workflow: Vec<u8>,
    steps: Vec<String>,
    output: Option<serde_json::Value>,
    may_park: bool,
}

/// What all clients of a run share.
struct Shared {
    site: SiteName,
    /// The site that all jobs are for, where that is another one.
    target: Option<SiteName>,
    /// One client for each node of the site.
    nodes: Vec<FleetClient>,
    recorder: String,
    history: Mutex<History>,
    parking: Mutex<HashSet<JobId>>,
    /// Whether clients cancel some of their jobs and call some back, soon after they were accepted.
    is_fickle: bool,
    /// Those that nobody has accepted yet.
    unanswered: Mutex<Vec<Wanted>>,
    is_over: AtomicBool,
}

/// The running clients.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

/// The clients of one site.
#[derive(Clone)]
pub(crate) struct Clients<'a> {
    /// Their site.
    pub(crate) site: &'a str,
    /// The site that all their jobs are for; empty for their own.
    pub(crate) target: &'a str,
    /// One connection for each node of their site.
    pub(crate) nodes: Vec<FleetClient>,
    /// What jobs call.
    pub(crate) recorder: String,
    /// How many they are.
    pub(crate) count: u64,
    /// Whether they cancel some of their jobs and call some back, soon after these were accepted.
    pub(crate) is_fickle: bool,
    /// What all their choices follow from.
    pub(crate) seed: u64,
}

impl Load {
    /// Sets `clients` to work.
    pub(crate) fn start(clients: Clients<'_>) -> Self {
        let Clients { site, target, nodes, recorder, count, is_fickle, seed } = clients;
        let shared = Arc::new(Shared {
            site: site.parse().expect("it is a site's name"),
            target: (!target.is_empty()).then(|| target.parse().expect("it is a site's name")),
            nodes,
            recorder,
            history: Mutex::default(),
            parking: Mutex::default(),
            is_fickle,
            unanswered: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let run = |client| {
            let random = Random::new(seed.wrapping_add(client).wrapping_mul(0x9E37_79B9));
            tokio::spawn(Arc::clone(&shared).keep_busy(client, random))
        };
        let clients = (0..count).map(run).collect();
        Self { shared, clients }
    }

    /// Jobs that may park, so far: where these are says nothing about promise 8.
    pub(crate) fn parking(&self) -> HashSet<JobId> {
        self.shared.parking.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many submits nobody accepted so far, however often they were tried.
    pub(crate) fn unanswered(&self) -> usize {
        self.shared.unanswered.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).accepted()
    }

    /// Submits once by each node of `nodes` whatever it takes, at most `bound`: with links in order everybody accepts.
    pub(crate) async fn submit_to_each(&self, round: usize, nodes: &[usize], bound: Duration) {
        let submits = nodes.iter().map(|node| {
            let shared = Arc::clone(&self.shared);
            let wanted = shared.wanted(Work::Calls, &format!("{}-healed{round}-{node}-", shared.site.as_str()));
            let node = *node;
            tokio::spawn(async move {
                let deadline = tokio::time::Instant::now() + bound;
                while !shared.submit(&wanted, &[node]).await {
                    assert!(tokio::time::Instant::now() < deadline, "waited {bound:?} for node {node} to accept a job");
                }
            })
        });
        for submit in submits.collect::<Vec<_>>() {
            submit.await.expect("each node accepts a job");
        }
    }

    /// Ends the clients, asks again for what nobody has accepted yet, and gives what they were told.
    pub(crate) async fn finish(self) -> History {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client does not panic");
        }
        let unanswered = std::mem::take(&mut *self.shared.unanswered.lock().unwrap_or_else(PoisonError::into_inner));
        let everybody: Vec<usize> = (0..self.shared.nodes.len()).collect();
        eprintln!("{} submits had no answer while faults held", unanswered.len());
        for wanted in unanswered {
            let is_accepted = self.shared.submit(&wanted, &everybody).await;
            assert!(is_accepted, "everything is healed, and nobody accepts `{}`", wanted.key);
        }
        self.shared.history.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    async fn keep_busy(self: Arc<Self>, client: u64, mut random: Random) {
        for number in 0_u64.. {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let work = match random.below(8) {
                0..=3 => Work::Calls,
                4 | 5 => Work::LongCalls,
                6 => Work::Wait,
                _ => Work::Process,
            };
            let wanted = self.wanted(work, &format!("{}-c{client}-{number}-", self.site.as_str()));
            let nodes: Vec<usize> = (0..TRIES_MAX).map(|_| random.below(self.nodes.len())).collect();
            if !self.submit(&wanted, &nodes).await {
                self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push(wanted);
            } else if self.is_fickle {
                self.change_mind(&wanted, nodes[0], &mut random).await;
            }
            let pause_ms = PAUSE_MS.0 + random.below(PAUSE_MS.1 - PAUSE_MS.0);
            tokio::time::sleep(Duration::from_millis(pause_ms as u64)).await;
        }
    }

    /// Cancels a job that was accepted, or calls it back, or leaves it alone. Whatever is answered: it may have been too late.
    async fn change_mind(&self, wanted: &Wanted, node: usize, random: &mut Random) {
        let (choice, after_ms) = (random.below(3), random.below(MIND_MS_MAX));
        if choice == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(after_ms as u64)).await;
        let id = self.id_of(wanted);
        {
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.changed.insert(id);
            history.outputs.remove(&id);
        }
        let (client, job) = (&self.nodes[node], id.to_string());
        let answer = if choice == 1 {
            let action = v1::JobAction::Cancel.into();
            client.control_job(v1::ControlJobRequest { job, action, request_id: Vec::new() }).await.map(drop)
        } else {
            client.recall_job(v1::RecallRequest { job }).await.map(drop)
        };
        drop(answer);
    }

    /// The id that a job gets by its key.
    fn id_of(&self, wanted: &Wanted) -> JobId {
        let site = self.target.as_ref().unwrap_or(&self.site);
        JobId::from_idempotency_key(site, workflows::NAMESPACE, &wanted.key)
    }

    fn wanted(&self, work: Work, prefix: &str) -> Wanted {
        let steps = |count: usize| (0..count).map(|step| format!("{prefix}{step}")).collect::<Vec<_>>();
        let calls = |count, ms| (workflows::calls_that_add_up(&self.recorder, prefix, count, ms), steps(count));
        let (workflow, steps) = match work {
            Work::Calls => calls(4, 120),
            Work::LongCalls => calls(2, 1_500),
            Work::Wait => (workflows::wait_then_call(&self.recorder, &format!("{prefix}0"), 1_500), steps(1)),
            Work::Process => (workflows::shell_posts(&self.recorder, &format!("{prefix}0"), 3), Vec::new()),
        };
        let output = matches!(work, Work::Calls | Work::LongCalls).then(|| serde_json::json!(steps));
        Wanted { key: prefix.to_owned(), workflow, steps, output, may_park: work == Work::Wait }
    }

    /// Submits `wanted` to one of `nodes` after the other until one accepts it, and notes what was told.
    async fn submit(&self, wanted: &Wanted, nodes: &[usize]) -> bool {
        let expected = self.id_of(wanted);
        let request = v1::SubmitRequest {
            workflow: wanted.workflow.clone(),
            idempotency_key: wanted.key.clone(),
            site: self.target.as_ref().map(|site| site.as_str().to_owned()).unwrap_or_default(),
            ..v1::SubmitRequest::default()
        };
        let mut kinds = BTreeSet::new();
        for node in nodes {
            match self.nodes[*node].submit(request.clone()).await {
                Ok(answer) => {
                    assert_eq!(answer.job_id, expected.as_bytes(), "a key is one job, whoever is asked");
                    self.note(wanted, expected, Told::Accepted);
                    return true;
                }
                Err(error) => drop(kinds.insert(error.kind)),
            }
        }
        let refusal = kinds.first().copied().filter(|kind| kinds.len() == 1 && is_refusal(*kind));
        self.note(wanted, expected, refusal.map_or(Told::Unknown, Told::Refused));
        false
    }

    fn note(&self, wanted: &Wanted, job: JobId, told: Told) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.submits.retain(|(known, _, _)| *known != job);
        history.submits.push((job, told, wanted.steps.clone()));
        if let Some(output) = &wanted.output {
            history.outputs.insert(job, output.clone());
        }
        if wanted.may_park {
            self.parking.lock().unwrap_or_else(PoisonError::into_inner).insert(job);
        }
    }
}

/// Whether an answer of this kind means that nothing was accepted.
fn is_refusal(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidInput | ErrorKind::ResourceExhausted)
}
