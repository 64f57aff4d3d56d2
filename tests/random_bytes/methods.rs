//! Every gRPC method, with noise for a message and with real messages that were damaged.
//!
//! The real ones name no node of the fleet: a damaged request that happens to be good must not take the node away.

use fleet_api::pb::peer;
use fleet_api::pb::v1;
use fleet_api::tls::{ALPN_CLIENT, ALPN_PEER, ClientTls, Trust};
use fleet_core::{ErrorKind, JobId, NodeId};
use prost::Message;
use tonic::transport::Channel;

use crate::harness::cluster::Cluster;
use crate::harness::seed::Random;
use crate::harness::{raw, workflows};

/// Largest message of noise, bytes.
const NOISE_BYTES_MAX: usize = 2_048;
/// First byte of what nodes send each other: the format.
const FORMAT: u8 = 1;

fn id() -> Vec<u8> {
    JobId::generate().as_bytes().to_vec()
}

fn submit() -> v1::SubmitRequest {
    v1::SubmitRequest {
        job_id: id(),
        workflow: workflows::set_only(),
        input: b"{\"a\": [1, 2.5, null]}".to_vec(),
        tags: vec!["some-tag".to_owned()],
        priority: Some(3),
        ..v1::SubmitRequest::default()
    }
}

fn join() -> v1::JoinRequest {
    v1::JoinRequest {
        token: "fleet1.AAAA".to_owned(),
        node_id: NodeId::generate().as_bytes().to_vec(),
        name: "stranger".to_owned(),
        csr: vec![0x30, 0x82, 0x01, 0x00],
        address: "127.0.0.1:1".to_owned(),
        http_address: "127.0.0.1:2".to_owned(),
        slots: 1,
        version: "0.1.0".to_owned(),
        sealing_key: vec![7; 32],
        ..v1::JoinRequest::default()
    }
}

/// Each method of clients with a real message.
fn methods_of_clients() -> Vec<(&'static str, Vec<u8>)> {
    let (job, node) = ("0192".to_owned(), "some-other-machine".to_owned());
    let page = "0192f000-0000-7000-8000-000000000000".to_owned();
    let drain = v1::DrainNodeRequest { node: node.clone(), drain: true, deadline_ms: Some(9) };
    let listing = v1::ListJobsRequest { states: vec!["running".to_owned()], limit: 7, page, ..Default::default() };
    let recovery = v1::RecoverSiteRequest { site: "elsewhere".to_owned(), ..Default::default() };
    let outbox = v1::ListOutboxRequest { site: "elsewhere".to_owned(), limit: 7, after: id() };
    let tokens = v1::CreateTokenRequest { ttl_ms: Some(1), uses: 1, site: "default".to_owned() };
    let part = |text: &str| text.to_owned();
    let workflow_page =
        v1::ListWorkflowsRequest { namespace: part("a"), page: part("a/b:1.0.0"), limit: 7, with_files: true };
    vec![
        ("Fleet/Submit", submit().encode_to_vec()),
        (
            "Fleet/GetJob",
            v1::GetJobRequest { job: job.clone(), brief: false, ..v1::GetJobRequest::default() }.encode_to_vec(),
        ),
        ("Fleet/ListJobs", listing.encode_to_vec()),
        ("Fleet/WatchJob", v1::WatchJobRequest { job: job.clone(), tasks: true }.encode_to_vec()),
        ("Fleet/GetJournal", v1::GetJournalRequest { job: job.clone(), from: 3 }.encode_to_vec()),
        ("Fleet/GetLogs", v1::GetLogsRequest { job: job.clone(), from: 0 }.encode_to_vec()),
        (
            "Fleet/ControlJob",
            v1::ControlJobRequest { job: job.clone(), action: 1, ..v1::ControlJobRequest::default() }.encode_to_vec(),
        ),
        ("Fleet/RetryJob", v1::RetryJobRequest { job, new_job_id: id() }.encode_to_vec()),
        ("Fleet/ListNodes", Vec::new()),
        ("Fleet/DrainNode", drain.encode_to_vec()),
        ("Fleet/RemoveNode", v1::RemoveNodeRequest { node }.encode_to_vec()),
        ("Fleet/ListSites", Vec::new()),
        ("Fleet/RemoveSite", v1::RemoveSiteRequest { site: "elsewhere".to_owned() }.encode_to_vec()),
        ("Fleet/RecoverSite", recovery.encode_to_vec()),
        ("Fleet/CreateToken", tokens.encode_to_vec()),
        ("Fleet/ListTokens", Vec::new()),
        ("Fleet/RevokeToken", v1::RevokeTokenRequest { token_id: "0123456789abcdef".to_owned() }.encode_to_vec()),
        ("Fleet/GetStatus", Vec::new()),
        ("Fleet/RunDoctor", v1::RunDoctorRequest { local_only: true }.encode_to_vec()),
        ("Catalog/Deploy", v1::DeployRequest { files: vec![workflows::set_only()] }.encode_to_vec()),
        ("Catalog/ListWorkflows", workflow_page.encode_to_vec()),
        (
            "Catalog/GetWorkflow",
            v1::GetWorkflowRequest { namespace: part("a"), name: part("b"), version: part("") }.encode_to_vec(),
        ),
        (
            "Catalog/DeleteWorkflow",
            v1::DeleteWorkflowRequest { namespace: part("a"), name: part("b"), version: part("1.0.0") }.encode_to_vec(),
        ),
        ("Outbox/List", outbox.encode_to_vec()),
        ("Outbox/Abandon", v1::AbandonRequest { job: "0192".to_owned() }.encode_to_vec()),
        ("Outbox/Recall", v1::RecallRequest { job: "0192".to_owned() }.encode_to_vec()),
        ("Admission/Join", join().encode_to_vec()),
    ]
}

