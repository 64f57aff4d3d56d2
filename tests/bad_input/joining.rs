//! Requests to join, as a stranger may send them: with bad tokens, and with a good token and everything else bad. The good
//! token must be as good afterwards.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fleet_api::pb::v1;
use fleet_api::pb::v1::admission_client::AdmissionClient;
use fleet_api::status::error_of;
use fleet_api::tls::ALPN_CLIENT;
use fleet_core::ErrorKind::{Conflict, InvalidInput, PermissionDenied, Unauthenticated, Unsupported};
use fleet_core::{Digest, Error, ErrorKind, NodeId};
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
use tonic::transport::Channel;

use crate::harness::raw;
use crate::stage::Stage;

/// Bytes of a token before its secret: root, group, id.
const SECRET_AT: usize = 32 + 16 + 8;
const CHECK_BYTES: usize = 4;

fn signing_request(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).expect("a key");
    CertificateParams::default().serialize_request(&key).expect("a request").der().to_vec()
}

/// `token` with the byte at `position` changed, and check bytes that fit.
fn changed(token: &str, position: usize) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(&token["fleet1.".len()..]).expect("a token is base64url");
    bytes.truncate(bytes.len() - CHECK_BYTES);
    bytes[position] ^= 0xff;
    let check = Digest::of(&bytes).0;
    bytes.extend_from_slice(&check[..CHECK_BYTES]);
    format!("fleet1.{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn good(token: &str) -> v1::JoinRequest {
    v1::JoinRequest {
        token: token.to_owned(),
        node_id: NodeId::generate().as_bytes().to_vec(),
        name: "stranger".to_owned(),
        site: String::new(),
        csr: signing_request(&rcgen::PKCS_ECDSA_P256_SHA256),
        address: "127.0.0.1:7000".to_owned(),
        http_address: "127.0.0.1:8000".to_owned(),
        tags: Vec::new(),
        slots: 1,
        version: "0.1.0".to_owned(),
        capabilities: Vec::new(),
        sealing_key: vec![9; 32],
        commands: 1_000,
        founding: None,
    }
}

fn founding(csr: Vec<u8>, group_bytes: usize) -> Option<v1::SiteFounding> {
    Some(v1::SiteFounding { csr, group_id: vec![7; group_bytes] })
}

async fn join(channel: &Channel, request: v1::JoinRequest) -> Result<v1::JoinResponse, Error> {
    let answer = AdmissionClient::new(channel.clone()).join(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| error_of(&status))
}

pub(crate) async fn judge(stage: &mut Stage) {
    let channel = raw::channel(&stage.tls(), ALPN_CLIENT, &stage.endpoint()).await.expect("anyone may ask to join");
    judge_tokens(stage, &channel).await;
    judge_fields(stage, &channel).await;
}

async fn judge_tokens(stage: &mut Stage, channel: &Channel) {
    let token = stage.token.token.clone();
    let strangers = stage.strangers.token(1).await;
    let rows: [(&str, String, ErrorKind, &str); 9] = [
        ("none", String::new(), Unauthenticated, "token create"),
        ("only its prefix", "fleet1.".to_owned(), InvalidInput, "cut off"),
        ("of a later version", "fleet9.abc".to_owned(), Unsupported, "fleet9"),
        ("cut off", token[..60].to_owned(), InvalidInput, "cut off"),
        ("too long", format!("{token}AAAA"), InvalidInput, "too long"),
        ("mistyped", format!("{}A", &token[..token.len() - 1]).replace("AA", "BA"), InvalidInput, "cannot be read"),
        ("of another fleet", strangers, PermissionDenied, "another fleet"),
        ("of an unknown id", changed(&token, SECRET_AT - 1), PermissionDenied, "not one of this site"),
        ("with another secret", changed(&token, SECRET_AT), PermissionDenied, "secret"),
    ];
    for (name, token, kind, word) in rows {
        let answer = join(channel, good(&token)).await;
        stage.row(&format!("token: {name}"), answer, kind, word).await;
    }
}

