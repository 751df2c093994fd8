//! Prevents: what LAN clients publish being lost on its way up, or going round between the brokers. The program as
//! built, with Mosquitto's clients on the LAN, a Mosquitto above, and a Mosquitto bridge.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use super::broker::Subscriber as OnLan;
use super::harness::{Agent, Exit, Gateway, Mosquitto, Subscriber, free_port, wait_until};

/// A gateway with an embedded broker for anybody and an uplink to a Mosquitto.
struct Lan {
    gateway: Gateway,
    port: u16,
    above: Mosquitto,
}

impl Lan {
    fn new(tables: &str) -> Self {
        let lan = Self { gateway: Gateway::new(), port: free_port(), above: Mosquitto::start() };
        let dir = lan.gateway.path().display().to_string();
        lan.gateway.configure(&format!(
            "[uplink.above]\nurl = \"mqtt://127.0.0.1:{}\"\nstate = false\n\n\
             [broker]\nlisten = \"127.0.0.1:{}\"\npath = \"{dir}/broker\"\n\n{tables}",
            lan.above.port(),
            lan.port
        ));
        lan
    }

    fn run(&self) -> Agent {
        let mut agent = self.gateway.run();
        agent.wait_log(&format!("mqtt://127.0.0.1:{}", self.port));
        agent
    }

    fn client(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[track_caller]
    fn publish(&self, args: &[&str]) {
        let output = self.client("mosquitto_pub", args).output().expect("mosquitto_pub");
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn messages_go_up_as_they_came_or_as_readings_of_a_sensor() {
    let lan = Lan::new(
        "[[broker.ingest]]\ntopics = [\"esp/+/state\"]\nsensor = \"{2}\"\nroom = \"salon\"\n\
         tags = { kind = \"esp\" }\nquantity.temp = { as = \"temperature\", unit = \"°C\" }\n\n\
         [[broker.ingest]]\ntopics = [\"node/#\"]\nsensor = \"{2}\"\nroom = \"{3}\"\nas = \"{4}\"\nform = \"plain\"\n\n\
         [[broker.ingest]]\ntopics = [\"uno\"]\nsensor = \"uno\"\nroom = \"cave\"\nform = \"pairs\"\n\n\
         [[broker.ingest]]\ntopics = [\"application/#\"]\nto = \"lora/{topic}\"\n",
    );
    let up = Subscriber::start(&lan.above, "up", 1);
    let config = lan.gateway.config_file();
    let text = std::fs::read_to_string(&config).expect("it was written");
    let topic = "[gateway]\ntopic = \"{site}/{room}/{sensor}/{quantity}\"\n";
    std::fs::write(&config, text.replacen("[gateway]\n", topic, 1)).expect("it can be written");
    let mut agent = lan.run();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1", "2"] {
            let level = format!("{version}{qos}");
            let with =
                |topic: &str, payload: &str| lan.publish(&["-V", version, "-q", qos, "-t", topic, "-m", payload]);
            with(&format!("esp/{level}/state"), "{\"temp\":21.5,\"bat\":3.1}");
            with(&format!("node/{level}/cuisine/humidity"), "40.5 %");
            with(&format!("application/1/{level}"), "{\"fPort\":2}");
            up.wait(&format!("maison/salon/{level}/temperature"), |message| {
                let json = message.json();
                json["value"] == 21.5 && json["unit"] == "°C" && json["sensor"] == level.as_str()
            });
            up.wait(&format!("maison/salon/{level}/bat"), |message| message.json()["value"] == 3.1);
            up.wait(&format!("maison/cuisine/{level}/humidity"), |message| message.json()["unit"] == "%");
            up.wait(&format!("lora/application/1/{level}"), |message| message.payload == "{\"fPort\":2}");
        }
    }
    lan.publish(&["-q", "1", "-t", "uno", "-m", "T=21.5C H=40%"]);
    up.wait("maison/cave/uno/H", |message| message.json()["value"] == 40.0);
    // The embedded broker has the readings, too, and the raw messages where they were published.
    let retained = lan
        .client("mosquitto_sub", &["-t", "maison/salon/+/temperature", "-C", "1", "-W", "300"])
        .output()
        .expect("mosquitto_sub");
    assert!(String::from_utf8_lossy(&retained.stdout).contains("\"value\":21.5"), "{retained:?}");
    // What cannot be read is said, and does not end the connection of who sent it.
    lan.publish(&["-q", "1", "-t", "esp/mqttv3111/state", "-m", "no json"]);
    agent.wait_log("not one JSON object");
    assert_eq!(agent.terminate(), Exit::Code(0));
}

/// A publisher that goes on connecting until its broker has everything: lines that are written to it are messages.
struct Publisher(Child, ChildStdin);

impl Publisher {
    fn start(lan: &Lan, id: &str, qos: u8) -> Self {
        let qos = qos.to_string();
        let args = ["-i", id, "-c", "-q", &qos, "-l", "-t", id, "-k", "5"];
        let mut child = lan.client("mosquitto_pub", &args).stdin(Stdio::piped()).spawn().expect("mosquitto_pub");
        let input = child.stdin.take().expect("a pipe was asked for");
        Self(child, input)
    }

