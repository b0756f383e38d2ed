/* Sending a message whole, with its descriptors (sendmsg(2), unix(7)). */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { SEND_ROUND = 100000000 }; /* ns between looks at Python's signals */
enum { SMALL = 256 }; /* bytes that are cheaper copied than gathered by the kernel */

/* Where a message that is being sent stands. */
struct progress {
    uint8_t header[HEADER_SIZE];
    struct iovec parts[2];
    size_t sent, left;
};

static bool
take_field(PyObject *argument, const char *name, uint32_t most, uint32_t *field)
{
    long long value = PyLong_AsLongLong(argument);
    if (value == -1 && PyErr_Occurred())
        return false;
    if (value < 0 || value > (long long)most) {
        PyErr_Format(PyExc_ValueError, "%s is %lld, expected 0 to %lu", name, value,
                     (unsigned long)most);
        return false;
    }
    *field = (uint32_t)value;
    return true;
}

static bool
take_header(PyObject *const *arguments, struct header *header)
{
    uint32_t id, command;
    if (!take_field(arguments[0], "id", UINT16_MAX, &id)
        || !take_field(arguments[1], "command", UINT16_MAX, &command))
        return false;
    header->id = (uint16_t)id;
    header->command = (uint16_t)command;
    if (!arguments[2])
        return true;
    return take_field(arguments[2], "flags", UINT32_MAX, &header->flags)
           && take_field(arguments[3], "error", UINT32_MAX, &header->error);
}

static bool
take_fd(PyObject *fds, Py_ssize_t index, int *fd)
{
    uint32_t value = 0;
    PyObject *item = PySequence_GetItem(fds, index);
    bool good = item && take_field(item, "a file descriptor", INT32_MAX, &value);
    Py_XDECREF(item);
    *fd = (int)value;
    return good;
}

static bool
take_fds(PyObject *fds, struct outgoing *message)
{
    Py_ssize_t count = fds ? PySequence_Size(fds) : 0;
    if (count < 0)
        return false;
    if (count > KERNEL_DESCRIPTORS) {
        PyErr_Format(PyExc_ValueError, "%zd file descriptors, expected at most %d in one message",
                     count, KERNEL_DESCRIPTORS);
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!take_fd(fds, i, &message->fds[i]))
            return false;
    }
    message->fd_count = (unsigned)count;
    return true;
}

bool
take_outgoing(PyObject *const *header, PyObject *payload, PyObject *fds, struct outgoing *message)
{
    message->header = (struct header){0};
    message->fd_count = 0;
    if (!take_header(header, &message->header) || !take_fds(fds, message)
        || PyObject_GetBuffer(payload, &message->payload, PyBUF_SIMPLE) < 0)
        return false;
    uint64_t size = (uint64_t)message->payload.len + HEADER_SIZE;
    message->header.size = (uint32_t)size;
    if (size <= UINT32_MAX)
        return true;
    PyErr_Format(PyExc_ValueError, "a payload of %zd bytes, expected less than 4 GiB",
                 message->payload.len);
    PyBuffer_Release(&message->payload);
    return false;
}

static void
start_sending(const struct outgoing *message, struct progress *progress)
{
    size_t size = (size_t)message->payload.len;
    header_pack(&message->header, progress->header);
    progress->parts[0] = (struct iovec){.iov_base = progress->header, .iov_len = HEADER_SIZE};
    progress->parts[1] = (struct iovec){.iov_base = message->payload.buf, .iov_len = size};
    progress->sent = 0;
    progress->left = HEADER_SIZE + size;
}

static void
advance(struct progress *progress, size_t count)
{
    progress->sent += count;
    progress->left -= count;
    for (int i = 0; i < 2; i++) {
        struct iovec *part = &progress->parts[i];
        size_t step = count < part->iov_len ? count : part->iov_len;
        part->iov_base = (uint8_t *)part->iov_base + step;
        part->iov_len -= step;
        count -= step;
    }
}

