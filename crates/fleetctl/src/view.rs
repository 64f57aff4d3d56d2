//! What the fleet said, as the JSON that scripts rely on: camelCase, times in RFC 3339, absent values as `null`. Pure.

use fleet_api::pb::v1;
use fleet_core::{Digest, GroupId, JobId, NodeId, Timestamp};
use serde_json::{Map, Value, json};

/// A job, as `job get` prints it.
pub(crate) fn job(job: &v1::Job) -> Value {
    json!({
        "jobId": job_id(&job.job_id),
        "retryOf": job_id(&job.retry_of),
        "workflow": job.workflow,
        "site": job.site,
        "state": job.state,
        "reason": text(&job.reason),
        "node": text(&job.node),
        "attempt": job.attempt,
        "createdAt": time(job.created_ms),
        "startedAt": time(job.started_ms),
        "endedAt": time(job.ended_ms),
        "input": document(&job.input),
        "output": document(&job.output),
        "error": document(&job.error),
        "tasks": job.tasks.iter().map(task).collect::<Vec<_>>(),
    })
}

fn task(task: &v1::Task) -> Value {
    json!({
        "task": task.task,
        "name": task.name,
        "state": task.state,
        "runs": task.runs,
        "attempt": task.attempt,
        "node": text(&task.node),
        "startedAt": time(task.started_ms),
        "endedAt": time(task.ended_ms),
        "input": document(&task.input),
        "output": document(&task.output),
        "error": document(&task.error),
    })
}

/// A node, as `node list` prints it.
pub(crate) fn node(node: &v1::Node) -> Value {
    json!({
        "nodeId": NodeId::from_slice(&node.node_id).map(|id| id.to_string()),
        "name": node.name,
        "site": node.site,
        "state": node.state,
        "leader": node.leader,
        "voter": node.voter,
        "tags": node.tags,
        "slots": node.slots,
        "slotsBusy": node.slots_busy,
        "version": node.version,
    })
}

/// A site.
pub(crate) fn site(site: &v1::Site) -> Value {
    json!({
        "name": site.name,
        "own": site.own,
        "state": site.state,
        "heardAt": time(site.heard_ms),
        "nodes": site.nodes,
        "groupId": GroupId::from_slice(&site.group_id).map(|id| id.to_string()),
        "epoch": site.own.then_some(site.epoch),
        "leader": text(&site.leader),
        "voters": site.voters,
        "learners": site.learners,
        "held": site.held,
        "contacts": site.contacts,
    })
}

/// A version of a workflow in the catalog, with its `file` where that was asked for.
pub(crate) fn workflow(workflow: &v1::Workflow, file: Option<&str>) -> Value {
    let v1::Workflow { namespace, name, version, .. } = workflow;
    let mut value = json!({
        "workflow": format!("{namespace}/{name}:{version}"),
        "namespace": namespace,
        "name": name,
        "version": version,
        "digest": digest(&workflow.digest),
        "bytes": workflow.file_bytes,
        "deployedAt": time(workflow.deployed_ms),
        "deployedBy": text(&workflow.deployed_by),
    });
    if let Some(file) = file {
        value["file"] = json!(file);
    }
    value
}

/// What came of deploying a workflow.
pub(crate) fn deployed(deployed: &v1::DeployedWorkflow) -> Value {
    json!({"workflow": deployed.workflow, "digest": digest(&deployed.digest), "new": deployed.is_new})
}

fn digest(bytes: &[u8]) -> Option<String> {
    Digest::from_slice(bytes).map(|digest| digest.to_string())
}

/// A join token without its secret.
pub(crate) fn token(token: &v1::Token) -> Value {
    json!({
        "tokenId": token.token_id,
        "site": token.site,
        "usesLeft": token.uses_left,
        "expiresAt": time(token.expires_ms),
    })
}

/// The state of things.
pub(crate) fn status(status: &v1::Status) -> Value {
    json!({
        "fleetId": fleet_core::FleetId::from_slice(&status.fleet_id).map(|id| id.to_string()),
        "health": status.health,
        "node": status.node,
        "version": status.version,
        "dev": status.dev,
        "checks": status.checks.iter().map(check).collect::<Vec<_>>(),
        "site": status.site.as_ref().map(site),
        "otherSites": status.other_sites.iter().map(site).collect::<Vec<_>>(),
        "nodes": counts(&status.nodes),
        "jobs": counts(&status.jobs),
    })
}

/// A record of a journal.
pub(crate) fn record(record: &v1::JournalRecord) -> Value {
    json!({
        "position": record.position,
        "node": text(&record.node),
        "event": document(&record.event),
    })
}

/// What one effect printed to one stream.
pub(crate) fn log(chunk: &v1::LogChunk) -> Value {
    json!({
        "task": chunk.task,
        "stream": chunk.stream,
        "at": time(chunk.at_ms),
        "node": text(&chunk.node),
        "file": text(&chunk.file),
        "text": chunk.text,
    })
}

/// A check of `doctor`.
pub(crate) fn check(check: &v1::Check) -> Value {
    json!({
        "name": check.name,
        "node": text(&check.node),
        "result": check.result,
        "detail": check.detail,
        "nextStep": text(&check.next_step),
    })
}

/// A job's id as text; `None` if there is none.
pub(crate) fn job_id(bytes: &[u8]) -> Option<String> {
    JobId::from_slice(bytes).map(|id| id.to_string())
}

/// A time as text; `None` if it is not set.
pub(crate) fn time(milliseconds: u64) -> Option<String> {
    (milliseconds > 0).then(|| Timestamp(milliseconds).to_string())
}

/// A JSON document that travelled as bytes; `null` if there is none. What is not JSON is shown as text.
pub(crate) fn document(bytes: &[u8]) -> Value {
    if bytes.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Numbers by name, in the order of the names.
fn counts<N: Copy + Into<u64>>(map: &std::collections::HashMap<String, N>) -> Value {
    let mut entries: Vec<_> = map.iter().map(|(name, count)| (name.clone(), json!((*count).into()))).collect();
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Value::Object(entries.into_iter().collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_every_key_and_nulls_where_nothing_is() {
        let value = job(&v1::Job {
            job_id: JobId::from_bytes([1; 16]).as_bytes().to_vec(),
            workflow: "a/b:1.0.0".to_owned(),
            state: "queued".to_owned(),
            created_ms: 1,
            tasks: vec![v1::Task::default()],
            ..v1::Job::default()
        });
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = "jobId retryOf workflow site state reason node attempt createdAt startedAt endedAt input output error tasks";
        assert_eq!(keys.join(" "), expected);
        for key in ["retryOf", "reason", "node", "startedAt", "endedAt", "input", "output", "error"] {
            assert_eq!(value[key], Value::Null, "{key}");
        }
        assert_eq!(value["createdAt"], "1970-01-01T00:00:00.001Z");
        let keys: Vec<_> = value["tasks"][0].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.join(" "), "task name state runs attempt node startedAt endedAt input output error");
    }

    #[test]
    fn a_node_has_every_key() {
        let value = node(&v1::Node::default());
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys.join(" "), "nodeId name site state leader voter tags slots slotsBusy version");
    }
}
