//! A job and each of its effects have a span of their own, so that every line of a log says what it belongs to.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use fleet_store::record::JobState;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::support::{Fleet, done};

/// A span as it was seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    id: u64,
    name: &'static str,
    parent: Option<u64>,
    fields: BTreeMap<&'static str, String>,
    /// Messages of the events in it.
    messages: Vec<String>,
}

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

/// Remembers every span, and the events in it.
#[derive(Clone, Default)]
struct Capture {
    spans: Arc<Mutex<Vec<Seen>>>,
}

impl Capture {
    fn named(&self, name: &str) -> Vec<Seen> {
        self.spans.lock().unwrap().iter().filter(|seen| seen.name == name).cloned().collect()
    }

    fn change(&self, id: &Id, change: impl FnOnce(&mut Seen)) {
        let mut spans = self.spans.lock().unwrap();
        if let Some(seen) = spans.iter_mut().rfind(|seen| seen.id == id.into_u64()) {
            change(seen);
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| Some(span.parent()?.id().into_u64()));
        let mut seen = Seen { id: id.into_u64(), name: attributes.metadata().name(), parent, ..Seen::default() };
        attributes.record(&mut Fields(&mut seen.fields));
        self.spans.lock().unwrap().push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |seen| values.record(&mut Fields(&mut seen.fields)));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        let message = fields.remove("message").unwrap_or_default();
        if let Some(span) = context.event_span(event) {
            self.change(&span.id(), |seen| seen.messages.push(message));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_and_each_of_its_tasks_have_a_span() {
    // With one subscriber only, whichever thread comes to a span first decides for all of them whether it is looked at,
    // and those of the other tests have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let capture = Capture::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(capture.clone()));
    let fleet = Fleet::start(1, &[1]).await;
    let job = fleet.submit(1, "call call").await;
    for _ in 0..2 {
        fleet.effects.next().await.end.send(done()).unwrap();
    }
    fleet.log.reaches(job, JobState::Completed).await;
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;

    let jobs = capture.named("job");
    let [span] = jobs.as_slice() else { panic!("one job, one span: {jobs:?}") };
    assert_eq!(span.fields["job"], job.to_string());
    assert_eq!(span.fields["workflow"], "test/words:1.0.0");
    assert!(span.fields.contains_key("fence"));
    assert_eq!(span.messages, ["a job begins", "a job has left its robot"]);

    let tasks = capture.named("task");
    let paths: Vec<&str> = tasks.iter().map(|span| span.fields["path"].as_str()).collect();
    assert_eq!(paths, ["/do/0", "/do/1"]);
    for task in &tasks {
        assert_eq!((task.parent, task.fields["task"].as_str()), (Some(span.id), "/do/0"));
        assert_eq!(task.messages, ["an effect begins", "an effect is over"]);
    }
}
