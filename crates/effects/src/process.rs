//! `run: shell` and `run: script`: child processes under a guard.

use fleet_core::JobId;
use fleet_workflow::machine::effect::{ProcessRequest, Program, ScriptSource};
use fleet_workflow::machine::event::{ErrorObject, Outcome};

use crate::context::{EffectContext, EffectReport};
use crate::effects::Options;
use crate::http::HttpClient;

/// Starts child processes and knows those that outlive their task.
#[derive(Debug)]
pub(crate) struct Processes {
    http: HttpClient,
}

impl Processes {
    pub(crate) fn new(_options: &Options, http: HttpClient) -> Self {
        Self { http }
    }

    pub(crate) async fn run(&self, context: EffectContext, request: &ProcessRequest) -> EffectReport {
        if let Program::Script { source: ScriptSource::Uri { uri, authentication }, .. } = &request.program
            && let Err(error) = self.http.fetch(&context.key(), uri, authentication.as_ref()).await
        {
            return EffectReport::of(Outcome::Err(error));
        }
        EffectReport::of(Outcome::Err(ErrorObject::standard("runtime", 500, "not yet", "processes follow")))
    }

    pub(crate) async fn end_detached(&self, _job_id: Option<JobId>) {}
}
