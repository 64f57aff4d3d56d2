//! What runs on the interpreter's threads: building a machine from its journal, and letting it hear what happened.

use fleet_core::{NodeId, Timestamp};
use fleet_store::record::JournalRecord;
use fleet_workflow::machine::command::Command;
use fleet_workflow::machine::event::{ErrorObject, Event};

use super::course::Course;
use super::task::Assigned;
use super::thinker::Pulse;
use crate::Error;
use crate::ports::{Interpreter, JobMachine};

/// An event that happened here and that the machine has heard.
#[derive(Debug)]
pub struct Heard {
    /// The event.
    pub event: Event,
    /// Its record.
    pub record: JournalRecord,
    /// What the machine asks after it.
    pub commands: Vec<Command>,
    /// Whether the workflow ended by its own timeout.
    pub is_timed_out: bool,
}

/// Machine and course of `job` at the end of its journal. A definition that cannot be run fails the job.
pub fn begin(
    interpreter: &dyn Interpreter,
    job: &Assigned,
    node: NodeId,
    now: Timestamp,
    pulse: &Pulse,
) -> Result<(Box<dyn JobMachine>, Course), Error> {
    let journal_len = u32::try_from(job.journal.len()).unwrap_or(u32::MAX);
    let mut course = Course::new(node, job.pair.job, job.pair.fence, journal_len);
    let mut machine = match interpreter.begin(job.pair.job, job.definition.as_slice(), job.input.as_slice()) {
        Ok(machine) => machine,
        Err(error) => {
            course.fail(&error)?;
            return Ok((Box::new(Ended), course));
        }
    };
    for record in &job.journal {
        pulse.beat();
        match serde_json::from_slice::<Event>(record.as_slice()) {
            Ok(event) => {
                course.replayed(&event);
                course.asked(machine.apply(&event))?;
                course.timed_out(machine.is_timed_out());
            }
            Err(error) => {
                let detail = format!("a record of the journal cannot be read: {error}");
                course.fail(&ErrorObject::standard("runtime", 500, "journal damaged", detail))?;
                return Ok((Box::new(Ended), course));
            }
        }
    }
    let lost = course.lost_before();
    if !course.is_new() {
        course.announce();
    }
    let started = course.is_new().then_some(Event::Started { at_ms: now.0 });
    let lost = lost.into_iter().map(|path| Event::EffectLost { path, at_ms: now.0 });
    for heard in hear(&mut *machine, node, lost.chain(started).collect(), pulse)? {
        course.heard(heard)?;
    }
    Ok((machine, course))
}

/// Lets the machine hear events that happened on `node`.
pub fn hear(
    machine: &mut dyn JobMachine,
    node: NodeId,
    events: Vec<Event>,
    pulse: &Pulse,
) -> Result<Vec<Heard>, Error> {
    let hear = |event| {
        pulse.beat();
        let record = JournalRecord::of_event(Some(node), &event).map_err(Error::store("write a record"))?;
        let commands = machine.apply(&event);
        Ok(Heard { event, record, commands, is_timed_out: machine.is_timed_out() })
    };
    events.into_iter().map(hear).collect()
}

/// The machine of a job that cannot be run.
#[derive(Debug)]
pub(super) struct Ended;

impl JobMachine for Ended {
    fn apply(&mut self, _: &Event) -> Vec<Command> {
        Vec::new()
    }

    fn is_timed_out(&self) -> bool {
        false
    }

    fn workflow(&self) -> String {
        String::new()
    }
}
