// Sends readings to a vigie gateway over a serial port, and takes commands from it.
//
// vigie::Lines sends lines of JSON (the driver serial-json), vigie::Frames small binary frames with a checksum
// (serial-frames; docs/serial-frames.md says what is in them). Both are used alike. Nothing here uses the heap, and
// texts of the sketch stay in flash: write them as F("text").
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#pragma once

#include <Arduino.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__AVR__)
#include <util/crc16.h>
#endif

namespace vigie {

typedef const __FlashStringHelper *Flash;

// Something that is to be done again and again, without a delay() that would keep commands waiting.
class Every {
 public:
  explicit Every(uint32_t milliseconds) : period(milliseconds), last(0), begun(false) {}

  // From now on with another period.
  void set(uint32_t milliseconds) { period = milliseconds; }

  // Is it time? At once when asked for the first time. What was missed is not made up for.
  bool due() {
    uint32_t now = millis();
    if (begun && now - last < period) return false;
    last = begun && now - last < 2 * period ? last + period : now;
    begun = true;
    return true;
  }

 private:
  uint32_t period, last;
  bool begun;
};

// A command as it came: a text, most often an object of JSON such as {"relay":true}. Its members are found in the outer
// object only.
class Command {
 public:
  Command() : content("") {}
  explicit Command(const char *text) : content(text) {}

  // All of it.
  const char *text() const { return content; }

  // Is there a member of that name?
  bool has(Flash key) const { return value(key) != nullptr; }

  // Each of these is false, and leaves `result` as it was, where the member is not there or is something else.
  bool get(Flash key, bool &result) const {
    const char *at = value(key);
    if (!at) return false;
    if (!strncmp_P(at, PSTR("true"), 4) && ends(at + 4)) return result = true;
    if (strncmp_P(at, PSTR("false"), 5) || !ends(at + 5)) return false;
    result = false;
    return true;
  }

  bool get(Flash key, long &result) const {
    const char *at = value(key);
    if (!at || !(*at == '-' || isDigit(*at))) return false;
    char *end;
    long number = strtol(at, &end, 10);
    if (!ends(end)) return false;
    result = number;
    return true;
  }

  bool get(Flash key, double &result) const {
    const char *at = value(key);
    if (!at || !(*at == '-' || isDigit(*at))) return false;
    char *end;
    double number = strtod(at, &end);
    if (!ends(end) || !isfinite(number)) return false;
    result = number;
    return true;
  }

  // A text of at most `size` - 1 bytes. What JSON writes as \uXXXX is not understood.
  bool get(Flash key, char *result, uint8_t size) const {
    const char *at = value(key);
    if (!at || *at++ != '"') return false;
    uint8_t length = 0;
    for (; *at != '"'; at++) {
      char character = *at;
      if (character == '\\') {
        character = *++at;
        if (character == 'n') character = '\n';
        else if (character == 't') character = '\t';
        else if (character != '"' && character != '\\' && character != '/') return false;
      }
      if (!character || length + 1 >= size) return false;
      result[length++] = character;
    }
    result[length] = 0;
    return true;
  }

 private:
  static const char *space(const char *at) {
    while (*at == ' ' || *at == '\t') at++;
    return at;
  }

  static bool ends(const char *at) {
    at = space(at);
    return *at == ',' || *at == '}';
  }

  // Behind the text that begins here.
  static const char *over_text(const char *at) {
    for (at++; *at && *at != '"'; at++) {
      if (*at == '\\' && at[1]) at++;
    }
    return *at ? at + 1 : at;
  }

  // Behind the value that begins here: at a comma or bracket of the outer object, or at the end.
  static const char *over(const char *at) {
    uint8_t depth = 0;
    while (*at) {
      if (*at == '"') {
        at = over_text(at);
        continue;
      }
      if (*at == '{' || *at == '[') depth++;
      if (!depth && (*at == ',' || *at == '}')) break;
      if ((*at == '}' || *at == ']') && depth) depth--;
      at++;
    }
    return at;
  }

  const char *value(Flash key) const {
    PGM_P name = reinterpret_cast<PGM_P>(key);
    size_t length = strlen_P(name);
    const char *at = space(content);
    if (*at++ != '{') return nullptr;
    for (at = space(at); *at == '"'; at = space(at + 1)) {
      const char *end = over_text(at);
      bool same = size_t(end - at) == length + 2 && !strncmp_P(at + 1, name, length);
      at = space(end);
      if (*at++ != ':') return nullptr;
      at = space(at);
      if (same) return at;
      at = over(at);
      if (*at != ',') return nullptr;
    }
    return nullptr;
  }

  const char *content;
};

// Lines of JSON. LINE is the longest command in bytes, which takes as much RAM.
template <uint8_t LINE = 96>
class Lines {
 public:
  explicit Lines(Stream &serial) : port(serial) {}

  // Begins a reading.
  void begin() {
    port.print('{');
    first = true;
  }

  // Begins a reading that says when it was measured: for `millis = "millis"` in the configuration.
  void begin(uint32_t measured) {
    begin();
    add(F("millis"), measured);
  }

