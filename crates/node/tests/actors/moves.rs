//! Two sites with leaders and robots of their own, joined in memory: jobs go over, run, and come back.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use tokio::sync::watch;

use fleet_core::{Error, ErrorKind, GroupId, JobId, SiteName};
use fleet_node::ports::{KnownSite, KnownSites, RobotOffer, SiteServer, SiteTopic, Sites};
use fleet_node::{JobAction, JobRequest, Node};
use fleet_replication::command::{Action, Moving};
use fleet_store::record::{Content, Ending, JobState, NodeProfile, Payload, PeerSite, Reason};
use fleet_store::state::listing::{Listed, listed};
use fleet_store::state::{jobs, moves};

use crate::support::{Fleet, SharedLog, TestClock, done, id};

/// The way between the sites.
#[derive(Default)]
struct Way {
    nodes: Mutex<BTreeMap<SiteName, Node>>,
    known: Mutex<BTreeMap<SiteName, watch::Sender<Arc<KnownSites>>>>,
    is_cut: AtomicBool,
    /// Whether messages arrive and their answers do not.
    loses_answers: AtomicBool,
    /// Whether nothing arrives that the second site sends.
    is_one_way: AtomicBool,
    messages: AtomicUsize,
}

/// The way as one site sees it.
struct End {
    own: SiteName,
    way: Arc<Way>,
}

impl Sites for End {
    fn ask(&self, site: SiteName, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        let (way, own) = (Arc::clone(&self.way), self.own.clone());
        async move {
            let cut = || Error::new(ErrorKind::Unavailable, "no link");
            assert_eq!(topic, SiteTopic::Courier);
            // As far as between two towns.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if way.is_cut.load(Ordering::SeqCst) || own == name(1) && way.is_one_way.load(Ordering::SeqCst) {
                return Err(cut());
            }
            way.messages.fetch_add(1, Ordering::SeqCst);
            let server = way.nodes.lock().unwrap().get(&site).ok_or_else(cut)?.courier_server();
            let answer = server.answer(own, message).await;
            if way.loses_answers.load(Ordering::SeqCst) { Err(cut()) } else { answer }
        }
        .boxed()
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        self.way
            .known
            .lock()
            .unwrap()
            .entry(self.own.clone())
            .or_insert_with(|| watch::channel(Arc::default()).0)
            .subscribe()
    }
}

/// Two sites of one node each.
struct Pair {
    way: Arc<Way>,
    sites: [Fleet; 2],
}

fn name(site: usize) -> SiteName {
    ["here", "there"][site].parse().unwrap()
}

impl Pair {
    async fn start() -> Self {
        let (way, clock) = (Arc::new(Way::default()), TestClock::new());
        let mut fleets = Vec::new();
        for site in 0..2 {
            let group = GroupId::from_bytes([u8::try_from(site).unwrap() + 20; 16]);
            let log = SharedLog::of_site(Arc::clone(&clock), name(site), group);
            let end = Arc::new(End { own: name(site), way: Arc::clone(&way) });
            let fleet = Fleet::start_site(Arc::clone(&clock), log, end, 1, &[1]).await;
            way.nodes.lock().unwrap().insert(name(site), fleet.node(1).clone());
            fleets.push(fleet);
        }
        let sites = fleets.try_into().unwrap_or_else(|_| panic!("two sites"));
        let pair = Self { way, sites };
        pair.link(true, &[]);
        pair
    }

    /// The link is up or not, and each site says that its robots have `tags`.
    fn link(&self, is_linked: bool, tags: &[&str]) {
        self.way.is_cut.store(!is_linked, Ordering::SeqCst);
        for site in 0..2 {
            let robot = RobotOffer {
                node: "node-1".to_owned(),
                tags: tags.iter().map(ToString::to_string).collect(),
                capabilities: vec!["http".to_owned()],
                slots: 2,
            };
            let group = self.sites[1 - site].log.group;
            let other = KnownSite { group, is_linked, heard_at: None, robots: vec![robot] };
            let known = Arc::new(KnownSites::from([(name(1 - site), other)]));
            let mut senders = self.way.known.lock().unwrap();
            senders.entry(name(site)).or_insert_with(|| watch::channel(Arc::default()).0).send_replace(known);
        }
    }

