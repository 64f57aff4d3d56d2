//! A fleet whose nodes have machines of their own, and what can be done to these.

use std::collections::{BTreeSet, HashSet};
use std::mem::discriminant;
use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use fleet_core::JobId;

use crate::disk::Disk;
use crate::harness::cluster::{Cluster, voters_of};
use crate::harness::history::{History, Holding};
use crate::harness::node::{TestNode, actor_links_are_wanted};
use crate::harness::recorder::Recorder;
use crate::harness::wait::until;
use crate::line::Shape;
use crate::load::PATIENCE;
use crate::network::{Cut, Network, Packets};
use crate::plan::{Fault, Victim};
use crate::stalls::Stalls;

/// Where every node listens, on an address of its own.
pub(crate) const PORTS: (u16, u16) = (7000, 8000);
/// How long a healed fleet may take until everybody sees everybody.
const HEAL_BOUND: Duration = Duration::from_secs(60);
/// How long a node may take to say who leads.
const LEADER_PATIENCE: Duration = Duration::from_millis(500);
/// What jobs may do on the nodes, and stores that fit the small disks.
const CONFIG: &str = "robot: {allow: {http: [\"*\"], shell: true}}\n\
                      store: {reserve-bytes: 16777216, cache-bytes: 16777216}\n";

/// How a fleet is laid out.
#[derive(Default)]
pub(crate) struct Layout<'a> {
    /// Its sites with so many nodes each, the founder's first.
    pub(crate) sites: &'a [(&'a str, u32)],
    /// Whether each node has a disk of its own.
    pub(crate) has_disks: bool,
    /// What the network never passes.
    pub(crate) walls: &'a [Cut],
    /// The line between the first site and the others, if they are far.
    pub(crate) line: Option<Shape>,
}

/// The fleet. Dropped in this order: processes, disks, network.
pub(crate) struct Stage {
    pub(crate) cluster: Cluster,
    disks: Vec<Disk>,
    pub(crate) network: Network,
    pub(crate) recorder: Recorder,
    /// What the network never passes.
    walls: Vec<Cut>,
    /// Faults that hold, each with the node that was chosen for it.
    holding: Vec<(Fault, usize)>,
    /// When which node was disturbed, and what was seen where.
    pub(crate) history: History,
}

impl Stage {
    /// A fleet of one site of `nodes` with all its voters, on disks of their own or not.
    pub(crate) async fn new(name: &str, nodes: usize, has_disks: bool) -> Self {
        let sites = [("default", u32::try_from(nodes).expect("a few"))];
        Self::laid_out(name, &Layout { sites: &sites, has_disks, ..Layout::default() }).await
    }

    /// A fleet with that layout.
    pub(crate) async fn laid_out(name: &str, layout: &Layout<'_>) -> Self {
        let Layout { sites, has_disks, walls, line } = *layout;
        let nodes = sites.iter().map(|(_, count)| *count as usize).sum();
        let far = || (sites[0].1 as usize..nodes).collect();
        let network = line.map_or_else(|| Network::new(nodes), |shape| Network::with_line(nodes, far(), shape));
        network.pass_all_but(walls);
        let names = (0..nodes).map(|node| (network.place(node).client_address, format!("node-{}", node + 1)));
        let recorder = Recorder::start_at(network.own_address(), names.collect()).await;
        let disks = (0..if has_disks { nodes } else { 0 }).map(|_| Disk::new()).collect::<Vec<_>>();
        let mut cluster = Cluster::new_secured(&format!("chaos-{name}"), 4);
        cluster.ports = Some(PORTS);
        let links = if actor_links_are_wanted() { "" } else { "actors: {links: false}\n" };
        let config = cluster.write_config(&format!("{CONFIG}{links}"));
        for (site, count) in sites {
            let first = cluster.nodes.len();
            // A site that is founded makes its own tokens: the one that founds it has to do for all its machines.
            let mut token = if first == 0 { None } else { Some(cluster.token_for(site, *count).await) };
            let end = first + *count as usize;
            for node in first..end {
                if let Some(disk) = disks.get(node) {
                    let folder = cluster.root().join(format!("node-{}", node + 1));
                    std::os::unix::fs::symlink(disk.data(), folder).expect("the directory is writable");
                }
                let place = network.place(node);
                cluster.add_node_at(place, token.clone(), &["--config", &config, "--site", site]).await;
                if node == 0 {
                    token = Some(cluster.token(*count).await);
                }
            }
            let own: Vec<usize> = (first..end).collect();
            cluster.wait_for_voters_at(&own, voters_of(end - first)).await;
        }
        let (walls, holding, history) = (walls.to_vec(), Vec::new(), History::default());
        Self { cluster, disks, network, recorder, walls, holding, history }
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.cluster.nodes.len()
    }

