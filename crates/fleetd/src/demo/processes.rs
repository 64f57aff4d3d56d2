//! Real `fleetd` processes on this machine, each in a directory of its own, for `demo` and `dev`.
//!
//! A process started here ends when this one does, however that happens: its standard input is a pipe, and it stops when
//! the pipe closes.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fleet_core::{Error, ErrorKind};
use tokio::process::{Child, Command};

/// Where one node of the demo lives.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Its name.
    pub(super) name: String,
    /// Its data directory.
    pub(super) data_dir: PathBuf,
    /// Loopback port for gRPC and gossip.
    pub(super) port: u16,
    /// Loopback port for health and metrics.
    pub(super) http_port: u16,
}

impl Place {
    /// A place under `root` on these ports.
    pub(super) fn new(root: &Path, name: &str, port: u16, http_port: u16) -> Self {
        Self { name: name.to_owned(), data_dir: root.join(name), port, http_port }
    }

    /// `127.0.0.1:port`.
    pub(super) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A node that runs.
pub(super) struct NodeProcess {
    /// Where it lives.
    pub(super) place: Place,
    child: Child,
}

impl NodeProcess {
    /// Starts a node of a development fleet; with `seed`, one that joins.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub(super) fn start(place: Place, seed: Option<&str>, slots: u32) -> Result<Self, Error> {
        let failed = |source: std::io::Error| {
            Error::new(ErrorKind::Internal, format!("start node {}", place.name)).with_source(source)
        };
        std::fs::create_dir_all(&place.data_dir).map_err(failed)?;
        let log = std::fs::File::create(place.data_dir.join("fleetd.log")).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let child = Command::new(program)
            .args(arguments(&place, seed, slots))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self { place, child })
    }

    /// Ends it with SIGKILL and waits until it is gone.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub(super) async fn kill(&mut self) -> Result<(), Error> {
        self.child.kill().await.map_err(|source| {
            Error::new(ErrorKind::Internal, format!("kill node {}", self.place.name)).with_source(source)
        })
    }

    /// Asks it to stop by closing its standard input; after `bound` it is killed.
    pub(super) async fn stop(&mut self, bound: Duration) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(bound, self.child.wait()).await.is_err() {
            let _already_gone = self.child.kill().await;
        }
    }

    /// Its exit status if it ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// The last lines of its log.
    pub(super) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.place.data_dir.join("fleetd.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

fn arguments(place: &Place, seed: Option<&str>, slots: u32) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![if seed.is_some() { "join" } else { "start" }.into()];
    if let Some(seed) = seed {
        arguments.extend(["--seed".into(), seed.into()]);
    }
    arguments.extend(["--dev".into(), "--stop-on-stdin-close".into()]);
    arguments.extend(["--name".into(), place.name.clone().into()]);
    arguments.extend(["--data-dir".into(), place.data_dir.clone().into_os_string()]);
    arguments.extend(["--listen".into(), place.endpoint().into()]);
    arguments.extend(["--http".into(), format!("127.0.0.1:{}", place.http_port).into()]);
    arguments.extend(["--slots".into(), slots.to_string().into()]);
    arguments
}

/// `count` loopback ports that are free now, for TCP and UDP.
///
/// # Errors
/// If the kernel has none.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let failed = |source: std::io::Error| Error::new(ErrorKind::Unavailable, "find free ports").with_source(source);
    let mut held = Vec::with_capacity(count);
    while held.len() < count {
        let tcp = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        let port = tcp.local_addr().map_err(failed)?.port();
        if let Ok(udp) = std::net::UdpSocket::bind(("127.0.0.1", port)) {
            held.push((tcp, udp, port));
        }
    }
    Ok(held.into_iter().map(|(_, _, port)| port).collect())
}

/// Whether `port` is free on loopback for TCP and UDP.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok()
}
