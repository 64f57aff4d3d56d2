//! `workflow`: the versions of workflows that the fleet's catalog knows by name.

use std::io::Write;
use std::path::Path;

use clap::Subcommand;
use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{Error, ErrorKind};
use serde_json::{Value, json};

use crate::commands::validate::line;
use crate::error::{Failure, invalid};
use crate::input::{STDIN, read_archive, read_workflow};
use crate::session::Session;
use crate::{render, view};

/// Bytes of files in one deployment; what is more goes in several.
const DEPLOYMENT_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Files in one deployment.
const DEPLOYMENT_FILES_MAX: usize = 500;

/// Verbs of `workflow`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Put workflow files into the catalog; each can then be submitted by name
    Deploy {
        /// Workflow files, JSON or YAML; `-` reads standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<String>,
    },
    /// Versions of workflows, the highest of each first
    List {
        /// Only of this namespace
        #[arg(long)]
        namespace: Option<String>,
    },
    /// The file of a workflow, as it was deployed
    Get {
        /// NAMESPACE/NAME, which means its highest version, or NAMESPACE/NAME:VERSION
        #[arg(value_name = "NAMESPACE/NAME[:VERSION]")]
        workflow: String,
    },
    /// Take a version of a workflow out of the catalog; jobs that run it go on
    Delete {
        /// NAMESPACE/NAME:VERSION
        #[arg(value_name = "NAMESPACE/NAME:VERSION")]
        workflow: String,
    },
    /// Write every workflow into one file, for `import`
    Export {
        /// The file; `-` is standard output
        #[arg(default_value = STDIN, value_name = "FILE")]
        file: String,
    },
    /// Deploy every workflow that `export` wrote
    Import {
        /// The file; `-` reads standard input
        #[arg(value_name = "FILE")]
        file: String,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Deploy { files } => {
            let read = files.iter().map(|file| Ok((file.as_str(), read_workflow(file)?)));
            let read = read.collect::<Result<Vec<_>, Error>>()?;
            check(&read)?;
            let deployed = deploy(session, read.into_iter().map(|(_, bytes)| bytes).collect()).await?;
            say_deployed(session, &deployed)
        }
        Command::List { namespace } => list(session, namespace.unwrap_or_default()).await,
        Command::Get { workflow } => {
            let name = Name::parse(&workflow)?;
            let found = session.ask(find(session.client(), &name)).await?;
            let file = String::from_utf8_lossy(&found.file).into_owned();
            let value = view::workflow(&found, Some(&file));
            Ok(render::data(session.format, &value, || file.clone())?)
        }
        Command::Delete { workflow } => delete(session, &workflow).await,
        Command::Export { file } => export(session, &file).await,
        Command::Import { file } => import(session, &file).await,
    }
}

/// What a person calls a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    namespace: String,
    name: String,
    /// Empty: the highest.
    version: String,
}

impl Name {
    /// Reads `namespace/name[:version]`.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let refused = || invalid(format!("`{text}` is not NAMESPACE/NAME or NAMESPACE/NAME:VERSION"));
        let (namespace, rest) = text.split_once('/').ok_or_else(refused)?;
        let (name, version) = rest.split_once(':').unwrap_or((rest, ""));
        let is_part = |part: &str| !part.is_empty() && !part.contains(['/', ':']);
        if !is_part(namespace) || !is_part(name) || rest.ends_with(':') || version.contains(['/', ':']) {
            return Err(refused());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), version: version.to_owned() })
    }
}

/// The workflow called `name`, with its file.
pub(crate) async fn find(client: &FleetClient, name: &Name) -> Result<v1::Workflow, Error> {
    let Name { namespace, name, version } = name.clone();
    client.get_workflow(v1::GetWorkflowRequest { namespace, name, version }).await
}

/// Refuses all files if one of them is bad, and says of each what is wrong where.
fn check(files: &[(&str, Vec<u8>)]) -> Result<(), Failure> {
    let mut bad = false;
    for (file, bytes) in files {
        if let Err(problems) = fleet_workflow::parse(bytes) {
            bad = true;
            problems.iter().for_each(|problem| render::say(&line(file, problem)));
        }
    }
    if bad { Err(Failure::Said(ErrorKind::InvalidInput)) } else { Ok(()) }
}

/// Deploys `files`, in pieces that fit a message.
async fn deploy(session: &Session, files: Vec<Vec<u8>>) -> Result<Vec<v1::DeployedWorkflow>, Error> {
    let mut deployed = Vec::new();
    let mut piece: Vec<Vec<u8>> = Vec::new();
    let mut files = files.into_iter().peekable();
    while let Some(file) = files.next() {
        piece.push(file);
        let bytes: usize = piece.iter().map(Vec::len).sum();
        let is_full = files.peek().is_none_or(|next| bytes + next.len() > DEPLOYMENT_BYTES_MAX);
        if is_full || piece.len() >= DEPLOYMENT_FILES_MAX {
            let request = v1::DeployRequest { files: std::mem::take(&mut piece) };
            deployed.extend(session.ask(session.client().deploy(request)).await?.workflows);
        }
    }
    Ok(deployed)
}

