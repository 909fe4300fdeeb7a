//! The `confiture` binary: reads the command line, runs one command, ends with its exit code.

mod command;
mod context;
mod failure;
mod files;
mod operator;
mod output;
mod target;
mod telemetry;

use clap::Parser as _;
use shared::rollout::work::Exit;
use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

fn main() -> ExitCode {
    failure::install_panic_hook();
    let arguments = match command::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => return output::told(&told),
    };
    let format = arguments.log_format();
    let runtime = match arguments.runtime().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failure::Failure::failed(format!("cannot start the runtime: {error}")).report(format);
        }
    };
    // Nothing is used after a panic but its exit code.
    match std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(arguments.run()))) {
        Ok(Ok(exit)) => ExitCode::from(exit.code()),
        Ok(Err(failure)) => failure.report(format),
        Err(_said_by_the_hook) => ExitCode::from(Exit::Failed.code()),
    }
}
