//! A unit on an open bus: its requests, again where the wires seem to be at fault, and its answers.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::frame::{Request, exception_words};
use super::value::{Plan, TableValue};
use super::write;
use crate::command::Command;
use crate::drivers::support::tally::Tally;
use crate::drivers::{Carried, Poller};
use crate::hardware::serial_bus::{Exchange, ExchangeError, Heard, SerialBus};
use crate::reading::{Fault, FaultCode, Sample};

/// The unit.
pub(super) struct OpenUnit {
    pub(super) bus: Arc<SerialBus>,
    pub(super) plan: Arc<Plan>,
    /// For an answer.
    pub(super) timeout: Duration,
    /// Of a request to read.
    pub(super) retries: u8,
    /// Answers that could not be read, those included that a further attempt made good.
    pub(super) garbled: Arc<Mutex<Tally>>,
    /// Does the adapter hear what it sends? `None`: nothing was read yet.
    pub(super) echoes: Option<bool>,
}

/// Why a request has given no data.
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// The unit has said so itself, so that there is no use in asking again.
    pub(super) refused: bool,
}

impl Poller for OpenUnit {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let plan = Arc::clone(&self.plan);
        let data = plan.requests().iter().map(|request| self.read(request)).collect::<Result<Vec<_>, _>>()?;
        let mut samples = plan.samples(&data)?;
        self.tally(|garbled| garbled.tell(&mut samples));
        Ok(samples)
    }

    /// Opening a port resets many a board behind it; and what may still come too late would be forgotten.
    fn stays_open(&self) -> bool {
        self.bus.works()
    }

    fn command(&mut self, command: &Command) -> Carried {
        let plan = Arc::clone(&self.plan);
        let mut samples = Vec::new();
        let outcome = write::parse(&plan, &command.payload).and_then(|writes| {
            let mut done = Vec::new();
            for (value, data) in writes {
                self.write(plan.address, value, &data, &mut samples).map_err(|why| match done.as_slice() {
                    [] => why,
                    names => format!("{} written, but then: {why}", names.join(" and ")),
                })?;
                done.push(value.name());
            }
            Ok(())
        });
        Carried { samples, outcome }
    }
}

impl OpenUnit {
    fn tally(&self, with: impl FnOnce(&mut Tally)) {
        // A total is right whenever somebody stops counting.
        with(&mut self.garbled.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Sends a request to read, and again if the wires seem to be at fault.
    fn read(&mut self, request: &Request) -> Result<Vec<u8>, Fault> {
        let mut attempts = 0;
        loop {
            match self.ask(request, attempts > 0) {
                Ok(data) => return Ok(data),
                Err(Failure { fault, refused }) if refused || attempts == self.retries => return Err(fault),
                Err(_) => attempts += 1,
            }
        }
    }

    /// Writes a value, once, and reads it back.
    ///
    /// # Errors
    /// Why it was not written, or why nobody knows.
    fn write(&mut self, address: u8, value: &TableValue, data: &[u8], samples: &mut Vec<Sample>) -> Result<(), String> {
        let (to_read, to_write) = (value.to_read(address), value.to_write(address, data));
        if to_write.is_its_own_answer() && self.echoes.is_none() {
            // An adapter's echo would be taken for the answer; an answer to something else tells whether there is one.
            self.read(&to_read).map_err(|fault| format!("nothing was written: {fault}"))?;
        }
        let written = match self.ask(&to_write, false) {
            Err(Failure { fault, refused: true }) => return Err(fault.detail),
            written => written.map_err(|failure| failure.fault.detail),
        };
        let found = self.read(&to_read);
        let held = found.as_ref().ok().and_then(|found| value.sample(&to_read, found).ok());
        let told = held.as_ref().map_or_else(|| "another value".to_owned(), write::told);
        samples.extend(held);
        match (written, found) {
            (_, Ok(found)) if value.is_same(&found, data) => Ok(()),
            (Ok(_), Ok(_)) => Err(format!("{}: it was acknowledged, but {told} is read back", to_write.told())),
            (Err(why), Ok(_)) => Err(format!("{why}; {told} is read back")),
            (Ok(_), Err(fault)) => Err(format!("it was acknowledged, but cannot be read back: {fault}")),
            (Err(why), Err(_)) => Err(format!("{why}; whether it was written is not known")),
        }
    }

    /// Sends a request, and counts an answer that cannot be read.
    fn ask(&mut self, request: &Request, again: bool) -> Result<Vec<u8>, Failure> {
        let outcome = self.exchange(request, again);
        if outcome.as_ref().is_err_and(|failure| failure.fault.code.is_garbled()) {
            self.tally(|garbled| garbled.add(1));
        }
        outcome
    }

    fn exchange(&mut self, request: &Request, again: bool) -> Result<Vec<u8>, Failure> {
        let frame = request.frame();
        let echoes = self.echoes;
        // An adapter may hear what it sends itself.
        let without_echo = |came: &[u8]| -> Vec<u8> {
            let may_be_echo = !request.is_its_own_answer() || echoes == Some(true);
            came.strip_prefix(frame.as_slice()).filter(|_| may_be_echo).unwrap_or(came).to_vec()
        };
        let heard = |came: &[u8]| {
            let came = without_echo(came);
            match request.answer(&came) {
                Some(_) => Heard::Answer,
                None if request.is_spoilt(&came) => Heard::Spoilt,
                None => Heard::Part,
            }
        };
        let failure = |code, what: &str, refused| Failure {
            fault: Fault::new(code, format!("{}: {what}", request.told())),
            refused,
        };
        let exchange = Exchange { unit: request.address, request: &frame, within: self.timeout, again };
        let came = match self.bus.exchange(exchange, heard) {
            Ok(came) | Err(ExchangeError::Silent(came)) => came,
            Err(ExchangeError::Noise) => {
                let what = "the line is never silent: does another master ask on it, or is the baud rate wrong?";
                return Err(failure(FaultCode::BadData, what, true));
            }
            Err(ExchangeError::Port(fault)) => return Err(Failure { fault, refused: true }),
        };
        let answer = without_echo(&came);
        if !request.is_its_own_answer() && !answer.is_empty() {
            self.echoes = Some(answer.len() < came.len());
        }
        match request.answer(&answer) {
            Some(Ok(data)) => Ok(data.to_vec()),
            Some(Err(exception)) => {
                let what = format!("it refuses with exception {exception}, {}", exception_words(exception));
                Err(failure(FaultCode::Reported, &what, true))
            }
            None if answer.is_empty() => {
                let within = humantime::format_duration(self.timeout);
                let what = format!(
                    "no answer within {within}: check its address, baud rate, format and wires (A and B exchanged?)"
                );
                Err(failure(FaultCode::Missing, &what, false))
            }
            None => {
                let refused = request.refused(&answer);
                Err(failure(refused.code, &refused.what, false))
            }
        }
    }
}
