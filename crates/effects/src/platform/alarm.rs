//! An alarm on the clock that counts suspend: a machine that slept through a lease ends its work when it wakes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_core::BootInstant;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::sync::Notify;

/// Rings once the lease clock has reached the time set. A thread of its own waits for the kernel's timer: the runtime's
/// timers stand still while the machine sleeps.
#[derive(Debug)]
pub(crate) struct Alarm {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    timer: OwnedFd,
    bell: Notify,
    dropped: AtomicBool,
}

impl Alarm {
    /// An alarm at `due`.
    pub(crate) fn at(due: BootInstant) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { timer, bell: Notify::new(), dropped: AtomicBool::new(false) });
        let alarm = Self { shared: shared.clone() };
        alarm.set(due)?;
        std::thread::Builder::new().name("alarm".to_owned()).stack_size(64 * 1024).spawn(move || shared.wait())?;
        Ok(alarm)
    }

    /// Moves the alarm to `due`.
    pub(crate) fn set(&self, due: BootInstant) -> io::Result<()> {
        // Zero would disarm the timer; the first nanosecond has passed just as well.
        let due = due.0.max(Duration::from_nanos(1));
        let value =
            Timespec { tv_sec: i64::try_from(due.as_secs()).unwrap_or(i64::MAX), tv_nsec: due.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        timerfd_settime(&self.shared.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }

    /// Completes when it has rung since the last time this completed.
    pub(crate) async fn rung(&self) {
        self.shared.bell.notified().await;
    }
}

impl Shared {
    fn wait(&self) {
        while !self.dropped.load(Ordering::Acquire) {
            match rustix::io::read(&self.timer, &mut [0_u8; 8]) {
                Ok(_) => self.bell.notify_one(),
                Err(Errno::INTR | Errno::CANCELED) => {}
                // A timer that cannot be read is as good as rung: better an early look at the clock than none.
                Err(_) => return self.bell.notify_one(),
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.dropped.store(true, Ordering::Release);
        // Wakes the thread, which then ends.
        let _ = self.set(BootInstant::default());
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{Clock, SystemClock};

    use super::*;

    #[tokio::test]
    async fn it_rings_at_its_time_and_can_be_moved() {
        let start = SystemClock.boot_now();
        let alarm = Alarm::at(start.saturating_add(Duration::from_secs(3_600))).unwrap();
        let due = start.saturating_add(Duration::from_millis(40));
        alarm.set(due).unwrap();
        alarm.rung().await;
        assert!(SystemClock.boot_now() >= due);
        alarm.set(BootInstant::default()).unwrap();
        alarm.rung().await;
    }
}
