//! Machines of their own for nodes: a network namespace each, with two interfaces.
//!
//! `fleet0` is the network among nodes, on which all faults happen. `world0` leads to the test itself, which is both the
//! client and the outside that effects reach: it always works, so that a node that is cut off from its fleet could still
//! do harm, and so that the time of a request at the recorder is the time at which it was sent.
//!
//! All bridges and all rules are in one namespace, the switch: whoever removes the namespaces has removed everything. Where
//! some nodes are far, the network among nodes is two bridges with a line between them (`line.rs`).

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::harness::node::Place;
use crate::leftovers;
use crate::line::{Line, Shape};
use crate::tools::{run, run_with, try_run};

/// Packets that the switch does not pass on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// From these nodes …
    pub(crate) from: Vec<usize>,
    /// … to these.
    pub(crate) to: Vec<usize>,
    /// How many of a hundred, by chance; 100 is all.
    pub(crate) percent: u32,
    /// Which of them.
    pub(crate) packets: Packets,
}

/// Kinds of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packets {
    /// Every one.
    All,
    /// UDP.
    Udp,
    /// The first of a TCP connection: who cannot send it cannot dial, but answers who dialled.
    Dials,
}

impl Packets {
    /// What only they match.
    fn expression(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Udp => "meta l4proto udp ",
            Self::Dials => "tcp flags & (syn | ack) == syn ",
        }
    }
}

/// The bridge among nodes, and that among those at the far end of a line.
const NEAR: &str = "fleet";
const FAR: &str = "far";
/// The file in the temporary directory that is locked by who takes addresses.
const TAKING: &str = "fleet-chaos.lock";

/// A network of nodes, numbered from 0.
pub(crate) struct Network {
    name: String,
    /// Third byte of all addresses (198.18/15 is for such tests): two networks at once must not share one.
    world: u8,
    nodes: usize,
    /// Nodes at the far end of the line, if there is one.
    far: Vec<usize>,
    line: Option<Line>,
}

impl Network {
    /// A network for `nodes` nodes, at most 200.
    pub(crate) fn new(nodes: usize) -> Self {
        Self::make(nodes, Vec::new())
    }

    /// The same, with a line of `shape` between the nodes `far` and the rest.
    pub(crate) fn with_line(nodes: usize, far: Vec<usize>, shape: Shape) -> Self {
        let mut network = Self::make(nodes, far);
        network.line = Some(Line::start(&network.switch(), NEAR, FAR, shape));
        network
    }

    fn make(nodes: usize, far: Vec<usize>) -> Self {
        assert!(nodes <= 200, "a network has addresses for 200 nodes");
        // Whoever else looks for a free network at this moment waits until this one can be seen.
        let taking = File::create(std::env::temp_dir().join(TAKING)).expect("the temporary directory is writable");
        taking.lock().expect("a file of ours can be locked");
        let network = Self { name: leftovers::fresh_name(), world: free_world(), nodes, far, line: None };
        network.make_switch();
        drop(taking);
        (0..nodes).for_each(|node| network.make_node(node));
        network.pass_all_but(&[]);
        network
    }

    /// The line.
    ///
    /// # Panics
    /// If all nodes are at one side.
    pub(crate) fn line(&mut self) -> &mut Line {
        self.line.as_mut().expect("there is a line between two sides")
    }

