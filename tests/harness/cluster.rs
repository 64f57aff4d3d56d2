//! A fleet of real `fleetd` processes on loopback, in directories of its own. It ends its processes when dropped, and
//! keeps data and logs if the test failed.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_api::pb::v1;
use fleet_api::{ClientOptions, Credential, FleetClient};
use fleet_core::ErrorKind;

use super::node::{Place, TestNode};
use super::wait::until;

/// How long a node may take until it answers, and a group until it has its voters, on a busy machine.
pub const START_BOUND: Duration = Duration::from_secs(40);

/// The fleet.
pub struct Cluster {
    root: PathBuf,
    /// The nodes, the founder first.
    pub nodes: Vec<TestNode>,
    /// Slots of each robot.
    pub slots: u32,
    /// Ports of gRPC and HTTP where every node has addresses of its own; else each gets two that are free.
    pub ports: Option<(u16, u16)>,
    /// Whether it is a development fleet: no tokens, no credentials.
    dev: bool,
    /// The operator's credential, once the founder wrote it.
    credential: Option<Credential>,
}

impl Cluster {
    /// An empty development fleet for the test `name`.
    pub fn new(name: &str, slots: u32) -> Self {
        let root = std::env::temp_dir().join(format!("fleet-test-{name}-{}", uuid::Uuid::now_v7().simple()));
        std::fs::create_dir_all(&root).expect("the temporary directory is writable");
        Self { root, nodes: Vec::new(), slots, ports: None, dev: true, credential: None }
    }

    /// A development fleet of `count` nodes, each of which has joined, with as many voters as that number gives.
    pub async fn start(name: &str, count: usize, slots: u32) -> Self {
        Self::new(name, slots).grown(count).await
    }

    /// The same, but a fleet that asks for tokens and credentials.
    pub async fn start_secured(name: &str, count: usize, slots: u32) -> Self {
        Self::new_secured(name, slots).grown(count).await
    }

