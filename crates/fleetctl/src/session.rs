//! One run of the program: its global flags, and the client they describe.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use fleet_api::credential::{self, Credential};
use fleet_api::{ClientOptions, FleetClient};
use fleet_core::Error;

use crate::cli::Global;
use crate::progress;
use crate::render::Format;

/// How long one question may take: several failovers, and not longer than a person waits for a wrong address.
const DEADLINE: Duration = Duration::from_secs(10);

/// What every command that talks to a fleet starts from.
pub(crate) struct Session {
    client: FleetClient,
    /// How to print data.
    pub(crate) format: Format,
}

impl Session {
    /// Reads the credential, if there is one, and makes a client. Nothing is sent yet.
    pub(crate) fn new(global: &Global) -> Result<Self, Error> {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        // The flag carries the environment's value already.
        let credential = credential::locate(global.credential.as_deref(), None, home.as_deref())
            .map(|path| Credential::read(&path))
            .transpose()?;
        let options = ClientOptions {
            endpoints: global.endpoints.clone(),
            credential,
            deadline: DEADLINE,
            try_timeout: DEADLINE / 2,
        };
        Ok(Self { client: FleetClient::new(options)?, format: global.output })
    }

    /// The client.
    pub(crate) fn client(&self) -> &FleetClient {
        &self.client
    }

    /// The client for calls about `site`, if one is given.
    pub(crate) fn client_at(&self, site: Option<&str>) -> Result<FleetClient, Error> {
        site.map_or_else(|| Ok(self.client.clone()), |site| self.client.at_site(site))
    }

    /// Asks the fleet, with a progress line if it takes long.
    pub(crate) async fn ask<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let label = format!("asking {}", self.client.endpoints().join(", "));
        progress::during(&label, call).await
    }
}
