//! The programs of the machine that make networks and disks: whether they are there, and running them.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// What has to be there, with the Debian package that brings it.
const NEEDED: [(&str, &str); 8] = [
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("losetup", "util-linux"),
    ("mount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("python3", "python3"),
];
/// Where they are, whatever the `PATH` of who runs the tests.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Why nothing of this suite can run here, if it cannot.
pub(crate) fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let is_there = |program: &str| {
        FOLDERS.into_iter().chain(path.split(':')).any(|folder| Path::new(folder).join(program).exists())
    };
    let absent: Vec<String> = NEEDED
        .into_iter()
        .filter(|(program, _)| !is_there(program))
        .map(|(program, package)| format!("{program} (package {package})"))
        .collect();
    (!absent.is_empty()).then(|| format!("not installed: {}", absent.join(", ")))
}

/// Runs `program` with `arguments`, and gives what it printed.
///
/// # Errors
/// What it said, if it failed.
pub(crate) fn try_run(program: &str, arguments: &[&str]) -> Result<String, String> {
    try_run_with(program, arguments, "")
}

/// The same, with `input` on its standard input.
pub(crate) fn try_run_with(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let said = |what: &dyn std::fmt::Display| format!("{program} {}: {what}\n{input}", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| said(&error))?;
    // The pipe closes with the end of this statement.
    let written = child.stdin.take().map(|mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| said(&error))?;
    if !output.status.success() {
        return Err(said(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    written.unwrap_or(Ok(())).map_err(|error| said(&error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `program`, which must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    try_run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs `program` with `input`, which must succeed.
pub(crate) fn run_with(program: &str, arguments: &[&str], input: &str) -> String {
    try_run_with(program, arguments, input).unwrap_or_else(|error| panic!("{error}"))
}
