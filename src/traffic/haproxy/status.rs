//! Reading what HAProxy says about itself: tables with a line of names above them, and the list of sessions.
//!
//! Columns are found by name, since versions add some. Whatever can't be read is an error, never a default.

use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::step::StepError;
use crate::hook::message::printable;

/// A line of a table, by the names above it.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    names: &'a [&'a str],
    cells: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// The cell below a name; empty where HAProxy leaves it empty.
    ///
    /// # Errors
    /// If there is no such name.
    pub fn cell(&self, name: &str) -> Result<&'a str, StepError> {
        let at = self.names.iter().position(|found| *found == name);
        at.and_then(|at| self.cells.get(at).copied())
            .ok_or_else(|| StepError::definite(format!("HAProxy's answer has no column `{name}`: this version is not one dbmove can read")))
    }

    /// The same as a number.
    ///
    /// # Errors
    /// If it is none.
    pub fn number(&self, name: &str) -> Result<u64, StepError> {
        let cell = self.cell(name)?;
        cell.parse().map_err(|_| StepError::definite(format!("HAProxy says `{}` for `{name}`, which is no number", printable(cell))))
    }
}

/// One server, from `show servers state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub address: Option<SocketAddr>,
    /// Its name in the DNS, where HAProxy knows it by one.
    pub dns_name: Option<String>,
    /// Up, and by nobody's word in maintenance or being drained.
    pub in_service: bool,
    /// How HAProxy checks its health, if it does; [`Check::enabled`] says whether it does so now.
    pub check: Option<Check>,
}

impl ServerState {
    /// True if nothing but HAProxy's own check keeps it out of service: nobody is led there.
    #[must_use]
    pub fn is_down_by_its_check(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.enabled && check.down)
    }
}

/// A server's health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// It is carried out.
    pub enabled: bool,
    /// How the last one ended; `None` before that.
    pub passed: Option<bool>,
    /// It took the server down, and nobody has put it in maintenance or drains it.
    pub down: bool,
    /// Where else than to the server's own address the check goes, as far as this version tells.
    pub address: Option<String>,
    /// The same for its port.
    pub port: Option<u64>,
}

/// `srv_op_state` of a server that takes connections.
const RUNNING: &str = "2";
/// `srv_admin_state`: in maintenance by the configuration, though made ready since. Says nothing about now.
const WAS_DISABLED: u64 = 4;
/// `srv_op_state` of a server that is down.
const DOWN: &str = "0";
/// `srv_check_state`: there is a check, and it is carried out.
const CHECK_CONFIGURED: u64 = 2;
const CHECK_ENABLED: u64 = 4;
/// `srv_check_result`: before the first one; failed. Higher ones are passed.
const CHECK_UNKNOWN: u64 = 0;
const CHECK_FAILED: u64 = 2;

/// The servers of a backend, from `show servers state BACKEND`.
///
/// # Errors
/// If HAProxy answered something else.
pub fn servers(answer: &str) -> Result<Vec<ServerState>, StepError> {
    let mut lines = answer.lines().map(str::trim).skip_while(|line| !line.starts_with("# "));
    let Some(names) = lines.next() else { return Err(unexpected(answer)) };
    let names: Vec<&str> = names.trim_start_matches("# ").split(' ').collect();
    let mut servers = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let line = Line { names: &names, cells: line.split(' ').collect() };
        let (host, port) = (line.cell("srv_addr")?, line.number("srv_port")?);
        let address = host.parse().ok().zip(u16::try_from(port).ok()).map(|(host, port)| SocketAddr::new(host, port));
        let known_as = line.cell("srv_fqdn")?;
        let (op_state, in_maintenance) = (line.cell("srv_op_state")?, line.number("srv_admin_state")? & !WAS_DISABLED != 0);
        let (check_state, result) = (line.number("srv_check_state")?, line.number("srv_check_result")?);
        let check = (check_state & CHECK_CONFIGURED != 0).then(|| Check {
            enabled: check_state & CHECK_ENABLED != 0,
            passed: (result != CHECK_UNKNOWN).then_some(result > CHECK_FAILED),
            down: op_state == DOWN && !in_maintenance,
            // Not told before 2.4.
            address: line.cell("srv_check_addr").ok().filter(|address| *address != "-").map(str::to_owned),
            port: line.number("srv_check_port").ok().filter(|port| *port != 0),
        });
        servers.push(ServerState {
            name: line.cell("srv_name")?.to_owned(),
            address,
            dns_name: (known_as != "-").then(|| known_as.to_owned()),
            in_service: op_state == RUNNING && !in_maintenance,
            check,
        });
    }
    Ok(servers)
}

