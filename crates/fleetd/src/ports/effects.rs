//! Effects of this robot, run by `fleet-effects`, which also keeps to the hosts that the configuration allows.

use fleet_core::JobId;
use fleet_effects::Effects;
use fleet_node::ports;
use fleet_workflow::machine::effect::Effect;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Runs effects for the node's executions.
#[derive(Clone)]
pub struct EffectsPort {
    effects: Effects,
}

impl EffectsPort {
    /// Runs with `effects`.
    pub fn new(effects: Effects) -> Self {
        Self { effects }
    }

    /// Ends every process that runs on after its task, and waits until they are gone. For a node that stops.
    pub async fn end_all(&self) {
        self.effects.end_all().await;
    }
}

impl ports::Effects for EffectsPort {
    fn run(&self, effect: Effect, context: ports::EffectContext) -> BoxFuture<'static, ports::EffectReport> {
        let effects = self.effects.clone();
        async move {
            let context = fleet_effects::EffectContext {
                job_id: context.job,
                node_name: context.node_name.to_string(),
                path: context.path,
                cancelled: context.cancelled,
                deadline: context.deadline,
                lease: fleet_effects::Lease::watching(context.lease.watch()),
            };
            let report = effects.run(context, &effect).await;
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
