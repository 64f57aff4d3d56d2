//! Names of what a run makes on the machine, and the end of what a run left that was killed before it could clean up.
//!
//! Every name begins with the process that made it, so nobody takes away what is in use, or what is not ours.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::tools::{run, try_run};

/// How every name begins.
const PREFIX: &str = "fleet-chaos-";

/// A new prefix of this process for one network or disk.
pub(crate) fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether `name` was made by a process that is gone.
fn is_orphan(name: &str) -> bool {
    let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
    process.is_some_and(|process| process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists())
}

/// Ends and removes what processes left that are gone: nodes, namespaces, mounts, images.
pub(crate) fn clear() {
    let listed = run("ip", &["netns", "list"]);
    for namespace in listed.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| is_orphan(name)) {
        eprintln!("removing the namespace {namespace}, which a former run left");
        remove_namespace(namespace);
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let folders = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    for folder in folders.filter(|folder| folder.iter().any(|part| is_orphan(&part.to_string_lossy()))) {
        eprintln!("unmounting {}, which a former run left", folder.display());
        // It may be busy for a moment still; lazily it goes in any case.
        let _ = try_run("umount", &["-l", &folder.display().to_string()]);
    }
    let entries = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_orphan(&entry.file_name().to_string_lossy())) {
        let _ = std::fs::remove_dir_all(entry.path());
    }
}

/// Ends what runs in `namespace`, and removes it with all its links.
pub(crate) fn remove_namespace(namespace: &str) {
    for process in try_run("ip", &["netns", "pids", namespace]).unwrap_or_default().lines() {
        // It may end by itself meanwhile.
        let _ = try_run("kill", &["-9", process]);
    }
    if let Err(error) = try_run("ip", &["netns", "delete", namespace]) {
        eprintln!("{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_made_is_left_over() {
        assert!(is_orphan("fleet-chaos-4194305-0-switch"), "no process has that number");
        assert!(!is_orphan(&fresh_name()), "this process lives");
        for other in ["fleet-chaos-", "fleet-chaos-x-1", "fleet-test-4194305-0", "4194305"] {
            assert!(!is_orphan(other), "{other} is not ours");
        }
    }
}
