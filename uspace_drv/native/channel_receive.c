/* Receiving a message: what is buffered, then busy polling, then sleep (recvmsg(2), ppoll(2)). */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "uspace_drv.h"

/* ns between looks at Python's signals while polling, and reads between looks at the wake_fd. */
enum { SPIN_ROUND = 1000000, WAKE_STRIDE = 16 };

struct patience {
    int64_t deadline, spin_end; /* ns on the monotonic clock */
    bool woken;
};

static bool
is_readable(int fd)
{
    struct pollfd descriptor = {.fd = fd, .events = POLLIN};
    return fd >= 0 && poll(&descriptor, 1, 0) > 0;
}

static ssize_t
spin_until(Channel *self, struct patience *patience, int64_t end)
{
    ssize_t got;
    unsigned round = 0;
    while ((got = framing_fill(&self->framing, self->fd, MSG_DONTWAIT)) == -EAGAIN) {
        if (++round % WAKE_STRIDE == 0 && is_readable(self->wake_fd)) {
            patience->woken = true;
            break;
        }
        if (monotonic_now() >= end)
            break;
        uspace_pause();
    }
    return got;
}

static ssize_t
sleep_until(Channel *self, struct patience *patience, int64_t left)
{
    struct timespec time = {.tv_nsec = left < RECEIVE_ROUND ? left : RECEIVE_ROUND};
    struct pollfd descriptors[2] = {
        {.fd = self->fd, .events = POLLIN},
        {.fd = self->wake_fd, .events = POLLIN}, /* poll skips a negative one */
    };
    if (ppoll(descriptors, 2, &time, NULL) < 0)
        return -errno;
    patience->woken = descriptors[1].revents != 0;
    if (descriptors[0].revents == 0)
        return -EAGAIN;
    return framing_fill(&self->framing, self->fd, MSG_DONTWAIT);
}

/* One stretch without the GIL, short enough for Ctrl-C. A blocking read is one system call where
 * poll and read are two; SO_RCVTIMEO ends it after RECEIVE_ROUND. */
static ssize_t
receive_once(Channel *self, struct patience *patience)
{
    ssize_t got;
    int64_t now = monotonic_now(), left = patience->deadline - now;
    Py_BEGIN_ALLOW_THREADS
    if (left <= 0)
        got = framing_fill(&self->framing, self->fd, MSG_DONTWAIT);
    else if (now + SPIN_ROUND < patience->spin_end)
        got = spin_until(self, patience, now + SPIN_ROUND);
    else if (now < patience->spin_end)
        got = spin_until(self, patience, patience->spin_end);
    else if (self->wake_fd < 0 && left >= RECEIVE_ROUND)
        got = framing_fill(&self->framing, self->fd, 0);
    else
        got = sleep_until(self, patience, left);
    Py_END_ALLOW_THREADS
    return got;
}

static PyObject *
take_descriptors(Channel *self, const struct frame *frame)
{
    PyObject *fds = PyTuple_New(frame->descriptor_count);
    for (unsigned i = 0; fds && i < frame->descriptor_count; i++) {
        PyObject *fd = PyLong_FromLong(self->framing.descriptors[i].fd);
        if (!fd || PyTuple_SetItem(fds, i, fd) < 0)
            Py_CLEAR(fds);
    }
    return fds;
}

static PyObject *
build_message(Channel *self, const struct frame *frame)
{
    const struct header *header = &frame->header;
    PyObject *fields[] = {
        PyLong_FromUnsignedLong(header->id),
        PyLong_FromUnsignedLong(header->command),
        PyLong_FromUnsignedLong(header->flags),
        PyLong_FromUnsignedLong(header->error),
        PyBytes_FromStringAndSize((const char *)frame->payload, (Py_ssize_t)frame->payload_size),
        take_descriptors(self, frame),
    };
    PyObject *message = PyStructSequence_New(channel_state(self)->message_type);
    bool good = message != NULL;
    for (int i = 0; i < 6; i++) {
        good &= fields[i] != NULL;
        if (message)
            PyStructSequence_SetItem(message, i, fields[i]);
        else
            Py_XDECREF(fields[i]);
    }
    if (good)
        framing_take(&self->framing, frame);
    else
        Py_CLEAR(message);
    return message;
}

static void
refuse_frame(Channel *self, enum verdict verdict, const struct frame *frame)
{
    PyObject *error = channel_state(self)->peer_error;
    unsigned size = frame->header.size;
    if (verdict == BAD_TYPE)
        PyErr_Format(error, "%U: a message of type %u, expected 0 (command) or 1 (reply)",
                     self->name, (unsigned)frame->header.flags & TYPE_MASK);
    else if (verdict == TOO_MANY_DESCRIPTORS)
        PyErr_Format(error, "%U: %u file descriptors with one message, expected at most %u",
                     self->name, frame->descriptor_count, self->framing.descriptor_limit);
    else
        PyErr_Format(error, "%U: a message of %u bytes, expected %d to %zu", self->name, size,
                     HEADER_SIZE, self->framing.payload_limit + HEADER_SIZE);
    self->input_broken = true;
    framing_drop(&self->framing);
}

