//! The repository's own rules as tests: what stands at the top, crate edges, which crate names which technology,
//! sizes, module docs, bounded queues. `docs/architecture.md` says why the rules are as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// For each crate: which crates of ours it may use outside of tests.
const EDGES: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("workflow", &[]),
    ("effects", &["core", "workflow"]),
    ("store", &["core", "workflow"]),
    ("membership", &["core"]),
    ("replication", &["core", "store"]),
    ("api", &["core"]),
    ("node", &["core", "workflow", "store", "membership", "replication"]),
    ("fleetd", &["core", "api", "store", "membership", "replication", "node", "effects", "workflow"]),
    ("fleetctl", &["core", "api", "workflow", "effects"]),
    ("sim", &["core"]),
];

/// For each technology: the only crates that may depend on it outside of tests.
const TECHNOLOGIES: &[(&str, &[&str])] = &[
    ("jaq-core", &["workflow"]),
    ("jaq-json", &["workflow"]),
    ("jaq-std", &["workflow"]),
    ("saphyr-parser", &["workflow"]),
    ("jsonc-parser", &["workflow"]),
    ("jsonschema", &["workflow"]),
    ("redb", &["store"]),
    ("foca", &["membership"]),
    ("openraft", &["replication"]),
    ("miniz_oxide", &["node"]),
    ("reqwest", &["effects"]),
    ("prost", &["api", "fleetd"]),
    ("tonic", &["api", "fleetd", "fleetctl"]),
    ("ractor", &["node", "fleetd"]),
    ("ractor_cluster", &["node", "fleetd"]),
    ("axum", &["fleetd"]),
    ("metrics-exporter-prometheus", &["fleetd"]),
    ("tracing-subscriber", &["fleetd", "fleetctl"]),
    ("rcgen", &["fleetd"]),
    ("clap", &["fleetd", "fleetctl"]),
    ("comfy-table", &["fleetd", "fleetctl"]),
];

/// What may show at the top of the repository.
const TOP_LEVEL: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "benches",
    "config",
    "crates",
    "deploy",
    "docs",
    "proto",
    "target",
    "tests",
];

const FILE_LINES_MAX: usize = 800;
const FILE_LINES_P90_MAX: usize = 400;
const FILE_LINES_MEDIAN_MAX: usize = 200;
const FUNCTION_LINES_MAX: usize = 70;
const CORE_LINES_MAX: usize = 1_500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

fn rust_files(under: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![under.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn production_files() -> Vec<PathBuf> {
    EDGES
        .iter()
        .flat_map(|(name, _)| rust_files(&root().join("crates").join(name).join("src")))
        .filter(|path| !is_test_file(path))
        .collect()
}

/// Whether `path` is a test module that outgrew its file: `tests.rs`, `x_tests.rs`, or anything under a folder `tests`.
fn is_test_file(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests") || path.iter().any(|part| part == "tests")
}

/// The lines of a file before its first inline test module.
fn production_lines(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if line.trim() == "#[cfg(test)]" {
            break;
        }
        lines.push(line);
    }
    lines
}

/// Names under `[section]` of a manifest.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == format!("[{section}]");
        } else if inside && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

fn report(rule: &str, problems: Vec<String>) {
    assert!(problems.is_empty(), "{rule}:\n  {}\n", problems.join("\n  "));
}

#[test]
fn nothing_else_stands_at_the_top() {
    let problems = fs::read_dir(root())
        .expect("the root is readable")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    report("only the mandated entries may stand at the top of the repository", problems);
}

#[test]
fn crates_use_only_whom_they_may() {
    let mut problems = Vec::new();
    for (name, allowed) in EDGES {
        let used = dependencies(&read(&root().join("crates").join(name).join("Cargo.toml")), "dependencies");
        for ours in used.iter().filter_map(|used| used.strip_prefix("fleet-")) {
            if !allowed.contains(&ours) {
                problems.push(format!("fleet-{ours} may not be used by {name}"));
            }
        }
    }
    let listed: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    for entry in fs::read_dir(root().join("crates")).expect("crates is readable").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !listed.contains(name.as_str()) {
            problems.push(format!("crate {name} has no row in EDGES"));
        }
    }
    report("an edge between crates that the architecture does not have", problems);
}

