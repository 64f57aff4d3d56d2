//! `run: shell` and `run: script`: child processes, each under a guard of its own.
//!
//! A script's source may be an `http` or `https` URI, fetched only from hosts that [`Options::allowed_hosts`] allow, or
//! a `file` URI. The latter reads any file that this process's user can read, and is not restricted: the script runs as
//! that user, so it could read the file itself.
//!
//! Not here: how a child is ended (the guard's part), and what its end means (`outcome`).

mod guarded;
mod outcome;
mod plan;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use fleet_core::JobId;
use fleet_core::limits::PROCESS_OUTPUT_BYTES_MAX;
use fleet_workflow::machine::effect::{ProcessRequest, Program, ScriptSource};
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::context::{EffectContext, EffectReport};
use crate::effects::{Options, Stop, stopped, while_allowed};
use crate::guard::protocol::{Ending, Launch};
use crate::http::HttpClient;
use guarded::{Guarded, Said};
use plan::Actor;

/// Starts child processes and knows those that outlive their task.
#[derive(Debug)]
pub(crate) struct Processes {
    options: Options,
    http: HttpClient,
    detached: Arc<Mutex<Detached>>,
}

/// Processes that run on after their task. Each ends when its sender says so, and lets go of its receiver when it has.
#[derive(Debug, Default)]
struct Detached {
    next: u64,
    running: BTreeMap<u64, (JobId, watch::Sender<bool>)>,
}

impl Processes {
    /// No processes yet.
    pub(crate) fn new(options: &Options, http: HttpClient) -> Self {
        Self { options: options.clone(), http, detached: Arc::default() }
    }

    /// Runs `request` to its end, or to its start if it is not awaited.
    pub(crate) async fn run(&self, context: EffectContext, request: &ProcessRequest) -> EffectReport {
        let plan = self.plan(&context, request);
        let launch = match while_allowed(context.clone(), context.deadline, plan).await {
            Ok(Ok(launch)) => launch,
            Ok(Err(error)) => return EffectReport::of(Outcome::Err(error)),
            Err(stop) => return stop.report(),
        };
        if request.awaits {
            self.run_attached(context, request, launch).await
        } else {
            self.detach(context, launch).await
        }
    }

    /// Ends the processes of `job_id` that run on after their task, or all, and waits until they are gone.
    pub(crate) async fn end_detached(&self, job_id: Option<JobId>) {
        let ending: Vec<_> = self
            .detached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .running
            .values()
            .filter(|(owner, _)| job_id.is_none_or(|job_id| job_id == *owner))
            .map(|(_, end)| end.clone())
            .collect();
        for end in &ending {
            end.send_replace(true);
        }
        for end in ending {
            end.closed().await;
        }
    }

    async fn plan(&self, context: &EffectContext, request: &ProcessRequest) -> Result<Launch, ErrorObject> {
        let key = context.key();
        let code = match &request.program {
            Program::Script { source: ScriptSource::Code(code), .. } => Some(code.clone()),
            Program::Script { source: ScriptSource::Uri { uri, authentication }, .. } => {
                let bytes = match file_path(uri) {
                    Some(path) => read_script(path, uri).await?,
                    None => self.http.fetch(&key, uri, authentication.as_ref()).await?.to_vec(),
                };
                let code = String::from_utf8(bytes);
                Some(code.map_err(|_| script_error(uri, "it is not UTF-8 text".to_owned()))?)
            }
            Program::Shell { .. } => None,
        };
        let actor = Actor { key: &key, job_id: &context.job_id.to_string(), node_name: &context.node_name };
        plan::launch(&self.options, &actor, request, code, context.lease.end())
    }

    async fn run_attached(&self, context: EffectContext, request: &ProcessRequest, launch: Launch) -> EffectReport {
        let mut guarded = match Guarded::start(self.options.guard_dir.as_deref(), launch).await {
            Ok(guarded) => guarded,
            Err(error) => return EffectReport::of(Outcome::Err(guard_error(&error))),
        };
        let (stop, ended) = supervise(&mut guarded, context).await;
        let mut report = match (stop, ended) {
            (Some(stop), _) => stop.report(),
            (None, Ok(ending)) => {
                EffectReport::of(outcome::outcome(request.returns, &ending, &guarded.stdout, &guarded.stderr))
            }
            (None, Err(error)) => EffectReport::of(Outcome::Err(guard_error(&error))),
        };
        report.stdout_tail = outcome::log_tail(&guarded.stdout);
        report.stderr_tail = outcome::log_tail(&guarded.stderr);
        report.stdout = std::mem::take(&mut guarded.stdout);
        report.stderr = std::mem::take(&mut guarded.stderr);
        report
    }

