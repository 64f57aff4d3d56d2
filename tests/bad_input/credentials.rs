//! Credentials of operators, as `fleetctl` reads and shows them.

use std::os::unix::fs::PermissionsExt;

use fleet_core::ErrorKind::{self, InvalidInput, NotFound, PermissionDenied, Unauthenticated, Unsupported};

use crate::stage::Stage;

/// `content` in a file that only its owner can read.
fn private(stage: &Stage, content: &str) -> String {
    let path = stage.file("credential.json", content.as_bytes());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
    path
}

pub(crate) async fn judge(stage: &mut Stage) {
    let good = std::fs::read_to_string(stage.cluster.credential_file()).expect("the founder wrote it");
    let strangers = std::fs::read_to_string(stage.strangers.credential_file()).expect("the founder wrote it");
    let field = |text: &str, name: &str| {
        let value: serde_json::Value = serde_json::from_str(text).expect("a credential is JSON");
        value[name].to_string()
    };
    let mixed = good.replace(&field(&good, "key"), &field(&strangers, "key"));
    let misled = strangers.replace(&field(&strangers, "ca"), &field(&good, "ca"));
    let rows: [(&str, String, ErrorKind, &str); 8] = [
        ("no JSON", "credential".to_owned(), InvalidInput, "not a usable credential"),
        ("no version", "{}".to_owned(), InvalidInput, "version"),
        ("of a later version", good.replace("\"version\": 1", "\"version\": 99"), Unsupported, "99"),
        ("an unknown field", good.replace("\"version\": 1", "\"version\": 1, \"admin\": true"), InvalidInput, "admin"),
        ("a certificate that is none", good.replace("BEGIN CERTIFICATE", "BEGIN NOTHING"), InvalidInput, "PEM"),
        ("a key of somebody else", mixed, InvalidInput, "do not belong together"),
        ("of another fleet", strangers.clone(), Unauthenticated, "another fleet"),
        ("of another fleet, with our root", misled, Unauthenticated, "refused our certificate"),
    ];
    for (name, content, kind, word) in rows {
        let path = private(stage, &content);
        let answer = stage.fleetctl_as(&path, &["status"]).await;
        stage.row(&format!("credential: {name}"), answer, kind, word).await;
    }
    let path = private(stage, &good);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("the file is ours");
    let answer = stage.fleetctl_as(&path, &["status"]).await;
    stage.row("credential: open to all", answer, PermissionDenied, "chmod 600").await;
    let answer = stage.fleetctl_as("nowhere.json", &["status"]).await;
    stage.row("credential: not there", answer, NotFound, "nowhere.json").await;
}
