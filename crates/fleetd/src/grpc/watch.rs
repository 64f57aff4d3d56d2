//! Following a job: how it is now, then each change as it is applied, until it has ended.
//!
//! A follower is woken, not told: it reads the state and compares, so several changes may be told as one. A job that was
//! moved meanwhile shows by its node and its attempt.
//!
//! A job that went to another site is followed by what is heard of it here; only its tasks are asked for there.

pub(super) mod there;

use fleet_api::pb::v1;
use fleet_api::status::status_of;
use fleet_core::{Error, ErrorKind, JobId, NodeId};
use fleet_node::Node;
use fleet_store::StateReader;
use fleet_store::record::{Job, JobState, Reason};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::elsewhere::OtherSites;
use super::jobs::{Jobs, Rows};
use super::page::Room;
use super::tasks::Replay;
use crate::site::Site;

/// Changes that wait for a slow client; past that it is waited for, and what it missed is read from the state.
const CHANGES_WAITING_MAX: usize = 16;

/// Follows the job that `request` names.
///
/// # Errors
/// `NotFound` if there is none.
pub(super) async fn follow(
    site: Site,
    node: &Node,
    jobs: Jobs,
    others: OtherSites,
    request: v1::WatchJobRequest,
) -> Result<impl Stream<Item = Result<v1::JobChange, Status>> + Send + use<>, Error> {
    let id = jobs.id(&site.current_reader().await?, &request.job)?;
    // Watched before the first read, so that no change falls between them.
    let mut changes = node.watch(id);
    let (sender, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
    let tasks = request.tasks.then(TaskFollower::default);
    let mut follower = Follower { site, jobs, others, id, sender, told: None, tasks, asks_again: false };
    // Owned by its stream: it ends when the job or its reader does.
    tokio::spawn(async move {
        loop {
            match follower.tell().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return follower.give_up(&error).await,
            }
            tokio::select! {
                more = changes.changed() => if !more { return },
                () = tokio::time::sleep(there::ASKED_EVERY), if follower.asks_again => {}
                () = deposed(&follower.site) => {
                    let error = no_longer_leading(&follower.site);
                    return follower.give_up(&error).await;
                }
                () = follower.sender.closed() => return,
            }
        }
    });
    Ok(ReceiverStream::new(receiver))
}

/// Resolves once this node does not lead and serve any more: what it would tell could be old.
async fn deposed(site: &Site) {
    let mut status = site.group().status();
    // An error means that the group is gone, and with it the leadership.
    let _gone = status.wait_for(|status| status.serving_term.is_none()).await;
}

/// Why a watch ends early: the client opens it again, at the new leader.
fn no_longer_leading(site: &Site) -> Error {
    Error::new(ErrorKind::Unavailable, format!("watch a job: this node leads site {} no more", site.name()))
}

/// One watch.
struct Follower {
    site: Site,
    jobs: Jobs,
    others: OtherSites,
    id: JobId,
    sender: mpsc::Sender<Result<v1::JobChange, Status>>,
    /// What of the job's row was last told.
    told: Option<JobLook>,
    /// Its tasks, if they were asked for.
    tasks: Option<TaskFollower>,
    /// Whether its tasks are at another site, whose news of them do not come by themselves.
    asks_again: bool,
}

/// The tasks of a job as they were last told.
#[derive(Default)]
struct TaskFollower {
    replay: Option<Replay>,
    /// By position in the workflow.
    told: Vec<TaskLook>,
}

/// What of a job's row shows that it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct JobLook {
    state: JobState,
    node: Option<NodeId>,
    attempt: u32,
    reason: Option<Reason>,
}

/// What of a task shows that it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TaskLook {
    state: String,
    runs: u32,
    attempt: u32,
    node: String,
    started_ms: u64,
}

impl Follower {
    /// Tells what changed; whether there is more to come.
    async fn tell(&mut self) -> Result<bool, Error> {
        let reader = self.site.reader()?;
        let rows = self.jobs.rows(&reader, self.id)?;
        let has_ended = rows.job.state.is_ended();
        let changed = self.changed_tasks(&reader, &rows).await?;
        let look = job_look(&rows.job);
        if !has_ended && self.told.as_ref() != Some(&look) {
            self.told = Some(look);
            let job = self.jobs.brief(&reader, &rows).await?;
            if !self.send(v1::JobChange { job: Some(job), tasks: Vec::new() }).await {
                return Ok(false);
            }
        }
        for tasks in pages(changed) {
            if !self.send(v1::JobChange { job: None, tasks }).await {
                return Ok(false);
            }
        }
        if has_ended {
            // Last of all, because nothing is read after it.
            let job = self.jobs.result(&reader, &rows).await?;
            self.send(v1::JobChange { job: Some(job), tasks: Vec::new() }).await;
        }
        Ok(!has_ended)
    }

