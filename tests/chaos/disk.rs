//! A disk of a node's own: an ext4 file system in an image, small enough to be filled, and whose power can be cut.
//!
//! Power is cut by the file system itself (`EXT4_IOC_SHUTDOWN` without a flush of its log, as the tests of Linux's file
//! systems do it): from then on nothing reaches the image, what was written and not synced is gone, and the next mount
//! replays the log. What this does not show is a drive that lies about a flush.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::leftovers;
use crate::tools::{run, try_run};

/// Size of the image: room for a store and its reserve.
const IMAGE_BYTES: u64 = 160 << 20;
/// How long processes may take to let go of files after their node was killed.
const RELEASE_BOUND: Duration = Duration::from_secs(10);
/// Cuts the power of the file system that has the folder in its first argument.
const CUT: &str = "import fcntl, os, struct, sys\n\
                   fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))\n";

/// The disk.
pub(crate) struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// An empty disk, mounted.
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join(leftovers::fresh_name());
        std::fs::create_dir_all(folder.join("mount")).expect("the temporary directory is writable");
        let disk = Self { folder };
        let image = File::create(disk.image()).expect("the image can be made");
        image.set_len(IMAGE_BYTES).expect("the image can be sparse");
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &disk.image().display().to_string()]);
        disk.mount();
        std::fs::create_dir(disk.data()).expect("the new disk is writable");
        File::open(disk.mounted()).and_then(|folder| folder.sync_all()).expect("the new disk can be synced");
        disk
    }

    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.folder.join("mount")
    }

    fn ballast(&self) -> PathBuf {
        self.mounted().join("ballast")
    }

    /// The folder on it that is for the node.
    pub(crate) fn data(&self) -> PathBuf {
        self.mounted().join("data")
    }

    fn mount(&self) {
        let (image, folder) = (self.image().display().to_string(), self.mounted().display().to_string());
        run("mount", &["-o", "loop", &image, &folder]);
    }

    /// Takes every byte that is left.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("a disk that is not full takes a file");
        for bytes in [1 << 20, 4 << 10, 1] {
            let block = vec![0x5A_u8; bytes];
            // It ends when no block of this size fits any more.
            while file.write_all(&block).is_ok() && file.sync_data().is_ok() {}
        }
    }

    /// Gives back what [`Self::fill`] took.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast is there");
    }

    /// From now on nothing reaches the disk, and what it had not on it is lost.
    pub(crate) fn cut_power(&self) {
        run("python3", &["-c", CUT, &self.mounted().display().to_string()]);
    }

    /// Starts the disk again, once nobody has it open any more.
    pub(crate) fn power_on(&self) {
        let folder = self.mounted().display().to_string();
        let deadline = Instant::now() + RELEASE_BOUND;
        while let Err(error) = try_run("umount", &[&folder]) {
            assert!(Instant::now() < deadline, "waited {RELEASE_BOUND:?}: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = try_run("umount", &["-l", &self.mounted().display().to_string()]) {
            eprintln!("{error}");
        }
        if std::thread::panicking() {
            eprintln!("the disk is kept in {}", self.image().display());
        } else {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// Whether a file with `text` is at `path`.
fn has(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|found| found == text)
}

/// The rig itself: if unsynced bytes survived it, no run could show that a node syncs what it should.
pub(crate) fn check_that_a_cut_loses_what_is_not_synced() {
    let disk = Disk::new();
    let (synced, unsynced) = (disk.data().join("synced"), disk.data().join("unsynced"));
    std::fs::write(&synced, "synced").expect("the disk takes a file");
    File::open(&synced).and_then(|file| file.sync_all()).expect("it can be synced");
    File::open(disk.data()).and_then(|folder| folder.sync_all()).expect("so can its folder");
    std::fs::write(&unsynced, "unsynced").expect("the disk takes a file");
    assert!(has(&synced, "synced") && has(&unsynced, "unsynced"));
    disk.cut_power();
    assert!(std::fs::write(disk.data().join("late"), "late").is_err(), "a disk without power takes nothing");
    disk.power_on();
    assert!(has(&synced, "synced"), "what was synced is there");
    assert!(!has(&unsynced, "unsynced"), "what was not synced is gone");

    disk.fill();
    assert!(std::fs::write(disk.data().join("more"), "more").is_err(), "a full disk takes nothing");
    disk.free();
    std::fs::write(disk.data().join("more"), "more").expect("it takes something again");
}
