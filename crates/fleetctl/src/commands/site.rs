//! `site`: the units of autonomy, and what to do when one lost its majority for good.

use clap::Subcommand;
use fleet_api::pb::v1;
use fleet_core::time::age;
use fleet_core::{Clock, Error, ErrorKind, SystemClock, Timestamp};
use serde_json::json;

use crate::error::Failure;
use crate::session::Session;
use crate::{render, view};

/// Verbs of `site`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All sites
    List,
    /// One site
    Get {
        /// Its name
        name: String,
    },
    /// Take a site out of the fleet for good: a plant that was stolen, lost or given up
    ///
    /// Its authority is revoked, and with it every node of it; no link is made to it any more, and its name is free for
    /// another. Jobs that it had not accepted come back where they were submitted; it may have them all the same, and run
    /// them. Those that it had accepted can be given up with `outbox abandon --site`.
    Remove {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Found a new group from the copy of the node asked, after the majority was lost for good
    ///
    /// What only the lost voters had is lost, and jobs that ran there may run twice: these are listed, and the question
    /// comes before anything is done. The new group dispatches nothing until the robot of every node was heard that was
    /// not removed, or until --release-hold.
    Recover {
        /// The site, which must be the one of the node asked
        #[arg(long)]
        site: Option<String>,
        /// Accept the loss without being asked
        #[arg(long)]
        accept_loss: bool,
        /// End the hold of an earlier recovery instead of beginning one
        #[arg(long, conflicts_with = "accept_loss")]
        release_hold: bool,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::List => {
            let sites = sites(session).await?;
            let value = json!({"sites": sites.iter().map(view::site).collect::<Vec<_>>()});
            Ok(render::data(session.format, &value, || table(&sites))?)
        }
        Command::Get { name } => {
            let site = sites(session).await?.into_iter().find(|site| site.name == name);
            let site = site.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no site `{name}`")))?;
            Ok(render::data(session.format, &view::site(&site), || details(&site))?)
        }
        Command::Remove { name, yes } => {
            let question = format!(
                "Remove site {name} for good and revoke all its nodes? Jobs on their way to it come back, and may run there too."
            );
            super::confirm_or_refuse(yes, &question, "--yes")?;
            session.ask(session.client().remove_site(v1::RemoveSiteRequest { site: name.clone() })).await?;
            render::data(session.format, &json!({"site": name}), String::new)?;
            render::say(&format!(
                "Site {name} is out of the fleet. The other sites hear of it as soon as they are linked."
            ));
            Ok(())
        }
        Command::Recover { site, accept_loss, release_hold } => {
            let site = match site {
                Some(site) => site,
                None => own_site(session).await?,
            };
            recover(session, v1::RecoverSiteRequest { site, accept_loss, release_hold }).await
        }
    }
}

/// Without consent beforehand: asks the node what would happen, shows it, asks the person, and only then does it.
async fn recover(session: &Session, request: v1::RecoverSiteRequest) -> Result<(), Failure> {
    let answer = session.ask(session.client().recover_site(request.clone())).await?;
    if request.accept_loss || request.release_hold {
        return Ok(show_recovery(session, &answer)?);
    }
    if super::is_interactive() {
        render::say(&recovery(&answer));
    } else {
        show_recovery(session, &answer)?;
    }
    let question = "Found a new group? What only the lost voters had is lost, and the jobs above may run twice.";
    super::confirm_or_refuse(false, question, "--accept-loss")?;
    let request = v1::RecoverSiteRequest { accept_loss: true, ..request };
    let answer = session.ask(session.client().recover_site(request)).await?;
    Ok(show_recovery(session, &answer)?)
}

fn show_recovery(session: &Session, answer: &v1::RecoverSiteResponse) -> Result<(), Error> {
    let value = json!({
        "epoch": answer.epoch, "recovered": answer.recovered, "doubtfulJobs": answer.doubtful_jobs,
        "doubtfulCount": answer.doubtful_count, "appliedIndex": answer.applied_index,
    });
    render::data(session.format, &value, || recovery(answer))
}

