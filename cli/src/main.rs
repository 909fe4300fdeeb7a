//! The `confiture` binary: reads the command line, runs one command, ends with its exit code.

mod command;
mod context;
mod failure;
mod files;
mod operator;
mod output;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    failure::install_panic_hook();
    let arguments = command::Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::Failure::failed(format!("cannot start the runtime: {error}")).report(),
    };
    match runtime.block_on(arguments.run()) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(failure) => failure.report(),
    }
}
