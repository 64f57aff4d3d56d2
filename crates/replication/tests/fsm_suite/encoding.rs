//! Bytes written by version 1, kept for ever: what a node has on disk or sends must stay readable.
//!
//! A fixture that no longer matches means the format changed: raise the version, keep the fixture, add a migration.

use fleet_core::{Digest, Fence, GroupId, SiteName, Timestamp};
use fleet_replication::command::{
    Action, Batch, BatchError, Command, Next, Redeeming, ReleaseCause, SiteFounding, SiteNote, SiteRemoval,
    SiteRenewal, TokenGrant, TrustEntry,
};
use fleet_store::codec::{self, Record};
use fleet_store::record::{
    Absence, Assignment, BlobUse, CommandId, Content, Counters, DefinitionUse, Ending, FoundingToken, GossipKey, Hold,
    Job, JobState, JournalRecord, Keyring, Leadership, NodeCertificate, NodeRecord, NodeStanding, Payload, PeerSite,
    Reason, Redemption, RemovedSite, Settled, Site, SiteRecord, StopCause, Sweep, TokenId, TokenRecord, TrustKind,
    TrustRow,
};

use crate::test_site::{admission, complete, founding, job_id, node_id, profile, record, session, submission};

const COMMANDS: &str = include_str!("fixtures/batch-v1.txt");
const COMMANDS_V2: &str = include_str!("fixtures/batch-v2.txt");
const COMMANDS_V3: &str = include_str!("fixtures/batch-v3.txt");
const COMMANDS_V4: &str = include_str!("fixtures/batch-v4.txt");
const COMMANDS_V6: &str = include_str!("fixtures/batch-v6.txt");
const COMMANDS_V7: &str = include_str!("fixtures/batch-v7.txt");
const RECORDS: &str = include_str!("fixtures/records-v1.txt");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    hex.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The line of `fixture` called `name`.
fn line<'a>(fixture: &'a str, name: &str, now: &str) -> &'a str {
    let found = fixture.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no fixture; today it would be\n{name} {now}"))
}

/// One of every kind of action, with every optional part present somewhere.
fn actions() -> Vec<(&'static str, Action)> {
    let (job, node, fence) = (job_id(1), node_id(1), Fence::mint(2, 300, 4));
    let mut certified = admission(2);
    certified.certificate = Some(NodeCertificate { serial: "0a".to_owned(), not_after: Timestamp(7) });
    certified.replaces = Some(node);
    let (token, secret) = (TokenId(9), Digest::of(b"secret"));
    let (site, expires_at) = (SiteName::default(), Timestamp(8));
    let redeeming = Redeeming {
        token: Some((token, secret)),
        public_key: Digest::of(b"key"),
        admission: certified.clone(),
        answer: Payload::from("chain"),
    };
    let mut blob = submission(1);
    blob.input = Content::Blob { digest: Digest::of(b"x"), length: 70_000 };
    blob.spec.retry_of = Some(job_id(2));
    blob.spec.finish_within_ms = Some(60_000);
    let key = GossipKey { key_id: 3, key: Payload::from("0123") };
    let park = Next::Park { wake_at: Some(Timestamp(5)), inbox_read: 2 };
    let error = || Content::inline("{}");
    vec![
        ("found", Action::Found(founding(GroupId::from_bytes([9; 16]), true))),
        ("lead", Action::Lead { node }),
        ("submit", Action::Submit(Box::new(blob))),
        ("assign", Action::Assign { job, attempt: 3, session: session(1, 5) }),
        ("record-continue", record(job, fence, 2, &["a", "+x", "-x"], Next::Continue)),
        ("record-park", record(job, fence, 2, &[], park)),
        ("record-complete", record(job, fence, 2, &[], complete())),
        ("record-fail", record(job, fence, 2, &[], Next::Fail { error: error() })),
        ("record-time-out", record(job, fence, 2, &[], Next::TimeOut { error: error() })),
        ("record-hand-back", record(job, fence, 2, &[], Next::HandBack)),
        ("stop-drain", Action::Stop { job, cause: StopCause::Drain }),
        ("stop-pause", Action::Stop { job, cause: StopCause::Pause }),
        ("stop-time-out", Action::Stop { job, cause: StopCause::TimeOut }),
        ("stop-cancel", Action::Stop { job, cause: StopCause::Cancel }),
        ("release-lost", Action::Release { job, fence, cause: ReleaseCause::Lost }),
        ("release-gone", Action::Release { job, fence, cause: ReleaseCause::Gone }),
        ("release-stopped", Action::Release { job, fence, cause: ReleaseCause::Stopped }),
        ("resume", Action::Resume { job }),
        ("deliver", Action::Deliver { job, event: error() }),
        ("fire-timers", Action::FireTimers),
        ("put-node", Action::PutNode(Box::new(certified))),
        ("drain-node", Action::DrainNode { node, deadline: Some(Timestamp(4)) }),
        ("undrain-node", Action::UndrainNode { node }),
        ("remove-node", Action::RemoveNode { node }),
        ("create-token", Action::CreateToken(TokenGrant { token, secret, site, uses: 2, expires_at })),
        ("redeem-token", Action::RedeemToken(Box::new(redeeming))),
        ("revoke-token", Action::RevokeToken { token }),
        (
            "put-trust",
            Action::PutTrust {
                rows: vec![TrustEntry { kind: TrustKind::Revoked, name: "0a".to_owned(), value: Payload::default() }],
            },
        ),
        ("put-keyring", Action::PutKeyring(Keyring { generation: 1, keys: vec![key] })),
        ("gate", Action::Gate { version: 2 }),
        ("hold", Action::Hold { awaited: vec![node] }),
        ("reconciled", Action::Reconciled { node }),
        ("end-hold", Action::EndHold),
        ("note-absence", Action::NoteAbsence { job, fence, absence: Absence { number: 2, elapsed_ms: 3_000 } }),
    ]
}

