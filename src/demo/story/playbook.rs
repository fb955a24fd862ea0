//! The playbook of the move: what `playbooks/mysql-to-mysql.yaml` is, filled in for the demo's servers.

use std::path::Path;

use super::place::{Pair, Place};
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
    let route = quoted_path(&place.route());
    let (port, rehearsal_port) = (place.production.target.port(), place.rehearsal.target.port());
    let [rows, last_check] = VERIFY_STEPS;
    format!(
        r#"# The demo's move. Made from `dbmove playbook show mysql-to-mysql`.
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
      with: {{ route_file: {route}, user: app, password: {password} }}
    - {{ id: fence, run: mysql.fence, store: school }}
    - {{ id: drain, run: mysql.catch_up, store: school }}
    - {{ id: {last_check}, run: mysql.verify, store: school, with: {{ scope: changed }} }}
    - {{ id: promote, run: mysql.promote, store: school }}
    - id: switch
      run: traffic.file
      point_of_no_return: true
      with: {{ path: {route}, content: "127.0.0.1:{port}\n", rehearsal_content: "127.0.0.1:{rehearsal_port}\n" }}
    - {{ id: disconnect, run: mysql.disconnect, store: school }}
    - {{ id: smoke, run: traffic.check, store: school, with: {{ timeout: 10s }} }}
"#
    )
}

/// Text as a double-quoted YAML scalar; a JSON string is one.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.display().to_string())
}
