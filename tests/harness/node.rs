//! One `fleetd` as a child process: started, signalled, waited for. What its fleet is, the cluster knows.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait::until;

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

/// Whether the nodes of this run keep actor links: all do, but with `FLEET_TEST_ACTOR_LINKS=false`.
pub fn actor_links_are_wanted() -> bool {
    std::env::var("FLEET_TEST_ACTOR_LINKS").as_deref() != Ok("false")
}

/// Where a node is reached, and how its process gets there.
#[derive(Clone, Debug)]
pub struct Place {
    /// The program and its arguments that start `fleetd` there; empty on this machine itself.
    pub launcher: Vec<String>,
    /// Where other nodes reach it.
    pub fleet_address: IpAddr,
    /// Where clients reach it.
    pub client_address: IpAddr,
}

impl Place {
    /// Loopback of this machine.
    pub const LOOPBACK: Self = Self {
        launcher: Vec::new(),
        fleet_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    };

    /// The addresses to listen on and to tell others.
    fn arguments(&self, port: u16, http_port: u16) -> Vec<String> {
        let pairs = if self.fleet_address == self.client_address {
            let at = |port| SocketAddr::new(self.fleet_address, port).to_string();
            vec![("--listen", at(port)), ("--http", at(http_port))]
        } else {
            let all = |port| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port).to_string();
            let advertised = SocketAddr::new(self.fleet_address, port).to_string();
            vec![("--listen", all(port)), ("--http", all(http_port)), ("--advertise", advertised)]
        };
        pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }
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
    /// Where that is.
    pub place: Place,
    /// The join token it shows; none in a development fleet.
    pub token: Option<String>,
    /// Arguments beside those that every node gets.
    pub extra_arguments: Vec<String>,
    child: Option<Child>,
    starts: u32,
}

impl TestNode {
    /// A node that was not started yet.
    pub fn new(name: String, data_dir: PathBuf, port: u16, http_port: u16) -> Self {
        let place = Place::LOOPBACK;
        Self {
            name,
            data_dir,
            port,
            http_port,
            place,
            token: None,
            extra_arguments: Vec::new(),
            child: None,
            starts: 0,
        }
    }

    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        SocketAddr::new(self.place.client_address, self.port).to_string()
    }

    /// `host:port` for other nodes.
    pub fn seed(&self) -> String {
        SocketAddr::new(self.place.fleet_address, self.port).to_string()
    }

    /// Where its HTTP answers clients.
    pub fn http_address(&self) -> SocketAddr {
        SocketAddr::new(self.place.client_address, self.http_port)
    }

    /// Starts `fleetd VERB arguments…` with what every node gets.
    pub fn start(&mut self, verb: &str, arguments: &[String]) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        self.starts += 1;
        let log = std::fs::File::create(self.log_file()).expect("the log can be written");
        let mut command = match self.place.launcher.split_first() {
            None => Command::new(binary("fleetd")),
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(binary("fleetd"));
                command
            }
        };
        command.arg(verb).args(arguments).args(["--name", &self.name]);
        command.args(self.place.arguments(self.port, self.http_port)).arg("--data-dir").arg(&self.data_dir);
        if let Some(token) = self.token.as_ref().filter(|_| verb == "join") {
            command.args(["--token", token]);
        }
        if !self.extra_arguments.iter().any(|argument| argument == "--config") {
            command.args(self.config());
        }
        command
            .args(&self.extra_arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("FLEET_LOG_LEVEL", std::env::var("FLEET_LOG_LEVEL").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("fleetd can be started"));
    }

    /// The file that this suite's run asks for, if it asks for one.
    fn config(&self) -> Vec<String> {
        if actor_links_are_wanted() {
            return Vec::new();
        }
        let file = self.data_dir.with_extension("yaml");
        std::fs::write(&file, "actors: {links: false}\n").expect("the configuration can be written");
        vec!["--config".to_owned(), file.display().to_string()]
    }

    /// Whether the process was started and nobody ended it; it may be frozen or have failed.
    pub fn is_up(&self) -> bool {
        self.child.is_some()
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
        self.exit_code(bound).await
    }

    /// Waits until the process has ended, and gives its exit code.
    pub async fn exit_code(&mut self, bound: Duration) -> Option<i32> {
        // It stays ours until it has ended, so that one that does not is ended with its fleet.
        let child = self.child.as_mut().expect("the node runs");
        let status = until("the node to end", bound, || {
            let status = child.try_wait();
            async move { status.expect("the process is ours").ok_or_else(|| "still running".to_owned()) }
        });
        let code = status.await.code();
        self.child = None;
        code
    }

    /// Ends the process, in whatever state it is.
    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A frozen process cannot be waited for unless it is killed; killing one that has ended is no error.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log_file(&self) -> PathBuf {
        self.data_dir.with_extension(format!("{}.log", self.starts))
    }

    /// The logs of all its starts, in order.
    pub fn all_logs(&self) -> String {
        let file = |start| self.data_dir.with_extension(format!("{start}.log"));
        (1..=self.starts).map(|start| std::fs::read_to_string(file(start)).unwrap_or_default()).collect()
    }

    /// The log of its newest start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The last lines of that log.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
