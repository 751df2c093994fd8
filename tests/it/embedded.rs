//! Prevents: an embedded broker that begins anew with each start: a session of the gateway's own that is thrown away, and
//! totals of LAN clients' sensors that go back to nothing; and one of which nobody can ask how it is. The program as
//! built, with Mosquitto's clients.

use std::process::{Command, Stdio};

use super::broker::Subscriber;
use super::harness::{Agent, Exit, Gateway, Mosquitto, command, free_port, wait_until};

struct Home {
    gateway: Gateway,
    port: u16,
}

impl Home {
    /// What goes up needs a way; nobody is at its end.
    fn new(tables: &str) -> Self {
        Self::below(free_port(), tables)
    }

    fn below(above: u16, tables: &str) -> Self {
        let home = Self { gateway: Gateway::new(), port: free_port() };
        home.gateway.configure(&format!(
            "[uplink.above]\nurl = \"mqtt://127.0.0.1:{}\"\n\n\
             [broker]\nlisten = \"127.0.0.1:{}\"\npath = \"{}/broker\"\n\n{tables}",
            above,
            home.port,
            home.gateway.path().display()
        ));
        home
    }

    fn run(&self) -> Agent {
        let mut agent = self.gateway.run();
        agent.wait_log("connected");
        agent
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-q", "1"]);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[track_caller]
    fn publish(&self, topic: &str, payload: &str) {
        let output = self.client("mosquitto_pub", &["-t", topic, "-m", payload]).output().expect("mosquitto_pub");
        assert!(output.status.success() && output.stderr.is_empty(), "{topic}: {output:?}");
    }

    fn status(&self) -> serde_json::Value {
        let config = self.gateway.config_file().display().to_string();
        let args = ["outbox", "status", "--json", "--config", &config];
        let output = command(&args, self.gateway.path()).output().expect("vigie");
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

#[test]
fn the_gateways_session_at_its_own_broker_goes_on_after_each_kind_of_end() {
    let home = Home::new(
        "[hardware]\nbackend = \"sim\"\n\n\
         [[sensor]]\nname = \"meteo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"100ms\"\n",
    );
    let mut agent = home.run();
    for kill in [false, true, false] {
        let eyes = Subscriber::start(home.client("mosquitto_sub", &["-t", "maison/#"]));
        wait_until("a reading", || eyes.1.all().iter().any(|line| line.contains("temperature")));
        drop(eyes);
        if kill {
            agent.kill();
        } else {
            assert_eq!(agent.terminate(), Exit::Code(0));
        }
        agent = home.run();
        let log = agent.log.text();
        assert!(!log.contains("it is discarded") && !log.contains("twice"), "{log}");
    }
}

#[test]
fn the_totals_of_lan_sensors_go_on_after_each_kind_of_end() {
    let home = Home::new(
        "[[broker.ingest]]\ntopics = [\"esp/+\"]\nsensor = \"{2}\"\nroom = \"{2}\"\n\
         quantity.power = { unit = \"W\", filters = [{ integral = \"1s\" }] }\n",
    );
    let mut total = 0.0;
    for kill in [false, true, false] {
        let mut agent = home.run();
        let eyes = Subscriber::start(home.client("mosquitto_sub", &["-R", "-t", "maison/one/power", "-F", "%p"]));
        let totals = || -> Vec<f64> {
            let value = |line: &String| serde_json::from_str::<serde_json::Value>(line).ok()?["value"].as_f64();
            eyes.1.all().iter().filter_map(value).collect()
        };
        let enough = total + 5.0;
        wait_until("a larger total", || {
            home.publish("esp/one", "{\"power\":10}");
            totals().last().is_some_and(|last| *last >= enough)
        });
        let totals = totals();
        assert!(totals.iter().all(|one| *one >= total), "from {total} on: {totals:?}");
        total = *totals.last().expect("there was one");
        if kill {
            agent.kill();
        } else {
            assert_eq!(agent.terminate(), Exit::Code(0));
        }
    }
}

#[test]
fn how_the_broker_is_can_be_asked_for() {
    let home = Home::new(
        "[broker.user.anonymous]\nread = [\"esp/#\"]\nwrite = [\"esp/#\"]\n\n\
         [[broker.ingest]]\ntopics = [\"esp/+\"]\nto = \"up/{topic}\"\n",
    );
    let mut agent = home.run();
    let eyes = Subscriber::start(home.client("mosquitto_sub", &["-i", "eyes", "-c", "-t", "esp/#"]));
    wait_until("the subscriber", || {
        home.publish("esp/one", "1");
        eyes.1.all().contains(&"1".to_owned())
    });
    wait_until("the publisher to be gone", || home.status()["broker"]["connected"] == 1);
    // Of QoS 0, so that mosquitto_pub does not complain.
    let refused =
        home.client("mosquitto_pub", &["-q", "0", "-t", "secret", "-m", "1"]).status().expect("mosquitto_pub");
    assert!(refused.success());
    drop(eyes);
    wait_until("all of it", || {
        let broker = &home.status()["broker"];
        broker["connected"] == 0
            && broker["sessions"] == 1
            && broker["ingested"].as_u64() >= Some(1)
            && broker["delivered"].as_u64() >= Some(1)
            && broker["refused"]["write"] == 1
            && broker["trouble"].is_null()
            && broker["listens"][0] == format!("127.0.0.1:{}", home.port)
    });
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert!(home.status()["broker"].is_null(), "nothing is known of one that does not run");
}

#[test]
fn a_flood_from_above_is_acknowledged_at_its_rate_and_none_of_it_is_lost() {
    const COUNT: usize = 12;
    let above = Mosquitto::start();
    let home = Home::below(above.port(), "[[broker.deliver]]\ntopics = [\"commands/#\"]\nrate = 2\n");
    let mut agent = home.run();
    agent.wait_log("has accepted the subscriptions");
    let eyes = Subscriber::start(home.client("mosquitto_sub", &["-i", "eyes", "-t", "commands/#"]));
    wait_until("the subscriber", || {
        home.publish("commands/probe", "probe");
        eyes.1.all().contains(&"probe".to_owned())
    });
    let came = || eyes.1.all().iter().filter(|line| *line == "now").count();
    let (port, count) = (above.port().to_string(), COUNT.to_string());
    let args = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", "commands/go", "-m", "now", "--repeat", &count];
    assert!(Command::new("mosquitto_pub").args(args).status().expect("mosquitto_pub").success());
    wait_until("all of them", || came() >= COUNT);
    let link = || {
        let status = home.status();
        let uplinks = status["uplinks"].as_array().expect("uplinks");
        uplinks.iter().find(|uplink| uplink["name"] == "above").expect("it is there")["link"].clone()
    };
    wait_until("the count", || link()["to_lan"] == COUNT && link()["to_lan_held"].as_u64() >= Some(1));
    assert_eq!(link()["to_lan_dropped"], 0);
    assert_eq!(agent.terminate(), Exit::Code(0));
    assert_eq!(came(), COUNT);
}
