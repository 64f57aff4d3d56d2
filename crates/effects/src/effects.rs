//! The handle: runs effects within their lease, their deadline and their bounds.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fleet_core::limits::EFFECT_RESULT_BYTES_MAX;
use fleet_core::{Clock, JobId, SystemClock, Timestamp};
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::{ErrorObject, Outcome};

use crate::context::{EffectContext, EffectReport, Interruption};
use crate::error::Error;
use crate::http::HttpClient;
use crate::process::Processes;

/// Settings of [`Effects`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest an HTTP call may take whose task sets no timeout of its own.
    pub http_timeout: Duration,
    /// Capabilities ([`Effect::capability`]) of the effects that may run here, whoever asks for them. None if empty.
    pub allowed: BTreeSet<String>,
    /// Hosts that HTTP calls and the fetching of script sources may send to: names, `*.suffix`, or `*`. None if empty.
    pub allowed_hosts: Vec<String>,
    /// Certificate authorities trusted beside the public ones, PEM.
    pub extra_authorities_pem: Vec<u8>,
    /// What every child process finds in its environment beside the task's own variables.
    pub environment: BaseEnvironment,
    /// Directory child processes start in; this process's own if absent.
    pub work_dir: Option<PathBuf>,
    /// Directory with the lock that guards hold while they live; see [`crate::guard::wait_until_gone`].
    pub guard_dir: Option<PathBuf>,
    /// Most processes that may run on after their task (`await: false`), over all jobs.
    pub detached_max: usize,
}

/// The part of every child's environment that comes from the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseEnvironment {
    /// `PATH`.
    pub path: String,
    /// `HOME`.
    pub home: String,
    /// `LANG`.
    pub lang: String,
}

impl Default for BaseEnvironment {
    fn default() -> Self {
        Self { path: "/usr/local/bin:/usr/bin:/bin".to_owned(), home: "/".to_owned(), lang: "C.UTF-8".to_owned() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http_timeout: Duration::from_secs(300),
            allowed: BTreeSet::new(),
            allowed_hosts: Vec::new(),
            extra_authorities_pem: Vec::new(),
            environment: BaseEnvironment::default(),
            work_dir: None,
            guard_dir: None,
            detached_max: 256,
        }
    }
}

/// Runs effects. Cheap to clone; clones share the connection pool and the list of detached processes.
#[derive(Clone, Debug)]
pub struct Effects {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    http: HttpClient,
    processes: Processes,
    allowed: BTreeSet<String>,
    http_timeout: Duration,
}

impl Effects {
    /// Effects with these `options`.
    ///
    /// # Errors
    /// If the HTTP client or its trust roots cannot be set up.
    pub fn new(options: Options) -> Result<Self, Error> {
        let http = HttpClient::new(&options.extra_authorities_pem, &options.allowed_hosts)?;
        let processes = Processes::new(&options, http.clone());
        let Options { allowed, http_timeout, .. } = options;
        Ok(Self { inner: Arc::new(Inner { http, processes, allowed, http_timeout }) })
    }

    /// Runs `effect` to its end, unless its capability is not allowed here. Dropping the future ends the effect too.
    pub async fn run(&self, context: EffectContext, effect: &Effect) -> EffectReport {
        // Placement goes by what is said of a job; only the effect itself says for sure what it does.
        if !self.inner.allowed.contains(effect.capability()) {
            return EffectReport::of(Outcome::Err(not_allowed(effect.capability())));
        }
        let report = match effect {
            Effect::Http(request) => {
                let bound = SystemClock.now().saturating_add(self.inner.http_timeout);
                let deadline = context.deadline.unwrap_or(bound);
                let key = context.key();
                let call = self.inner.http.call(&key, request);
                while_allowed(context, Some(deadline), call).await.map_or_else(Stop::report, EffectReport::of)
            }
            Effect::Process(request) => self.inner.processes.run(context, request).await,
        };
        bounded(report)
    }

    /// Ends every process of `job_id` that runs on after its task (`await: false`), and waits until they are gone.
    /// For a job that this robot gives up in any way but its own end.
    pub async fn end_job(&self, job_id: JobId) {
        self.inner.processes.end_detached(Some(job_id)).await;
    }

    /// Ends every process that runs on after its task, and waits until they are gone.
    pub async fn end_all(&self) {
        self.inner.processes.end_detached(None).await;
    }
}

/// The refusal of an effect, with the key that would allow it.
fn not_allowed(capability: &str) -> ErrorObject {
    let detail = match capability.split_once(':') {
        Some((key, value)) => {
            format!("this robot does not allow {key} in {value}: see `robot.allow.{key}` in its configuration")
        }
        None => format!("this robot does not allow {capability}: see `robot.allow.{capability}` in its configuration"),
    };
    ErrorObject::standard("authorization", 403, "capability not allowed", detail)
}

