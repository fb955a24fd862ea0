//! The playbook of the move: what `playbooks/mysql-behind-haproxy.yaml` is, filled in for the demo's servers.

use super::place::{BACKEND_SERVER, BACKENDS, Pair, Place};
use crate::demo::school::DATABASE;
use crate::local::LocalServer;

/// The playbook's name.
pub const NAME: &str = "school";

/// The step that copies.
pub const COPY_STEP: &str = "snapshot";
/// The step that writes through the route and measures the write gap.
pub const CANARY_STEP: &str = "canary";
/// The steps that compare rows: before the switch, and once more while writes are held.
pub const VERIFY_STEPS: [&str; 2] = ["rows", "last_check"];

/// The step that asks whether the way back may be closed.
pub const GATE_STEP: &str = "trusted";

/// The text of the playbook. `chunk_kib`: how much is copied at a time.
#[must_use]
pub fn text(place: &Place, chunk_kib: u32) -> String {
    let password = quoted(&format!("${{file:{}}}", place.password_file().display()));
    let endpoint = |server: &LocalServer, user: &str| {
        format!("{{ url: \"mysql://{user}@{}:{}/\", password: {password}, tls: off }}", server.host(), server.port())
    };
    let pair = |pair: &Pair| (endpoint(&pair.source, "dbmove"), endpoint(&pair.target, "admin"));
    let (source, target) = pair(&place.production);
    let (rehearsal_source, rehearsal_target) = pair(&place.rehearsal);
    let (door, rehearsal_door) = (place.doors.production, place.doors.rehearsal);
    let (socket, [backend, rehearsal_backend]) = (quoted(&place.proxy.socket().display().to_string()), BACKENDS);
    let [rows, last_check] = VERIFY_STEPS;
    format!(
        r#"# The demo's move. Made from `dbmove playbook show mysql-behind-haproxy`.
playbook: {NAME}
about: A school's MySQL 5.5, with its users at work, to MySQL 9.7

deadline: 16h
max_write_gap: 30s

stores:
  school:
    kind: mysql
    source: {source}
    target: {target}
    rehearsal:
      source: {rehearsal_source}
      target: {rehearsal_target}
    include: ["{DATABASE}.*"]

stages:
  prepare:
    - {{ id: assess, run: mysql.assess, store: school }}
    - {{ id: schema, run: mysql.prepare, store: school }}
  sync:
    - {{ id: follow, run: mysql.replicate, store: school }}
    # Small chunks: a school of this size would be over before a plug could be pulled.
    - {{ id: {COPY_STEP}, run: mysql.snapshot, store: school, with: {{ readers: 1, writers: 1, chunk_bytes: {chunk_kib}KiB }} }}
  verify:
    - {{ id: {rows}, run: mysql.verify, store: school }}
  cutover:
    - id: {CANARY_STEP}
      run: traffic.canary
      store: school
      with: {{ url: "mysql://127.0.0.1:{door}/", rehearsal_url: "mysql://127.0.0.1:{rehearsal_door}/", user: app, password: {password} }}
    - id: hold
      run: traffic.hold
      store: school
      with:
        route: haproxy
        socket: {socket}
        address: "127.0.0.1:{door}"
        backend: {backend}
        server: {BACKEND_SERVER}
        rehearsal_address: "127.0.0.1:{rehearsal_door}"
        rehearsal_backend: {rehearsal_backend}
    - {{ id: fence, run: mysql.fence, store: school }}
    - {{ id: drain, run: mysql.catch_up, store: school }}
    - {{ id: {last_check}, run: mysql.verify, store: school, with: {{ scope: changed }} }}
    - {{ id: promote, run: mysql.promote, store: school }}
    - {{ id: back, run: mysql.reverse, store: school }}
    - {{ id: switch, run: traffic.switch, store: school }}
    - {{ id: release, run: traffic.release, store: school, point_of_no_return: true }}
    - {{ id: disconnect, run: mysql.disconnect, store: school }}
    - {{ id: smoke, run: traffic.check, store: school, with: {{ timeout: 10s }} }}
  settle:
    - {{ id: {GATE_STEP}, run: gate.approve, with: {{ question: "May the way back be closed?" }} }}
    - {{ id: retire, run: mysql.retire, store: school }}
"#
    )
}

/// Text as a double-quoted YAML scalar; a JSON string is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
