//! A job that cannot go on fails, and holds up no other job of its robot.

use std::time::Duration;

use fleet_core::{Digest, ErrorKind};
use fleet_store::record::{Content, Ending, JobState, Payload};
use fleet_store::state::jobs;
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use serde_json::json;

use crate::support::{Fleet, done};

/// The error that `job` left.
fn error_of(fleet: &Fleet, job: fleet_core::JobId) -> ErrorObject {
    match jobs::ending(&fleet.log.reader(), job).unwrap() {
        Some(Ending::Error(Content::Inline(error))) => serde_json::from_slice(error.as_slice()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn records_that_can_never_be_committed_fail_their_job_only() {
    let fleet = Fleet::start(2, &[2]).await;
    *fleet.log.poison.lock().unwrap() = Some("poison".to_owned());
    let (poisoned, healthy) = (fleet.submit(1, "call call").await, fleet.submit(1, "call call").await);
    let (one, other) = (fleet.effects.next().await, fleet.effects.next().await);
    // Whichever of the two it belongs to.
    one.end.send(Outcome::Ok(json!("poison"))).unwrap();
    let failed = async {
        loop {
            for (job, rest) in [(poisoned, healthy), (healthy, poisoned)] {
                if fleet.log.job(job).state == JobState::Failed {
                    return (job, rest);
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let failed = tokio::time::timeout(Duration::from_secs(30), failed).await;
    let (failed, rest) = failed.expect("the job with the poison fails");
    let error = error_of(&fleet, failed);
    assert!(error.detail.as_deref().is_some_and(|detail| detail.contains("it is poisoned")), "{error:?}");
    other.end.send(done()).unwrap();
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(rest, JobState::Completed).await;
    assert_eq!(fleet.links_opened(), 1, "the link was never broken");
    fleet.is_free(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_be_loaded_waits_or_fails_alone() {
    let fleet = Fleet::start(2, &[2]).await;
    let input = Digest::of(b"large");
    let waiting = fleet.submit_with_blob("call", input).await;
    let healthy = fleet.submit(1, "call").await;
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(healthy, JobState::Completed).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fleet.log.job(waiting).state, JobState::Assigned, "its input is not at hand");
    fleet.log.blobs.lock().unwrap().insert(input, Ok(Payload::from("{}")));
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(waiting, JobState::Completed).await;

    let broken = Digest::of(b"broken");
    fleet.log.blobs.lock().unwrap().insert(broken, Err(ErrorKind::Internal));
    let failing = fleet.submit_with_blob("call", broken).await;
    fleet.log.reaches(failing, JobState::Failed).await;
    let error = error_of(&fleet, failing);
    assert!(error.detail.as_deref().is_some_and(|detail| detail.contains("read a blob")), "{error:?}");
    assert_eq!(fleet.links_opened(), 1, "the link was never broken");
    assert!(fleet.effects.is_quiet());
}
