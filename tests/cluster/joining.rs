//! Joining: five nodes with five voters, and a fleet that asks for tokens and takes only good ones.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::judge::finish_and_judge;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::life::steps;

const JOB_BOUND: Duration = Duration::from_secs(60);
/// How long a joiner may take to be refused.
const REFUSAL_BOUND: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_nodes_join_all_vote_each_takes_work_and_two_may_die() {
    let mut cluster = Cluster::start("five", 5, 2).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    for index in 0..5 {
        let prefix = format!("n{index}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 2, 20);
        let (_, told) = history.submit(&cluster.client_of(&[index]), workflow, steps(&prefix, 2)).await;
        assert_eq!(told, Told::Accepted, "submit to node {index}");
    }
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    for index in 0..5 {
        let nodes = cluster.client_of(&[index]).list_nodes(v1::ListNodesRequest {}).await.expect("it answers").nodes;
        let voters = nodes.iter().filter(|node| node.state == "alive" && node.voter).count();
        assert_eq!((nodes.len(), voters), (5, 5), "node {index} sees {nodes:?}");
        assert_eq!(nodes.iter().filter(|node| node.leader).count(), 1, "node {index} sees one leader");
    }
    let leader = cluster.leader(&[0, 1, 2, 3, 4]).await;
    for index in [leader, (leader + 1) % 5] {
        history.note_disturbance(&cluster.nodes[index].name);
        cluster.nodes[index].kill();
    }
    let workflow = workflows::calls(&recorder.url(), "after", 2, 20);
    let (_, told) = history.submit(&cluster.client(), workflow, steps("after", 2)).await;
    assert_eq!(told, Told::Accepted, "three of five voters are a majority");
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
}

/// A fleet that asks for tokens, and a machine that tries to join it.
struct Door {
    cluster: Cluster,
    joiner: usize,
    operator: FleetClient,
}

impl Door {
    async fn build() -> Self {
        let mut cluster = Cluster::start_secured("door", 1, 2).await;
        let joiner = cluster.prepare_node(None);
        let operator = cluster.client_of(&[0]);
        Self { cluster, joiner, operator }
    }

    async fn create(&self, ttl_ms: Option<u64>, uses: u32) -> v1::CreateTokenResponse {
        let request = v1::CreateTokenRequest { ttl_ms, uses, ..v1::CreateTokenRequest::default() };
        self.operator.create_token(request).await.expect("an operator may make tokens")
    }

    async fn members(&self) -> Vec<v1::Node> {
        self.operator.list_nodes(v1::ListNodesRequest {}).await.expect("it answers").nodes
    }

    async fn tokens(&self) -> Vec<v1::Token> {
        self.operator.list_tokens(v1::ListTokensRequest {}).await.expect("it answers").tokens
    }

    /// Tries to join with `token`, which must fail with `code`, the `reason`, and what to do next; nobody may be added.
    async fn refuses(&mut self, token: Option<&str>, code: i32, reason: &str, next_step: &str) {
        let before = (self.members().await, self.tokens().await);
        let node = &mut self.cluster.nodes[self.joiner];
        node.token = token.map(str::to_owned);
        self.cluster.start_node(self.joiner);
        let node = &mut self.cluster.nodes[self.joiner];
        let ended = node.exit_code(REFUSAL_BOUND).await;
        let log = node.log();
        assert_eq!(ended, Some(code), "{reason}: {log}");
        assert!(log.contains(reason), "`{reason}` is missing in {log}");
        assert!(log.contains(next_step), "{reason}: the next step `{next_step}` is missing in {log}");
        assert!(!log.contains("panicked"), "{log}");
        assert_eq!((self.members().await, self.tokens().await), before, "{reason}: the fleet is as it was");
    }
}

/// `token` with one character in its middle exchanged.
fn mistyped(token: &str) -> String {
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
    format!("{}{other}{}", &token[..middle], &token[middle + 1..])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_good_token_opens_the_door_and_a_bad_one_leaves_no_trace() {
    let mut door = Door::build().await;
    let make_another = "fleetctl token create";
    door.refuses(None, 5, "admits nobody without a join token", make_another).await;

    for (token, reason) in [
        ("", "it is empty"),
        ("open sesame", "does not begin with `fleet1.`"),
        ("fleet1.AAAA", "cut off"),
        ("fleet1.A*AA", "not of its alphabet"),
    ] {
        door.refuses(Some(token), 2, reason, make_another).await;
    }
    let good = door.create(None, 1).await;
    door.refuses(Some(&mistyped(&good.token)), 2, "mistyped", make_another).await;

    let foreign = Cluster::start_secured("other-door", 1, 2).await;
    let foreign = foreign.token(1).await;
    door.refuses(Some(&foreign), 5, "another fleet", make_another).await;

    let brief = door.create(Some(1), 1).await;
    wait::until("the token to expire", JOB_BOUND, || async {
        let tokens = door.tokens().await;
        let is_listed = tokens.iter().any(|token| token.token_id == brief.token_id);
        if is_listed { Err(format!("{tokens:?}")) } else { Ok(()) }
    })
    .await;
    door.refuses(Some(&brief.token), 5, "has expired", make_another).await;

    let revoked = door.create(None, 1).await;
    let request = v1::RevokeTokenRequest { token_id: revoked.token_id.clone() };
    door.operator.revoke_token(request).await.expect("an operator may end tokens");
    door.refuses(Some(&revoked.token), 5, "was revoked", make_another).await;

    let used = door.create(None, 1).await;
    let second = door.cluster.prepare_node(Some(used.token.clone()));
    door.cluster.start_node(second);
    door.cluster.wait_until_answers(second).await;
    door.refuses(Some(&used.token), 5, "is used up", make_another).await;

    let name = std::mem::replace(&mut door.cluster.nodes[door.joiner].name, "node-1".to_owned());
    door.refuses(Some(&good.token), 1, "a live node has this name", "--name").await;

    let joiner = door.joiner;
    door.cluster.nodes[joiner].name = name;
    door.cluster.nodes[joiner].token = Some(good.token);
    door.cluster.start_node(joiner);
    door.cluster.wait_until_answers(joiner).await;
    door.cluster.wait_for_voters(3).await;
    assert_eq!(door.members().await.len(), 3, "after all that was refused, the same directory joins with a good token");
}
