//! Hooks from outside: a real command and a real address are told, a no is exit code 4, and no secret is shown.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;

use super::command::{Place, acts};

const STAGES: &str = r#"  sync:
    - { id: copy, run: hook.exec, with: { command: [touch, copied], undo: none } }
  cutover:
    - { id: hold, run: hook.exec, with: { command: [touch, held], undo: [rm, -f, held] } }
    - { id: switch, run: hook.exec, with: { command: [touch, switched], probe: [test, -e, switched] }, point_of_no_return: true }
"#;
const CUTOVER: &str = "cutover night.yaml --yes --without-rehearsal test";

fn place(hooks: &str) -> Place {
    let place = Place::new();
    place.playbook("night", STAGES);
    let text = std::fs::read_to_string(place.path("night.yaml")).unwrap();
    place.write("night.yaml", &text.replace("stores:\n", &format!("hooks:\n{hooks}stores:\n")));
    place
}

/// Every kind of command prints what it has and what it finds, and fails: nothing of it is kept.
#[test]
fn what_commands_print_holds_no_secret() {
    const SECRETS: [&str; 3] = ["source-hunter22", "pager-hunter33", "file-hunter44"];
    let place = Place::new();
    place.write("token", SECRETS[2]);
    std::fs::set_permissions(place.path("token"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let tells = "echo \"PW=$SOURCE_PASSWORD.\" >&2; echo \"TOKEN=$TOKEN.\" >&2; cat token >&2; echo .TOLD >&2; env | grep -c -e hunter22 -e hunter33 >&2";
    place.playbook(
        "night",
        &format!(
            "  sync:\n    - {{ id: copy, run: hook.exec, with: {{ command: [sh, -c, '{tells}; test -e copies'], undo: none, env: {{ TOKEN: \"${{env:PAGER_TOKEN}}\" }} }} }}\n  \
             cutover:\n    - {{ id: switch, run: traffic.exec, with: {{ command: [sh, -c, '{tells}; exit 4'], probe: [sh, -c, '{tells}; exit 1'], undo: [\"true\"] }}, point_of_no_return: true }}\n"
        ),
    );
    let text = std::fs::read_to_string(place.path("night.yaml")).unwrap();
    let hooks = format!(
        "hooks:\n  - {{ id: first, at: [before-run], command: [sh, -c, 'test -n \"$FILED\"'], env: {{ FILED: \"${{file:token}}\" }} }}\n  \
         - {{ id: page, at: [on-failure], command: [sh, -c, '{tells}; exit 1'], env: {{ TOKEN: \"${{env:PAGER_TOKEN}}\" }} }}\n"
    );
    let text =
        text.replace(":3301/\" }", ":3301/\", password: \"${env:SOURCE_PASSWORD}\" }").replace("stores:\n", &format!("{hooks}stores:\n"));
    place.write("night.yaml", &text);
    let run = |line: &str| {
        let mut command = place.command(&line.split_whitespace().collect::<Vec<_>>());
        let output = command.env("SOURCE_PASSWORD", SECRETS[0]).env("PAGER_TOKEN", SECRETS[1]).env("RUST_LOG", "debug").output().unwrap();
        (output.status.code(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let mut said = String::new();
    let (code, text) = run(CUTOVER);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("PW=. | TOKEN=[TOKEN]. | [secret].TOLD | 1"), "{text}");
    said += &text;
    place.write("copies", "");
    let (code, text) = run(CUTOVER);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("PW=. | TOKEN=. | [secret].TOLD | 0"), "{text}");
    said += &text;
    for line in ["report", "report --json", "report --output page.json", "status --json", "audit"] {
        let (_, text) = run(line);
        said += &text;
    }
    let mut kept = said.into_bytes();
    for place in [place.path("."), place.path(".dbmove")] {
        for file in std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()) {
            if file.is_file() && !file.ends_with("token") {
                kept.extend(std::fs::read(&file).unwrap());
            }
        }
    }
    let kept = String::from_utf8_lossy(&kept);
    assert!(kept.contains(".TOLD"));
    for secret in SECRETS {
        let at = kept.find(secret);
        assert!(at.is_none(), "`{secret}` was kept: {:?}", at.map(|at| kept[..at].chars().rev().take(200).collect::<String>()));
    }
}

/// An address that answers every request with this status, and hands it over.
fn address(status: &'static str) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (say, heard) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = String::new();
            let length = |text: &str| text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            while text.split_once("\r\n\r\n").is_none_or(|(head, body)| body.len() < length(head).unwrap_or(0)) {
                let mut buffer = [0; 4096];
                match stream.read(&mut buffer).unwrap_or(0) {
                    0 => break,
                    read => text.push_str(&String::from_utf8_lossy(&buffer[..read])),
                }
            }
            let said = text.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or_default().to_owned();
            let body = format!("you said {said}");
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
            if say.send(text).is_err() {
                return;
            }
        }
    });
    (port, heard)
}

