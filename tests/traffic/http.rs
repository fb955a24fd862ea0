//! `traffic.http` against a real HTTP server that keeps a route: settled by looking, whatever the call says, and a rehearsal never makes
//! production's calls.

use std::sync::{Arc, Mutex};

use dbmove::engine::context::RunKind;
use dbmove::engine::step::{Failure, Probe, Step as _, Undoable};
use dbmove::traffic::http::{HttpArguments, TrafficHttp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::memory::context;

/// How the server does what it is told.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Does,
    /// Says that it did.
    Lies,
    /// Does it after some looks, which meanwhile show `moving`.
    Later(u32),
    /// Does it, and ends the connection without an answer.
    Silent,
    /// Answers 503.
    Refuses,
}

struct State {
    host: String,
    manner: Manner,
    coming: Option<(String, u32)>,
    /// Requests that changed something: head and body.
    calls: Vec<String>,
}

struct Router {
    url: String,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Router {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Router {
    async fn start(manner: Manner) -> Router {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { host: "old".to_owned(), manner, coming: None, calls: Vec::new() }));
        let theirs = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &theirs).await;
            }
        });
        Router { url, state, task }
    }
    fn host(&self) -> String {
        self.state.lock().unwrap().host.clone()
    }
    fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }
    fn arguments(&self) -> Value {
        let url = format!("{}/route", self.url);
        let call =
            |host: &str| json!({"method": "PUT", "url": url, "headers": {"Authorization": "Bearer ${env:PATH}"}, "body": {"host": host}});
        // `provision.endpoint` is the output of an earlier step: `db.example`.
        json!({
            "call": call("${step:provision.endpoint}"),
            "undo": call("old"),
            "probe": {"url": url, "value": "/backend/host", "at_target": "${step:provision.endpoint}", "at_source": "old", "between": ["moving"]},
        })
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut heard = Vec::new();
    let request = loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        let length = |head: &str| head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head).unwrap_or(0)) {
            break text;
        }
        match stream.read_buf(&mut heard).await {
            Ok(1..) => {}
            _ => return,
        }
    };
    let answer = {
        let mut state = state.lock().unwrap();
        if request.starts_with("GET ") {
            if let Some((host, looks)) = state.coming.take() {
                if looks == 0 {
                    state.host = host;
                } else {
                    state.coming = Some((host, looks - 1));
                }
            }
            let shown = if state.coming.is_some() { "moving" } else { &state.host };
            Some((200, json!({"backend": {"host": shown}}).to_string()))
        } else {
            let body = request.split_once("\r\n\r\n").unwrap().1;
            let host = serde_json::from_str::<Value>(body).unwrap()["host"].as_str().unwrap().to_owned();
            state.calls.push(request);
            match state.manner {
                Manner::Does => state.host = host,
                Manner::Lies | Manner::Refuses => {}
                Manner::Later(looks) => state.coming = Some((host, looks)),
                Manner::Silent => state.host = host,
            }
            match state.manner {
                Manner::Silent => None,
                Manner::Refuses => Some((503, format!("busy; you are {}", std::env::var("PATH").unwrap()))),
                _ => Some((202, "{}".to_owned())),
            }
        }
    };
    if let Some((status, body)) = answer {
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
    let _ = stream.shutdown().await;
}

fn made(arguments: Value) -> TrafficHttp {
    TrafficHttp::new(serde_json::from_value::<HttpArguments>(arguments).unwrap()).unwrap()
}

