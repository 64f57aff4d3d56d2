//! Two sites, `default` and `plant`, and the link between them, which can be cut. One node each: on loopback, each behind a
//! line of its own. More: in network namespaces, because the nodes of a site must reach each other past the cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fleet_api::pb::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::cluster::{Cluster, voters_of};
use crate::harness::slow_link::{Shape, SlowLink};
use crate::harness::wait::until;
use crate::leftovers;
use crate::network::{Cut, Network, Packets};
use crate::support::load::{Load, as_new_job};

/// A wait that takes longer is a failed one.
pub(crate) const BOUND: Duration = Duration::from_secs(600);
const SLOTS: u32 = 128;
/// Where nodes with addresses of their own listen.
const PORTS: (u16, u16) = (7000, 8000);
/// 256 kbit/s.
const NARROW_BYTES_PER_SECOND: u64 = 32_000;

/// How wide the way between the sites is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// As wide as this machine makes it.
    Wide,
    /// 256 kbit/s in each direction, 50 ms long.
    Narrow,
}

impl Line {
    fn shape(self) -> Shape {
        match self {
            Self::Wide => Shape { delay: Duration::ZERO, bytes_per_second: None, buffer_bytes: 1 << 20 },
            Self::Narrow => Shape {
                delay: Duration::from_millis(50),
                bytes_per_second: Some(NARROW_BYTES_PER_SECOND),
                buffer_bytes: 16 * 1024,
            },
        }
    }
}

enum Between {
    Lines(Line, Vec<SlowLink>),
    Network(Network),
}

/// The sites. Dropped in this order: processes, way.
pub(crate) struct TwoSites {
    pub(crate) cluster: Cluster,
    between: Between,
    /// The nodes of `default`.
    pub(crate) here: Vec<usize>,
    /// Those of `plant`.
    pub(crate) there: Vec<usize>,
}

impl TwoSites {
    /// Sites of `nodes` nodes each.
    pub(crate) async fn start(nodes: usize, line: Line) -> Self {
        let (cluster, between) = if nodes == 1 { on_loopback(line).await } else { in_a_network(nodes).await };
        Self { cluster, between, here: (0..nodes).collect(), there: (nodes..2 * nodes).collect() }
    }

