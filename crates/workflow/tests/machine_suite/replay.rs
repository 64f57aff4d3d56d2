//! A crash at every prefix of the journal, every result told twice, a snapshot at every step: nothing changes.

use std::sync::Arc;

use fleet_workflow::machine::command::{Command, EffectPath};
use fleet_workflow::machine::event::Event;
use fleet_workflow::machine::{Machine, SnapshotError};
use proptest::prelude::{ProptestConfig, any, proptest};
use serde_json::Value;

use crate::driver::{Driver, Run, START_MS, context, run, web};
use crate::fixtures::{Fixture, all};

/// A run with what each event led to and what was pending after it.
struct Recorded {
    whole: Run,
    commands: Vec<Vec<Command>>,
    outstanding: Vec<Vec<Command>>,
}

fn bytes(commands: &[Command]) -> String {
    serde_json::to_string(commands).expect("commands are JSON")
}

fn fresh(fixture: &Fixture) -> Machine {
    Machine::start(Arc::clone(&fixture.workflow), context(), &fixture.input)
}

/// Runs a fixture and takes it apart by event.
fn record(fixture: &Fixture) -> Recorded {
    let whole = run(&fixture.workflow, &fixture.input, web);
    let mut machine = fresh(fixture);
    let mut driver = Driver::new(START_MS);
    let mut recorded = Recorded { whole, commands: Vec::new(), outstanding: Vec::new() };
    for event in &recorded.whole.journal {
        if let Event::EffectEnded { path, .. } | Event::TimerFired { path, .. } = event {
            driver.pending.remove(path);
        }
        let commands = machine.apply(event);
        driver.take(&commands);
        // What a driver still has must be what the machine says is outstanding.
        let mut pending: Vec<Command> = driver.pending.values().map(|(_, command)| command.clone()).collect();
        let mut outstanding = machine.outstanding();
        recorded.outstanding.push(outstanding.clone());
        if !machine.is_ended() {
            pending.sort_by_key(|command| bytes(std::slice::from_ref(command)));
            outstanding.sort_by_key(|command| bytes(std::slice::from_ref(command)));
            assert_eq!(bytes(&pending), bytes(&outstanding), "{}", fixture.name);
        } else {
            assert!(pending.is_empty(), "{}: left behind: {pending:?}", fixture.name);
        }
        recorded.commands.push(commands);
    }
    recorded
}

#[test]
fn a_crash_at_every_prefix_of_the_journal_changes_nothing() {
    for fixture in all() {
        let recorded = record(&fixture);
        let journal = &recorded.whole.journal;
        for crash in 0..=journal.len() {
            let (before, after) = journal.split_at(crash);
            let (mut machine, outstanding) =
                Machine::replay(Arc::clone(&fixture.workflow), context(), &fixture.input, before);
            let expected = crash.checked_sub(1).map_or(&[][..], |last| &recorded.outstanding[last]);
            assert_eq!(bytes(&outstanding), bytes(expected), "{} after {crash} events", fixture.name);
            for (event, commands) in after.iter().zip(&recorded.commands[crash..]) {
                assert_eq!(bytes(&machine.apply(event)), bytes(commands), "{} after {crash} events", fixture.name);
            }
            assert_eq!(bytes(&machine.outstanding()), bytes(&recorded.whole.machine.outstanding()));
            assert_eq!(machine.snapshot().unwrap(), recorded.whole.machine.snapshot().unwrap(), "{}", fixture.name);
        }
    }
}

#[test]
fn a_new_driver_finishes_what_a_crashed_one_began() {
    for fixture in all() {
        let recorded = record(&fixture);
        let journal = &recorded.whole.journal;
        for crash in 1..journal.len() {
            let (mut machine, outstanding) =
                Machine::replay(Arc::clone(&fixture.workflow), context(), &fixture.input, &journal[..crash]);
            let mut driver = Driver::new(journal[crash - 1].at_ms());
            driver.take(&outstanding);
            while !machine.is_ended() {
                let event = driver.next(web).unwrap();
                driver.take(&machine.apply(&event));
            }
            if fixture.name != "waits" {
                assert_eq!(
                    bytes(&machine.outstanding()),
                    bytes(&recorded.whole.machine.outstanding()),
                    "{}",
                    fixture.name
                );
            }
        }
    }
}

#[test]
fn every_event_told_again_changes_nothing() {
    for fixture in all() {
        let recorded = record(&fixture);
        let mut machine = fresh(&fixture);
        for (index, event) in recorded.whole.journal.iter().enumerate() {
            assert_eq!(bytes(&machine.apply(event)), bytes(&recorded.commands[index]), "{}", fixture.name);
            for earlier in &recorded.whole.journal[..=index] {
                assert_eq!(machine.apply(earlier), [], "{}: {earlier:?} told again", fixture.name);
            }
        }
        assert_eq!(bytes(&machine.outstanding()), bytes(&recorded.whole.machine.outstanding()));
    }
}

