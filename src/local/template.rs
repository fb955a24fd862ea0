//! A server is initialised once; every start copies the result.
//!
//! Initialising takes seconds and a copy takes a fraction of one. A template is a data directory that was
//! initialised, given its [accounts](super::accounts), and shut down cleanly. Its name carries a fingerprint of
//! everything it is made from (the fetched build, the arguments fixed at birth, the statements), so a change of any
//! makes a new one and an old one is never used by mistake.
//!
//! One process makes a template while others wait on a file lock; it is made beside its place and renamed into it,
//! so that one that was interrupted is simply made again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::installation::{Installation, cache_directory, path_argument};
use super::{Account, LocalError, LocalServer, ServerKind, ServerOptions, accounts, options};

/// Counts up when the making of templates changes in a way their ingredients don't show.
const RECIPE: u32 = 1;

/// Puts a fresh data directory for `kind` at `data_directory`, which must not exist yet.
pub(super) async fn copy_to(installation: &Installation, rds_like: bool, data_directory: &Path) -> Result<(), LocalError> {
    let template = ready(installation, rds_like).await?;
    let mut copy = Command::new("cp");
    copy.args(["-a", "--reflink=auto", "--sparse=auto", "--"]).arg(&template).arg(data_directory);
    run(copy, None, "copied a template data directory").await?;
    Ok(())
}

/// The template's directory; makes it if it is not there.
async fn ready(installation: &Installation, rds_like: bool) -> Result<PathBuf, LocalError> {
    let kind = installation.kind();
    let templates = cache_directory()?.join("templates");
    create_directory(&templates)?;
    let profile = if rds_like { "rds" } else { "plain" };
    let name = format!("{}-{profile}-{}", kind.cache_name(), fingerprint(installation, rds_like));
    let template = templates.join(&name);
    if template.exists() {
        return Ok(template);
    }
    let _lock = lock(&templates.join(format!("{name}.lock"))).await?;
    if template.exists() {
        return Ok(template);
    }
    let unfinished = templates.join(format!("{name}.unfinished"));
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(|source| file_error("remove", &unfinished, source))?;
    }
    create_directory(&unfinished)?;
    let data_directory = make(installation, rds_like, &unfinished).await?;
    std::fs::rename(&data_directory, &template).map_err(|source| file_error("rename", &data_directory, source))?;
    std::fs::remove_dir_all(&unfinished).map_err(|source| file_error("remove", &unfinished, source))?;
    Ok(template)
}

/// Initialises a data directory inside `workshop`, with its accounts, and leaves it shut down.
async fn make(installation: &Installation, rds_like: bool, workshop: &Path) -> Result<PathBuf, LocalError> {
    let kind = installation.kind();
    let data_directory = workshop.join("data");
    initialise(installation, &data_directory).await?;

    let first_account = workshop.join("first-account.sql");
    std::fs::write(&first_account, accounts::first_account(kind)).map_err(|source| file_error("write", &first_account, source))?;
    let options =
        ServerOptions::default().binlog(false).rds_like(rds_like).argument(path_argument("--init-file", &first_account).to_string_lossy());
    let mut server = LocalServer::start_on(installation.clone(), data_directory.clone(), workshop, &options).await?;
    let set_up = async {
        let mut connection = mysql_async::Conn::new(server.connect_options(Account::Root, None)).await?;
        for statement in accounts::statements(kind, rds_like) {
            connection.query_drop(statement).await?;
        }
        connection.disconnect().await
    };
    set_up.await.map_err(|source| LocalError::Sql { kind, action: "create its accounts".to_owned(), source })?;
    server.stop().await?;
    // Who a server is: two copies must not be the same one. It is written anew at the next start.
    for identity in ["auto.cnf", "mysqld.pid", "mysql.sock", "mysql.sock.lock"] {
        let path = data_directory.join(identity);
        if path.exists() {
            std::fs::remove_file(&path).map_err(|source| file_error("remove", &path, source))?;
        }
    }
    Ok(data_directory)
}

/// Makes the system tables, by the server's own way.
async fn initialise(installation: &Installation, data_directory: &Path) -> Result<(), LocalError> {
    let kind = installation.kind();
    let mut command = installation.server_command();
    command.arg(path_argument("--datadir", data_directory)).args(options::fixed_at_birth(kind));
    let action = "initialised a data directory";
    if kind == ServerKind::Mysql97 {
        command.args(["--initialize-insecure", "--performance-schema=OFF", "--innodb-use-native-aio=0"]);
        return run(command, None, action).await;
    }
    create_directory(&data_directory.join("mysql"))?;
    let scripts: &[&str] = match kind {
        ServerKind::MariaDb => &[
            "mysql_system_tables.sql",
            "mysql_performance_tables.sql",
            "mysql_system_tables_data.sql",
            "maria_add_gis_sp_bootstrap.sql",
            "mysql_sys_schema.sql",
        ],
        _ => &["mysql_system_tables.sql", "mysql_system_tables_data.sql"],
    };
    let mut input = b"use mysql;\n".to_vec();
    for script in scripts {
        let path = installation.share().join(script);
        let text = std::fs::read(&path).map_err(|source| file_error("read", &path, source))?;
        // As `mysql_install_db --cross-bootstrap` does: no accounts for this machine's host name.
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let about_this_host = |line: &&[u8]| line.windows(17).any(|part| part == b"@current_hostname");
        input.extend(lines.filter(|line| kind == ServerKind::MariaDb || !about_this_host(line)).flatten());
    }
    command.args(["--bootstrap", "--innodb-use-native-aio=0", "--innodb-buffer-pool-size=64M"]);
    command.args(["--innodb-flush-log-at-trx-commit=2", "--max-allowed-packet=16M"]);
    run(command, Some(input), action).await
}

fn fingerprint(installation: &Installation, rds_like: bool) -> String {
    let kind = installation.kind();
    let mut hash = Sha256::new();
    hash.update(RECIPE.to_le_bytes());
    let ingredients = [installation.fingerprint(), accounts::first_account(kind).to_owned()]
        .into_iter()
        .chain(options::fixed_at_birth(kind).map(str::to_owned))
        .chain(accounts::statements(kind, rds_like));
    for ingredient in ingredients {
        hash.update((ingredient.len() as u64).to_le_bytes());
        hash.update(ingredient);
    }
    hex::encode(&hash.finalize()[..6])
}

/// Takes the file lock, waiting for whoever holds it.
async fn lock(path: &Path) -> Result<File, LocalError> {
    let file = File::create(path).map_err(|source| file_error("create", path, source))?;
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return Err(file_error("lock", path, error.into())),
        }
    }
}

/// Runs a program to its end, feeding it `input`.
async fn run(command: Command, input: Option<Vec<u8>>, action: &str) -> Result<(), LocalError> {
    use tokio::io::AsyncWriteExt as _;

    let program = command.get_program().to_string_lossy().into_owned();
    let spawn_error = |source| LocalError::Spawn { program: program.clone(), source };
    let mut child = tokio::process::Command::from(command)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn_error)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A program that stops reading has failed, and its status and output say why.
            let _ = stdin.write_all(&input).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(spawn_error)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(LocalError::Failed {
        program,
        action: action.to_owned(),
        status: output.status.to_string(),
        output: super::server::last_lines(&String::from_utf8_lossy(&said), 20),
    })
}

fn create_directory(path: &Path) -> Result<(), LocalError> {
    std::fs::create_dir_all(path).map_err(|source| file_error("create", path, source))
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> LocalError {
    LocalError::File { action, path: path.to_owned(), source }
}
