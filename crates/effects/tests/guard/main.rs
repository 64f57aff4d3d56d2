//! Real child processes under real guards. This executable is the guard too, as a binary of Fleet is.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod attached;
mod detached;
mod fixture;
mod starter;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use fixture::Case;

fn main() -> ExitCode {
    if let Some(code) = fleet_effects::guard::main(std::env::args_os()) {
        return code;
    }
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next();
    if first.as_deref() == Some(starter::WORD) {
        return starter::run(arguments);
    }
    if std::env::args().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter = first.filter(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut failed = 0;
    for (name, run) in cases().filter(|(name, _)| name.contains(&filter)) {
        let passed = catch_unwind(AssertUnwindSafe(run)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn cases() -> impl Iterator<Item = Case> {
    attached::CASES.iter().chain(detached::CASES).chain(starter::CASES).copied()
}
