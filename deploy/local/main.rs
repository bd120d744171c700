//! `eventicket`: the platform on one machine, its services one by one, and the tools around them.

mod commands;
mod demo;
mod fleet;
mod home;
mod interrupts;
mod load;
mod output;
mod part;
mod platform;
mod secrets;
mod threads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    audit, breaker, customers, dead, doctor, load as load_command, mail, migrate, openapi, saga, serve, simulate, up,
};

/// A quarter of the CPU of a booking went to the C library's allocator (measured with perf); this one takes a third of that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sells tickets for events
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    up: up::Args,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Args),
    Serve(serve::Args),
    Audit(audit::Args),
    Saga(saga::Args),
    Breaker(breaker::Args),
    Dead(dead::Args),
    Mail(mail::Args),
    Doctor(doctor::Args),
    Load(Box<load_command::Args>),
    Customers(customers::Args),
    Simulate(simulate::Args),
    Migrate(migrate::Args),
    Openapi(openapi::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    eventicket_kit::tls::install();
    let Cli { command, up } = Cli::parse();
    let home = home::folder();
    let ended = match command.unwrap_or(Command::Up(up)) {
        Command::Up(args) => up::run(args, &home).await,
        Command::Serve(args) => serve::run(args, &home).await,
        Command::Audit(args) => audit::run(args, &home).await,
        Command::Saga(args) => saga::run(args, &home).await,
        Command::Breaker(args) => breaker::run(args, &home).await,
        Command::Dead(args) => dead::run(args, &home).await,
        Command::Mail(args) => mail::run(args, &home).await,
        Command::Doctor(args) => doctor::run(args, &home).await,
        Command::Customers(args) => customers::run(args, &home).await,
        Command::Simulate(args) => simulate::run(args, &home).await,
        Command::Load(args) => load_command::run(*args, &home).await,
        Command::Migrate(args) => migrate::run(args, &home).await,
        Command::Openapi(args) => openapi::run(args, &home).await,
    };
    ended.unwrap_or_else(|error| {
        output::error(&error);
        ExitCode::FAILURE
    })
}
