// A simulated Arduino Uno on a pseudo-terminal: runs a sketch's ELF file in simavr, in real time as far as the machine
// keeps up, and joins its UART to a pty.
//
//   board FILE.elf LINK     makes LINK a symbolic link to the pty, and prints "ready"
//
// Reads commands from stdin, a line each, and ends when that ends:
//   reset                   as the button does
//   analog PIN MILLIVOLTS   at A0 to A5
//   digital PIN LEVEL       at pin 2 to 7; 0 or 1
// Prints "pin PIN LEVEL" when the sketch changes pin 2 to 7.
//
// While nobody has opened the pty, what the sketch sends is lost, as it is on a port that nobody reads.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <simavr/avr_adc.h>
#include <simavr/avr_ioport.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>

enum { FREQUENCY = 16000000, FIRST_PIN = 2, LAST_PIN = 7, ANALOG_PINS = 6, REFERENCE = 5000 };

static int terminal;
static int taken;  // somebody has opened the pty
static int room;   // the UART takes another byte
static avr_irq_t *uart_input;
static FILE *said;  // stdout, without what simavr prints there

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// The sketch has sent a byte.
static void sent(struct avr_irq_t *irq, uint32_t value, void *unused) {
    (void)irq, (void)unused;
    uint8_t byte = value;
    // What does not fit is lost, as on a line without flow control.
    if (taken && write(terminal, &byte, 1) < 0 && errno != EAGAIN && errno != EIO) fail("pty");
}

static void go_on(struct avr_irq_t *irq, uint32_t value, void *unused) {
    (void)irq, (void)value, (void)unused;
    room = 1;
}

static void stop(struct avr_irq_t *irq, uint32_t value, void *unused) {
    (void)irq, (void)value, (void)unused;
    room = 0;
}

static void changed(struct avr_irq_t *irq, uint32_t value, void *pin) {
    (void)irq;
    fprintf(said, "pin %d %u\n", (int)(long)pin, value & 1);
    fflush(said);
}

static void order(avr_t *avr, char *line) {
    int pin, level;
    if (!strcmp(line, "reset")) {
        avr_reset(avr);
    } else if (sscanf(line, "analog %d %d", &pin, &level) == 2 && pin >= 0 && pin < ANALOG_PINS) {
        avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_ADC_GETIRQ, ADC_IRQ_ADC0 + pin), level);
    } else if (sscanf(line, "digital %d %d", &pin, &level) == 2 && pin >= FIRST_PIN && pin <= LAST_PIN) {
        avr_raise_irq(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('D'), pin), level);
    } else {
        fprintf(stderr, "board: no such command: %s\n", line);
        exit(2);
    }
}

// Reads commands that have come; 0 when there will be no more.
static int orders(avr_t *avr) {
    static char line[256];
    static size_t length;
    ssize_t count = read(0, line + length, sizeof line - 1 - length);
    if (count <= 0) return count < 0 && (errno == EAGAIN || errno == EINTR);
    length += count;
    char *end;
    while ((end = memchr(line, '\n', length))) {
        *end = 0;
        order(avr, line);
        length -= end + 1 - line;
        memmove(line, end + 1, length);
    }
    if (length == sizeof line - 1) length = 0;
    return 1;
}

static void open_terminal(const char *link) {
    terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (terminal < 0 || grantpt(terminal) || unlockpt(terminal)) fail("pty");
    struct termios settings;
    if (tcgetattr(terminal, &settings)) fail("pty");
    cfmakeraw(&settings);
    if (tcsetattr(terminal, TCSANOW, &settings)) fail("pty");
    // Only after its other end was open once does a pty tell that it is closed.
    const char *name = ptsname(terminal);
    int other = open(name, O_RDWR | O_NOCTTY);
    if (other < 0) fail(name);
    close(other);
    if (symlink(name, link)) fail(link);
}

static avr_t *start(const char *file) {
    elf_firmware_t firmware = {0};
    if (elf_read_firmware(file, &firmware)) {
        fprintf(stderr, "board: %s is not an ELF file\n", file);
        exit(2);
    }
    avr_t *avr = avr_make_mcu_by_name("atmega328p");
    if (!avr) exit(1);
    avr_init(avr);
    avr->frequency = FREQUENCY;
    avr->vcc = avr->avcc = avr->aref = REFERENCE;
    avr_load_firmware(avr, &firmware);

    // Neither does it print what the sketch sends, nor sleep where the sketch waits for bytes.
    uint32_t flags = 0;
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    avr_irq_t *uart = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), 0);
    uart_input = uart + UART_IRQ_INPUT;
    avr_irq_register_notify(uart + UART_IRQ_OUTPUT, sent, NULL);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XON, go_on, NULL);
    avr_irq_register_notify(uart + UART_IRQ_OUT_XOFF, stop, NULL);
    for (long pin = FIRST_PIN; pin <= LAST_PIN; pin++)
        avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_IOPORT_GETIRQ('D'), pin), changed, (void *)pin);
    return avr;
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000ull + time.tv_nsec;
}

int main(int count, char **arguments) {
    if (count != 3) {
        fprintf(stderr, "usage: board FILE.elf LINK\n");
        return 2;
    }
    said = fdopen(dup(1), "w");
    if (!said || dup2(2, 1) < 0) fail("stdout");
    avr_t *avr = start(arguments[1]);
    open_terminal(arguments[2]);
    if (fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK) < 0) fail("stdin");
    fputs("ready\n", said);
    fflush(said);

    uint8_t buffer[64];
    ssize_t have = 0, given = 0;
    uint64_t last = now(), begun = avr->cycle;
    for (;;) {
        struct pollfd ends[] = {{.fd = 0, .events = POLLIN}, {.fd = terminal, .events = POLLIN}};
        poll(ends, 2, 1);
        taken = !(ends[1].revents & POLLHUP);
        if (ends[0].revents && !orders(avr)) return 0;
        if (given == have && taken && ends[1].revents & POLLIN) {
            given = 0;
            have = read(terminal, buffer, sizeof buffer);
            if (have < 0) have = 0;
        }
        // As far as the time has come; what a busy machine could not do within 100 ms is not made up for.
        uint64_t time = now(), passed = time - last;
        last = time;
        if (passed > 100000000) passed = 100000000;
        for (begun += passed * (FREQUENCY / 1000000) / 1000; avr->cycle < begun;) {
            while (room && given < have) avr_raise_irq(uart_input, buffer[given++]);
            int state = avr_run(avr);
            if (state == cpu_Done || state == cpu_Crashed) {
                fprintf(stderr, "board: the sketch has crashed\n");
                return 1;
            }
        }
    }
}
