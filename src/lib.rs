//! pacegate (draft of the architecture document).
pub mod cli;
pub mod config;
pub mod daemon;
pub mod signals;
pub mod telemetry;

mod admin;
mod http;
mod lane;
mod listen;
mod metrics;
mod outcome;
mod pacing;
mod proxy;
mod server;
mod systemd;
mod upstream;
