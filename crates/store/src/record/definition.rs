//! Definitions of workflows: stored once per digest, however many jobs run them.

use serde::{Deserialize, Serialize};

/// How many kept jobs run a definition.
///
/// Ended jobs count as long as they are kept: `retry` runs their definition again, and `job get` replays it. The count
/// lies apart from the definition's content, which may be large, because every submit raises it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefinitionUse {
    /// Kept jobs with this definition.
    pub jobs: u64,
}
