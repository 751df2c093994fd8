//! `vigie run`

use std::path::Path;

use super::{FAILED, FINE, WRONG, load};
use crate::agent;
use crate::config::Report;

pub(super) fn run(path: &Path) -> u8 {
    let Some(mut config) = load(path) else { return WRONG };
    for warning in config.warnings.take().iter().flat_map(Report::lines) {
        tracing::warn!("{warning}");
    }
    match agent::run(config, agent::Extras { file: Some(path.to_owned()), ..agent::Extras::default() }) {
        Ok(()) => FINE,
        Err(error) => {
            // To the journal or to standard error, as the rest of the log.
            tracing::error!("{error:#}");
            FAILED
        }
    }
}
