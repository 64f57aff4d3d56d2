//! A language of three words, so that tests say what a job does in one line.

use fleet_core::JobId;
use fleet_node::ports::{Interpreter, JobMachine};
use fleet_workflow::machine::command::{Command, EffectPath, OnLost};
use fleet_workflow::machine::effect::{Effect, HttpRequest};
use fleet_workflow::machine::event::{ErrorObject, Event, Outcome as EffectOutcome};

/// A definition is a list of words, separated by spaces: `call` runs an effect, `once` one with `onLost: fail`, and
/// `wait:MS` waits. The output is how many words were done.
pub(crate) struct Words;

struct WordMachine {
    words: Vec<String>,
    done: usize,
}

impl WordMachine {
    fn ask(&self, at_ms: u64) -> Vec<Command> {
        let path = EffectPath(format!("/do/{}", self.done));
        let Some(word) = self.words.get(self.done) else {
            return vec![Command::Complete { output: self.done.into() }];
        };
        let start = |on_lost| Command::Start {
            path: path.clone(),
            task: "/do/0".to_owned(),
            effect: Effect::Http(HttpRequest {
                method: "GET".to_owned(),
                uri: "http://127.0.0.1/".to_owned(),
                headers: Vec::new(),
                query: Vec::new(),
                body: None,
                output: fleet_workflow::machine::effect::HttpOutput::Content,
                redirect: false,
                authentication: None,
            }),
            on_lost,
            deadline_ms: None,
        };
        match word.strip_prefix("wait:") {
            Some(ms) => vec![Command::SetTimer { path, due_ms: at_ms + ms.parse::<u64>().unwrap() }],
            None if word == "once" => vec![start(OnLost::Fail)],
            None => vec![start(OnLost::Retry)],
        }
    }
}

impl JobMachine for WordMachine {
    fn apply(&mut self, event: &Event) -> Vec<Command> {
        match event {
            Event::Started { at_ms } => self.ask(*at_ms),
            Event::EffectEnded { at_ms, outcome: EffectOutcome::Ok(_), .. } | Event::TimerFired { at_ms, .. } => {
                self.done += 1;
                self.ask(*at_ms)
            }
            Event::EffectEnded { outcome: EffectOutcome::Err(error), .. } => {
                vec![Command::Fail { error: error.clone() }]
            }
            Event::EffectLost { .. } => {
                vec![Command::Fail { error: ErrorObject::standard("lost", 500, "lost", "lost") }]
            }
            Event::EffectStarted { .. } | Event::Overrun { .. } => Vec::new(),
        }
    }

    fn is_timed_out(&self) -> bool {
        false
    }

    fn workflow(&self) -> String {
        "test/words:1.0.0".to_owned()
    }
}

impl Interpreter for Words {
    fn begin(&self, _: JobId, definition: &[u8], _: &[u8]) -> Result<Box<dyn JobMachine>, ErrorObject> {
        let text = std::str::from_utf8(definition).unwrap();
        let words = text.split_whitespace().map(str::to_owned).collect();
        Ok(Box::new(WordMachine { words, done: 0 }))
    }
}
