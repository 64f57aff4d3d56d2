//! The last step before a child's program: this binary once more, which sets what only a process can set for itself,
//! and then becomes the program.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::process::{Signal, getppid, nice, set_parent_process_death_signal};

/// First argument of the launch step.
pub(crate) const LAUNCH_WORD: &str = "__fleet-launch";
/// How much lower than this process a child's priority is.
const NICENESS: i32 = 10;
/// Added to a child's chance to be killed when memory runs out, of 1,000: its work goes before the node.
const OUT_OF_MEMORY_SCORE: &str = "500";
/// What a shell answers for a command it cannot run.
const CANNOT_RUN: u8 = 127;

/// Becomes the program: `guard's process number, file to join a cgroup by or empty, program, arguments…`.
/// Returns only if it cannot.
pub(crate) fn exec_program(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(guard), Some(cgroup), Some(program)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return ExitCode::from(CANNOT_RUN);
    };
    let prepared = set_parent_process_death_signal(Some(Signal::KILL));
    let still_guarded = getppid().is_some_and(|parent| OsStr::new(&parent.to_string()) == guard);
    if prepared.is_err() || !still_guarded {
        return ExitCode::from(CANNOT_RUN);
    }
    // None of these three is needed for safety, and each may be denied.
    let _ = nice(NICENESS);
    let _ = fs::write("/proc/self/oom_score_adj", OUT_OF_MEMORY_SCORE);
    if !cgroup.is_empty() {
        let _ = fs::write(cgroup, "0");
    }
    let error = Command::new(&program).args(arguments).exec();
    let _ = writeln!(io::stderr(), "cannot run {}: {error}", program.display());
    ExitCode::from(CANNOT_RUN)
}

/// Where `program` is, looked up in `search_path` unless it names a directory itself.
pub(crate) fn find_program(program: &str, search_path: &str) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| is_executable(path));
    }
    std::env::split_paths(search_path).map(|directory| directory.join(program)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_path_given() {
        assert_eq!(find_program("sh", "/nowhere:/bin"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_program("/bin/sh", ""), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find_program("sh", "/nowhere"), None);
        assert_eq!(find_program("/etc/passwd", "/bin"), None);
    }
}