    /// The bridge that has `node`.
    fn bridge_of(&self, node: usize) -> &'static str {
        if self.far.contains(&node) { FAR } else { NEAR }
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}-node{node}", self.name)
    }

    /// Name of the interface by which this machine is in the world; at most 15 bytes.
    fn own_interface(&self) -> String {
        format!("fc{}w{}", std::process::id(), self.world)
    }

    /// Where the test is, for nodes.
    pub(crate) fn own_address(&self) -> IpAddr {
        Ipv4Addr::new(198, 18, self.world, 1).into()
    }

    /// Where node `node` runs.
    pub(crate) fn place(&self, node: usize) -> Place {
        Place {
            launcher: vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.namespace(node))],
            fleet_address: fleet_address(self.world, node).into(),
            client_address: Ipv4Addr::new(198, 18, self.world, host(node)).into(),
        }
    }

    fn make_switch(&self) {
        let (switch, own) = (self.switch(), self.own_interface());
        run("ip", &["netns", "add", &switch]);
        let bridges = [NEAR, FAR, "world"].map(|name| format!("link add {name} type bridge\nlink set {name} up\n"));
        run_with("ip", &["-n", &switch, "-batch", "-"], &bridges.concat());
        let uplink = format!(
            "link add {own} type veth peer name test netns {switch}\n\
             addr add {}/24 dev {own}\nlink set {own} up\n",
            self.own_address()
        );
        run_with("ip", &["-batch", "-"], &uplink);
        run_with("ip", &["-n", &switch, "-batch", "-"], "link set test master world\nlink set test up\n");
    }

    fn make_node(&self, node: usize) {
        let (switch, namespace, place) = (self.switch(), self.namespace(node), self.place(node));
        let bridge = self.bridge_of(node);
        run("ip", &["netns", "add", &namespace]);
        let cables = format!(
            "link add f{node} type veth peer name fleet0 netns {namespace}\n\
             link add w{node} type veth peer name world0 netns {namespace}\n\
             link set f{node} master {bridge}\nlink set w{node} master world\n\
             link set f{node} up\nlink set w{node} up\n"
        );
        run_with("ip", &["-n", &switch, "-batch", "-"], &cables);
        let addresses = format!(
            "link set lo up\n\
             addr add {}/24 dev fleet0\naddr add {}/24 dev world0\n\
             link set fleet0 up\nlink set world0 up\n",
            place.fleet_address, place.client_address
        );
        run_with("ip", &["-n", &namespace, "-batch", "-"], &addresses);
        // Nodes name each other to clients by these addresses: for clients they lead through the world, past all faults.
        let (fleet, world) = (place.fleet_address.to_string(), place.client_address.to_string());
        run("ip", &["route", "add", &fleet, "via", &world, "dev", &self.own_interface()]);
    }

    /// Whether a TCP connection can be made from `from` to where `to` listens for nodes.
    pub(crate) fn can_dial(&self, from: usize, to: usize, port: u16) -> bool {
        let target = fleet_address(self.world, to);
        let dial = format!("import socket; socket.create_connection(('{target}', {port}), timeout=2)");
        let namespace = format!("--net=/run/netns/{}", self.namespace(from));
        try_run("nsenter", &[&namespace, "python3", "-c", &dial]).is_ok()
    }

    /// How long a packet takes from `from` to `to` and one back, at best of `tries`: nobody listens there.
    pub(crate) fn round_trip(&self, from: usize, to: usize, tries: usize) -> Duration {
        let target = fleet_address(self.world, to);
        let dial = format!(
            "import socket, time\n\
             def once():\n began = time.monotonic(); socket.socket().connect_ex(('{target}', 9))\n \
             return time.monotonic() - began\n\
             print(min(once() for _ in range({tries})))"
        );
        let namespace = format!("--net=/run/netns/{}", self.namespace(from));
        let seconds = run("nsenter", &[&namespace, "python3", "-c", &dial]);
        Duration::from_secs_f64(seconds.trim().parse().expect("it is a number"))
    }

    /// From now on drops what `rules` say, and nothing else.
    pub(crate) fn pass_all_but(&self, rules: &[Cut]) {
        let path = format!("--net=/run/netns/{}", self.switch());
        run_with("nsenter", &[&path, "nft", "-f", "-"], &rule_set(self.world, rules));
    }

    /// Bounds what `node` sends and gets to `kbit` kbit/s each; none takes the bound away.
    pub(crate) fn limit(&self, node: usize, kbit: Option<u32>) {
        let (switch, namespace, port) = (self.switch(), self.namespace(node), format!("f{node}"));
        for (namespace, interface) in [(namespace.as_str(), "fleet0"), (switch.as_str(), port.as_str())] {
            let place = ["-n", namespace, "qdisc"];
            match kbit {
                Some(kbit) => {
                    let rate = format!("{kbit}kbit");
                    let shape = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "400ms"];
                    run("tc", &[&place[..], &["replace", "dev", interface], &shape].concat());
                }
                None => drop(run("tc", &[&place[..], &["delete", "dev", interface, "root"]].concat())),
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        (0..self.nodes).map(|node| self.namespace(node)).for_each(|name| leftovers::remove_namespace(&name));
        leftovers::remove_namespace(&self.switch());
    }
}

/// Last byte of a node's addresses.
fn host(node: usize) -> u8 {
    u8::try_from(node + 10).expect("a network has at most 200 nodes")
}

