//! The workflows that jobs of the simulation run, the results of their effects, and what they must come to.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_core::{Digest, JobId, SiteName};
use fleet_node::ports::{self, JobMachine};
use fleet_replication::command::Submission;
use fleet_store::record::{Content, JobSpec, WorkflowName};
use fleet_workflow::machine::command::Command;
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::{ErrorObject, Event, Outcome};
use fleet_workflow::machine::{CompiledWorkflow, INTERPRETER_VERSION, JobContext, Machine};
use serde_json::{Value, json};

fn call(name: &str) -> Value {
    json!({ "call": "http", "with": { "method": "get", "endpoint": format!("http://outside/{name}") } })
}

fn document(name: &str, tasks: &Value) -> String {
    let document = json!({ "dsl": "1.0.3", "namespace": "sim", "name": name, "version": "1.0.0" });
    json!({ "document": document, "do": tasks }).to_string()
}

/// Every workflow, by its number. Only those before [`WAITING_FROM`] never wait for a time.
pub(crate) fn all() -> Vec<String> {
    let mut fragile = call("fragile");
    fragile["metadata"] = json!({ "fleet": { "onLost": "fail" } });
    vec![
        document("line", &json!([{ "one": call("one") }, { "two": call("two") }, { "three": call("three") }])),
        document(
            "rounds",
            &json!([{ "each": {
                "for": { "each": "item", "in": "${ [1, 2, 3] }" },
                "do": [{ "ask": call("item") }, { "keep": { "set": { "last": "${ $item }" } } }],
            } }, { "end": call("end") }]),
        ),
        document(
            "branches",
            &json!([{ "both": { "fork": { "branches": [{ "left": call("left") }, { "right": call("right") }] } } },
                { "after": call("after") }]),
        ),
        document(
            "fragile",
            &json!([{ "guarded": { "try": [{ "once": fragile }], "catch": { "do": [{ "caught": { "set": { "lost": true } } }] } } },
                { "after": call("after") }]),
        ),
        document(
            "parks",
            &json!([{ "one": call("one") }, { "rest": { "wait": { "seconds": 2 } } }, { "two": call("two") }]),
        ),
        document("naps", &json!([{ "nap": { "wait": { "milliseconds": 200 } } }, { "one": call("one") }])),
    ]
}

/// The first workflow that waits for a time.
pub(crate) const WAITING_FROM: usize = 4;
/// The workflow that may come to something else, because an effect of it may be lost.
const FRAGILE: usize = 3;

/// What an effect results in.
pub(crate) fn result_of(effect: &Effect) -> Value {
    match effect {
        Effect::Http(request) => json!({ "said": request.uri }),
        Effect::Process(_) => Value::Null,
    }
}

/// Runs definitions, each compiled once.
#[derive(Clone)]
pub(crate) struct Interpreter {
    compiled: Arc<BTreeMap<String, Arc<CompiledWorkflow>>>,
    expected: Arc<Vec<Option<Value>>>,
}

impl Interpreter {
    pub(crate) fn new() -> Self {
        let compile = |text: String| {
            let parsed =
                fleet_workflow::parse_definition(text.as_bytes()).expect("the workflows of the simulation are valid");
            let compiled = CompiledWorkflow::compile(Arc::new(parsed.workflow)).expect("their expressions are, too");
            (text, Arc::new(compiled))
        };
        let compiled = Arc::new(all().into_iter().map(compile).collect());
        let mut interpreter = Self { compiled, expected: Arc::default() };
        interpreter.expected = Arc::new((0..all().len()).map(|number| interpreter.outcome(number)).collect());
        interpreter
    }

    fn machine(&self, job: JobId, definition: &str, input: &Value) -> Machine {
        let context = JobContext { job_id: job.to_string(), runtime_version: INTERPRETER_VERSION.to_string() };
        Machine::start(Arc::clone(&self.compiled[definition]), context, input)
    }

    /// What workflow `number` comes to where nothing fails; `None` where more than one output is right.
    pub(crate) fn expected(&self, number: usize) -> Option<&Value> {
        self.expected.get(number).and_then(Option::as_ref)
    }

    fn outcome(&self, number: usize) -> Option<Value> {
        let mut machine = self.machine(JobId::default(), &all()[number], &json!({}));
        let mut commands = machine.apply(&Event::Started { at_ms: 0 });
        while let Some(command) = (!commands.is_empty()).then(|| commands.remove(0)) {
            let event = match command {
                Command::Start { path, effect, .. } => Event::EffectEnded {
                    path,
                    started_ms: 0,
                    at_ms: 0,
                    outcome: Outcome::Ok(result_of(&effect)),
                    stdout_tail: String::new(),
                    stderr_tail: String::new(),
                },
                Command::SetTimer { path, due_ms } => Event::TimerFired { path, at_ms: due_ms },
                Command::Complete { output } => return Some(output).filter(|_| number != FRAGILE),
                Command::Fail { error } => panic!("workflow {number} fails: {error:?}"),
                Command::Cancel { .. } | Command::CancelTimer { .. } => continue,
            };
            commands.extend(machine.apply(&event));
        }
        panic!("workflow {number} does not end")
    }
}

impl ports::Interpreter for Interpreter {
    fn begin(&self, job: JobId, definition: &[u8], input: &[u8]) -> Result<Box<dyn JobMachine>, ErrorObject> {
        let definition = String::from_utf8_lossy(definition);
        let input = serde_json::from_slice(input).expect("inputs of the simulation are JSON");
        Ok(Box::new(RunningMachine(self.machine(job, &definition, &input))))
    }
}

struct RunningMachine(Machine);

impl JobMachine for RunningMachine {
    fn apply(&mut self, event: &Event) -> Vec<Command> {
        self.0.apply(event)
    }

    fn is_timed_out(&self) -> bool {
        self.0.is_timed_out()
    }

    fn workflow(&self) -> String {
        self.0.workflow_name()
    }
}

/// Asks for `job` to run workflow `number` at any robot that stays connected.
pub(crate) fn submission(job: JobId, number: usize, priority: u8, site: SiteName) -> Submission {
    let definition = all()[number].clone();
    let workflow =
        WorkflowName { namespace: "sim".to_owned(), name: format!("workflow-{number}"), version: "1.0.0".to_owned() };
    let spec = JobSpec {
        workflow,
        definition: Digest::of(definition.as_bytes()),
        interpreter: INTERPRETER_VERSION,
        site,
        tags: Vec::new(),
        capabilities: vec!["http".to_owned()],
        lost_max: 5,
        finish_within_ms: None,
        retry_of: None,
    };
    Submission {
        job,
        spec,
        priority,
        input: Content::inline("{}"),
        definition: Some(Content::inline(definition.into_bytes())),
    }
}