    /// Begins `faults` together.
    pub(crate) async fn strike(&mut self, faults: &[Fault]) {
        let leader = self.leader().await;
        for fault in faults {
            let node = match victim(fault) {
                Some(Victim::Node(node)) => node,
                Some(Victim::Leader) | None => leader,
            };
            let is_same = |(other, at): &(Fault, usize)| *at == node && discriminant(other) == discriminant(fault);
            if self.holding.iter().any(is_same) {
                continue;
            }
            eprintln!("{} begins: {fault:?} (node-{})", self.at(), node + 1);
            self.holding.push((fault.clone(), node));
        }
        self.note_disturbances();
        self.network.pass_all_but(&self.cuts());
        for (fault, node) in self.holding.clone() {
            self.begin(&fault, node);
        }
    }

    /// What all is done to machines; what is done to the network as a whole has been done.
    fn begin(&mut self, fault: &Fault, node: usize) {
        match fault {
            Fault::Kill(_) => self.cluster.nodes[node].kill(),
            Fault::KillAll => self.cluster.nodes.iter_mut().for_each(TestNode::kill),
            Fault::Freeze(_) if self.cluster.nodes[node].is_up() => self.cluster.nodes[node].freeze(),
            Fault::Slow(_, kbit) => self.network.limit(node, Some(*kbit)),
            Fault::Latency(delay_ms) => self.network.line().delay(Some(*delay_ms)),
            Fault::FullDisk(_) => self.disks[node].fill(),
            Fault::PowerLoss(_) => self.cut_power(node),
            Fault::PowerLossOfAll => (0..self.len()).for_each(|node| self.cut_power(node)),
            _ => {}
        }
    }

    /// A machine stops at once, with its disk: the process may not notice.
    fn cut_power(&mut self, node: usize) {
        if self.cluster.nodes[node].is_up() {
            self.cluster.nodes[node].freeze();
            self.disks[node].cut_power();
            self.cluster.nodes[node].kill();
            self.disks[node].power_on();
        }
    }

    /// Takes away all that holds, and waits until every node answers.
    pub(crate) async fn heal(&mut self) {
        self.note_disturbances();
        let holding = std::mem::take(&mut self.holding);
        self.network.pass_all_but(&self.cuts());
        for (fault, node) in &holding {
            match fault {
                Fault::Slow(..) => self.network.limit(*node, None),
                Fault::Latency(_) => self.network.line().delay(None),
                Fault::FullDisk(_) => self.disks[*node].free(),
                Fault::Freeze(_) if self.cluster.nodes[*node].is_up() => self.cluster.nodes[*node].thaw(),
                _ => {}
            }
        }
        let down: Vec<usize> = (0..self.len()).filter(|node| !self.cluster.nodes[*node].is_up()).collect();
        for node in &down {
            self.cluster.start_node(*node);
        }
        eprintln!("{} healed; started again: {down:?}", self.at());
        for node in down {
            self.cluster.wait_until_answers(node).await;
        }
    }

