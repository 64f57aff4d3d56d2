//! From a submit request to a job that can be accepted: everything that can be checked without the state is checked here,
//! and a file is refused whole, with every problem at its place.

use std::sync::Arc;
use std::time::Duration;

use fleet_api::pb::v1;
use fleet_core::{Digest, Error, ErrorKind, JobId, SiteName, limits};
use fleet_node::JobRequest;
use fleet_store::record::{JobSpec, Payload, WorkflowName};
use fleet_workflow::dsl::document::{FleetSettings, OnDisconnect};
use fleet_workflow::machine::INTERPRETER_VERSION;
use fleet_workflow::{Problem, Workflow};
use tokio::sync::Semaphore;

use crate::kept::Kept;
use crate::ports::InterpreterPort;

// The language depends on no crate of ours, so it has this bound of its own.
const _: () = assert!(fleet_workflow::source::MAX_DEFINITION_BYTES == limits::DEFINITION_BYTES_MAX);

/// Bytes of a workflow file from which on reading it may take long enough to hold up others.
const HEAVY_BYTES: usize = 16 * 1024;
/// Most such files read at once; the rest wait within their callers' deadlines.
const HEAVY_AT_ONCE: usize = 2;
/// Problems named in one message; the rest is counted.
const PROBLEMS_SHOWN_MAX: usize = 20;

/// What a workflow file comes to, once it was read and checked whole.
#[derive(Debug)]
struct Definition {
    name: WorkflowName,
    settings: FleetSettings,
    capabilities: Vec<String>,
    /// The definition as it is kept and run: JSON.
    json: Payload,
    digest: Digest,
}

/// Takes in submit requests for one site. A cheap handle.
#[derive(Clone)]
pub(super) struct Intake {
    site: SiteName,
    interpreter: InterpreterPort,
    /// Files taken in lately, by the digest of their text: a file that comes a thousand times is checked once.
    kept: Kept<Definition>,
    /// Permits for large files.
    heavy: Arc<Semaphore>,
}

impl Intake {
    pub(super) fn new(site: SiteName, interpreter: InterpreterPort) -> Self {
        Self {
            site,
            interpreter,
            kept: Kept::bounded(limits::DEFINITIONS_KEPT_BYTES_MAX),
            heavy: Arc::new(Semaphore::new(HEAVY_AT_ONCE)),
        }
    }

    /// The job that `request` asks for. A large file is read on a thread of its own, few at a time: it may take a second,
    /// in which this runtime has others to serve.
    ///
    /// # Errors
    /// `InvalidInput` that names every problem of the file; `Unsupported` for tasks that this version cannot run.
    pub(super) async fn take(&self, request: v1::SubmitRequest) -> Result<JobRequest, Error> {
        self.heavily(request.workflow.len(), move |intake| intake.read_request(request)).await
    }

