//! Awaited processes: their environment, input, output, results and every way they end.

use std::fs;
use std::time::{Duration, Instant};

use fleet_core::{BootInstant, Clock, JobId, SystemClock};
use fleet_effects::{EffectContext, Error, Interruption, Lease, guard};
use fleet_workflow::machine::effect::{Effect, ProcessRequest, ProcessReturn, Program, ScriptLanguage, ScriptSource};
use serde_json::json;

use crate::fixture::{Case, Fixture, alive, block_on, error, eventually, ok, shell};

pub(crate) const CASES: &[Case] = &[
    ("the_environment_is_exact", || block_on(the_environment_is_exact())),
    ("what_is_not_allowed_is_not_started", || block_on(what_is_not_allowed_is_not_started())),
    ("results_and_failures", || block_on(results_and_failures())),
    ("a_large_input_does_not_block", || block_on(a_large_input_does_not_block())),
    ("scripts_run_by_their_interpreters", || block_on(scripts_run_by_their_interpreters())),
    ("too_much_output_fails_the_task", || block_on(too_much_output_fails_the_task())),
    ("a_child_that_keeps_the_pipe_does_not_hang", || block_on(a_child_that_keeps_the_pipe_does_not_hang())),
    ("a_cancel_reaches_who_left_the_session", || block_on(a_cancel_reaches_who_left_the_session())),
    ("a_fork_bomb_is_ended", || block_on(a_fork_bomb_is_ended())),
    ("a_deadline_ends_it", || block_on(a_deadline_ends_it())),
    ("the_lease_bounds_it_and_renewals_extend_it", || block_on(the_lease_bounds_it_and_renewals_extend_it())),
    ("each_job_has_the_end_of_its_own_lease", || block_on(each_job_has_the_end_of_its_own_lease())),
    ("a_dropped_run_ends_its_process", || block_on(a_dropped_run_ends_its_process())),
    ("a_killed_guard_takes_its_child_along", || block_on(a_killed_guard_takes_its_child_along())),
    ("the_lock_tells_whether_guards_live", || block_on(the_lock_tells_whether_guards_live())),
];

/// A robot that is cut off loses its lease; a job that it may finish then has one of its own, which ends later.
async fn each_job_has_the_end_of_its_own_lease() {
    let start = SystemClock.boot_now();
    let (_robot, short) = Lease::until(start.saturating_add(Duration::from_secs(1)));
    let (job, long) = Lease::until(start.saturating_add(Duration::from_secs(3)));
    let fixture = Fixture::with_lease(short);
    let other = EffectContext { job_id: JobId::generate(), lease: long, ..fixture.context.clone() };
    let sleep = Effect::Process(shell("sleep 600", ProcessReturn::Stdout));
    let stopped = async {
        let report = fixture.effects.run(fixture.context.clone(), &sleep).await;
        assert_eq!(report.interrupted, Some(Interruption::LeaseEnded));
        assert!(!alive(&other.key()).is_empty(), "the other job's process goes on past the robot's lease");
    };
    let finished = async {
        let report = fixture.effects.run(other.clone(), &sleep).await;
        assert_eq!(report.interrupted, Some(Interruption::LeaseEnded));
        assert!(SystemClock.boot_now() >= start.saturating_add(Duration::from_secs(3)), "at the end of its own");
    };
    tokio::join!(stopped, finished);
    drop(job);
    assert!(alive(&other.key()).is_empty());
}

/// Whatever was said of the job when it was placed.
async fn what_is_not_allowed_is_not_started() {
    let script = |language| ProcessRequest {
        program: Program::Script { language, source: ScriptSource::Code("open('begun', 'w')".to_owned()) },
        ..shell("", ProcessReturn::Stdout)
    };
    let cases = [
        (shell("touch begun", ProcessReturn::Stdout), "shell", "robot.allow.shell"),
        (script(ScriptLanguage::Python), "script:python", "robot.allow.script"),
        (script(ScriptLanguage::Js), "script:js", "robot.allow.script"),
    ];
    for (request, capability, key) in cases {
        let others: Vec<&str> = Effect::CAPABILITIES.into_iter().filter(|word| *word != capability).collect();
        let fixture = Fixture::allowing(&others, Lease::unlimited());
        let error = error(fixture.run(request).await);
        assert_eq!((error.status, error.title.as_deref()), (403, Some("capability not allowed")));
        assert!(error.type_uri.ends_with("/authorization"), "{error:?}");
        assert!(error.detail.as_deref().is_some_and(|detail| detail.contains(key)), "{error:?}");
        assert!(!fixture.directory.path().join("begun").exists(), "{capability} ran");
    }
}

