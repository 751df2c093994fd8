//! Prevents: readings of a run that never saw a broker being lost, or passed off as the next run's; and two agents
//! writing into one outbox.

use super::harness::{Agent, Exit, Gateway, Mosquitto, Port, Subscriber, free_port, wait_until};

fn configure(gateway: &Gateway, broker_port: u16, port: &Port) {
    gateway.configure(&format!(
        "[uplink.home]\nurl = \"mqtt://localhost:{broker_port}\"\n\n\
         [[sensor]]\nname = \"arduino\"\nroom = \"salle\"\ndriver = \"serial-json\"\nport = \"{}\"\n",
        port.path().display()
    ));
}

#[test]
fn the_next_run_delivers_what_the_first_could_not() {
    let mut port = Port::open();
    let gateway = Gateway::new();
    // The broker has never been there.
    configure(&gateway, free_port(), &port);
    let mut agent = gateway.run();
    let first = port.send_until_taken(&gateway);
    port.send(30);
    port.wait_all_taken(&gateway);
    let last_of_first = port.next() - 1;
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());

    // A clean stop leaves everything on disk: a tmpfs would be empty after a reboot.
    std::fs::remove_dir_all(gateway.path().join("tail")).expect("the tail can be removed");
    assert_eq!(gateway.marks_held().last(), Some(&last_of_first), "what was taken is in the log");

    let broker = Mosquitto::start();
    let subscriber = Subscriber::start(&broker, "server", 1);
    configure(&gateway, broker.port(), &port);
    let mut agent = gateway.run();
    let second = port.send_until_taken(&gateway);
    let topic = "maison/salle/mark";
    let mark = |number: u32| format!("\"mark-{number:08}\"");
    subscriber.wait(topic, |message| message.payload.contains(&mark(second)));

    let run = |number: u32| {
        let message = subscriber.wait(topic, |message| message.payload.contains(&mark(number)));
        let id = message.json()["id"].as_str().expect("an id").to_owned();
        id.split_once('-').expect("run and sequence").0.parse::<u32>().expect("a number")
    };
    let first_run = run(first);
    for number in first..=last_of_first {
        assert_eq!(run(number), first_run, "mark {number}");
    }
    assert!(run(second) > first_run, "the second run has a number of its own");
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}

#[test]
fn a_second_agent_on_the_same_outbox_is_refused() {
    let port = Port::open();
    let gateway = Gateway::new();
    configure(&gateway, free_port(), &port);
    let _first = gateway.run();
    wait_until("the first to open the port", || port.is_open());
    let args = ["run", "--config", &gateway.config_file().display().to_string()];
    let mut second = Agent::start(&args, gateway.path());
    assert_eq!(second.wait(), Exit::Code(1));
    let folder = gateway.path().join("outbox").display().to_string();
    wait_until("an error that names the folder", || second.log.count(&folder) > 0);
}