    /// How many bytes pass a second in each direction; none if nothing bounds it.
    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        match &self.between {
            Between::Lines(line, _) => line.shape().bytes_per_second,
            Between::Network(_) => None,
        }
    }

    /// Cuts the link, and waits until `default` has noticed.
    pub(crate) async fn cut(&self, here: &Load) {
        match &self.between {
            Between::Lines(_, lines) => lines.iter().for_each(SlowLink::cut),
            Between::Network(network) => {
                let cut = |from: &[usize], to: &[usize]| Cut {
                    from: from.to_vec(),
                    to: to.to_vec(),
                    percent: 100,
                    packets: Packets::All,
                };
                network.pass_all_but(&[cut(&self.here, &self.there), cut(&self.there, &self.here)]);
            }
        }
        until_other_site(here, "the link is gone", |state| state != "alive").await;
    }

    /// The link is whole again.
    pub(crate) fn heal(&self) {
        match &self.between {
            Between::Lines(_, lines) => lines.iter().for_each(SlowLink::heal),
            Between::Network(network) => network.pass_all_but(&[]),
        }
    }

    /// Waits until `default` has a link again.
    pub(crate) async fn until_alive(&self, here: &Load) {
        until_other_site(here, "a link", |state| state == "alive").await;
    }

    /// Has one job accepted for the other site: right after its founding a site takes none for others.
    pub(crate) async fn warm_up(&self, here: &Load, request: &v1::SubmitRequest) {
        self.until_alive(here).await;
        let request = as_new_job(request);
        until("an accepted job", BOUND, || async {
            here.connection().submit(request.clone()).await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// The robots of `plant` take no work, or do again.
    pub(crate) async fn drain(&self, there: &Load, drain: bool) {
        for node in &self.there {
            let node = self.cluster.nodes[*node].name.clone();
            let request = v1::DrainNodeRequest { node, drain, deadline_ms: None };
            there.connection().drain_node(request).await.expect("it is a node of that site");
        }
    }

    /// Log entries that all leaders have proposed so far.
    pub(crate) async fn entries(&self) -> f64 {
        let all = [self.here.clone(), self.there.clone()].concat();
        self.sum("fleet_group_entry_commands_count", &all).await
    }

    /// Bytes of messages that the courier of `default` has sent, and had answered.
    pub(crate) async fn sent_bytes(&self) -> f64 {
        self.sum("fleet_courier_sent_bytes_total", &self.here).await
    }

    /// The sum of the metric `name` over `nodes` and all labels.
    async fn sum(&self, name: &str, nodes: &[usize]) -> f64 {
        let mut sum = 0.0;
        for node in nodes {
            let text = metrics(self.cluster.nodes[*node].http_address()).await.expect("a node tells its metrics");
            let of_name = text.lines().filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            });
            sum += of_name.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        sum
    }

    /// How many jobs `default` knows to have completed at the other site.
    pub(crate) async fn completed_elsewhere(&self, here: &Load) -> u64 {
        let (mut count, mut page) = (0, String::new());
        loop {
            let request = v1::ListJobsRequest {
                states: vec!["completed".to_owned()],
                limit: 1_000,
                page,
                ..v1::ListJobsRequest::default()
            };
            let answer = here.connection().list_jobs(request).await.expect("the fleet answers");
            count += answer.jobs.iter().filter(|job| job.site == "plant").count() as u64;
            page = answer.next;
            if page.is_empty() {
                return count;
            }
        }
    }
}

async fn until_other_site(load: &Load, what: &str, is_reached: fn(&str) -> bool) {
    until(what, BOUND, || async {
        let answer = load.connection().list_sites(v1::ListSitesRequest {}).await;
        let sites = answer.map_err(|error| error.to_string())?.sites;
        let other = sites.iter().find(|site| !site.own).map(|site| site.state.clone()).unwrap_or_default();
        if is_reached(&other) { Ok(()) } else { Err(format!("the other site is `{other}`")) }
    })
    .await;
}

async fn on_loopback(line: Line) -> (Cluster, Between) {
    let mut cluster = Cluster::new("bench-sites", SLOTS);
    let mut lines = Vec::new();
    for site in ["default", "plant"] {
        let index = cluster.prepare_node(None);
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.nodes[index].port));
        let link = SlowLink::start(target, line.shape()).await;
        let arguments = ["--site", site, "--advertise", &link.address().to_string()].map(str::to_owned);
        cluster.nodes[index].extra_arguments = arguments.to_vec();
        lines.push(link);
        cluster.start_node(index);
        cluster.wait_until_answers(index).await;
    }
    (cluster, Between::Lines(line, lines))
}

async fn in_a_network(nodes: usize) -> (Cluster, Between) {
    leftovers::clear();
    let network = Network::new(2 * nodes);
    let mut cluster = Cluster::new_secured("bench-sites", SLOTS);
    cluster.ports = Some(PORTS);
    for (site, first) in [("default", 0), ("plant", nodes)] {
        let uses = u32::try_from(nodes).expect("a few");
        let mut token = if first == 0 { None } else { Some(cluster.token_for(site, uses).await) };
        for node in first..first + nodes {
            cluster.add_node_at(network.place(node), token.clone(), &["--site", site]).await;
            if node == 0 {
                token = Some(cluster.token(uses).await);
            }
        }
        let own: Vec<usize> = (first..first + nodes).collect();
        cluster.wait_for_voters_at(&own, voters_of(nodes)).await;
    }
    (cluster, Between::Network(network))
}

async fn metrics(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
