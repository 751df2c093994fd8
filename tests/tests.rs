//! The integration tests: one binary, so that the crate is linked once.

#![expect(clippy::print_stderr, reason = "a failed test shows the log of the program that it ran")]

/// One file a subject; `harness` holds what they share.
mod it {
    mod archive;
    mod arduino;
    mod audit;
    mod backup;
    #[cfg(feature = "broker")]
    mod broker;
    #[cfg(feature = "broker")]
    mod broker_watch;
    mod cli;
    mod clock;
    mod commands;
    mod config;
    mod counter;
    #[cfg(feature = "broker")]
    mod demo;
    #[cfg(feature = "broker")]
    mod embedded;
    mod exec;
    mod failover;
    mod filters;
    mod framings;
    mod guides;
    mod harness;
    mod interop;
    #[cfg(feature = "broker")]
    mod lan;
    mod main_path;
    mod mqtt5;
    mod nmea;
    mod outage;
    mod outbox_cli;
    mod privacy;
    mod privileged;
    mod reload;
    mod replay;
    mod restart;
    mod rotation;
    mod scan;
    mod serial;
    mod shutdown;
    mod sleep;
    mod sparkplug;
    mod supervision;
    mod support;
    mod targets;
    mod tidy;
    mod tls;
    mod torture;
    mod ways;
}
