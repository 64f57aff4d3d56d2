//! The parts of a node and how each is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::PeerDialer;
use fleet_api::Revocations;
use fleet_api::pb::peer::catalog_sync_server::CatalogSyncServer;
use fleet_api::pb::peer::peer_server::PeerServer;
use fleet_api::pb::v1::admission_server::AdmissionServer;
use fleet_api::pb::v1::catalog_server::CatalogServer;
use fleet_api::pb::v1::fleet_server::FleetServer;
use fleet_api::pb::v1::outbox_server::OutboxServer;
use fleet_api::tls::CertificateCell;
use fleet_core::limits::{GRPC_MESSAGE_BYTES_MAX, JOB_LOGS_BYTES_MAX};
use fleet_core::timing::Timing;
use fleet_core::{Digest, Error, ErrorKind};
use fleet_effects::{BaseEnvironment, Effects, Options};
use fleet_membership::{Membership, MembershipConfig, Metadata, Profile};
use fleet_node::catalog::{Between, Catalog};
use fleet_node::link::RobotReport;
use fleet_node::links::Links;
use fleet_node::ports::{SiteTopic, Sites};
use fleet_node::{Node, NodeConfig, NodePorts, SiteGroup};
use fleet_replication::{Group, GroupConfig};
use fleet_store::Store;
use fleet_store::record::Keyring;
use fleet_store::state::members;
use fleet_workflow::machine::INTERPRETER_VERSION;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;

use super::clock;
use super::enroll::Enrolled;
use super::seeds;
use super::standing::Standing;
use crate::config::Settings;
use crate::grpc::{
    AdmissionService, CatalogService, ClientCalls, FleetService, FleetServiceParts, OutboxService, PeerService,
    SitesService, ToMeantSite,
};
use crate::identity::{DataDir, Identity};
use crate::listener::{Bounds, ListenerOptions, Policy, Services};
use crate::ports::{EffectsPort, InterpreterPort, JobLogs, LinkPort, NetworkPort, Peers, StoreMemory};
use crate::site::{Site, read_failed};
use crate::sites::{Home, SiteLinks};
use crate::trust::keeper::TrustKeeper;
use crate::trust::revoked;
use crate::trust::verification::FleetTrust;

/// Counter of the store that numbers the boots of the data directory.
const BOOT_COUNTER: &str = "boots";
/// How long an HTTP call may take whose task sets no timeout.
const HTTP_TIMEOUT: Duration = Duration::from_secs(300);
/// Processes that may run on after their task.
const DETACHED_MAX: usize = 256;
/// Actor links that wait to be taken over.
const ACTOR_LINKS_WAITING_MAX: usize = 16;

/// What a running node is made of. Cheap handles.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) site: Site,
    pub(super) node: Node,
    pub(super) membership: Membership,
    pub(super) identity: Identity,
    pub(super) trust: TrustKeeper,
    pub(super) tls: Tls,
    /// What gossip is sealed and opened with, as of now.
    pub(super) gossip_keys: watch::Sender<Keyring>,
    pub(super) catalog: Catalog,
    /// The catalog beside those of other sites.
    pub(super) catalogs: Between,
    pub(super) interpreter: InterpreterPort,
    pub(super) links: Option<Links>,
    /// Whether there should be links.
    pub(super) links_wanted: bool,
    /// The links to other sites.
    pub(super) sites: SiteLinks,
    /// What other sites are told of this one.
    pub(super) home: Arc<dyn Home>,
    pub(super) reserve_bytes: u64,
    /// How the process stands, as `/health` says it.
    pub(super) standing: Standing,
    /// Turned true by who wants the node to go through a stop and a start.
    pub(super) restart: watch::Sender<bool>,
}

/// What this node shows and believes.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) certificate: CertificateCell,
    pub(super) trust: FleetTrust,
    pub(super) revocations: Revocations,
}