fn say_deployed(session: &Session, deployed: &[v1::DeployedWorkflow]) -> Result<(), Failure> {
    let value = json!({"workflows": deployed.iter().map(view::deployed).collect::<Vec<_>>()});
    render::data(session.format, &value, || {
        let line = |one: &v1::DeployedWorkflow| {
            let note = if one.is_new { "" } else { " (was there already)" };
            render::plain(&format!("{}{note}", one.workflow))
        };
        deployed.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(())
}

async fn list(session: &Session, namespace: String) -> Result<(), Failure> {
    let workflows = session.ask(all(session.client(), namespace, false)).await?;
    let value = json!({"workflows": workflows.iter().map(|one| view::workflow(one, None)).collect::<Vec<_>>()});
    render::data(session.format, &value, || {
        let rows = workflows.iter().map(|one| {
            let deployed = view::time(one.deployed_ms).unwrap_or_default();
            let name = format!("{}/{}", one.namespace, one.name);
            vec![name, one.version.clone(), one.file_bytes.to_string(), deployed, one.deployed_by.clone()]
        });
        render::table(&["WORKFLOW", "VERSION", "BYTES", "DEPLOYED", "BY"], rows)
    })?;
    Ok(())
}

/// Every workflow of `namespace`, of all if it is empty.
async fn all(client: &FleetClient, namespace: String, with_files: bool) -> Result<Vec<v1::Workflow>, Error> {
    let mut workflows = Vec::new();
    let mut page = String::new();
    loop {
        let request = v1::ListWorkflowsRequest { namespace: namespace.clone(), page, limit: 0, with_files };
        let answer = client.list_workflows(request).await?;
        workflows.extend(answer.workflows);
        if answer.next.is_empty() {
            return Ok(workflows);
        }
        page = answer.next;
    }
}

async fn delete(session: &Session, workflow: &str) -> Result<(), Failure> {
    let Name { namespace, name, version } = Name::parse(workflow)?;
    if version.is_empty() {
        let error = invalid(format!("`{workflow}` names no version, and only a version can be deleted"));
        return Err(error.with_next_step("`fleetctl workflow list` shows the versions.").into());
    }
    let request = v1::DeleteWorkflowRequest { namespace, name, version };
    session.ask(session.client().delete_workflow(request)).await?;
    render::data(session.format, &json!({"workflow": workflow}), String::new)?;
    render::say(&format!("{workflow} is deleted. Jobs that run it go on."));
    Ok(())
}

async fn export(session: &Session, file: &str) -> Result<(), Failure> {
    let workflows = session.ask(all(session.client(), String::new(), true)).await?;
    let rows: Vec<Value> =
        workflows.iter().map(|one| view::workflow(one, Some(&String::from_utf8_lossy(&one.file)))).collect();
    let count = rows.len();
    let text = format!("{:#}\n", json!({"workflows": rows}));
    if file == STDIN {
        render::line(&text)?;
    } else {
        write(Path::new(file), &text)?;
    }
    render::say(&format!("{count} workflows are exported."));
    Ok(())
}

/// Writes `text` as `file`, whole or not at all.
fn write(file: &Path, text: &str) -> Result<(), Error> {
    let failed = |source: std::io::Error| {
        Error::new(ErrorKind::FailedPrecondition, format!("write {}", file.display())).with_source(source)
    };
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = file.with_file_name(name);
    let written = std::fs::File::create(&part)
        .and_then(|mut open| open.write_all(text.as_bytes()).and_then(|()| open.sync_all()))
        .and_then(|()| std::fs::rename(&part, file));
    written.map_err(failed)
}

async fn import(session: &Session, file: &str) -> Result<(), Failure> {
    let bytes = read_archive(file)?;
    let refused = |why: &str| invalid(format!("{file} is not what `workflow export` writes: {why}"));
    let archive: Value =
        serde_json::from_slice(&bytes).map_err(|source| refused("it is not JSON").with_source(source))?;
    let rows = archive["workflows"].as_array().ok_or_else(|| refused("it has no list `workflows`"))?;
    let mut files = Vec::with_capacity(rows.len());
    for (position, row) in (1..).zip(rows) {
        let text = row["file"].as_str().ok_or_else(|| refused(&format!("entry {position} has no text `file`")))?;
        let name = row["workflow"].as_str().unwrap_or("an entry without a name");
        files.push((format!("{file}: {name}"), text.as_bytes().to_vec()));
    }
    let named: Vec<(&str, Vec<u8>)> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    check(&named)?;
    let deployed = deploy(session, files.into_iter().map(|(_, bytes)| bytes).collect()).await?;
    say_deployed(session, &deployed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_version_or_none() {
        let name = |namespace: &str, name: &str, version: &str| Name {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
        };
        assert_eq!(Name::parse("a/b").unwrap(), name("a", "b", ""));
        assert_eq!(Name::parse("a/b:1.0.0-rc.1+x").unwrap(), name("a", "b", "1.0.0-rc.1+x"));
        for text in ["", "a", "a/", "/b", "a/b:", "a/b/c", "a/b:1:2", "a:b/c", "a/:1"] {
            assert_eq!(Name::parse(text).unwrap_err().kind, ErrorKind::InvalidInput, "{text}");
        }
    }
}
