//! Effects of this robot: what its configuration allows, run by `fleet-effects`.

use std::sync::Arc;

use fleet_core::JobId;
use fleet_effects::Effects;
use fleet_node::ports;
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// Runs effects for the node's executions.
#[derive(Clone)]
pub struct EffectsPort {
    effects: Effects,
    allowed_hosts: Arc<[String]>,
}

impl EffectsPort {
    /// Runs with `effects`; `call: http` only to hosts that match one of `allowed_hosts` (exact, `*.suffix`, or `*`).
    pub fn new(effects: Effects, allowed_hosts: Vec<String>) -> Self {
        Self { effects, allowed_hosts: allowed_hosts.into() }
    }

    /// Ends every process that runs on after its task, and waits until they are gone. For a node that stops.
    pub async fn end_all(&self) {
        self.effects.end_all().await;
    }

    fn refusal(&self, effect: &Effect) -> Option<ErrorObject> {
        let Effect::Http(request) = effect else { return None };
        let host = host_of(&request.uri)?;
        if self.allowed_hosts.iter().any(|pattern| matches_host(pattern, host)) {
            return None;
        }
        let detail = format!("this robot may not call {host}; see robot.allow.http in its configuration");
        Some(ErrorObject::standard("authorization", 403, "host not allowed", detail))
    }
}

impl ports::Effects for EffectsPort {
    fn run(&self, effect: Effect, context: ports::EffectContext) -> BoxFuture<'static, ports::EffectReport> {
        if let Some(error) = self.refusal(&effect) {
            return async move { ports::EffectReport::of(Outcome::Err(error)) }.boxed();
        }
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

/// The host of an absolute URI, without user, port and brackets.
fn host_of(uri: &str) -> Option<&str> {
    let authority = uri.split_once("://")?.1.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, after)| after);
    match host_and_port.strip_prefix('[') {
        Some(address) => address.split_once(']').map(|(address, _)| address),
        None => Some(host_and_port.rsplit_once(':').map_or(host_and_port, |(host, _)| host)),
    }
}

fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && ends_with(host, suffix),
        None => host.eq_ignore_ascii_case(pattern),
    }
}

fn ends_with(host: &str, suffix: &str) -> bool {
    host.get(host.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found() {
        for (uri, host) in [
            ("http://a.example/x", Some("a.example")),
            ("https://user:secret@b.example:8443?q", Some("b.example")),
            ("http://[::1]:80/", Some("::1")),
            ("nonsense", None),
        ] {
            assert_eq!(host_of(uri), host, "{uri}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        assert!(matches_host("*", "anything"));
        assert!(matches_host("api.example", "API.example"));
        assert!(matches_host("*.example", "a.example"));
        assert!(!matches_host("*.example", "example"));
        assert!(!matches_host("*.example", "badexample"));
        assert!(!matches_host("api.example", "api.example.evil"));
    }
}
