//! Arguments in, exit code out. Everything else is in the library, where tests can call it.

fn main() -> std::process::ExitCode {
    keep_no_large_buffers();
    dbmove::cli::main()
}

/// Has the MySQL driver give large packet buffers back.
///
/// It keeps up to 128 of them for reuse, each as large as the largest packet it once held, up to 4 MiB: after some large
/// rows that is hundreds of MiB that nobody uses. Its only setting is an environment variable, read when the first
/// connection is opened; see `docs/decisions/0006-the-drivers-buffers.md`.
#[expect(unsafe_code, reason = "setting a variable is safe while there is one thread, and nothing has been started yet")]
fn keep_no_large_buffers() {
    const SETTING: &str = "MYSQL_ASYNC_BUFFER_SIZE_CAP";
    const BYTES: &str = "65536";
    if std::env::var_os(SETTING).is_none() {
        // SAFETY: first statement of `main`: no other thread reads or writes the environment.
        unsafe { std::env::set_var(SETTING, BYTES) };
    }
}
