//! The `breakwater` binary: hands over to [`edge_user::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    edge_user::cli::main()
}
