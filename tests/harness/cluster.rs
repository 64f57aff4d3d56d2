//! A fleet of real `fleetd` processes on loopback, in directories of its own. It ends its processes when dropped, and
//! keeps data and logs if the test failed.

use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fleet_api::pb::v1;
use fleet_api::{ClientOptions, FleetClient};
use rustix::process::{Pid, Signal, kill_process};

use super::wait::until;

/// How long a node may take until it answers, and a group until it has its voters, on a busy machine.
pub const START_BOUND: Duration = Duration::from_secs(40);

/// The binary `name` that the same build made, beside this test's own executable.
pub fn binary(name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(format!("FLEET_TEST_{}", name.to_uppercase())) {
        return PathBuf::from(path);
    }
    let own = std::env::current_exe().expect("a test has an executable");
    let path = own.ancestors().nth(2).expect("it lies in target/PROFILE/deps").join(name);
    assert!(path.exists(), "{} is missing: run `cargo build -p {name}` first", path.display());
    path
}

/// One node: where it lives, and its process while it runs.
pub struct TestNode {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Port of gRPC and gossip.
    pub port: u16,
    /// Port of HTTP.
    pub http_port: u16,
    extra_arguments: Vec<String>,
    child: Option<Child>,
    starts: u32,
}

impl TestNode {
    /// `127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid fits")).expect("a pid is not zero");
        kill_process(pid, signal).expect("the process is ours");
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process is ours");
            child.wait().expect("a killed process ends");
        }
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM, and waits for the exit code.
    pub async fn terminate(&mut self, bound: Duration) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("the node runs");
        until("the node to stop", bound, || {
            let status = child.try_wait().expect("the process is ours");
            async move { status.map(|status| status.code()).ok_or_else(|| "still running".to_owned()) }
        })
        .await
    }

    /// The last lines of the log of its newest start.
    pub fn log_tail(&self) -> String {
        let file = self.data_dir.with_extension(format!("{}.log", self.starts));
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// The fleet.
pub struct Cluster {
    root: PathBuf,
    /// The nodes, the founder first.
    pub nodes: Vec<TestNode>,
    /// Slots of each robot.
    pub slots: u32,
}

impl Cluster {
    /// An empty fleet for the test `name`.
    pub fn new(name: &str, slots: u32) -> Self {
        let root = std::env::temp_dir().join(format!("fleet-test-{name}-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&root).expect("the temporary directory is writable");
        Self { root, nodes: Vec::new(), slots }
    }

    /// A development fleet of `count` nodes, each of which has joined, with as many voters as that number gives.
    pub async fn start(name: &str, count: usize, slots: u32) -> Self {
        let mut cluster = Self::new(name, slots);
        for _ in 0..count {
            cluster.add_node(&[]).await;
        }
        cluster.wait_for_voters(voters_of(count)).await;
        cluster
    }

    /// Starts one more node of a development fleet and waits until it answers.
    pub async fn add_node(&mut self, extra_arguments: &[&str]) -> usize {
        let (port, http_port) = (free_port(), free_port());
        let name = format!("node-{}", self.nodes.len() + 1);
        self.nodes.push(TestNode {
            data_dir: self.root.join(&name),
            name,
            port,
            http_port,
            extra_arguments: extra_arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            child: None,
            starts: 0,
        });
        let index = self.nodes.len() - 1;
        self.start_node(index);
        self.wait_until_answers(index).await;
        index
    }

    /// Starts the process of a node: the founder founds or resumes, the others join or resume.
    pub fn start_node(&mut self, index: usize) {
        let seed = (index > 0).then(|| self.nodes[0].endpoint());
        let slots = self.slots.to_string();
        let node = &mut self.nodes[index];
        assert!(node.child.is_none(), "{} runs already", node.name);
        node.starts += 1;
        let log = std::fs::File::create(node.data_dir.with_extension(format!("{}.log", node.starts)))
            .expect("the log can be written");
        let mut command = Command::new(binary("fleetd"));
        command.arg(if seed.is_some() { "join" } else { "start" });
        if let Some(seed) = seed {
            command.args(["--seed", &seed]);
        }
        command
            .args(["--dev", "--name", &node.name, "--listen", &node.endpoint(), "--slots", &slots])
            .args(["--http", &format!("127.0.0.1:{}", node.http_port), "--data-dir"])
            .arg(&node.data_dir)
            .args(&node.extra_arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("FLEET_LOG_LEVEL", std::env::var("FLEET_LOG_LEVEL").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        node.child = Some(command.spawn().expect("fleetd can be started"));
    }

    /// Waits until the node at `index` answers over gRPC.
    pub async fn wait_until_answers(&mut self, index: usize) {
        let client = self.client_of(&[index]);
        let node = &mut self.nodes[index];
        let bound = START_BOUND;
        let deadline = std::time::Instant::now() + bound;
        loop {
            let answer = client.get_status(v1::GetStatusRequest {}).await;
            let Err(error) = answer else { return };
            assert!(node.is_running(), "{} ended:\n{}", node.name, node.log_tail());
            let late = std::time::Instant::now() > deadline;
            assert!(!late, "waited {bound:?} for {}; last: {error}\n{}", node.name, node.log_tail());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until the group has `count` voters, as some node that runs says.
    pub async fn wait_for_voters(&self, count: usize) {
        let client = self.client();
        until(&format!("{count} voters"), START_BOUND, || {
            let client = client.clone();
            async move {
                let site = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?.site;
                let voters = site.map(|site| site.voters).unwrap_or_default();
                if voters.len() == count { Ok(()) } else { Err(format!("{voters:?}")) }
            }
        })
        .await;
    }

    /// Index of the node called `name`.
    pub fn index_of(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.name == name).unwrap_or_else(|| panic!("there is no node `{name}`"))
    }

    /// Index of the leader, once one is known to all of `asked`.
    pub async fn leader(&self, asked: &[usize]) -> usize {
        let clients: Vec<FleetClient> = asked.iter().map(|index| self.client_of(&[*index])).collect();
        let name = until("an agreed leader", START_BOUND, || {
            let clients = clients.clone();
            async move {
                let mut names = Vec::new();
                for client in clients {
                    let status = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?;
                    names.push(status.site.map(|site| site.leader).unwrap_or_default());
                }
                let agreed = !names[0].is_empty() && names.iter().all(|name| *name == names[0]);
                if agreed { Ok(names.swap_remove(0)) } else { Err(format!("{names:?}")) }
            }
        })
        .await;
        self.index_of(&name)
    }

    /// A client that knows all nodes.
    pub fn client(&self) -> FleetClient {
        self.client_of(&(0..self.nodes.len()).collect::<Vec<_>>())
    }

    /// A client that knows only these nodes.
    pub fn client_of(&self, indices: &[usize]) -> FleetClient {
        FleetClient::new(ClientOptions {
            endpoints: indices.iter().map(|index| self.nodes[*index].endpoint()).collect(),
            deadline: Duration::from_secs(20),
            try_timeout: Duration::from_secs(3),
            ..ClientOptions::default()
        })
        .expect("loopback needs no credential")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // A frozen process cannot be waited for unless it is killed; killing one that has ended is no error.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            eprintln!("data and logs are kept in {}", self.root.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

/// How many of `nodes` vote: 1, 3 or 5.
pub fn voters_of(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

/// A loopback port that is free now for TCP and UDP.
pub fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let port = tcp.local_addr().expect("a bound listener has an address").port();
        if UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