#[test]
fn a_snapshot_at_every_step_goes_on_the_same() {
    for fixture in all() {
        let recorded = record(&fixture);
        let mut machine = fresh(&fixture);
        for (event, commands) in recorded.whole.journal.iter().zip(&recorded.commands) {
            let snapshot = machine.snapshot().unwrap();
            machine = Machine::restore(Arc::clone(&fixture.workflow), context(), &snapshot).unwrap();
            assert_eq!(machine.snapshot().unwrap(), snapshot, "{}", fixture.name);
            assert_eq!(bytes(&machine.apply(event)), bytes(commands), "{}", fixture.name);
        }
        assert_eq!(machine.tasks(), recorded.whole.machine.tasks(), "{}", fixture.name);
    }
}

#[test]
fn a_snapshot_of_something_else_is_refused() {
    let fixtures = all();
    let snapshot = fresh(&fixtures[0]).snapshot().unwrap();
    let restore =
        |index: usize, bytes: &[u8]| Machine::restore(Arc::clone(&fixtures[index].workflow), context(), bytes);
    assert!(restore(0, &snapshot).is_ok());
    assert!(matches!(restore(1, &snapshot), Err(SnapshotError::OtherWorkflow)));
    assert!(matches!(restore(0, &[]), Err(SnapshotError::Empty)));
    assert!(matches!(restore(0, &[9, 1]), Err(SnapshotError::Version(9))));
    assert!(matches!(restore(0, &snapshot[..snapshot.len() / 2]), Err(SnapshotError::Damaged(_))));
}

#[test]
fn no_path_is_used_twice_and_all_are_plain() {
    for fixture in all() {
        let recorded = record(&fixture);
        let mut paths: Vec<&EffectPath> = recorded
            .whole
            .commands
            .iter()
            .filter_map(|command| match command {
                Command::Start { path, .. } | Command::SetTimer { path, .. } => Some(path),
                _ => None,
            })
            .collect();
        let all = paths.len();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), all, "{}", fixture.name);
        assert!(paths.iter().all(|path| path.0.bytes().all(|byte| byte.is_ascii_graphic())), "{paths:?}");
    }
}

/// Lets what is pending happen in an order that `choices` pick.
fn run_in_order(fixture: &Fixture, choices: &[u8]) -> (Vec<Event>, Vec<Vec<Command>>, Machine) {
    let mut machine = fresh(fixture);
    let mut driver = Driver::new(START_MS);
    let (mut journal, mut all) = (Vec::new(), Vec::new());
    let mut next = Some(Event::Started { at_ms: START_MS });
    let mut choices = choices.iter().copied().cycle();
    while let Some(event) = next {
        let commands = machine.apply(&event);
        journal.push(event);
        driver.take(&commands);
        all.push(commands);
        let choice = usize::from(choices.next().unwrap_or(0));
        let path = driver.pending.keys().nth(choice % driver.pending.len().max(1)).cloned();
        next = path.and_then(|path| driver.finish(&path, web));
    }
    (journal, all, machine)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_what_happens_replays_the_same(choices in proptest::collection::vec(any::<u8>(), 1..24)) {
        for fixture in all().iter().filter(|fixture| ["fork", "competing fork", "timeout caught", "nested"].contains(&fixture.name)) {
            let (journal, commands, machine) = run_in_order(fixture, &choices);
            assert!(machine.is_ended(), "{}", fixture.name);
            let (mut replayed, _) = Machine::replay(Arc::clone(&fixture.workflow), context(), &fixture.input, &[]);
            for (event, expected) in journal.iter().zip(&commands) {
                // Through its stored form, as a journal would have it.
                let stored: Event = serde_json::from_str(&serde_json::to_string(event).unwrap()).unwrap();
                assert_eq!(bytes(&replayed.apply(&stored)), bytes(expected), "{}", fixture.name);
            }
            assert_eq!(replayed.snapshot().unwrap(), machine.snapshot().unwrap());
        }
    }
}

#[test]
fn what_the_fixtures_give() {
    let results: Vec<(&str, Result<Value, u16>)> = all()
        .iter()
        .map(|fixture| {
            let done = run(&fixture.workflow, &fixture.input, web);
            (fixture.name, done.result().map_err(|error| error.status))
        })
        .collect();
    let expected = [
        ("one call", Ok(serde_json::json!({"uri": "http://h/7", "body": null}))),
        ("sets only", Ok(serde_json::json!({"m": 16}))),
        (
            "five calls with export",
            Ok(serde_json::json!({"d": "echo http://h/a", "e": "http://h/e", "a": "http://h/a"})),
        ),
        ("loop with calls", Ok(serde_json::json!({"seen": [3, 2, 1]}))),
        ("jumping back", Ok(serde_json::json!({"n": 4}))),
        (
            "fork",
            Ok(
                serde_json::json!([{"uri": "http://h/a3", "body": null}, {"uri": "http://h/b", "body": null}, {"c": 1}]),
            ),
        ),
        ("competing fork", Ok(serde_json::json!({"won": "http://h/d"}))),
        ("retry until it works", Ok(serde_json::json!({"uri": "http://h/third", "body": null}))),
        ("retry in vain, then handled", Ok(serde_json::json!({"alarm": 503, "e": 503}))),
        ("uncaught", Err(500)),
        ("timeout caught", Ok(serde_json::json!({"late": "the task took longer than its timeout"}))),
        ("waits", Ok(serde_json::json!({"t": 176_400}))),
        ("processes", Ok(serde_json::json!("script"))),
        ("nested", Ok(serde_json::json!({"caught": 500, "at": 1}))),
    ];
    assert_eq!(results, expected);
}
