//! Prevents: a LAN whose silent or unknown clients nobody hears of, and a broker that says nothing of itself. The program as
//! built, with mosquitto_pub and mosquitto_sub.

use std::fs;
use std::process::{Command, Stdio};

use super::broker::Subscriber;
use super::harness::{Exit, Gateway, free_port, wait_until};

fn client(program: &str, port: u16, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(["-h", "localhost", "-p", &port.to_string()]).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn silent_topics_and_unknown_clients_are_published_and_the_broker_says_how_it_is() {
    let (gateway, port) = (Gateway::new(), free_port());
    let folder = gateway.path().join("broker");
    // Somebody was here before, so that the broker does not learn any more.
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("clients"), "").expect("a file");
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n\
         [broker]\nlisten = \"127.0.0.1:{port}\"\npath = \"{}\"\nsys_interval = \"200ms\"\n\n\
         [broker.watch]\nunknown_clients = true\n\n\
         [[broker.ingest]]\ntopics = [\"esp/+\"]\nsensor = \"{{2}}\"\nroom = \"{{2}}\"\nsilent_after = \"2s\"\n",
        folder.display()
    ));
    let mut agent = gateway.run();
    agent.wait_log("listens on");
    let told = Subscriber::start(client("mosquitto_sub", port, &["-i", "eyes", "-t", "+/+/broker", "-t", "+/broker"]));
    let sys =
        Subscriber::start(client("mosquitto_sub", port, &["-i", "ears", "-v", "-t", "$SYS/broker/clients/connected"]));
    let has = |words: &'static [&'static str]| {
        let lines = told.1.all();
        lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
    };
    wait_until("the unknown client", || has(&["\"unknown-client\"", "\"client\":\"eyes\"", "127.0.0.1"]));
    let reading = ["-i", "esp", "-t", "esp/one", "-m", "{\"t\":1}", "-q", "1"];
    // All at once, however slow the machine is.
    let sent = client("mosquitto_pub", port, &[&reading[..], &["--repeat", "5"]].concat()).status();
    assert!(sent.expect("mosquitto_pub").success());
    wait_until("the silent topic", || has(&["\"silent\"", "\"topic\":\"esp/one\"", "nothing was published"]));
    let sent = client("mosquitto_pub", port, &reading).status();
    assert!(sent.expect("mosquitto_pub").success());
    wait_until("the topic that is back", || has(&["\"back\":1"]));
    // Two subscribers and the gateway itself.
    wait_until("the count of clients", || sys.1.all().iter().any(|line| line.ends_with("connected 3")));
    let forged = client("mosquitto_pub", port, &["-V", "mqttv5", "-t", "$SYS/broker/uptime", "-m", "0", "-q", "1"]);
    let output = { forged }.output().expect("mosquitto_pub");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Not authorized"), "{output:?}");
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert!(agent.log.text().contains("never here before"), "{}", agent.log.text());
    let known = fs::read_to_string(folder.join("clients")).expect("it is written at the end");
    assert!(known.lines().count() >= 3, "{known}");
}
