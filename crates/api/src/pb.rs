//! The messages and services generated from `proto/`, by package. Not written by hand, so not documented here: every
//! message and field is described in its `.proto` file, and the generator carries the comments over.

/// What operators, `fleetctl` and programs say to a node: package `fleet.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_imports, clippy::large_futures)]
pub mod v1 {
    tonic::include_proto!("fleet.v1");
}

/// What nodes say to each other: package `fleet.peer.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::wildcard_imports, clippy::large_futures)]
pub mod peer {
    tonic::include_proto!("fleet.peer.v1");
}