/// The kinds that version 2 of the commands brought.
fn actions_v2() -> Vec<(&'static str, Action)> {
    let submission = Box::new(submission(1));
    vec![("submit-assigned", Action::SubmitAssigned { submission, session: session(1, 5) })]
}

/// The kinds that version 3 of the commands brought.
fn actions_v3() -> Vec<(&'static str, Action)> {
    vec![("forget", Action::Forget { before: Timestamp(1_000) })]
}

/// The kinds that version 4 of the commands brought.
fn actions_v4() -> Vec<(&'static str, Action)> {
    let token = Some((TokenId(9), Digest::of(b"secret")));
    let (public_key, answer) = (Digest::of(b"key"), Payload::from("chain"));
    let redeeming = Box::new(Redeeming { token, public_key, admission: admission(2), answer });
    let row = |kind| TrustEntry { kind, name: node_id(1).to_string(), value: Payload::from("k") };
    vec![
        ("admit", Action::Admit { redeeming, sealing_key: Payload::from("0123") }),
        ("put-trust-sealing-key", Action::PutTrust { rows: vec![row(TrustKind::SealingKey)] }),
        ("put-trust-excluded", Action::PutTrust { rows: vec![row(TrustKind::Excluded)] }),
    ]
}

/// The kinds that version 6 of the commands brought.
fn actions_v6() -> Vec<(&'static str, Action)> {
    let (job, fence) = (job_id(1), Fence::mint(2, 300, 4));
    let (token, secret) = (TokenId(9), Digest::of(b"secret"));
    let site: SiteName = "plant".parse().unwrap();
    let founding = SiteFounding {
        site: site.clone(),
        token: Some((token, secret)),
        group: GroupId::from_bytes([8; 16]),
        founder: node_id(2),
        public_key: Digest::of(b"key"),
        authority: Payload::from("certificate"),
        contacts: vec!["plant-1:7000".to_owned()],
    };
    let note = SiteNote { site: site.clone(), record: site_record() };
    vec![
        (
            "grant-founding",
            Action::GrantFounding(TokenGrant { token, secret, site, uses: 2, expires_at: Timestamp(8) }),
        ),
        ("found-site", Action::FoundSite(Box::new(founding))),
        ("note-sites", Action::NoteSites { notes: vec![note] }),
        ("rebind", Action::Rebind { job, fence, session: session(1, 6) }),
        ("release-absent", Action::ReleaseAbsent { job, fence, number: 2 }),
    ]
}

