//! Prevents: an agent that does not get on with a real broker of MQTT 5 which allows less than the configuration wants.

use super::harness::{Exit, Gateway, Mosquitto, Subscriber, wait_until};

/// A gateway with simulated chips and a broker with these further lines of configuration.
fn gateway(broker: &Mosquitto, keys: &str) -> Gateway {
    let gateway = Gateway::new();
    gateway.configure(&format!(
        "[hardware]\nbackend = \"sim\"\n\n[uplink.home]\nurl = \"mqtt://localhost:{}\"\nmqtt = \"5\"\n{keys}\n\
         [[sensor]]\nname = \"meteo\"\nroom = \"salon\"\ndriver = \"bme280\"\nevery = \"50ms\"\n",
        broker.port()
    ));
    gateway
}

/// A subscriber that shows user properties before the payload.
fn subscriber(broker: &Mosquitto) -> Subscriber {
    Subscriber::showing(broker, "watch", 0, &["-V", "5"], "%P %p")
}

#[test]
fn a_reading_arrives_with_its_id_as_a_user_property() {
    let broker = Mosquitto::start();
    let subscriber = subscriber(&broker);
    let gateway = gateway(&broker, "");
    let mut agent = gateway.run();
    // More than one for each topic, so that aliases stand for them.
    wait_until("some temperatures", || subscriber.on("maison/salon/temperature").len() > 5);
    for message in subscriber.on("maison/salon/temperature") {
        let (property, payload) = message.payload.split_once(' ').expect("a property before the payload");
        let json: serde_json::Value = serde_json::from_str(payload).expect("JSON");
        assert_eq!(property, format!("id:{}", json["id"].as_str().expect("an id")));
        assert_eq!(json["quantity"], "temperature");
    }
    assert_eq!(agent.terminate(), Exit::Code(0), "log:\n{}", agent.log.text());
}

/// Mosquitto refuses a will that it cannot keep, or at a quality of service that it does not take: the next attempt
/// comes without.
#[test]
fn what_the_broker_does_not_support_is_left_out() {
    let broker = Mosquitto::with("allow_anonymous true\nretain_available false\nmax_qos 0\nmax_keepalive 15\n");
    let subscriber = subscriber(&broker);
    let gateway = gateway(&broker, "qos = 2\nkeep_alive = \"60s\"");
    let mut agent = gateway.run();
    agent.wait_log("takes messages at QoS 0 at most");
    agent.wait_log("retains no messages");
    subscriber.wait("maison/atelier/availability", |message| message.payload.contains("online"));
    wait_until("some temperatures", || subscriber.on("maison/salon/temperature").len() > 5);
    agent.kill();
    subscriber.wait("maison/atelier/availability", |message| message.payload.contains("lost"));
}

#[test]
fn an_older_broker_is_named_as_the_cause() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let gateway = Gateway::new();
    gateway.configure(&format!("[uplink.home]\nurl = \"mqtt://127.0.0.1:{port}\"\nmqtt = \"5\"\n"));
    let mut agent = gateway.run();
    let (mut stream, _) = listener.accept().expect("a connection");
    std::io::Write::write_all(&mut stream, &[0x20, 2, 0, 1]).expect("an answer");
    agent.wait_log("does not speak MQTT 5: set `mqtt = \"3.1.1\"`");
}
