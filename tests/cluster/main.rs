//! Real processes: nodes join, work is submitted, processes are killed, frozen, wiped and restarted, and one judge holds
//! what clients were told and what the outside saw against the promises.

#[path = "../harness/mod.rs"]
mod harness;

mod across_sites;
mod catalog;
mod cut_off;
mod frozen;
mod joining;
mod kills;
mod life;
mod links;
mod links_between_sites;
mod recovery;
mod removal;
mod rolling;
mod site_removal;
mod sites;
mod transfers;
mod watching;
mod wiping;