/// How full a server is, from `show stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fullness {
    /// Its `maxconn`; `None` if it has none.
    pub maxconn: Option<u64>,
    /// Connections it serves.
    pub sessions: u64,
    /// Connections that wait for it, or for any server of its backend.
    pub queued: u64,
    /// Connections it has been given since HAProxy began to count.
    pub given: u64,
    /// The backend's mode: `tcp`, `http`.
    pub mode: String,
    /// How the backend chooses a server: `roundrobin`. Empty below level `operator`.
    pub balance: String,
}

/// The server's and its backend's lines of `show stat`.
///
/// # Errors
/// If they are not there, or HAProxy answered something else.
pub fn fullness(answer: &str, backend: &str, server: &str) -> Result<Fullness, StepError> {
    let mut lines = answer.lines().map(str::trim).skip_while(|line| !line.starts_with("# "));
    let Some(names) = lines.next() else { return Err(unexpected(answer)) };
    let names: Vec<&str> = names.trim_start_matches("# ").split(',').collect();
    let (mut of_server, mut of_backend) = (None, None);
    for line in lines.filter(|line| !line.is_empty()) {
        let line = Line { names: &names, cells: line.split(',').collect() };
        if line.cell("pxname")? == backend {
            match line.cell("svname")? {
                "BACKEND" => of_backend = Some(line),
                name if name == server => of_server = Some(line),
                _ => {}
            }
        }
    }
    let (Some(of_server), Some(of_backend)) = (of_server, of_backend) else {
        return Err(StepError::definite(format!("HAProxy has no server `{server}` in a backend `{backend}`"))
            .hint("see `show stat` on its control socket for the names it knows"));
    };
    let maxconn = if of_server.cell("slim")?.is_empty() { None } else { Some(of_server.number("slim")?).filter(|limit| *limit > 0) };
    Ok(Fullness {
        maxconn,
        sessions: of_server.number("scur")?,
        queued: of_server.number("qcur")? + of_backend.number("qcur")?,
        given: of_server.number("stot")?,
        mode: of_backend.cell("mode")?.to_owned(),
        balance: of_backend.cell("algo")?.to_owned(),
    })
}

/// How the last health check of a server ended, in HAProxy's words: `L7STS: Access denied for user …`.
///
/// # Errors
/// If it is not there, or HAProxy answered something else.
pub fn last_check(answer: &str, backend: &str, server: &str) -> Result<String, StepError> {
    let mut lines = answer.lines().map(str::trim).skip_while(|line| !line.starts_with("# "));
    let Some(names) = lines.next() else { return Err(unexpected(answer)) };
    let names: Vec<&str> = names.trim_start_matches("# ").split(',').collect();
    for line in lines.filter(|line| !line.is_empty()) {
        let line = Line { names: &names, cells: line.split(',').collect() };
        if line.cell("pxname")? == backend && line.cell("svname")? == server {
            // While a check is carried out, its last result has a `*` before it. What a server said may be in quotes, and is cut off at a comma.
            let (status, said) = (line.cell("check_status")?.trim_start_matches("* "), line.cell("last_chk")?.trim_matches('"'));
            let status = if status.is_empty() { "no result" } else { status };
            return Ok(printable(&if said.is_empty() { status.to_owned() } else { format!("{status}: {said}") }));
        }
    }
    Err(StepError::definite(format!("HAProxy has no server `{server}` in a backend `{backend}`")))
}

/// A connection that waits in a backend's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where it comes from, as HAProxy sees it.
    pub from: String,
    /// How long it may still wait; `None`: for ever.
    pub patience: Option<Duration>,
}

/// Who waits for a server of the backend, from `show sess`.
///
/// # Errors
/// If a time can't be read.
pub fn waiting(answer: &str, backend: &str) -> Result<Vec<Waiting>, StepError> {
    let mut found = Vec::new();
    for line in answer.lines() {
        let field = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        if field("be") != Some(backend) || field("srv") != Some("<none>") {
            continue;
        }
        // The whole session's, which is the soonest of all its times: the queue's, and how long its client may be silent.
        let patience = field("exp").filter(|left| !left.is_empty() && !left.starts_with("<NEVER>")).map(time).transpose()?;
        found.push(Waiting { from: field("src").unwrap_or_default().to_owned(), patience });
    }
    Ok(found)
}

/// HAProxy's way to write a time: `59s`, `4m58s`, `1h2m`, `3d1h`.
fn time(written: &str) -> Result<Duration, StepError> {
    let unreadable = || StepError::definite(format!("HAProxy says `{}` for a time, which can't be read", printable(written)));
    let (mut seconds, mut digits) = (0_u64, String::new());
    for character in written.chars() {
        let unit = match character {
            '0'..='9' => {
                digits.push(character);
                continue;
            }
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(unreadable()),
        };
        let number: u64 = digits.parse().map_err(|_| unreadable())?;
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(unreadable)?;
        digits.clear();
    }
    if digits.is_empty() { Ok(Duration::from_secs(seconds)) } else { Err(unreadable()) }
}

