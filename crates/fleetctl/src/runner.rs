//! Drives one machine in this process: carries out its commands and feeds back what happened.
//!
//! What to do is the machine's decision; here are only the clock, the timers, the effects and Ctrl-C. No journal: the
//! run ends with the process.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::{Clock, Error, JobId, SystemClock, Timestamp};
use fleet_effects::{EffectContext, EffectReport, Effects, Lease};
use fleet_workflow::machine::command::{Command, EffectPath, OnLost};
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::{ErrorObject, Event};
use fleet_workflow::machine::{Machine, TaskReport, TaskState, on_big_stack};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::internal;
use crate::render;

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// With this output.
    Completed(Value),
    /// With this error.
    Failed(ErrorObject),
    /// By Ctrl-C.
    Interrupted,
}

/// What an effect left behind.
struct Finished {
    path: EffectPath,
    started: Timestamp,
    report: EffectReport,
}

/// One run.
pub(crate) struct Runner {
    machine: Machine,
    effects: Effects,
    job_id: JobId,
    node_name: &'static str,
    /// Tasks as last shown; `None` if they are not shown.
    shown: Option<Vec<TaskReport>>,
    timers: BTreeMap<EffectPath, Timestamp>,
    running: JoinSet<Finished>,
    cancels: BTreeMap<EffectPath, watch::Sender<bool>>,
}

impl Runner {
    /// A run of `machine` that has not begun; `verbose` shows its tasks.
    pub(crate) fn new(
        machine: Machine,
        effects: Effects,
        job_id: JobId,
        node_name: &'static str,
        verbose: bool,
    ) -> Self {
        let shown = verbose.then(Vec::new);
        Self {
            machine,
            effects,
            job_id,
            node_name,
            shown,
            timers: BTreeMap::new(),
            running: JoinSet::new(),
            cancels: BTreeMap::new(),
        }
    }

    /// Runs to the end; nothing that was started is left behind.
    pub(crate) async fn run(mut self) -> Result<Ended, Error> {
        let ended = self.drive().await;
        for cancel in self.cancels.values() {
            cancel.send_replace(true);
        }
        while self.running.join_next().await.is_some() {}
        self.effects.end_all().await;
        ended
    }

    async fn drive(&mut self) -> Result<Ended, Error> {
        let mut event = Event::Started { at_ms: SystemClock.now().0 };
        loop {
            if let Some(ended) = self.apply(&event)? {
                return Ok(ended);
            }
            event = tokio::select! {
                stop = tokio::signal::ctrl_c() => {
                    return stop.map(|()| Ended::Interrupted).map_err(|source| internal("listen for Ctrl-C", source));
                }
                event = next_event(&mut self.running, &mut self.timers) => event?,
            };
            if let Event::EffectEnded { path, stdout_tail, stderr_tail, .. } = &event {
                self.cancels.remove(path);
                if self.shown.is_some() {
                    [stdout_tail, stderr_tail].iter().flat_map(|tail| tail.lines()).for_each(show_output);
                }
            }
        }
    }

    /// Applies `event` and carries out what follows from it, up to the end of the workflow.
    fn apply(&mut self, event: &Event) -> Result<Option<Ended>, Error> {
        let mut events = vec![event.clone()];
        while let Some(event) = events.pop() {
            let machine = &mut self.machine;
            let commands = tokio::task::block_in_place(|| on_big_stack(|| machine.apply(&event)))
                .map_err(|source| internal("start a thread", source))?;
            self.show_tasks();
            for command in commands {
                match command {
                    Command::Start { path, effect, on_lost, deadline_ms, .. } => {
                        if on_lost == OnLost::Fail {
                            events.push(Event::EffectStarted { path: path.clone(), at_ms: SystemClock.now().0 });
                        }
                        self.start(path, effect, deadline_ms);
                    }
                    Command::Cancel { path } => {
                        if let Some(cancel) = self.cancels.remove(&path) {
                            cancel.send_replace(true);
                        }
                    }
                    Command::SetTimer { path, due_ms } => {
                        self.timers.insert(path, Timestamp(due_ms));
                    }
                    Command::CancelTimer { path } => {
                        self.timers.remove(&path);
                    }
                    Command::Complete { output } => return Ok(Some(Ended::Completed(output))),
                    Command::Fail { error } => return Ok(Some(Ended::Failed(error))),
                }
            }
        }
        Ok(None)
    }