#[test]
fn technologies_have_owners() {
    let mut problems = Vec::new();
    for (name, _) in EDGES {
        let used = dependencies(&read(&root().join("crates").join(name).join("Cargo.toml")), "dependencies");
        for (technology, owners) in TECHNOLOGIES {
            if used.contains(*technology) && !owners.contains(name) {
                problems.push(format!("{name} names {technology}, which belongs to {}", owners.join(", ")));
            }
        }
    }
    report("a crate names a technology it does not own", problems);
}

#[test]
fn versions_stand_in_the_workspace_only() {
    let mut problems = Vec::new();
    for (name, _) in EDGES {
        let manifest = read(&root().join("crates").join(name).join("Cargo.toml"));
        for (number, line) in manifest.lines().enumerate() {
            let is_package_field =
                ["version.workspace", "rust-version.workspace"].iter().any(|field| line.starts_with(field));
            if line.contains("version = \"")
                || (line.contains("= \"")
                    && line.trim_start().starts_with(|c: char| c.is_ascii_lowercase())
                    && line.contains('.')
                    && !is_package_field
                    && !line.contains("name ="))
            {
                problems.push(format!("crates/{name}/Cargo.toml:{}: {line}", number + 1));
            }
        }
    }
    report("versions belong into [workspace.dependencies]", problems);
}

#[test]
fn files_stay_readable() {
    let mut lengths: Vec<(usize, PathBuf)> =
        production_files().into_iter().map(|path| (production_lines(&read(&path)).len(), path)).collect();
    lengths.sort();
    let mut problems: Vec<String> = lengths
        .iter()
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{} has {lines} lines, the bound is {FILE_LINES_MAX}", path.display()))
        .collect();
    let at = |share: usize| lengths[(lengths.len() - 1) * share / 100].0;
    if at(50) > FILE_LINES_MEDIAN_MAX {
        problems.push(format!("the median file has {} lines, the bound is {FILE_LINES_MEDIAN_MAX}", at(50)));
    }
    if at(90) > FILE_LINES_P90_MAX {
        problems.push(format!("nine in ten files have up to {} lines, the bound is {FILE_LINES_P90_MAX}", at(90)));
    }
    let core: usize =
        rust_files(&root().join("crates/core/src")).iter().map(|path| production_lines(&read(path)).len()).sum();
    if core > CORE_LINES_MAX {
        problems.push(format!(
            "fleet-core has {core} lines, the bound is {CORE_LINES_MAX}: it is a foundation, not a drawer"
        ));
    }
    report("a file is longer than a reader should have to hold", problems);
}

/// Every function of `text` as (line, name, lines): from its `fn` to the closing brace of the same indentation.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines = production_lines(text);
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(after) = code.find("fn ").filter(|at| code[..*at].split_whitespace().all(is_function_qualifier))
        else {
            continue;
        };
        let name: String = code[after + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let indent = line.len() - code.len();
        let closing = format!("{}}}", " ".repeat(indent));
        let signature_end =
            lines[number..].iter().map(|line| line.trim_end()).find(|line| line.ends_with(['{', '}', ';']));
        if signature_end.is_none_or(|line| !line.ends_with('{')) {
            continue;
        }
        if let Some(length) = lines[number..].iter().position(|line| *line == closing) {
            found.push((number + 1, name, length + 1));
        }
    }
    found
}

fn is_function_qualifier(word: &str) -> bool {
    ["pub", "pub(crate)", "pub(super)", "const", "async", "default"].contains(&word)
}

