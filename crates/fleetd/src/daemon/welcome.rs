//! What a new fleet tells its founder (and the founder of a later site is not told): the credential, a join token, the whole join line.

use fleet_api::Credential;
use fleet_api::credential::FORMAT_VERSION;
use fleet_api::pb::v1::CreateTokenRequest;
use fleet_core::{Digest, Error};
use uuid::Uuid;

use super::foundation::Foundation;
use super::parts::{Parts, admin_file};
use crate::config::Settings;
use crate::grpc::create_token;
use crate::identity::DataDir;
use crate::trust::authority::{SigningRequest, to_pem};
use crate::trust::node_key::NodeKey;

/// Machines that the first token admits.
const FIRST_JOINERS_MAX: u32 = 9;

/// Greets the founder of a fleet: once, however often the node starts and whatever became of the credential's file, and
/// with no credential in a development fleet. What fails is told and tried again at the next start.
pub(super) async fn greet(parts: &Parts, settings: &Settings, directory: &DataDir) {
    let identity = &parts.identity;
    tracing::info!(
        node = %identity.name,
        site = %identity.site,
        listen = %settings.listen,
        http = %settings.http,
        "ready for work"
    );
    if !Foundation::is_kept(directory) || parts.site.group().serving_term().is_none() {
        return;
    }
    // Operators' credentials are the root's to sign, and so the first site's to hand out.
    let is_written = identity.dev || !identity.keeps_registry() || admin_file(directory).exists();
    let greeted = if is_written { Ok(()) } else { write_welcome(parts, directory).await };
    if let Err(error) = greeted.and_then(|()| Foundation::forget(directory)) {
        tracing::warn!(error = fleet_core::error::chain(&error), "the founder was not greeted; start again");
    }
}

async fn write_welcome(parts: &Parts, directory: &DataDir) -> Result<(), Error> {
    let identity = &parts.identity;
    let authority = parts.trust.authority(&parts.site.reader()?)?;
    let key = NodeKey::generate()?;
    let admin_id = Uuid::now_v7();
    let request = SigningRequest::parse(&key.signing_request()?)?;
    let issued = authority.issue_admin(&request, admin_id, parts.trust.now())?;
    let root = Digest::of(authority.root());
    let request_of_token = CreateTokenRequest { uses: FIRST_JOINERS_MAX, ..CreateTokenRequest::default() };
    let token = create_token(&parts.site, identity, root, request_of_token).await?.token;
    let credential = Credential {
        version: FORMAT_VERSION,
        fleet_id: identity.fleet_id,
        admin_id,
        ca: to_pem(std::slice::from_ref(authority.root())),
        certificate: to_pem(&issued.chain),
        key: key.key_pem(),
        endpoints: vec![identity.advertise.clone()],
    };
    let path = admin_file(directory);
    credential.write(&path)?;
    tell(&path.display().to_string(), &identity.advertise, &token);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this output is for the person who founds the fleet")]
fn tell(path: &str, advertise: &str, token: &str) {
    println!("A fleet is founded. Its first credential, which may do everything, is in");
    println!("  {path}");
    println!("Copy it to ~/.config/fleet/credential.json on the machine you work from.");
    println!("Other machines join with this line; the token admits {FIRST_JOINERS_MAX} machines within an hour:");
    println!("  fleetd join --seed {advertise} --token {token}");
}
