//! A zone on real name servers: a primary that takes changes, a secondary that gets the zone from it, and a resolver that clients use.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dbmove::local::{LocalNameServer, name_server_available};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigner};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

/// The secret of the key `dbmove`, in base64.
pub const SECRET: &str = "ZGJtb3ZlIG1heSBjaGFuZ2UgdGhpcyByZWNvcmQ=";
/// That of `stranger`, which the primary knows and lets change nothing.
pub const STRANGER: &str = "c29tZWJvZHkgZWxzZSdzIGtleSBmb3IgYWxsIGVsc2U=";
pub const ZONE: &str = "school.test";

/// Notes that `test` is skipped, if BIND can't be had.
pub fn names_skipped(test: &str) -> bool {
    match name_server_available() {
        Ok(()) => false,
        Err(reason) => {
            crate::real::skip(test, &reason);
            true
        }
    }
}

/// The three servers. They end with it.
pub struct Names {
    pub primary: LocalNameServer,
    pub secondary: LocalNameServer,
    pub resolver: LocalNameServer,
}

fn keys() -> String {
    [("dbmove", SECRET), ("stranger", STRANGER)]
        .map(|(name, secret)| format!("key \"{name}\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n"))
        .concat()
}

/// The primary's statements; `transfers` says who may get the zone.
fn primary_statements(secondary: u16, transfers: &str) -> String {
    format!(
        "{}zone \"{ZONE}\" {{ type primary; file \"zone\"; allow-update {{ key \"dbmove\"; }}; allow-transfer {{ {transfers}; }}; notify explicit; \
         also-notify {{ 127.0.0.1 port {secondary}; }}; }};\n",
        keys()
    )
}

const PRIMARY_OPTIONS: &str = "recursion no; notify-delay 0; serial-query-rate 100;";

const RESOLVER_OPTIONS: &str = "recursion yes; allow-recursion { any; };";

/// The resolver's statements: it asks the secondary.
fn resolver_statements(secondary: u16) -> String {
    format!("zone \"{ZONE}\" {{ type forward; forward only; forwarders {{ 127.0.0.1 port {secondary}; }}; }};\n")
}

fn made(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(&path).unwrap();
    path
}

impl Names {
    /// A zone with `records`, as a zone file has them. The servers' files are in `directory`.
    pub async fn start(directory: &Path, records: &str) -> Names {
        let port = || LocalNameServer::free_port().unwrap();
        let (first, second, third) = (port(), port(), port());
        let zone = format!(
            "$ORIGIN {ZONE}.\n$TTL 300\n@ SOA ns1 hostmaster 1 60 1 600 1\n@ NS ns1\n@ NS ns2\nns1 A 127.0.0.1\nns2 A 127.0.0.1\n{records}\n"
        );
        let (primary, secondary, resolver) = (made(directory, "primary"), made(directory, "secondary"), made(directory, "resolver"));
        std::fs::write(primary.join("zone"), zone).unwrap();
        let statements = primary_statements(second, "any");
        let primary = LocalNameServer::start(&primary, first, PRIMARY_OPTIONS, &statements).await.unwrap();
        let statements =
            format!("zone \"{ZONE}\" {{ type secondary; file \"zone\"; primaries {{ 127.0.0.1 port {first}; }}; min-retry-time 1; }};\n");
        let secondary = LocalNameServer::start(&secondary, second, "recursion no;", &statements).await.unwrap();
        let resolver = LocalNameServer::start(&resolver, third, RESOLVER_OPTIONS, &resolver_statements(second)).await.unwrap();
        let names = Names { primary, secondary, resolver };
        // The zone's first transfer.
        for _ in 0..500 {
            if lookup(&names.secondary.address(), ZONE, RecordType::SOA).await.0 == ResponseCode::NoError {
                return names;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the secondary did not get the zone: {}", names.secondary.log());
    }

    /// From here on the resolver keeps what it is told for a minute at least, whatever the record says.
    pub async fn have_the_resolver_keep_for_longer(&self) {
        let port = self.secondary.address().parse::<SocketAddr>().unwrap().port();
        let options = format!("{RESOLVER_OPTIONS} min-cache-ttl 60;");
        self.resolver.reconfigure(&options, &resolver_statements(port)).await.unwrap();
    }

    /// From here on the secondary gets no change any more: it goes on to show what it has.
    pub async fn cut_off_the_secondary(&self) {
        let port = self.secondary.address().parse::<SocketAddr>().unwrap().port();
        self.primary.reconfigure(PRIMARY_OPTIONS, &primary_statements(port, "none")).await.unwrap();
    }

    /// It gets them again.
    pub async fn connect_the_secondary(&self) {
        let port = self.secondary.address().parse::<SocketAddr>().unwrap().port();
        self.primary.reconfigure(PRIMARY_OPTIONS, &primary_statements(port, "any")).await.unwrap();
    }

    /// The record at both servers that hold the zone: they have to agree.
    pub async fn shown(&self, name: &str) -> String {
        let (primary, secondary) = (shown_at(&self.primary.address(), name).await, shown_at(&self.secondary.address(), name).await);
        assert_eq!(primary, secondary, "primary and secondary");
        primary
    }
}

fn absolute(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    name
}

/// One question by UDP.
async fn lookup(server: &str, name: &str, kind: RecordType) -> (ResponseCode, Vec<Record>) {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(absolute(name), kind));
    for _ in 0..10 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(server).await.unwrap();
        let mut buffer = [0; 2048];
        let asked = async {
            socket.send(&message.to_vec().unwrap()).await?;
            socket.recv(&mut buffer).await
        };
        if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_secs(2), asked).await {
            let answer = Message::from_vec(&buffer[..length]).unwrap();
            return (answer.metadata.response_code, answer.answers);
        }
    }
    panic!("{server} does not answer");
}