/// A fact of `show info`: `Version`, `Nbproc`.
#[must_use]
pub fn fact<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn unexpected(answer: &str) -> StepError {
    let shown: String = answer.trim().chars().take(200).collect();
    StepError::definite(format!("HAProxy answered \"{}\"", printable(&shown)))
        .hint("check `socket`, `backend` and `server`; `show stat` on the control socket lists the names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_with_their_state() {
        let answer = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_check_result srv_check_state srv_fqdn srv_port\n\
                      3 school 1 old 127.0.0.1 2 0 0 0 - 29901\n3 school 2 new 127.0.0.1 2 4 0 0 - 29902\n\
                      3 school 3 spare 10.0.0.9 0 5 0 0 db3.example 3306\n3 school 4 drained 10.0.0.8 2 8 0 0 - 3306\n\n";
        let found = servers(answer).unwrap();
        assert_eq!(found.iter().map(|server| server.in_service).collect::<Vec<_>>(), [true, true, false, false]);
        assert_eq!(found[0].address, Some("127.0.0.1:29901".parse().unwrap()));
        assert_eq!(found[2].dns_name.as_deref(), Some("db3.example"));
        assert!(found.iter().all(|server| server.check.is_none() && !server.is_down_by_its_check()));
        assert!(servers("Can't find backend.\n\n").unwrap_err().message.contains("Can't find backend."));
    }

    #[test]
    fn checks_are_read_with_their_result() {
        let names = "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_check_result srv_check_state srv_fqdn srv_port srv_check_port \
                     srv_check_addr";
        let of = |states: &str| servers(&format!("1\n# {names}\n3 school 1 main 127.0.0.1 {states}\n")).unwrap().remove(0);
        let up = of("2 0 3 6 - 3306 9200 10.0.0.9");
        let check = Check { enabled: true, passed: Some(true), down: false, address: Some("10.0.0.9".to_owned()), port: Some(9200) };
        assert_eq!((up.in_service, up.check), (true, Some(check)));
        // Failed; failed while another is under way; before the first; put in maintenance; checks turned off.
        let told = |states| (of(states).is_down_by_its_check(), of(states).check.unwrap().passed);
        assert_eq!(told("0 0 2 6 - 3306 0 -"), (true, Some(false)));
        assert_eq!(told("0 0 0 7 - 3306 0 -"), (true, None));
        assert_eq!(told("0 1 0 14 - 3306 0 -"), (false, None));
        assert_eq!(told("0 0 2 2 - 3306 0 -"), (false, Some(false)));
    }

    #[test]
    fn the_last_check_is_told_in_haproxys_words() {
        let answer = "# pxname,svname,check_status,last_chk,\nschool,main,* L7STS,\"Access denied, as ever\",\nschool,new,,,\n";
        assert_eq!(last_check(answer, "school", "main").unwrap(), "L7STS: Access denied");
        assert_eq!(last_check(answer, "school", "new").unwrap(), "no result");
        assert!(last_check(answer, "school", "old").is_err());
    }

    #[test]
    fn fullness_is_read_by_the_names_of_columns() {
        let answer = "# pxname,svname,qcur,scur,slim,stot,mode,algo,\nmysql,FRONTEND,,1,2000,9,tcp,,\nschool,old,1,16,8,70,tcp,,\nschool,BACKEND,3,16,200,71,tcp,first,\n";
        let found = fullness(answer, "school", "old").unwrap();
        let expected =
            Fullness { maxconn: Some(8), sessions: 16, queued: 4, given: 70, mode: "tcp".to_owned(), balance: "first".to_owned() };
        assert_eq!(found, expected);
        assert_eq!(fullness(&answer.replace("16,8", "16,"), "school", "old").unwrap().maxconn, None);
        assert!(fullness(answer, "school", "new").unwrap_err().message.contains("no server `new`"));
    }

    #[test]
    fn who_waits_is_read_with_how_long() {
        let answer = "0x1: proto=tcpv4 src=127.0.0.1:5 fe=mysql be=school srv=old ts=00 exp=4s rc=0 c_exp=\n\
                      0x2: proto=tcpv4 src=127.0.0.1:6 fe=mysql be=school srv=<none> ts=00 exp=1m9s rc=0 c_exp=1m9s\n\
                      0x3: proto=tcpv4 src=127.0.0.1:7 fe=mysql be=other srv=<none> ts=00 exp=9s rc=0 c_exp=9s\n";
        let found = waiting(answer, "school").unwrap();
        assert_eq!(found, [Waiting { from: "127.0.0.1:6".to_owned(), patience: Some(Duration::from_secs(69)) }]);
        assert_eq!(time("1d2h").unwrap(), Duration::from_secs(93_600));
        for broken in ["", "1", "s", "1x"] {
            assert!(time(broken).is_err() || broken.is_empty(), "{broken}");
        }
    }
}