/// The kinds that version 7 of the commands brought.
fn actions_v7() -> Vec<(&'static str, Action)> {
    let site = PeerSite { group: GroupId::from_bytes([8; 16]), site: "plant".parse().unwrap() };
    let (replaces, serial) = (Digest::of(b"certificate"), "0a".to_owned());
    let renewal =
        SiteRenewal { site: site.clone(), replaces, serial: serial.clone(), authority: Payload::from("later") };
    let removal = SiteRemoval { site: site.clone(), authority: replaces, serial };
    vec![
        ("renew-authority", Action::RenewAuthority { replaces, certificate: Payload::from("later") }),
        ("renew-site", Action::RenewSite(Box::new(renewal))),
        ("remove-site", Action::RemoveSite(Box::new(removal))),
        ("expel-site", Action::ExpelSite(site)),
    ]
}

fn site_record() -> SiteRecord {
    let token = FoundingToken { id: TokenId(9), secret: Digest::of(b"secret"), uses_left: 2, expires_at: Timestamp(8) };
    SiteRecord {
        group: GroupId::from_bytes([8; 16]),
        founder: node_id(2),
        public_key: Digest::of(b"key"),
        authority: Payload::from("certificate"),
        contacts: vec!["plant-1:7000".to_owned()],
        contacts_at: Timestamp(6),
        founded_at: Timestamp(5),
        token: Some(token),
    }
}

#[test]
fn every_command_is_read_as_it_was_meant() {
    check_commands(COMMANDS, actions(), 1);
    check_commands(COMMANDS_V2, actions_v2(), 2);
    check_commands(COMMANDS_V3, actions_v3(), 3);
    check_commands(COMMANDS_V4, actions_v4(), 4);
    check_commands(COMMANDS_V6, actions_v6(), 6);
    check_commands(COMMANDS_V7, actions_v7(), 7);
}