async fn judge_fields(stage: &mut Stage, channel: &Channel) {
    let token = stage.token.token.clone();
    let base = || good(&token);
    let p384 = signing_request(&rcgen::PKCS_ECDSA_P384_SHA384);
    let mut forged = signing_request(&rcgen::PKCS_ECDSA_P256_SHA256);
    *forged.last_mut().expect("it is not empty") ^= 1;
    let csr = || signing_request(&rcgen::PKCS_ECDSA_P256_SHA256);
    let many = |count: usize| (0..count).map(|number| format!("t{number}")).collect::<Vec<_>>();
    let rows: [(&str, v1::JoinRequest, ErrorKind, &str); 27] = [
        ("no node id", v1::JoinRequest { node_id: Vec::new(), ..base() }, InvalidInput, "node id"),
        ("no name", v1::JoinRequest { name: String::new(), ..base() }, InvalidInput, "name"),
        ("a long name", v1::JoinRequest { name: "n".repeat(64), ..base() }, InvalidInput, "name"),
        ("a name with a line break", v1::JoinRequest { name: "a\nb".to_owned(), ..base() }, InvalidInput, "name"),
        ("the name of a live node", v1::JoinRequest { name: "node-1".to_owned(), ..base() }, Conflict, "node-1"),
        (
            "another site",
            v1::JoinRequest { site: "mars".to_owned(), ..base() },
            PermissionDenied,
            "is for site default",
        ),
        ("no site's name", v1::JoinRequest { site: "Mars!".to_owned(), ..base() }, InvalidInput, "not a site name"),
        (
            "another site with no token",
            v1::JoinRequest { site: "mars".to_owned(), token: String::new(), ..base() },
            Unauthenticated,
            "token create",
        ),
        (
            "another site, to be founded by a key of another kind",
            v1::JoinRequest { site: "mars".to_owned(), founding: founding(p384.clone(), 16), ..base() },
            InvalidInput,
            "P-256",
        ),
        (
            "another site, of a group without an id",
            v1::JoinRequest { site: "mars".to_owned(), founding: founding(csr(), 3), ..base() },
            InvalidInput,
            "group's id",
        ),
        (
            "another site, to be founded with the token of this one",
            v1::JoinRequest { site: "mars".to_owned(), founding: founding(csr(), 16), ..base() },
            PermissionDenied,
            "is for site default",
        ),
        ("no address", v1::JoinRequest { address: String::new(), ..base() }, InvalidInput, "host:port"),
        ("port 0", v1::JoinRequest { address: "127.0.0.1:0".to_owned(), ..base() }, InvalidInput, "host:port"),
        (
            "a long address",
            v1::JoinRequest { address: format!("{}:1", "h".repeat(300)), ..base() },
            InvalidInput,
            "address",
        ),
        (
            "a long HTTP address",
            v1::JoinRequest { http_address: "h".repeat(300_000), ..base() },
            InvalidInput,
            "address",
        ),
        ("no HTTP address", v1::JoinRequest { http_address: String::new(), ..base() }, InvalidInput, "HTTP address"),
        ("an empty tag", v1::JoinRequest { tags: vec![String::new()], ..base() }, InvalidInput, "tags"),
        ("no slots", v1::JoinRequest { slots: 0, ..base() }, InvalidInput, "slots"),
        ("too many slots", v1::JoinRequest { slots: 4_097, ..base() }, InvalidInput, "slots"),
        ("too many tags", v1::JoinRequest { tags: many(65), ..base() }, InvalidInput, "tags"),
        (
            "too many capabilities",
            v1::JoinRequest { capabilities: many(50_000), ..base() },
            InvalidInput,
            "capabilities",
        ),
        ("a long version", v1::JoinRequest { version: "1".repeat(300_000), ..base() }, InvalidInput, "version"),
        ("no signing request", v1::JoinRequest { csr: Vec::new(), ..base() }, InvalidInput, "signing request"),
        ("no such signing request", v1::JoinRequest { csr: vec![0x30; 40], ..base() }, InvalidInput, "signing request"),
        ("a forged signing request", v1::JoinRequest { csr: forged, ..base() }, InvalidInput, "signing request"),
        ("a key of another kind", v1::JoinRequest { csr: p384, ..base() }, InvalidInput, "P-256"),
        ("a short sealing key", v1::JoinRequest { sealing_key: vec![1], ..base() }, InvalidInput, "sealing key"),
    ];
    for (name, request, kind, word) in rows {
        let answer = join(channel, request).await;
        stage.row(&format!("join: {name}"), answer, kind, word).await;
    }
}
