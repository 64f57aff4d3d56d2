//! The handle: runs effects within their lease, their deadline and their bounds.

use std::path::PathBuf;
use std::sync::Arc;
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
        Ok(Self { inner: Arc::new(Inner { http, processes, http_timeout: options.http_timeout }) })
    }

    /// Runs `effect` to its end. Dropping the future ends the effect too.
    pub async fn run(&self, context: EffectContext, effect: &Effect) -> EffectReport {
        if *context.cancelled.borrow() {
            return EffectReport::interrupted(Interruption::Cancelled);
        }
        if !context.lease.is_live() {
            return EffectReport::interrupted(Interruption::LeaseEnded);
        }
        let report = match effect {
            Effect::Http(request) => {
                let bound = SystemClock.now().saturating_add(self.inner.http_timeout);
                let deadline = context.deadline.unwrap_or(bound);
                let key = context.key();
                tokio::select! {
                    stop = stopped(context.clone(), Some(deadline)) => stop.report(),
                    outcome = self.inner.http.call(&key, request) => EffectReport::of(outcome),
                }
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