impl Parts {
    /// What answers on 7000/tcp.
    pub(super) fn services(&self) -> Result<Services, Error> {
        let admission = AdmissionServer::new(AdmissionService::new(
            self.site.clone(),
            self.identity.clone(),
            self.trust.clone(),
            self.membership.clone(),
            Digest::of(&self.tls.trust.root),
        ));
        let fleet = FleetServer::new(FleetService::new(FleetServiceParts {
            site: self.site.clone(),
            node: self.node.clone(),
            identity: self.identity.clone(),
            membership: self.membership.clone(),
            certificate: self.tls.certificate.clone(),
            root: Digest::of(&self.tls.trust.root),
            interpreter: self.interpreter.clone(),
            links: self.links.clone(),
            links_wanted: self.links_wanted,
            reserve_bytes: self.reserve_bytes,
            health: Arc::new(self.standing.clone()),
            other_sites: self.sites.clone(),
            catalogs: self.catalogs.clone(),
            restart: self.restart.clone(),
        }))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let sites: Arc<dyn Sites> = Arc::new(self.sites.clone());
        let outbox =
            OutboxService::new(self.site.clone(), self.node.clone(), self.interpreter.clone(), Arc::clone(&sites));
        let outbox = OutboxServer::new(outbox).max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let outbox = ToMeantSite::new(self.identity.site.clone(), sites, outbox);
        self.sites.serve(SiteTopic::Client, Arc::new(ClientCalls::new(fleet.clone())));
        let fleet = ToMeantSite::new(self.identity.site.clone(), Arc::new(self.sites.clone()), fleet);
        let peer = PeerServer::new(PeerService::new(
            self.site.clone(),
            self.node.clone(),
            self.gossip_keys.subscribe(),
            self.trust.clone(),
        ))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let sites = SitesService::new(self.sites.clone(), Arc::clone(&self.home)).server();
        let (actors, links) = mpsc::channel(ACTOR_LINKS_WAITING_MAX);
        // It ends with the listener.
        tokio::spawn(super::links::take_over(self.links.clone(), links));
        let (catalog, catalog_sync) = self.catalog_services()?;
        Ok(Services {
            client: Routes::new(fleet.clone())
                .add_service(outbox.clone())
                .add_service(admission.clone())
                .add_service(catalog),
            peer: Routes::new(peer)
                .add_service(fleet)
                .add_service(outbox)
                .add_service(admission)
                .add_service(catalog_sync)
                .add_service(sites),
            actors,
        })
    }

    /// What clients and other nodes ask about the catalog.
    fn catalog_services(&self) -> Result<(CatalogServer<CatalogService>, CatalogSyncServer<CatalogService>), Error> {
        let service = CatalogService::new(
            self.catalog.clone(),
            self.site.clone(),
            self.membership.clone(),
            self.interpreter.clone(),
            self.reserve_bytes,
        )?;
        let for_clients = CatalogServer::new(service.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        let for_nodes = CatalogSyncServer::new(service)
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
        Ok((for_clients, for_nodes))
    }
}

/// Refuses an address that is taken, before anything is founded or joined: a refused start leaves no fleet behind.
pub(super) fn check_free(settings: &Settings) -> Result<(), Error> {
    let refused = |source: std::io::Error| {
        Error::new(ErrorKind::Conflict, format!("listen for gRPC and gossip on {}", settings.listen))
            .with_next_step("Stop what listens there, or choose another address with --listen.")
            .with_source(source)
    };
    let tcp = std::net::TcpListener::bind(settings.listen).map_err(refused)?;
    // Port 0 takes any port; the two need not be the same here.
    let address = if settings.listen.port() == 0 { settings.listen } else { tcp.local_addr().map_err(refused)? };
    std::net::UdpSocket::bind(address).map(drop).map_err(refused)
}

/// Opens the node's file on a thread that may wait.
pub(super) async fn open_store(directory: &DataDir, cache_bytes: u64) -> Result<Store, Error> {
    let file = directory.store_file();
    let shown = file.display().to_string();
    let cache_bytes = usize::try_from(cache_bytes).unwrap_or(usize::MAX);
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Internal, format!("open the store {shown}"))
            .with_next_step("Check the disk and its free space.")
            .with_source(source)
    };
    // It holds the journals of all jobs and the gossip keys, and the store itself would make it by the umask.
    crate::platform::make_secret(&file).map_err(|source| failed(source.into()))?;
    let opened = tokio::task::spawn_blocking(move || Store::open_with_cache(&file, cache_bytes)).await;
    opened.map_err(|source| failed(source.into()))?.map_err(|source| failed(source.into()))
}

