// A relay on pin 7 that goes off by itself: the gateway, or what stands behind it, must say again and again that it is to
// stay on. A cable that is pulled and a server that is down switch it off.
//
// Commands: {"relay":true} or {"relay":false}; {"relay":true,"for":10} to stay on for 10 seconds instead of 30.
// In vigie's configuration: driver = "serial-json", acknowledge = "2s"

#include <vigie.h>

const uint8_t RELAY = 7;
const long HOLD = 30, HOLD_MOST = 3600;  // seconds

vigie::Lines<> gateway(Serial);
vigie::Every period(10000);
bool on = false;
uint32_t since, hold;

void tell() {
  gateway.begin();
  gateway.add(F("relay"), on);
  gateway.end();
}

void turn(bool wanted) {
  digitalWrite(RELAY, wanted ? HIGH : LOW);
  if (wanted == on) return;
  on = wanted;
  tell();
}

void setup() {
  digitalWrite(RELAY, LOW);
  pinMode(RELAY, OUTPUT);
  Serial.begin(115200);
}

void loop() {
  if (gateway.receive()) {
    bool wanted;
    long seconds = HOLD;
    if (!gateway.command().get(F("relay"), wanted)) {
      gateway.failed(F("expected {\"relay\":true} or {\"relay\":false}"));
    } else if (gateway.command().has(F("for")) &&
               (!gateway.command().get(F("for"), seconds) || seconds < 1 || seconds > HOLD_MOST)) {
      gateway.failed(F("for: 1 to 3600 seconds"));
    } else {
      since = millis();
      hold = seconds * 1000;
      turn(wanted);
      gateway.done();
    }
  }
  if (on && millis() - since >= hold) turn(false);
  if (period.due()) tell();
}