async fn the_environment_is_exact() {
    let fixture = Fixture::new();
    let mut request = shell("tr '\\0' '\\n' < /proc/$$/environ | sort", ProcessReturn::Stdout);
    request.environment = vec![("X".to_owned(), "a b".to_owned())];
    let mut expected = [
        format!("FLEET_EFFECT_KEY={}", fixture.context.key()),
        format!("FLEET_JOB_ID={}", fixture.context.job_id),
        "FLEET_NODE=node-a".to_owned(),
        "HOME=/".to_owned(),
        "LANG=C.UTF-8".to_owned(),
        format!("PATH={}", std::env::var("PATH").unwrap()),
        "X=a b".to_owned(),
    ];
    expected.sort();
    assert_eq!(ok(fixture.run(request).await), json!(expected.join("\n") + "\n"));
    let look = shell("cut -d' ' -f19 /proc/self/stat; ls /proc/self/fd | wc -l", ProcessReturn::Stdout);
    let descriptors = 4 + inherited_descriptors();
    let niceness = (own_niceness() + 10).min(19);
    let expected = json!(format!("{niceness}\n{descriptors}\n"));
    assert_eq!(ok(fixture.run(look).await), expected, "a lower priority; no descriptor but its three and one of `ls`");
}

/// The niceness this test itself was started with (`proc(5)`, `stat`, field 19).
fn own_niceness() -> i32 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    after_name.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// Descriptors that whoever runs this test passes on to every process below it.
fn inherited_descriptors() -> usize {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    infos
        .filter(|info| info.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok_and(|number| number > 2)))
        .filter_map(|info| fs::read_to_string(info.path()).ok())
        .filter_map(|text| u32::from_str_radix(text.lines().nth(1)?.strip_prefix("flags:")?.trim(), 8).ok())
        .filter(|flags| flags & CLOSE_ON_EXEC == 0)
        .count()
}

async fn results_and_failures() {
    let fixture = Fixture::new();
    let mut request = shell("printf '%s|' \"$0\" \"$@\"; echo problem >&2; exit 3", ProcessReturn::All);
    request.arguments = vec!["a b".to_owned(), "$HOME".to_owned()];
    let report = fixture.run(request.clone()).await;
    assert_eq!((report.stdout_tail.as_str(), report.stderr_tail.as_str()), ("sh|a b|$HOME|", "problem\n"));
    assert_eq!(ok(report), json!({"code": 3, "stdout": "sh|a b|$HOME|", "stderr": "problem\n"}));
    request.returns = ProcessReturn::Stdout;
    let failure = error(fixture.run(request.clone()).await);
    assert_eq!(failure.detail.as_deref(), Some("exit code 3: problem"));
    request.returns = ProcessReturn::Code;
    assert_eq!(ok(fixture.run(request).await), json!(3));
    assert_eq!(ok(fixture.run(shell("kill -9 $$", ProcessReturn::Code)).await), json!(137));
    let nowhere = ProcessRequest {
        program: Program::Script { language: ScriptLanguage::Python, source: ScriptSource::Code(String::new()) },
        environment: vec![("PATH".to_owned(), "/nowhere".to_owned())],
        ..shell("", ProcessReturn::All)
    };
    assert_eq!(error(fixture.run(nowhere).await).detail.as_deref(), Some("no program `python3` in PATH"));
}

