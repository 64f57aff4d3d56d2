//! What the processes of jobs printed, all of it, on the disk of the robot that ran them:
//! `logs/jobs/JOB/EFFECT.stdout` and `.stderr` in the data directory. The journal keeps only the end of it.
//!
//! Invariants: all files together stay within the bound, the oldest go first; the name of a file follows from job and
//! effect, so that whoever reads the journal knows where to look; an effect is never held up or failed by its log.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use std::{fs, io};

use fleet_core::{Digest, JobId};

/// The directory of all logs, in the data directory.
const DIRECTORY: &str = "logs/jobs";
/// Characters of the digest of an effect's path in a file's name.
const NAME_CHARACTERS: usize = 16;

/// Where the output of the effect at `path` of `job` is, in the data directory of the node that ran it.
pub(crate) fn file_of(job: JobId, path: &str, stream: &str) -> String {
    let digest = Digest::of(path.as_bytes()).to_string();
    format!("{DIRECTORY}/{job}/{}.{stream}", digest.chars().take(NAME_CHARACTERS).collect::<String>())
}

/// The logs of one robot. A cheap handle.
#[derive(Clone)]
pub struct JobLogs {
    data_dir: Arc<Path>,
    kept: Arc<Mutex<Kept>>,
}

/// The files there are, the oldest first.
#[derive(Default)]
struct Kept {
    files: VecDeque<(PathBuf, u64)>,
    bytes: u64,
    bytes_max: u64,
}

impl JobLogs {
    /// The logs in `data_dir`, held to `bytes_max` from now on.
    ///
    /// # Errors
    /// If the directory cannot be made or read.
    pub fn open(data_dir: &Path, bytes_max: u64) -> io::Result<Self> {
        let directory = data_dir.join(DIRECTORY);
        crate::platform::create_private_dir(&directory)?;
        let mut found: Vec<(SystemTime, PathBuf, u64)> = Vec::new();
        for job in fs::read_dir(&directory)?.flatten() {
            for file in fs::read_dir(job.path()).into_iter().flatten().flatten() {
                let facts = file.metadata()?;
                found.push((facts.modified()?, file.path(), facts.len()));
            }
        }
        found.sort();
        let mut kept = Kept { bytes_max, ..Kept::default() };
        for (_, path, bytes) in found {
            kept.add(path, bytes);
        }
        Ok(Self { data_dir: data_dir.into(), kept: Arc::new(Mutex::new(kept)) })
    }

    /// Keeps what the effect at `path` of `job` printed. May block for the disk.
    pub(crate) fn keep(&self, job: JobId, path: &str, stdout: &[u8], stderr: &[u8]) {
        for (stream, bytes) in [("stdout", stdout), ("stderr", stderr)] {
            if bytes.is_empty() {
                continue;
            }
            let file = self.data_dir.join(file_of(job, path, stream));
            match write(&file, bytes) {
                Ok(()) => {
                    let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.add(file, bytes.len() as u64);
                }
                Err(error) => tracing::warn!(%job, path, stream, %error, "what the process printed is not kept whole"),
            }
        }
    }
}

fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(directory) = file.parent() {
        crate::platform::create_private_dir(directory)?;
    }
    // A piece would be taken for the whole.
    fs::write(file, bytes).inspect_err(|_| drop(fs::remove_file(file)))
}

impl Kept {
    /// Counts a file, and removes the oldest until all fit.
    fn add(&mut self, path: PathBuf, bytes: u64) {
        // An effect that ran again wrote over what it printed before.
        if let Some(position) = self.files.iter().rposition(|(known, _)| *known == path) {
            self.bytes -= self.files.remove(position).map_or(0, |(_, bytes)| bytes);
        }
        self.files.push_back((path, bytes));
        self.bytes += bytes;
        while self.bytes > self.bytes_max
            && let Some((oldest, bytes)) = self.files.pop_front()
        {
            self.bytes -= bytes;
            if let Err(error) = fs::remove_file(&oldest) {
                tracing::debug!(file = %oldest.display(), %error, "an old log was not removed");
            }
            // Fails as long as the job has other files.
            let _not_empty = oldest.parent().map(fs::remove_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::from_bytes([1; 16]);
    const OTHER: JobId = JobId::from_bytes([2; 16]);

    fn read(root: &Path, job: JobId, path: &str, stream: &str) -> Option<Vec<u8>> {
        fs::read(root.join(file_of(job, path, stream))).ok()
    }

    #[test]
    fn all_that_was_printed_is_kept_until_it_is_the_oldest_beyond_the_bound() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let logs = JobLogs::open(root.path(), 100).expect("it can be made");
        logs.keep(JOB, "/do/0/a", &[b'a'; 60], b"");
        logs.keep(OTHER, "/do/0/a", b"", &[b'b'; 30]);
        assert_eq!(read(root.path(), JOB, "/do/0/a", "stdout").map(|bytes| bytes.len()), Some(60));
        assert_eq!(read(root.path(), JOB, "/do/0/a", "stderr"), None, "nothing was printed there");
        logs.keep(OTHER, "/do/1/b", &[b'c'; 40], b"");
        assert_eq!(read(root.path(), JOB, "/do/0/a", "stdout"), None, "the oldest makes room");
        assert!(!root.path().join(DIRECTORY).join(JOB.to_string()).exists(), "and leaves no directory");
        assert_eq!(read(root.path(), OTHER, "/do/0/a", "stderr").map(|bytes| bytes.len()), Some(30));
    }

    #[test]
    fn a_restarted_robot_knows_its_logs_and_a_repeat_is_counted_once() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let logs = JobLogs::open(root.path(), 100).expect("it can be made");
        for _ in 0..5 {
            logs.keep(JOB, "/do/0/a", &[b'a'; 60], b"");
        }
        assert!(read(root.path(), JOB, "/do/0/a", "stdout").is_some());
        let logs = JobLogs::open(root.path(), 100).expect("it is there");
        logs.keep(OTHER, "/do/0/a", &[b'b'; 60], b"");
        assert_eq!(read(root.path(), JOB, "/do/0/a", "stdout"), None);
        assert!(read(root.path(), OTHER, "/do/0/a", "stdout").is_some());
    }
}