#[test]
fn a_command_and_an_address_are_told() {
    let (port, heard) = address("200 OK");
    let place = place(&format!(
        "  - {{ id: book, at: [before-run, after-switch, on-success], command: [sh, -c, 'cat >>facts; echo >>facts; echo \"$DBMOVE_MOMENT $DBMOVE_HOOK $DBMOVE_KIND $WORD\" >>moments'], env: {{ WORD: \"${{env:HOOK_SECRET}}\" }} }}\n  \
         - {{ id: chat, at: [before-cutover], post: \"http://127.0.0.1:{port}/${{env:HOOK_SECRET}}\", headers: {{ Authorization: \"Bearer ${{env:HOOK_SECRET}}\" }} }}\n"
    ));
    let plan = place.line("plan night.yaml").stdout;
    assert!(
        plan.contains("called at moments of the run") && plan.contains("book (before-run, after-switch, on-success): run `sh -c "),
        "{plan}"
    );
    assert!(plan.contains("post to `http://127.0.0.1:") && plan.contains("/${env:HOOK_SECRET}`"), "{plan}");
    let arguments: Vec<&str> = CUTOVER.split_whitespace().collect();
    let ended = place.command(&arguments).env("HOOK_SECRET", "hunter22").output().unwrap();
    let words = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && !words.contains("hunter22"), "{words}");
    let moments = std::fs::read_to_string(place.path("moments")).unwrap();
    assert_eq!(
        moments,
        "before-run book production hunter22\nafter-switch book production hunter22\non-success book production hunter22\n"
    );
    let facts = std::fs::read_to_string(place.path("facts")).unwrap();
    let facts: Vec<serde_json::Value> = facts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&facts[1]["serving"], &facts[1]["step"], &facts[2]["exit_code"]), (&"target".into(), &"switch".into(), &0.into()));
    let posted = heard.recv().unwrap();
    assert!(posted.starts_with("POST /hunter22 HTTP/1.1\r\n") && posted.contains("\"moment\":\"before-cutover\""), "{posted}");
    let report = place.line("report --json").json();
    let told: Vec<_> = report["hooks"].as_array().unwrap().iter().map(|told| told["moment"].as_str().unwrap()).collect();
    assert_eq!(told, ["before-run", "before-cutover", "after-switch", "on-success"]);
    let journal = std::fs::read(place.path(".dbmove/journal.sqlite")).unwrap();
    assert!(!journal.windows(8).any(|window| window == b"hunter22"), "a secret is in the journal");
    assert_eq!(place.line("audit").code, 0);
}

#[test]
fn a_no_is_exit_code_four_and_what_is_told_may_fail() {
    let (port, _heard) = address("403 Forbidden");
    let place = place(&format!(
        "  - {{ id: chat, at: [after-switch], post: \"http://127.0.0.1:{port}/\", headers: {{ Authorization: \"Bearer ${{env:HOOK_SECRET}}\" }} }}\n  \
         - {{ id: ask, at: [before-switch], command: [sh, -c, 'test -e yes || {{ printf \"not tonight \\033[2J\" >&2; exit 1; }}'] }}\n"
    ));
    let cutover = || {
        let arguments: Vec<&str> = CUTOVER.split_whitespace().collect();
        let ended = place.command(&arguments).env("HOOK_SECRET", "hunter22").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (ended.status.code(), text(&ended.stdout), text(&ended.stderr))
    };
    let (code, stdout, stderr) = cutover();
    assert_eq!(code, Some(4), "{stdout}{stderr}");
    assert!(stdout.contains("hook `ask` at `before-switch` said no: ") && stdout.contains("not tonight"), "{stdout}");
    assert!(!acts(&stdout) && !place.path("held").exists() && !place.path("switched").exists(), "{stdout}");
    let mut settings = place.timed();
    settings.add_filter(r"audit( +)\d+ events", "audit$1[COUNT] events");
    settings.bind(|| insta::assert_snapshot!("night_hook_said_no", stdout));

    place.write("yes", "");
    let (code, stdout, stderr) = cutover();
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(place.path("switched").exists());
    assert!(stderr.contains("hook chat at after-switch FAILED, and the run goes its way: "), "{stderr}");
    assert!(
        stdout.contains("status 403") && stdout.contains("you said Bearer [secret]") && !format!("{stdout}{stderr}").contains("hunter22"),
        "{stdout}"
    );
}
