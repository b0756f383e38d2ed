/* Waiting for file descriptors with a deadline: busy polling first, then sleep (ppoll(2)). */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "uspace_drv.h"

enum { NANOSECONDS = 1000000000 };

/* ns between looks at Python's signals. One that comes after the look and before the sleep does not
 * end the sleep, nor does one that the kernel hands to another thread. */
enum { SPIN_ROUND = 1000000, SLEEP_ROUND = 100000000 };

struct wait {
    struct pollfd descriptors[2]; /* poll skips a negative one */
    int64_t deadline, spin_end;   /* ns on the monotonic clock */
};

int64_t
monotonic_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * NANOSECONDS + time.tv_nsec;
}

static int
spin_until(struct wait *wait, int64_t end)
{
    int ready;
    do {
        uspace_pause();
        ready = poll(wait->descriptors, 2, 0);
    } while (ready == 0 && monotonic_now() < end);
    return ready;
}

static int
sleep_until(struct wait *wait, int64_t end)
{
    int64_t left = end - monotonic_now();
    if (left < 0)
        left = 0;
    struct timespec time = {.tv_sec = left / NANOSECONDS, .tv_nsec = left % NANOSECONDS};
    return ppoll(wait->descriptors, 2, &time, NULL);
}

/* One stretch without the GIL, short enough for Ctrl-C. */
static int
wait_once(struct wait *wait)
{
    int64_t start = monotonic_now(), round_end = start + SLEEP_ROUND;
    int ready;
    Py_BEGIN_ALLOW_THREADS
    if (start >= wait->spin_end)
        ready = sleep_until(wait, round_end < wait->deadline ? round_end : wait->deadline);
    else if (wait->spin_end - start > SPIN_ROUND)
        ready = spin_until(wait, start + SPIN_ROUND);
    else
        ready = spin_until(wait, wait->spin_end);
    Py_END_ALLOW_THREADS
    return ready;
}

/* A hang-up or an error counts as readable: the read will tell. */
static PyObject *
verdict(struct module_state *state, const struct wait *wait)
{
    for (int i = 0; i < 2; i++) {
        if (wait->descriptors[i].revents & POLLNVAL) {
            PyObject *message = PyUnicode_FromFormat(
                "wait_readable: file descriptor %d is not open", wait->descriptors[i].fd);
            raise_host_error(state, message, EBADF);
            return NULL;
        }
    }
    Py_RETURN_TRUE;
}

static PyObject *
run(struct module_state *state, struct wait *wait)
{
    int ready = poll(wait->descriptors, 2, 0); /* never blocks, so the GIL can stay */
    while (ready <= 0) {
        if (ready < 0 && errno != EINTR) {
            int error = errno;
            PyObject *message = PyUnicode_FromFormat("wait_readable: %s", strerror(error));
            raise_host_error(state, message, error);
            return NULL;
        }
        if (PyErr_CheckSignals() < 0)
            return NULL;
        if (monotonic_now() >= wait->deadline)
            Py_RETURN_FALSE;
        ready = wait_once(wait);
    }
    return verdict(state, wait);
}

bool
take_seconds(PyObject *argument, const char *where, const char *name, int64_t *nanoseconds)
{
    const double longest = 1e9; /* 31 years: keeps the sum of two inside 63 bits */
    double seconds = PyFloat_AsDouble(argument);
    if (seconds == -1.0 && PyErr_Occurred())
        return false;
    if (!isfinite(seconds) || seconds < 0) {
        PyErr_Format(PyExc_ValueError, "%s: %s is %R, expected 0 or more seconds", where, name,
                     argument);
        return false;
    }
    *nanoseconds = (int64_t)(fmin(seconds, longest) * NANOSECONDS);
    return true;
}

static bool
take_descriptor(PyObject *argument, const char *name, long least, struct pollfd *descriptor)
{
    long fd = PyLong_AsLong(argument);
    if (fd == -1 && PyErr_Occurred())
        return false;
    if (fd < least || fd > INT_MAX) {
        PyErr_Format(PyExc_ValueError, "wait_readable: %s is %ld, expected %ld or more", name, fd,
                     least);
        return false;
    }
    *descriptor = (struct pollfd){.fd = (int)fd, .events = POLLIN};
    return true;
}

PyObject *
wait_readable(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    struct wait wait;
    int64_t timeout, spin;
    if (count != 4) {
        PyErr_Format(PyExc_TypeError, "wait_readable takes 4 arguments (%zd given)", count);
        return NULL;
    }
    if (!take_descriptor(arguments[0], "fd", 0, &wait.descriptors[0])
        || !take_descriptor(arguments[1], "wake_fd", -1, &wait.descriptors[1])
        || !take_seconds(arguments[2], "wait_readable", "timeout", &timeout)
        || !take_seconds(arguments[3], "wait_readable", "spin", &spin))
        return NULL;
    int64_t start = monotonic_now();
    wait.deadline = start + timeout;
    wait.spin_end = start + (spin < timeout ? spin : timeout);
    return run(PyModule_GetState(module), &wait);
}