  void add(Flash name, bool value) { key(name), port.print(value ? F("true") : F("false")); }
  void add(Flash name, int value) { key(name), port.print(value); }
  void add(Flash name, unsigned value) { key(name), port.print(value); }
  void add(Flash name, long value) { key(name), port.print(value); }
  void add(Flash name, unsigned long value) { key(name), port.print(value); }

  // With so many decimals. What is no number (a probe that does not answer) or has ten digits and more is null.
  void add(Flash name, double value, uint8_t decimals = 2) {
    key(name);
    if (isfinite(value) && fabs(value) < 4e9) port.print(value, decimals);
    else port.print(F("null"));
  }

  void add(Flash name, const char *text) {
    key(name);
    quoted(text);
  }

  // Ends the reading.
  void end() { port.println('}'); }

  // Has a command come? To be called often: the core keeps 64 bytes at most that have not been read.
  bool receive() {
    while (port.available()) {
      char character = port.read();
      if (character == '\n') {
        bool good = length && length < LINE;
        uint8_t end = length;
        length = 0;
        if (!good) continue;
        line[end] = 0;
        received = Command(line);
        long number;
        numbered = received.get(F("id"), number);
        id = number;
        return true;
      }
      if (character == '\r') continue;
      if (length < LINE) line[length++] = character;
    }
    return false;
  }

  // The command that has come, until receive() is called again.
  const Command &command() const { return received; }

  // Answers the command: it is done.
  void done() {
    if (!numbered) return;
    answer();
    port.println('}');
  }

  // Answers the command: it is not done, and why.
  void failed(Flash why) {
    if (!numbered) return;
    answer();
    port.print(F(",\"error\":\""));
    PGM_P from = reinterpret_cast<PGM_P>(why);
    while (char next = pgm_read_byte(from++)) escaped(next);
    port.println(F("\"}"));
  }

 private:
  void key(Flash name) {
    if (!first) port.print(',');
    first = false;
    port.print('"');
    port.print(name);
    port.print(F("\":"));
  }

  void quoted(const char *text) {
    port.print('"');
    while (*text) escaped(*text++);
    port.print('"');
  }

  void escaped(char character) {
    if (uint8_t(character) < ' ') {
      port.print(character < 16 ? F("\\u000") : F("\\u00"));
      port.print(uint8_t(character), HEX);
      return;
    }
    if (character == '"' || character == '\\') port.print('\\');
    port.print(character);
  }

  void answer() {
    port.print(F("{\"ack\":"));
    port.print(id);
    numbered = false;
  }

  Stream &port;
  char line[LINE];
  uint8_t length = 0;
  bool first = true, numbered = false;
  long id = 0;
  Command received;
};

// What Frames does, whatever its size.
class Framing {
 public:
  Framing(const Framing &) = delete;

  // Tells the gateway that the device has started, and what its quantities are called. To be called in setup().
  void start() { describe(true); }

  // In the function that describes: says what a quantity is called, and its unit. Values of an event are never filtered
  // or repeated by the gateway. A name and unit that do not fit a frame are left out.
  void quantity(uint8_t id, Flash name, Flash unit = nullptr, bool event = false) {
    uint8_t units = unit ? strlen_P(reinterpret_cast<PGM_P>(unit)) : 0, names = strlen_P(reinterpret_cast<PGM_P>(name));
    if (length + 4 + names + units > room) {
      send();
      head(false);
      if (length + 4 + names + units > room) return;
    }
    put(id);
    put(event);
    text(name, names);
    text(unit, units);
  }

  // Begins a reading; all its values were measured at that time.
  void begin(uint32_t time = millis()) {
    if (millis() - described >= DESCRIBE_EVERY) describe(false);
    measured = time;
    readings();
  }

  void add(uint8_t id, bool value) { add(id, 1, value, 1); }
  void add(uint8_t id, uint8_t value) { add(id, 2, value, 1); }
  void add(uint8_t id, int value) { sizeof value == 2 ? add(id, 3, value, 2) : add(id, 4, value, 4); }
  void add(uint8_t id, unsigned value) { add(id, 5, value, 4); }
  void add(uint8_t id, long value) { add(id, 4, value, 4); }
  void add(uint8_t id, unsigned long value) { add(id, 5, value, 4); }

  // What is no number (a probe that does not answer) is sent as "no value now".
  void add(uint8_t id, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isfinite(value)) add(id, 6, bits, 4);
    else add(id, 0, 0, 0);
  }

  void add(uint8_t id, double value) { add(id, float(value)); }

  // A text that is too long for a frame is sent as "no value now".
  void add(uint8_t id, const char *value) {
    size_t size = strlen(value);
    if (size + 3 + READINGS_HEAD > room) return add(id, 0, 0, 0);
    need(size + 3);
    put(id);
    put(7);
    put(size);
    while (size--) put(*value++);
  }

  // Ends the reading, and sends it.
  void end() { send(); }

