//! The expanders over the simulated chips: lines as any other hardware has them.

use super::*;
use crate::clock::{SystemClock, Trust};
use crate::hardware::sim::Sim;
use crate::hardware::sim::chips::Pins;
use crate::hardware::sim::fault::{Device, Kind, ScriptedFault};

/// Longer than anything here takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

struct Board {
    hardware: Expanders,
    sim: Arc<Sim>,
}

impl Board {
    fn new(faults: Vec<ScriptedFault>, with_interrupt: bool) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(Trust::Always));
        let sim = Arc::new(Sim::with_faults(Arc::clone(&clock), 1, faults));
        let settings = |name: &str, chip, address, pin: &str| ExpanderSettings {
            name: name.to_owned(),
            chip,
            path: I2cPath { bus: 1, channel: None },
            address,
            interrupt: with_interrupt.then(|| LineId::Name(pin.to_owned())),
            every: Duration::from_millis(2),
        };
        let expanders = [
            settings("portal", ExpanderChip::Mcp23017, 0x20, "GPIO25"),
            settings("mill", ExpanderChip::Pcf8574, 0x21, "GPIO26"),
        ];
        let hardware = Expanders::over(Arc::clone(&sim) as Arc<dyn Hardware>, &expanders, &clock);
        Self { hardware, sim }
    }

    fn input(&self, chip: &str, offset: u32, edges: Edges) -> Box<dyn InputLine> {
        insist(|| self.hardware.input_line(&input(chip, offset, edges)))
    }

    fn pins(&self, address: u8) -> Pins {
        self.sim.pins(address)
    }
}

fn input(chip: &str, offset: u32, edges: Edges) -> LineSettings {
    LineSettings {
        line: LineId::Offset { chip: chip.to_owned(), offset },
        reserved: false,
        bias: Bias::PullUp,
        active_low: true,
        debounce: Duration::ZERO,
        edges,
    }
}

/// Tries again where a busy machine has kept the expander's thread from answering in time.
fn insist<T>(mut attempt: impl FnMut() -> Result<T, Fault>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(fault) if fault.code == FaultCode::Stuck && start.elapsed() < DEADLINE => {}
            other => return other.expect("an expander that answers"),
        }
    }
}

async fn next(line: &mut Box<dyn InputLine>) -> Result<bool, Fault> {
    let edges = tokio::time::timeout(DEADLINE, line.edges()).await.expect("an edge")?;
    assert_eq!(edges.len(), 1);
    Ok(edges[0].active)
}

/// Takes the line again and again until the expander answers, as the sampler does.
async fn retake(board: &Board, settings: &LineSettings) -> Box<dyn InputLine> {
    let again = async {
        loop {
            if let Ok(line) = board.hardware.input_line(settings) {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("the line is back")
}

#[tokio::test]
async fn a_contact_to_ground_is_seen_on_both_chips_with_and_without_interrupt() {
    for with_interrupt in [true, false] {
        let board = Board::new(Vec::new(), with_interrupt);
        for (chip, address, offset, pin) in [("portal", 0x20, 12, 12), ("mill", 0x21, 5, 5)] {
            let mut line = board.input(chip, offset, Edges::Both);
            assert_eq!(line.level(), Ok(false), "pulled up and open");
            for closed in [true, false, true] {
                board.pins(address).drive(pin, closed.then_some(false));
                assert_eq!(next(&mut line).await, Ok(closed), "{chip}");
                assert_eq!(line.level(), Ok(closed));
            }
        }
    }
}

#[tokio::test]
async fn a_pulse_between_two_looks_is_not_lost_where_the_chip_keeps_it() {
    let board = Board::new(Vec::new(), true);
    let mut line = board.input("portal", 0, Edges::Both);
    let pins = board.pins(0x20);
    pins.drive(0, Some(false));
    pins.drive(0, None);
    assert_eq!(next(&mut line).await, Ok(true));
    assert_eq!(next(&mut line).await, Ok(false));
}

#[tokio::test]
async fn a_line_has_one_holder_and_only_lines_that_there_are() {
    let board = Board::new(Vec::new(), false);
    let line = board.input("portal", 3, Edges::Both);
    let refused =
        |chip: &str, offset| board.hardware.input_line(&input(chip, offset, Edges::Both)).err().expect("refused").code;
    assert_eq!(refused("portal", 3), FaultCode::Busy);
    assert_eq!(refused("mill", 8), FaultCode::Missing);
    assert_eq!(refused("portal", 16), FaultCode::Missing);
    assert_eq!(refused("gpiochip9", 0), FaultCode::Missing, "the board's own lines go to the board");
    drop(line);
    board.input("portal", 3, Edges::Rising);
    let down = LineSettings { bias: Bias::PullDown, ..input("portal", 4, Edges::Both) };
    assert!(board.hardware.input_line(&down).err().expect("refused").detail.contains("pull-down"));
}

#[tokio::test]
async fn an_output_is_driven_and_stays_when_other_lines_are_taken() {
    let board = Board::new(Vec::new(), false);
    for (chip, address) in [("portal", 0x20), ("mill", 0x21)] {
        let line = LineId::Offset { chip: chip.to_owned(), offset: 6 };
        let settings = OutputSettings { line, active_low: false, active: true };
        let mut output = insist(|| board.hardware.output_line(&settings));
        let pins = board.pins(address);
        assert!(pins.level(6));
        insist(|| output.set(false));
        assert!(!pins.level(6));
        let _other = board.input(chip, 1, Edges::Both);
        assert!(!pins.level(6));
        insist(|| output.set(true));
        assert!(pins.level(6));
    }
}

#[tokio::test]
async fn a_chip_that_was_gone_is_a_fault_and_comes_back_with_its_registers() {
    let unplug = ScriptedFault {
        device: Device::I2c { bus: 1, address: Some(0x20) },
        kind: Kind::Unplug,
        at: Duration::from_secs(2),
        lasts: Some(Duration::from_secs(2)),
        cured_by: None,
    };
    let board = Board::new(vec![unplug], true);
    let output = OutputSettings {
        line: LineId::Offset { chip: "portal".to_owned(), offset: 15 },
        active_low: false,
        active: true,
    };
    let _output = insist(|| board.hardware.output_line(&output));
    let settings = input("portal", 0, Edges::Both);
    let mut line = board.input("portal", 0, Edges::Both);
    let fault = next(&mut line).await.expect_err("the chip goes away");
    assert_eq!(fault.code, FaultCode::Missing, "{fault}");
    assert!(fault.detail.contains("expander `portal` (address 0x20 on I2C bus 1)"), "{fault}");
    drop(line);
    let mut line = retake(&board, &settings).await;
    let pins = board.pins(0x20);
    assert!(pins.level(15), "the output was written anew");
    pins.drive(0, Some(false));
    assert_eq!(next(&mut line).await, Ok(true), "so were pull-up and interrupt");
}

#[test]
fn lines_are_named_as_on_the_chips() {
    for (word, expected) in [("GPA0", 0), ("GPA7", 7), ("GPB0", 8), ("GPB7", 15), ("P3", 3), ("3", 3), ("15", 15)] {
        assert_eq!(offset(word), Some(expected), "{word}");
    }
    for word in ["", "GPA8", "GPC0", "GPA", "GPA07", "-1", "+1", "P", "99999999999"] {
        assert_eq!(offset(word), None, "{word}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_line_or_is_none(word in ".{0,12}") {
        let _ = offset(&word);
    }
}
