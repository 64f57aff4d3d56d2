//! `site`: the units of autonomy, and what to do when one lost its majority for good.

use clap::Subcommand;
use fleet_api::pb::v1;
use fleet_core::{Error, ErrorKind};
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
    /// Found a new group from the copy of the node asked, after the majority was lost for good
    ///
    /// What only the lost voters had is lost, and jobs that ran there may run twice. The new group dispatches nothing
    /// until it has heard of its robots, or until --release-hold.
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
        Command::Recover { site, accept_loss, release_hold } => {
            if !release_hold {
                let question =
                    "Found a new group? What only the lost voters had is lost, and their jobs may run twice.";
                super::confirm_or_refuse(accept_loss, question, "--accept-loss")?;
            }
            let site = match site {
                Some(site) => site,
                None => own_site(session).await?,
            };
            let request = v1::RecoverSiteRequest { site, accept_loss: !release_hold, release_hold };
            let recovered = session.ask(session.client().recover_site(request)).await?;
            let value = json!({"epoch": recovered.epoch, "doubtfulJobs": recovered.doubtful_jobs});
            render::data(session.format, &value, || {
                let mut text = format!("epoch {}", recovered.epoch);
                for job in &recovered.doubtful_jobs {
                    text.push_str("\nmay run twice: ");
                    text.push_str(job);
                }
                text
            })?;
            Ok(())
        }
    }
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
        vec![site.name.clone(), site.epoch.to_string(), site.leader.clone(), site.voters.join(", "), held.to_owned()]
    });
    render::table(&["NAME", "EPOCH", "LEADER", "VOTERS", ""], rows)
}

fn details(site: &v1::Site) -> String {
    render::list(&[
        ("site", site.name.clone()),
        ("epoch", site.epoch.to_string()),
        ("leader", site.leader.clone()),
        ("voters", site.voters.join(", ")),
        ("learners", site.learners.join(", ")),
        ("held", site.held.to_string()),
    ])
}