    /// How long it takes until each of `nodes`, a site, sees each of them alive.
    pub(crate) async fn wait_until_whole(&self, nodes: &[usize]) -> Duration {
        let began = Instant::now();
        for node in nodes.iter().copied() {
            let client = self.cluster.client_with(&[node], PATIENCE, PATIENCE);
            until(&format!("node-{} to see every node alive", node + 1), HEAL_BOUND, || {
                let (client, all) = (client.clone(), nodes.len());
                async move {
                    let nodes = client.list_nodes(v1::ListNodesRequest {}).await.map_err(|error| error.to_string())?;
                    let states: Vec<String> =
                        nodes.nodes.into_iter().map(|node| format!("{} {}", node.name, node.state)).collect();
                    let alive = states.iter().filter(|state| state.ends_with(" alive")).count();
                    if alive == all { Ok(()) } else { Err(states.join(", ")) }
                }
            })
            .await;
        }
        began.elapsed()
    }

    /// Notes when this machine was too slow for what the fleet promises of time (`fleet_core::timing`): promise 8 excepts it.
    pub(crate) fn note_stalls(&mut self, stalls: &Stalls) {
        for at in stalls.seen() {
            let stalled = self.cluster.nodes.iter().map(|node| (node.name.clone(), at));
            self.history.disturbances.extend(stalled);
        }
    }

    /// Notes which jobs run where, as some node that answers says; a fleet that gives no answer now is not pressed.
    pub(crate) async fn note_holdings(&mut self, parking: &HashSet<JobId>) {
        self.note_holdings_at(&self.cluster.up(), parking).await;
    }

    /// The same of the site that has the nodes `asked`.
    pub(crate) async fn note_holdings_at(&mut self, asked: &[usize], parking: &HashSet<JobId>) {
        let client = self.cluster.client_with(asked, PATIENCE, PATIENCE / 2);
        let request =
            v1::ListJobsRequest { states: vec!["running".to_owned()], limit: 1_000, ..v1::ListJobsRequest::default() };
        let Ok(answer) = client.list_jobs(request).await else { return };
        for row in answer.jobs {
            let Some(job) = JobId::from_slice(&row.job_id) else { continue };
            if !parking.contains(&job) {
                self.history.holdings.push(Holding::now(job, row.node, row.attempt));
            }
        }
    }

    /// Who leads the first node's site, as the first node that runs says.
    async fn leader(&self) -> usize {
        self.leader_of(&self.cluster.up()).await
    }

    /// Who leads, as the first of `asked` says that knows; the first of them, if none does.
    pub(crate) async fn leader_of(&self, asked: &[usize]) -> usize {
        for node in asked.iter().copied() {
            let client = self.cluster.client_with(&[node], LEADER_PATIENCE, LEADER_PATIENCE);
            let status = client.get_status(v1::GetStatusRequest {}).await;
            let leader = status.ok().and_then(|status| status.site).map(|site| site.leader).unwrap_or_default();
            if !leader.is_empty() {
                return self.cluster.index_of(&leader);
            }
        }
        asked.first().copied().unwrap_or_default()
    }

    /// From now on the network never passes `walls`.
    pub(crate) fn build_walls(&mut self, walls: Vec<Cut>) {
        self.walls = walls;
        self.network.pass_all_but(&self.cuts());
    }

    fn note_disturbances(&mut self) {
        let disturbed: BTreeSet<usize> =
            self.holding.iter().flat_map(|(fault, node)| disturbed(fault, *node, self.len())).collect();
        for node in disturbed {
            self.history.note_disturbance(&self.cluster.nodes[node].name);
        }
    }

    fn cuts(&self) -> Vec<Cut> {
        let held = self.holding.iter().flat_map(|(fault, node)| cuts(fault, *node, self.len()));
        self.walls.iter().cloned().chain(held).collect()
    }

    /// Time of day, as logs have it.
    fn at(&self) -> String {
        fleet_core::Clock::now(&fleet_core::SystemClock).to_string()
    }
}