/// The records at a name: `A 10.0.0.1 for 60`, and so on.
pub async fn shown_at(server: &str, name: &str) -> String {
    let mut shown: Vec<String> = Vec::new();
    for kind in [RecordType::A, RecordType::AAAA] {
        for record in lookup(server, name, kind).await.1.iter().filter(|record| record.name == absolute(name)) {
            let text = format!("{} {} for {}", record.record_type(), record.data, record.ttl);
            if !shown.contains(&text) {
                shown.push(text);
            }
        }
    }
    shown.join(", ")
}

/// The address a client gets, by a server's answer.
pub async fn address(server: &str, name: &str) -> Option<IpAddr> {
    lookup(server, name, RecordType::A).await.1.iter().find_map(|record| record.data.ip_addr())
}

/// Somebody else's change: the record at `name` becomes the address `data`, whatever it was.
pub async fn change(server: &str, name: &str, ttl: u32, data: Ipv4Addr) {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Update);
    message.add_query(Query::query(absolute(ZONE), RecordType::SOA));
    for kind in [RecordType::A, RecordType::AAAA, RecordType::CNAME] {
        let mut removed = Record::update0(absolute(name), 0, kind);
        removed.dns_class = DNSClass::ANY;
        message.add_authority(removed);
    }
    message.add_authority(Record::from_rdata(absolute(name), ttl, RData::A(A(data))));
    let secret = data_encoding::BASE64.decode(SECRET.as_bytes()).unwrap();
    let signer = TSigner::new(secret, TsigAlgorithm::HmacSha256, absolute("dbmove"), 300).unwrap();
    message.finalize(&signer, SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let answer = Message::from_vec(&by_tcp(server, &message.to_vec().unwrap()).await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
}

async fn by_tcp(server: &str, message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_all(&[&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()).await.unwrap();
    read_message(&mut stream).await.unwrap()
}

async fn read_message(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// What stands between dbmove and a primary does with a change.
#[derive(Clone)]
pub enum Manner {
    /// Somebody else's change comes first: the record at the name becomes this.
    SomebodyElseFirst(String, Ipv4Addr),
    /// The change is made, its answer lost.
    LosesTheAnswer,
    /// The change is lost, and answered well, without a signature.
    Lies,
}

/// A relay in front of a primary: questions pass, changes (which come by TCP) meet its manner.
pub struct Relay {
    pub address: String,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Relay {
    pub async fn start(primary: String, manner: Manner) -> Relay {
        let changes = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = changes.local_addr().unwrap();
        let questions = UdpSocket::bind(address).await.unwrap();
        let server = primary.clone();
        let asked = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = questions.recv_from(&mut buffer).await {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                socket.connect(&server).await.unwrap();
                socket.send(&buffer[..length]).await.unwrap();
                let mut answer = [0; 4096];
                if let Ok(Ok(length)) = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut answer)).await {
                    questions.send_to(&answer[..length], from).await.unwrap();
                }
            }
        });
        let changed = tokio::spawn(async move {
            while let Ok((mut stream, _)) = changes.accept().await {
                let Ok(message) = read_message(&mut stream).await else { continue };
                let answer = match &manner {
                    Manner::SomebodyElseFirst(name, data) => {
                        change(&primary, name, 1, *data).await;
                        by_tcp(&primary, &message).await
                    }
                    Manner::LosesTheAnswer => {
                        by_tcp(&primary, &message).await;
                        continue;
                    }
                    Manner::Lies => {
                        let asked = Message::from_vec(&message).unwrap();
                        Message::response(asked.metadata.id, OpCode::Update).to_vec().unwrap()
                    }
                };
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                let _ = stream.write_all(&[&length[..], &answer].concat()).await;
            }
        });
        Relay { address: address.to_string(), tasks: vec![asked, changed] }
    }
}
