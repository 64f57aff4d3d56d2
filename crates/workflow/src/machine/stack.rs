//! A stack large enough for everything that the limits on expressions and values allow.

use std::io;

/// Bytes of the stack. Only what is used of it takes memory.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Runs `work` on a thread of its own with a large stack and waits for it. A panic goes on in the caller.
pub fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("workflow".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}
