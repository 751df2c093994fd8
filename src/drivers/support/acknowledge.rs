//! What drivers whose devices acknowledge commands have in common.

use std::time::Duration;

use crate::command::Answer;
use crate::drivers::OptionInfo;
use crate::options::Options;

/// Answers that wait to be taken. The oldest is forgotten for a further one, which nobody waits for then.
pub(crate) const MAX_ANSWERS: usize = 32;

/// The key `acknowledge`.
pub(crate) const OPTION: OptionInfo = OptionInfo {
    name: "acknowledge",
    values: "\"50ms\" to \"60s\"",
    default: Some("none: a command is done when it was written"),
    help: "How long the device has to acknowledge a command.",
};

/// Reads the key `acknowledge`; problems are noted there.
pub(crate) fn parse(options: &Options<'_>) -> Option<Duration> {
    options.optional_in(OPTION.name, Duration::from_millis(50)..=Duration::from_secs(60))
}

/// A device's answers that nobody has asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<Answer>);

impl Answers {
    pub(crate) fn push(&mut self, answer: Answer) {
        if self.0.len() == MAX_ANSWERS {
            self.0.remove(0);
        }
        self.0.push(answer);
    }

    /// All of them, in the order in which they came.
    pub(crate) fn take(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_nobody_takes_are_bounded() {
        let mut answers = Answers::default();
        for id in 0..100 {
            answers.push(Answer { id: Some(id), outcome: Ok(()) });
        }
        let taken = answers.take();
        assert_eq!(taken.len(), MAX_ANSWERS);
        assert_eq!(taken.last().and_then(|answer| answer.id), Some(99));
        assert_eq!(answers.take(), []);
    }
}
