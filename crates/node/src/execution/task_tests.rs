//! An execution whose interpreter does not come back.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use fleet_core::{BootInstant, Fence, JobId, SystemClock};
use fleet_workflow::machine::command::{Command, OnLost};
use fleet_workflow::machine::effect::Effect as WorkflowEffect;

use super::super::course::tests::start;
use super::*;

/// Results of effects that come at once.
struct AtOnce;

impl Effects for AtOnce {
    fn run(&self, _: WorkflowEffect, _: EffectContext) -> BoxFuture<'static, EffectReport> {
        Box::pin(async { EffectReport::of(EffectOutcome::Ok(serde_json::Value::Null)) })
    }

    fn end_job(&self, _: JobId) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Runs one effect; a definition `stuck` never gets over its result, as long as the test lives.
struct OneEffect {
    blocks: Mutex<Option<Receiver<()>>>,
}

struct OneEffectMachine(Option<Receiver<()>>);

impl Interpreter for OneEffect {
    fn begin(&self, _: JobId, definition: &[u8], _: &[u8]) -> Result<Box<dyn JobMachine>, ErrorObject> {
        let blocks = (definition == b"stuck").then(|| self.blocks.lock().unwrap().take()).flatten();
        Ok(Box::new(OneEffectMachine(blocks)))
    }
}

impl JobMachine for OneEffectMachine {
    fn apply(&mut self, event: &Event) -> Vec<Command> {
        if matches!(event, Event::EffectEnded { .. }) {
            if let Some(blocks) = &self.0 {
                let _ = blocks.recv();
            }
            return vec![Command::Complete { output: serde_json::Value::Null }];
        }
        vec![start("/do/0", OnLost::Retry)]
    }

    fn is_timed_out(&self) -> bool {
        false
    }

    fn workflow(&self) -> String {
        "test/one:1.0.0".to_owned()
    }
}

/// Runs a job whose records are committed as they come. Gives its journal, and what it ended with.
async fn run_job(definition: &'static str, around: &Surroundings) -> (Vec<Event>, Next) {
    let (sender, control) = mpsc::channel(16);
    let (lease, end) = watch::channel(BootInstant(Duration::MAX));
    let sent: Mutex<(Vec<Event>, Next)> = Mutex::new((Vec::new(), Next::Continue));
    let send = |records: Box<Records>| {
        let mut sent = sent.lock().unwrap();
        assert_eq!(records.from as usize, sent.0.len(), "nothing is missing and nothing comes twice");
        for record in &records.records {
            let Content::Inline(payload) = &record.event else { panic!("no blobs here") };
            sent.0.push(serde_json::from_slice(payload.as_slice()).unwrap());
        }
        sent.1 = records.next.clone();
        let journal_len = u32::try_from(sent.0.len()).unwrap();
        sender.try_send(Control::Committed { journal_len, is_over: records.next != Next::Continue }).unwrap();
    };
    let pair = Pair { job: JobId::generate(), fence: Fence::mint(1, 5, 0) };
    let input = Payload::from("{}");
    let job = Assigned { pair, definition: Payload::from(definition), input, journal: Vec::new(), finish_within: None };
    let running = run(job, around, Lease::new(end, Arc::clone(&around.clock)), control, &send);
    let how = tokio::time::timeout(Duration::from_secs(30), running).await.expect("the job ends");
    drop(lease);
    assert_eq!(how, EndKind::Finished);
    sent.into_inner().unwrap()
}

#[tokio::test]
async fn a_job_whose_interpreter_overruns_fails_by_a_record_and_others_go_on() {
    let (release, blocks) = sync_channel(1);
    let around = Surroundings {
        node: NodeId::generate(),
        node_name: Arc::from("one"),
        clock: Arc::new(SystemClock),
        effects: Arc::new(AtOnce),
        interpreter: Arc::new(OneEffect { blocks: Mutex::new(Some(blocks)) }),
        thinker: Thinker::start(1, Duration::from_millis(50)).unwrap(),
        own_journal: Arc::new(fleet_store::Store::in_memory().unwrap()),
    };
    let (journal, next) = run_job("stuck", &around).await;
    assert!(
        matches!(journal.as_slice(), [Event::Started { .. }, Event::Overrun { .. }]),
        "what it got stuck on is not replayed to anyone: {journal:?}"
    );
    let Next::Fail { error: Content::Inline(error) } = next else { panic!("{next:?}") };
    assert_eq!(serde_json::from_slice::<ErrorObject>(error.as_slice()).unwrap(), ErrorObject::overrun());

    let (journal, next) = run_job("quick", &around).await;
    assert!(matches!(next, Next::Complete { .. }), "{next:?}");
    assert_eq!(journal.len(), 2);
    drop(release);
}