    fn request(&self, words: &str) -> JobRequest {
        let mut request = Fleet::request(words);
        request.spec.site = name(0);
        request
    }

    /// Submits here for there.
    async fn submit(&self, words: &str) -> JobId {
        let request = JobRequest { site: Some(name(1)), ..self.request(words) };
        self.sites[0].node(1).submit(request).await.unwrap()
    }

    fn listed(&self, site: usize, job: JobId) -> Option<Listed> {
        listed(&self.sites[site].log.reader(), job).unwrap()
    }

    fn seen(&self, site: usize, job: JobId) -> Option<JobState> {
        self.listed(site, job).map(|listed| match listed {
            Listed::Here(row) => row.state,
            Listed::Elsewhere(_, mirror) => mirror.standing.state,
        })
    }

    fn is_here(&self, site: usize, job: JobId) -> bool {
        matches!(self.listed(site, job), Some(Listed::Here(_)))
    }

    async fn until(&self, what: &str, is_reached: impl Fn() -> bool) {
        let reached = async {
            while !is_reached() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), reached).await.unwrap_or_else(|_| panic!("never {what}"));
    }

    async fn until_seen(&self, site: usize, job: JobId, state: JobState) {
        self.until(&format!("{state} at {site}"), || self.seen(site, job) == Some(state)).await;
    }

    /// Notes that the robot of `site` has `tags` from now on.
    async fn retag(&self, site: usize, tags: &[&str]) {
        let log = &self.sites[site].log;
        let profile = NodeProfile {
            name: "node-1".to_owned(),
            site: name(site),
            address: "127.0.0.1:7000".to_owned(),
            http_address: "127.0.0.1:8000".to_owned(),
            tags: tags.iter().map(ToString::to_string).collect(),
            slots: 2,
            capabilities: vec!["http".to_owned()],
            version: "0".to_owned(),
        };
        let admission =
            fleet_replication::command::NodeAdmission { node: id(1), profile, certificate: None, replaces: None };
        log.commit(Action::PutNode(Box::new(admission))).await.unwrap().accepted().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_runs_at_the_site_it_was_sent_to_and_its_result_is_seen_where_it_was_submitted() {
    let pair = Pair::start().await;
    let job = pair.submit("call").await;
    let mut changes = pair.sites[0].node(1).watch(job);
    let run = pair.sites[1].effects.next().await;
    pair.until_seen(0, job, JobState::Running).await;
    run.end.send(done()).unwrap();
    pair.until_seen(0, job, JobState::Completed).await;
    assert!(changes.changed().await, "who watches it here hears of it");
    assert!(!pair.is_here(0, job));
    let ending = |site: usize| jobs::ending(&pair.sites[site].log.reader(), job).unwrap();
    assert!(matches!(ending(0), Some(Ending::Output(_))) && ending(0) == ending(1));
    assert!(pair.sites[0].effects.is_quiet(), "nothing runs here");
    let messages = pair.way.messages.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(pair.way.messages.load(Ordering::SeqCst) <= messages + 4, "sites with nothing to say are silent");
}

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_a_link_and_go_by_themselves_when_it_is_there() {
    let pair = Pair::start().await;
    pair.link(false, &[]);
    let jobs = join_all((0..5).map(|_| pair.submit(""))).await;
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert!(jobs.iter().all(|job| pair.seen(0, *job) == Some(JobState::Transferring)));
    let linked_at = tokio::time::Instant::now();
    pair.link(true, &[]);
    for job in &jobs {
        pair.until_seen(0, *job, JobState::Completed).await;
    }
    assert!(linked_at.elapsed() < Duration::from_secs(5), "{:?}", linked_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_lost_double_nothing_and_a_new_leader_goes_on() {
    let pair = Pair::start().await;
    pair.way.loses_answers.store(true, Ordering::SeqCst);
    pair.way.is_one_way.store(true, Ordering::SeqCst);
    let job = pair.submit("call").await;
    let run = pair.sites[1].effects.next().await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(pair.seen(0, job), Some(JobState::Transferring), "its source cannot know");
    run.end.send(done()).unwrap();
    pair.until_seen(1, job, JobState::Completed).await;
    for fleet in &pair.sites {
        fleet.log.elect(id(1));
    }
    pair.way.loses_answers.store(false, Ordering::SeqCst);
    pair.way.is_one_way.store(false, Ordering::SeqCst);
    pair.until_seen(0, job, JobState::Completed).await;
    assert_eq!(pair.sites[1].effects.begun.lock().unwrap().len(), 1);
    assert_eq!(pair.sites[1].log.leader(), id(1));
}

#[tokio::test(start_paused = true)]
async fn a_report_settles_the_move_whose_answer_was_lost() {
    let pair = Pair::start().await;
    pair.way.loses_answers.store(true, Ordering::SeqCst);
    let job = pair.submit("call").await;
    pair.sites[1].effects.next().await.end.send(done()).unwrap();
    pair.until_seen(0, job, JobState::Completed).await;
    assert!(!pair.is_here(0, job));
}

#[tokio::test(start_paused = true)]
async fn where_space_is_short_no_job_is_taken_over_and_ends_and_cancels_still_pass() {
    let pair = Pair::start().await;
    let ends = pair.submit("call").await;
    let run = pair.sites[1].effects.next().await;
    let cancelled = pair.submit("call").await;
    let _held = pair.sites[1].effects.next().await;
    pair.until("there", || !pair.is_here(0, cancelled)).await;
    pair.sites[1].log.is_short_of_space.store(true, Ordering::SeqCst);
    let waits = pair.submit("").await;
    pair.sites[0].node(1).control(cancelled, JobAction::Cancel).await.unwrap();
    run.end.send(done()).unwrap();
    pair.until_seen(0, ends, JobState::Completed).await;
    pair.until_seen(0, cancelled, JobState::Cancelled).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(pair.seen(0, waits), Some(JobState::Transferring), "it is neither taken nor refused");
    pair.sites[1].log.is_short_of_space.store(false, Ordering::SeqCst);
    pair.until_seen(0, waits, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_go_keeps_none_behind_it() {
    let pair = Pair::start().await;
    pair.link(false, &[]);
    let input = Payload::from(format!("\"{}\"", "x".repeat(700_000)).into_bytes());
    let request = JobRequest { site: Some(name(1)), input, ..pair.request("") };
    let stuck = pair.sites[0].node(1).submit(request).await.unwrap();
    pair.sites[0].log.blobs.lock().unwrap().clear();
    let jobs = join_all((0..3).map(|_| pair.submit(""))).await;
    pair.link(true, &[]);
    for job in &jobs {
        pair.until_seen(0, *job, JobState::Completed).await;
    }
    assert_eq!(pair.seen(0, stuck), Some(JobState::Transferring), "its input is lost");
}

#[tokio::test(start_paused = true)]
async fn blobs_go_along_in_parts_both_ways() {
    let pair = Pair::start().await;
    let input = Payload::from(format!("\"{}\"", "x".repeat(700_000)).into_bytes());
    let words = format!("call {}", "once ".repeat(8_000));
    let request = JobRequest { site: Some(name(1)), input: input.clone(), ..pair.request(&words) };
    let job = pair.sites[0].node(1).submit(request).await.unwrap();
    pair.until("there", || pair.is_here(1, job)).await;
    let kept = jobs::input(&pair.sites[1].log.reader(), job).unwrap();
    let Some(Content::Blob { digest, .. }) = kept else { panic!("{kept:?}") };
    assert_eq!(pair.sites[1].log.blobs.lock().unwrap().get(&digest), Some(&Ok(input)));
    pair.sites[1].effects.next().await.end.send(done()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancel_crosses_and_a_recall_brings_back_what_has_not_arrived() {
    let pair = Pair::start().await;
    let held = pair.submit("call").await;
    let run = pair.sites[1].effects.next().await;
    pair.until("there", || !pair.is_here(0, held)).await;
    pair.sites[0].node(1).control(held, JobAction::Cancel).await.unwrap();
    pair.until_seen(0, held, JobState::Cancelled).await;
    assert!(run.end.is_closed() && pair.seen(1, held) == Some(JobState::Cancelled));

    pair.link(false, &[]);
    let waiting = pair.submit("").await;
    pair.sites[0].node(1).recall(waiting).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pair.seen(0, waiting), Some(JobState::Transferring), "only the other site can say that it comes back");
    pair.link(true, &[]);
    pair.until_seen(0, waiting, JobState::Completed).await;
    assert!(pair.is_here(0, waiting) && pair.listed(1, waiting).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_site_that_is_given_up_is_not_believed_when_it_comes_back() {
    let pair = Pair::start().await;
    let job = pair.submit("call").await;
    let there = pair.sites[1].effects.next().await;
    pair.until("there", || !pair.is_here(0, job)).await;
    pair.link(false, &[]);
    pair.sites[0].node(1).abandon_move(job).await.unwrap();
    let here = pair.sites[0].effects.next().await;
    there.end.send(done()).unwrap();
    pair.until_seen(1, job, JobState::Completed).await;
    pair.link(true, &[]);
    let group = pair.sites[1].log.group;
    let refused = || moves::peer(&pair.sites[0].log.reader(), group).unwrap().unwrap().reports_refused;
    pair.until("refused", || refused() > 0).await;
    assert!(pair.is_here(0, job) && pair.seen(0, job).is_some_and(|state| !state.is_ended()));
    here.end.send(done()).unwrap();
    pair.until_seen(0, job, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_where_a_robot_has_its_tags_also_when_that_is_heard_later() {
    let pair = Pair::start().await;
    pair.retag(1, &["gpu"]).await;
    let mut request = pair.request("call");
    request.spec.tags = vec!["gpu".to_owned()];
    let job = pair.sites[0].node(1).submit(request.clone()).await.unwrap();
    assert_eq!(pair.seen(0, job), Some(JobState::Queued), "nobody is known to have it");
    pair.link(true, &["gpu"]);
    pair.until("there", || pair.is_here(1, job)).await;
    let next = JobRequest { job: JobId::generate(), ..request };
    let (id, other) = (next.job, pair.sites[0].node(1).submit(next).await.unwrap());
    assert_eq!(id, other);
    pair.until("there", || pair.is_here(1, other)).await;
    let spec = jobs::spec(&pair.sites[1].log.reader(), other).unwrap().unwrap();
    assert_eq!(spec.site, name(1));
}

#[tokio::test(start_paused = true)]
async fn what_no_robot_there_can_run_comes_back_with_the_reason_and_an_unknown_site_is_refused() {
    let pair = Pair::start().await;
    let mut request = pair.request("call");
    request.spec.tags = vec!["laser".to_owned()];
    let to_there = JobRequest { site: Some(name(1)), ..request.clone() };
    let job = pair.sites[0].node(1).submit(to_there).await.unwrap();
    pair.until_seen(0, job, JobState::Queued).await;
    let why = "no robot has the tag `laser`".to_owned();
    assert_eq!(pair.sites[0].log.job(job).reason, Some(Reason::Returned { site: name(1), why }));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pair.sites[0].log.job(job).generation, 1, "it does not go to and fro");
    let unknown = JobRequest { site: Some("nowhere".parse().unwrap()), ..request };
    let error = pair.sites[0].node(1).submit(unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().ends_with("known are: here, there"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_never_answered_for_holds_up_no_other_one_of_its_definition() {
    let pair = Pair::start().await;
    pair.link(false, &[]);
    let (stuck, other) = (pair.submit("").await, pair.submit("").await);
    let number = |job| moves::of_job(&pair.sites[0].log.reader(), job).unwrap().unwrap().number;
    assert!(number(stuck) < number(other));
    // There the first move was settled long ago, as after the recovery of a copy that does not know that.
    let source = PeerSite { group: pair.sites[0].log.group, site: name(0) };
    let pass = Moving::Pass { source, watermark: number(other) };
    pair.sites[1].log.commit(pass.into()).await.unwrap().accepted().unwrap();
    pair.link(true, &[]);
    pair.until_seen(0, other, JobState::Completed).await;
    assert_eq!(pair.seen(0, stuck), Some(JobState::Transferring), "nobody knows here what became of it");
}

#[tokio::test(start_paused = true)]
async fn many_jobs_cost_few_messages() {
    let pair = Pair::start().await;
    pair.link(false, &[]);
    let jobs = join_all((0..1_000).map(|_| pair.submit(""))).await;
    pair.way.messages.store(0, Ordering::SeqCst);
    pair.link(true, &[]);
    for job in &jobs {
        pair.until_seen(0, *job, JobState::Completed).await;
    }
    let messages = pair.way.messages.load(Ordering::SeqCst);
    assert!(messages < 300, "{messages} messages for 1,000 jobs and their results");
}
