/* Accesses that are not memory: one pread or pwrite on a region's file, or one call of a model. */
#include "native.h"

#include <errno.h>
#include <unistd.h>

static uint64_t
from_little_endian(const uint8_t *bytes, unsigned width)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < width; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static void
to_little_endian(uint8_t *bytes, unsigned width, uint64_t value)
{
    for (unsigned i = 0; i < width; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
}

/* A signal handler of the program runs here, and it may raise, or close the window. */
static bool
may_retry(Window *self)
{
    return PyErr_CheckSignals() == 0 && (!self->closed || refuse_state(self));
}

/* The GIL is released: the kernel may first have to wake the device or wait for its reset. */
bool
file_read(Window *self, uint64_t offset, unsigned width, uint64_t *value)
{
    uint8_t bytes[8] = {0};
    off_t position = self->file_offset + (off_t)offset;
    ssize_t done;
    if (UNLIKELY(!is_live(self)))
        return refuse_state(self);
    do {
        Py_BEGIN_ALLOW_THREADS
        done = pread(self->fd, bytes, width, position);
        Py_END_ALLOW_THREADS
    } while (done < 0 && errno == EINTR && may_retry(self));
    if (done != (ssize_t)width)
        return refuse_transfer(self, "read", offset, width, done);
    *value = from_little_endian(bytes, width);
    return true;
}

bool
file_write(Window *self, uint64_t offset, unsigned width, uint64_t value)
{
    uint8_t bytes[8];
    off_t position = self->file_offset + (off_t)offset;
    ssize_t done;
    if (UNLIKELY(!is_live(self)))
        return refuse_state(self);
    to_little_endian(bytes, width, value);
    do {
        Py_BEGIN_ALLOW_THREADS
        done = pwrite(self->fd, bytes, width, position);
        Py_END_ALLOW_THREADS
    } while (done < 0 && errno == EINTR && may_retry(self));
    return done == (ssize_t)width || refuse_transfer(self, "write", offset, width, done);
}

static bool
take_answer(Window *self, PyObject *answer, uint64_t offset, unsigned width, uint64_t *value)
{
    struct number number;
    if (!take_number(answer, &number)) {
        if (!PyErr_ExceptionMatches(PyExc_TypeError))
            return false;
        PyErr_Clear();
        number.fits = false;
    }
    *value = number.value;
    if (number.fits && number.value <= largest(width))
        return true;
    return refuse_answer(self, answer, offset, width);
}

/* The model may close this window while it answers, so its function is held meanwhile. */
bool
calls_read(Window *self, uint64_t offset, unsigned width, uint64_t *value)
{
    PyObject *read = Py_NewRef(self->read);
    unsigned long long at = offset;
    PyObject *answer = PyObject_CallFunction(read, "KI", at, width);
    Py_DECREF(read);
    bool good = answer && take_answer(self, answer, offset, width, value);
    Py_XDECREF(answer);
    return good;
}

bool
calls_write(Window *self, uint64_t offset, unsigned width, uint64_t value)
{
    PyObject *write = Py_NewRef(self->write);
    unsigned long long at = offset, number = value;
    PyObject *answer = PyObject_CallFunction(write, "KIK", at, width, number);
    Py_DECREF(write);
    Py_XDECREF(answer);
    return answer != NULL;
}