    /// Starts a process that nobody awaits: it lives until it ends, its job or lease does, or this process.
    async fn detach(&self, mut context: EffectContext, launch: Launch) -> EffectReport {
        let Some((number, end)) = self.admit(context.job_id) else {
            let detail = format!("{} processes run on after their tasks already", self.options.detached_max);
            return EffectReport::of(Outcome::Err(ErrorObject::standard("runtime", 500, "too many processes", detail)));
        };
        let listed = Listed { list: self.detached.clone(), number, _held: end.clone() };
        context.cancelled = end;
        context.deadline = None;
        let started = async {
            let mut guarded = Guarded::start(self.options.guard_dir.as_deref(), launch).await?;
            guarded.said().await.map(|said| (guarded, said))
        };
        match started.await {
            Ok((mut guarded, Said::Started)) => {
                // Holds `listed`, and so its place in the list, until the process is gone.
                tokio::spawn(async move {
                    let _listed = listed;
                    if let (_, Err(error)) = supervise(&mut guarded, context).await {
                        tracing::warn!(%error, "a detached process lost its guard");
                    }
                });
                EffectReport::of(Outcome::Ok(Value::Null))
            }
            Ok((_, Said::Ended(ending))) => {
                let returns = fleet_workflow::machine::effect::ProcessReturn::None;
                EffectReport::of(outcome::outcome(returns, &ending, b"", b""))
            }
            Err(error) => EffectReport::of(Outcome::Err(guard_error(&error))),
        }
    }

    /// A place in the list, unless it is full.
    fn admit(&self, job_id: JobId) -> Option<(u64, watch::Receiver<bool>)> {
        let mut detached = self.detached.lock().unwrap_or_else(PoisonError::into_inner);
        if detached.running.len() >= self.options.detached_max {
            return None;
        }
        let (sender, receiver) = watch::channel(false);
        let number = detached.next;
        detached.next += 1;
        detached.running.insert(number, (job_id, sender));
        Some((number, receiver))
    }
}

/// A place in the list of detached processes, given up when dropped.
struct Listed {
    list: Arc<Mutex<Detached>>,
    number: u64,
    /// Who ends a process waits until this is let go of.
    _held: watch::Receiver<bool>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).running.remove(&self.number);
    }
}

/// Keeps the guard's lease up to date until everything has ended, by itself or because it had to.
/// A stop waits for the guard's word that nothing is left: what may go on acting is not reported as ended.
async fn supervise(guarded: &mut Guarded, context: EffectContext) -> (Option<Stop>, io::Result<Ending>) {
    let mut lease = context.lease.clone();
    let deadline = context.deadline;
    let stop = stopped(context, deadline);
    tokio::pin!(stop);
    let mut stopped_by = None;
    loop {
        tokio::select! {
            said = guarded.said() => match said {
                Ok(Said::Started) => {}
                Ok(Said::Ended(ending)) => {
                    // The guard has its own look at the clock, and may be first to see the lease end.
                    let lease_ended = Stop::Interrupted(crate::Interruption::LeaseEnded);
                    let stop = stopped_by.or_else(|| (ending == Ending::LeaseEnded).then_some(lease_ended));
                    return (stop, Ok(ending));
                }
                Err(error) => return (stopped_by, Err(error)),
            },
            end = lease.renewed() => guarded.renew(end).await,
            why = &mut stop, if stopped_by.is_none() => {
                stopped_by = Some(why);
                guarded.end().await;
            }
        }
    }
}

fn guard_error(error: &io::Error) -> ErrorObject {
    ErrorObject::standard("runtime", 500, "process guard failed", error.to_string())
}

fn script_error(uri: &str, why: String) -> ErrorObject {
    ErrorObject::standard("runtime", 500, "script not readable", format!("{uri}: {why}"))
}

/// The path of a `file` URI.
fn file_path(uri: &str) -> Option<std::path::PathBuf> {
    let url = reqwest::Url::parse(uri).ok().filter(|url| url.scheme() == "file")?;
    url.to_file_path().ok()
}

async fn read_script(path: impl AsRef<Path>, uri: &str) -> Result<Vec<u8>, ErrorObject> {
    let failed = |error: io::Error| script_error(uri, error.to_string());
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(PROCESS_OUTPUT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() > PROCESS_OUTPUT_BYTES_MAX {
        return Err(script_error(uri, format!("it is larger than {PROCESS_OUTPUT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}
