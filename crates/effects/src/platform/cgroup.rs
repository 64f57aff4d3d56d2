//! A control group (v2) around one child, where the system lets us make one: it ends everything in one atomic step.
//! Where it does not, the process tree has to do.

use std::fs;
use std::path::{Path, PathBuf};

/// Where version 2 is mounted on every current system.
const MOUNT: &str = "/sys/fs/cgroup";

/// A control group made for one guard. Removed when dropped, if it is empty.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// A new group below this process's own, if that is possible.
    pub(crate) fn create() -> Option<Self> {
        let mount = Path::new(MOUNT);
        if !mount.join("cgroup.controllers").exists() {
            return None;
        }
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let directory = mount.join(own_path(&own)?).join(format!("fleet-guard-{}", std::process::id()));
        fs::create_dir(&directory).ok()?;
        Some(Self { directory })
    }

    /// The file a process writes `0` to, to join.
    pub(crate) fn join_file(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Kills everything in it.
    pub(crate) fn kill(&self) {
        // Kernels before 5.14 have no such file; the walk over the process tree follows in any case.
        let _ = fs::write(self.directory.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.directory);
    }
}

/// The path of the version 2 group in the text of `/proc/self/cgroup`, relative to the mount.
fn own_path(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_the_line_of_version_2() {
        assert_eq!(own_path("5:cpu:/x\n0::/system.slice/fleetd.service\n"), Some("system.slice/fleetd.service"));
        assert_eq!(own_path("0::/\n"), Some(""));
        assert_eq!(own_path("5:cpu:/x\n"), None);
    }
}
