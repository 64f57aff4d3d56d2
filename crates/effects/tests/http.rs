//! `call: http` against a small server of our own, on loopback.

#[path = "http/server.rs"]
mod server;

use std::time::Duration;

use fleet_core::{BootInstant, Clock, JobId, SystemClock};
use fleet_effects::{EffectContext, EffectReport, Effects, Interruption, Lease, Options};
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::effect::{
    Authentication, Effect, HttpOutput, HttpRequest, ProcessRequest, ProcessReturn, Program, ScriptLanguage,
    ScriptSource,
};
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use serde_json::{Value, json};
use server::Server;
use tokio::sync::watch;

fn request(method: &str, uri: String) -> HttpRequest {
    HttpRequest {
        method: method.to_owned(),
        uri,
        headers: Vec::new(),
        query: Vec::new(),
        body: None,
        output: HttpOutput::Content,
        redirect: false,
        authentication: None,
    }
}

fn context() -> (watch::Sender<bool>, EffectContext) {
    let (cancel, cancelled) = watch::channel(false);
    let context = EffectContext {
        job_id: JobId::from_bytes([9; 16]),
        node_name: "n".to_owned(),
        path: EffectPath("do/0/call".to_owned()),
        cancelled,
        deadline: None,
        lease: Lease::unlimited(),
    };
    (cancel, context)
}

fn options(allowed_hosts: &[&str]) -> Options {
    let allowed_hosts = allowed_hosts.iter().map(|host| (*host).to_owned()).collect();
    Options { allowed: Effect::CAPABILITIES.map(str::to_owned).into(), allowed_hosts, ..Options::default() }
}

fn effects(options: Options) -> Effects {
    Effects::new(options).expect("a client")
}

async fn run(request: HttpRequest) -> EffectReport {
    effects(options(&["*"])).run(context().1, &Effect::Http(request)).await
}

async fn ok(request: HttpRequest) -> Value {
    match run(request).await.outcome {
        Outcome::Ok(value) => value,
        Outcome::Err(error) => panic!("{error:?}"),
    }
}

async fn error(request: HttpRequest) -> ErrorObject {
    match run(request).await.outcome {
        Outcome::Ok(value) => panic!("{value}"),
        Outcome::Err(error) => error,
    }
}

