//! A driver for tests: a scripted outside world on a clock of its own, and a journal.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet_workflow::machine::command::{Command, EffectPath};
use fleet_workflow::machine::effect::{Effect, Program};
use fleet_workflow::machine::event::{ErrorObject, Event, Outcome};
use fleet_workflow::machine::{CompiledWorkflow, JobContext, Machine};
use serde_json::{Value, json};

/// What an effect gives, by what it asks for. The count says how often the same path was asked before.
pub(crate) type World = fn(&Effect, &str) -> Outcome;

pub(crate) fn compile(definition: &str) -> Arc<CompiledWorkflow> {
    let parsed = fleet_workflow::parse(definition.as_bytes()).unwrap_or_else(|problems| {
        panic!("{}\n{definition}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    });
    let compiled = CompiledWorkflow::compile(Arc::new(parsed.workflow));
    Arc::new(compiled.unwrap_or_else(|errors| panic!("{errors:?}\n{definition}")))
}

/// A definition around these tasks.
pub(crate) fn workflow(tasks: &str) -> String {
    let indented: String = tasks.lines().map(|line| format!("  {line}\n")).collect();
    format!("document:\n  dsl: '1.0.3'\n  namespace: test\n  name: test\n  version: '1.0.0'\ndo:\n{indented}")
}

pub(crate) fn context() -> JobContext {
    JobContext { job_id: "0199-job".to_owned(), runtime_version: "0.1.0".to_owned() }
}

/// When every test job starts.
pub(crate) const START_MS: u64 = 1_700_000_000_000;
/// How long an effect takes.
pub(crate) const EFFECT_MS: u64 = 10;

/// What happened in a run.
pub(crate) struct Run {
    pub(crate) machine: Machine,
    pub(crate) journal: Vec<Event>,
    /// Every command, with the number of events that had been applied when it came.
    pub(crate) commands: Vec<Command>,
}

impl Run {
    pub(crate) fn result(&self) -> Result<Value, ErrorObject> {
        match self.machine.ended() {
            Some(Command::Complete { output }) => Ok(output.clone()),
            Some(Command::Fail { error }) => Err(error.clone()),
            other => panic!("the workflow did not end: {other:?}, outstanding {:?}", self.machine.outstanding()),
        }
    }
}

/// What a driver knows: effects in flight and timers, by when they end.
#[derive(Default)]
pub(crate) struct Driver {
    pub(crate) now_ms: u64,
    pub(crate) pending: BTreeMap<EffectPath, (u64, Command)>,
}

impl Driver {
    pub(crate) fn new(now_ms: u64) -> Self {
        Self { now_ms, pending: BTreeMap::new() }
    }

    pub(crate) fn take(&mut self, commands: &[Command]) {
        for command in commands {
            match command {
                Command::Start { path, .. } => {
                    let before = self.pending.insert(path.clone(), (self.now_ms + EFFECT_MS, command.clone()));
                    assert!(before.is_none(), "the path {path:?} is not unique");
                }
                Command::SetTimer { path, due_ms } => {
                    let before = self.pending.insert(path.clone(), (*due_ms, command.clone()));
                    assert!(before.is_none(), "the path {path:?} is not unique");
                }
                Command::Cancel { path } | Command::CancelTimer { path } => {
                    assert!(self.pending.remove(path).is_some(), "cancelled what was not there: {path:?}");
                }
                Command::Complete { .. } | Command::Fail { .. } => {}
            }
        }
    }

    /// The next thing that happens, the earliest; of equals, the first by path.
    pub(crate) fn next(&mut self, world: World) -> Option<Event> {
        let path = self.pending.iter().min_by_key(|(path, (due_ms, _))| (*due_ms, *path))?.0.clone();
        self.finish(&path, world)
    }

    /// Makes what is pending at a path happen.
    pub(crate) fn finish(&mut self, path: &EffectPath, world: World) -> Option<Event> {
        let (due_ms, command) = self.pending.remove(path)?;
        self.now_ms = self.now_ms.max(due_ms);
        Some(match command {
            Command::Start { effect, .. } => ended(path, due_ms, world(&effect, &path.0)),
            _ => Event::TimerFired { path: path.clone(), at_ms: self.now_ms },
        })
    }
}

pub(crate) fn ended(path: &EffectPath, at_ms: u64, outcome: Outcome) -> Event {
    Event::EffectEnded {
        path: path.clone(),
        started_ms: at_ms.saturating_sub(EFFECT_MS),
        at_ms,
        outcome,
        stdout_tail: String::new(),
        stderr_tail: String::new(),
    }
}

/// Runs to the end, or until nothing is pending.
pub(crate) fn run(workflow: &Arc<CompiledWorkflow>, input: &Value, world: World) -> Run {
    let mut machine = Machine::start(Arc::clone(workflow), context(), input);
    let mut run_journal = Vec::new();
    let mut all = Vec::new();
    let mut driver = Driver::new(START_MS);
    let mut next = Some(Event::Started { at_ms: START_MS });
    while let Some(event) = next {
        assert!(run_journal.len() < 10_000, "the workflow does not end");
        let commands = machine.apply(&event);
        run_journal.push(event);
        driver.take(&commands);
        all.extend(commands);
        next = if machine.is_ended() { None } else { driver.next(world) };
    }
    Run { machine, journal: run_journal, commands: all }
}

/// Runs a workflow of these tasks.
pub(crate) fn run_tasks(tasks: &str, input: &Value, world: World) -> Run {
    run(&compile(&workflow(tasks)), input, world)
}

/// What the workflow gives.
pub(crate) fn result(tasks: &str, input: Value, world: World) -> Result<Value, ErrorObject> {
    run_tasks(tasks, &input, world).result()
}

/// A world that answers by the address or the command: `/status/404` fails with it, `/echo` gives the request back.
pub(crate) fn web(effect: &Effect, path: &str) -> Outcome {
    match effect {
        Effect::Http(request) => match request.uri.split("/status/").nth(1).and_then(|code| code.parse::<u16>().ok()) {
            Some(status) => Outcome::Err(ErrorObject::standard("communication", status, "HTTP Error", "it failed")),
            None if request.uri.contains("/third") && !path.contains("try~3") => {
                Outcome::Err(ErrorObject::standard("communication", 503, "HTTP Error", "not yet"))
            }
            None => Outcome::Ok(json!({"uri": request.uri, "body": request.body})),
        },
        Effect::Process(request) => match &request.program {
            Program::Shell { command } => Outcome::Ok(json!(format!("{command} {}", request.arguments.join(" ")))),
            Program::Script { .. } => Outcome::Ok(json!("script")),
        },
    }
}
