//! PHP and its own MySQL client (mysqlnd), as the applications of old servers run them.

use std::path::PathBuf;
use std::process::Command;

use super::installation::{cache_directory, debian_command, debian_loader};

/// What `fixtures/servers/fetch` calls it.
const CACHE_NAME: &str = "php-8.2";

/// Why PHP can't be run.
#[derive(Debug, thiserror::Error)]
#[error("PHP is not in the cache: run `fixtures/servers/fetch {CACHE_NAME}`")]
pub struct NoPhp;

/// The command that runs a script of PHP, without any configuration of this machine's, with `mysqli` on mysqlnd.
///
/// # Errors
/// If it was not fetched.
pub fn php() -> Result<Command, NoPhp> {
    let root = cache_directory().map_err(|_| NoPhp)?.join("servers").join(CACHE_NAME);
    let program = root.join("usr/bin/php8.2");
    // A directory per binary interface of extensions: there is one.
    let interfaces = std::fs::read_dir(root.join("usr/lib/php")).map_err(|_| NoPhp)?.flatten().map(|entry| entry.path());
    let extensions: Option<PathBuf> = interfaces.into_iter().find(|path| path.join("mysqli.so").exists());
    let (Some(loader), Some(extensions), true) = (debian_loader(&root), extensions, program.exists()) else { return Err(NoPhp) };
    let mut command = debian_command(&root, &loader, &program);
    command.arg("-n").arg("-d").arg(format!("extension_dir={}", extensions.display()));
    command.args(["-d", "extension=mysqlnd.so", "-d", "extension=mysqli.so", "-d", "display_errors=stderr"]);
    Ok(command)
}
