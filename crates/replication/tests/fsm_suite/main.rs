//! The state machine of a site's group, driven through its public face on a store in memory.
#![cfg(test)]

mod absence;
mod cost;
mod encoding;
mod encoding_moves;
mod expulsion;
mod forget;
mod jobs;
mod members;
mod model;
mod moves;
mod moves_random;
mod moves_world;
mod properties;
mod reading;
mod registry;
mod test_site;
