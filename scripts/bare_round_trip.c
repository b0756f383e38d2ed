/* The floor of scripts/bench-socket: 32 bytes there and back over a UNIX socket (unix(7)).
 * Prints the median in ns. usage: bare_round_trip CLIENT_CPU SERVER_CPU BUSY COUNT */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 32 };

static void
fail(const char *what)
{
    perror(what);
    exit(1);
}

static void
stay_on(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof(set), &set) < 0)
        fail("sched_setaffinity");
}

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* 0 at the end of the peer. */
static ssize_t
take(int fd, char *bytes, int busy)
{
    ssize_t got;
    do
        got = recv(fd, bytes, SIZE, busy ? MSG_DONTWAIT : 0);
    while (got < 0 && errno == EAGAIN);
    if (got < 0)
        fail("recv");
    return got;
}

static void
give(int fd, const char *bytes)
{
    if (send(fd, bytes, SIZE, MSG_NOSIGNAL) != SIZE)
        fail("send");
}

static void
serve(int fd, int busy)
{
    char bytes[SIZE];
    while (take(fd, bytes, busy) == SIZE)
        give(fd, bytes);
    _exit(0);
}

static int
ascending(const void *left, const void *right)
{
    int64_t difference = *(const int64_t *)left - *(const int64_t *)right;
    return difference < 0 ? -1 : difference > 0;
}

int
main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int busy = atoi(argv[3]), count = atoi(argv[4]), fds[2];
    char bytes[SIZE] = {0};
    int64_t *times = calloc((size_t)count, sizeof(*times));
    if (!times || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        fail("start");
    if (fork() == 0) {
        close(fds[0]);
        stay_on(atoi(argv[2]));
        serve(fds[1], busy);
    }
    close(fds[1]);
    stay_on(atoi(argv[1]));
    for (int i = 0; i < count; i++) {
        int64_t start = now();
        give(fds[0], bytes);
        if (take(fds[0], bytes, busy) != SIZE)
            fail("the server ended");
        times[i] = now() - start;
    }
    close(fds[0]);
    wait(NULL);
    qsort(times, (size_t)count, sizeof(*times), ascending);
    printf("%lld\n", (long long)times[count / 2]);
    return 0;
}
