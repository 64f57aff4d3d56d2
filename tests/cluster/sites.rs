//! Several sites in one fleet: founded by the registry once, each with a group, leader and robots of its own, each at work
//! whatever becomes of the others.

use std::time::Duration;

use fleet_api::chain::{Chain, Issuer};
use fleet_api::pb::peer::peer_client::PeerClient;
use fleet_api::pb::peer::{GetKeyringRequest, RenewCertificateRequest};
use fleet_api::pb::v1;
use fleet_api::pb::v1::fleet_client::FleetClient as FleetStub;
use fleet_api::tls::{ALPN_PEER, ClientTls, Trust};
use fleet_api::{CertificateFacts, FleetClient};
use fleet_core::ErrorKind;
use rustls_pki_types::CertificateDer;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::recorder::Recorder;
use crate::harness::{raw, wait, workflows};
use crate::life::steps;

const JOB_BOUND: Duration = Duration::from_secs(60);
/// How long a joiner may take to give up: longer than it asks.
const REFUSAL_BOUND: Duration = Duration::from_secs(40);
const PLANT: &[&str] = &["--site", "plant"];

/// Adds `count` nodes of site `plant`, the first of which founds it.
async fn grow_plant(cluster: &mut Cluster, count: usize) -> Vec<usize> {
    let mut plant = Vec::new();
    for _ in 0..count {
        plant.push(cluster.add_node(PLANT).await);
    }
    plant
}

/// Submits a job of two calls to one of the nodes `asked` and waits until it has completed, each call made once.
async fn run_job(cluster: &Cluster, asked: &[usize], recorder: &Recorder, prefix: &str) -> v1::Job {
    let client = cluster.client_of(asked);
    let mut history = History::default();
    let workflow = workflows::calls(&recorder.url(), prefix, 2, 20);
    let (job, told) = history.submit(&client, workflow, steps(prefix, 2)).await;
    assert_eq!(told, Told::Accepted, "submit {prefix}");
    let ended = wait::until(&format!("job {prefix}"), JOB_BOUND, || {
        let client = client.clone();
        async move {
            let request = v1::GetJobRequest { job: job.to_string(), ..v1::GetJobRequest::default() };
            let job = client.get_job(request).await.map_err(|error| error.to_string())?;
            if job.ended_ms > 0 { Ok(job) } else { Err(format!("{} ({})", job.state, job.reason)) }
        }
    })
    .await;
    assert_eq!(ended.state, "completed", "{prefix}: {ended:?}");
    for step in steps(prefix, 2) {
        assert_eq!(recorder.of_step(&step).len(), 1, "{step}");
    }
    ended
}

async fn names(client: &FleetClient) -> Vec<String> {
    let nodes = client.list_nodes(v1::ListNodesRequest {}).await.expect("it answers").nodes;
    nodes.into_iter().map(|node| node.name).collect()
}