#[test]
fn functions_stay_readable() {
    let mut problems = Vec::new();
    for path in production_files() {
        for (line, name, length) in functions(&read(&path)) {
            if length > FUNCTION_LINES_MAX {
                problems.push(format!(
                    "{}:{line}: `{name}` has {length} lines, the bound is {FUNCTION_LINES_MAX}",
                    path.display()
                ));
            }
        }
    }
    report("a function is longer than a screen", problems);
}

#[test]
fn modules_say_what_they_are() {
    let problems = production_files()
        .into_iter()
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| format!("{} does not start with //!", path.display()))
        .collect();
    report("every module starts with what it is", problems);
}

/// Text that production code must not have, with what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("unbounded_channel", "tokio::sync::mpsc::channel with a bound from limits.rs"),
    ("mpsc::unbounded", "a bounded channel"),
    ("mpsc::channel()", "std::sync::mpsc::sync_channel with a bound"),
    (".unwrap()", "an error that names the operation and its object"),
    (".expect(", "an error that names the operation and its object"),
    ("todo!(", "the work"),
    ("unimplemented!(", "the work"),
    ("::*;", "the names that are used"),
];

#[test]
fn banned_text_is_absent() {
    let mut problems = Vec::new();
    for path in production_files() {
        let text = read(&path);
        for (number, line) in production_lines(&text).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (banned, instead) in BANNED {
                if code.contains(banned) {
                    problems.push(format!("{}:{}: `{banned}`: use {instead}", path.display(), number + 1));
                }
            }
        }
    }
    report("production code has text that is banned here", problems);
}

/// What only one operating system has. It stands in one module per crate, so that another system can follow.
const PLATFORM: &[&str] = &["os::unix", "os::linux", "signal::unix", "net::unix", "rustix::", "libc::"];

#[test]
fn systems_differ_in_one_module_per_crate() {
    let mut problems = Vec::new();
    for path in production_files() {
        if path.components().any(|part| part.as_os_str() == "platform" || part.as_os_str() == "platform.rs") {
            continue;
        }
        let text = read(&path);
        for (number, line) in production_lines(&text).iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in PLATFORM.iter().filter(|word| code.contains(*word)) {
                problems.push(format!("{}:{}: `{word}` belongs into the crate's platform", path.display(), number + 1));
            }
        }
    }
    report("what only one operating system has stands outside of `platform`", problems);
}

#[test]
fn every_field_of_the_protocol_is_commented() {
    let mut problems = Vec::new();
    for path in [
        "proto/fleet/v1/fleet.proto",
        "proto/fleet/v1/outbox.proto",
        "proto/fleet/peer/v1/peer.proto",
        "proto/fleet/peer/v1/site.proto",
    ] {
        let text = read(&root().join(path));
        let mut previous = "";
        for (number, line) in text.lines().enumerate() {
            let code = line.trim();
            let declares = code.ends_with(';') && code.contains(" = ") && !code.starts_with("syntax")
                || ["message ", "service ", "rpc ", "enum "].iter().any(|word| code.starts_with(word));
            if declares && !previous.trim().starts_with("//") {
                problems.push(format!("{path}:{}: {code}", number + 1));
            }
            previous = line;
        }
    }
    report("a declaration of the protocol has no comment", problems);
}

#[test]
fn one_tls_provider_one_prost_one_tonic() {
    let lock = read(&root().join("Cargo.lock"));
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for line in lock.lines() {
        if let Some(name) = line.strip_prefix("name = ") {
            *versions.entry(name.trim_matches('"')).or_default() += 1;
        }
    }
    let mut problems = Vec::new();
    for single in ["prost", "tonic", "rustls", "tokio", "hyper"] {
        if versions.get(single).copied() != Some(1) {
            problems.push(format!("{single} is in the lock file {:?} times", versions.get(single)));
        }
    }
    if versions.contains_key("openssl") {
        problems.push("openssl is in the lock file".to_owned());
    }
    report("the lock file has what it must not have", problems);
}
