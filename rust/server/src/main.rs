//! The plain binary: the data plane without Python.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let status = mlserve_server::cli::run(&arguments, None);
    std::process::ExitCode::from(u8::try_from(status).unwrap_or(1))
}
