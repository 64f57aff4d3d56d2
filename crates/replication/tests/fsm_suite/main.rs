//! The state machine of a site's group, driven through its public face on a store in memory.
#![cfg(test)]

mod jobs;
mod test_site;
