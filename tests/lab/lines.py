"""What a gateway's lines are to do, whichever back end takes them: levels, edges at the kernel's time, bouncing contacts,
and pulses, of which none may be missed in silence. The lines are those of a chip `pi` (`Gateway.make_lines`).

They are those of one processor: its thread in which the kernel takes an edge comes before the generator, so that the
next edge never overtakes it. With two, a processor that the host holds up lets the kernel itself see two edges as one.
"""

from hardware import case

# Edges that the kernel keeps for a line.
KEPT = 1024
# Pulses a second that are too many for a guest.
FLOOD, FLOODED = 10_000, 2000

# Seconds for which a level has to hold, and how often it is tried to make contacts bounce faster than that.
DEBOUNCE, TRIES = 0.2, 50

# Sensors of these names are what the functions below expect.
BUTTON = """
[[sensor]]
name = "button"
driver = "gpio-input"
pin = "GPIO22"
bias = "pull-up"
invert = true
debounce = "200ms"
every = "1h"
"""
EDGES = """
[[sensor]]
name = "edges"
driver = "gpio-input"
pin = 27
report = "edges"
every = "1h"
"""


def levels(gateway, sensors):
    """Of each sensor by its line's offset: low at first, then high and low again, at the time at which that happened."""
    for sensor, offset in sensors.items():
        gateway.value(f"{sensor}/state", where=lambda value: value is False)
        for high in (True, False):
            since = gateway.mark()
            before, after = gateway.drive_line("pi", offset, high)
            message = gateway.message(f"{sensor}/state", since)
            gateway.expect(message.value is high, f"{message}")
            # The guest's clock says thousandths, and so does a reading.
            gateway.expect(before - 0.001 <= message.time <= after + 0.001, f"between {before} and {after}: {message}")


def late_reader(gateway, sensor, offset):
    """An agent that is held up reads an edge late, and gives it the time that it had."""
    since = gateway.mark()
    gateway.signal("STOP")
    before, after = gateway.drive_line("pi", offset, True)
    _, resumed = gateway.between("sleep 1")
    gateway.signal("CONT")
    message = gateway.message(f"{sensor}/state", since)
    gateway.expect(before - 0.001 <= message.time <= after + 0.001 < resumed - 0.9, f"{before} to {after}: {message}")
    case(f"an edge that was read {resumed - after:.1f} s late has its own time")


def bounces(gateway):
    """Of BUTTON, which nobody presses at first: presses that bounce for less than the debounce do not count.

    Where the guest was held up amid the bouncing, the line did hold a level for that long, and it is tried again.
    """
    gateway.value("button/state", where=lambda value: value is False)
    since = gateway.mark()
    gateway.drive_line("pi", 22, False)
    gateway.value("button/state", since, where=lambda value: value is True)
    gateway.drive_line("pi", 22, True)
    gateway.value("button/state", since, where=lambda value: value is False)
    for _ in range(TRIES):
        begin = gateway.now()

        def states(begin=begin):
            return [message.value for message in gateway.broker.of("button/state") if message.time >= begin]
        # High and low in turns, from low to low: 100 ms of bouncing.
        late = gateway.pulses("GPIO22", 25, 250)
        gateway.until("the press", lambda: states()[-1:] == [True])
        gateway.drive_line("pi", 22, True)
        gateway.until("its end", lambda: states()[-1:] == [False])
        if late < DEBOUNCE / 2:
            gateway.expect(states() == [True, False], f"25 bounces are one press: {states()}")
            return
    gateway.expect(False, f"the guest was held up each of {TRIES} times")


def pulses(gateway):
    """Of EDGES: each edge of each pulse arrives, in turns; and where the kernel had to drop some, the number is right.

    Up to 2 kHz the generator's count and the broker's agreed; the rate is half of that. No more edges come than the
    kernel keeps, so that it does not matter how long the reader is held up on a busy host.
    """
    count, rate = 500, 1000
    since = gateway.mark()

    def edges():
        return [message.value for message in gateway.broker.of("edges/edge", since)]

    gateway.pulses("GPIO27", count, rate)
    gateway.until(f"{2 * count} edges", lambda: len(edges()) >= 2 * count)
    gateway.expect(edges() == ["rising", "falling"] * count, f"{len(edges())} edges, or out of turn")
    gateway.expect(not gateway.broker.of("edges/edges_lost", since), "none of these was to be lost")
    case(f"{2 * count} edges of a pulse train of {rate} Hz arrive, in turns")

    # Nobody reads them; and then, more than can be read. One pulse more tells of what was lost before it.
    before = 0
    for held_up in (True, False):
        since = gateway.mark()
        if held_up:
            gateway.signal("STOP")
        gateway.pulses("GPIO27", FLOODED, FLOOD)
        if held_up:
            gateway.signal("CONT")
        gateway.pulses("GPIO27", 1, rate)

        def lost():
            return max([message.value for message in gateway.broker.of("edges/edges_lost", since)], default=before) - before
        came = 2 * (FLOODED + 1)
        gateway.until(f"{came} edges to arrive or be said to be lost", lambda: len(edges()) + lost() >= came)
        gateway.expect(len(edges()) + lost() == came, f"{len(edges())} arrived and {lost()} are lost, of {came}")
        gateway.expect(not held_up or lost() > KEPT, "too few were lost for nobody to have read them")
        case(f"of {came} edges {len(edges())} arrive, and {lost():.0f} are said to be lost")
        before += lost()
