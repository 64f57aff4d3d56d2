//! A few threads with a large stack on which interpreters run, so that deep definitions cannot overflow an async worker.
//!
//! They take their work from one queue, so that a slow job holds up only the thread it is on. Work says at each of its
//! steps that it goes on; work that says nothing for too long is given up: whoever waits for it is told, and another
//! thread takes the place of the stuck one, which ends when it comes back. Threads cannot be killed, so no more than
//! [`INTERPRETER_THREADS_STUCK_MAX`] are replaced; past that, a stuck one goes back to the queue when it is free again.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleet_core::limits::INTERPRETER_THREADS_STUCK_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Stack of one thread, bytes. Only what is used of it takes memory.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Pieces of work that wait for a thread.
const WAITING_MAX: usize = 1_024;

/// How a piece of work came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Thought<T> {
    /// With this.
    Done(T),
    /// It panicked.
    Panicked,
    /// It took too long for one step and was given up.
    Overran,
}

/// How a piece of work tells that it goes on.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Steps begun; none as long as no thread has taken the work.
    steps: AtomicU64,
    fate: Mutex<Fate>,
}

/// What became of a piece of work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Wanted,
    /// Given up; another thread took the place of its own.
    Replaced,
    /// Given up; its thread is needed again.
    GivenUp,
    Over,
}

impl Pulse {
    /// The next step begins.
    pub fn beat(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Work {
    run: Box<dyn FnOnce() + Send>,
    pulse: Arc<Pulse>,
    /// Its place in the queue.
    place: OwnedSemaphorePermit,
}

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Thinker {
    /// `None`: work runs on its caller's stack, without a limit.
    pool: Option<Arc<Pool>>,
    step_timeout: Duration,
}

impl Thinker {
    /// `count` threads for work whose steps take at most `step_timeout`; with none of them, work runs on its caller's
    /// stack, however long it takes.
    pub(crate) fn start(count: usize, step_timeout: Duration) -> std::io::Result<Self> {
        let pool = Arc::new(Pool::default());
        let thinker = Self { pool: (count > 0).then(|| Arc::clone(&pool)), step_timeout };
        (0..count).try_for_each(|_| pool.add_thread())?;
        Ok(thinker)
    }

    /// What `work` returns, run on one of the threads.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Pulse) -> T + Send + 'static) -> Thought<T> {
        let pulse = Arc::new(Pulse::default());
        let Some(pool) = &self.pool else {
            return catch_unwind(AssertUnwindSafe(|| work(&pulse))).map_or(Thought::Panicked, Thought::Done);
        };
        let (sender, mut receiver) = oneshot::channel();
        let beating = Arc::clone(&pulse);
        let run = Box::new(move || {
            // Nobody waits any more: the execution was aborted, or the work given up.
            let _ = sender.send(work(&beating));
        });
        let Ok(place) = Arc::clone(&pool.room).acquire_owned().await else { return Thought::Panicked };
        pool.push(Work { run, pulse: Arc::clone(&pulse), place });
        loop {
            let before = pulse.steps.load(Ordering::Relaxed);
            match tokio::time::timeout(self.step_timeout, &mut receiver).await {
                Ok(answer) => return answer.map_or(Thought::Panicked, Thought::Done),
                // What has not begun waits for others, which are given up if need be.
                Err(_) if before == 0 || pulse.steps.load(Ordering::Relaxed) != before => {}
                Err(_) if pool.give_up(&pulse) => return Thought::Overran,
                Err(_) => {}
            }
        }
    }
}

impl Drop for Thinker {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.queue().is_closed = true;
            pool.has_work.notify_all();
        }
    }
}

/// What the threads share.
#[derive(Debug)]
struct Pool {
    queue: Mutex<WorkQueue>,
    has_work: Condvar,
    room: Arc<Semaphore>,
    /// Threads that are stuck and were replaced.
    stuck: AtomicUsize,
}

#[derive(Default)]
struct WorkQueue {
    waiting: VecDeque<Work>,
    is_closed: bool,
}

impl std::fmt::Debug for WorkQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkQueue").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            queue: Mutex::default(),
            has_work: Condvar::new(),
            room: Arc::new(Semaphore::new(WAITING_MAX)),
            stuck: AtomicUsize::new(0),
        }
    }
}

