/* The Channel type: one end of a vfio-user connection, and the messages that come out of it
 * (QEMU docs/interop/vfio-user.rst, "Header"). */
#define _GNU_SOURCE
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

bool
channel_check(Channel *self, bool broken)
{
    struct module_state *state = channel_state(self);
    if (LIKELY(!self->closed && !broken))
        return true;
    if (self->closed)
        PyErr_Format(state->closed_error, "%U is closed", self->name);
    else
        PyErr_Format(state->peer_error,
                     "%U: messages can no longer be told apart since the last error; "
                     "close this connection and open a new one", self->name);
    return false;
}

bool
channel_enter(Channel *self, bool broken)
{
    if (!channel_check(self, broken))
        return false;
    self->users++;
    return true;
}

static void
release(Channel *self)
{
    framing_drop(&self->framing);
    if (self->fd >= 0)
        close(self->fd);
    self->fd = -1;
}

void
channel_leave(Channel *self)
{
    if (--self->users == 0 && self->closed)
        release(self);
}

/* Other threads' calls end at once: the socket is shut down under them. */
static PyObject *
channel_close(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Channel *self = (Channel *)object;
    if (!self->closed) {
        self->closed = true;
        shutdown(self->fd, SHUT_RDWR);
        if (self->users == 0)
            release(self);
    }
    Py_RETURN_NONE;
}

static bool
set_limits(Channel *self, Py_ssize_t payload, int fds)
{
    const Py_ssize_t most = (Py_ssize_t)UINT32_MAX - HEADER_SIZE;
    if (payload < 0 || payload > most) {
        PyErr_Format(PyExc_ValueError, "max_payload is %zd, expected 0 to %zd bytes", payload, most);
        return false;
    }
    if (fds < 0 || fds > KERNEL_DESCRIPTORS) {
        PyErr_Format(PyExc_ValueError, "max_fds is %d, expected 0 to %d", fds, KERNEL_DESCRIPTORS);
        return false;
    }
    self->framing.payload_limit = (size_t)payload;
    self->framing.descriptor_limit = (unsigned)fds;
    return true;
}

/* Not inherited by programs, blocking where asked to, and a read ends in time for Ctrl-C. */
static bool
set_up_socket(int fd)
{
    struct timeval round = {.tv_usec = RECEIVE_ROUND / 1000};
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &round, sizeof(round)) == 0
           && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static bool
fill_channel(Channel *self, int fd, Py_ssize_t max_payload, int max_fds, PyObject *send_timeout)
{
    struct module_state *state = channel_state(self);
    self->send_timeout = 5000000000;
    if (!set_limits(self, max_payload, max_fds))
        return false;
    if (send_timeout
        && !take_seconds(send_timeout, "Channel", "send_timeout", &self->send_timeout))
        return false;
    self->sending = PyThread_allocate_lock();
    if (!self->sending) {
        PyErr_NoMemory();
        return false;
    }
    if (set_up_socket(fd)) {
        self->fd = fd;
        self->closed = false;
        return true;
    }
    int error = errno;
    PyObject *text = PyUnicode_FromFormat("%U: descriptor %d is no stream socket: %s", self->name,
                                          fd, strerror(error));
    return raise_host_error(state, text, error);
}

static PyObject *
channel_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", "", "", "", "send_timeout", NULL};
    PyObject *name, *send_timeout = NULL;
    int fd, max_fds;
    Py_ssize_t max_payload;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "Uini|$O:Channel", names, &name, &fd,
                                     &max_payload, &max_fds, &send_timeout))
        return NULL;
    Channel *self = (Channel *)PyType_GenericAlloc(type, 0);
    if (!self)
        return NULL;
    self->name = Py_NewRef(name);
    self->fd = self->wake_fd = -1;
    self->closed = true;
    if (!fill_channel(self, fd, max_payload, max_fds, send_timeout))
        Py_CLEAR(self);
    return (PyObject *)self;
}

