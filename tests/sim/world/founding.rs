//! What machines have before anything happens: a site of theirs is founded, and its first entries are on their disks.

use fleet_core::{FleetId, GroupId, NodeId, SiteName};
use fleet_replication::command::{Action, COMMAND_VERSION, Command};
use fleet_sim::{Clocks, Disk};
use fleet_store::record::{CommandId, Founding, PeerSite};

use super::{Event, Machine, Site, World};
use crate::consensus::{DiskRecord, Entry, Members, Payload};
use crate::judge::Judge;
use crate::node::admission;

pub(super) fn node_id(machine: usize, generation: u64) -> NodeId {
    let mut bytes = [0; 16];
    bytes[7] = u8::try_from(machine + 1).unwrap_or(u8::MAX);
    bytes[8..].copy_from_slice(&generation.to_be_bytes());
    NodeId::from_bytes(bytes)
}

impl World {
    /// Machines whose disks hold what a founded site of `count` nodes has agreed on.
    pub(super) fn found(&mut self, count: usize) {
        let voters = if count < 3 { 1 } else { count - usize::from(count.is_multiple_of(2)) };
        let (site, first) = (self.sites.len(), self.machines.len());
        let number = u8::try_from(site + 1).unwrap_or(u8::MAX);
        let name: SiteName = if site == 0 { SiteName::default() } else { "far".parse().expect("a name") };
        let peer = PeerSite { group: GroupId::from_bytes([number; 16]), site: name };
        let ids: Vec<NodeId> = (first..first + count).map(|machine| node_id(machine, 0)).collect();
        let members = Members {
            voters: vec![ids[..voters].iter().copied().collect()],
            learners: ids[voters..].iter().copied().collect(),
        };
        let founding = Founding {
            fleet: FleetId::default(),
            site: peer.site.clone(),
            group: peer.group,
            founder: ids[0],
            dev: false,
        };
        let mut actions = vec![Action::Found(founding)];
        actions.extend(
            ids.iter().enumerate().map(|(machine, id)| {
                Action::PutNode(Box::new(admission(*id, first + machine, peer.site.clone(), None)))
            }),
        );
        actions.push(Action::Gate { version: COMMAND_VERSION });
        let at = Clocks::default().wall_now(0);
        let commands = actions.into_iter().zip(1..).map(|(action, id)| Command { id: CommandId(id), at, action });
        let entries = vec![
            Entry { place: (0, 1), payload: Payload::Members(members) },
            Entry { place: (0, 2), payload: Payload::Commands(commands.collect::<Vec<_>>().into()) },
        ];
        self.sites.push(Site { peer, machines: first..first + count, judge: Judge::default() });
        for (machine, id) in (first..).zip(ids) {
            let mut disk = Disk::default();
            disk.write(DiskRecord::Entries(entries.clone())).expect("an empty disk has room");
            disk.sync();
            let clocks = Clocks {
                drift_ppm: self.dice.below(7_000) as i64 - 3_500,
                wall_ahead_ms: self.dice.below(200) as i64 - 100,
                running_since_us: 10_000_000 + self.dice.below(1_000_000_000) as u64,
            };
            self.machines.push(Machine {
                site,
                node: id,
                generation: 0,
                clocks,
                disk,
                process: None,
                run: 0,
                boot: 0,
                is_paused: false,
                backlog: Vec::new(),
                disk_stall_us: 0,
                reports_late_until_us: 0,
                replaces: None,
                reached: 0,
            });
            self.agenda.book(self.dice.below(500_000) as u64, Event::Start { machine });
            self.agenda.book(self.dice.below(500_000) as u64, Event::Gossip { machine });
        }
    }
}
