//! Commands under way, without a port.

use tokio::sync::oneshot::Receiver;

use super::*;
use crate::command::Outgoing;
use crate::drivers::Decoded;

/// Sends a payload as it is, and is told in parts.
#[derive(Default)]
struct Plain {
    answer_within: Option<Duration>,
    cut: bool,
}

impl ByteDecoder for Plain {
    fn feed(&mut self, _bytes: &[u8], _at: BootTime, _out: &mut Vec<Decoded>) {}

    fn command(&mut self, command: &Command) -> Result<Outgoing, String> {
        if command.payload.starts_with(b"no") {
            return Err("not this".to_owned());
        }
        Ok(Outgoing { bytes: command.payload.to_vec(), answer_within: self.answer_within })
    }

    fn cut(&mut self) {
        self.cut = true;
    }
}

fn at(seconds: u64) -> BootTime {
    BootTime(0).after(Duration::from_secs(seconds))
}

/// Begins a command; its number is one more than that of those that wait.
fn begin(orders: &mut Orders, decoder: &mut Plain, payload: &str, now: BootTime) -> Receiver<Result<(), String>> {
    let (done, told) = oneshot::channel();
    let order = Order { payload: payload.as_bytes().into(), until: at(100), done };
    let id = orders.unanswered.back().map_or(1, |last| last.id + 1);
    orders.begin(order, id, decoder, now);
    told
}

/// What was told, if something was.
fn told(receiver: &mut Receiver<Result<(), String>>) -> Option<Result<(), String>> {
    receiver.try_recv().ok()
}

fn acknowledges() -> Plain {
    Plain { answer_within: Some(Duration::from_secs(2)), cut: false }
}

#[test]
fn without_an_answer_a_command_is_done_when_it_is_written() {
    let (mut orders, mut decoder) = (Orders::default(), Plain::default());
    let mut first = begin(&mut orders, &mut decoder, "abcdef", at(1));
    assert!(!orders.has_room());
    orders.wrote(4, at(1));
    assert_eq!((orders.bytes(), told(&mut first)), (&b"ef"[..], None));
    orders.wrote(2, at(2));
    assert_eq!((orders.bytes(), told(&mut first)), (&b""[..], Some(Ok(()))));
    assert!(orders.has_room() && orders.due().is_none());
    assert_eq!(told(&mut begin(&mut orders, &mut decoder, "", at(2))), Some(Ok(())), "nothing to write");
}

#[test]
fn answers_find_their_command() {
    let (mut orders, mut decoder) = (Orders::default(), acknowledges());
    let mut waiting: Vec<_> = (0..4)
        .map(|_| {
            let told = begin(&mut orders, &mut decoder, "x", at(1));
            orders.wrote(1, at(1));
            told
        })
        .collect();
    let answer = |id: Option<u32>, outcome: Result<(), &str>| Answer { id, outcome: outcome.map_err(str::to_owned) };
    orders.answered(vec![answer(Some(3), Ok(())), answer(Some(3), Err("twice")), answer(Some(9), Ok(()))]);
    assert_eq!(told(&mut waiting[2]), Some(Ok(())));
    orders.answered(vec![answer(None, Err("too hot"))]);
    assert_eq!(told(&mut waiting[0]), Some(Err("the device says: too hot".to_owned())));
    orders.expire(&mut decoder, at(2));
    assert!(told(&mut waiting[1]).is_none() && told(&mut waiting[3]).is_none());
    assert_eq!(orders.due(), Some(at(3)));
    orders.expire(&mut decoder, at(3));
    for waiting in [1, 3].map(|place| told(&mut waiting[place])) {
        assert!(waiting.expect("told").is_err_and(|why| why.contains("not acknowledged it within 2s")));
    }
    orders.answered(vec![answer(None, Ok(())), answer(Some(2), Ok(()))]);
    assert!(orders.due().is_none());
}

#[test]
fn only_so_many_wait_for_an_answer() {
    let (mut orders, mut decoder) = (Orders::default(), acknowledges());
    let mut kept = Vec::new();
    for _ in 0..MAX_UNANSWERED {
        assert!(orders.has_room());
        kept.push(begin(&mut orders, &mut decoder, "x", at(1)));
        orders.wrote(1, at(1));
    }
    assert!(!orders.has_room());
    orders.lost("unplugged");
    for told_last in &mut kept {
        assert!(told(told_last).expect("told").is_err_and(|why| why.contains("not known: unplugged")));
    }
    assert!(orders.has_room());
}

#[test]
fn a_port_that_takes_nothing_holds_up_one_command() {
    let (mut orders, mut decoder) = (Orders::default(), Plain::default());
    let mut first = begin(&mut orders, &mut decoder, "abc", at(1));
    assert_eq!(orders.due(), Some(at(6)));
    orders.expire(&mut decoder, at(6));
    assert!(told(&mut first).expect("told").is_err_and(|why| why.contains("took 0 of its 3 bytes")));
    assert!(!decoder.cut, "the device has nothing of it");
    let mut second = begin(&mut orders, &mut decoder, "abc", at(7));
    orders.wrote(1, at(7));
    orders.expire(&mut decoder, at(12));
    assert!(told(&mut second).expect("told").is_err() && decoder.cut);
    assert!(orders.bytes().is_empty(), "the rest is not sent later");
}

#[test]
fn what_waited_too_long_and_what_the_driver_refuses_is_never_written() {
    let (mut orders, mut decoder) = (Orders::default(), Plain::default());
    let mut late = begin(&mut orders, &mut decoder, "x", at(101));
    assert!(told(&mut late).expect("told").is_err_and(|why| why.contains("waited too long")));
    assert_eq!(told(&mut begin(&mut orders, &mut decoder, "no", at(1))), Some(Err("not this".to_owned())));
    assert!(orders.bytes().is_empty() && orders.has_room());
}

#[test]
fn a_sender_that_has_gone_disturbs_nothing() {
    let (mut orders, mut decoder) = (Orders::default(), acknowledges());
    drop(begin(&mut orders, &mut decoder, "x", at(1)));
    orders.wrote(1, at(1));
    orders.answered(vec![Answer { id: Some(1), outcome: Ok(()) }]);
    assert!(orders.has_room() && orders.due().is_none());
}