#[tokio::test]
async fn looks_calls_looks_again_and_goes_back() {
    let router = Router::start(Manner::Does).await;
    let (step, context) = (made(router.arguments()), context("switch", RunKind::Production));
    assert_eq!(step.undoable(), Undoable::Yes);
    let plan = step.plan(&context).await.unwrap();
    assert!(plan.lines[0].contains(&format!("call `PUT {}/route`", router.url)), "{plan:?}");
    assert!(plan.warnings.iter().any(|warning| warning.contains("sends a secret over `http://`")), "{plan:?}");
    assert_eq!(step.probe(&context).await.unwrap(), Probe::NotStarted);
    step.run(&context).await.unwrap();
    assert_eq!((router.host().as_str(), step.probe(&context).await.unwrap()), ("db.example", Probe::Done));
    let path = std::env::var("PATH").unwrap();
    let calls = router.calls();
    assert!(
        calls[0].contains(&format!("authorization: Bearer {path}")) && calls[0].contains("content-type: application/json"),
        "{calls:?}"
    );
    // Again after a crash: it looks, and leaves it.
    assert_eq!(step.run(&context).await.unwrap().facts["already"], true);
    assert_eq!(router.calls().len(), 1);
    step.undo(&context).await.unwrap();
    assert_eq!(router.host(), "old");
    step.undo(&context).await.unwrap();
    assert_eq!(router.calls().len(), 2);
}

#[tokio::test]
async fn what_the_call_says_is_settled_by_looking() {
    let production = context("switch", RunKind::Production);
    // It says yes and does nothing.
    let router = Router::start(Manner::Lies).await;
    let mut arguments = router.arguments();
    arguments["within"] = json!("300ms");
    let error = made(arguments).run(&production).await.unwrap_err();
    assert!(error.message.contains("answered status 202") && error.message.contains("says: not switched"), "{error}");
    assert_eq!(error.failure, Failure::Definite);
    // It says nothing and did it.
    let router = Router::start(Manner::Silent).await;
    made(router.arguments()).run(&production).await.unwrap();
    assert_eq!((router.host().as_str(), router.calls().len()), ("db.example", 1));
    // It does it later.
    let router = Router::start(Manner::Later(3)).await;
    let step = made(router.arguments());
    step.run(&production).await.unwrap();
    assert_eq!((router.host().as_str(), router.calls().len()), ("db.example", 1));
    step.undo(&production).await.unwrap();
    assert_eq!(router.host(), "old");
    // It refuses, and repeats a secret.
    let router = Router::start(Manner::Refuses).await;
    let error = made(router.arguments()).run(&production).await.unwrap_err();
    assert!(error.message.contains("answered status 503: busy; you are [secret]"), "{error}");
    assert!(error.message.contains("says: not switched") && !error.to_string().contains(&std::env::var("PATH").unwrap()), "{error}");
    // Nobody is there.
    let router = Router::start(Manner::Does).await;
    let arguments = router.arguments();
    router.task.abort();
    let gone = json!({"method": "PUT", "url": "http://127.0.0.1:1/"});
    let mut elsewhere = arguments.clone();
    elsewhere["call"] = gone;
    drop(router);
    let error = made(elsewhere).run(&production).await.unwrap_err();
    assert_eq!(error.failure, Failure::Transient, "{error}");
}

#[tokio::test]
async fn a_foreign_route_is_left_alone() {
    let router = Router::start(Manner::Does).await;
    "db9".clone_into(&mut router.state.lock().unwrap().host);
    let (step, context) = (made(router.arguments()), context("switch", RunKind::Production));
    assert_eq!(step.probe(&context).await.unwrap(), Probe::Foreign { found: "\"db9\"".to_owned() });
    for error in [step.run(&context).await.unwrap_err(), step.undo(&context).await.unwrap_err()] {
        assert!(error.message.contains("finds clients pointed somewhere else: \"db9\". Nothing was switched"), "{error}");
    }
    assert!(router.calls().is_empty());
    // An answer that tells nothing is no answer.
    let mut arguments = router.arguments();
    arguments["probe"]["value"] = json!("/frontend");
    let error = made(arguments).run(&context).await.unwrap_err();
    assert!(error.message.contains("does not tell where clients are: no `/frontend`"), "{error}");
    assert!(router.calls().is_empty());
}

