//! A whole site is removed: nobody takes its machines for nodes of the fleet any more, its jobs come back or say what is the
//! matter, and its name is founded anew by another machine.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{ErrorKind, JobId};

use crate::harness::cluster::Cluster;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};

const BOUND: Duration = Duration::from_secs(90);

/// A node at `site`, with a token for it.
async fn add_at(cluster: &mut Cluster, site: &str) -> usize {
    let token = cluster.token_for(site, 1).await;
    let index = cluster.prepare_node(Some(token));
    cluster.nodes[index].extra_arguments = vec!["--site".to_owned(), site.to_owned()];
    cluster.start_node_by(index, &[0]);
    cluster.wait_until_answers(index).await;
    index
}

/// Waits until the node at `asked` shows `site` in `state`; its group.
async fn until_site(cluster: &Cluster, asked: usize, site: &str, state: &str) -> Vec<u8> {
    let client = cluster.client_of(&[asked]);
    wait::until(&format!("{site} {state} at node {asked}"), BOUND, || {
        let client = client.clone();
        async move {
            let sites = client.list_sites(v1::ListSitesRequest {}).await.map_err(|error| error.to_string())?.sites;
            let found = sites.iter().find(|known| known.name == site && known.state == state);
            found.map(|site| site.group_id.clone()).ok_or_else(|| format!("{sites:?}"))
        }
    })
    .await
}

async fn submit(client: &FleetClient, workflow: Vec<u8>, site: &str) -> String {
    let job_id = JobId::generate().as_bytes().to_vec();
    let request = v1::SubmitRequest { job_id, workflow, site: site.to_owned(), ..v1::SubmitRequest::default() };
    let accepted = wait::until("an accepted job", BOUND, || async {
        client.submit(request.clone()).await.map_err(|error| error.to_string())
    });
    JobId::from_slice(&accepted.await.job_id).expect("an id").to_string()
}

async fn until_job(client: &FleetClient, job: &str, what: &str, is_so: impl Fn(&v1::Job) -> bool) -> v1::Job {
    wait::until(&format!("job {job}: {what}"), BOUND, || async {
        let request = v1::GetJobRequest { job: job.to_owned(), ..v1::GetJobRequest::default() };
        let seen = client.get_job(request).await.map_err(|error| error.to_string())?;
        if is_so(&seen) { Ok(seen) } else { Err(format!("{} at {} ({})", seen.state, seen.site, seen.reason)) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_plant_is_removed_everywhere_and_its_name_is_founded_anew() {
    let mut cluster = Cluster::start_secured("site-removal", 1, 4).await;
    let recorder = Recorder::start().await;
    let (plant, shop) = (add_at(&mut cluster, "plant").await, add_at(&mut cluster, "shop").await);
    until_site(&cluster, 0, "plant", "alive").await;
    let stolen = until_site(&cluster, shop, "plant", "alive").await;
    let here = cluster.client_of(&[0]);
    let accepted = submit(&here, workflows::calls(&recorder.url(), "a", 30, 200), "plant").await;
    until_job(&here, &accepted, "runs there", |job| job.state == "running" && job.site == "plant").await;
    cluster.nodes[plant].freeze();
    let under_way = submit(&here, workflows::calls(&recorder.url(), "u", 2, 20), "plant").await;
    until_job(&here, &under_way, "on its way", |job| job.state == "transferring").await;

    let remove = |at: usize, site: &str| {
        let (client, site) = (cluster.client_of(&[at]), site.to_owned());
        async move { client.remove_site(v1::RemoveSiteRequest { site }).await }
    };
    for (at, site, kind) in [
        (0, "default", ErrorKind::FailedPrecondition),
        (0, "mars", ErrorKind::NotFound),
        (0, "No Site", ErrorKind::InvalidInput),
        (shop, "default", ErrorKind::FailedPrecondition),
    ] {
        assert_eq!(remove(at, site).await.expect_err("it is refused").kind, kind, "{site} at {at}");
    }
    remove(0, "plant").await.expect("an operator may remove a site");
    remove(0, "plant").await.expect("and say so twice");
    for at in [0, shop] {
        assert_eq!(until_site(&cluster, at, "plant", "removed").await, stolen);
    }
    until_job(&here, &under_way, "comes back", |job| job.state == "completed" && job.site == "default").await;
    let stays = until_job(&here, &accepted, "says why", |job| job.reason.contains("was removed")).await;
    assert_eq!((stays.site.as_str(), stays.ended_ms), ("plant", 0), "it may have run there: nobody decides but people");
    here.abandon_move(v1::AbandonRequest { job: accepted.clone() }).await.expect("it may be given up");
    until_job(&here, &accepted, "runs here", |job| job.state == "completed" && job.site == "default").await;

    // Whoever has the machine has its certificate and its authority's key, and nobody takes them.
    cluster.nodes[plant].thaw();
    for site in ["default", "shop"] {
        until_site(&cluster, plant, site, "silent").await;
    }
    for at in [0, shop] {
        assert_eq!(until_site(&cluster, at, "plant", "removed").await, stolen);
    }

    let anew = add_at(&mut cluster, "plant").await;
    for at in [0, shop] {
        assert_ne!(until_site(&cluster, at, "plant", "alive").await, stolen, "another group under the name");
    }
    let job = submit(&cluster.client_of(&[0]), workflows::calls(&recorder.url(), "n", 2, 20), "plant").await;
    let ended = until_job(&cluster.client_of(&[0]), &job, "runs there", |job| job.state == "completed").await;
    assert_eq!((ended.site.as_str(), &ended.node), ("plant", &cluster.nodes[anew].name));
}