static PyObject *
channel_set_limits(PyObject *self, PyObject *arguments)
{
    Py_ssize_t max_payload;
    int max_fds;
    if (!PyArg_ParseTuple(arguments, "ni:set_limits", &max_payload, &max_fds)
        || !set_limits((Channel *)self, max_payload, max_fds))
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *
channel_set_wake(PyObject *self, PyObject *argument)
{
    long fd = PyLong_AsLong(argument);
    if (fd == -1 && PyErr_Occurred())
        return NULL;
    ((Channel *)self)->wake_fd = fd < 0 || fd > INT32_MAX ? -1 : (int)fd;
    Py_RETURN_NONE;
}

static PyObject *
channel_fileno(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(((Channel *)self)->closed ? -1 : ((Channel *)self)->fd);
}

static PyObject *
channel_repr(PyObject *object)
{
    Channel *self = (Channel *)object;
    return PyUnicode_FromFormat("<Channel %R%s>", self->name, self->closed ? ", closed" : "");
}

static PyObject *
channel_get_name(PyObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(((Channel *)self)->name);
}

static PyObject *
channel_get_closed(PyObject *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(((Channel *)self)->closed);
}

static PyObject *
channel_get_pending(PyObject *object, void *Py_UNUSED(closure))
{
    Channel *self = (Channel *)object;
    struct frame frame;
    bool pending = !self->receiving && framing_look(&self->framing, &frame) != FRAME_PARTIAL;
    return PyBool_FromLong(pending);
}

static PyObject *
channel_get_partial(PyObject *object, void *Py_UNUSED(closure))
{
    Channel *self = (Channel *)object;
    struct frame frame;
    bool partial = !self->receiving && self->framing.end > self->framing.start
                   && framing_look(&self->framing, &frame) == FRAME_PARTIAL;
    return PyBool_FromLong(partial);
}

static int
channel_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    return 0;
}

static void
channel_dealloc(PyObject *object)
{
    Channel *self = (Channel *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    release(self);
    if (self->sending)
        PyThread_free_lock(self->sending);
    Py_CLEAR(self->name);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

#define FAST(function) (PyCFunction)(void (*)(void))(function), METH_FASTCALL

static PyMethodDef methods[] = {
    {"send", FAST(channel_send),
     "send($self, id, command, flags, error, payload, fds=(), /)\n--\n\n"
     "Send one message whole. The descriptors stay the caller's."},
    {"receive", FAST(channel_receive),
     "receive($self, timeout, spin=0.0, /)\n--\n\n"
     "Return the next message, or None. Its descriptors are the caller's to close."},
    {"exchange", FAST(channel_exchange),
     "exchange($self, id, command, payload, fds, timeout, spin=0.0, /)\n--\n\n"
     "Send a command, then receive the next message, whatever it is."},
    {"set_limits", channel_set_limits, METH_VARARGS,
     "set_limits($self, max_payload, max_fds, /)\n--\n\n"
     "What a message from the peer may hold from now on."},
    {"set_wake", channel_set_wake, METH_O,
     "set_wake($self, fd, /)\n--\n\n"
     "Make receive() return None when fd is readable; -1 for no such fd."},
    {"fileno", channel_fileno, METH_NOARGS, "fileno($self, /)\n--\n\nThe socket, -1 when closed."},
    {"close", channel_close, METH_NOARGS,
     "close($self, /)\n--\n\n"
     "End the connection; calls in other threads raise ClosedError. Twice is fine."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"name", channel_get_name, NULL, "Where this is, as errors say it.", NULL},
    {"closed", channel_get_closed, NULL, "Whether close() was called.", NULL},
    {"pending", channel_get_pending, NULL, "Whether receive() would not even look at the socket.",
     NULL},
    {"partial", channel_get_partial, NULL, "Whether a message has begun and not ended.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot channel_slots[] = {
    {Py_tp_doc, "Channel(name, fd, max_payload, max_fds, /, *, send_timeout=5.0)\n--\n\n"
                "One end of a vfio-user connection: whole messages with their descriptors."},
    {Py_tp_new, channel_new},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_tp_repr, channel_repr},
    {Py_tp_traverse, channel_traverse},
    {Py_tp_dealloc, channel_dealloc},
    {0, NULL},
};

PyType_Spec channel_spec = {
    .name = "uspace_drv.native._native.Channel",
    .basicsize = sizeof(Channel),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = channel_slots,
};

static PyStructSequence_Field message_fields[] = {
    {"id", "the sender's number, echoed in the reply"},
    {"command", "which command, in a reply too"},
    {"flags", "type, no_reply, error"},
    {"error", "errno, in a reply with the error flag"},
    {"payload", "what follows the header"},
    {"fds", "descriptors, close-on-exec, the receiver's to close"},
    {NULL, NULL},
};

PyStructSequence_Desc message_description = {
    .name = "uspace_drv.native._native.Message",
    .doc = "One message as it came.",
    .fields = message_fields,
    .n_in_sequence = 6,
};