async fn a_large_input_does_not_block() {
    let fixture = Fixture::new();
    let text = "x".repeat(600_000);
    let request = ProcessRequest { stdin: Some(text.clone()), ..shell("cat", ProcessReturn::Stdout) };
    assert_eq!(ok(fixture.run(request).await), json!(text));
    let unread = ProcessRequest { stdin: Some(text), ..shell("exec <&-; echo done", ProcessReturn::Stdout) };
    assert_eq!(ok(fixture.run(unread).await), json!("done\n"));
    assert_eq!(ok(fixture.run(shell("cat", ProcessReturn::Stdout)).await), json!(""), "no input is an empty one");
}

async fn scripts_run_by_their_interpreters() {
    let fixture = Fixture::new();
    let file = fixture.directory.path().join("there.py");
    fs::write(&file, "print('from a file')").unwrap();
    let python = "import os, stat, sys\nmode = stat.S_IMODE(os.stat(sys.argv[0]).st_mode)\nprint(oct(mode), sys.argv[1:], sys.stdin.read())";
    let js = "console.log(process.argv.slice(2).join(), require('fs').readFileSync(0, 'utf8'))";
    let uri = ScriptSource::Uri { uri: format!("file://{}", file.display()), authentication: None };
    let gone = ScriptSource::Uri { uri: "file:///nowhere/x.py".to_owned(), authentication: None };
    let script = |language, source| ProcessRequest {
        program: Program::Script { language, source },
        arguments: vec!["1".to_owned(), "2".to_owned()],
        stdin: Some("in".to_owned()),
        ..shell("", ProcessReturn::Stdout)
    };
    for (language, source, expected) in [
        (ScriptLanguage::Python, ScriptSource::Code(python.to_owned()), "0o600 ['1', '2'] in\n"),
        (ScriptLanguage::Js, ScriptSource::Code(js.to_owned()), "1,2 in\n"),
        (ScriptLanguage::Python, uri, "from a file\n"),
    ] {
        assert_eq!(ok(fixture.run(script(language, source)).await), json!(expected));
    }
    let failure = error(fixture.run(script(ScriptLanguage::Python, gone)).await);
    assert!(failure.detail.unwrap().starts_with("file:///nowhere/x.py: "));
}

async fn too_much_output_fails_the_task() {
    let fixture = Fixture::new();
    let report = fixture.run(shell("yes", ProcessReturn::All)).await;
    assert_eq!(report.stdout_tail.len(), 64 * 1024);
    assert_eq!(error(report).title.as_deref(), Some("output limit exceeded"));
    let at_once = fixture.run(shell("head -c 1048577 /dev/zero >&2", ProcessReturn::None)).await;
    assert_eq!(error(at_once).detail.as_deref(), Some("more than 1048576 bytes on standard error"));
    let fits = fixture.run(shell("head -c 1048576 /dev/zero | tr '\\0' x >&2", ProcessReturn::None)).await;
    assert_eq!(ok(fits), json!(null));
    assert!(fixture.alive().is_empty());
}

async fn a_child_that_keeps_the_pipe_does_not_hang() {
    let fixture = Fixture::new();
    let report = fixture.run(shell("sleep 1000 & setsid sleep 1000 & echo done", ProcessReturn::Stdout)).await;
    assert_eq!(ok(report), json!("done\n"));
    assert!(fixture.alive().is_empty(), "what a task leaves behind ends with it");
}

async fn a_cancel_reaches_who_left_the_session() {
    let fixture = Fixture::new();
    let command = "(setsid sh -c 'trap \"\" TERM HUP INT; echo $$ > escaped; sleep 1000; sleep 1000' &) ; sleep 1000";
    let cancel = async {
        let escaped: u32 = fixture.written("escaped").await.parse().unwrap();
        assert!(fixture.alive().contains(&escaped));
        fixture.cancel.send_replace(true);
    };
    let (report, ()) = tokio::join!(fixture.run(shell(command, ProcessReturn::All)), cancel);
    assert_eq!(report.interrupted, Some(Interruption::Cancelled));
    assert!(fixture.alive().is_empty(), "an interruption is reported only when nothing is left");
}

