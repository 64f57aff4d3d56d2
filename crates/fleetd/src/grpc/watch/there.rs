//! Following a job at another site: it is asked how the job stands, again and again, because a stream would keep one of the
//! few calls that are under way over a link at once. Each question is small, and what did not change is not fetched.

use std::time::Duration;

use fleet_api::pb::v1;
use fleet_api::status::status_of;
use fleet_core::{Error, JobId, SiteName};
use fleet_store::record::JobState;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::elsewhere::OtherSites;
use super::{CHANGES_WAITING_MAX, TaskFollower, pages};

/// How often the other site is asked at most. Where an answer takes longer, the next question comes as much later.
pub(super) const ASKED_EVERY: Duration = Duration::from_secs(1);

/// Follows the job of `site` that `request` names.
///
/// # Errors
/// `NotFound` if there is none; `Unavailable` that says when `site` was last heard.
pub(in crate::grpc) async fn follow(
    others: OtherSites,
    site: SiteName,
    request: v1::WatchJobRequest,
) -> Result<impl Stream<Item = Result<v1::JobChange, Status>> + Send + use<>, Error> {
    let brief = v1::GetJobRequest { job: request.job, brief: true, ..v1::GetJobRequest::default() };
    let first: v1::Job = others.ask(&site, "GetJob", &brief).await?;
    let job = JobId::from_slice(&first.job_id).map_or(brief.job, |id| id.to_string());
    let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
    let tasks = request.tasks.then(TaskFollower::default);
    let mut follower = Follower { others, site, job, sender, told: None, tasks };
    // Owned by its stream: it ends when the job or its reader does.
    tokio::spawn(async move {
        let mut seen = Ok(first);
        loop {
            let asked_at = Instant::now();
            match follower.tell(seen).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    // A reader that is gone misses nothing.
                    let _gone = follower.sender.send(Err(status_of(&error))).await;
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(asked_at.elapsed().max(ASKED_EVERY)) => {}
                () = follower.sender.closed() => return,
            }
            seen = follower.look().await;
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// All tasks of `job` as `site` has them, without what they took and gave.
pub(super) async fn tasks(others: &OtherSites, site: &SiteName, job: &str) -> Result<Vec<v1::Task>, Error> {
    let (mut tasks, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let request = v1::GetJobRequest { job: job.to_owned(), brief: false, tasks_from: Some(from), outline: true };
        let page: v1::Job = others.ask(site, "GetJob", &request).await?;
        // Every page has a task, or its reader would ask for it for ever.
        next = page.tasks_next.filter(|next| *next > from);
        tasks.extend(page.tasks);
    }
    Ok(tasks)
}

struct Follower {
    others: OtherSites,
    site: SiteName,
    job: String,
    sender: mpsc::Sender<Result<v1::JobChange, Status>>,
    /// The job as it was last told.
    told: Option<v1::Job>,
    /// Its tasks, if they were asked for.
    tasks: Option<TaskFollower>,
}

impl Follower {
    /// How the job stands now.
    async fn look(&self) -> Result<v1::Job, Error> {
        let brief = v1::GetJobRequest { job: self.job.clone(), brief: true, ..v1::GetJobRequest::default() };
        self.others.ask(&self.site, "GetJob", &brief).await
    }

    /// Tells what changed of the job as `seen`; whether there is more to come.
    async fn tell(&mut self, seen: Result<v1::Job, Error>) -> Result<bool, Error> {
        let job = seen?;
        if self.told.as_ref() == Some(&job) {
            return Ok(true);
        }
        let has_ended = JobState::from_word(&job.state).is_some_and(JobState::is_ended);
        if let Some(follower) = &mut self.tasks {
            let tasks = follower.news(tasks(&self.others, &self.site, &self.job).await?);
            for tasks in pages(tasks) {
                self.send(v1::JobChange { job: None, tasks }).await;
            }
        }
        if has_ended {
            let whole = v1::GetJobRequest { job: self.job.clone(), outline: true, ..v1::GetJobRequest::default() };
            let whole: v1::Job = self.others.ask(&self.site, "GetJob", &whole).await?;
            self.send(v1::JobChange { job: Some(brief(whole)), tasks: Vec::new() }).await;
            return Ok(false);
        }
        if self.told.as_ref().is_none_or(|told| !looks_alike(told, &job)) {
            self.send(v1::JobChange { job: Some(job.clone()), tasks: Vec::new() }).await;
        }
        self.told = Some(job);
        Ok(true)
    }

    async fn send(&self, change: v1::JobChange) {
        // Whether anybody still listens is asked before the next look.
        let _gone = self.sender.send(Ok(change)).await;
    }
}

/// `job` without its tasks.
fn brief(job: v1::Job) -> v1::Job {
    v1::Job { tasks: Vec::new(), tasks_next: None, ..job }
}

/// Whether nothing of the job changed but its journal.
fn looks_alike(told: &v1::Job, job: &v1::Job) -> bool {
    let look = |job: &v1::Job| v1::Job { journal_length: 0, ..job.clone() };
    look(told) == look(job)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use fleet_core::ErrorKind;
    use fleet_node::ports::{KnownSites, SiteTopic, Sites};
    use fleet_store::record::Payload;
    use futures_util::future::BoxFuture;
    use futures_util::{FutureExt, StreamExt};
    use prost::Message;
    use tokio::sync::watch;

    use super::*;

    /// Answers one question after the other with what it was given, and remembers what was asked.
    struct Script {
        answers: Mutex<Vec<Result<v1::Job, Error>>>,
        asked: Mutex<Vec<v1::GetJobRequest>>,
    }

    impl Sites for Script {
        fn ask(&self, _: SiteName, _: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
            let request = v1::GetJobRequest::decode(&message.as_slice()[2 + "GetJob".len()..]).expect("a question");
            self.asked.lock().unwrap().push(request);
            let answer = self.answers.lock().unwrap().remove(0);
            async move { answer.map(|job| Payload::from(job.encode_to_vec())) }.boxed()
        }

        fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
            watch::channel(Arc::default()).1
        }
    }

    fn job(state: &str, journal_length: u32, tasks: &[(&str, &str)]) -> v1::Job {
        let task = |(name, state): &(&str, &str)| v1::Task {
            name: (*name).to_owned(),
            state: (*state).to_owned(),
            ..v1::Task::default()
        };
        let tasks = tasks.iter().map(task).collect();
        v1::Job { job_id: vec![1; 16], state: state.to_owned(), journal_length, tasks, ..v1::Job::default() }
    }

    fn script(answers: Vec<Result<v1::Job, Error>>) -> (Arc<Script>, OtherSites) {
        let script = Arc::new(Script { answers: Mutex::new(answers), asked: Mutex::default() });
        (Arc::clone(&script), OtherSites::new(script))
    }

    fn request(tasks: bool) -> v1::WatchJobRequest {
        v1::WatchJobRequest { job: "0101".to_owned(), tasks }
    }

    fn told(change: Result<v1::JobChange, Status>) -> String {
        match change {
            Ok(v1::JobChange { job: Some(job), .. }) => job.state,
            Ok(v1::JobChange { tasks, .. }) => {
                tasks.iter().map(|task| format!("{}:{} ", task.name, task.state)).collect()
            }
            Err(status) => format!("{:?}", status.code()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_change_is_told_once_and_the_end_with_its_output() {
        let output = v1::Job { output: b"7".to_vec(), ..job("completed", 3, &[("a", "completed")]) };
        let (script, others) = script(vec![
            Ok(job("running", 1, &[])),
            Ok(job("", 0, &[("a", "running"), ("b", "pending")])),
            Ok(job("running", 1, &[])),
            Ok(job("running", 2, &[])),
            Ok(job("", 0, &[("a", "completed"), ("b", "running")])),
            Ok(job("completed", 3, &[])),
            Ok(job("", 0, &[("a", "completed"), ("b", "completed")])),
            Ok(output.clone()),
        ]);
        let changes = follow(others, "south".parse().unwrap(), request(true)).await.unwrap();
        let changes: Vec<_> = changes.collect().await;
        assert_eq!(changes.last().unwrap().as_ref().unwrap().job, Some(brief(output)));
        let told: Vec<String> = changes.into_iter().map(told).collect();
        assert_eq!(
            told,
            ["a:running ", "running", "a:completed b:running ", "b:completed ", "completed"],
            "an unchanged job says nothing, and its tasks are not fetched"
        );
        let asked = script.asked.lock().unwrap();
        assert_eq!(asked.len(), 8);
        let id = JobId::from_bytes([1; 16]).to_string();
        assert!(asked[1..].iter().all(|request| request.job == id), "by its whole id, once that is known");
        assert!(asked.iter().all(|request| request.brief || request.outline), "nothing large goes over the link");
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_that_cannot_be_asked_refuses_the_watch_at_once_and_ends_it_later() {
        let gone = || Error::new(ErrorKind::Unavailable, "site south was last heard 3 h ago");
        let (_, others) = script(vec![Err(gone())]);
        let refused = follow(others, "south".parse().unwrap(), request(false)).await.err().expect("no link");
        assert!(refused.message.contains("last heard 3 h ago"), "{refused}");
        let (_, others) = script(vec![Ok(job("running", 1, &[])), Err(gone())]);
        let changes = follow(others, "south".parse().unwrap(), request(false)).await.unwrap();
        let told: Vec<String> = changes.map(told).collect().await;
        assert_eq!(told, ["running", "Unavailable"], "the client opens it again");
    }
}