fn fleet_address(world: u8, node: usize) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, world, host(node))
}

/// A third byte that no interface of this machine has in 198.18.0.0/16, the network for such tests.
fn free_world() -> u8 {
    let taken = run("ip", &["-o", "-4", "addr"]);
    let first = std::process::id();
    (0..255)
        .filter_map(|step| u8::try_from((first + step) % 255).ok())
        .find(|third| !taken.contains(&format!(" 198.18.{third}.")))
        .expect("fewer than 255 networks are up")
}

/// The whole table for `nft -f`: it replaces the one before in one step.
fn rule_set(world: u8, rules: &[Cut]) -> String {
    let list = |nodes: &[usize]| {
        nodes.iter().map(|node| fleet_address(world, *node).to_string()).collect::<Vec<_>>().join(", ")
    };
    let mut text = "table bridge chaos\ndelete table bridge chaos\ntable bridge chaos {\n chain forward {\n  \
                    type filter hook forward priority 0; policy accept;\n"
        .to_owned();
    // What comes out of a line has met the rules where it went in.
    text.push_str("  iifname \"line-*\" accept\n");
    for Cut { from, to, percent, packets } in rules.iter().filter(|rule| !rule.from.is_empty() && !rule.to.is_empty()) {
        let chance = if *percent >= 100 { String::new() } else { format!("numgen random mod 100 < {percent} ") };
        let (from, to) = (list(from), list(to));
        text.push_str(&format!("  ip saddr {{ {from} }} ip daddr {{ {to} }} {}{chance}drop\n", packets.expression()));
    }
    text.push_str(" }\n}\n");
    text
}

/// The rig itself: a line that does not delay, or two networks that meet, would make every run worthless.
pub(crate) fn check_that_a_line_delays_and_that_networks_do_not_meet() {
    let shape = Shape { delay_ms: 40, kbit: None };
    let two = move || Network::with_line(3, vec![2], shape);
    let making = std::thread::spawn(two);
    let (mut one, other) = (two(), making.join().expect("a network can be made beside another one"));
    assert_ne!((&one.name, one.world), (&other.name, other.world), "names");
    assert_ne!(one.own_address(), other.own_address(), "addresses");
    for network in [&one, &other] {
        let (near, far) = (network.round_trip(0, 1, 10), network.round_trip(0, 2, 10));
        assert!(near < Duration::from_millis(40), "on one side a round trip takes {near:?}");
        assert!(far >= Duration::from_millis(80), "over the line a round trip takes {far:?}");
    }
    // More than once, so that one that is told in pieces is taken as a whole.
    (0..20).for_each(|_| one.line().delay(Some(400)));
    one.line().delay(Some(0));
    let short = one.round_trip(0, 2, 10);
    assert!(short < Duration::from_millis(80), "over a line without delay a round trip takes {short:?}");
    one.pass_all_but(&[Cut { from: vec![0], to: vec![2], percent: 100, packets: Packets::All }]);
    assert!(other.round_trip(0, 2, 1) >= Duration::from_millis(80), "the other network is as it was");
    assert_eq!(one.line().taken_bytes().map(|bytes| bytes > 0), [true, true]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_names_both_ends_and_its_chance() {
        let rules = [
            Cut { from: vec![0], to: vec![1, 2], percent: 100, packets: Packets::All },
            Cut { from: vec![2], to: vec![0], percent: 7, packets: Packets::Udp },
            Cut { from: vec![2], to: Vec::new(), percent: 100, packets: Packets::All },
            Cut { from: vec![1], to: vec![0], percent: 100, packets: Packets::Dials },
        ];
        let text = rule_set(7, &rules);
        assert!(text.contains("ip saddr { 198.19.7.10 } ip daddr { 198.19.7.11, 198.19.7.12 } drop\n"), "{text}");
        assert!(text.contains(
            "ip saddr { 198.19.7.12 } ip daddr { 198.19.7.10 } meta l4proto udp numgen random mod 100 < 7 drop\n"
        ));
        assert!(text.contains("198.19.7.10 } tcp flags & (syn | ack) == syn drop\n"), "{text}");
        assert!(text.find("line-*") < text.find("saddr"), "a packet meets the rules once: {text}");
        assert_eq!(text.matches("saddr").count(), 3, "a rule without an end is none: {text}");
    }
}
