//! Nodes of the site: admitted, drained, removed for good.

use fleet_core::{NodeId, Timestamp};
use fleet_store::record::{NodeRecord, NodeStanding};
use fleet_store::state::members;
use fleet_store::state::tables::NODES;

use super::Event;
use super::scope::{Halt, Scope};
use super::site::check_site;
use super::trust;
use crate::command::{NodeAdmission, Outcome, Refusal};

/// An admission that was checked and may be carried out.
pub(super) struct Admission {
    record: NodeRecord,
    is_new: bool,
    replaced: Option<NodeRecord>,
}

/// Admits a node, or notes what an admitted one says of itself now.
pub(super) fn put(scope: &mut Scope<'_, '_>, admission: &NodeAdmission) -> Result<Outcome, Halt> {
    let checked = check(scope, admission)?;
    admit(scope, checked)
}

/// Checks an admission against the nodes there are; changes nothing.
pub(super) fn check(scope: &Scope<'_, '_>, admission: &NodeAdmission) -> Result<Admission, Halt> {
    check_site(scope, &admission.profile.site)?;
    let known = members::node(scope.transaction, admission.node)?;
    if known.as_ref().is_some_and(|known| known.standing == NodeStanding::Removed) {
        return Err(Refusal::NodeRemoved(admission.node).into());
    }
    let namesake = members::node_named(scope.transaction, &admission.profile.name)?
        .filter(|namesake| namesake.id != admission.node);
    if let Some(namesake) = &namesake
        && admission.replaces != Some(namesake.id)
    {
        let name = admission.profile.name.clone();
        return Err(Refusal::NameTaken { name, node: namesake.id }.into());
    }
    let record = NodeRecord {
        id: admission.node,
        profile: admission.profile.clone(),
        certificate: admission.certificate.clone().or_else(|| known.as_ref()?.certificate.clone()),
        standing: known.as_ref().map_or(NodeStanding::Active, |known| known.standing),
        joined_at: known.as_ref().map_or(scope.now, |known| known.joined_at),
    };
    Ok(Admission { is_new: known.as_ref() != Some(&record), record, replaced: namesake })
}

/// Carries out a checked admission.
pub(super) fn admit(scope: &mut Scope<'_, '_>, admission: Admission) -> Result<Outcome, Halt> {
    if let Some(replaced) = admission.replaced {
        expel(scope, replaced)?;
    }
    if !admission.is_new {
        return Ok(Outcome::Unchanged);
    }
    if let Some(certificate) = &admission.record.certificate {
        trust::note_issued(scope, admission.record.id, &certificate.serial)?;
    }
    scope.transaction.put(&NODES, &admission.record.id, &admission.record)?;
    scope.emit(Event::NodeChanged { node: admission.record.id });
    Ok(Outcome::Done)
}

/// Stops placing jobs on `node`.
pub(super) fn drain(scope: &mut Scope<'_, '_>, node: NodeId, deadline: Option<Timestamp>) -> Result<Outcome, Halt> {
    set_standing(scope, node, NodeStanding::Draining { deadline })
}

/// Places jobs on `node` again.
pub(super) fn undrain(scope: &mut Scope<'_, '_>, node: NodeId) -> Result<Outcome, Halt> {
    set_standing(scope, node, NodeStanding::Active)
}

fn set_standing(scope: &mut Scope<'_, '_>, node: NodeId, standing: NodeStanding) -> Result<Outcome, Halt> {
    let mut record = members::node(scope.transaction, node)?.ok_or(Refusal::NodeUnknown(node))?;
    if record.standing == NodeStanding::Removed {
        return Err(Refusal::NodeRemoved(node).into());
    }
    if record.standing == standing {
        return Ok(Outcome::Unchanged);
    }
    record.standing = standing;
    scope.transaction.put(&NODES, &node, &record)?;
    scope.emit(Event::NodeChanged { node });
    Ok(Outcome::Done)
}

/// Takes `node` out for good and revokes every certificate it was issued. Its jobs are released by their leases' end.
pub(super) fn remove(scope: &mut Scope<'_, '_>, node: NodeId) -> Result<Outcome, Halt> {
    let record = members::node(scope.transaction, node)?.ok_or(Refusal::NodeUnknown(node))?;
    if record.standing == NodeStanding::Removed {
        return Ok(Outcome::Unchanged);
    }
    expel(scope, record)?;
    Ok(Outcome::Done)
}

fn expel(scope: &mut Scope<'_, '_>, mut record: NodeRecord) -> Result<(), Halt> {
    record.standing = NodeStanding::Removed;
    trust::revoke_issued(scope, record.id)?;
    scope.transaction.put(&NODES, &record.id, &record)?;
    scope.emit(Event::NodeChanged { node: record.id });
    Ok(())
}
