//! HTTP against real servers on this machine: what is bounded, what is verified, and what an error says was sent.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dbmove::http::{HttpEndpoint, HttpError, Method};
use dbmove::playbook::model::Template;
use dbmove::playbook::quantity::HumanDuration;
use dbmove::playbook::reference::Resolver;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

fn endpoint(url: &str) -> HttpEndpoint {
    HttpEndpoint { url: Template(url.to_owned()), headers: BTreeMap::new(), ca: None, timeout: None }
}

/// Takes one connection, says `answer` once a whole request is there, and hands the request over.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) -> String {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&heard).into_owned();
        let length = |head: &str| head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if text.split_once("\r\n\r\n").is_some_and(|(head, body)| body.len() >= length(head).unwrap_or(0)) {
            break;
        }
        match stream.read(&mut buffer).await {
            Ok(read @ 1..) => heard.extend_from_slice(&buffer[..read]),
            _ => break,
        }
    }
    let _ = stream.write_all(answer).await;
    let _ = stream.flush().await;
    let _ = stream.shutdown().await;
    String::from_utf8_lossy(&heard).into_owned()
}

async fn server(answer: &'static [u8]) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (url, tokio::spawn(async move { say(listener.accept().await.unwrap().0, answer).await }))
}

#[tokio::test]
async fn a_request_goes_out_as_it_was_written_and_comes_back_whole() {
    let (url, heard) = server(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmade\r\n5\r\n Path\r\n0\r\n\r\n").await;
    let mut asked = endpoint(&format!("{url}/x?a=b"));
    // `PATH` is the one variable that every machine has.
    asked.headers.insert("Authorization".to_owned(), Template("Bearer ${env:PATH}".to_owned()));
    let request = asked.request(Method::Post, &Resolver::default()).await.unwrap();
    let answer = request.query("query", "up > 1").unwrap().json(&json!({"run": "r"})).send().await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (201, &b"made Path"[..]));
    let heard = heard.await.unwrap();
    assert!(heard.starts_with("POST /x?a=b&query=up%20%3E%201 HTTP/1.1\r\n"), "{heard}");
    let path = std::env::var("PATH").unwrap();
    for line in [format!("authorization: Bearer {path}"), "content-type: application/json".to_owned(), format!("host: {}", &url[7..])] {
        assert!(heard.lines().any(|heard| heard == line), "{line} is missing in {heard}");
    }
    assert!(heard.ends_with("\r\n\r\n{\"run\":\"r\"}"), "{heard}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (elsewhere, not_asked) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let answer = format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}/\r\nContent-Length: 0\r\n\r\n").leak().as_bytes();
    let (url, _heard) = server(answer).await;
    let answer = endpoint(&url).request(Method::Get, &Resolver::default()).await.unwrap().send().await.unwrap();
    assert_eq!((answer.status, answer.is_success()), (302, false));
    assert!(answer.shown().contains("was not followed"), "{}", answer.shown());
    assert!(!not_asked.is_finished());
    not_asked.abort();
}

#[tokio::test]
async fn a_secret_that_a_server_repeats_is_not_shown() {
    let secret = std::env::var("PATH").unwrap();
    let body = format!("no such token: {secret}");
    let answer = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak().as_bytes();
    let (url, _heard) = server(answer).await;
    let mut asked = endpoint(&url);
    asked.headers.insert("X-Token".to_owned(), Template("${env:PATH}".to_owned()));
    let answer = asked.request(Method::Get, &Resolver::default()).await.unwrap().send().await.unwrap();
    assert_eq!(answer.shown(), "status 403: no such token: [secret]");
}

#[tokio::test]
async fn an_answer_has_a_size_and_a_time() {
    let (url, _heard) = server(b"HTTP/1.1 200 OK\r\n\r\n0123456789").await;
    let request = endpoint(&url).request(Method::Get, &Resolver::default()).await.unwrap();
    let error = request.at_most(9).send().await.err().unwrap();
    assert!(matches!(error, HttpError::TooLong { bytes: 9, .. }) && error.may_have_been_taken(), "{error}");

    // Accepted by the kernel, and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut asked = endpoint(&format!("http://{}/", silent.local_addr().unwrap()));
    asked.timeout = Some(HumanDuration(Duration::from_millis(200)));
    let error = asked.request(Method::Get, &Resolver::default()).await.unwrap().send().await.err().unwrap();
    assert!(matches!(error, HttpError::TimedOut { sent: true, .. }) && error.can_heal(), "{error}");
    assert!(error.to_string().contains("within 200ms; whether it took the request is not known"), "{error}");
}

#[tokio::test]
async fn who_is_not_there_or_hangs_up_is_told_apart() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", gone.local_addr().unwrap());
    drop(gone);
    let error = endpoint(&url).request(Method::Get, &Resolver::default()).await.unwrap().send().await.err().unwrap();
    assert!(matches!(error, HttpError::Unreachable { .. }) && !error.may_have_been_taken(), "{error}");

    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", b"220 mail.example ESMTP\r\n"] {
        let (url, _heard) = server(answer).await;
        let error = endpoint(&url).request(Method::Get, &Resolver::default()).await.unwrap().send().await.err().unwrap();
        assert!(matches!(error, HttpError::Broken { .. }) && error.may_have_been_taken(), "{answer:?}: {error}");
    }
}

/// A server with a certificate of its own making for `localhost`; the certificate lies in `ca`.
async fn secure_server(ca: &Path) -> (u16, JoinHandle<()>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(ca, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let configuration = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(configuration));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(stream) = acceptor.accept(stream).await {
                say(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    });
    (port, serving)
}

#[tokio::test]
async fn only_a_server_that_an_authority_vouches_for_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    let (port, serving) = secure_server(&ca).await;
    let ask = async |host: &str, ca: Option<&Path>| {
        let asked = HttpEndpoint { ca: ca.map(Path::to_owned), ..endpoint(&format!("https://{host}:{port}/")) };
        asked.request(Method::Get, &Resolver::default()).await.unwrap().send().await
    };
    assert_eq!(&ask("localhost", Some(&ca)).await.unwrap().body[..], b"ok");
    let error = ask("localhost", None).await.err().unwrap();
    assert!(matches!(error, HttpError::Untrusted { .. }) && !error.can_heal(), "{error}");
    let error = ask("127.0.0.1", Some(&ca)).await.err().unwrap();
    assert!(matches!(error, HttpError::Untrusted { .. }), "{error}");

    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "nothing\n").unwrap();
    let error = ask("localhost", Some(&empty)).await.err().unwrap();
    assert!(error.to_string().contains("holds no PEM certificate"), "{error}");
    let error = ask("localhost", Some(&directory.path().join("gone.pem"))).await.err().unwrap();
    assert!(matches!(error, HttpError::Authorities { .. }), "{error}");
    serving.abort();
}
