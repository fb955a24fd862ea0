//! One name server: a question by UDP, and by TCP where the answer does not fit; a change, signed.
//!
//! # What must hold
//!
//! * *An answer is an answer to what was asked*: from the address asked, with the id and the question sent. The id and the port are new and random
//!   each time.
//! * *A question may be asked again, a change is sent once.* Whoever sends a change looks afterwards whether it shows; here it is only
//!   said what the server answered. A change goes by TCP, so that it is not lost on the way, nor comes twice.
//! * *An authoritative server speaks of its own zone*: an answer without the authoritative bit is no answer about the record.
//! * *What a server says of a change counts only with its signature*, except that it does not accept the key, which it can't sign.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record as WireRecord, RecordType, TSigner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::error::DnsError;
use super::record::{Record, Ttl, Value};

/// For one answer by UDP; a question is asked [`TRIES`] times.
const UDP_LIMIT: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// For one exchange by TCP, connecting included.
const TCP_LIMIT: Duration = Duration::from_secs(5);
/// What an answer by UDP may hold: what passes everywhere without being split.
const UDP_SIZE: u16 = 1232;
/// The port of name servers.
const PORT: u16 = 53;

/// A server and where it is.
#[derive(Clone, Debug)]
pub(super) struct NameServer {
    /// As the playbook writes it.
    pub(super) shown: String,
    address: SocketAddr,
}

/// `host`, `host:port`, `address` or `[address]:port`.
pub(super) fn parse_server(text: &str) -> Option<(String, u16)> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some((address.to_string(), PORT));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() != 0).then(|| (address.ip().to_string(), address.port()));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, PORT),
    };
    super::record::name(host).map(|_| (host.to_owned(), port))
}

/// What is to be there before a change, and after it. Where either is `None`, nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    pub(super) expected: Option<&'a Value>,
    pub(super) wanted: &'a Record,
}

impl NameServer {
    /// Finds its address.
    ///
    /// # Errors
    /// [`DnsError::Unknown`].
    pub(super) async fn find(written: &str) -> Result<NameServer, DnsError> {
        let unknown = |source| DnsError::Unknown { server: written.to_owned(), source };
        let place =
            parse_server(written).ok_or_else(|| unknown(io::Error::new(io::ErrorKind::InvalidInput, "it is no host or address")))?;
        let mut found = tokio::net::lookup_host(place).await.map_err(unknown)?;
        let address = found.next().ok_or_else(|| unknown(io::ErrorKind::NotFound.into()))?;
        Ok(NameServer { shown: written.to_owned(), address })
    }

