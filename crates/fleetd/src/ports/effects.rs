//! Effects of this robot, run by `fleet-effects`, which also keeps to the hosts that the configuration allows. What their
//! processes print is kept here; the journal gets the end of it.

use fleet_core::JobId;
use fleet_effects::Effects;
use fleet_node::ports;
use fleet_workflow::machine::effect::Effect;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::JobLogs;

/// Runs effects for the node's executions.
#[derive(Clone)]
pub struct EffectsPort {
    effects: Effects,
    logs: JobLogs,
}

impl EffectsPort {
    /// Runs with `effects`, and keeps in `logs` what they print.
    pub fn new(effects: Effects, logs: JobLogs) -> Self {
        Self { effects, logs }
    }

    /// Ends every process that runs on after its task, and waits until they are gone. For a node that stops.
    pub async fn end_all(&self) {
        self.effects.end_all().await;
    }
}

impl ports::Effects for EffectsPort {
    fn run(&self, effect: Effect, context: ports::EffectContext) -> BoxFuture<'static, ports::EffectReport> {
        let (effects, logs) = (self.effects.clone(), self.logs.clone());
        async move {
            let (job, path) = (context.job, context.path.clone());
            let context = fleet_effects::EffectContext {
                job_id: context.job,
                node_name: context.node_name.to_string(),
                path: context.path,
                cancelled: context.cancelled,
                deadline: context.deadline,
                lease: fleet_effects::Lease::watching(context.lease.watch()),
            };
            let report = effects.run(context, &effect).await;
            if !report.stdout.is_empty() || !report.stderr.is_empty() {
                let keep = move || logs.keep(job, &path.0, &report.stdout, &report.stderr);
                // It panics at most: the effect ended all the same.
                let _kept = tokio::task::spawn_blocking(keep).await;
            }
            ports::EffectReport {
                outcome: report.interrupted.is_none().then_some(report.outcome),
                stdout_tail: report.stdout_tail,
                stderr_tail: report.stderr_tail,
            }
        }
        .boxed()
    }

    fn end_job(&self, job: JobId) -> BoxFuture<'static, ()> {
        let effects = self.effects.clone();
        async move { effects.end_job(job).await }.boxed()
    }
}