    fn start(&mut self, path: EffectPath, effect: Effect, deadline_ms: Option<u64>) {
        let (cancel, cancelled) = watch::channel(false);
        self.cancels.insert(path.clone(), cancel);
        let context = EffectContext {
            job_id: self.job_id,
            node_name: self.node_name.to_owned(),
            path: path.clone(),
            cancelled,
            deadline: deadline_ms.map(Timestamp),
            lease: Lease::unlimited(),
        };
        let effects = self.effects.clone();
        self.running.spawn(async move {
            let started = SystemClock.now();
            let report = effects.run(context, &effect).await;
            Finished { path, started, report }
        });
    }

    /// Says which tasks are not as they were.
    fn show_tasks(&mut self) {
        let Some(shown) = &mut self.shown else { return };
        let now = self.machine.tasks();
        for (position, task) in now.iter().enumerate() {
            let before = shown.get(position);
            let is_same = before.is_some_and(|before| {
                (before.state, before.runs, before.attempt) == (task.state, task.runs, task.attempt)
            });
            if !is_same && task.state != TaskState::Pending {
                render::say(&render::plain(&format!("  {:<10} {}", word(task.state), task.pointer)));
            }
        }
        *shown = now;
    }
}

/// What happens next: an effect ends or a timer is due. Never, if nothing is under way.
async fn next_event(
    running: &mut JoinSet<Finished>,
    timers: &mut BTreeMap<EffectPath, Timestamp>,
) -> Result<Event, Error> {
    loop {
        let due = timers.iter().min_by_key(|(path, due)| (**due, *path)).map(|(path, due)| (path.clone(), *due));
        tokio::select! {
            Some(finished) = running.join_next() => {
                let finished = finished.map_err(|source| internal("run an effect", source.into()))?;
                // What was cancelled is not wanted any more; nobody waits for its answer.
                if finished.report.interrupted.is_none() {
                    return Ok(effect_ended(finished));
                }
            }
            path = reached(due) => {
                timers.remove(&path);
                return Ok(Event::TimerFired { path, at_ms: SystemClock.now().0 });
            }
        }
    }
}

fn effect_ended(finished: Finished) -> Event {
    let EffectReport { outcome, stdout_tail, stderr_tail, .. } = finished.report;
    Event::EffectEnded {
        path: finished.path,
        started_ms: finished.started.0,
        at_ms: SystemClock.now().0,
        outcome,
        stdout_tail,
        stderr_tail,
    }
}

/// Completes with the timer's path when its time has come; never without one.
async fn reached(due: Option<(EffectPath, Timestamp)>) -> EffectPath {
    let Some((path, due)) = due else { return std::future::pending().await };
    loop {
        let remaining = due.saturating_since(SystemClock.now());
        if remaining.is_zero() {
            return path;
        }
        // In steps, because the wall clock may be set meanwhile.
        tokio::time::sleep(remaining.min(Duration::from_secs(60))).await;
    }
}

fn show_output(line: &str) {
    render::say(&format!("             | {}", render::plain(line)));
}

fn word(state: TaskState) -> &'static str {
    match state {
        TaskState::Pending => "pending",
        TaskState::Running => "running",
        TaskState::Waiting => "waiting",
        TaskState::Suspended => "suspended",
        TaskState::Completed => "completed",
        TaskState::Faulted => "faulted",
        TaskState::Cancelled => "cancelled",
    }
}