async fn a_fork_bomb_is_ended() {
    let fixture = Fixture::new();
    let command = "grow() { [ $1 -gt 0 ] && { grow $(($1 - 1)) & grow $(($1 - 1)) & }; while :; do (setsid sleep 5 &) ; sleep 0.05; done; }; grow 5";
    let cancel = async {
        eventually(|| fixture.alive().len() > 150, "it has grown").await;
        fixture.cancel.send_replace(true);
    };
    let (report, ()) = tokio::join!(fixture.run(shell(command, ProcessReturn::All)), cancel);
    assert_eq!(report.interrupted, Some(Interruption::Cancelled));
    assert!(fixture.alive().is_empty());
}

async fn a_deadline_ends_it() {
    let mut fixture = Fixture::new();
    fixture.context.deadline = Some(SystemClock.now().saturating_add(Duration::from_millis(300)));
    let report = fixture.run(shell("echo begun; sleep 1000", ProcessReturn::All)).await;
    assert_eq!((report.interrupted, report.stdout_tail.as_str()), (None, "begun\n"));
    let failure = error(report);
    assert_eq!((failure.status, failure.type_uri.ends_with("/timeout")), (408, true));
    assert!(fixture.alive().is_empty());
}

async fn the_lease_bounds_it_and_renewals_extend_it() {
    let in_future = |duration| SystemClock.boot_now().saturating_add(duration);
    let (keeper, lease) = Lease::until(in_future(Duration::from_millis(600)));
    let fixture = Fixture::with_lease(lease);
    let end = in_future(Duration::from_millis(1_500));
    keeper.renew(end);
    let report = fixture.run(shell("sleep 1000", ProcessReturn::All)).await;
    assert_eq!(report.interrupted, Some(Interruption::LeaseEnded));
    assert!(SystemClock.boot_now() >= end, "not before the renewed end");
    assert!(fixture.alive().is_empty());
    let late = fixture.run(shell("touch begun", ProcessReturn::None)).await;
    assert_eq!(late.interrupted, Some(Interruption::LeaseEnded));
    assert!(!fixture.directory.path().join("begun").exists(), "nothing begins after the lease");
    let never = Fixture::with_lease(Lease::until(BootInstant::default()).1);
    assert_eq!(never.run(shell("true", ProcessReturn::None)).await.interrupted, Some(Interruption::LeaseEnded));
}

async fn a_dropped_run_ends_its_process() {
    let fixture = Fixture::new();
    tokio::select! {
        _ = fixture.run(shell("echo > begun; sleep 1000", ProcessReturn::None)) => panic!("it does not end"),
        _ = fixture.written("begun") => {}
    }
    eventually(|| fixture.alive().is_empty(), "all is gone").await;
}

async fn a_killed_guard_takes_its_child_along() {
    let fixture = Fixture::new();
    let kill = async {
        let guard: i32 = fixture.written("guard").await.parse().unwrap();
        let guard = rustix::process::Pid::from_raw(guard).unwrap();
        rustix::process::kill_process(guard, rustix::process::Signal::KILL).unwrap();
    };
    let command = "sleep 1000 & cut -d' ' -f4 /proc/$$/stat > guard; sleep 1000";
    let (report, ()) = tokio::join!(fixture.run(shell(command, ProcessReturn::All)), kill);
    assert_eq!(error(report).title.as_deref(), Some("process guard failed"));
    eventually(|| fixture.alive().is_empty(), "all is gone").await;
}

async fn the_lock_tells_whether_guards_live() {
    let fixture = Fixture::new();
    let directory = fixture.directory.path();
    guard::wait_until_gone(directory, Duration::ZERO).await.unwrap();
    let look = async {
        fixture.written("begun").await;
        let held = guard::wait_until_gone(directory, Duration::from_millis(50)).await;
        assert!(matches!(held, Err(Error::GuardsRemain { .. })));
        fixture.cancel.send_replace(true);
    };
    // The child hands the lock's directory nothing: only the guard holds the lock.
    let (_, ()) = tokio::join!(fixture.run(shell("echo > begun; sleep 1000", ProcessReturn::None)), look);
    let start = Instant::now();
    guard::wait_until_gone(directory, Duration::from_secs(5)).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(guard::wait_until_gone(&directory.join("absent"), Duration::ZERO).await.is_err());
}