    fn send(&mut self, text: &str) {
        writeln!(self.1, "{text}").expect("it reads");
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_a_client_has_the_acknowledgement_of_survives_sigkill_while_there_is_nobody_above() {
    let mut lan = Lan::new("[[broker.ingest]]\ntopics = [\"esp/+\"]\nto = \"lan/{topic}\"\nrate = 10000\n");
    let up = Subscriber::start(&lan.above, "up", 2);
    drop(up);
    lan.above.stop();
    // mosquitto_pub ends well when it has the acknowledgement, so that each of these was taken.
    let mut sent = Vec::new();
    for round in 0..3 {
        let mut agent = lan.run();
        for number in 0..8 {
            let (qos, payload) = (if number % 2 == 0 { "1" } else { "2" }, format!("{round}-{number}"));
            lan.publish(&["-q", qos, "-t", &format!("esp/{qos}"), "-m", &payload]);
            sent.push((qos, payload));
        }
        agent.kill();
    }
    lan.above.start_again();
    let mut agent = lan.run();
    let up = Subscriber::start(&lan.above, "up", 2);
    wait_until("all that was acknowledged", || {
        let all = up.messages();
        sent.iter().all(|(qos, payload)| {
            all.iter().any(|message| message.topic == format!("lan/esp/{qos}") && message.payload == *payload)
        })
    });
    // Nothing was published twice by a client, so that nothing is here twice: the gateway adds no duplicates.
    assert_eq!(up.messages().len(), sent.len(), "{}", up.excerpt());
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn clients_go_on_through_sigkill_and_nothing_that_they_were_to_send_is_missing() {
    const MESSAGES: usize = 400;
    let lan = Lan::new("[[broker.ingest]]\ntopics = [\"esp/+\"]\nto = \"lan/{topic}\"\nrate = 10000\n");
    let up = Subscriber::start(&lan.above, "up", 2);
    let mut agent = lan.run();
    let mut clients: Vec<Publisher> = (1..=2).map(|qos| Publisher::start(&lan, &format!("esp/{qos}"), qos)).collect();
    for number in 0..MESSAGES {
        for client in &mut clients {
            client.send(&number.to_string());
        }
        if number % 100 == 50 {
            // In the middle of their messages.
            wait_until("some of them above", || up.messages().len() > number);
            agent.kill();
            agent = lan.run();
        }
    }
    for qos in 1..=2 {
        let topic = format!("lan/esp/{qos}");
        let missing = || {
            let there: std::collections::HashSet<String> =
                up.on(&topic).into_iter().map(|message| message.payload).collect();
            (0..MESSAGES).filter(|number| !there.contains(&number.to_string())).count()
        };
        wait_until(&format!("everything of QoS {qos}"), || missing() == 0);
        // Each kill may make what was in flight come twice: mosquitto_pub has at most 20 messages in flight, the uplink 100.
        let extra = up.on(&topic).len() - MESSAGES;
        assert!(extra <= 4 * (20 + 100), "QoS {qos}: {extra} duplicates");
    }
    assert_eq!(agent.terminate(), Exit::Code(0));
}

/// Publishes to the Mosquitto above; returns when that has it.
#[track_caller]
fn publish_above(lan: &Lan, topic: &str, payload: &str) {
    let port = lan.above.port().to_string();
    let args = ["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", payload];
    let status = Command::new("mosquitto_pub").args(args).status().expect("mosquitto_pub");
    assert!(status.success(), "{topic}");
}

#[test]
fn what_is_published_above_comes_down_also_when_the_gateway_was_away_and_never_goes_up_again() {
    const EACH: usize = 15;
    let lan = Lan::new(
        "[[broker.deliver]]\ntopics = [\"commands/#\"]\nto = \"lan/{topic}\"\nretain = true\n\n\
         [[broker.deliver]]\ntopics = [\"events/+\"]\n\n\
         [[broker.ingest]]\ntopics = [\"esp/#\", \"lan/esp/#\"]\nto = \"up/{topic}\"\n",
    );
    let up = Subscriber::start(&lan.above, "up", 1);
    let mut agent = lan.run();
    agent.wait_log("has accepted the subscriptions");
    let on_lan = OnLan::start(lan.client("mosquitto_sub", &["-t", "#", "-q", "1", "-F", "%r %t %p"]));
    wait_until("an event on the LAN, which is not kept", || {
        publish_above(&lan, "events/bell", "ding");
        on_lan.1.all().contains(&"0 events/bell ding".to_owned())
    });
    for round in 0..2 {
        for number in 0..EACH {
            publish_above(&lan, &format!("commands/{round}/{number}"), "x");
        }
        // First with some of them on their way through the gateway, then with all of them waiting for it.
        agent.kill();
        if round == 0 {
            for number in 0..EACH {
                publish_above(&lan, &format!("commands/away/{number}"), "x");
            }
        }
        agent = lan.run();
    }
    let expected = 3 * EACH;
    let count = expected.to_string();
    let args = ["-t", "lan/commands/#", "-C", &count, "-W", "300", "-F", "%t"];
    let found = lan.client("mosquitto_sub", &args).output().expect("mosquitto_sub");
    let topics: std::collections::BTreeSet<String> =
        String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect();
    assert_eq!(topics.len(), expected, "{topics:?}");
    // A message of the LAN goes up behind all that: by then, what came down would have gone up, too.
    lan.publish(&["-q", "1", "-t", "esp/end", "-m", "end"]);
    up.wait("up/esp/end", |message| message.payload == "end");
    let above: Vec<_> = up.messages().into_iter().filter(|message| !message.topic.starts_with("events/")).collect();
    assert_eq!(above.len(), expected + 1, "{}", up.excerpt());
    assert_eq!(agent.terminate(), Exit::Code(0));
}

#[test]
fn nothing_goes_round_when_the_broker_above_is_bridged_to_the_lan() {
    // A bridge of 3.1.1 says that it is one.
    let named = "bridges = [\"bridge-of-above\"]\n\n";
    for (direction, version, bridges) in
        [("both", "mqttv311", ""), ("out", "mqttv50", named), ("both", "mqttv50", named)]
    {
        let copies = if direction == "both" { 2 } else { 1 };
        let mut lan = Lan::new(&format!(
            "{bridges}[[broker.ingest]]\ntopics = [\"esp/#\"]\n\n\
             [[broker.ingest]]\ntopics = [\"node/+\"]\nsensor = \"node\"\nroom = \"cave\"\nform = \"plain\"\nas = \"level\"\n"
        ));
        lan.above.stop();
        lan.above.set_extra(&format!(
            "allow_anonymous true\nconnection lan\naddress 127.0.0.1:{}\ntopic # {direction} 1\n\
             bridge_protocol_version {version}\nnotifications false\nremote_clientid bridge-of-above\nrestart_timeout 1\n",
            lan.port
        ));
        let mut agent = lan.run();
        lan.above.start_again();
        let up = Subscriber::start(&lan.above, "up", 1);
        let on_lan = OnLan::start(lan.client("mosquitto_sub", &["-t", "#", "-q", "1", "-F", "%t %p"]));
        let seen = |line: &str| on_lan.1.all().iter().filter(|other| *other == line).count();
        wait_until("the bridge", || {
            publish_above(&lan, "news/probe", "x");
            seen("news/probe x") > 0
        });
        publish_above(&lan, "news/a", "once");
        publish_above(&lan, "esp/above", "once");
        lan.publish(&["-q", "1", "-t", "esp/lan", "-m", "once"]);
        lan.publish(&["-q", "1", "-t", "node/7", "-m", "7.5"]);
        // Each of these goes all the ways that the others went before it.
        for round in 0..4 {
            let mark = format!("mark {round}");
            lan.publish(&["-q", "1", "-t", "esp/lan", "-m", &mark]);
            wait_until("the mark above", || {
                up.on("lan/esp/lan").iter().any(|message| message.payload == mark)
                    && up.on("esp/lan").iter().filter(|message| message.payload == mark).count() == copies - 1
            });
            publish_above(&lan, "news/mark", &mark);
            wait_until("the mark on the LAN", || seen(&format!("news/mark {mark}")) == 1);
        }
        let above = |topic: &str| up.on(topic).iter().filter(|message| message.payload == "once").count();
        let about = format!("{direction} {version}\n{}\n{}", up.excerpt(), on_lan.1.text());
        assert_eq!((above("news/a"), above("esp/above"), above("lan/esp/lan")), (1, 1, 1), "{about}");
        assert_eq!((above("lan/esp/above"), above("esp/lan")), (0, copies - 1), "{about}");
        assert_eq!(seen("lan/esp/lan once"), 0, "{about}");
        assert_eq!((seen("news/a once"), seen("esp/lan once"), seen("esp/above once")), (1, 1, 0), "{about}");
        assert_eq!(up.on("maison/cave/level").len(), copies, "{about}");
        let readings = on_lan.1.all().iter().filter(|line| line.starts_with("maison/cave/level ")).count();
        assert_eq!(readings, 1, "{about}");
        agent.wait_log("message of a bridge dropped");
        assert_eq!(agent.terminate(), Exit::Code(0));
    }
}