/// The number of this boot of the data directory, durable before anything is sent.
pub(super) async fn raise_boot_number(store: &Store) -> Result<u64, Error> {
    store
        .raise_counter(BOOT_COUNTER)
        .await
        .map_err(|source| Error::new(source.kind(), "raise the boot number").with_source(source))
}

pub(super) fn tls(enrolled: &Enrolled, store: &Store) -> Result<Tls, Error> {
    let root = enrolled.key.root().cloned().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "read the node's certificate: there is none")
            .with_next_step("The data directory is damaged. Join again with an empty one.")
    })?;
    let revocations = Revocations::new();
    // Before the first connection either way: a removed node must find no gap after a restart.
    let state = store.reader(enrolled.identity.group_id).map_err(read_failed)?;
    let nodes = members::nodes(&state).map_err(read_failed)?;
    revocations.extend(revoked::read(&state, &nodes)?);
    let validity = super::validity::load(store, &nodes)?;
    let trust = FleetTrust {
        root,
        own_site: enrolled.identity.site.clone(),
        first_site: enrolled.identity.first_site().clone(),
        revocations: revocations.clone(),
        validity,
    };
    Ok(Tls { certificate: enrolled.key.cell()?, trust, revocations })
}

pub(super) fn peers(tls: &Tls, runtime: &Handle) -> Peers {
    let trust = tls.trust.clone();
    let dialer = PeerDialer::new(trust.root, tls.certificate.clone(), trust.revocations, trust.validity);
    Peers::new(dialer, runtime.clone())
}

pub(super) fn listener_options(tls: &Tls, dev: bool) -> ListenerOptions {
    ListenerOptions {
        policy: if dev { Policy::Development } else { Policy::Certified },
        certificate: tls.certificate.clone(),
        trust: tls.trust.clone(),
        bounds: Bounds::default(),
    }
}

/// Starts gossip. It waits for the store twice, so it runs on a thread that may.
pub(super) async fn start_membership(
    settings: &Settings,
    identity: &Identity,
    store: &Store,
) -> Result<Membership, Error> {
    let failed = |source: fleet_membership::Error| Error::new(source.kind(), "start gossip").with_source(source);
    let config = MembershipConfig {
        node: identity.node_id,
        listen: settings.listen,
        advertise: Some(seeds::own_address(&identity.advertise).await),
        seeds: identity.contacts.iter().filter_map(|contact| contact.parse().ok()).collect(),
        keyring: super::keyring::ring(identity)?,
        wan_keyring: super::keyring::wan_ring(identity),
        profile: Profile::Lan,
        metadata: Metadata {
            name: identity.name.clone(),
            site: identity.site.clone(),
            grpc_address: identity.advertise.clone(),
            ..Metadata::default()
        },
    };
    let memory = Arc::new(StoreMemory::new(store.clone()));
    let started = tokio::task::spawn_blocking(move || Membership::start(config, memory)).await;
    started.map_err(|source| Error::new(ErrorKind::Internal, "start gossip").with_source(source))?.map_err(failed)
}

/// Opens the group on the runtime of peers, so that clients' work cannot starve it.
pub(super) async fn open_group(
    identity: &Identity,
    store: &Store,
    peers: &Peers,
    runtime: &Handle,
) -> Result<Group, Error> {
    let config = GroupConfig {
        store: store.clone(),
        group: identity.group_id,
        epoch: identity.epoch,
        timing: Timing::LAN,
        clock: clock(),
        network: Arc::new(NetworkPort::new(peers.clone())),
        apply_commands: fleet_replication::fsm::apply,
    };
    let opened = runtime.spawn(Group::open(config)).await;
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Unavailable, "open the site's group").with_source(source)
    };
    opened.map_err(|source| failed(source.into()))?.map_err(|source| failed(source.into()))
}

/// What runs effects.
#[derive(Clone)]
pub(super) struct OpenedEffects {
    pub(super) port: EffectsPort,
    /// Whether no guard of the node's last boot can be alive.
    guards_gone: bool,
}

