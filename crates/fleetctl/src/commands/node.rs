//! `node`: the machines of the fleet.

use std::time::Duration;

use clap::Subcommand;
use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{Error, ErrorKind, NodeId};
use serde_json::json;

use crate::error::Failure;
use crate::input::parse_duration;
use crate::session::Session;
use crate::{render, view};

/// Verbs of `node`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// All nodes of a site, as the node asked sees them
    List {
        /// The site [default: that of the node asked]
        #[arg(long)]
        site: Option<String>,
    },
    /// One node
    Get {
        /// Name, id, or a unique beginning of the id
        node: String,
        /// Its site [default: that of the node asked]
        #[arg(long)]
        site: Option<String>,
    },
    /// Place no more jobs on a node
    Drain {
        /// Name or id
        node: String,
        /// Its site [default: that of the node asked]
        #[arg(long)]
        site: Option<String>,
        /// Move what still runs after this long [default: let it end]
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        deadline: Option<Duration>,
    },
    /// Place jobs on a drained node again
    Resume {
        /// Name or id
        node: String,
        /// Its site [default: that of the node asked]
        #[arg(long)]
        site: Option<String>,
    },
    /// Take a node out of the fleet for good and revoke its certificate
    Remove {
        /// Name or id
        node: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { site } => {
            let client = session.client_at(site.as_deref())?;
            let nodes = session.ask(client.list_nodes(v1::ListNodesRequest {})).await?.nodes;
            let value = json!({"nodes": nodes.iter().map(view::node).collect::<Vec<_>>()});
            Ok(render::data(session.format, &value, || table(&nodes))?)
        }
        Command::Get { node, site } => {
            let client = session.client_at(site.as_deref())?;
            let found = find(session.ask(client.list_nodes(v1::ListNodesRequest {})).await?.nodes, &node)?;
            Ok(render::data(session.format, &view::node(&found), || details(&found))?)
        }
        Command::Drain { node, site, deadline } => {
            let client = session.client_at(site.as_deref())?;
            let deadline_ms = deadline.map(|deadline| u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
            drain(session, &client, v1::DrainNodeRequest { node, drain: true, deadline_ms }).await
        }
        Command::Resume { node, site } => {
            let client = session.client_at(site.as_deref())?;
            drain(session, &client, v1::DrainNodeRequest { node, drain: false, deadline_ms: None }).await
        }
        Command::Remove { node, yes } => {
            super::confirm(yes, &format!("Remove node {node} for good and revoke its certificate?"))?;
            session.ask(session.client().remove_node(v1::RemoveNodeRequest { node: node.clone() })).await?;
            render::data(session.format, &json!({"node": node}), String::new)?;
            render::say(&format!("Node {node} is out of the fleet."));
            Ok(())
        }
    }
}

async fn drain(session: &Session, client: &FleetClient, request: v1::DrainNodeRequest) -> Result<(), Failure> {
    let node = session.ask(client.drain_node(request)).await?;
    Ok(render::data(session.format, &view::node(&node), || details(&node))?)
}

/// The node called `wanted`, or whose id begins so.
fn find(nodes: Vec<v1::Node>, wanted: &str) -> Result<v1::Node, Error> {
    if let Some(node) = nodes.iter().find(|node| node.name == wanted) {
        return Ok(node.clone());
    }
    let mut found = nodes.into_iter().filter(|node| !wanted.is_empty() && id(node).starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(node), None) => Ok(node),
        (Some(_), Some(_)) => Err(crate::error::invalid(format!("`{wanted}` begins the id of more than one node"))),
        (None, _) => {
            let error = Error::new(ErrorKind::NotFound, format!("no node `{wanted}`"));
            Err(error.with_next_step("`fleetctl node list` shows all nodes of a site; `--site` names another one."))
        }
    }
}

fn id(node: &v1::Node) -> String {
    NodeId::from_slice(&node.node_id).map(|id| id.to_string()).unwrap_or_default()
}

/// Nodes for people; `top` shows them too.
pub(crate) fn table(nodes: &[v1::Node]) -> String {
    let rows = nodes.iter().map(|node| {
        let role = match (node.leader, node.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "",
        };
        vec![
            node.name.clone(),
            node.site.clone(),
            node.state.clone(),
            role.to_owned(),
            format!("{}/{}", node.slots_busy, node.slots),
            node.tags.join(","),
            node.version.clone(),
        ]
    });
    render::table(&["NAME", "SITE", "STATE", "ROLE", "SLOTS", "TAGS", "VERSION"], rows)
}

fn details(node: &v1::Node) -> String {
    render::list(&[
        ("node", node.name.clone()),
        ("id", id(node)),
        ("site", node.site.clone()),
        ("state", node.state.clone()),
        ("leader", node.leader.to_string()),
        ("voter", node.voter.to_string()),
        ("slots", format!("{} of {} busy", node.slots_busy, node.slots)),
        ("tags", node.tags.join(", ")),
        ("version", node.version.clone()),
        ("address", node.address.clone()),
        ("http", node.http_address.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, first_byte: u8) -> v1::Node {
        let mut bytes = vec![0; 16];
        bytes[0] = first_byte;
        v1::Node { name: name.to_owned(), node_id: bytes, ..v1::Node::default() }
    }

    #[test]
    fn nodes_are_found_by_name_or_unique_beginning() {
        let nodes = || vec![node("a", 0x11), node("b", 0x12), node("11", 0x33)];
        assert_eq!(find(nodes(), "b").unwrap().name, "b");
        assert_eq!(find(nodes(), "12").unwrap().name, "b");
        assert_eq!(find(nodes(), "11").unwrap().name, "11", "a name goes before an id");
        assert_eq!(find(nodes(), "1").unwrap_err().kind, ErrorKind::InvalidInput);
        assert_eq!(find(nodes(), "zz").unwrap_err().kind, ErrorKind::NotFound);
    }
}