  // Has a command come? Answers what the gateway asks for itself. To be called often: the core keeps 64 bytes at most
  // that have not been read.
  bool receive() {
    while (port.available()) {
      uint8_t byte = port.read();
      if (byte == 0) {
        bool command = !bad && !left && take();
        got = 0, left = 0, code = 0xff, bad = false;
        if (command) return true;
      } else if (left) {
        left--;
        keep(byte);
      } else {
        if (code != 0xff) keep(0);
        code = byte;
        left = byte - 1;
      }
    }
    return false;
  }

  // The command that has come, until receive() is called again.
  const Command &command() const { return received; }

  // Answers the command: it is done.
  void done() { answer(0, nullptr); }

  // Answers the command: it is not done, and why.
  void failed(Flash why) { answer(1, why); }

 protected:
  typedef void (*Describe)(Framing &);

  Framing(Stream &serial, Describe function, uint8_t *out, uint8_t *in, uint8_t bytes)
      : port(serial), tell(function), frame(out), inbox(in), room(bytes - CHECKSUM) {}

 private:
  static const uint8_t CHECKSUM = 2, READINGS_HEAD = 6;
  static const uint32_t DESCRIBE_EVERY = 60000;

  static uint16_t checksum(const uint8_t *bytes, uint8_t count) {
    uint16_t crc = 0xffff;
    while (count--) {
#if defined(__AVR__)
      crc = _crc_ccitt_update(crc, *bytes++);
#else
      crc ^= *bytes++;
      for (uint8_t bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ 0x8408 : crc >> 1;
#endif
    }
    return ~crc;
  }

  void put(uint8_t byte) { frame[length++] = byte; }

  void text(Flash value, uint8_t size) {
    PGM_P from = reinterpret_cast<PGM_P>(value);
    put(size);
    while (size--) put(pgm_read_byte(from++));
  }

  void open(uint8_t type) {
    length = 0;
    put(0x10 | type);
    put(sequence++);
  }

  void number(uint32_t value, uint8_t bytes) {
    for (; bytes--; value >>= 8) put(value);
  }

  void readings() {
    open(1);
    number(measured, 4);
  }

  // What does not fit goes into a further frame of the same time.
  void need(uint16_t bytes) {
    if (length + bytes <= room) return;
    send();
    readings();
  }

  void add(uint8_t id, uint8_t type, uint32_t value, uint8_t bytes) {
    need(2 + bytes);
    put(id);
    put(type);
    number(value, bytes);
  }

  void head(bool started) {
    open(2);
    put(started);
    put(room + CHECKSUM);
  }

  void describe(bool started) {
    described = millis();
    head(started);
    tell(*this);
    send();
  }

  void answer(uint8_t status, Flash why) {
    if (!waits) return;
    waits = false;
    open(3);
    number(id, 4);
    put(status);
    PGM_P from = reinterpret_cast<PGM_P>(why);
    for (char next; from && length < room && (next = pgm_read_byte(from)); from++) put(next);
    send();
  }

  // Puts the checksum behind the frame, takes its zeros out and sends it between two zeros.
  void send() {
    uint16_t crc = checksum(frame, length);
    number(crc, CHECKSUM);
    port.write(uint8_t(0));
    for (uint8_t from = 0;; from++) {
      uint8_t to = from;
      while (to < length && frame[to]) to++;
      port.write(uint8_t(to - from + 1));
      port.write(frame + from, to - from);
      from = to;
      if (to >= length) break;
    }
    port.write(uint8_t(0));
  }

  void keep(uint8_t byte) {
    if (got < room + CHECKSUM) inbox[got++] = byte;
    else bad = true;
  }

  // Looks at a frame that has come; true if it is a command.
  bool take() {
    if (got < 4) return false;
    got -= CHECKSUM;
    if (checksum(inbox, got) != (inbox[got] | uint16_t(inbox[got + 1]) << 8)) return false;
    if (inbox[0] == 0x19) describe(false);
    if (inbox[0] != 0x18 || got < 6) return false;
    memcpy(&id, inbox + 2, 4);
    // There is room for it: the checksum stood there.
    inbox[got] = 0;
    received = Command(reinterpret_cast<const char *>(inbox) + 6);
    return waits = true;
  }

  Stream &port;
  Describe tell;
  uint8_t *frame, *inbox;
  uint8_t room, length = 0, sequence = 0;
  uint32_t measured = 0, described = 0, id = 0;
  uint8_t got = 0, left = 0, code = 0xff;
  bool bad = false, waits = false;
  Command received;
};

// Binary frames with a checksum. SIZE is the longest frame in bytes, sent or received; it takes twice as much RAM. A
// command may have 8 bytes less.
template <uint8_t SIZE = 72>
class Frames : public Framing {
  static_assert(SIZE >= 24 && SIZE <= 254, "a frame has 24 to 254 bytes");

 public:
  // `describe` calls quantity() for each quantity.
  Frames(Stream &serial, void (*describe)(Framing &)) : Framing(serial, describe, out, in, SIZE) {}

 private:
  uint8_t out[SIZE], in[SIZE];
};

}  // namespace vigie
