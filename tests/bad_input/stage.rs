//! Where the rows are played: a fleet of one node that asks for credentials, a stranger's fleet, and the book of what went
//! wrong. After every row the fleet is compared with what it was before the first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use fleet_api::pb::v1;
use fleet_api::tls::ClientTls;
use fleet_api::{Credential, FleetClient};
use fleet_core::{Error, ErrorKind, JobId};

use crate::harness::cluster::Cluster;
use crate::harness::node::binary;
use crate::harness::{raw, wait, workflows};

const JOB_BOUND: Duration = Duration::from_secs(30);

/// What came back for bad input.
pub(crate) struct Answer {
    /// The exit code, or that of the error's kind.
    pub(crate) code: Option<i32>,
    /// The kind, where it is told.
    pub(crate) kind: Option<ErrorKind>,
    /// Everything that was said.
    pub(crate) text: String,
}

impl<T> From<Result<T, Error>> for Answer {
    fn from(result: Result<T, Error>) -> Self {
        match result {
            Ok(_) => Self { code: Some(0), kind: None, text: "it was taken".to_owned() },
            Err(error) => {
                let next_step = error.next_step.as_deref().unwrap_or_default();
                let text = format!("{}\n{next_step}", fleet_core::error::chain(&error));
                Self { code: Some(error.kind.exit_code().into()), kind: Some(error.kind), text }
            }
        }
    }
}

/// What must not change.
#[derive(Debug, PartialEq)]
struct State {
    health: (u16, bool),
    site: Option<v1::Site>,
    jobs: BTreeMap<String, u64>,
    nodes: Vec<(Vec<u8>, String, String)>,
    tokens: Vec<(String, u32)>,
}

/// The fleet and the book.
pub(crate) struct Stage {
    /// The fleet under test.
    pub(crate) cluster: Cluster,
    /// A fleet of strangers.
    pub(crate) strangers: Cluster,
    /// An operator of the fleet under test.
    pub(crate) operator: FleetClient,
    /// A job that completed.
    pub(crate) ended_job: JobId,
    /// A token that can be used once.
    pub(crate) token: v1::CreateTokenResponse,
    before: State,
    rows: usize,
    wrong: Vec<String>,
}

impl Stage {
    /// A fleet with a token and a job that has ended.
    pub(crate) async fn build() -> Self {
        let cluster = Cluster::start_secured("bad-input", 1, 2).await;
        let strangers = Cluster::start_secured("bad-input-strangers", 1, 2).await;
        let operator = cluster.client();
        let ended_job = run_a_job(&operator).await;
        let token = operator.create_token(v1::CreateTokenRequest::default()).await.expect("an operator may");
        let before = state(&cluster, &operator).await;
        Self { cluster, strangers, operator, ended_job, token, before, rows: 0, wrong: Vec::new() }
    }

    /// `host:port` of the node.
    pub(crate) fn endpoint(&self) -> String {
        self.cluster.nodes[0].endpoint()
    }

    /// A directory for the files of rows.
    pub(crate) fn directory(&self) -> PathBuf {
        self.cluster.nodes[0].data_dir.with_extension("rows")
    }

    /// Writes `content` to the file `name` for a row.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        std::fs::create_dir_all(self.directory()).expect("a directory");
        let path = self.directory().join(name);
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    }

    /// The operator's credential.
    pub(crate) fn credential(&self) -> Credential {
        Credential::read(&self.cluster.credential_file()).expect("the founder wrote it")
    }

    /// TLS that believes the fleet's root and shows nothing.
    pub(crate) fn tls(&self) -> ClientTls {
        let mut tls = self.credential().client_tls().expect("it is sound");
        tls.certificate = None;
        tls
    }

    /// Runs `fleetctl` with these arguments as an operator.
    pub(crate) async fn fleetctl(&self, arguments: &[&str]) -> Answer {
        let credential = self.cluster.credential_file();
        let credential = credential.to_str().expect("a plain path");
        self.fleetctl_as(credential, arguments).await
    }

    /// Runs `fleetctl` with the credential in the file `credential`.
    pub(crate) async fn fleetctl_as(&self, credential: &str, arguments: &[&str]) -> Answer {
        let mut command = Command::new(binary("fleetctl"));
        command.args(["--endpoint", &self.endpoint(), "--credential", credential]).args(arguments);
        command.env_clear().stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
        let output = output.expect("fleetctl can be run");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        Answer { code: output.status.code(), kind: None, text }
    }

    /// Enters a row: `answer` must be of `kind` and say `word`, and the fleet must be as it was.
    pub(crate) async fn row(&mut self, name: &str, answer: impl Into<Answer>, kind: ErrorKind, word: &str) {
        let answer = answer.into();
        self.rows += 1;
        let is_of_kind = answer.code == Some(kind.exit_code().into()) && answer.kind.is_none_or(|found| found == kind);
        if !is_of_kind || !answer.text.contains(word) {
            let found = (answer.code, answer.kind, answer.text);
            self.wrong.push(format!("{name}: not {kind} with `{word}` but {found:?}"));
        }
        self.compare(name).await;
    }

    /// Enters a row that was judged where it was played: an error says what was wrong.
    pub(crate) async fn judged(&mut self, name: &str, verdict: Result<(), String>) {
        self.rows += 1;
        if let Err(found) = verdict {
            self.wrong.push(format!("{name}: {found}"));
        }
        self.compare(name).await;
    }

    async fn compare(&mut self, name: &str) {
        let now = state(&self.cluster, &self.operator).await;
        if now != self.before {
            self.wrong.push(format!("{name}: the fleet was {:?} and is {now:?}", self.before));
            self.before = now;
        }
    }

    /// Shows that the fleet still works and complained of nothing, and gives the number of rows.
    pub(crate) async fn finish(mut self) -> usize {
        run_a_job(&self.operator).await;
        let log = self.cluster.nodes[0].log();
        for line in log.lines().filter(|line| line.contains(" ERROR ") || line.contains("panicked")) {
            self.wrong.push(format!("in the log: {line}"));
        }
        assert!(self.wrong.is_empty(), "{} of {} rows:\n{}", self.wrong.len(), self.rows, self.wrong.join("\n"));
        self.rows
    }
}

async fn run_a_job(operator: &FleetClient) -> JobId {
    let job = JobId::generate();
    let workflow = workflows::set_only();
    let request = v1::SubmitRequest { job_id: job.as_bytes().to_vec(), workflow, ..v1::SubmitRequest::default() };
    operator.submit(request).await.expect("a good workflow is taken");
    wait::until("a job to complete", JOB_BOUND, || async {
        let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
        let found = operator.get_job(request).await.map_err(|error| error.to_string())?;
        if found.state == "completed" { Ok(()) } else { Err(found.state) }
    })
    .await;
    job
}

async fn state(cluster: &Cluster, operator: &FleetClient) -> State {
    let (code, health) = raw::http_get(cluster.nodes[0].http_port, "/health").await.expect("the node answers");
    let status = operator.get_status(v1::GetStatusRequest {}).await.expect("the node answers");
    let nodes = operator.list_nodes(v1::ListNodesRequest {}).await.expect("the node answers").nodes;
    let tokens = operator.list_tokens(v1::ListTokensRequest {}).await.expect("the node answers").tokens;
    State {
        health: (code, health.contains("\"healthy\"")),
        site: status.site,
        jobs: status.jobs.into_iter().collect(),
        nodes: nodes.into_iter().map(|node| (node.node_id, node.name, node.state)).collect(),
        tokens: tokens.into_iter().map(|token| (token.token_id, token.uses_left)).collect(),
    }
}
