/* How fast this machine's time stamp counter counts, in kHz: QEMU without KVM hands it on to its guests. A guest's kernel would
 * measure it at its start, and is wrong for good, by any factor, if the host holds it up just then. */
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#define SECOND 1000000000LL

struct look {
    long long time, ticks;
};

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_RAW, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* Of many looks the quickest is the one that nothing came between. */
static struct look look(void) {
    struct look best = {0, 0};
    long long quickest = SECOND;
    for (int tries = 0; tries < 1000; tries++) {
        long long before = now(), ticks = (long long)__rdtsc(), took = now() - before;
        if (took < quickest) {
            quickest = took;
            best = (struct look){before + took / 2, ticks};
        }
    }
    return best;
}

int main(void) {
    struct timespec pause = {0, SECOND / 5};
    struct look first = look();
    nanosleep(&pause, NULL);
    struct look last = look();
    printf("%lld\n", (last.ticks - first.ticks) * 1000000 / (last.time - first.time));
    return 0;
}
