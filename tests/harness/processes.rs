//! Processes of this machine, as the kernel lists them: to see that nothing was left behind.

use std::path::Path;

/// Where Linux lists processes.
const LIST: &str = "/proc";

/// Whether this machine can be asked.
pub fn can_be_listed() -> bool {
    Path::new(LIST).join("self/cmdline").exists()
}

/// The command lines of processes whose environment says that `node` runs them for an effect, and that mention `marker`.
pub fn of_effects(node: &str, marker: &str) -> Vec<String> {
    let named = format!("FLEET_NODE={node}");
    let Ok(entries) = std::fs::read_dir(LIST) else { return Vec::new() };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        // A process that ends meanwhile cannot be read, and is not there.
        let (Ok(line), Ok(environment)) = (std::fs::read(path.join("cmdline")), std::fs::read(path.join("environ")))
        else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_of_node = environment.split(|byte| *byte == 0).any(|entry| entry == named.as_bytes());
        if is_of_node && line.contains(marker) {
            found.push(line);
        }
    }
    found
}
