//! What the outside sees while a node stops, and while its disk takes nothing.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::cluster::{Cluster, free_port};
use crate::harness::node::binary;
use crate::harness::recorder::Recorder;
use crate::harness::wait::until;
use crate::harness::workflows;
use crate::tool::{Operator, get, get_json, text};

const BOUND: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_says_so_until_its_work_has_stopped() {
    let mut cluster = Cluster::start("op-drain", 1, 4).await;
    let (port, operator) = (cluster.nodes[0].http_port, Operator::at(cluster.nodes[0].endpoint()));
    let recorder = Recorder::start().await;
    operator.submit(&workflows::calls(&recorder.url(), "d", 1, 3_000)).await;
    until("the effect to run", BOUND, || async {
        if recorder.requests().is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    })
    .await;
    let watching = async {
        let mut seen = Vec::new();
        while let Ok((status, body)) = get(port, "/ready").await {
            if seen.last().is_none_or(|(last, _)| *last != status) {
                seen.push((status, body));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (seen, recorder.requests().iter().all(|request| request.answered.is_some()))
    };
    let (code, (seen, work_had_ended)) = tokio::join!(cluster.nodes[0].terminate(BOUND), watching);
    assert_eq!(code, Some(0));
    let (status, body) = seen.last().expect("it answered at least once");
    assert!(*status == 503 && body.contains("the node drains"), "{seen:?}");
    assert!(work_had_ended, "it answered until the work had ended");
}

/// A node whose writes to files can be made to fail, as on a full disk: a limit on the size of files, set from outside.
struct Limited {
    child: Child,
    port: u16,
    http_port: u16,
    root: std::path::PathBuf,
}

impl Limited {
    fn start() -> Self {
        let root = std::env::temp_dir().join(format!("fleet-test-op-disk-{}", uuid::Uuid::now_v7().simple()));
        let (port, http_port) = (free_port(), free_port());
        // Past the limit a write is to fail, not to kill: an ignored signal stays ignored over exec.
        let child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(binary("fleetd"))
            .args(["start", "--dev", "--name", "node-1", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--http", &format!("127.0.0.1:{http_port}"), "--data-dir"])
            .arg(&root)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("fleetd can be started");
        Self { child, port, http_port, root }
    }

    fn limit_files(&self, bytes: Option<u64>) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid fits"));
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(pid, Resource::Fsize, limit).expect("the process is ours");
    }

    async fn health_is(&self, what: &str, status: u16, word: &str) -> serde_json::Value {
        until(&format!("{what} in /health"), BOUND, || async {
            let (code, health) = get_json(self.http_port, "/health").await?;
            if (code, &health["status"]) == (status, &word.into()) { Ok(health) } else { Err(health.to_string()) }
        })
        .await
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // It may have ended by itself; that is what a test failed by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_shows_in_health_and_heals_when_space_returns() {
    let mut node = Limited::start();
    let operator = Operator::at(format!("127.0.0.1:{}", node.port));
    node.health_is("a healthy start", 200, "healthy").await;
    let done = operator.run_with(&["submit", "-", "--wait"], &workflows::set_only()).await;
    assert_eq!(done.code, Some(0), "{done:#?}");

    node.limit_files(Some(0));
    let refused = operator.run_with(&["submit", "-"], &workflows::set_only()).await;
    assert_ne!(refused.code, Some(0), "nothing unsynced is acknowledged: {refused:#?}");
    let health = node.health_is("the lost store", 503, "unhealthy").await;
    assert_eq!((&health["database"], &health["queue"]), (&"disconnected".into(), &"unavailable".into()));
    assert_eq!(health["checks"]["store"]["status"], "fail");
    let (status, ready) = get_json(node.http_port, "/ready").await.expect("it answers all the time");
    assert_eq!((status, &ready["ready"]), (503, &false.into()));
    // Long enough for several tries to open it again.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(node.child.try_wait().expect("the process is ours").is_none(), "the process lives on");
    assert!(get(node.http_port, "/health").await.is_ok());

    node.limit_files(None);
    node.health_is("a healed store", 200, "healthy").await;
    let done = operator.run_with(&["submit", "-", "--wait"], &workflows::set_only()).await;
    assert_eq!(done.code, Some(0), "{done:#?}");
}

/// A node that finds less free than its reserve: because the reserve is more than any disk has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_reserve_no_job_is_admitted_neither_new_nor_again() {
    let mut cluster = Cluster::start("op-reserve", 1, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let good = workflows::set_only();
    let job = operator.submit(&good).await;
    until("the job to end", BOUND, || async {
        let state = text(&operator.json(&["job", "get", &job]).await["state"]);
        if state == "completed" { Ok(()) } else { Err(state) }
    })
    .await;

    let config = cluster.nodes[0].data_dir.with_extension("yaml");
    std::fs::write(&config, format!("store: {{reserve-bytes: {}}}\n", u64::MAX)).expect("the file can be written");
    cluster.nodes[0].terminate(BOUND).await;
    cluster.nodes[0].extra_arguments = vec!["--config".to_owned(), config.display().to_string()];
    cluster.start_node(0);
    cluster.wait_until_answers(0).await;
    for arguments in [&["submit", "-"][..], &["job", "retry", &job]] {
        let refused = operator.run_with(arguments, &good).await;
        assert_eq!(refused.code, Some(4), "{arguments:?}: {refused:#?}");
        assert!(refused.stderr.contains("bytes are free on the leader's disk"), "{arguments:?}: {refused:#?}");
    }
    let kept = operator.json(&["job", "list"]).await;
    assert_eq!(kept["jobs"].as_array().map(Vec::len), Some(1), "what was there is there, and nothing else: {kept}");

    cluster.nodes[0].terminate(BOUND).await;
    cluster.nodes[0].extra_arguments.clear();
    cluster.start_node(0);
    cluster.wait_until_answers(0).await;
    let again = operator.json(&["job", "retry", &job]).await;
    let again = operator.json(&["job", "get", &text(&again["jobId"])]).await;
    assert_eq!(text(&again["retryOf"]), job, "with space it is admitted");
}