    /// The name of the workflow in `file`, which is refused as a submit of it would be.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) async fn check(&self, file: &[u8]) -> Result<WorkflowName, Error> {
        if file.len() > limits::WORKFLOW_FILE_BYTES_MAX {
            let (length, bound) = (file.len(), limits::WORKFLOW_FILE_BYTES_MAX);
            return Err(refused(format!("the workflow file has {length} bytes, at most {bound} are taken")));
        }
        let file = file.to_vec();
        self.heavily(file.len(), move |intake| intake.definition(&file).map(|known| known.name.clone())).await
    }

    /// Does `work` on a file of `bytes` here, or on a thread of its own where that may take long.
    async fn heavily<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        if bytes < HEAVY_BYTES {
            return work(self);
        }
        let failed = || Error::new(ErrorKind::Internal, "submit: read the workflow file");
        let _permit = self.heavy.acquire().await.map_err(|source| failed().with_source(source))?;
        let intake = self.clone();
        let read = tokio::task::spawn_blocking(move || work(&intake)).await;
        read.map_err(|source| failed().with_source(source))?
    }

    fn read_request(&self, request: v1::SubmitRequest) -> Result<JobRequest, Error> {
        check_sizes(&request)?;
        let definition = self.definition(&request.workflow)?;
        let settings = &definition.settings;
        let asked = if request.site.is_empty() { settings.site.as_deref() } else { Some(request.site.as_str()) };
        let site = asked.map(|asked| asked.parse::<SiteName>().map_err(refused)).transpose()?;
        let spec = JobSpec {
            workflow: definition.name.clone(),
            definition: definition.digest,
            interpreter: INTERPRETER_VERSION,
            site: self.site.clone(),
            tags: tags(&request.tags, settings)?,
            capabilities: definition.capabilities.clone(),
            lost_max: settings.max_lost.unwrap_or(limits::LOST_MAX_DEFAULT),
            finish_within_ms: finish_within_ms(settings),
            retry_of: None,
        };
        Ok(JobRequest {
            job: job_id(&request, &definition.name.namespace, site.as_ref().unwrap_or(&self.site))?,
            spec,
            site,
            priority: priority(&request, settings)?,
            input: Payload::from(input_of(&request.input)?),
            definition: definition.json.clone(),
        })
    }

    fn definition(&self, file: &[u8]) -> Result<Arc<Definition>, Error> {
        let digest = Digest::of(file);
        if let Some(known) = self.kept.get(digest) {
            return Ok(known);
        }
        let definition = Arc::new(self.read(file)?);
        self.kept.keep(digest, definition.json.as_slice().len(), Arc::clone(&definition));
        Ok(definition)
    }

    fn read(&self, file: &[u8]) -> Result<Definition, Error> {
        let workflow = parse(file)?;
        let json = serde_json::to_vec(&workflow.source)
            .map_err(|source| Error::new(ErrorKind::Internal, "write the definition as JSON").with_source(source))?;
        if json.len() > limits::DEFINITION_BYTES_MAX {
            let (length, bound) = (json.len(), limits::DEFINITION_BYTES_MAX);
            let message =
                format!("the workflow has {length} bytes as JSON with its aliases expanded, at most {bound} are taken");
            return Err(refused(message));
        }
        self.interpreter.compile(&json).map_err(|error| refused(error.detail.unwrap_or_default()))?;
        let document = &workflow.document;
        Ok(Definition {
            name: WorkflowName {
                namespace: document.namespace.clone(),
                name: document.name.clone(),
                version: document.version.clone(),
            },
            settings: document.fleet.clone(),
            capabilities: fleet_workflow::needs(&workflow),
            digest: Digest::of(&json),
            json: Payload::from(json),
        })
    }
}

fn refused(message: String) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("submit: {message}"))
}

fn check_sizes(request: &v1::SubmitRequest) -> Result<(), Error> {
    let bounds = [
        ("the workflow file", request.workflow.len(), limits::WORKFLOW_FILE_BYTES_MAX),
        ("the input", request.input.len(), limits::INPUT_BYTES_MAX),
        ("the idempotency key", request.idempotency_key.len(), limits::IDEMPOTENCY_KEY_BYTES_MAX),
    ];
    match bounds.into_iter().find(|(_, length, bound)| length > bound) {
        Some((what, length, bound)) => Err(refused(format!("{what} has {length} bytes, at most {bound} are taken"))),
        None => Ok(()),
    }
}

fn parse(file: &[u8]) -> Result<Workflow, Error> {
    let workflow = fleet_workflow::parse(file).map_err(|problems| refused(in_words(&problems)))?.workflow;
    let unsupported = fleet_workflow::unsupported(&workflow);
    if unsupported.is_empty() {
        return Ok(workflow);
    }
    Err(Error::new(ErrorKind::Unsupported, format!("submit: {}", in_words(&unsupported)))
        .with_next_step("`fleetctl validate` shows what this version cannot run."))
}

