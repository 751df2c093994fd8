// Several sensors, as binary frames with a checksum: for a long cable out to the garden.
//
// A0: a TMP36 (10 mV/°C, 500 mV at 0 °C); A1: a probe of the soil's moisture; pin 2: a switch at the gate, to ground.
// Commands: {"every":10} to measure every 10 seconds.
// In vigie's configuration: driver = "serial-frames", acknowledge = "2s"

#include <vigie.h>

const uint8_t GATE = 2;

enum { TEMPERATURE, MOISTURE, OPENED };

void describe(vigie::Framing &gateway) {
  gateway.quantity(TEMPERATURE, F("temperature"), F("°C"));
  gateway.quantity(MOISTURE, F("moisture"), F("%"));
  gateway.quantity(OPENED, F("gate"), nullptr, true);
}

vigie::Frames<> gateway(Serial, describe);
vigie::Every period(1000);
bool open = false;

void setup() {
  Serial.begin(115200);
  pinMode(GATE, INPUT_PULLUP);
  gateway.start();
}

void loop() {
  // This also answers the gateway when it asks what the quantities are called.
  if (gateway.receive()) {
    long seconds;
    if (gateway.command().get(F("every"), seconds) && seconds >= 1 && seconds <= 3600) {
      period.set(seconds * 1000);
      gateway.done();
    } else {
      gateway.failed(F("expected {\"every\":1} to {\"every\":3600}"));
    }
  }

  if (period.due()) {
    int probe = analogRead(A1);
    gateway.begin();
    gateway.add(TEMPERATURE, analogRead(A0) * (500.0 / 1024) - 50.0);
    // Dry air gives 800, water 300.
    gateway.add(MOISTURE, uint8_t(constrain(map(probe, 800, 300, 0, 100), 0, 100)));
    gateway.end();
  }

  bool now = digitalRead(GATE) == HIGH;
  if (now != open) {
    open = now;
    gateway.begin();
    gateway.add(OPENED, open);
    gateway.end();
  }
}
