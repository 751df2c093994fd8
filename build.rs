//! Tells the program when it was built: certificates that had expired by then are refused even by a Pi whose clock is
//! not set yet. And what it was built of and for, which `vigie --version` says.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // https://reproducible-builds.org/specs/source-date-epoch/
    let told = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse::<u64>().ok());
    let seconds = told.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()));
    println!("cargo::rustc-env=VIGIE_BUILD_SECONDS={seconds}");

    println!("cargo::rerun-if-env-changed=VIGIE_COMMIT");
    // Told by whoever builds a release (`deploy/package`): what a developer has checked out is not what they have changed.
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let commit = variable("VIGIE_COMMIT");
    let commit = if commit.trim().is_empty() { "unknown" } else { commit.trim() };
    println!("cargo::rustc-env=VIGIE_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=VIGIE_BUILD_TARGET={}", variable("TARGET"));
    println!("cargo::rustc-env=VIGIE_BUILD_FEATURES={}", features());
}

/// The features of this build, as `Cargo.toml` calls them.
fn features() -> String {
    let mut features: Vec<String> = std::env::vars()
        .filter_map(|(name, _)| Some(name.strip_prefix("CARGO_FEATURE_")?.to_lowercase().replace('_', "-")))
        .filter(|feature| feature != "default")
        .collect();
    features.sort();
    if features.is_empty() { "none".to_owned() } else { features.join(", ") }
}
