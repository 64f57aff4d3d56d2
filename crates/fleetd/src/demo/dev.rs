//! `fleetd dev`: a development fleet that stays up until Ctrl-C, in a temporary directory.

use std::time::Duration;

use fleet_core::{Error, ErrorKind};

use super::processes::{NodeProcess, Place, free_ports, is_free};
use crate::cli::DevFlags;

/// Ports that clients try first.
const PREFERRED_PORTS: (u16, u16) = (7_000, 8_000);
const SLOTS: u32 = 8;
const STOP_BOUND: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs until Ctrl-C or until a node ends by itself.
///
/// # Errors
/// If a node cannot be started, or one ended.
pub async fn run_dev(flags: &DevFlags) -> Result<(), Error> {
    let failed =
        |source: std::io::Error| Error::new(ErrorKind::Internal, "make a temporary directory").with_source(source);
    let root = tempfile::Builder::new().prefix("fleet-dev-").tempdir().map_err(failed)?;
    let count = usize::from(flags.nodes);
    let ports = free_ports(2 * count)?;
    let mut places: Vec<Place> = (0..count)
        .map(|number| {
            Place::new(root.path(), &format!("node-{}", number + 1), ports[2 * number], ports[2 * number + 1])
        })
        .collect();
    if is_free(PREFERRED_PORTS.0) && is_free(PREFERRED_PORTS.1) {
        (places[0].port, places[0].http_port) = PREFERRED_PORTS;
    }
    let seed = places[0].endpoint();
    let mut nodes = Vec::with_capacity(count);
    for place in places {
        let seed = (!nodes.is_empty()).then_some(seed.as_str());
        nodes.push(NodeProcess::start(place, seed, SLOTS)?);
    }
    announce(&nodes);
    let outcome = tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        error = first_end(&mut nodes) => Err(error),
    };
    for node in &mut nodes {
        node.stop(STOP_BOUND).await;
    }
    outcome
}

#[expect(clippy::print_stdout, reason = "this output is for people at a terminal")]
fn announce(nodes: &[NodeProcess]) {
    println!("A development fleet is up: loopback only, no credentials, gone after Ctrl-C.\n");
    for node in nodes {
        let place = &node.place;
        println!("  {}  gRPC {}  http://127.0.0.1:{}/health", place.name, place.endpoint(), place.http_port);
    }
    println!("\n  fleetctl --endpoint {} submit docs/examples/hello.yaml --wait\n", nodes[0].place.endpoint());
}

async fn first_end(nodes: &mut [NodeProcess]) -> Error {
    loop {
        if let Some(ended) = nodes.iter_mut().find_map(|node| node.has_ended().then_some(&*node)) {
            let message = format!("node {} ended:\n{}", ended.place.name, ended.log_tail());
            return Error::new(ErrorKind::Internal, message);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
