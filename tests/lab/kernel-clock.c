/* What sets the time in a guest, as NTP clients do it, and shows both clocks.
 *
 *   kernel-clock show                  what the wall clock is ahead of the boot clock, in nanoseconds; those that set it
 *                                      say that, too, when they are done: a busy host may come between a look and a step
 *   kernel-clock set OFFSET            the wall clock is the boot clock and OFFSET, in nanoseconds; nobody vouches for it
 *   kernel-clock synchronise OFFSET    the same in one step with word that it is right, as systemd-timesyncd does it
 *   kernel-clock leap SECONDS          the same, to so long before the end of the UTC day, at which the kernel inserts a second
 *   kernel-clock slew PPM              from now on both are faster by so many millionths, in steps of 100
 *   kernel-clock gained                by how much both went ahead of the machine's crystal since it was started
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>
#include <time.h>

#define SECOND 1000000000LL
#define DAY (86400 * SECOND)

static long long now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "show";
    long long number = count > 2 ? strtoll(words[2], NULL, 10) : 0;
    struct timex state;
    memset(&state, 0, sizeof state);
    if (!strcmp(what, "set")) {
        long long wall = now(CLOCK_BOOTTIME) + number;
        struct timespec time = {wall / SECOND, wall % SECOND};
        if (clock_settime(CLOCK_REALTIME, &time) < 0)
            return perror("clock_settime"), 1;
    } else if (!strcmp(what, "gained")) {
        return printf("%lld\n", now(CLOCK_BOOTTIME) - now(CLOCK_MONOTONIC_RAW)) < 0;
    } else if (!strcmp(what, "synchronise") || !strcmp(what, "leap")) {
        int leaps = *what == 'l';
        long long wall = now(CLOCK_REALTIME);
        long long by = leaps ? DAY - wall % DAY - number * SECOND : now(CLOCK_BOOTTIME) + number - wall;
        state.modes = ADJ_SETOFFSET | ADJ_NANO | ADJ_STATUS | ADJ_MAXERROR | ADJ_ESTERROR;
        state.status = STA_PLL | (leaps ? STA_INS : 0);
        state.time.tv_sec = by / SECOND - (by % SECOND < 0);
        state.time.tv_usec = by - state.time.tv_sec * SECOND;
    } else if (!strcmp(what, "slew")) {
        state.modes = ADJ_TICK;
        state.tick = 10000 + number / 100;
    }
    if (adjtimex(&state) < 0)
        return perror("adjtimex"), 1;
    /* Of many looks the quickest is the one that nothing came between. */
    long long offset = 0, quickest = SECOND;
    for (int look = 0; look < 100; look++) {
        long long before = now(CLOCK_BOOTTIME), wall = now(CLOCK_REALTIME), took = now(CLOCK_BOOTTIME) - before;
        if (took < quickest) {
            quickest = took;
            offset = wall - before - took / 2;
        }
    }
    printf("%lld\n", offset);
    return 0;
}