    /// The record at `name`, from a server that holds the zone itself.
    ///
    /// # Errors
    /// If there is none, or several, or the server does not hold the zone.
    pub(super) async fn authoritative(&self, name: &Name) -> Result<Record, DnsError> {
        let mut found: Vec<Record> = Vec::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let answer = self.ask(name, kind, false).await?;
            match answer.metadata.response_code {
                ResponseCode::NoError | ResponseCode::NXDomain if answer.metadata.authoritative => {}
                ResponseCode::NoError | ResponseCode::NXDomain => {
                    return Err(DnsError::NotAuthoritative { server: self.shown.clone(), name: name.to_ascii() });
                }
                code => return Err(self.code(code, &format!("look up `{name}`"))),
            }
            for record in owned(&answer, name) {
                if !found.iter().any(|known| known.value == record.value) {
                    found.push(record);
                }
            }
        }
        match (found.pop(), found.is_empty()) {
            (None, _) => Err(DnsError::NoRecord { server: self.shown.clone(), name: name.to_ascii() }),
            (Some(record), true) => Ok(record),
            (Some(record), false) => {
                found.push(record);
                let found = found.into_iter().map(|record| record.value).collect();
                Err(DnsError::Several { server: self.shown.clone(), name: name.to_ascii(), found })
            }
        }
    }

    /// Other records than an address or a CNAME at `name`, as far as the server tells: beside them no CNAME can stand.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) async fn beside(&self, name: &Name) -> Result<Vec<RecordType>, DnsError> {
        let answer = self.ask(name, RecordType::ANY, false).await?;
        let others = answer.answers.iter().filter(|record| record.name == *name).map(WireRecord::record_type);
        // What signs a zone goes with the records it signs.
        let ours = [RecordType::A, RecordType::AAAA, RecordType::CNAME, RecordType::RRSIG, RecordType::NSEC, RecordType::HINFO];
        Ok(others.filter(|kind| !ours.contains(kind)).collect())
    }

    /// The name servers that the zone names itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub(super) async fn name_servers(&self, zone: &Name) -> Result<Vec<String>, DnsError> {
        let answer = self.ask(zone, RecordType::NS, false).await?;
        let named = answer.answers.iter().filter(|record| record.name == *zone).filter_map(|record| match &record.data {
            RData::NS(server) => Some(server.0.to_ascii()),
            _ => None,
        });
        Ok(named.collect())
    }

    /// What a resolver tells clients that look up `name` for `kind`: the records at that very name. Nothing if it says that there are none.
    ///
    /// # Errors
    /// If it does not answer, or with an error.
    pub(super) async fn resolved(&self, name: &Name, kind: RecordType) -> Result<Vec<Record>, DnsError> {
        let answer = self.ask(name, kind, true).await?;
        match answer.metadata.response_code {
            ResponseCode::NoError => Ok(owned(&answer, name).collect()),
            ResponseCode::NXDomain => Ok(Vec::new()),
            code => Err(self.code(code, &format!("look up `{name}`"))),
        }
    }

    /// Sends a change, once. `Ok` is what the server says, not what can be seen.
    ///
    /// # Errors
    /// [`DnsError`]; whether anything was changed is known only of an error that a signed answer tells.
    pub(super) async fn change(&self, zone: &Name, name: &Name, change: Change<'_>, signer: &TSigner) -> Result<(), DnsError> {
        let unusable = |why: &str| DnsError::Garbled { server: self.shown.clone(), why: why.to_owned() };
        let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Update);
        message.add_query(Query::query(zone.clone(), RecordType::SOA));
        // The prerequisites (RFC 2136, 2.4) travel where answers do, the updates (2.5) where authorities do.
        let kinds = [RecordType::A, RecordType::AAAA, RecordType::CNAME];
        let expected_kind = change.expected.map(Value::record_type);
        for kind in kinds.into_iter().filter(|kind| Some(*kind) != expected_kind) {
            let mut absent = WireRecord::update0(name.clone(), 0, kind);
            absent.dns_class = DNSClass::NONE;
            message.add_answer(absent);
        }
        if let Some(expected) = change.expected {
            let data = expected.data().ok_or_else(|| unusable("the expected record can't be written"))?;
            message.add_answer(WireRecord::from_rdata(name.clone(), 0, data));
            let mut removed = WireRecord::update0(name.clone(), 0, expected.record_type());
            removed.dns_class = DNSClass::ANY;
            message.add_authority(removed);
        }
        let data = change.wanted.value.data().ok_or_else(|| unusable("the wanted record can't be written"))?;
        message.add_authority(WireRecord::from_rdata(name.clone(), change.wanted.ttl.0, data));

        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let verifier = message.finalize(signer, now).map_err(|error| unusable(&error.to_string()))?;
        let sent = message.to_vec().map_err(|error| unusable(&error.to_string()))?;
        let bytes = self.in_time(TCP_LIMIT, self.by_tcp(&sent)).await?;
        let answer = self.read(&bytes, &message)?;
        let key = || signer.signer_name().to_ascii();
        if let Some(error) = answer.signature().and_then(|signature| signature.data.error) {
            return Err(DnsError::Key { server: self.shown.clone(), key: key(), error });
        }
        let signed = match verifier {
            Some(mut verifier) => verifier.verify(&bytes).map(drop).map_err(|error| error.to_string()),
            None => Err("it was not signed".to_owned()),
        };
        match (answer.metadata.response_code, signed) {
            // Servers that don't know the zone, or the key, may refuse without a signature. That is no success either way.
            (ResponseCode::NoError, Err(why)) => Err(DnsError::Unsigned { server: self.shown.clone(), key: key(), why }),
            (ResponseCode::NoError, Ok(())) => Ok(()),
            (code @ (ResponseCode::NXRRSet | ResponseCode::YXRRSet | ResponseCode::NXDomain | ResponseCode::YXDomain), _) => {
                let expected = change.expected.map_or_else(|| "nothing".to_owned(), Value::to_string);
                Err(DnsError::Changed { server: self.shown.clone(), name: name.to_ascii(), expected, code })
            }
            (code, _) => Err(self.code(code, &format!("change `{name}`"))),
        }
    }

    fn code(&self, code: ResponseCode, action: &str) -> DnsError {
        DnsError::Code { server: self.shown.clone(), code, action: action.to_owned() }
    }

    /// One question.
    async fn ask(&self, name: &Name, kind: RecordType, recursion: bool) -> Result<Message, DnsError> {
        let mut last = None;
        for _ in 0..TRIES {
            let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
            message.metadata.recursion_desired = recursion;
            message.add_query(Query::query(name.clone(), kind));
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_SIZE);
            message.set_edns(edns);
            let sent = message.to_vec().map_err(|error| DnsError::Garbled { server: self.shown.clone(), why: error.to_string() })?;
            match self.in_time(UDP_LIMIT, self.by_udp(&sent, &message)).await {
                Ok(answer) if answer.metadata.truncation => {
                    let bytes = self.in_time(TCP_LIMIT, self.by_tcp(&sent)).await?;
                    return self.read(&bytes, &message);
                }
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| DnsError::Silent { server: self.shown.clone(), waited: UDP_LIMIT * TRIES }))
    }

    async fn in_time<T>(&self, limit: Duration, exchange: impl Future<Output = Result<T, DnsError>>) -> Result<T, DnsError> {
        tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| Err(DnsError::Silent { server: self.shown.clone(), waited: limit }))
    }

    fn network(&self) -> impl Fn(io::Error) -> DnsError {
        |source| DnsError::Network { server: self.shown.clone(), source }
    }

    /// The answer by UDP. What is no answer to `question` is passed over: anybody may send it.
    async fn by_udp(&self, sent: &[u8], question: &Message) -> Result<Message, DnsError> {
        let any: SocketAddr = if self.address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await.map_err(self.network())?;
        socket.connect(self.address).await.map_err(self.network())?;
        socket.send(sent).await.map_err(self.network())?;
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await.map_err(self.network())?;
            if let Ok(answer) = self.read(&buffer[..length], question) {
                return Ok(answer);
            }
        }
    }

    async fn by_tcp(&self, sent: &[u8]) -> Result<Vec<u8>, DnsError> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
            stream.write_all(&[&length.to_be_bytes()[..], sent].concat()).await?;
            let length = stream.read_u16().await?;
            let mut answer = vec![0; length.into()];
            stream.read_exact(&mut answer).await?;
            Ok(answer)
        };
        exchange.await.map_err(self.network())
    }

    /// A message, if it is the answer to `question`.
    fn read(&self, bytes: &[u8], question: &Message) -> Result<Message, DnsError> {
        let garbled = |why: String| DnsError::Garbled { server: self.shown.clone(), why };
        let answer = Message::from_vec(bytes).map_err(|error| garbled(error.to_string()))?;
        let ours = answer.metadata.message_type == MessageType::Response
            && answer.metadata.id == question.metadata.id
            && answer.metadata.op_code == question.metadata.op_code
            // An error may come without the question.
            && (answer.queries.is_empty() || answer.queries == question.queries);
        if ours { Ok(answer) } else { Err(garbled("it is the answer to another question".to_owned())) }
    }
}

/// The addresses and CNAMEs of an answer that stand at `name` itself.
fn owned<'a>(answer: &'a Message, name: &'a Name) -> impl Iterator<Item = Record> + 'a {
    answer.answers.iter().filter(|record| record.name == *name && record.dns_class == DNSClass::IN).filter_map(|record| {
        let value = Value::of_data(&record.data)?;
        Some(Record { value, ttl: Ttl(record.ttl) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_as_people_do() {
        let of = |text: &str| parse_server(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(of("192.0.2.1").unwrap(), "192.0.2.1 53");
        assert_eq!(of("192.0.2.1:5353").unwrap(), "192.0.2.1 5353");
        assert_eq!(of("2001:db8::1").unwrap(), "2001:db8::1 53");
        assert_eq!(of("[2001:db8::1]:5353").unwrap(), "2001:db8::1 5353");
        assert_eq!(of("ns1.example.org").unwrap(), "ns1.example.org 53");
        assert_eq!(of("ns1.example.org:54").unwrap(), "ns1.example.org 54");
        for broken in ["", "a b", "ns1:0", "ns1:x", "${env:NS}"] {
            assert_eq!(of(broken), None, "{broken}");
        }
    }
}