fn in_words(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().take(PROBLEMS_SHOWN_MAX).map(ToString::to_string).collect();
    if problems.len() > PROBLEMS_SHOWN_MAX {
        lines.push(format!("and {} more", problems.len() - PROBLEMS_SHOWN_MAX));
    }
    lines.join("\n  ")
}

/// The input as it is kept: exactly what was given, or `{}`.
fn input_of(input: &[u8]) -> Result<Vec<u8>, Error> {
    if input.is_empty() {
        return Ok(b"{}".to_vec());
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(input)
        .map_err(|error| refused(format!("the input is not JSON: {error}")))?;
    Ok(input.to_vec())
}

fn job_id(request: &v1::SubmitRequest, namespace: &str, site: &SiteName) -> Result<JobId, Error> {
    if !request.idempotency_key.is_empty() {
        return Ok(JobId::from_idempotency_key(site, namespace, &request.idempotency_key));
    }
    JobId::from_slice(&request.job_id).ok_or_else(|| refused("the job id is not 16 bytes".to_owned()))
}

/// How long a robot that is cut off may run on; the language keeps it within a day.
fn finish_within_ms(settings: &FleetSettings) -> Option<u64> {
    let within = settings.finish_within_seconds.map(|seconds| Duration::from_secs(u64::from(seconds)));
    let within = within.unwrap_or(limits::FINISH_WITHIN_DEFAULT).as_millis();
    (settings.on_disconnect == OnDisconnect::Finish).then(|| u64::try_from(within).unwrap_or(u64::MAX))
}

fn tags(asked: &[String], settings: &FleetSettings) -> Result<Vec<String>, Error> {
    let mut tags: Vec<String> = asked.iter().chain(&settings.tags).cloned().collect();
    tags.sort();
    tags.dedup();
    if tags.len() > limits::TAGS_MAX {
        return Err(refused(format!("{} tags are too many, at most {}", tags.len(), limits::TAGS_MAX)));
    }
    match tags.iter().find(|tag| tag.is_empty() || tag.len() > limits::TAG_BYTES_MAX) {
        Some(tag) => Err(refused(format!("tag `{tag}` must have 1 to {} bytes", limits::TAG_BYTES_MAX))),
        None => Ok(tags),
    }
}

fn priority(request: &v1::SubmitRequest, settings: &FleetSettings) -> Result<u8, Error> {
    let asked =
        request.priority.unwrap_or_else(|| settings.priority.map_or(u32::from(limits::PRIORITY_NORMAL), u32::from));
    u8::try_from(asked)
        .ok()
        .filter(|priority| *priority <= limits::PRIORITY_MAX)
        .ok_or_else(|| refused(format!("priority {asked} is not 0 to {}", limits::PRIORITY_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(workflow: &str) -> v1::SubmitRequest {
        v1::SubmitRequest {
            job_id: JobId::generate().as_bytes().to_vec(),
            workflow: workflow.as_bytes().to_vec(),
            ..v1::SubmitRequest::default()
        }
    }

    fn take(request: v1::SubmitRequest) -> Result<JobRequest, Error> {
        Intake::new(SiteName::default(), InterpreterPort::default()).read_request(request)
    }

    const GOOD: &str = "document: {dsl: '1.0.3', namespace: a, name: b, version: '1.0.0', \
                        metadata: {fleet: {priority: 15, tags: [gpu]}}}\ndo: [{s: {set: {x: 1}}}]";

    #[test]
    fn a_good_file_becomes_a_job() {
        let job = take(v1::SubmitRequest { tags: vec!["arm".to_owned()], ..request(GOOD) }).expect("it is good");
        assert_eq!(job.spec.workflow.to_string(), "a/b:1.0.0");
        assert_eq!(job.spec.tags, ["arm", "gpu"]);
        assert_eq!((job.priority, job.input.as_slice()), (15, b"{}".as_slice()));
    }

    #[test]
    fn a_key_names_the_same_job_wherever_it_is_submitted_for_a_site() {
        let keyed =
            |site: &str| v1::SubmitRequest { site: site.to_owned(), idempotency_key: "k".to_owned(), ..request(GOOD) };
        let job = take(keyed("plant")).expect("it is good");
        let plant: SiteName = "plant".parse().unwrap();
        assert_eq!(job.site.as_ref(), Some(&plant));
        let there = Intake::new(plant, InterpreterPort::default()).read_request(keyed("")).expect("it is good");
        assert_eq!((job.job, &there.site), (there.job, &None));
        assert_ne!(job.job, take(keyed("")).expect("it is good").job);
    }

    #[test]
    fn a_job_may_be_finished_cut_off_for_as_long_as_it_says_or_an_hour() {
        let finish = |settings: &str| take(request(&GOOD.replace("priority: 15", settings))).map(|job| job.spec);
        let within = |settings: &str| finish(settings).expect(settings).finish_within_ms;
        assert_eq!(within("onDisconnect: finish, finishWithinSeconds: 90"), Some(90_000));
        assert_eq!(within("onDisconnect: finish"), Some(3_600_000));
        assert_eq!(within("onDisconnect: stop"), None);
        for settings in ["onDisconnect: finish, finishWithinSeconds: 86401", "finishWithinSeconds: 5"] {
            assert_eq!(finish(settings).expect_err(settings).kind, ErrorKind::InvalidInput);
        }
    }

    /// A file whose aliases make `count` copies of 100,000 bytes.
    fn expanding(count: usize) -> String {
        let head = "document: {dsl: '1.0.3', namespace: a, name: b, version: '1.0.0'}\ndo:\n- s:\n    set:\n";
        let copies: String = (1..count).map(|number| format!("      c{number}: *text\n")).collect();
        format!("{head}      c0: &text {}\n{copies}", "x".repeat(100_000))
    }

    #[test]
    fn a_definition_may_be_larger_than_its_file_but_not_without_bound() {
        let job = take(request(&expanding(20))).expect("two megabytes are taken, from a file of a tenth of one");
        assert!(job.definition.as_slice().len() > limits::WORKFLOW_FILE_BYTES_MAX);
        let interpreter = InterpreterPort::default();
        interpreter.compile(job.definition.as_slice()).expect("the robot can run what was accepted");
        let error = take(request(&expanding(22))).expect_err("it is too large");
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert!(error.message.contains("as JSON with its aliases expanded, at most 2097152"), "{error}");
    }

    #[test]
    fn bad_requests_are_refused_with_their_reason() {
        let listen = "document: {dsl: '1.0.3', namespace: a, name: b, version: '1.0.0'}\n\
                      do: [{l: {listen: {to: {any: []}}}}]";
        let cases = [
            (request("nonsense"), ErrorKind::InvalidInput, "submit"),
            (request(listen), ErrorKind::Unsupported, "listen"),
            (v1::SubmitRequest { input: b"{".to_vec(), ..request(GOOD) }, ErrorKind::InvalidInput, "not JSON"),
            (v1::SubmitRequest { priority: Some(21), ..request(GOOD) }, ErrorKind::InvalidInput, "priority 21"),
            (v1::SubmitRequest { job_id: vec![1], ..request(GOOD) }, ErrorKind::InvalidInput, "16 bytes"),
            (v1::SubmitRequest { site: "Other".to_owned(), ..request(GOOD) }, ErrorKind::InvalidInput, "site name"),
            (v1::SubmitRequest { tags: vec![String::new()], ..request(GOOD) }, ErrorKind::InvalidInput, "tag"),
            (
                v1::SubmitRequest { input: vec![b' '; limits::INPUT_BYTES_MAX + 1], ..request(GOOD) },
                ErrorKind::InvalidInput,
                "at most",
            ),
        ];
        for (request, kind, part) in cases {
            let error = take(request).expect_err(part);
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.contains(part), "{part} is missing in {error}");
        }
    }
}