static ssize_t
send_small(Channel *self, const struct progress *progress)
{
    uint8_t bytes[SMALL];
    memcpy(bytes, progress->header, HEADER_SIZE);
    if (progress->parts[1].iov_len > 0) /* an empty buffer may have no address */
        memcpy(bytes + HEADER_SIZE, progress->parts[1].iov_base, progress->parts[1].iov_len);
    return send(self->fd, bytes, progress->left, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Never blocks, so the GIL can stay. The descriptors go with the first bytes. */
static ssize_t
send_once(Channel *self, const struct outgoing *message, struct progress *progress)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(KERNEL_DESCRIPTORS * sizeof(int))];
    } control;
    if (progress->sent == 0 && message->fd_count == 0 && progress->left <= SMALL)
        return send_small(self, progress);
    struct msghdr out = {.msg_iov = progress->parts, .msg_iovlen = 2};
    if (progress->sent == 0 && message->fd_count > 0) {
        size_t size = message->fd_count * sizeof(int);
        memset(&control, 0, CMSG_SPACE(size));
        out.msg_control = &control;
        out.msg_controllen = CMSG_SPACE(size);
        struct cmsghdr *part = CMSG_FIRSTHDR(&out);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(part), message->fds, size);
    }
    return sendmsg(self->fd, &out, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void
wait_for_room(Channel *self, int64_t deadline)
{
    int64_t left = deadline - monotonic_now();
    if (left > SEND_ROUND)
        left = SEND_ROUND;
    struct timespec time = {.tv_nsec = left > 0 ? left : 0};
    struct pollfd descriptor = {.fd = self->fd, .events = POLLOUT};
    Py_BEGIN_ALLOW_THREADS
    ppoll(&descriptor, 1, &time, NULL);
    Py_END_ALLOW_THREADS
}

static bool
refuse_send(Channel *self, const struct outgoing *message, int error)
{
    struct module_state *state = channel_state(self);
    if (self->closed)
        return channel_check(self, false);
    if (error == EPIPE || error == ECONNRESET || error == ENOTCONN) {
        PyErr_Format(state->device_gone, "%U: the peer closed the connection", self->name);
        return false;
    }
    PyObject *text = PyUnicode_FromFormat(
        "%U: cannot send %u bytes and %u file descriptors: %s", self->name,
        (unsigned)message->header.size, message->fd_count, strerror(error));
    return raise_host_error(state, text, error);
}

/* False with an exception set when it is not worth going on. */
static bool
go_on(Channel *self, const struct progress *progress, int64_t deadline)
{
    if (PyErr_CheckSignals() < 0)
        return false;
    if (monotonic_now() < deadline)
        return true;
    PyErr_Format(channel_state(self)->peer_error,
                 "%U: the peer took %zu of %zu bytes within %zd ms and reads no more", self->name,
                 progress->sent, progress->sent + progress->left,
                 (Py_ssize_t)(self->send_timeout / 1000000));
    return false;
}

static bool
send_all(Channel *self, const struct outgoing *message, struct progress *progress)
{
    int64_t deadline = 0; /* the clock is read only where it matters */
    while (progress->left > 0) {
        if (!channel_check(self, self->output_broken))
            return false;
        ssize_t count = send_once(self, message, progress);
        if (LIKELY(count >= 0)) {
            advance(progress, (size_t)count);
            continue;
        }
        if (errno != EAGAIN && errno != EINTR)
            return refuse_send(self, message, errno);
        if (deadline == 0)
            deadline = monotonic_now() + self->send_timeout;
        if (!go_on(self, progress, deadline))
            return false;
        wait_for_room(self, deadline);
    }
    return true;
}

/* One message at a time, whichever thread it comes from. */
static bool
lock_sending(Channel *self)
{
    if (LIKELY(PyThread_acquire_lock(self->sending, NOWAIT_LOCK)))
        return true;
    int locked;
    Py_BEGIN_ALLOW_THREADS
    locked = PyThread_acquire_lock_timed(self->sending, self->send_timeout / 1000, 0);
    Py_END_ALLOW_THREADS
    if (locked == PY_LOCK_ACQUIRED)
        return true;
    PyErr_Format(channel_state(self)->busy_error,
                 "%U: another thread is still sending a message", self->name);
    return false;
}

bool
send_message(Channel *self, const struct outgoing *message)
{
    struct progress progress;
    bool sent = false;
    start_sending(message, &progress);
    if (lock_sending(self)) {
        sent = send_all(self, message, &progress);
        self->output_broken |= progress.sent > 0 && progress.left > 0;
        PyThread_release_lock(self->sending);
    }
    return sent;
}

PyObject *
channel_send(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Channel *self = (Channel *)object;
    struct outgoing message;
    if (count != 5 && count != 6) {
        PyErr_Format(PyExc_TypeError, "send takes 5 or 6 arguments (%zd given)", count);
        return NULL;
    }
    if (!take_outgoing(arguments, arguments[4], count == 6 ? arguments[5] : NULL, &message))
        return NULL;
    bool sent = false;
    if (channel_enter(self, self->output_broken)) {
        sent = send_message(self, &message);
        channel_leave(self);
    }
    PyBuffer_Release(&message.payload);
    return sent ? Py_NewRef(Py_None) : NULL;
}
