//! After a majority was lost: the recovered site, and how the lost nodes come back to it by themselves.

use std::time::Duration;

use fleet_api::pb::v1;
use fleet_core::JobId;
use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::history::History;
use crate::harness::judge::finish_and_judge;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::life::steps;

const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_voters_come_back_to_the_recovered_site_by_themselves() {
    let mut cluster = Cluster::start("rejoin", 3, 4).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    // What a node applied last gets to its disk with the next entry that it logs. So every node has the end of the first
    // job there, while a killed one may tell the end of the second as commands that it had not applied.
    for prefix in ["first", "second"] {
        let workflow = workflows::calls(&recorder.url(), prefix, 1, 0);
        history.submit(&cluster.client(), workflow, steps(prefix, 1)).await;
        finish_and_judge(&cluster, &history, &recorder, BOUND).await;
    }

    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let last = cluster.client_of(&[0]);
    let ask = |accept_loss| {
        let last = last.clone();
        let request = v1::RecoverSiteRequest { site: "default".to_owned(), accept_loss, release_hold: false };
        async move { last.recover_site(request).await.map_err(|error| error.to_string()) }
    };
    let asked = wait::until("the majority to count as lost", BOUND, || ask(false)).await;
    assert!(!asked.recovered && asked.epoch == 2, "{asked:?}");
    let status = last.get_status(v1::GetStatusRequest {}).await.expect("it still stands");
    assert_eq!(status.site.expect("it has a site").epoch, 1, "asking does nothing");
    assert!(wait::until("the recovery to be taken", BOUND, || ask(true)).await.recovered);

    cluster.start_node(1);
    cluster.start_node(2);
    wait::until("all to vote in the new epoch, and the hold to end", BOUND * 2, || {
        let last = last.clone();
        async move {
            let site = last.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?.site;
            let site = site.ok_or_else(|| "no site".to_owned())?;
            let is_whole = site.epoch == 2 && site.voters.len() == 3 && !site.held && !site.leader.is_empty();
            if is_whole { Ok(()) } else { Err(format!("{site:?}")) }
        }
    })
    .await;
    for node in &cluster.nodes[1..] {
        let file = node.data_dir.join("before-epoch-2.jsonl");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert_whole(&text, history.submits[0].0, history.submits[1].0);
    }
    let workflow = workflows::calls(&recorder.url(), "after", 1, 0);
    history.submit(&cluster.client_of(&[1]), workflow, steps("after", 1)).await;
    finish_and_judge(&cluster, &history, &recorder, BOUND).await;
}

/// The file of a node that gave up its copy: the head, the first job as it ended, and all of the second, applied or not.
fn assert_whole(text: &str, first: JobId, second: JobId) {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let of = |job: JobId| lines.iter().filter(|line| line["jobId"] == job.to_string()).collect::<Vec<_>>();
    let (first, second) = (of(first), of(second));
    assert_eq!((first.len(), lines.len()), (1, 2 + second.len()), "the head and the two jobs: {text}");
    assert_eq!((&first[0]["state"], &first[0]["journalRecords"]), (&"completed".into(), &2.into()), "{text}");
    let applied = second.iter().find_map(|line| line["journalRecords"].as_u64()).unwrap_or(0);
    let unapplied: u64 = second.iter().filter_map(|line| line["records"].as_u64()).sum();
    assert!(applied + unapplied >= 2, "the start and the end of the second job's call: {text}");
}
