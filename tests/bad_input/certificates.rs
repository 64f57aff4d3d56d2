//! Certificates that clients and nodes show at the TLS port.

use std::time::Duration;

use fleet_api::connect::{Connector, Established};
use fleet_api::pb::v1;
use fleet_api::tls::{ALPN_ACTORS, ALPN_CLIENT, ALPN_PEER, CertificateCell, ClientTls};
use fleet_api::{ClientOptions, FleetClient};
use fleet_core::ErrorKind::{PermissionDenied, Unauthenticated, Unsupported};
use fleet_core::{Clock, Error, SystemClock};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::harness::raw;
use crate::stage::Stage;

const DAY: Duration = Duration::from_secs(86_400);

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    if !name.is_empty() {
        parameters.subject_alt_names = vec![SanType::URI(name.try_into().expect("a name"))];
    }
    parameters
}

fn cell(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> CertificateCell {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    CertificateCell::new(chain, key).expect("they belong together")
}

/// Signed by itself, valid from `from` to `to` in days from now.
fn self_signed(name: &str, from: i64, to: i64) -> CertificateCell {
    let key = KeyPair::generate().expect("a key");
    let mut parameters = parameters(name);
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(SystemClock.now().0);
    let at = |days: i64| {
        let distance = DAY * u32::try_from(days.unsigned_abs()).expect("a few days");
        if days < 0 { now - distance } else { now + distance }
    };
    (parameters.not_before, parameters.not_after) = (at(from), at(to));
    let certificate = parameters.self_signed(&key).expect("a certificate");
    cell(vec![certificate.der().clone()], &key)
}

/// Signed by a root that bears the name of the fleet's own.
fn under_a_false_root(fleet: &str, name: &str) -> CertificateCell {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = parameters(fleet);
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let shown = root.self_signed(&root_key).expect("a root").der().clone();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let leaf = parameters(name).signed_by(&key, &issuer).expect("a certificate");
    cell(vec![leaf.der().clone(), shown], &key)
}

/// What comes of showing `certificate` for the protocol `alpn`.
async fn show(stage: &Stage, alpn: &[u8], certificate: Option<CertificateCell>) -> Result<(), Error> {
    let tls = ClientTls { certificate, ..stage.tls() };
    let connector = Connector::new(tls, alpn, Established::FirstByte)?.with_timeout(raw::ANSWER_BOUND);
    connector.dial(&stage.endpoint()).await.map(drop)
}

pub(crate) async fn judge(stage: &mut Stage) {
    let credential = stage.credential();
    let fleet = format!("fleet://{}", credential.fleet_id);
    let admin = format!("{fleet}/admin/{}", credential.admin_id);
    let own = raw::certificate_of_node(&stage.cluster.nodes[0].data_dir);
    let node = own.facts().expect("a node's certificate").name.to_string();
    let as_operator = ClientTls { certificate: Some(own.clone()), ..stage.tls() };
    let strangers_node = raw::certificate_of_node(&stage.strangers.nodes[0].data_dir);
    let operator = credential.client_tls().expect("it is sound").certificate;
    let rows: [(&str, &[u8], Option<CertificateCell>, &str); 10] = [
        ("signed by itself, without a name", ALPN_CLIENT, Some(self_signed("", -1, 1)), "refused our certificate"),
        ("signed by itself, with an operator's name", ALPN_CLIENT, Some(self_signed(&admin, -1, 1)), "another fleet"),
        ("signed by itself, expired", ALPN_CLIENT, Some(self_signed(&admin, -3, -2)), "refused our certificate"),
        ("signed by itself, of the future", ALPN_CLIENT, Some(self_signed(&admin, 2, 3)), "refused our certificate"),
        ("under a false root", ALPN_CLIENT, Some(under_a_false_root(&fleet, &admin)), "refused our certificate"),
        (
            "a node's name under a false root",
            ALPN_PEER,
            Some(under_a_false_root(&fleet, &node)),
            "refused our certificate",
        ),
        ("another fleet's node", ALPN_PEER, Some(strangers_node.clone()), "another fleet"),
        ("another fleet's node, at the actors", ALPN_ACTORS, Some(strangers_node), "another fleet"),
        ("an operator among nodes", ALPN_PEER, operator, "refused our certificate"),
        ("nothing among nodes", ALPN_PEER, None, "requires a certificate"),
    ];
    for (name, alpn, certificate, word) in rows {
        let answer = show(stage, alpn, certificate).await;
        stage.row(&format!("certificate: {name}"), answer, Unauthenticated, word).await;
    }
    let answer = show(stage, b"smtp", None).await;
    stage.row("certificate: none, and an unknown protocol", answer, Unsupported, "does not speak this protocol").await;
    let channel = raw::channel(&as_operator, ALPN_CLIENT, &stage.endpoint()).await.expect("it is of this fleet");
    for method in ["Submit", "GetStatus", "CreateToken", "RemoveNode", "RemoveSite", "RecoverSite"] {
        let answer = raw::post(&channel, &format!("/fleet.v1.Fleet/{method}"), raw::GRPC, raw::frame(b"")).await;
        let name = format!("certificate: a node's, asking as an operator for {method}");
        stage.row(&name, answer, PermissionDenied, "may not call").await;
    }
    let bare = ClientOptions { endpoints: vec![stage.endpoint()], ..ClientOptions::default() };
    let answer = FleetClient::new(bare).expect("loopback").get_status(v1::GetStatusRequest {}).await;
    stage.row("certificate: none, asking as an operator", answer, Unauthenticated, "admin.json").await;
}
