//! `submit`: gives the fleet a workflow to run, and waits for it if asked to.

use std::path::Path;

use fleet_api::pb::v1;
use fleet_core::{Error, JobId};
use serde_json::json;

use crate::cli::SubmitFlags;
use crate::commands::follow::{Shown, completed, follow};
use crate::commands::workflow::{Name, find};
use crate::error::{Failure, invalid};
use crate::input::{STDIN, read_input, read_workflow};
use crate::session::Session;
use crate::{render, view};

/// The workflow that `given` names: an existing file is the file, else it is looked up in the catalog.
async fn workflow_of(session: &Session, given: &str) -> Result<Vec<u8>, Error> {
    let is_file = given == STDIN || Path::new(given).exists();
    match Name::parse(given) {
        Ok(name) if !is_file => Ok(session.ask(find(session.client(), &name)).await?.file),
        _ => read_workflow(given),
    }
}

pub(crate) async fn run(session: &Session, flags: SubmitFlags) -> Result<(), Failure> {
    let waits = flags.wait || flags.watch;
    if flags.timeout.is_some() && !waits {
        return Err(invalid("--timeout is for --wait and --watch").into());
    }
    let workflow = workflow_of(session, &flags.file).await?;
    let input = read_input(&flags.file, flags.input.as_deref())?;
    let request = v1::SubmitRequest {
        job_id: JobId::generate().as_bytes().to_vec(),
        workflow,
        input: input.to_string().into_bytes(),
        site: flags.site.unwrap_or_default(),
        tags: flags.tags,
        priority: flags.priority,
        idempotency_key: flags.idempotency_key.unwrap_or_default(),
    };
    let response = session.ask(Box::pin(session.client().submit(request))).await?;
    let job_id = view::job_id(&response.job_id).unwrap_or_default();
    if !waits {
        return Ok(render::data(session.format, &json!({"jobId": job_id}), || job_id.clone())?);
    }
    render::say(&format!("job {job_id}"));
    let shown = Shown { changes: flags.watch, tasks: flags.verbose };
    let job = follow(session, session.client(), &job_id, shown, flags.timeout).await?;
    completed(&job)?;
    // Whoever watches has seen the output in the last change.
    if flags.wait || session.format == render::Format::Table {
        render::output(session.format, &view::document(&job.output))?;
    }
    Ok(())
}