pub(super) async fn open_effects(settings: &Settings, directory: &DataDir) -> Result<OpenedEffects, Error> {
    let guard_dir = directory.path().join("guards");
    crate::platform::create_private_dir(&guard_dir)
        .map_err(|source| Error::new(ErrorKind::Internal, "make the directory of guards").with_source(source))?;
    let gone = fleet_effects::guard::wait_until_gone(&guard_dir, Timing::LAN.robot_lease).await;
    let effects = Effects::new(Options {
        http_timeout: HTTP_TIMEOUT,
        allowed: settings.allow.capabilities().into_iter().collect(),
        allowed_hosts: settings.allow.http.clone(),
        extra_authorities_pem: Vec::new(),
        environment: environment(),
        work_dir: None,
        guard_dir: Some(guard_dir),
        detached_max: DETACHED_MAX,
    })
    .map_err(|source| Error::new(ErrorKind::Internal, "prepare to run effects").with_source(source))?;
    let logs = JobLogs::open(directory.path(), JOB_LOGS_BYTES_MAX)
        .map_err(|source| Error::new(ErrorKind::Internal, "open the logs of jobs").with_source(source))?;
    Ok(OpenedEffects { port: EffectsPort::new(effects, logs), guards_gone: gone.is_ok() })
}

/// What the actors reach the outside by.
pub(super) struct Outside {
    pub(super) site: Site,
    pub(super) interpreter: InterpreterPort,
    pub(super) effects: OpenedEffects,
    pub(super) other_sites: Arc<dyn Sites>,
}

/// Starts the actors on the runtime of peers: nothing that clients ask for may delay a heartbeat.
pub(super) async fn start_node(
    runtime: &Handle,
    settings: &Settings,
    identity: &Identity,
    boot: u64,
    outside: Outside,
) -> Result<Node, Error> {
    let Outside { site, interpreter, effects, other_sites } = outside;
    let clock = clock();
    let config = NodeConfig {
        node: identity.node_id,
        boot,
        timing: Timing::LAN,
        robot: RobotReport {
            node_name: identity.name.clone(),
            slots: settings.slots,
            tags: sorted(&settings.tags),
            capabilities: robot_capabilities(settings),
            is_draining: false,
        },
        guards_gone: effects.guards_gone,
        ended_jobs_kept: settings.ended_jobs_kept,
        interpreter_threads: interpreter_threads(),
    };
    let group = {
        let _context = runtime.enter();
        SiteGroup::new(site.group().clone(), clock.clone(), site.store().clone(), settings.reserve_bytes)
    };
    let ports = NodePorts {
        clock,
        group: Arc::new(group),
        effects: Arc::new(effects.port),
        robot_link: Arc::new(LinkPort::new(site.peers().clone())),
        interpreter: Arc::new(interpreter),
        sites: other_sites,
        own_journal: Arc::new(site.store().clone()),
    };
    let failed = || Error::new(ErrorKind::Internal, "start the node's actors");
    let started = runtime.spawn(Node::start(config, ports)).await;
    started
        .map_err(|source| failed().with_source(source))?
        .map_err(|source| Error::new(source.kind(), "start the node's actors").with_source(source))
}

/// What placement may count on: what the configuration allows, and the interpreter this software has.
fn robot_capabilities(settings: &Settings) -> Vec<String> {
    let mut words = settings.allow.words();
    words.push(format!("{}{INTERPRETER_VERSION}", fleet_node::placement::INTERPRETER_WORD));
    sorted(&words)
}

/// Threads with a large stack for interpreters: one a core, at most four.
fn interpreter_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4))
}

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort();
    words.dedup();
    words
}

/// What child processes find in their environment, from this process's own.
fn environment() -> BaseEnvironment {
    let defaults = BaseEnvironment::default();
    let read = |name: &str, default: String| std::env::var(name).unwrap_or(default);
    BaseEnvironment {
        path: read("PATH", defaults.path),
        home: read("HOME", defaults.home),
        lang: read("LANG", defaults.lang),
    }
}

/// Where the first admin's credential is kept.
pub(super) fn admin_file(directory: &DataDir) -> PathBuf {
    directory.path().join("admin.json")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn nobody_else_can_read_the_store() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDir::open(root.path()).unwrap();
        for _ in 0..2 {
            open_store(&directory, 1 << 20).await.unwrap().close();
            let file = std::fs::metadata(directory.store_file()).unwrap();
            assert_eq!(file.permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(directory.store_file(), std::fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
}
