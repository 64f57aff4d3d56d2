//! Compiles the protocol definitions in `proto/` without protoc.

use std::error::Error;
use std::path::Path;

const ROOT: &str = "../../proto";
const FILES: [&str; 6] = [
    "fleet/v1/fleet.proto",
    "fleet/v1/catalog.proto",
    "fleet/v1/outbox.proto",
    "fleet/peer/v1/peer.proto",
    "fleet/peer/v1/catalog.proto",
    "fleet/peer/v1/site.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={}", Path::new(ROOT).join(file).display());
    }
    let descriptors = protox::compile(FILES, [ROOT])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
