//! Prevents: `connect = "every …"` that stays connected, forgets what was measured while it slept, or is taken for
//! dead by those who watch.

use super::harness::{Exit, Gateway, Mosquitto, Port, Receiver, mark_number, wait_until};

#[test]
fn what_is_measured_during_the_sleep_goes_out_when_it_is_time() {
    let broker = Mosquitto::start();
    let receiver = Receiver::start(&broker);
    let mut port = Port::open();
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{}\"\nconnect = \"every 1m\"\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        broker.port(),
        port.path().display()
    ));
    let mut agent = gateway.run();
    agent.wait_log("connected");
    let states = || -> Vec<String> {
        let messages = receiver.on("maison/atelier/availability");
        messages.iter().filter_map(|message| message.json()["state"].as_str().map(str::to_owned)).collect()
    };
    wait_until("to be asleep", || states() == ["online", "asleep"]);
    let first = port.send_until_taken(&gateway);
    port.send(30);
    port.wait_all_taken(&gateway);
    assert_eq!((agent.log.count(" connected"), states().len()), (1, 2), "log:\n{}", agent.log.text());

    // What waits goes to disk as ever, and out at the next full minute.
    wait_until("the readings to be on disk", || gateway.marks_on_disk().contains(&first));
    agent.wait_log_times(" connected", 2);
    wait_until("to be asleep again", || states() == ["online", "asleep", "online", "asleep"]);
    let arrived: Vec<u32> = receiver
        .on("maison/salle/mark")
        .iter()
        .filter_map(|message| mark_number(message.json()["value"].as_str()?.as_bytes()))
        .collect();
    assert_eq!(arrived, (first..port.next()).collect::<Vec<u32>>());

    // Told to stop, it does not connect once more.
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
    assert_eq!((agent.log.count(" connected"), states().len()), (2, 4), "log:\n{}", agent.log.text());
}
