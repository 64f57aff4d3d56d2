//! Facts of this machine that defaults come from, read once so that the rest is a function of values.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;

use crate::platform;

/// What defaults are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The host's name.
    pub name: String,
    /// Logical processors.
    pub cores: u32,
    /// Whether this process is root.
    pub is_root: bool,
    /// The user's home directory.
    pub home: Option<PathBuf>,
    /// Address of the default route, loopback if there is none.
    pub route: IpAddr,
}

impl HostFacts {
    /// Reads them.
    pub fn read() -> Self {
        let name = platform::host_name();
        Self {
            name: if name.is_empty() { "node".to_owned() } else { name },
            cores: std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
            is_root: platform::is_root(),
            home: std::env::var_os("HOME").map(PathBuf::from),
            route: default_route_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }
}

/// The address the kernel would send from towards a documentation address (RFC 5737); nothing is sent.
fn default_route_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|address| !address.is_unspecified())
}
