/* Preloaded into a driver, it lets the wall clock jump: by as many seconds as the file in $DBMOVE_JUMP_FILE says, from when it says so. The
   monotonic clock is left alone, as when somebody sets the time of a machine. Built by tests/cli/clock.rs. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long jumped(void) {
    char text[32];
    const char *path = getenv("DBMOVE_JUMP_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    return atol(text);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jumped();
    return failed;
}