#[tokio::test]
async fn the_whole_request_arrives() {
    let server = Server::start().await;
    let seen = ok(HttpRequest {
        headers: vec![("X-Custom".to_owned(), "a".to_owned()), ("x-custom".to_owned(), "b".to_owned())],
        query: vec![("q".to_owned(), "a b&c".to_owned())],
        body: Some(json!({"n": 1.0, "z": null})),
        ..request("PATCH", server.uri("/echo?first=1"))
    })
    .await;
    assert_eq!(seen["method"], "PATCH");
    assert_eq!(seen["uri"], "/echo?first=1&q=a+b%26c");
    assert_eq!(seen["headers"]["x-custom"], "a, b");
    assert_eq!(seen["headers"]["content-type"], "application/json");
    assert_eq!(seen["headers"]["idempotency-key"], format!("{}/do/0/call", JobId::from_bytes([9; 16])));
    assert_eq!(seen["body"], r#"{"n":1.0,"z":null}"#);
    let text = ok(HttpRequest { body: Some(json!("plain")), ..request("POST", server.uri("/echo")) }).await;
    assert_eq!(
        (&text["body"], &text["headers"]["content-type"]),
        (&json!("plain"), &json!("text/plain; charset=utf-8"))
    );
    let own = HttpRequest {
        headers: vec![("Idempotency-Key".to_owned(), "mine".to_owned())],
        ..request("GET", server.uri("/echo"))
    };
    assert_eq!(ok(own).await["headers"]["idempotency-key"], "mine");
}

#[tokio::test]
async fn every_output_shape() {
    let server = Server::start().await;
    let shaped = |path: &str, output| HttpRequest { output, ..request("GET", server.uri(path)) };
    assert_eq!(ok(shaped("/json", HttpOutput::Content)).await, json!({"a": [1, 2]}));
    assert_eq!(ok(shaped("/text", HttpOutput::Content)).await, json!("{\"a\": not json}"));
    assert_eq!(ok(shaped("/empty", HttpOutput::Content)).await, json!(null));
    assert_eq!(ok(shaped("/bytes", HttpOutput::Raw)).await, json!("AP+A"));
    let whole = ok(shaped("/json?x=1", HttpOutput::Response)).await;
    assert_eq!(whole["request"]["method"], "GET");
    assert_eq!(whole["request"]["uri"], server.uri("/json?x=1"));
    assert!(whole["request"]["headers"]["idempotency-key"].is_string());
    assert_eq!((&whole["statusCode"], &whole["content"]), (&json!(200), &json!({"a": [1, 2]})));
    assert_eq!(whole["headers"]["content-type"], "application/json");
    let secret = HttpRequest {
        authentication: Some(Authentication::Bearer { token: "secret".to_owned() }),
        ..shaped("/json", HttpOutput::Response)
    };
    assert!(!ok(secret).await.to_string().contains("secret"), "credentials stay out of the journal");
}

#[tokio::test]
async fn redirects_follow_only_where_asked() {
    let server = Server::start().await;
    let refused = error(request("GET", server.uri("/redirect"))).await;
    assert_eq!((refused.status, refused.type_uri.ends_with("/communication")), (302, true));
    let followed = HttpRequest { redirect: true, ..request("GET", server.uri("/redirect")) };
    assert_eq!(ok(followed).await, json!({"a": [1, 2]}));
    let unchanged = HttpRequest { redirect: true, ..request("GET", server.uri("/status/304")) };
    assert_eq!(ok(unchanged).await, json!(null));
    let endless = HttpRequest { redirect: true, ..request("GET", server.uri("/loop")) };
    assert_eq!(error(endless).await.status, 500);
}

#[tokio::test]
async fn statuses_and_lost_connections_are_communication_errors() {
    let server = Server::start().await;
    for status in [400, 401, 403, 404, 409, 500, 503] {
        let failure = error(request("GET", server.uri(&format!("/status/{status}")))).await;
        assert_eq!((failure.status, failure.type_uri.ends_with("/communication")), (status, true));
    }
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let failure = error(request("GET", format!("http://user:secret@{nobody}/x?key=secret"))).await;
    assert_eq!((failure.status, failure.title.as_deref()), (500, Some("connection failed")));
    assert!(!failure.detail.expect("a detail").contains("secret"));
    let broken = error(request("GET", server.uri("/cut"))).await;
    assert_eq!((broken.status, broken.type_uri.ends_with("/communication")), (500, true));
}

#[tokio::test]
async fn authentication_schemes() {
    let server = Server::start().await;
    let (username, password) = ("Mufasa".to_owned(), "Circle of Life".to_owned());
    let with = |path: &str, authentication| HttpRequest {
        authentication: Some(authentication),
        body: Some(json!([1])),
        ..request("POST", server.uri(path))
    };
    let basic = Authentication::Basic { username: username.clone(), password: password.clone() };
    assert_eq!(ok(with("/echo", basic)).await["headers"]["authorization"], "Basic TXVmYXNhOkNpcmNsZSBvZiBMaWZl");
    let bearer = Authentication::Bearer { token: "t0k3n".to_owned() };
    assert_eq!(ok(with("/echo", bearer)).await["headers"]["authorization"], "Bearer t0k3n");
    let digest = Authentication::Digest { username: username.clone(), password };
    let seen = ok(with("/digest?a=1", digest)).await;
    assert_eq!(seen["body"], "[1]", "the body is sent again");
    let wrong = Authentication::Digest { username, password: "wrong".to_owned() };
    assert_eq!(error(with("/digest?a=1", wrong)).await.status, 401);
}

#[tokio::test]
async fn a_response_past_the_limit_is_refused_while_it_is_read() {
    let server = Server::start().await;
    let endless = error(request("GET", server.uri("/endless"))).await;
    assert_eq!(endless.title.as_deref(), Some("response too large"));
    let fits = ok(request("GET", server.uri("/large/1000000"))).await;
    assert_eq!(fits.as_str().map(str::len), Some(1_000_000));
    // Base64 makes it larger than a result may be.
    let grown = HttpRequest { output: HttpOutput::Raw, ..request("GET", server.uri("/large/1000000")) };
    assert_eq!(error(grown).await.title.as_deref(), Some("result too large"));
}

#[tokio::test]
async fn deadline_cancel_and_lease_end_a_call() {
    let server = Server::start().await;
    let hang = Effect::Http(request("GET", server.uri("/hang")));
    let effects = effects(Options { http_timeout: Duration::from_millis(200), ..options(&["127.0.0.1"]) });

    let Outcome::Err(late) = effects.run(context().1, &hang).await.outcome else { panic!("it cannot succeed") };
    assert_eq!((late.status, late.type_uri.ends_with("/timeout")), (408, true));
    let deadline = Some(SystemClock.now().saturating_add(Duration::from_millis(50)));
    let own = EffectContext { deadline, ..context().1 };
    assert!(matches!(effects.run(own, &hang).await.outcome, Outcome::Err(error) if error.status == 408));

    let (cancel, cancelled) = context();
    let patient = self::effects(options(&["127.0.0.1"]));
    let (report, ()) = tokio::join!(patient.run(cancelled, &hang), async {
        server.request_seen("/hang").await;
        cancel.send_replace(true);
    });
    assert_eq!(report.interrupted, Some(Interruption::Cancelled));

    let (_keeper, lease) = Lease::until(SystemClock.boot_now().saturating_add(Duration::from_millis(100)));
    let report = patient.run(EffectContext { lease, ..context().1 }, &hang).await;
    assert_eq!(report.interrupted, Some(Interruption::LeaseEnded));

    let before = server.requests();
    let ended = EffectContext { lease: Lease::until(BootInstant::default()).1, ..context().1 };
    assert_eq!(patient.run(ended, &hang).await.interrupted, Some(Interruption::LeaseEnded));
    assert_eq!(server.requests(), before, "nothing is sent after the lease");
}

/// These would be refused at their first step, before any of them waits: so it shows if that step is taken.
#[tokio::test]
async fn no_first_step_is_taken_without_a_lease_or_after_a_cancel() {
    let source = ScriptSource::Uri { uri: "http://refused.example/".to_owned(), authentication: None };
    let script = ProcessRequest {
        program: Program::Script { language: ScriptLanguage::Python, source },
        arguments: Vec::new(),
        stdin: None,
        environment: Vec::new(),
        returns: ProcessReturn::All,
        awaits: true,
    };
    for effect in [Effect::Http(request("GET", "http://refused.example/".to_owned())), Effect::Process(script)] {
        refusal(&["good.example"], &effect).await;
        let ended = EffectContext { lease: Lease::until(BootInstant::default()).1, ..context().1 };
        let report = effects(options(&["good.example"])).run(ended, &effect).await;
        assert_eq!(report.interrupted, Some(Interruption::LeaseEnded));
        let (cancel, cancelled) = context();
        cancel.send_replace(true);
        let report = effects(options(&["good.example"])).run(cancelled, &effect).await;
        assert_eq!(report.interrupted, Some(Interruption::Cancelled));
    }
}

#[tokio::test]
async fn connections_are_kept_and_proxies_ignored() {
    let server = Server::start().await;
    let effects = effects(options(&["127.0.0.1"]));
    for _ in 0..5 {
        let report = effects.run(context().1, &Effect::Http(request("GET", server.uri("/json")))).await;
        assert_eq!(report.outcome, Outcome::Ok(json!({"a": [1, 2]})));
    }
    assert_eq!(server.connections(), 1);
}

/// The error of `effect` where only `allowed_hosts` may be called; it must be a refusal.
async fn refusal(allowed_hosts: &[&str], effect: &Effect) -> ErrorObject {
    match effects(options(allowed_hosts)).run(context().1, effect).await.outcome {
        Outcome::Err(error) if error.type_uri.ends_with("/authorization") && error.status == 403 => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_host_that_is_not_allowed() {
    let server = Server::start().await;
    let address = server.uri("").replace("http://", "");
    for uri in [
        format!("http://{address}/json"),
        format!("http:{address}/json"),
        format!("http://{address}\\@good.example/json"),
        format!("http://good.example@{address}/json"),
        format!("http://{address}#@good.example/json"),
    ] {
        let error = refusal(&["good.example"], &Effect::Http(request("GET", uri))).await;
        let detail = error.detail.expect("a detail");
        assert!(detail.contains("127.0.0.1") && detail.contains("robot.allow.http"), "{detail}");
    }
    refusal(&[], &Effect::Http(request("GET", server.uri("/json")))).await;
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_a_host_that_is_not_allowed_is_not_followed() {
    let server = Server::start().await;
    let away = Effect::Http(HttpRequest { redirect: true, ..request("GET", server.uri("/away")) });
    let both = effects(options(&["127.0.0.1", "localhost"])).run(context().1, &away).await;
    assert_eq!(both.outcome, Outcome::Ok(json!({"a": [1, 2]})));
    let before = server.requests();
    let error = refusal(&["127.0.0.1"], &away).await;
    assert!(error.detail.expect("a detail").contains("may not call localhost"));
    assert_eq!(server.requests(), before + 1, "only the first hop is sent");
}

#[tokio::test]
async fn the_source_of_a_script_is_fetched_only_from_allowed_hosts() {
    let server = Server::start().await;
    let script = |path: &str| {
        let source = ScriptSource::Uri { uri: server.uri(path), authentication: None };
        Effect::Process(ProcessRequest {
            program: Program::Script { language: ScriptLanguage::Python, source },
            arguments: Vec::new(),
            stdin: None,
            environment: Vec::new(),
            returns: ProcessReturn::All,
            awaits: true,
        })
    };
    refusal(&["good.example"], &script("/text")).await;
    assert_eq!(server.connections(), 0);
    refusal(&["127.0.0.1"], &script("/away")).await;
    assert_eq!(server.requests(), 1, "only the first hop is sent");
}
