//! One connection of our own that waits in HAProxy's queue, before everybody else, and tells who greets it.
//!
//! A MySQL server speaks first: whoever is let through receives its greeting, with its version and the connection's number there. So
//! without an account the connection tells which server is behind the proxy, and the server's own process list proves it.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::engine::step::StepError;
use crate::hook::message::printable;
use crate::traffic::client::Place;

/// For the connection to HAProxy itself.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A greeting has about a hundred bytes.
const LARGEST: usize = 4096;
/// The protocol of every MySQL since 3.21.
const PROTOCOL: u8 = 10;
/// An error in place of a greeting.
const ERROR: u8 = 0xff;

/// How a server greets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Its version, as it says it to clients.
    pub version: String,
    /// The connection's number there.
    pub connection: u32,
}

/// A connection that has said nothing yet.
pub struct Scout {
    stream: TcpStream,
    received: Vec<u8>,
    /// Where HAProxy sees it come from, unless addresses are translated on the way.
    pub from: String,
}

impl Scout {
    /// Connects to HAProxy.
    ///
    /// # Errors
    /// If that does not succeed in time.
    pub(super) async fn connect(place: &Place) -> Result<Scout, StepError> {
        let connect = async {
            let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
            let from = stream.local_addr()?.to_string();
            Ok::<_, std::io::Error>(Scout { stream, received: Vec::new(), from })
        };
        match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(Ok(scout)) => Ok(scout),
            Ok(Err(error)) => Err(StepError::transient(format!("HAProxy can't be reached at `{place}`: {error}"))),
            Err(_) => Err(StepError::transient(format!("HAProxy can't be reached at `{place}`: no answer within {CONNECT_LIMIT:?}"))),
        }
    }

    /// The greeting, if one arrives within `limit`.
    ///
    /// # Errors
    /// If the connection was closed, or what arrives is no greeting.
    pub async fn greeting(&mut self, limit: Duration) -> Result<Option<Greeting>, StepError> {
        let closed = |why: &str| StepError::definite(format!("HAProxy closed our connection that was first in its queue: {why}"));
        let until = tokio::time::Instant::now() + limit;
        loop {
            if let Some(greeting) = parse(&self.received)? {
                return Ok(Some(greeting));
            }
            match tokio::time::timeout_at(until, self.stream.read_buf(&mut self.received)).await {
                Err(_) => return Ok(None),
                Ok(Ok(0)) => return Err(closed("nothing was received")),
                Ok(Ok(_)) if self.received.len() > LARGEST => return Err(closed("what was received is no greeting of a MySQL server")),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(closed(&error.to_string())),
            }
        }
    }
}

/// The greeting in what was received so far; none while it is not complete.
fn parse(received: &[u8]) -> Result<Option<Greeting>, StepError> {
    let [a, b, c, _, body @ ..] = received else { return Ok(None) };
    let length = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
    let strange = || StepError::definite("what answers behind HAProxy does not greet as a MySQL server does");
    if length > LARGEST {
        return Err(strange());
    }
    let Some(body) = body.get(..length) else { return Ok(None) };
    match body {
        [PROTOCOL, rest @ ..] => {
            let end = rest.iter().position(|byte| *byte == 0).ok_or_else(strange)?;
            let Some([d, e, f, g]) = rest.get(end + 1..end + 5) else { return Err(strange()) };
            let version = String::from_utf8_lossy(&rest[..end]).into_owned();
            Ok(Some(Greeting { version, connection: u32::from_le_bytes([*d, *e, *f, *g]) }))
        }
        [ERROR, _, _, message @ ..] => Err(StepError::definite(format!(
            "the server behind HAProxy refused our connection: {}",
            printable(&String::from_utf8_lossy(message))
        ))),
        _ => Err(strange()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let mut packet = vec![u8::try_from(body.len()).unwrap(), 0, 0, 0];
        packet.extend_from_slice(body);
        packet
    }

    #[test]
    fn a_greeting_is_read_when_it_is_complete() {
        let whole = packet(b"\x0a9.7.4-2\0\x05\x01\0\0rest");
        for part in 0..whole.len() {
            assert_eq!(parse(&whole[..part]).unwrap(), None);
        }
        assert_eq!(parse(&whole).unwrap(), Some(Greeting { version: "9.7.4-2".to_owned(), connection: 261 }));
        let refused = packet(b"\xff\x10\x04Too many connections");
        assert!(parse(&refused).unwrap_err().message.ends_with("Too many connections"));
        for strange in [packet(b"HTTP/1.1"), packet(b"\x0ano end"), packet(b"\x0a5.5\0\x01"), packet(b""), b"HTTP/1.1 400".to_vec()] {
            assert!(parse(&strange).is_err(), "{strange:?}");
        }
    }
}
