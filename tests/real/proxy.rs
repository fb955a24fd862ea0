//! A line to a server that a test can cut (both ends are told), freeze (neither is, as when the network dies), or keep from telling the server
//! that its client is gone (as when a machine dies: nothing more comes, and nothing says so).

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the connections through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// Open, but of a client that is gone the server is not told.
    Untold,
    Cut,
    Frozen,
}

/// A line to a server.
pub struct Proxy {
    pub port: u16,
    pub line: watch::Sender<Line>,
}

impl Proxy {
    pub async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (line, state) = watch::channel(Line::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, state.clone()));
            }
        });
        Proxy { port: own, line }
    }
}

async fn carry(mut client: TcpStream, port: u16, mut state: watch::Receiver<Line>) {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let client_is_gone = tokio::select! {
        // Neither tells the other end by itself.
        _ = tokio::io::copy(&mut from_client, &mut to_server) => true,
        _ = tokio::io::copy(&mut from_server, &mut to_client) => false,
        _ = state.wait_for(|line| matches!(line, Line::Cut | Line::Frozen)) => false,
    };
    let line = *state.borrow();
    if line == Line::Frozen || (line == Line::Untold && client_is_gone) {
        // Both ends stay open, and nothing goes through any more.
        let _ = state.wait_for(|line| *line == Line::Cut).await;
    }
}
