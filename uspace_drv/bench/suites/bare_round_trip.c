/* The floor of suite socket: 32 bytes there and back over a UNIX socket (unix(7)).
 * Writes the nanoseconds of each round trip to standard output, as int64_t.
 * usage: bare_round_trip CLIENT_CPU SERVER_CPU BUSY NANOSECONDS */
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

enum { SIZE = 32, MOST = 1 << 22 };

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

/* It ends with the client, which closes its end, however that one ended. */
static void
serve(int fd, int busy)
{
    char bytes[SIZE];
    while (take(fd, bytes, busy) == SIZE)
        give(fd, bytes);
    _exit(0);
}

static size_t
measure(int fd, int busy, int64_t nanoseconds, int64_t *times)
{
    char bytes[SIZE] = {0};
    size_t count = 0;
    int64_t end = now() + nanoseconds, start;
    while ((start = now()) < end && count < MOST) {
        give(fd, bytes);
        if (take(fd, bytes, busy) != SIZE)
            fail("the server ended");
        times[count++] = now() - start;
    }
    return count;
}

int
main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    int busy = atoi(argv[3]), fds[2];
    int64_t *times = calloc(MOST, sizeof(*times));
    if (!times || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        fail("start");
    pid_t child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        close(fds[0]);
        stay_on(atoi(argv[2]));
        serve(fds[1], busy);
    }
    close(fds[1]);
    stay_on(atoi(argv[1]));
    size_t count = measure(fds[0], busy, atoll(argv[4]), times);
    close(fds[0]);
    wait(NULL);
    return fwrite(times, sizeof(*times), count, stdout) == count ? 0 : 1;
}
