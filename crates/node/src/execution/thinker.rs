//! A few threads with a large stack on which interpreters run, so that deep definitions cannot overflow an async worker.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

/// Stack of one thread, bytes. Only what is used of it takes memory.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Pieces of work that wait for one thread.
const WAITING_MAX: usize = 1_024;

type Work = Box<dyn FnOnce() + Send>;

/// The threads. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Thinker {
    threads: Vec<mpsc::Sender<Work>>,
    next: AtomicUsize,
}

impl Thinker {
    /// `count` threads; with none of them, work runs on its caller's stack.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let threads = (0..count).map(spawn_thread).collect::<std::io::Result<_>>()?;
        Ok(Self { threads, next: AtomicUsize::new(0) })
    }

    /// What `work` returns, run on one of the threads; `None` if it panicked.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        if self.threads.is_empty() {
            return std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
        }
        let (sender, receiver) = oneshot::channel();
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let work: Work = Box::new(move || {
            // Nobody waits any more: the execution was aborted.
            let _ = sender.send(work());
        });
        self.threads[index].send(work).await.ok()?;
        receiver.await.ok()
    }
}

fn spawn_thread(index: usize) -> std::io::Result<mpsc::Sender<Work>> {
    let (sender, mut receiver) = mpsc::channel::<Work>(WAITING_MAX);
    let run = move || {
        while let Some(work) = receiver.blocking_recv() {
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                tracing::error!("an interpreter panicked");
            }
        }
    };
    std::thread::Builder::new().name(format!("workflow-{index}")).stack_size(STACK_BYTES).spawn(run)?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_answer_not_the_thread() {
        let thinker = Thinker::start(1).unwrap();
        assert_eq!(thinker.run(|| -> u8 { panic!("as the test wants") }).await, None);
        assert_eq!(thinker.run(|| 7).await, Some(7));
    }
}