/// Throws `throws` messages at `path`: noise and damaged forms of `real` in turns. Each must be answered.
async fn throw(channel: &Channel, path: &str, real: &[u8], random: &mut Random, throws: usize) {
    for number in 0..throws {
        let message = if number % 2 == 0 { random.bytes(NOISE_BYTES_MAX) } else { random.mutated(real) };
        let body = if number % 16 == 15 { message.clone() } else { raw::frame(&message) };
        let answer = raw::post(channel, path, raw::GRPC, body).await;
        let is_silent = answer.as_ref().is_err_and(|error| error.kind == ErrorKind::DeadlineExceeded);
        assert!(!is_silent, "{path} does not answer {message:?}");
    }
}

pub(crate) async fn of_clients(cluster: &Cluster, random: &mut Random, throws: usize) {
    let tls = ClientTls::new(Trust::Shown);
    let channel = raw::channel(&tls, ALPN_CLIENT, &cluster.nodes[0].endpoint()).await.expect("anyone may connect");
    for (method, real) in methods_of_clients() {
        throw(&channel, &format!("/fleet.v1.{method}"), &real, random, throws).await;
    }
}

pub(crate) async fn of_nodes(cluster: &Cluster, random: &mut Random, throws: usize) {
    let node = &cluster.nodes[0];
    let certificate = Some(raw::certificate_of_node(&node.data_dir));
    let tls = ClientTls { certificate, ..ClientTls::new(Trust::Shown) };
    let channel = raw::channel(&tls, ALPN_PEER, &node.endpoint()).await.expect("a node may connect");
    let payload = |random: &mut Random| [&[FORMAT], random.bytes(NOISE_BYTES_MAX).as_slice()].concat();
    let methods =
        ["Peer/Group", "Peer/Heartbeats", "Peer/Work", "Peer/RenewCertificate", "Peer/GetKeyring", "CatalogSync/Ask"];
    for method in methods {
        for _ in 0..throws {
            // The messages of nodes are one field of bytes each; the request for a certificate too.
            let real = peer::GroupMessage { payload: payload(random) }.encode_to_vec();
            throw(&channel, &format!("/fleet.peer.v1.{method}"), &real, random, 2).await;
        }
    }
    for _ in 0..throws {
        let request =
            peer::RenewCertificateRequest { csr: payload(random), sealing_key: random.bytes(NOISE_BYTES_MAX) };
        let real = peer::RenewCertificateForRequest { node: vec![7; 16], request: Some(request) }.encode_to_vec();
        throw(&channel, "/fleet.peer.v1.Peer/RenewCertificateFor", &real, random, 2).await;
    }
}
