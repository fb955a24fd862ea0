//! `traffic.http` against a real HTTP server that keeps a route: settled by looking, whatever the call says, and a rehearsal never makes
//! production's calls.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dbmove::engine::context::{RunKind, StepContext};
use dbmove::engine::step::{Epoch, Failure, Probe, Step as _, Undoable};
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
    /// Says that it will, and shows nothing of it until it is told to get on.
    Late,
    /// The same, and answers as a form does: look there for what has become of it.
    SeeOther,
    /// The same, and ends the connection without an answer.
    SilentLate,
    /// Does it, and ends the connection without an answer.
    Silent,
    /// Answers 503.
    Refuses,
}

struct State {
    host: String,
    manner: Manner,
    coming: Option<(String, u32)>,
    /// Of a late one: what it was told, in order.
    queue: VecDeque<String>,
    /// Of a late one: with how many calls in the queue it begins to get on, with one at every look.
    gets_on_at: usize,
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
        let state = Arc::new(Mutex::new(State {
            host: "old".to_owned(),
            manner,
            coming: None,
            queue: VecDeque::new(),
            gets_on_at: usize::MAX,
            calls: Vec::new(),
        }));
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
    /// It does all it was told; where clients are then.
    fn gets_on(&self) -> String {
        let mut state = self.state.lock().unwrap();
        while let Some(host) = state.queue.pop_front() {
            state.host = host;
        }
        state.host.clone()
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
            if state.calls.len() >= state.gets_on_at
                && let Some(host) = state.queue.pop_front()
            {
                state.host = host;
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
                Manner::Late | Manner::SeeOther | Manner::SilentLate => state.queue.push_back(host),
            }
            match state.manner {
                Manner::Silent | Manner::SilentLate => None,
                Manner::Refuses => Some((503, format!("busy; you are {}", std::env::var("PATH").unwrap()))),
                Manner::SeeOther => Some((303, String::new())),
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

/// A balancer that applies what it answered well after `within` is over: the cutover is undone by then, and its fence is lifted.
#[tokio::test]
async fn a_call_that_takes_effect_later_is_taken_back() {
    for manner in [Manner::Late, Manner::SeeOther, Manner::SilentLate] {
        let router = Router::start(manner).await;
        let mut arguments = router.arguments();
        arguments["within"] = json!("300ms");
        let production = context("switch", RunKind::Production);
        made(arguments.clone()).run(&production).await.unwrap_err();
        // Another driver, with what the journal holds.
        let step = made(arguments.clone());
        let Probe::Partly { from } = step.probe(&production).await.unwrap() else { panic!("it was forgotten") };
        assert!(from.starts_with(&format!("`PUT {}/route` was called at ", router.url)) && from.ends_with("it may still come"), "{from}");
        if manner == Manner::Late {
            step.undo(&production).await.unwrap();
        } else {
            // Whether it took this one is not known either.
            let error = step.undo(&production).await.unwrap_err();
            let answered = if manner == Manner::SeeOther { "answered status 303" } else { "gave no answer" };
            assert!(error.message.contains(answered) && error.message.contains("it may still come"), "{error}");
            assert_eq!(error.failure, if manner == Manner::SeeOther { Failure::Definite } else { Failure::Transient });
            assert!(matches!(step.probe(&production).await.unwrap(), Probe::Partly { .. }));
            router.state.lock().unwrap().manner = Manner::Late;
            step.undo(&production).await.unwrap();
        }
        assert_eq!(router.gets_on(), "old");
        // It is over, and nothing is called again.
        let calls = router.calls().len();
        assert_eq!(step.probe(&production).await.unwrap(), Probe::NotStarted);
        step.undo(&production).await.unwrap();
        assert_eq!(router.calls().len(), calls);
    }
}

#[tokio::test]
async fn a_change_that_comes_behind_its_undo_is_undone_again() {
    let router = Router::start(Manner::Late).await;
    // At every look behind the undo: the change, then its undo.
    router.state.lock().unwrap().gets_on_at = 2;
    let context = context("switch", RunKind::Production);
    let made = |within: &str| {
        let mut arguments = router.arguments();
        arguments["within"] = json!(within);
        made(arguments)
    };
    // The driver dies right behind the call.
    let (step, theirs) = (made("10m"), context.clone());
    let driver = tokio::spawn(async move { step.run(&theirs).await });
    while router.calls().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    driver.abort();
    assert!(driver.await.unwrap_err().is_cancelled());
    let step = made("500ms");
    step.undo(&context).await.unwrap();
    assert_eq!((router.gets_on().as_str(), router.state.lock().unwrap().queue.len()), ("old", 0));
    let calls = router.calls();
    assert!(calls.len() >= 2 && calls[1..].iter().all(|call| call.ends_with("{\"host\":\"old\"}")), "{calls:?}");
}

#[tokio::test]
async fn without_an_undo_nobody_says_that_all_is_as_before() {
    let router = Router::start(Manner::Late).await;
    let mut arguments = router.arguments();
    arguments["within"] = json!("200ms");
    arguments.as_object_mut().unwrap().remove("undo");
    let (step, production) = (made(arguments), context("switch", RunKind::Production));
    // Nothing was called: nothing is to be undone.
    step.undo(&production).await.unwrap();
    step.run(&production).await.unwrap_err();
    let error = step.undo(&production).await.unwrap_err();
    assert!(
        error.message.starts_with("nothing was undone: `PUT ") && error.message.contains("it may still come. It has no `undo`"),
        "{error}"
    );
    assert!(error.hint.as_deref().unwrap().contains("keep clients from the target"), "{error}");
    // Every look of this driver says so; the next one is there because a person who was told gave the command again.
    for _ in 0..2 {
        let Probe::Partly { from } = step.probe(&production).await.unwrap() else { panic!("it was believed") };
        assert!(from.contains("give the command again once it is there or can't come any more"), "{from}");
    }
    let next = StepContext { epoch: Epoch(2), ..production.clone() };
    assert_eq!(step.probe(&next).await.unwrap(), Probe::NotStarted);
    step.undo(&next).await.unwrap();
    assert_eq!(router.gets_on(), "db.example");
    assert_eq!(step.probe(&production).await.unwrap(), Probe::Done);
    let error = step.undo(&production).await.unwrap_err();
    assert_eq!(error.message, "`switch` has no `undo`; clients stay pointed where they are");
}

#[tokio::test]
async fn what_was_surely_not_taken_leaves_nothing_to_undo() {
    let router = Router::start(Manner::Refuses).await;
    let production = context("switch", RunKind::Production);
    let mut elsewhere = router.arguments();
    elsewhere["call"]["url"] = json!("http://127.0.0.1:1/");
    for arguments in [router.arguments(), elsewhere] {
        let step = made(arguments);
        step.run(&production).await.unwrap_err();
        assert_eq!(step.probe(&production).await.unwrap(), Probe::NotStarted);
        step.undo(&production).await.unwrap();
        assert_eq!(router.calls().len(), 1);
    }
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
