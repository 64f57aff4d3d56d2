//! What people do with the catalog: deploy, delete, import and revoke, at any node, cut off or not.

use fleet_core::{Error, ErrorKind};
use fleet_store::record::{CatalogKey, WorkflowName};

use super::copy::{Copy, signature};
use super::{CatalogWorld, Event};
use crate::judge::{Law, Violation, broken};

/// How many names of workflows there are; few, so that they meet.
const NAMES: usize = 6;
/// How many certificates a site may revoke.
const SERIALS: usize = 40;
/// Most files of an import.
const IMPORT_MAX: usize = 5;

/// What somebody does.
#[derive(Clone, Debug)]
enum Wish {
    Deploy(Vec<(WorkflowName, Vec<u8>)>),
    Delete(WorkflowName),
    Revoke(CatalogKey),
}

async fn carry_out(copy: &Copy, wish: Wish) -> Result<(), Error> {
    match wish {
        Wish::Deploy(files) => copy.catalog.deploy(files).await.map(drop),
        Wish::Delete(name) => copy.catalog.delete(name).await,
        Wish::Revoke(key) => {
            let signed_by = signature(&key);
            copy.catalog.revoke(vec![(key, signed_by)]).await
        }
    }
}

impl CatalogWorld {
    fn name(&mut self) -> WorkflowName {
        let (name, version) = (self.dice.below(NAMES), self.dice.below(3));
        WorkflowName { namespace: "shop".to_owned(), name: format!("w{name}"), version: format!("1.{version}.0") }
    }

    /// A file; not always the same one for a version.
    fn file(&mut self) -> (WorkflowName, Vec<u8>) {
        let (name, other) = (self.name(), self.dice.chance(20));
        let text = format!("{name} {other} {}", "x".repeat(self.dice.below(300)).len() / 300);
        (name, text.into_bytes())
    }

    fn draw_wish(&mut self, machine: usize) -> Wish {
        match self.dice.below(100) {
            0..45 => Wish::Deploy(vec![self.file()]),
            45..55 => {
                let count = 2 + self.dice.below(IMPORT_MAX);
                Wish::Deploy((0..count).map(|_| self.file()).collect())
            }
            55..90 => Wish::Delete(self.name()),
            _ => {
                let site = self.sites[self.machines[machine].site].name.clone();
                Wish::Revoke(CatalogKey::RevokedSerial(site, format!("{:02x}", self.dice.below(SERIALS))))
            }
        }
    }

    /// Somebody wishes something of one node.
    pub(super) fn wish(&mut self) -> Result<(), Violation> {
        if self.is_healed {
            return Ok(());
        }
        self.agenda.book(self.dice.below(4_000_000) as u64, Event::Wish);
        let machine = self.dice.below(self.machines.len());
        if self.machines[machine].is_removed {
            return Ok(());
        }
        if self.dice.chance(5) {
            self.machines[machine].earlier = Some(self.machines[machine].drive.snapshot());
        }
        let wish = self.draw_wish(machine);
        let told = format!("{wish:?}");
        let Some(result) = self.with(machine, true, async |copy| carry_out(copy, wish).await)? else { return Ok(()) };
        let outcome = result.as_ref().map_err(|error| error.kind);
        self.say(&format!("wish at {machine}: {} {outcome:?}", &told[..told.len().min(90)]));
        match result {
            Ok(()) => self.tell(machine),
            // What is refused is refused; what is not written is not told.
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
            Err(_) if self.machines[machine].drive.is_off() => Ok(()),
            Err(error) => broken(Law::NothingBreaks, format!("a wish fails: {}", fleet_core::error::chain(&error))),
        }
    }
}
