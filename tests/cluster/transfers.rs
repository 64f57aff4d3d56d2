//! Jobs that go from one site to another, as real processes carry them: each runs once, where it was sent, and is seen
//! where it was submitted; a site that is away is waited for.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;

use crate::harness::cluster::Cluster;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};

pub(crate) const BOUND: Duration = Duration::from_secs(60);
const PLANT: &[&str] = &["--site", "plant", "--tag", "press"];

/// A fleet of two sites of one node each: node 0 at `default`, node 1 at `plant` with a press.
pub(crate) async fn two_sites(name: &str) -> Cluster {
    let mut cluster = Cluster::start(name, 1, 4).await;
    let plant = cluster.add_node(PLANT).await;
    assert_eq!(plant, 1);
    wait::until("a link", BOUND, || {
        let clients = [cluster.client_of(&[0]), cluster.client_of(&[1])];
        async move {
            for client in clients {
                let sites = client.list_sites(v1::ListSitesRequest {}).await.map_err(|error| error.to_string())?.sites;
                if !sites.iter().any(|site| !site.own && site.state == "alive") {
                    return Err(format!("{sites:?}"));
                }
            }
            Ok(())
        }
    })
    .await;
    cluster
}

pub(crate) async fn submit(client: &FleetClient, workflow: Vec<u8>, site: &str, tags: &[&str]) -> String {
    let request = v1::SubmitRequest {
        job_id: JobId::generate().as_bytes().to_vec(),
        workflow,
        site: site.to_owned(),
        tags: tags.iter().map(ToString::to_string).collect(),
        ..v1::SubmitRequest::default()
    };
    // A site that was just founded takes jobs for others once its members are known to understand them.
    let id = wait::until("an accepted job", BOUND, || async {
        client.submit(request.clone()).await.map_err(|error| error.to_string())
    });
    JobId::from_slice(&id.await.job_id).expect("an id").to_string()
}

pub(crate) async fn get(client: &FleetClient, job: &str) -> Result<v1::Job, String> {
    let request = v1::GetJobRequest { job: job.to_owned(), ..v1::GetJobRequest::default() };
    client.get_job(request).await.map_err(|error| error.to_string())
}

pub(crate) async fn until_state(client: &FleetClient, job: &str, state: &str) -> v1::Job {
    wait::until(&format!("job {job} {state}"), BOUND, || async {
        let seen = get(client, job).await?;
        if seen.state == state { Ok(seen) } else { Err(format!("{} at {} ({})", seen.state, seen.site, seen.reason)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_runs_once_at_the_site_it_was_sent_to_and_is_seen_where_it_was_submitted() {
    let cluster = two_sites("transfers").await;
    let recorder = Recorder::start().await;
    let (here, there) = (cluster.client_of(&[0]), cluster.client_of(&[1]));
    for (prefix, site, tags) in [("named", "plant", &[][..]), ("tagged", "", &["press"][..])] {
        let job = submit(&here, workflows::calls(&recorder.url(), prefix, 2, 20), site, tags).await;
        let ended = until_state(&here, &job, "completed").await;
        assert_eq!((ended.site.as_str(), ended.node.as_str()), ("plant", "node-2"), "{ended:?}");
        let run = until_state(&there, &job, "completed").await;
        assert_eq!(run.output, ended.output);
        for step in 0..2 {
            assert_eq!(recorder.of_step(&format!("{prefix}{step}")).len(), 1);
        }
    }
    let outbox = here.list_outbox(v1::ListOutboxRequest::default()).await.expect("it answers");
    assert!(outbox.jobs.is_empty() && outbox.waiting == 0, "{outbox:?}");
    let unknown = v1::SubmitRequest {
        job_id: JobId::generate().as_bytes().to_vec(),
        workflow: workflows::set_only(),
        site: "nowhere".to_owned(),
        ..v1::SubmitRequest::default()
    };
    let refusal = here.submit(unknown).await.expect_err("there is no such site");
    assert!(refusal.message.contains("default, plant"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_is_away_is_waited_for_or_given_up_and_both_sides_may_die_meanwhile() {
    let mut cluster = two_sites("away").await;
    let recorder = Recorder::start().await;
    cluster.nodes[1].kill();
    let here = cluster.client_of(&[0]);
    let waiting = submit(&here, workflows::calls(&recorder.url(), "w", 2, 20), "plant", &[]).await;
    let given_up = submit(&here, workflows::calls(&recorder.url(), "g", 1, 20), "plant", &[]).await;
    assert_eq!(get(&here, &waiting).await.expect("it answers").state, "transferring");
    let outbox = here.list_outbox(v1::ListOutboxRequest::default()).await.expect("it answers");
    assert_eq!((outbox.jobs.len(), outbox.waiting), (2, 2), "{outbox:?}");
    here.abandon_move(v1::AbandonRequest { job: given_up.clone() }).await.expect("it comes back");
    assert_eq!(until_state(&here, &given_up, "completed").await.site, "default");

    cluster.nodes[0].kill();
    for index in [0, 1] {
        cluster.start_node(index);
        cluster.wait_until_answers(index).await;
    }
    let here = cluster.client_of(&[0]);
    assert_eq!(until_state(&here, &waiting, "completed").await.site, "plant");
    for step in ["w0", "w1", "g0"] {
        assert_eq!(recorder.of_step(step).len(), 1, "{step}");
    }
}