    async fn grown(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.add_node(&[]).await;
        }
        self.wait_for_voters(voters_of(count)).await;
        self
    }

    /// An empty fleet for the test `name` that asks for tokens and credentials.
    pub fn new_secured(name: &str, slots: u32) -> Self {
        let mut cluster = Self::new(name, slots);
        cluster.dev = false;
        cluster
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a configuration file, for `--config`.
    pub fn write_config(&self, text: &str) -> String {
        let file = self.root.join("fleetd.yaml");
        std::fs::write(&file, text).expect("the directory is writable");
        file.display().to_string()
    }

    /// Starts one more node and waits until it answers.
    pub async fn add_node(&mut self, extra_arguments: &[&str]) -> usize {
        let token = if self.dev || self.nodes.is_empty() { None } else { Some(self.token(1).await) };
        self.add_node_at(Place::LOOPBACK, token, extra_arguments).await
    }

    /// The same, at a place of its own, with `token`.
    pub async fn add_node_at(&mut self, place: Place, token: Option<String>, extra_arguments: &[&str]) -> usize {
        let index = self.prepare_node(token);
        self.nodes[index].place = place;
        self.nodes[index].extra_arguments = extra_arguments.iter().map(|argument| (*argument).to_owned()).collect();
        self.start_node(index);
        self.wait_until_answers(index).await;
        index
    }

    /// A node with ports and a directory, not started.
    pub fn prepare_node(&mut self, token: Option<String>) -> usize {
        let name = format!("node-{}", self.nodes.len() + 1);
        let (port, http_port) = self.ports.unwrap_or_else(|| (free_port(), free_port()));
        let mut node = TestNode::new(name.clone(), self.root.join(name), port, http_port);
        node.token = token;
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// A join token for `uses` nodes.
    pub async fn token(&self, uses: u32) -> String {
        self.token_for("", uses).await
    }

    /// The same for `site`. Right after its founding a fleet makes none for other sites: it does not know yet that all of
    /// its nodes have a program that knows of sites.
    pub async fn token_for(&self, site: &str, uses: u32) -> String {
        let request = v1::CreateTokenRequest { uses, site: site.to_owned(), ..v1::CreateTokenRequest::default() };
        let client = self.client_of(&[0]);
        until("a token", START_BOUND, || {
            let (client, request) = (client.clone(), request.clone());
            async move {
                match client.create_token(request).await {
                    Ok(made) => Ok(made.token),
                    Err(error) if error.kind == ErrorKind::Unavailable => Err(error.to_string()),
                    Err(error) => panic!("an operator may make tokens: {error:?}"),
                }
            }
        })
        .await
    }

    /// Starts the process of a node: the first founds or resumes, the others join or resume by any of the others.
    pub fn start_node(&mut self, index: usize) {
        self.start_node_by(index, &(0..self.nodes.len()).filter(|other| *other != index).collect::<Vec<_>>());
    }

    /// The same, and where it joins, only `seeds` are asked.
    pub fn start_node_by(&mut self, index: usize, seeds: &[usize]) {
        let founds = index == 0 && (self.nodes.len() == 1 || self.nodes[0].data_dir.exists());
        let mut arguments = vec!["--slots".to_owned(), self.slots.to_string()];
        if self.dev {
            arguments.push("--dev".to_owned());
        }
        for seed in seeds.iter().filter(|_| !founds) {
            arguments.extend(["--seed".to_owned(), self.nodes[*seed].seed()]);
        }
        self.nodes[index].start(if founds { "start" } else { "join" }, &arguments);
    }

    /// Takes the data directory of a dead node away and returns where it is now: its machine is new.
    pub fn wipe(&mut self, index: usize) -> PathBuf {
        let node = &self.nodes[index];
        assert!(!node.is_up(), "{} still runs", node.name);
        let kept = self.root.join(format!("{}-before-{}", node.name, uuid::Uuid::now_v7().simple()));
        std::fs::rename(&node.data_dir, &kept).expect("a directory can be moved");
        kept
    }

    /// Waits until the node at `index` answers over gRPC.
    pub async fn wait_until_answers(&mut self, index: usize) {
        if !self.dev && self.credential.is_none() {
            self.credential = Some(self.read_credential().await);
        }
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

    /// The first credential, which the founder writes once it serves.
    async fn read_credential(&self) -> Credential {
        let founder = &self.nodes[0];
        until("the first credential", START_BOUND, || async {
            Credential::read(&self.credential_file()).map_err(|error| format!("{error}\n{}", founder.log_tail()))
        })
        .await
    }

    /// Where the founder keeps the first credential.
    pub fn credential_file(&self) -> PathBuf {
        self.nodes[0].data_dir.join("admin.json")
    }

    /// Waits until the group has `count` voters, as some node that runs says.
    pub async fn wait_for_voters(&self, count: usize) {
        self.wait_for_voters_at(&(0..self.nodes.len()).collect::<Vec<_>>(), count).await;
    }

    /// The same for the group of the site of the nodes `asked`.
    pub async fn wait_for_voters_at(&self, asked: &[usize], count: usize) {
        let client = self.client_of(asked);
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

    /// Indices of the nodes that were started and not ended.
    pub fn up(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].is_up()).collect()
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
        self.client_with(indices, Duration::from_secs(20), Duration::from_secs(3))
    }

    /// The same, with a patience of its own: for a whole call, and for one try of it.
    pub fn client_with(&self, indices: &[usize], deadline: Duration, try_timeout: Duration) -> FleetClient {
        FleetClient::new(ClientOptions {
            endpoints: indices.iter().map(|index| self.nodes[*index].endpoint()).collect(),
            credential: self.credential.clone(),
            deadline,
            try_timeout,
        })
        .expect("the credential is sound, and loopback needs none")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(TestNode::end);
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
