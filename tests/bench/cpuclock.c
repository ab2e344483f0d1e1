/* Make every wall clock of a process advance with its own CPU time, so that time limits mean the same on a shared
 * machine.
 *
 *     cc -O2 -shared -fPIC cpuclock.c -o cpuclock.so && LD_PRELOAD=./cpuclock.so solver
 *
 * For single-threaded solvers only: with several threads the clock would run as many times faster.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { CLOCKS = 8 };

static int true_clock(clockid_t clock, struct timespec *time) { return (int)syscall(SYS_clock_gettime, clock, time); }

/* When each clock was first asked: from there on it follows the CPU. */
static struct timespec first_asked[CLOCKS];
static int was_asked[CLOCKS];

int clock_gettime(clockid_t clock, struct timespec *time) {
    int follows = clock >= 0 && clock < CLOCKS && clock != CLOCK_PROCESS_CPUTIME_ID && clock != CLOCK_THREAD_CPUTIME_ID;
    if (!follows) return true_clock(clock, time);
    if (!was_asked[clock]) {
        true_clock(clock, &first_asked[clock]);
        was_asked[clock] = 1;
    }
    struct timespec cpu;
    true_clock(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    time->tv_sec = first_asked[clock].tv_sec + cpu.tv_sec;
    time->tv_nsec = first_asked[clock].tv_nsec + cpu.tv_nsec;
    if (time->tv_nsec >= 1000000000) {
        time->tv_nsec -= 1000000000;
        time->tv_sec++;
    }
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds) *seconds = now.tv_sec;
    return now.tv_sec;
}
