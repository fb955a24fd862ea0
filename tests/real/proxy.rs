//! A line to a server that a test can cut (both ends are told) or freeze (neither is, as when a machine dies).

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the connections through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
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
                let mut state = state.clone();
                tokio::spawn(async move {
                    let mut client = client;
                    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.wait_for(|line| *line != Line::Open) => {}
                    }
                    if *state.borrow() == Line::Frozen {
                        // Both ends stay open, and nothing goes through any more.
                        let _ = state.wait_for(|line| *line == Line::Cut).await;
                    }
                });
            }
        });
        Proxy { port: own, line }
    }
}
