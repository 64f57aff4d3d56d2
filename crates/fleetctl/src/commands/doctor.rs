//! `doctor`: the fleet's own checks, each with what to do next.

use fleet_api::pb::v1;
use fleet_core::ErrorKind;
use serde_json::json;

use crate::error::Failure;
use crate::session::Session;
use crate::{render, view};

pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    let request = v1::RunDoctorRequest { local_only: false };
    let response = session.ask(session.client().run_doctor(request)).await?;
    let value = json!({"checks": response.checks.iter().map(view::check).collect::<Vec<_>>()});
    render::data(session.format, &value, || {
        let rows = response.checks.iter().map(|check| {
            let next = if check.next_step.is_empty() { String::new() } else { format!("\n{}", check.next_step) };
            vec![check.result.clone(), check.node.clone(), check.name.clone(), format!("{}{next}", check.detail)]
        });
        render::table(&["RESULT", "NODE", "CHECK", "FOUND, AND WHAT TO DO"], rows)
    })?;
    if response.checks.iter().any(|check| check.result == "fail") {
        return Err(Failure::Said(ErrorKind::FailedPrecondition));
    }
    Ok(())
}
