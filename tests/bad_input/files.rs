//! Workflow files, as `fleetctl submit FILE` sends them.

use fleet_core::ErrorKind::{self, InvalidInput, NotFound, Unsupported};
use fleet_core::limits::WORKFLOW_FILE_BYTES_MAX;

use crate::stage::Stage;

const HEAD: &str = "document: {dsl: '1.0.3', namespace: n, name: w, version: '1.0.0'}\ndo:\n";

/// Name, content after [`HEAD`], kind, and what names the place.
const TASKS: &[(&str, &str, ErrorKind, &str)] = &[
    ("no tasks", "", InvalidInput, "/do"),
    ("a task of no kind", "- a: {sett: {x: 1}}", InvalidInput, "/do/0/a"),
    ("two kinds in one task", "- a: {set: {x: 1}, wait: PT1S}", InvalidInput, "/do/0/a"),
    ("two tasks of one name", "- a: {set: {x: 1}}\n- a: {set: {x: 2}}", InvalidInput, "4:"),
    ("a task list that is a map", "  a: {set: {x: 1}}", InvalidInput, "/do"),
    ("a jump to nowhere", "- a: {set: {x: 1}, then: nowhere}", InvalidInput, "nowhere"),
    ("an expression with a hole", "- a: {set: {x: '${ .a + }'}}", InvalidInput, "/do/0/a/set/x"),
    ("an unknown function", "- a: {set: {x: '${ frobnicate(1) }'}}", InvalidInput, "frobnicate"),
    ("a duration that is none", "- a: {wait: soon}", InvalidInput, "/do/0/a/wait"),
    ("a call without its endpoint", "- a: {call: http, with: {method: get}}", InvalidInput, "endpoint"),
    ("a script in an unknown tongue", "- a: {run: {script: {language: cobol, code: x}}}", InvalidInput, "cobol"),
    ("an error without its status", "- a: {raise: {error: {type: t}}}", InvalidInput, "status"),
    ("a task that cannot run yet", "- a: {listen: {to: {any: []}}}", Unsupported, "listen"),
    ("a container", "- a: {run: {container: {image: x}}}", Unsupported, "container"),
];

/// Name, whole content, kind, and what names the place.
const DOCUMENTS: &[(&str, &[u8], ErrorKind, &str)] = &[
    ("an empty file", b"", InvalidInput, "the file is empty"),
    ("no text", b"\xff\xfe\x00\x01", InvalidInput, "UTF-8"),
    ("JSON cut off", b"{\"document\": {\"dsl\": \"1.0.3\"", InvalidInput, "1:"),
    ("YAML with a tab", b"document:\n\tdsl: 1.0.3\n", InvalidInput, "2:"),
    ("a list", b"[1, 2]", InvalidInput, "1:1"),
    ("no document", b"do: [{a: {set: {x: 1}}}]", InvalidInput, "document"),
    (
        "an unknown version of the language",
        b"document: {dsl: '9.0.0', namespace: n, name: w, version: '1.0.0'}\ndo: [{a: {set: {x: 1}}}]",
        InvalidInput,
        "/document/dsl",
    ),
    (
        "a version that is none",
        b"document: {dsl: '1.0.3', namespace: n, name: w, version: one}\ndo: [{a: {set: {x: 1}}}]",
        InvalidInput,
        "/document/version",
    ),
    (
        "an unknown key of the fleet",
        b"document: {dsl: '1.0.3', namespace: n, name: w, version: '1.0.0', metadata: {fleet: {speed: 9}}}\n\
          do: [{a: {set: {x: 1}}}]",
        InvalidInput,
        "/document/metadata/fleet/speed",
    ),
    (
        "more than a day to finish a job cut off",
        b"document: {dsl: '1.0.3', namespace: n, name: w, version: '1.0.0', \
          metadata: {fleet: {onDisconnect: finish, finishWithinSeconds: 86401}}}\ndo: [{a: {set: {x: 1}}}]",
        InvalidInput,
        "finishWithinSeconds",
    ),
    ("a CasareRPA graph", b"{\"nodes\": {}, \"connections\": []}", InvalidInput, "CasareRPA"),
    ("a Demon ritual", b"{\"id\": \"r\", \"states\": []}", InvalidInput, "Demon"),
];

pub(crate) async fn judge(stage: &mut Stage) {
    for (name, tasks, kind, word) in TASKS {
        let file = stage.file("workflow.yaml", format!("{HEAD}{tasks}\n").as_bytes());
        let answer = stage.fleetctl(&["submit", &file]).await;
        stage.row(&format!("file: {name}"), answer, *kind, word).await;
    }
    for (name, content, kind, word) in DOCUMENTS {
        let file = stage.file("workflow.yaml", content);
        let answer = stage.fleetctl(&["submit", &file]).await;
        stage.row(&format!("file: {name}"), answer, *kind, word).await;
    }
    judge_sizes(stage).await;
}

async fn judge_sizes(stage: &mut Stage) {
    let large = format!("{HEAD}- a: {{set: {{x: '{}'}}}}\n", "x".repeat(WORKFLOW_FILE_BYTES_MAX));
    let bomb: String = (1..12).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        let below = level - 1;
        text + &format!("a{level}: &a{level} [*a{below}, *a{below}, *a{below}, *a{below}]\n")
    });
    let deep = format!("{HEAD}- a: {{set: {{x: {}{}}}}}\n", "[".repeat(5_000), "]".repeat(5_000));
    for (name, content, word) in [
        ("larger than may be", large, "larger than"),
        ("a bomb of aliases", bomb, "aliases expanded"),
        ("nested too deep", deep, "3:"),
    ] {
        let file = stage.file("workflow.yaml", content.as_bytes());
        let answer = stage.fleetctl(&["submit", &file]).await;
        stage.row(&format!("file: {name}"), answer, InvalidInput, word).await;
    }
    let answer = stage.fleetctl(&["submit", "nowhere.yaml"]).await;
    stage.row("file: not there", answer, NotFound, "nowhere.yaml").await;
    let directory = stage.directory();
    let answer = stage.fleetctl(&["submit", directory.to_str().expect("a plain path")]).await;
    stage.row("file: a directory", answer, InvalidInput, "read the workflow").await;
    let answer = stage.fleetctl(&["submit", "-"]).await;
    stage.row("file: nothing on standard input", answer, InvalidInput, "the file is empty").await;
}
