//! Effects: everything a task does that the outside can see or that cannot be recomputed. All expressions in them are
//! evaluated already; secrets are not in this version.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One effect, ready to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// `call: http`.
    Http(HttpRequest),
    /// `run: shell` or `run: script`.
    Process(ProcessRequest),
}

impl Effect {
    /// Every word that [`Self::capability`] may give.
    pub const CAPABILITIES: [&str; 4] = ["http", "shell", "script:python", "script:js"];

    /// The capability a robot must allow: `http`, `shell`, `script:python`, `script:js`.
    pub fn capability(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Process(request) => match &request.program {
                Program::Shell { .. } => "shell",
                Program::Script { language: ScriptLanguage::Python, .. } => "script:python",
                Program::Script { language: ScriptLanguage::Js, .. } => "script:js",
            },
        }
    }
}

/// An HTTP call (DSL reference, "HTTP Call").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// Method, upper case.
    pub method: String,
    /// Absolute `http` or `https` URI, template expanded, without `query`.
    pub uri: String,
    /// Headers in the author's order.
    pub headers: Vec<(String, String)>,
    /// Query parameters to append, in the author's order.
    pub query: Vec<(String, String)>,
    /// Body: a string is sent as it is, anything else as JSON.
    pub body: Option<Value>,
    /// Shape of the result.
    pub output: HttpOutput,
    /// `false`: any status outside 200–299 is an error. `true`: redirects are followed and 200–399 is success.
    pub redirect: bool,
    /// Resolved authentication.
    pub authentication: Option<Authentication>,
}

/// Shape of the result of an HTTP call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpOutput {
    /// Base64 of the body's bytes.
    Raw,
    /// The body: parsed if its content type is JSON, else text.
    #[default]
    Content,
    /// `{request: {method, uri, headers}, statusCode, headers, content}`.
    Response,
}

/// Authentication with its values resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authentication {
    /// RFC 7617.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// RFC 6750.
    Bearer {
        /// Token.
        token: String,
    },
    /// RFC 7616.
    Digest {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
}

/// A child process (DSL reference, "Run").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessRequest {
    /// What to run.
    pub program: Program,
    /// Arguments after the program's own.
    pub arguments: Vec<String>,
    /// Text for standard input; empty input if absent.
    pub stdin: Option<String>,
    /// Variables of the task, added to PATH, HOME, LANG and the three of Fleet.
    pub environment: Vec<(String, String)>,
    /// Shape of the result.
    pub returns: ProcessReturn,
    /// `false`: start it and go on with the task's input as result.
    pub awaits: bool,
}

/// The program of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// `/bin/sh -c COMMAND sh ARGUMENTS…`.
    Shell {
        /// The command line.
        command: String,
    },
    /// A script by the host's interpreter.
    Script {
        /// Which interpreter.
        language: ScriptLanguage,
        /// Where the code is.
        source: ScriptSource,
    },
}

/// Language of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ScriptLanguage {
    /// CPython, `python3`.
    Python,
    /// Node.js, `node`.
    Js,
}

/// Where the code of a script is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScriptSource {
    /// In the workflow.
    Code(String),
    /// At a `file`, `http` or `https` URI, read when the effect runs.
    Uri {
        /// The URI.
        uri: String,
        /// Authentication for it.
        authentication: Option<Authentication>,
    },
}

/// Shape of the result of a process (`run.return`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProcessReturn {
    /// Standard output as text.
    #[default]
    Stdout,
    /// Standard error as text.
    Stderr,
    /// The exit code.
    Code,
    /// `{code, stdout, stderr}`.
    All,
    /// `null`.
    None,
}
