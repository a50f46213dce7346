//! The `strait` command. All of it is in the library, so that tests and the simulator can use it.

fn main() -> std::process::ExitCode {
    strait_cli::main()
}