    async fn changed_tasks(&mut self, reader: &StateReader, rows: &Rows) -> Result<Vec<v1::Task>, Error> {
        let Some(follower) = &mut self.tasks else { return Ok(Vec::new()) };
        if let Some(site) = rows.other_site() {
            self.asks_again = true;
            return Ok(match there::tasks(&self.others, site, &self.id.to_string()).await {
                Ok(tasks) => follower.news(tasks),
                Err(error) => {
                    tracing::debug!(job = %self.id, %error, "the tasks of a job at another site are not known now");
                    Vec::new()
                }
            });
        }
        self.asks_again = false;
        let replay = match &mut follower.replay {
            Some(replay) => replay,
            None => follower.replay.insert(self.jobs.replay(reader, rows).await?),
        };
        let tasks = self.jobs.tasks(reader, rows, replay).await?;
        Ok(follower.news(tasks))
    }

    /// Whether anybody still listens.
    async fn send(&self, change: v1::JobChange) -> bool {
        self.sender.send(Ok(change)).await.is_ok()
    }

    async fn give_up(&self, error: &Error) {
        // A reader that is gone misses nothing.
        let _gone = self.sender.send(Err(status_of(error))).await;
    }
}

impl TaskFollower {
    /// Those of `tasks` that are not as they were told. A task that is not reached yet is no news.
    fn news(&mut self, tasks: Vec<v1::Task>) -> Vec<v1::Task> {
        let looks: Vec<TaskLook> = tasks.iter().map(look).collect();
        let is_news = |(position, look): (usize, &TaskLook)| match self.told.get(position) {
            Some(told) => told != look,
            None => look.state != "pending",
        };
        let news: Vec<bool> = looks.iter().enumerate().map(is_news).collect();
        self.told = looks;
        tasks.into_iter().zip(news).filter_map(|(task, is_news)| is_news.then_some(task)).collect()
    }
}

fn job_look(job: &Job) -> JobLook {
    JobLook { state: job.state, node: job.node, attempt: job.attempt, reason: job.reason.clone() }
}

fn look(task: &v1::Task) -> TaskLook {
    TaskLook {
        state: task.state.clone(),
        runs: task.runs,
        attempt: task.attempt,
        node: task.node.clone(),
        started_ms: task.started_ms,
    }
}

/// `tasks` in as many pieces as fit into a message each.
fn pages(tasks: Vec<v1::Task>) -> Vec<Vec<v1::Task>> {
    let (mut pages, mut room) = (Vec::<Vec<v1::Task>>::new(), Room::beside(0));
    for task in tasks {
        let bytes = task.encoded_len();
        match pages.last_mut().filter(|_| room.takes(bytes)) {
            Some(page) => page.push(task),
            None => {
                room = Room::beside(bytes);
                pages.push(vec![task]);
            }
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use fleet_core::Timestamp;

    use super::*;

    fn task(state: &str, node: &str, input_bytes: usize) -> v1::Task {
        let (state, node) = (state.to_owned(), node.to_owned());
        v1::Task { state, node, input: vec![b'1'; input_bytes], ..v1::Task::default() }
    }

    #[test]
    fn each_change_of_a_task_is_news_once() {
        let mut follower = TaskFollower::default();
        assert!(follower.news(vec![task("pending", "", 0), task("pending", "", 0)]).is_empty());
        assert_eq!(follower.news(vec![task("running", "a", 0), task("pending", "", 0)]), [task("running", "a", 0)]);
        assert!(follower.news(vec![task("running", "a", 0), task("pending", "", 0)]).is_empty());
        let moved = follower.news(vec![task("running", "b", 0), task("pending", "", 0)]);
        assert_eq!(moved, [task("running", "b", 0)], "a move to another node is told");
        let both = follower.news(vec![task("completed", "b", 0), task("running", "b", 0)]);
        assert_eq!(both.len(), 2);
    }

    #[test]
    fn a_job_that_was_moved_between_two_looks_is_told() {
        let node = Some(NodeId::from_bytes([1; 16]));
        let mut job = Job { state: JobState::Running, node, attempt: 1, ..Job::queued(1, 10, Timestamp(1)) };
        let before = job_look(&job);
        job.journal_length += 1;
        assert_eq!(before, job_look(&job), "a record alone is no news of the job");
        job.attempt = 2;
        assert_ne!(before, job_look(&job), "running on the same node again is news");
    }

    #[test]
    fn tasks_of_any_size_fit_into_messages() {
        let tasks = vec![task("completed", "a", 900 * 1024); 5];
        let pages = pages(tasks.clone());
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
        assert_eq!(pages.concat(), tasks);
    }
}
