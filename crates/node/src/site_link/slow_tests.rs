//! A slow link in virtual time: what is urgent is not held up by what is not, and what is not still fills the link.

use std::collections::VecDeque;
use std::time::Duration;

use fleet_core::{GroupId, NodeId, Timestamp};
use fleet_store::record::Payload;

use super::frame::{Frame, GossipPacket, Hello};
use super::protocol::{Command, Protocol};
use crate::ports::SiteTopic;

/// 256 kbit/s.
const BYTES_PER_SECOND: f64 = 32_000.0;
/// Half of a round trip of 100 ms.
const WAY: Duration = Duration::from_millis(50);
/// What HTTP/2, TLS, TCP and IP add to a frame of a few packets, roughly.
const AROUND_BYTES_PER_PACKET: usize = 60;
const PACKET_BYTES: usize = 1_400;
const STEP: Duration = Duration::from_millis(5);

fn hello(site: &str) -> Hello {
    Hello {
        version: super::LINK_VERSION,
        site: site.parse().unwrap(),
        node: NodeId::from_bytes([1; 16]),
        group: GroupId::from_bytes([2; 16]),
        epoch: 1,
        term: 1,
        at: Timestamp(0),
    }
}

/// One direction: a transport that takes whatever it is given at once, as a kernel does, and delivers it in order at the
/// link's speed.
#[derive(Default)]
struct Pipe {
    busy_until: Duration,
    under_way: VecDeque<(Duration, Frame)>,
    bytes: usize,
}

impl Pipe {
    fn send(&mut self, now: Duration, frame: Frame) {
        let length = frame.encode().unwrap().len();
        let bytes = length + AROUND_BYTES_PER_PACKET * length.div_ceil(PACKET_BYTES);
        self.bytes += bytes;
        self.busy_until = self.busy_until.max(now) + Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND);
        self.under_way.push_back((self.busy_until + WAY, frame));
    }
}

/// Two sites and the slow link between them. The south answers whatever it is asked with `answer_bytes`.
struct Slow {
    now: Duration,
    north: Protocol,
    south: Protocol,
    to_south: Pipe,
    to_north: Pipe,
    answer_bytes: usize,
    /// When each call of the north ended.
    ended: Vec<(u64, Duration)>,
    /// When each packet came to the north.
    packets: Vec<Duration>,
}

impl Slow {
    fn new(answer_bytes: usize) -> Self {
        let zero = Duration::ZERO;
        let mut slow = Self {
            now: zero,
            north: Protocol::new(zero, hello("north"), "south".parse().unwrap()),
            south: Protocol::new(zero, hello("south"), "north".parse().unwrap()),
            to_south: Pipe::default(),
            to_north: Pipe::default(),
            answer_bytes,
            ended: Vec::new(),
            packets: Vec::new(),
        };
        slow.run(Duration::from_secs(1));
        slow
    }

    fn ask(&mut self, topic: SiteTopic) -> u64 {
        self.north.ask(self.now, topic, Payload::from("a question")).unwrap()
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.deliver();
            assert!(self.north.tick(self.now).is_empty() && self.south.tick(self.now).is_empty(), "{:?}", self.now);
            while let Some(frame) = self.north.next_frame(self.now) {
                self.to_south.send(self.now, frame);
            }
            while let Some(frame) = self.south.next_frame(self.now) {
                self.to_north.send(self.now, frame);
            }
        }
    }

    fn deliver(&mut self) {
        while self.to_south.under_way.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, frame) = self.to_south.under_way.pop_front().unwrap();
            for command in self.south.take(self.now, frame) {
                if let Command::Asked { call, topic, .. } = command {
                    let bytes = if topic == SiteTopic::Catalog { self.answer_bytes } else { 100 };
                    self.south.answer(call, Ok(Payload::from(vec![0; bytes])));
                }
            }
        }
        while self.to_north.under_way.front().is_some_and(|(at, _)| *at <= self.now) {
            let (_, frame) = self.to_north.under_way.pop_front().unwrap();
            for command in self.north.take(self.now, frame) {
                match command {
                    Command::Answered { call, outcome: Ok(_) } => self.ended.push((call, self.now)),
                    Command::Packet(_) => self.packets.push(self.now),
                    Command::Opened(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn a_large_answer_on_a_slow_link_holds_nothing_urgent_up_for_much_more_than_a_second() {
    let mut slow = Slow::new(4_000_000);
    let large = slow.ask(SiteTopic::Catalog);
    slow.run(Duration::from_secs(10));
    let mut worst = Duration::ZERO;
    for _ in 0..30 {
        let (asked, call) = (slow.now, slow.ask(SiteTopic::Courier));
        let address = "127.0.0.1:1".parse().unwrap();
        slow.south.packet(GossipPacket { from: address, to: address, sealed: Payload::from(vec![0; 300]) });
        slow.run(Duration::from_secs(3));
        let ended = slow.ended.iter().find(|(ended, _)| *ended == call).expect("it is answered meanwhile").1;
        let heard = *slow.packets.last().expect("gossip comes through");
        worst = worst.max(ended - asked).max(heard - asked);
    }
    assert!(slow.ended.iter().all(|(call, _)| *call != large), "the large one goes on all the while");
    println!("an urgent call beside four megabytes on 256 kbit/s: at worst {worst:?}");
    assert!(worst <= Duration::from_millis(1_300), "{worst:?}");
}

#[test]
fn a_slow_link_is_filled_by_what_may_wait() {
    let mut slow = Slow::new(1_000_000);
    let call = slow.ask(SiteTopic::Catalog);
    let began = slow.now;
    slow.run(Duration::from_secs(60));
    let took = slow.ended.iter().find(|(ended, _)| *ended == call).expect("it is answered").1 - began;
    let rate = 1_000_000.0 / took.as_secs_f64();
    println!("a megabyte took {took:?}: {:.0} % of the link", 100.0 * rate / BYTES_PER_SECOND);
    assert!(rate >= 0.8 * BYTES_PER_SECOND, "{rate}");
}
