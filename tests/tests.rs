//! The integration tests: one binary, so that the crate is linked once.

/// One file a subject; `harness` holds what they share.
mod it {
    mod cli;
    mod config;
    #[cfg(feature = "broker")]
    mod demo;
    mod harness;
    mod main_path;
    mod replay;
    mod restart;
    mod shutdown;
    mod tidy;
    mod tls;
}