#[tokio::test]
async fn a_rehearsal_makes_its_own_calls_or_is_refused() {
    let (production, rehearsal) = (Router::start(Manner::Does).await, Router::start(Manner::Does).await);
    let rehearsed = context("switch", RunKind::Rehearsal);
    let step = made(production.arguments());
    for error in [
        step.plan(&rehearsed).await.unwrap_err(),
        step.run(&rehearsed).await.unwrap_err(),
        step.probe(&rehearsed).await.unwrap_err(),
        step.undo(&rehearsed).await.unwrap_err(),
    ] {
        assert_eq!(error.failure, Failure::Refused);
        assert!(error.message.starts_with("`switch` can't be rehearsed: `PUT http://"), "{error}");
    }
    let mut arguments = production.arguments();
    arguments["rehearsal"] = rehearsal.arguments();
    let step = made(arguments);
    step.run(&rehearsed).await.unwrap();
    assert_eq!((rehearsal.host().as_str(), production.host().as_str()), ("db.example", "old"));
    step.undo(&rehearsed).await.unwrap();
    assert_eq!(rehearsal.host(), "old");

    let mut arguments = production.arguments();
    arguments["rehearsal"] = json!({"skip": "the balancer has no test instance"});
    let step = made(arguments);
    assert_eq!(step.run(&rehearsed).await.unwrap().facts["skipped"], "the balancer has no test instance");
    step.undo(&rehearsed).await.unwrap();
    assert!(production.calls().is_empty());
    let plan = step.plan(&context("switch", RunKind::Production)).await.unwrap();
    assert!(plan.warnings.contains(&"`switch` was never rehearsed: the balancer has no test instance".to_owned()), "{plan:?}");
}

#[test]
fn broken_arguments_are_named() {
    let good = || json!({"call": {"method": "PUT", "url": "https://lb/route"}, "probe": {"url": "https://lb/route", "at_target": "new", "at_source": "old"}});
    let refused = |path: &str, value: Value| {
        let mut arguments = good();
        *arguments.pointer_mut(path.rsplit_once('/').unwrap().0).unwrap() = {
            let (parent, name) = path.rsplit_once('/').unwrap();
            let mut parent = arguments.pointer(parent).unwrap().clone();
            parent[name] = value;
            parent
        };
        TrafficHttp::new(serde_json::from_value(arguments).unwrap()).err().unwrap_or_else(|| panic!("{path} was taken")).message
    };
    assert!(matches!(made(good()).undoable(), Undoable::No(reason) if reason == "`PUT https://lb/route` has no `undo` call"));
    assert!(refused("/call/url", json!("lb/route")).starts_with("`call`: "));
    assert!(refused("/call/headers", json!({"Authorization": "Bearer hunter22"})).contains("by reference only"));
    assert!(refused("/call/expect", json!([])).contains("`call.expect`"));
    assert!(refused("/call/expect", json!([20])).contains("`call.expect`"));
    assert!(refused("/probe/value", json!("host")).contains("`probe.value`: `host` is no JSON pointer"));
    assert!(refused("/probe/at_target", json!("old")).contains("have to differ"));
    assert!(refused("/probe/at_target", json!(1)).contains("without `value`"));
    assert!(refused("/probe/between", json!(["new"])).contains("have to differ"));
    assert!(refused("/rehearsal", json!({"skip": " "})).contains("gives no reason"));
    let own = json!({"call": good()["call"], "probe": {"url": "https://lb2/", "at_target": "a", "at_source": "b"}, "undo": {"method": "PUT", "url": "https://lb2/"}});
    assert_eq!(refused("/rehearsal", own), "`rehearsal` holds a production call, of `PUT https://lb/route`. Nothing was called");
    let missing = serde_json::from_value::<HttpArguments>(json!({"call": {"method": "PUT", "url": "https://lb/"}})).unwrap_err();
    assert!(missing.to_string().contains("missing field `probe`"), "{missing}");
}
