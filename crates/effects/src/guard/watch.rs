//! A guard's one task: start the child, watch, end everything, report. Carries out what [`Course`] decides.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use fleet_core::{Clock, SystemClock};
use tempfile::TempDir;

use super::course::Course;
use super::link::{self, Orders, Reports};
use super::protocol::{Ending, FromGuard, Launch, Script, Stream, ToGuard};
use crate::platform::{self, Alarm, Fate, Lock, Tree, pipe};

/// How long the last report may take to be read: nothing runs any more, but the lock is still held.
const LAST_REPORT_BOUND: Duration = Duration::from_secs(10);
/// Bytes read at once from the child.
const READ_BYTES: usize = 16 * 1024;

/// Runs a guard from its first word to its last.
pub(crate) async fn guard(lock_path: Option<PathBuf>) -> io::Result<()> {
    let _lock = lock_path.as_deref().map(Lock::shared).transpose()?;
    let (mut orders, mut reports) = link::open()?;
    reports.queue(&FromGuard::Ready);
    reports.write_all().await;
    let Some(ToGuard::Start(launch)) = orders.next().await else { return Ok(()) };
    let ending = match prepare(&launch) {
        Ok(prepared) => watch(*launch, prepared, &mut orders, &mut reports).await?,
        Err(message) => Ending::NotStarted(message),
    };
    reports.queue(&FromGuard::Ended(ending));
    // Whether the starter still reads is its own affair.
    let _ = tokio::time::timeout(LAST_REPORT_BOUND, reports.write_all()).await;
    Ok(())
}

/// What must exist before the child can start.
struct Prepared {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Holds the script's file; removed with everything in it when dropped.
    _scratch: Option<TempDir>,
}

fn prepare(launch: &Launch) -> Result<Prepared, String> {
    let search_path = launch.environment.iter().rev().find(|(name, _)| name == "PATH");
    let program = platform::find_program(&launch.program, search_path.map_or("", |(_, value)| value.as_str()))
        .ok_or_else(|| format!("no program `{}` in PATH", launch.program))?;
    let mut arguments = Vec::with_capacity(launch.arguments.len() + 1);
    let mut scratch = None;
    if let Some(script) = &launch.script {
        let (directory, file) = write_script(script).map_err(|error| format!("write the script: {error}"))?;
        arguments.push(file.into_os_string());
        scratch = Some(directory);
    }
    arguments.extend(launch.arguments.iter().map(OsString::from));
    Ok(Prepared { program, arguments, _scratch: scratch })
}

/// Puts the script into a file only this user can read, alone in a directory only this user can enter.
fn write_script(script: &Script) -> io::Result<(TempDir, PathBuf)> {
    let directory = tempfile::Builder::new().prefix("fleet-script-").tempdir()?;
    let mut file = tempfile::Builder::new().prefix("script").suffix(&script.suffix).tempfile_in(directory.path())?;
    file.write_all(script.code.as_bytes())?;
    let (_, path) = file.keep().map_err(|error| error.error)?;
    Ok((directory, path))
}

