/* What the files of the channel share: one end of a vfio-user connection. */
#ifndef USPACE_CHANNEL_H
#define USPACE_CHANNEL_H

#include "native.h"

#include "framing.h"

typedef struct {
    PyObject_HEAD
    PyObject *name;
    int fd, wake_fd;
    bool closed, receiving;
    bool input_broken, output_broken; /* messages can no longer be told apart */
    unsigned users;         /* calls under way: the last one to end closes a closed channel's fd */
    int64_t send_timeout;   /* ns */
    PyThread_type_lock sending;
    struct framing framing; /* belongs to the one call that is receiving */
} Channel;

/* One message as it goes out; `payload` and `fds` are the caller's. */
struct outgoing {
    struct header header;
    Py_buffer payload;
    int fds[KERNEL_DESCRIPTORS];
    unsigned fd_count;
};

static inline struct module_state *
channel_state(Channel *self)
{
    return PyType_GetModuleState(Py_TYPE((PyObject *)self));
}

/* Blocking reads wake up this often to look at Python's signals, in ns. */
enum { RECEIVE_ROUND = 100000000 };

/* channel.c: the frame of every call that uses the descriptor. False with an exception set. */
bool channel_enter(Channel *self, bool broken);
void channel_leave(Channel *self);
bool channel_check(Channel *self, bool broken);

/* channel_send.c. False with an exception set. */
bool take_outgoing(PyObject *const *header, PyObject *payload, PyObject *fds,
                   struct outgoing *message);
bool send_message(Channel *self, const struct outgoing *message); /* between enter and leave */
PyObject *channel_send(PyObject *self, PyObject *const *arguments, Py_ssize_t count);

/* channel_receive.c */
PyObject *channel_receive(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
PyObject *channel_exchange(PyObject *self, PyObject *const *arguments, Py_ssize_t count);

#endif
