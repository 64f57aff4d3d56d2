//! Answers that come in pages, put together: a job's tasks, its journal, what it printed.

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::Error;

/// The job with all its tasks.
pub(crate) async fn whole_job(client: &FleetClient, job: String) -> Result<v1::Job, Error> {
    let request = v1::GetJobRequest { job: job.clone(), ..v1::GetJobRequest::default() };
    let mut whole = client.get_job(request).await?;
    while let Some(from) = whole.tasks_next {
        let request = v1::GetJobRequest { job: job.clone(), tasks_from: Some(from), ..v1::GetJobRequest::default() };
        let page = client.get_job(request).await?;
        // The job went on between the pages; its definition, and so the number and order of its tasks, did not change.
        whole.tasks_next = page.tasks_next;
        whole.tasks.extend(page.tasks);
    }
    Ok(whole)
}

/// The whole journal.
pub(crate) async fn all_records(client: &FleetClient, job: String) -> Result<Vec<v1::JournalRecord>, Error> {
    let mut records: Vec<v1::JournalRecord> = Vec::new();
    loop {
        let from = records.last().map_or(0, |last| last.position + 1);
        let answer = client.get_journal(v1::GetJournalRequest { job: job.clone(), from }).await?;
        let is_last =
            answer.records.is_empty() || answer.records.last().is_some_and(|last| last.position + 1 >= answer.total);
        records.extend(answer.records);
        if is_last {
            return Ok(records);
        }
    }
}

/// All that the journal keeps of what a job printed.
pub(crate) async fn all_chunks(client: &FleetClient, job: String) -> Result<Vec<v1::LogChunk>, Error> {
    let mut chunks = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let answer = client.get_logs(v1::GetLogsRequest { job: job.clone(), from }).await?;
        chunks.extend(answer.chunks);
        next = answer.next;
    }
    Ok(chunks)
}