async fn watch(launch: Launch, prepared: Prepared, orders: &mut Orders, reports: &mut Reports) -> io::Result<Ending> {
    let mut course = Course::new(launch.lease_end, launch.output_bytes_max);
    course.check_lease(SystemClock.boot_now());
    if let Some(ending) = course.ending() {
        return Ok(ending.clone());
    }
    let mut terminations = platform::termination_requests()?;
    let alarm = Alarm::at(course.lease_end())?;
    let (program, work_dir) = (&prepared.program, launch.work_dir.as_deref());
    let started = Tree::start(program, &prepared.arguments, &launch.environment, work_dir, launch.captures);
    let (mut tree, streams) = match started {
        Ok(started) => started,
        Err(error) => return Ok(Ending::NotStarted(format!("start `{}`: {error}", program.display()))),
    };
    reports.queue(&FromGuard::Started { process_id: tree.process_id() });
    let mut input = Input::open(streams.stdin, launch.stdin.into_bytes())?;
    let mut stdout = Output::open(streams.stdout, Stream::Stdout)?;
    let mut stderr = Output::open(streams.stderr, Stream::Stderr)?;
    while course.ending().is_none() {
        tokio::select! {
            order = orders.next() => match order {
                Some(ToGuard::Renew(end)) => {
                    course.renew(end, SystemClock.boot_now());
                    alarm.set(course.lease_end())?;
                }
                Some(ToGuard::End) => course.end(Ending::Asked),
                Some(ToGuard::Start(_)) | None => course.end(Ending::StarterGone),
            },
            () = alarm.rung() => course.check_lease(SystemClock.boot_now()),
            _ = terminations.recv() => course.end(Ending::Asked),
            fate = tree.ended() => course.end(match fate? {
                Fate::Exited(code) => Ending::Exited(code),
                Fate::Signalled(signal) => Ending::Signalled(signal),
            }),
            () = input.write_some(), if input.is_pending() => {}
            () = stdout.ready(), if stdout.is_open() && reports.has_room() => stdout.take(&mut course, reports),
            () = stderr.ready(), if stderr.is_open() && reports.has_room() => stderr.take(&mut course, reports),
            () = reports.write_some(), if reports.is_pending() => {}
        }
    }
    tree.end().await?;
    // Nobody is left to write, so what is in the pipes is all there will be. A process that was handed the pipe from
    // outside this tree may still hold it open: hence no wait for its end.
    stdout.drain(&mut course, reports);
    stderr.drain(&mut course, reports);
    Ok(course.ending().cloned().unwrap_or(Ending::Asked))
}

/// The child's standard input and what it has not read yet.
struct Input {
    pipe: Option<pipe::Sender>,
    rest: Vec<u8>,
    written: usize,
}

impl Input {
    fn open(end: Option<OwnedFd>, text: Vec<u8>) -> io::Result<Self> {
        let pipe = if text.is_empty() { None } else { end.map(pipe::Sender::from_owned_fd).transpose()? };
        Ok(Self { pipe, rest: text, written: 0 })
    }

    fn is_pending(&self) -> bool {
        self.pipe.is_some()
    }

    /// Writes some; closes the pipe after the last byte, or when the child reads no more.
    async fn write_some(&mut self) {
        let Some(pipe) = &self.pipe else { return };
        let written = match pipe.writable().await {
            Ok(()) => pipe.try_write(&self.rest[self.written..]),
            Err(error) => Err(error),
        };
        match written {
            Ok(count) => self.written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => self.written = self.rest.len(),
        }
        if self.written == self.rest.len() {
            self.pipe = None;
        }
    }
}

/// One of the child's output streams.
struct Output {
    pipe: Option<pipe::Receiver>,
    stream: Stream,
}

impl Output {
    fn open(end: Option<OwnedFd>, stream: Stream) -> io::Result<Self> {
        Ok(Self { pipe: end.map(pipe::Receiver::from_owned_fd).transpose()?, stream })
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Completes when there is something to read, or the end.
    async fn ready(&self) {
        if let Some(pipe) = &self.pipe {
            // An error shows again, and counts, at the read.
            let _ = pipe.readable().await;
        }
    }

    /// Reads once, if there is something to read.
    fn take(&mut self, course: &mut Course, reports: &mut Reports) {
        let Some(pipe) = &self.pipe else { return };
        let mut bytes = [0; READ_BYTES];
        let read = pipe.try_read(&mut bytes);
        self.pass_on(read, &bytes, course, reports);
    }

    /// Reads what is there, to the end or until nothing more is.
    fn drain(&mut self, course: &mut Course, reports: &mut Reports) {
        let mut bytes = [0; READ_BYTES];
        let mut more = true;
        while more && let Some(pipe) = &self.pipe {
            // Asks the kernel, not the runtime: that may not have heard yet of what came last.
            let read = platform::read_now(pipe, &mut bytes);
            more = self.pass_on(read, &bytes, course, reports);
        }
    }

    /// Passes on what was read, as far as it counts; whether there may be more.
    fn pass_on(&mut self, read: io::Result<usize>, bytes: &[u8], course: &mut Course, reports: &mut Reports) -> bool {
        match read {
            Ok(count) if count > 0 => {
                let counted = course.output(self.stream, count);
                if counted > 0 {
                    reports.queue(&FromGuard::Output(self.stream, bytes[..counted].to_vec()));
                }
                counted == count
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            _ => {
                self.pipe = None;
                false
            }
        }
    }
}
