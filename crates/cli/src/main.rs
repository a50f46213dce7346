//! The `strait` command. All of it is in the library, so that tests and the simulator can use it.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    strait_cli::main()
}
