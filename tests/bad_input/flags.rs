//! What stands beside a good workflow file on the command line.

use fleet_core::ErrorKind::{self, InvalidInput, NotFound};
use fleet_core::limits::INPUT_BYTES_MAX;

use crate::harness::workflows;
use crate::stage::Stage;

const ROWS: &[(&str, &[&str], ErrorKind, &str)] = &[
    ("an input that is no JSON", &["--input", "{a:1}"], InvalidInput, "the input is not JSON"),
    ("an input file that is not there", &["--input", "@nowhere.json"], NotFound, "nowhere.json"),
    ("a priority too high", &["--priority", "21"], InvalidInput, "--priority"),
    ("a priority that is none", &["--priority", "urgent"], InvalidInput, "--priority"),
    ("an empty tag", &["--tag", ""], InvalidInput, "tag"),
    ("a site that is not here", &["--site", "mars"], NotFound, "mars"),
    ("a time that is none", &["--wait", "--timeout", "soon"], InvalidInput, "--timeout"),
    ("a time for nothing", &["--timeout", "3s"], InvalidInput, "--wait"),
    ("an unknown flag", &["--fast"], InvalidInput, "--fast"),
    ("a second file", &["another.yaml"], InvalidInput, "another.yaml"),
];

pub(crate) async fn judge(stage: &mut Stage) {
    let file = stage.file("good.json", &workflows::set_only());
    for (name, flags, kind, word) in ROWS {
        let arguments = [&["submit", file.as_str()], *flags].concat();
        let answer = stage.fleetctl(&arguments).await;
        stage.row(&format!("flags: {name}"), answer, *kind, word).await;
    }
    let tag = "t".repeat(64);
    let answer = stage.fleetctl(&["submit", &file, "--tag", &tag]).await;
    stage.row("flags: a tag too long", answer, InvalidInput, "1 to 63 bytes").await;
    let key = "k".repeat(257);
    let answer = stage.fleetctl(&["submit", &file, "--idempotency-key", &key]).await;
    stage.row("flags: a key too long", answer, InvalidInput, "idempotency key").await;
    let large = stage.file("large.json", format!("\"{}\"", "x".repeat(INPUT_BYTES_MAX)).as_bytes());
    let answer = stage.fleetctl(&["submit", &file, "--input", &format!("@{large}")]).await;
    stage.row("flags: an input too large", answer, InvalidInput, "larger than").await;
    let deep = stage.file("deep.json", format!("{}{}", "[".repeat(20_000), "]".repeat(20_000)).as_bytes());
    let answer = stage.fleetctl(&["submit", &file, "--input", &format!("@{deep}")]).await;
    stage.row("flags: an input too deep", answer, InvalidInput, "the input is not JSON").await;
}
