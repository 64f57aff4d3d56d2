//! Judges what happened: after every event, and whether all is well again after the faults.

use fleet_core::JobId;
use fleet_core::invariant::Invariant;
use fleet_replication::fsm;
use fleet_store::record::JobState;
use fleet_store::state::moves;

use super::{Machine, Site, World};
use crate::judge::{self, JobFacts, Law, Violation, broken};
use crate::message::{Fact, Situation};

impl World {
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        for (site, fact) in std::mem::take(&mut self.facts) {
            self.note_fact(&fact);
            self.sites[site].judge.hear(&fact)?;
            self.check_sites(site, &fact)?;
            self.check_blinks(site)?;
        }
        let now_us = self.agenda.now_us();
        let mut rights = Vec::new();
        for machine in &self.machines {
            if let Some(process) = &machine.process {
                let pairs = process.robot.rights(machine.clocks.boot_now(now_us));
                rights.extend(pairs.into_iter().map(|pair| (machine.site, machine.node, pair)));
            }
        }
        judge::check_rights(&rights, |job| self.was_abandoned(job))
    }

    /// Whether the site was given up where `job` went.
    pub(crate) fn was_abandoned(&self, job: JobId) -> bool {
        self.sites.iter().any(|site| site.judge.jobs.get(&job).is_some_and(|facts| facts.was_abandoned))
    }

    /// A job is assigned at one site only, unless the site was given up where it went, and only where a robot has its tags.
    fn check_sites(&mut self, site: usize, fact: &Fact) -> Result<(), Violation> {
        let Fact::Applied(applied) = fact else { return Ok(()) };
        for event in &applied.events {
            let fsm::Event::JobChanged { job, assignment: Some(_), .. } = event else { continue };
            let first = *self.assigned_at.entry(*job).or_insert(site);
            if first != site && !self.was_abandoned(*job) {
                let detail = format!("job {job} is assigned at both sites");
                return broken(Law::Promise(Invariant::AtMostOneActor), detail);
            }
            if first != site {
                self.sites[site].judge.see(Situation::RanAtBothSites);
            }
            let tagged_for = self.clients.wanted.get(job).and_then(|wanted| wanted.tagged_for);
            if tagged_for.is_some_and(|tagged_for| tagged_for != site) {
                return broken(Law::NothingBreaks, format!("job {job} is assigned where no robot has its tag"));
            }
        }
        Ok(())
    }

    /// Whether every job has ended, its first site knows, and every node knows the whole log.
    pub(super) fn is_well(&self) -> bool {
        self.clients.open_submits() == 0 && self.sites.iter().all(|site| self.is_site_well(site))
    }

    fn is_site_well(&self, site: &Site) -> bool {
        let is_up_to_date = |machine: usize| {
            let process = self.machines[machine].process.as_ref();
            process.is_some_and(|process| process.group.applied >= site.judge.log_length())
        };
        let Some(leader) = site.machines.clone().find(|machine| self.serves(*machine)) else { return false };
        let has_ended = |(job, facts): (&JobId, &JobFacts)| match facts.state {
            Some(state) => state.is_ended(),
            None => !facts.is_elsewhere || self.mirrored(leader, *job).is_some_and(JobState::is_ended),
        };
        site.machines.clone().all(is_up_to_date) && site.judge.jobs.iter().all(has_ended)
    }

    /// How `job` stands at the other site, as far as `machine` knows.
    pub(crate) fn mirrored(&self, machine: usize, job: JobId) -> Option<JobState> {
        let reader = self.machines[machine].process.as_ref()?.group.reader();
        let mirror = moves::mirror(&reader, job).expect("the state can be read");
        mirror.map(|(_, mirror)| mirror.standing.state)
    }

    pub(super) fn not_well(&self) -> Result<(), Violation> {
        let jobs = self.sites.iter().flat_map(|site| &site.judge.jobs);
        let is_open = |facts: &JobFacts| facts.state.is_some_and(|state| !state.is_ended());
        let open: Vec<String> =
            jobs.filter(|(_, facts)| is_open(facts)).map(|(id, facts)| format!("{id} {:?}", facts.state)).collect();
        let nodes: Vec<String> = self.machines.iter().map(Machine::describe).collect();
        let detail = format!(
            "{} s after the faults: {} jobs open {open:?}, {} submits open, logs {:?}, nodes {nodes:?}",
            self.plan.heal_bound_us / 1_000_000,
            open.len(),
            self.clients.open_submits(),
            self.sites.iter().map(|site| site.judge.log_length()).collect::<Vec<_>>(),
        );
        let law = if open.is_empty() { Invariant::HealingIsAutomatic } else { Invariant::EveryJobEndsOrSaysWhyNot };
        broken(Law::Promise(law), detail)
    }

    pub(super) fn check_end(&mut self) -> Result<(), Violation> {
        self.say("all is well");
        crate::ending::check(self)
    }
}
