//! A chip that is asked as its description says, on either bus.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{Description, Question};
use crate::drivers::{Open, Poller, Source};
use crate::hardware::Hardware;
use crate::reading::{Fault, FaultCode, Sample};

/// What a chip on either bus can do.
pub(crate) trait Ask {
    /// Sends a message; `what` is said if that fails.
    fn tell(&mut self, what: &str, message: &[u8]) -> Result<(), Fault>;

    /// Sends a question and reads the answer to it.
    fn ask(&mut self, question: &Question) -> Result<Vec<u8>, Fault>;

    /// A fault at this chip.
    fn fault(&self, code: FaultCode, what: String) -> Fault;
}

/// Where samples come from: the chip that `connect` gives, sending nothing to it yet.
pub(crate) fn source<C: Ask + 'static>(
    description: Description,
    connect: impl Fn(&dyn Hardware) -> Result<C, Fault> + Send + Sync + 'static,
) -> Source {
    Source::Poller(Arc::new(Described { description: Arc::new(description), connect }))
}

struct Described<F> {
    description: Arc<Description>,
    connect: F,
}

impl<C: Ask + 'static, F: Fn(&dyn Hardware) -> Result<C, Fault> + Send + Sync> Open for Described<F> {
    fn open(&self, hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        let mut chip = Asked { chip: (self.connect)(hardware)?, description: Arc::clone(&self.description) };
        if let Some(identity) = &self.description.identity {
            let answer = chip.answer(&identity.question)?;
            if let Some(found) = identity.mismatch(&answer) {
                let what = format!("it is not as `identity` describes it: {found}");
                return Err(chip.chip.fault(FaultCode::WrongChip, what));
            }
        }
        for message in &self.description.init {
            chip.chip.tell("a message of `init`", message)?;
            thread::sleep(self.description.wait);
        }
        Ok(Box::new(chip))
    }

    fn longest(&self) -> Duration {
        let messages = u32::try_from(self.description.init.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.description.wait.saturating_mul(messages) + Duration::from_secs(1)
    }

    fn units(&self) -> Vec<(String, String)> {
        self.description.units()
    }
}

struct Asked<C> {
    chip: C,
    description: Arc<Description>,
}

impl<C: Ask> Asked<C> {
    /// The answer to a question, with right checksums.
    fn answer(&mut self, question: &Question) -> Result<Vec<u8>, Fault> {
        let answer = self.chip.ask(question)?;
        self.description.check(&answer).map_err(|what| self.chip.fault(FaultCode::Crc, what))?;
        Ok(answer)
    }
}

impl<C: Ask> Poller for Asked<C> {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let description = Arc::clone(&self.description);
        if !description.measure.is_empty() {
            self.chip.tell("`measure`", &description.measure)?;
            thread::sleep(description.wait);
        }
        let answers = description.questions.iter().map(|question| self.answer(question));
        description.samples(&answers.collect::<Result<Vec<_>, _>>()?)
    }
}