impl Pool {
    fn queue(&self) -> MutexGuard<'_, WorkQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, work: Work) {
        self.queue().waiting.push_back(work);
        self.has_work.notify_one();
    }

    /// The next piece of work; `None` when there will be no more.
    fn next(&self) -> Option<Work> {
        let mut queue = self.queue();
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(work) = queue.waiting.pop_front() {
                return Some(work);
            }
            queue = self.has_work.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add_thread(self: &Arc<Self>) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        let serve = move || {
            while let Some(Work { run, pulse, place }) = pool.next() {
                drop(place);
                pulse.beat();
                if catch_unwind(AssertUnwindSafe(run)).is_err() {
                    tracing::error!("an interpreter panicked");
                }
                if std::mem::replace(&mut *pulse.fate(), Fate::Over) == Fate::Replaced {
                    pool.stuck.fetch_sub(1, Ordering::Relaxed);
                    return tracing::warn!("a thread that was stuck in an interpreter has come back, and ends");
                }
            }
        };
        std::thread::Builder::new().name("workflow".to_owned()).stack_size(STACK_BYTES).spawn(serve).map(drop)
    }

    /// Gives a piece of work up and replaces its thread. `false` if it is over meanwhile.
    fn give_up(self: &Arc<Self>, pulse: &Pulse) -> bool {
        let mut fate = pulse.fate();
        if *fate == Fate::Over {
            return false;
        }
        let one_more = |stuck| (stuck < INTERPRETER_THREADS_STUCK_MAX).then_some(stuck + 1);
        *fate = Fate::GivenUp;
        if self.stuck.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            tracing::error!("a thread is stuck in an interpreter, and too many are to replace it");
            return true;
        }
        match self.add_thread() {
            Ok(()) => {
                tracing::error!("a thread is stuck in an interpreter: another takes its place");
                *fate = Fate::Replaced;
            }
            Err(error) => {
                tracing::error!(%error, "a thread is stuck in an interpreter, and none can be started in its place");
                self.stuck.fetch_sub(1, Ordering::Relaxed);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_panic_costs_one_answer_not_the_thread() {
        let thinker = Thinker::start(1, LONG).unwrap();
        assert_eq!(thinker.run(|_| -> u8 { panic!("as the test wants") }).await, Thought::Panicked);
        assert_eq!(thinker.run(|_| 7).await, Thought::Done(7));
    }

    #[tokio::test]
    async fn slow_work_holds_up_nobody_as_long_as_a_thread_is_free() {
        let thinker = Arc::new(Thinker::start(2, LONG).unwrap());
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        let slow = tokio::spawn({
            let thinker = Arc::clone(&thinker);
            async move { thinker.run(move |_| released.recv().is_ok()).await }
        });
        for number in 0..10 {
            let quick = tokio::time::timeout(LONG, thinker.run(move |_| number)).await;
            assert_eq!(quick.unwrap(), Thought::Done(number), "it does not wait behind the slow one");
        }
        release.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), Thought::Done(true));
    }

    #[tokio::test]
    async fn work_that_is_stuck_is_given_up_and_its_thread_replaced() {
        let thinker = Thinker::start(1, Duration::from_millis(40)).unwrap();
        let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
        assert_eq!(thinker.run(move |_| released.recv().is_ok()).await, Thought::Overran);
        assert_eq!(thinker.run(|_| 7).await, Thought::Done(7), "on the thread that took its place");
        let stuck = || thinker.pool.as_ref().unwrap().stuck.load(Ordering::Relaxed);
        assert_eq!(stuck(), 1);
        release.send(()).unwrap();
        while stuck() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(thinker.run(|_| 8).await, Thought::Done(8));
    }

    #[tokio::test]
    async fn work_that_goes_on_may_take_long() {
        let thinker = Thinker::start(1, Duration::from_millis(400)).unwrap();
        let steps = |pulse: &Pulse| {
            for _ in 0..20 {
                pulse.beat();
                std::thread::sleep(Duration::from_millis(50));
            }
            7
        };
        assert_eq!(thinker.run(steps).await, Thought::Done(7));
    }
}
