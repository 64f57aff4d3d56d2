//! Where each value of a node came from, as a message names it.

use super::file::FileConfig;
use super::settings::NodeFlags;

/// The places of the values that may be refused.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) name: String,
    pub(super) site: String,
    pub(super) listen: String,
    pub(super) advertise: String,
    pub(super) http: String,
    pub(super) tags: String,
    pub(super) slots: String,
}

impl Places {
    /// Flags and variables win over the file, and the file over this machine.
    pub(super) fn of(flags: &NodeFlags, file: &FileConfig) -> Self {
        Self {
            name: place("name", flags.name.is_some(), "node.name", file.name.is_some()),
            site: place("site", flags.site.is_some(), "node.site", file.site.is_some()),
            listen: place("listen", flags.listen.is_some(), "node.listen", file.listen.is_some()),
            advertise: place("advertise", flags.advertise.is_some(), "node.advertise", file.advertise.is_some()),
            http: place("http", flags.http.is_some(), "node.http", file.http.is_some()),
            tags: place("tag", !flags.tags.is_empty(), "robot.tags", !file.tags.is_empty()),
            slots: place("slots", flags.slots.is_some(), "robot.slots", file.slots.is_some()),
        }
    }
}

/// A value of a flag may as well come from the flag's variable: the command line does not tell.
fn place(flag: &str, is_in_flags: bool, key: &str, is_in_file: bool) -> String {
    if is_in_flags {
        format!("--{flag} or FLEET_{}", flag.to_uppercase())
    } else if is_in_file {
        format!("the file's {key}")
    } else {
        format!("{key} as it is by default")
    }
}
