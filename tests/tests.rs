//! Everything that is tested from the outside, in one program.

#[path = "it/config.rs"]
mod config;