fn victim(fault: &Fault) -> Option<Victim> {
    match fault {
        Fault::Kill(victim)
        | Fault::Freeze(victim)
        | Fault::CutNode(victim)
        | Fault::Deaf(victim)
        | Fault::Mute(victim)
        | Fault::Slow(victim, _)
        | Fault::FullDisk(victim)
        | Fault::PowerLoss(victim) => Some(*victim),
        Fault::CutSide(_)
        | Fault::CutAll
        | Fault::Loss(_)
        | Fault::LossBetween(..)
        | Fault::Latency(_)
        | Fault::KillAll
        | Fault::PowerLossOfAll => None,
    }
}

/// The packets that `fault` takes in a network of `all` nodes.
fn cuts(fault: &Fault, node: usize, all: usize) -> Vec<Cut> {
    let rest = |side: &[usize]| (0..all).filter(|node| !side.contains(node)).collect::<Vec<_>>();
    let some = |from: Vec<usize>, to: Vec<usize>, percent| Cut { from, to, percent, packets: Packets::All };
    let from = |from, to| some(from, to, 100);
    let everybody: Vec<usize> = (0..all).collect();
    match fault {
        Fault::CutNode(_) => vec![from(vec![node], rest(&[node])), from(rest(&[node]), vec![node])],
        Fault::CutSide(side) => vec![from(side.clone(), rest(side)), from(rest(side), side.clone())],
        Fault::CutAll => vec![from(everybody.clone(), everybody)],
        Fault::Deaf(_) => vec![from(rest(&[node]), vec![node])],
        Fault::Mute(_) => vec![from(vec![node], rest(&[node]))],
        Fault::Loss(percent) => vec![some(everybody.clone(), everybody, *percent)],
        Fault::LossBetween(side, percent) => {
            vec![some(side.clone(), rest(side), *percent), some(rest(side), side.clone(), *percent)]
        }
        _ => Vec::new(),
    }
}

/// The nodes of a fleet of `all` whose work `fault` may move to others. A side that surely has a majority of the voters has
/// to go on as if nothing were.
fn disturbed(fault: &Fault, node: usize, all: usize) -> Vec<usize> {
    match fault {
        Fault::CutAll | Fault::Loss(_) | Fault::KillAll | Fault::PowerLossOfAll => (0..all).collect(),
        Fault::CutSide(side) => {
            let rest: Vec<usize> = (0..all).filter(|node| !side.contains(node)).collect();
            let has_majority = |part: &[usize]| voters_of(all).saturating_sub(all - part.len()) * 2 > voters_of(all);
            [side.clone(), rest].into_iter().filter(|part| !has_majority(part)).flatten().collect()
        }
        // Work does not move between sites because their links are bad.
        Fault::LossBetween(..) | Fault::Latency(_) => Vec::new(),
        _ => vec![node],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_undisturbed_and_everybody_else_is_not() {
        let cut = Fault::CutSide(vec![0, 1]);
        assert_eq!(disturbed(&cut, 0, 5), [0, 1]);
        assert_eq!(disturbed(&cut, 0, 4), [0, 1, 2, 3], "three voters of four nodes may be two and one");
        assert_eq!(disturbed(&Fault::CutNode(Victim::Leader), 2, 5), [2]);
        assert_eq!(disturbed(&Fault::Loss(1), 2, 3), [0, 1, 2]);
    }

    #[test]
    fn a_cut_is_both_ways_and_deafness_is_not() {
        let both_ways = |percent| {
            let ends = [(vec![1], vec![0, 2]), (vec![0, 2], vec![1])];
            ends.map(|(from, to)| Cut { from, to, percent, packets: Packets::All })
        };
        let both = cuts(&Fault::CutNode(Victim::Leader), 1, 3);
        assert_eq!(both, both_ways(100));
        assert_eq!(cuts(&Fault::LossBetween(vec![1], 7), 0, 3), both_ways(7));
        assert_eq!(cuts(&Fault::Deaf(Victim::Leader), 1, 3), both[1..]);
        assert_eq!(cuts(&Fault::Mute(Victim::Leader), 1, 3), both[..1]);
    }
}