async fn sites(client: &FleetClient) -> Vec<v1::Site> {
    client.list_sites(v1::ListSitesRequest {}).await.expect("it answers").sites
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_site_has_a_group_of_its_own_and_each_runs_jobs() {
    let mut cluster = Cluster::start("sites", 1, 4).await;
    let recorder = Recorder::start().await;
    let plant = grow_plant(&mut cluster, 3).await;
    cluster.wait_for_voters_at(&plant, 3).await;
    let at_first = run_job(&cluster, &[0], &recorder, "first").await;
    assert_eq!((at_first.site.as_str(), at_first.node.as_str()), ("default", "node-1"));
    let at_plant = run_job(&cluster, &plant[1..2], &recorder, "plant").await;
    assert_eq!(at_plant.site, "plant");
    assert_ne!(at_plant.node, "node-1");

    assert_eq!(names(&cluster.client_of(&[0])).await, ["node-1"]);
    for index in &plant {
        assert_eq!(names(&cluster.client_of(&[*index])).await, ["node-2", "node-3", "node-4"]);
    }
    let (seen_first, seen_plant) = (sites(&cluster.client_of(&[0])).await, sites(&cluster.client_of(&plant)).await);
    for seen in [&seen_first, &seen_plant] {
        assert_eq!(seen.iter().map(|site| site.name.as_str()).collect::<Vec<_>>(), ["default", "plant"]);
    }
    assert_eq!(seen_first[1].group_id, seen_plant[1].group_id, "one site, one group");
    assert_eq!(seen_first[0].group_id, seen_plant[0].group_id);
    assert_ne!(seen_first[0].group_id, seen_first[1].group_id);
}

/// Starts the node at `index` to join by `seeds`, and waits until it gives up; what it said, and with which code it ended.
async fn refused(cluster: &mut Cluster, index: usize, seeds: &[usize]) -> (Option<i32>, String) {
    cluster.start_node_by(index, seeds);
    let code = cluster.nodes[index].exit_code(REFUSAL_BOUND).await;
    (code, cluster.nodes[index].log())
}

/// A node that would join `site` with `token`, not started.
fn prepare_at(cluster: &mut Cluster, site: &str, token: Option<String>) -> usize {
    let index = cluster.prepare_node(token);
    cluster.nodes[index].extra_arguments = vec!["--site".to_owned(), site.to_owned()];
    index
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_of_the_registry_founds_a_site_and_admits_its_other_machines() {
    let mut cluster = Cluster::start_secured("site-token", 1, 4).await;
    let recorder = Recorder::start().await;
    let token = cluster.token_for("plant", 3).await;
    let of_default = cluster.token(5).await;

    let wrong = prepare_at(&mut cluster, "plant", Some(of_default));
    let (code, log) = refused(&mut cluster, wrong, &[0]).await;
    assert_eq!(code, Some(5), "{log}");
    assert!(log.contains("is for site default"), "{log}");
    cluster.nodes[wrong].extra_arguments.clear();
    cluster.nodes[wrong].token = Some(token.clone());
    let (code, log) = refused(&mut cluster, wrong, &[0]).await;
    assert_eq!(code, Some(5), "{log}");
    assert!(log.contains("is for site plant"), "{log}");

    let founder = wrong;
    cluster.nodes[founder].extra_arguments = PLANT.iter().map(|argument| (*argument).to_owned()).collect();
    cluster.start_node_by(founder, &[0]);
    cluster.wait_until_answers(founder).await;
    // One by a seed of the first site, which sends it on; one by a node of its own site.
    let mut plant = vec![founder];
    for seed in [0, founder] {
        let index = prepare_at(&mut cluster, "plant", Some(token.clone()));
        cluster.start_node_by(index, &[seed]);
        cluster.wait_until_answers(index).await;
        plant.push(index);
    }
    cluster.wait_for_voters_at(&plant, 3).await;
    let late = prepare_at(&mut cluster, "plant", Some(token));
    let (code, log) = refused(&mut cluster, late, &[0]).await;
    assert_eq!(code, Some(5), "{log}");
    assert!(log.contains("is used up"), "{log}");

    // The operator of the fleet is one at the plant too.
    run_job(&cluster, &plant, &recorder, "secured").await;
    let request = v1::CreateTokenRequest { site: "plant".to_owned(), ..v1::CreateTokenRequest::default() };
    let own = cluster.client_of(&plant).create_token(request.clone()).await.expect("the plant makes its own").token;
    let elsewhere = cluster.client_of(&[0]).create_token(request).await.expect_err("the registry makes it no more");
    assert_eq!(elsewhere.kind, ErrorKind::FailedPrecondition);
    cluster.nodes[late].token = Some(own);
    cluster.start_node_by(late, &[founder]);
    cluster.wait_until_answers(late).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_that_found_the_same_site_at_once_share_one_group() {
    let mut cluster = Cluster::start("site-race", 1, 4).await;
    let racers: Vec<usize> = (0..3).map(|_| prepare_at(&mut cluster, "plant", None)).collect();
    for racer in &racers {
        cluster.start_node_by(*racer, &[0]);
    }
    for racer in &racers {
        cluster.wait_until_answers(*racer).await;
    }
    cluster.wait_for_voters_at(&racers, 3).await;
    let recorded = sites(&cluster.client_of(&[0])).await;
    let plant = recorded.iter().find(|site| site.name == "plant").expect("it is recorded");
    for racer in &racers {
        let own = sites(&cluster.client_of(&[*racer])).await;
        let own = own.iter().find(|site| site.own).expect("a node knows its own site");
        assert_eq!((own.name.as_str(), &own.group_id), ("plant", &plant.group_id));
        assert_eq!(names(&cluster.client_of(&[*racer])).await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_off_site_admits_renews_and_comes_back_by_itself_and_only_founding_waits_for_the_registry() {
    let mut cluster = Cluster::start("site-alone", 1, 4).await;
    let recorder = Recorder::start().await;
    let mut plant = grow_plant(&mut cluster, 2).await;
    run_job(&cluster, &plant, &recorder, "before").await;
    cluster.nodes[0].kill();

    let third = prepare_at(&mut cluster, "shop", None);
    let (code, log) = refused(&mut cluster, third, &plant.clone()).await;
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("registry"), "{log}");
    let (code, log) = refused(&mut cluster, third, &[0]).await;
    assert_eq!(code, Some(4), "no seed at all: {log}");

    cluster.nodes[third].extra_arguments = PLANT.iter().map(|argument| (*argument).to_owned()).collect();
    cluster.start_node_by(third, &plant);
    cluster.wait_until_answers(third).await;
    plant.push(third);
    cluster.wait_for_voters_at(&plant, 3).await;
    run_job(&cluster, &plant, &recorder, "alone").await;
    renews(&cluster, plant[0]).await;

    for index in &plant {
        cluster.nodes[*index].kill();
    }
    for index in &plant {
        // Nobody of the first site is there, and its seeds stay in the command line.
        cluster.start_node(*index);
    }
    for index in &plant {
        cluster.wait_until_answers(*index).await;
    }
    run_job(&cluster, &plant, &recorder, "rebooted").await;
    renews(&cluster, plant[1]).await;

    cluster.start_node(0);
    cluster.wait_until_answers(0).await;
    run_job(&cluster, &[0], &recorder, "healed").await;
}

/// Asks for the next certificate of the node at `index`, as it does by itself after ten days: its site's authority signs.
async fn renews(cluster: &Cluster, index: usize) {
    let node = &cluster.nodes[index];
    let certificate = raw::certificate_of_node(&node.data_dir);
    let own = certificate.facts().expect("it has a certificate");
    let tls = ClientTls { certificate: Some(certificate), ..ClientTls::new(Trust::Shown) };
    let channel = raw::channel(&tls, ALPN_PEER, &node.endpoint()).await.expect("a node talks to itself");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let csr = rcgen::CertificateParams::default().serialize_request(&key).expect("a request").der().to_vec();
    let answer = wait::until("the next certificate", JOB_BOUND, || {
        let (mut client, csr) = (PeerClient::new(channel.clone()), csr.clone());
        async move {
            let request = RenewCertificateRequest { csr, sealing_key: Vec::new() };
            client.renew_certificate(request).await.map_err(|status| status.to_string())
        }
    })
    .await;
    let chain: Vec<CertificateDer<'static>> =
        answer.into_inner().certificates.into_iter().map(CertificateDer::from).collect();
    let root = chain.last().expect("a chain ends with the root");
    let issuer = Chain::read(&chain[0], &chain[1..], root).expect("it is a chain").voucher.issuer;
    assert_eq!(issuer, Issuer::Site("plant".parse().expect("a name")));
    let next = CertificateFacts::read(&chain[0]).expect("it is a node's");
    assert_eq!(next.name, own.name);
    assert_ne!(next.serial, own.serial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_one_site_may_not_ask_what_only_nodes_of_another_may() {
    let mut cluster = Cluster::start("site-foreign", 1, 4).await;
    let plant = grow_plant(&mut cluster, 1).await;
    for (of, at) in [(plant[0], 0), (0, plant[0])] {
        let certificate = raw::certificate_of_node(&cluster.nodes[of].data_dir);
        let tls = ClientTls { certificate: Some(certificate), ..ClientTls::new(Trust::Shown) };
        let channel = raw::channel(&tls, ALPN_PEER, &cluster.nodes[at].endpoint()).await.expect("it is of the fleet");
        let keyring = PeerClient::new(channel.clone()).get_keyring(GetKeyringRequest {}).await;
        assert_eq!(keyring.expect_err("not its site's").code(), tonic::Code::PermissionDenied);
        let submit = FleetStub::new(channel).submit(v1::SubmitRequest::default()).await;
        assert_eq!(submit.expect_err("not its site's").code(), tonic::Code::PermissionDenied);
    }
    // And a client that means another site is answered for that one.
    let unknown = cluster.client_of(&plant).at_site("mars").expect("a name").list_nodes(v1::ListNodesRequest {}).await;
    assert_eq!(unknown.expect_err("there is none").kind, ErrorKind::NotFound);
    let own = cluster.client_of(&plant).at_site("plant").expect("a name");
    assert_eq!(names(&own).await, ["node-2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_of_two_nodes_lives_by_its_voter_and_is_recovered_from_the_other() {
    let mut cluster = Cluster::start("site-two", 1, 4).await;
    let recorder = Recorder::start().await;
    let plant = grow_plant(&mut cluster, 2).await;
    let (voter, other) = (plant[0], plant[1]);
    run_job(&cluster, &[other], &recorder, "both").await;
    let own = |client: FleetClient| async move { sites(&client).await.into_iter().find(|site| site.own) };
    let seen = own(cluster.client_of(&[voter])).await.expect("its own");
    assert_eq!((seen.voters, seen.learners), (vec!["node-2".to_owned()], vec!["node-3".to_owned()]));

    cluster.nodes[other].kill();
    run_job(&cluster, &[voter], &recorder, "voter").await;
    cluster.start_node(other);
    cluster.wait_until_answers(other).await;
    cluster.nodes[voter].kill();
    let job = fleet_core::JobId::generate();
    let workflow = workflows::calls(&recorder.url(), "refused", 1, 0);
    let request = v1::SubmitRequest { job_id: job.as_bytes().to_vec(), workflow, ..v1::SubmitRequest::default() };
    let refusal = cluster.client_of(&[other]).submit(request).await.expect_err("the one voter is down");
    assert!(refusal.kind.is_retryable(), "{refusal}");
    cluster.start_node(voter);
    cluster.wait_until_answers(voter).await;
    run_job(&cluster, &[other], &recorder, "again").await;

    cluster.nodes[voter].kill();
    cluster.wipe(voter);
    let last = cluster.client_of(&[other]);
    let recovered = wait::until("the recovery to be taken", JOB_BOUND, || {
        let last = last.clone();
        let request = v1::RecoverSiteRequest { site: "plant".to_owned(), accept_loss: true, release_hold: false };
        async move { last.recover_site(request).await.map_err(|error| error.to_string()) }
    })
    .await;
    assert!(recovered.recovered, "{recovered:?}");
    let request = v1::RecoverSiteRequest { site: "plant".to_owned(), accept_loss: false, release_hold: true };
    wait::until("the hold to end", JOB_BOUND, || {
        let (last, request) = (last.clone(), request.clone());
        async move { last.recover_site(request).await.map_err(|error| error.to_string()) }
    })
    .await;
    run_job(&cluster, &[other], &recorder, "recovered").await;
    renews(&cluster, other).await;
}