fn recovery(answer: &v1::RecoverSiteResponse) -> String {
    let mut text = format!("epoch {}", answer.epoch);
    if answer.applied_index > 0 {
        text.push_str(&format!(", from a copy up to entry {}", answer.applied_index));
    }
    for job in &answer.doubtful_jobs {
        text.push_str("\nmay run twice: ");
        text.push_str(job);
    }
    let more = answer.doubtful_count.saturating_sub(answer.doubtful_jobs.len() as u64);
    if more > 0 {
        text.push_str(&format!("\n…and {more} more"));
    }
    text
}

async fn sites(session: &Session) -> Result<Vec<v1::Site>, Error> {
    Ok(session.ask(session.client().list_sites(v1::ListSitesRequest {})).await?.sites)
}

async fn own_site(session: &Session) -> Result<String, Error> {
    let status = session.ask(session.client().get_status(v1::GetStatusRequest {})).await?;
    Ok(status.site.unwrap_or_default().name)
}

fn table(sites: &[v1::Site]) -> String {
    let rows = sites.iter().map(|site| {
        let held = if site.held { "held" } else { "" };
        vec![
            site.name.clone(),
            standing(site, now()),
            count(site.nodes),
            if site.own { site.epoch.to_string() } else { String::new() },
            site.leader.clone(),
            site.voters.join(", "),
            held.to_owned(),
        ]
    });
    render::table(&["NAME", "STATE", "NODES", "EPOCH", "LEADER", "VOTERS", ""], rows)
}

fn details(site: &v1::Site) -> String {
    let mut lines = vec![("site", site.name.clone()), ("state", standing(site, now())), ("nodes", count(site.nodes))];
    if site.own {
        lines.extend([
            ("epoch", site.epoch.to_string()),
            ("leader", site.leader.clone()),
            ("voters", site.voters.join(", ")),
            ("learners", site.learners.join(", ")),
            ("held", site.held.to_string()),
        ]);
    }
    lines.push(("contacts", site.contacts.join(", ")));
    render::list(&lines)
}

fn count(nodes: Option<u32>) -> String {
    nodes.map(|nodes| nodes.to_string()).unwrap_or_default()
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// How a site stands, for people.
pub(super) fn standing(site: &v1::Site, now: Timestamp) -> String {
    match site.state.as_str() {
        "silent" => format!("last heard {} ago", age(now.saturating_since(Timestamp(site.heard_ms)))),
        "unheard" => "not heard yet".to_owned(),
        state => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_that_is_not_linked_says_when_it_was_last_heard() {
        let now = Timestamp(20_000_000);
        let site = |state: &str, heard_ms| v1::Site { state: state.to_owned(), heard_ms, ..v1::Site::default() };
        assert_eq!(standing(&site("alive", 1), now), "alive");
        assert_eq!(standing(&site("silent", 20_000_000 - 3 * 3_600_000 - 5), now), "last heard 3 h ago");
        assert_eq!(standing(&site("silent", 20_000_001), now), "last heard 0 s ago", "by a clock that was set back");
        assert_eq!(standing(&site("unheard", 0), now), "not heard yet");
    }

    #[test]
    fn what_may_run_twice_is_listed_and_the_rest_counted() {
        let answer = v1::RecoverSiteResponse {
            epoch: 2,
            doubtful_jobs: vec!["a".to_owned(), "b".to_owned()],
            doubtful_count: 12,
            recovered: false,
            applied_index: 40,
        };
        assert_eq!(
            recovery(&answer),
            "epoch 2, from a copy up to entry 40\nmay run twice: a\nmay run twice: b\n…and 10 more"
        );
        let few = v1::RecoverSiteResponse { doubtful_count: 2, ..answer };
        assert_eq!(recovery(&few), "epoch 2, from a copy up to entry 40\nmay run twice: a\nmay run twice: b");
    }
}
