//! Prevents: a gateway that does not start, or serves nobody, because one of its networks comes later.

use std::process::{Command, Stdio};

use super::super::harness::{Exit, Gateway, LATE, Net};

#[test]
fn clients_reach_a_listener_as_soon_as_its_address_is_there() {
    let net = Net::new();
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[broker]\nlisten = \"10.0.0.2:1883\"\nanonymous = true\npath = \"{}/broker\"\n\n\
         [[broker.listener]]\nlisten = \"{LATE}:1883\"\n",
        gateway.path().display()
    ));
    let mut agent = net.run(&gateway);
    agent.wait_log(&format!(
        "no interface of this machine has the address of the embedded broker's listener {LATE}:1883"
    ));
    agent.wait_log("connected");
    let publish = |host: &str| {
        let args = ["-h", host, "-q", "1", "-t", "a", "-m", "1"];
        Command::new("mosquitto_pub").args(args).stderr(Stdio::null()).status().expect("mosquitto_pub").success()
    };
    assert!(publish("10.0.0.2"), "the other network is served meanwhile");
    assert!(!publish(LATE), "nobody has it yet");
    net.readdress();
    assert!(publish(LATE), "at once");
    assert_eq!(agent.terminate(), Exit::Code(0));
}
