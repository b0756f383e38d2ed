/* The first pread or pwrite of the process is interrupted by SIGUSR1 before it moves a byte, as on a
 * device that the kernel has to wake (pread(2), EINTR). To be preloaded. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int
interrupted(void)
{
    static bool done;
    if (done)
        return 0;
    done = true;
    raise(SIGUSR1);
    errno = EINTR;
    return -1;
}

ssize_t
pread64(int fd, void *bytes, size_t size, off64_t offset)
{
    return interrupted() ? -1 : syscall(SYS_pread64, fd, bytes, size, offset);
}

ssize_t
pwrite64(int fd, const void *bytes, size_t size, off64_t offset)
{
    return interrupted() ? -1 : syscall(SYS_pwrite64, fd, bytes, size, offset);
}