pub(crate) fn check_commands(fixture: &str, actions: Vec<(&'static str, Action)>, version: u32) {
    let count = actions.len();
    for (name, action) in actions {
        assert_eq!(action.version(), version, "{name}");
        let batch = Batch { commands: vec![Command { id: CommandId(1 << 100), at: Timestamp(1_000), action }] };
        let now = hex(&batch.encode().unwrap());
        let kept = line(fixture, name, &now);
        assert_eq!(kept, now, "{name} is written otherwise");
        assert_eq!(Batch::decode(&bytes_of(kept)).unwrap(), batch, "{name} is read otherwise");
    }
    assert_eq!(fixture.lines().count(), count, "a fixture nobody reads");
}

#[test]
fn damaged_batches_are_refused_each_for_its_own_reason() {
    let command = Command { id: CommandId(1), at: Timestamp(1), action: Action::FireTimers };
    let mut bytes = Batch { commands: vec![command] }.encode().unwrap();
    assert!(matches!(Batch::decode(&[]), Err(BatchError::Empty)));
    assert!(matches!(Batch::decode(&bytes[..3]), Err(BatchError::Damaged(_))));
    bytes.push(0);
    assert!(matches!(Batch::decode(&bytes), Err(BatchError::Trailing(1))));
    bytes[0] = 2;
    assert!(matches!(Batch::decode(&bytes), Err(BatchError::UnknownFormat(2))));
}

fn check<R: Record + PartialEq + std::fmt::Debug>(name: &str, record: &R) {
    check_in(RECORDS, name, record);
}

/// `record` is written as `fixture` has it, and read from it.
pub(crate) fn check_in<R: Record + PartialEq + std::fmt::Debug>(fixture: &str, name: &str, record: &R) {
    let now = hex(&codec::encode(record).unwrap());
    let kept = line(fixture, name, &now);
    assert_eq!(kept, now, "{name} is written otherwise");
    assert_eq!(codec::decode::<R>(&bytes_of(kept)).unwrap(), *record, "{name} is read otherwise");
}

fn full_job() -> Job {
    let fence = Fence::mint(2, 300, 4);
    Job {
        number: 77,
        state: JobState::Stopping,
        priority: 15,
        generation: 1,
        attempt: 3,
        lost: 2,
        created_at: Timestamp(1_000),
        started_at: Some(Timestamp(2_000)),
        ended_at: None,
        assignment: Some(Assignment { session: session(1, 5), fence, at: Timestamp(1_500) }),
        absence: Absence { number: 2, elapsed_ms: 3_000 },
        stop: Some(StopCause::Cancel),
        node: Some(node_id(1)),
        wake_at: Some(Timestamp(9_000)),
        reason: Some(Reason::RobotLost { node: node_id(1), lost: 2, lost_max: 5 }),
        journal_length: 6,
        journal_bytes: 600,
        inbox_length: 1,
        in_flight: vec!["/do/0".to_owned()],
        settled: Some(Settled { fence, journal_length: 4 }),
        handled: vec![CommandId(8)],
    }
}

#[test]
fn every_job_record_of_version_1_is_read_as_it_was_meant() {
    check("job", &full_job());
    check("job-spec", &submission(1).spec);
    check("job-id", &job_id(1));
    check("content-inline", &Content::inline("{}"));
    check("content-blob", &Content::Blob { digest: Digest::of(b"x"), length: 70_000 });
    check("ending-output", &Ending::Output(Content::inline("{}")));
    check("ending-error", &Ending::Error(Content::inline("{}")));
    check("effect-lost", &JournalRecord::effect_lost("/do/0", Timestamp(5)).unwrap());
    check("definition-use", &DefinitionUse { jobs: 300 });
    check("blob-use", &BlobUse { rows: 300 });
}

#[test]
fn every_site_record_of_version_1_is_read_as_it_was_meant() {
    let group = GroupId::from_bytes([9; 16]);
    let mut counters = Counters { submitted: 3, assigned: 2, lost: 1, journaled: 9, ..Counters::default() };
    counters.jobs[0] = 3;
    let since = Timestamp(1_000);
    let site = Site {
        founding: Some(founding(group, false)),
        leadership: Some(Leadership { node: node_id(1), epoch: 2, term: 3, since }),
        hold: Some(Hold { awaited: vec![node_id(2)], since }),
        gate: 1,
        latest: Timestamp(5_000),
        counters,
    };
    check("site", &site);
    let certificate = Some(NodeCertificate { serial: "0a".to_owned(), not_after: Timestamp(7) });
    let standing = NodeStanding::Draining { deadline: Some(Timestamp(6)) };
    check("node", &NodeRecord { id: node_id(1), profile: profile(1), certificate, standing, joined_at: since });
    let token = TokenRecord {
        secret: Digest::of(b"secret"),
        site: SiteName::default(),
        uses_left: 2,
        expires_at: Timestamp(8),
        created_at: since,
        revoked: true,
    };
    check("token", &token);
    check("redemption", &Redemption { node: node_id(1), at: since, answer: Payload::from("chain") });
    check("trust", &TrustRow { value: Payload::from("sealed"), at: since });
    let key = GossipKey { key_id: 3, key: Payload::from("0123") };
    check("keyring", &Keyring { generation: 4, keys: vec![key] });
    check("other-site", &site_record());
    for (name, sweep) in [
        ("removed-site-moves", Sweep::Moves(Some(job_id(1)))),
        ("removed-site-origins", Sweep::Origins(Some((job_id(1), group)))),
        ("removed-site-arrivals", Sweep::Arrivals),
        ("removed-site-over", Sweep::Over),
    ] {
        check(name, &RemovedSite { site: "plant".parse().unwrap(), at: since, sweep });
    }
    assert_eq!(RECORDS.lines().count(), 21, "a fixture nobody reads");
}

#[test]
fn state_numbers_and_words_are_for_ever() {
    let words: Vec<_> = JobState::ALL.iter().map(|state| format!("{} {state}", state.number())).collect();
    let expected = "0 queued,1 assigned,2 running,3 waiting,4 suspended,5 stopping,6 transferring,7 completed,\
                    8 failed,9 cancelled,10 timed_out,11 dead_lettered";
    assert_eq!(words.join(","), expected);
    assert!(JobState::ALL.iter().all(|state| JobState::from_word(state.as_str()) == Some(*state)));
}
