//! `fleetctl` as a child process, and one plain HTTP request.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::harness::node::binary;

/// How long an answer over HTTP may take.
const HTTP_BOUND: Duration = Duration::from_secs(20);

/// What one run of the program left.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Standard output as JSON, of a run that must have ended with `code`.
    pub(crate) fn json(&self, code: i32) -> Value {
        assert_eq!(self.code, Some(code), "{self:#?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

/// An operator at one node, with an empty home and no variables but the path.
#[derive(Clone)]
pub(crate) struct Operator {
    endpoint: String,
}

impl Operator {
    pub(crate) fn at(endpoint: String) -> Self {
        Self { endpoint }
    }

    /// The command line `fleetctl --endpoint … arguments`, ready to run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("fleetctl"));
        command.args(["--endpoint", &self.endpoint]).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
        command
    }

    /// Runs `fleetctl arguments`, with `stdin` as its standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Said {
        let (mut command, stdin) = (self.command(arguments), stdin.to_vec());
        let run = move || {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().expect("fleetctl can be started");
            // Who does not read it ends before it is written.
            let _unread = child.stdin.take().expect("it is piped").write_all(&stdin);
            child.wait_with_output().expect("it ends")
        };
        let output = tokio::task::spawn_blocking(run).await.expect("it does not panic");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("fleetctl writes UTF-8");
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs `fleetctl arguments`.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, b"").await
    }

    /// Runs `fleetctl arguments -o json`, which must end with 0; what it printed.
    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["-o", "json"]].concat()).await.json(0)
    }

    /// Submits `workflow`; the job's id.
    pub(crate) async fn submit(&self, workflow: &[u8]) -> String {
        let said = self.run_with(&["submit", "-", "-o", "json"], workflow).await.json(0);
        assert_eq!(keys(&said), "jobId");
        text(&said["jobId"])
    }
}

/// The keys of an object in their order.
pub(crate) fn keys(value: &Value) -> String {
    let object = value.as_object().unwrap_or_else(|| panic!("not an object: {value}"));
    object.keys().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// A JSON string.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}

/// Asks `path` of the HTTP listener at `port`; status and body, or why there is no answer.
pub(crate) async fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let ask = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(HTTP_BOUND))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer =
        tokio::task::spawn_blocking(ask).await.expect("it does not panic").map_err(|error| error.to_string())?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| format!("not HTTP: {answer:?}"))
}

/// The same as JSON.
pub(crate) async fn get_json(port: u16, path: &str) -> Result<(u16, Value), String> {
    let (status, body) = get(port, path).await?;
    let value = serde_json::from_str(&body).map_err(|error| format!("{error} in {body:?}"))?;
    Ok((status, value))
}