static void
refuse_lost(Channel *self)
{
    PyObject *text = PyUnicode_FromFormat(
        "%U: the peer sent file descriptors that this process may not open: %s; raise the limit "
        "(ulimit -n)", self->name, strerror(EMFILE));
    raise_host_error(channel_state(self), text, EMFILE);
    self->input_broken = true;
    framing_drop(&self->framing);
}

static void
refuse_end(Channel *self)
{
    const struct framing *framing = &self->framing;
    PyObject *error = channel_state(self)->device_gone;
    size_t rest = framing->end - framing->start;
    if (rest > 0)
        PyErr_Format(error, "%U: the peer closed the connection in the middle of a message, after "
                     "%zu bytes of it", self->name, rest);
    else
        PyErr_Format(error, "%U: the peer closed the connection", self->name);
}

/* What one read brought. True to look again; false with or without an exception set. */
static bool
judge_read(Channel *self, const struct patience *patience, ssize_t got)
{
    if (PyErr_CheckSignals() < 0 || !channel_check(self, self->input_broken))
        return false;
    if (got > 0 && !self->framing.lost)
        return true;
    if (got > 0)
        refuse_lost(self);
    else if (got == 0 || got == -ECONNRESET || got == -EPIPE)
        refuse_end(self);
    else if (got == -EAGAIN || got == -EINTR)
        return !patience->woken && monotonic_now() < patience->deadline;
    else
        raise_host_error(channel_state(self),
                         PyUnicode_FromFormat("%U: cannot receive: %s", self->name,
                                              strerror((int)-got)), (int)-got);
    return false;
}

static PyObject *
receive_message(Channel *self, struct patience *patience)
{
    struct frame frame;
    ssize_t got;
    do {
        enum verdict verdict = framing_look(&self->framing, &frame);
        if (verdict == FRAME_READY)
            return build_message(self, &frame);
        if (verdict != FRAME_PARTIAL) {
            refuse_frame(self, verdict, &frame);
            return NULL;
        }
        got = receive_once(self, patience);
    } while (judge_read(self, patience, got));
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static bool
take_patience(PyObject *timeout_argument, PyObject *spin_argument, struct patience *patience)
{
    int64_t timeout, spin = 0;
    if (!take_seconds(timeout_argument, "receive", "timeout", &timeout)
        || (spin_argument && !take_seconds(spin_argument, "receive", "spin", &spin)))
        return false;
    int64_t now = monotonic_now();
    patience->woken = false;
    patience->deadline = now + timeout;
    patience->spin_end = now + (spin < timeout ? spin : timeout);
    return true;
}

static bool
start_receiving(Channel *self)
{
    if (self->receiving) {
        PyErr_Format(channel_state(self)->busy_error, "%U: another thread is receiving from it",
                     self->name);
        return false;
    }
    self->receiving = channel_enter(self, self->input_broken);
    return self->receiving;
}

static void
stop_receiving(Channel *self)
{
    self->receiving = false;
    channel_leave(self);
}

PyObject *
channel_receive(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Channel *self = (Channel *)object;
    struct patience patience;
    if (count != 1 && count != 2) {
        PyErr_Format(PyExc_TypeError, "receive takes 1 or 2 arguments (%zd given)", count);
        return NULL;
    }
    if (!take_patience(arguments[0], count == 2 ? arguments[1] : NULL, &patience)
        || !start_receiving(self))
        return NULL;
    PyObject *message = receive_message(self, &patience);
    stop_receiving(self);
    return message;
}

PyObject *
channel_exchange(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Channel *self = (Channel *)object;
    struct outgoing out;
    struct patience patience;
    if (count != 5 && count != 6) {
        PyErr_Format(PyExc_TypeError, "exchange takes 5 or 6 arguments (%zd given)", count);
        return NULL;
    }
    PyObject *header[] = {arguments[0], arguments[1], NULL, NULL}, *message = NULL;
    if (!take_patience(arguments[4], count == 6 ? arguments[5] : NULL, &patience)
        || !take_outgoing(header, arguments[2], arguments[3], &out))
        return NULL;
    if (start_receiving(self)) {
        if (send_message(self, &out))
            message = receive_message(self, &patience);
        stop_receiving(self);
    }
    PyBuffer_Release(&out.payload);
    return message;
}
