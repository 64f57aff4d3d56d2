//! Processes that nobody awaits.

use std::time::Duration;

use fleet_core::{Clock, JobId, SystemClock};
use fleet_effects::Lease;
use fleet_workflow::machine::effect::{ProcessRequest, ProcessReturn};
use serde_json::json;

use crate::fixture::{Case, Fixture, block_on, error, eventually, ok, shell};

pub(crate) const CASES: &[Case] = &[
    ("a_detached_process_runs_on_until_its_job_ends_it", || block_on(runs_on_until_its_job_ends_it())),
    ("a_detached_process_ends_with_its_lease", || block_on(ends_with_its_lease())),
];

fn detached(command: &str) -> ProcessRequest {
    ProcessRequest { awaits: false, ..shell(command, ProcessReturn::Stdout) }
}

async fn runs_on_until_its_job_ends_it() {
    let fixture = Fixture::new();
    assert_eq!(ok(fixture.run(detached("yes & echo > begun; sleep 1000")).await), json!(null));
    fixture.written("begun").await;
    fixture.effects.end_job(JobId::default()).await;
    assert!(!fixture.alive().is_empty(), "another job's end does not touch it");
    fixture.effects.end_job(fixture.context.job_id).await;
    assert!(fixture.alive().is_empty());
    ok(fixture.run(detached("exit 3")).await);
    fixture.effects.end_all().await;
    let bad = ProcessRequest { environment: vec![(String::new(), String::new())], ..detached("true") };
    assert_eq!(error(fixture.run(bad).await).title.as_deref(), Some("invalid environment"));
}

async fn ends_with_its_lease() {
    let end = SystemClock.boot_now().saturating_add(Duration::from_millis(800));
    let (_keeper, lease) = Lease::until(end);
    let fixture = Fixture::with_lease(lease);
    ok(fixture.run(detached("echo > begun; sleep 1000")).await);
    fixture.written("begun").await;
    eventually(|| fixture.alive().is_empty(), "it ends").await;
    assert!(SystemClock.boot_now() >= end);
}
