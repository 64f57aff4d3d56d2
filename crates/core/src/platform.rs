//! What differs between operating systems. Unix today.

use std::time::Duration;

/// Time since boot, suspend included, so that a lease runs out on a machine that slept (`clock_gettime(2)`, `CLOCK_BOOTTIME`).
pub(crate) fn boot_time() -> Duration {
    let reading = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(reading.tv_sec).unwrap_or_default(), u32::try_from(reading.tv_nsec).unwrap_or_default())
}