/// What ended an effect from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its right to run is gone.
    Interrupted(Interruption),
    /// Its time is over.
    Deadline,
}

impl Stop {
    /// The report of an effect that ended like this.
    pub(crate) fn report(self) -> EffectReport {
        match self {
            Self::Interrupted(interruption) => EffectReport::interrupted(interruption),
            Self::Deadline => EffectReport::of(Outcome::Err(ErrorObject::standard(
                "timeout",
                408,
                "timed out",
                "the effect did not end before its deadline",
            ))),
        }
    }
}

/// What `work` gives, unless the effect of `context` must end first: cancelled, lease over, or past `deadline`.
///
/// The lease clock is read each time right before `work` goes on. So what `work` sends (the first request, that after a
/// redirect or a challenge) is sent in a step that began within the lease, also in a process that was stopped and wakes
/// with an answer, a timer and the end of its lease all there at once.
pub(crate) async fn while_allowed<T>(
    context: EffectContext,
    deadline: Option<Timestamp>,
    work: impl Future<Output = T>,
) -> Result<T, Stop> {
    let lease = context.lease.clone();
    let (mut stop, mut work) = (pin!(stopped(context, deadline)), pin!(work));
    poll_fn(|task| {
        // `stopped` reads the clock only when its timer rings, and a timer may ring after the work was woken.
        if !lease.is_live() {
            return Poll::Ready(Err(Stop::Interrupted(Interruption::LeaseEnded)));
        }
        if let Poll::Ready(stop) = stop.as_mut().poll(task) {
            return Poll::Ready(Err(stop));
        }
        work.as_mut().poll(task).map(Ok)
    })
    .await
}

/// Completes when the effect of `context` must end: cancelled, lease over, or past `deadline`.
pub(crate) async fn stopped(mut context: EffectContext, deadline: Option<Timestamp>) -> Stop {
    let cancelled = async {
        if context.cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = context.lease.ended() => Stop::Interrupted(Interruption::LeaseEnded),
        () = cancelled => Stop::Interrupted(Interruption::Cancelled),
        () = reached(deadline) => Stop::Deadline,
    }
}

/// Completes when wall time has reached `deadline`; never without one.
async fn reached(deadline: Option<Timestamp>) {
    let Some(deadline) = deadline else { return std::future::pending().await };
    loop {
        let remaining = deadline.saturating_since(SystemClock.now());
        if remaining.is_zero() {
            return;
        }
        tokio::time::sleep(remaining).await;
    }
}

/// The report, or a failure if its result is larger than a journal takes.
fn bounded(mut report: EffectReport) -> EffectReport {
    if let Outcome::Ok(value) = &report.outcome {
        let result_bytes = value.to_string().len();
        if result_bytes > EFFECT_RESULT_BYTES_MAX {
            let detail = format!("the result has {result_bytes} bytes of JSON, the limit is {EFFECT_RESULT_BYTES_MAX}");
            report.outcome = Outcome::Err(ErrorObject::standard("runtime", 500, "result too large", detail));
        }
    }
    report
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fleet_workflow::machine::command::EffectPath;
    use tokio::sync::watch;

    use super::*;
    use crate::lease::Lease;

    fn context(lease: Lease) -> EffectContext {
        EffectContext {
            job_id: JobId::from_bytes([9; 16]),
            node_name: "n".to_owned(),
            path: EffectPath("do/0/call".to_owned()),
            cancelled: watch::channel(false).1,
            deadline: None,
            lease,
        }
    }

    /// As after SIGSTOP and SIGCONT: what the work waited for is there, the lease is over, and no timer was looked at
    /// since, because this test has its runtime's only thread for itself.
    #[tokio::test]
    async fn work_that_wakes_after_the_lease_takes_no_further_step() {
        let end = SystemClock.boot_now().saturating_add(Duration::from_secs(1));
        let lease = Lease::until(end).1;
        let steps = AtomicUsize::new(0);
        let work = poll_fn(|_| {
            steps.fetch_add(1, Ordering::Relaxed);
            Poll::<()>::Pending
        });
        let mut effect = pin!(while_allowed(context(lease.clone()), None, work));
        let mut poll = || effect.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert_eq!(poll(), Poll::Pending);
        assert_eq!(steps.load(Ordering::Relaxed), 1, "it goes on within the lease");
        while lease.is_live() {
            std::hint::spin_loop();
        }
        assert_eq!(poll(), Poll::Ready(Err(Stop::Interrupted(Interruption::LeaseEnded))));
        assert_eq!(steps.load(Ordering::Relaxed), 1, "nothing is done after it");
    }
}
