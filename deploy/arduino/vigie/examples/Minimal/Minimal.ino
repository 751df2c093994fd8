// One sensor: the light on A0, once a second, as a line of JSON: {"light":312}
//
// In vigie's configuration: driver = "serial-json"

#include <vigie.h>

vigie::Lines<> gateway(Serial);
vigie::Every second(1000);

void setup() {
  Serial.begin(115200);
}

void loop() {
  if (second.due()) {
    gateway.begin();
    gateway.add(F("light"), analogRead(A0));
    gateway.end();
  }
}
