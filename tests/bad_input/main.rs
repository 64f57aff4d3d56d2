//! Promise 10, end to end: malformed files, inputs, requests, packets, certificates, tokens and credentials, one row each,
//! against a real node. Each gets its own clear error, and after each the fleet is as it was.
//!
//! The documents that the language refuses are tested where it is (`crates/workflow/tests/refused`); here only that each
//! kind of refusal reaches whoever sent it.

#[path = "../harness/mod.rs"]
mod harness;

mod certificates;
mod credentials;
mod files;
mod flags;
mod joining;
mod packets;
mod requests;
mod stage;
mod wire;

use stage::Stage;

/// The issue asks for so many rows at least.
const ROWS_MIN: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_input_gets_its_own_error_and_changes_nothing() {
    let mut stage = Stage::build().await;
    files::judge(&mut stage).await;
    flags::judge(&mut stage).await;
    credentials::judge(&mut stage).await;
    requests::judge(&mut stage).await;
    joining::judge(&mut stage).await;
    certificates::judge(&mut stage).await;
    wire::judge(&mut stage).await;
    packets::judge(&mut stage).await;
    let rows = stage.finish().await;
    assert!(rows >= ROWS_MIN, "only {rows} rows");
}
