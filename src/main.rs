//! Arguments in, exit code out. Everything else is in the library, where tests can call it.

fn main() -> std::process::ExitCode {
    dbmove::cli::main()
}
