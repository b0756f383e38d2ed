/* How a window refuses: where, what was seen against what was expected, and the cure. */
#include "native.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* PyErr_Format of Python 3.11 prints no 64-bit number in hexadecimal. */
struct hex {
    char text[20];
};

static struct hex
hex_of(uint64_t number)
{
    struct hex hex;
    snprintf(hex.text, sizeof(hex.text), "0x%" PRIx64, number);
    return hex;
}

bool
take_odd_number(PyObject *argument, int overflow, struct number *number)
{
    if (overflow == 0 && PyErr_Occurred())
        return false;
    number->fits = false;
    if (overflow <= 0)
        return true;
    PyObject *index = PyNumber_Index(argument);
    if (!index)
        return false;
    number->value = PyLong_AsUnsignedLongLong(index);
    Py_DECREF(index);
    if (!PyErr_Occurred())
        number->fits = true;
    else if (PyErr_ExceptionMatches(PyExc_OverflowError))
        PyErr_Clear();
    return !PyErr_Occurred();
}

static bool
is_negative(PyObject *number)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return value < 0 && overflow <= 0;
}

static bool
refuse_span(Window *self, PyObject *offset, PyObject *text, unsigned width)
{
    PyObject *error = state_of(self)->register_value_error;
    struct hex size = hex_of(self->size);
    struct number number;
    if (is_negative(offset))
        PyErr_Format(error, "%U: offset %U is before the start", self->name, text);
    else if (!take_number(offset, &number))
        return false;
    else if (!number.fits || number.value >= self->size)
        PyErr_Format(
            error, "%U: offset %U is past the end (%s bytes)", self->name, text, size.text);
    else if (number.value % width)
        PyErr_Format(
            error, "%U: offset %U is not aligned to %u bytes", self->name, text, width);
    else
        PyErr_Format(error, "%U: %u bytes at offset %U reach past the end (%s bytes)", self->name,
                     width, text, size.text);
    return false;
}

bool
refuse_offset(Window *self, PyObject *offset, unsigned width)
{
    if (self->closed)
        return refuse_state(self);
    PyObject *text = PyNumber_ToBase(offset, 16);
    if (text) {
        refuse_span(self, offset, text, width);
        Py_DECREF(text);
    }
    return false;
}

bool
refuse_value(Window *self, PyObject *value, unsigned width)
{
    PyObject *text = PyNumber_ToBase(value, 16);
    if (text) {
        PyErr_Format(state_of(self)->register_value_error, "%U: value %U does not fit %u bits",
                     self->name, text, 8 * width);
        Py_DECREF(text);
    }
    return false;
}

bool
refuse_answer(Window *self, PyObject *answer, uint64_t offset, unsigned width)
{
    PyErr_Format(state_of(self)->register_value_error,
                 "%U: the model answered %R to a read at offset %s, expected a number of %u bits",
                 self->name, answer, hex_of(offset).text, 8 * width);
    return false;
}

/* What leads to the device may know why: the host took it away, and that is why this was closed. */
static bool
refuse_closed(Window *self)
{
    if (self->link) {
        PyObject *alive = PyObject_CallMethod(self->link, "check_alive", NULL);
        if (!alive)
            return false;
        Py_DECREF(alive);
    }
    PyErr_Format(state_of(self)->closed_error, "%U is closed", self->name);
    return false;
}

bool
refuse_state(Window *self)
{
    struct module_state *state = state_of(self);
    if (self->closed)
        return refuse_closed(self);
    /* A file has no range: it is not closed, so this is a forked child. */
    struct guarded *range = self->mapping ? self->mapping->range : NULL;
    if (!range || atomic_load(&range->state) == GUARD_FORKED)
        PyErr_Format(state->closed_error,
                     "%U was opened by the process that this one was forked from; open it here",
                     self->name);
    else
        PyErr_Format(state->device_gone, "%U: bus error at offset %s: the device vanished",
                     self->name, hex_of(atomic_load(&range->fault) - (uintptr_t)self->bytes).text);
    return false;
}

bool
refuse_read_only(Window *self)
{
    PyErr_Format(state_of(self)->unsupported_error,
                 "%U is read-only; open it writable to write to it", self->name);
    return false;
}

/* What the kernel answers when a device is unplugged, powered down or decodes nothing. */
static bool
means_gone(int error)
{
    return error == EIO || error == ENODEV || error == ENXIO;
}

bool
refuse_transfer(Window *self, const char *verb, uint64_t offset, unsigned width, ssize_t done)
{
    struct module_state *state = state_of(self);
    struct hex at = hex_of(offset);
    int error = errno;
    if (PyErr_Occurred())
        return false; /* a signal handler raised */
    if (done >= 0) {
        PyErr_Format(state->device_gone,
                     "%U: a %s at offset %s moved %zd of %u bytes: the device vanished", self->name,
                     verb, at.text, (Py_ssize_t)done, width);
    } else if (means_gone(error)) {
        PyErr_Format(state->device_gone, "%U: a %s at offset %s failed (%s): the device vanished",
                     self->name, verb, at.text, strerror(error));
    } else {
        PyObject *message = PyUnicode_FromFormat("%U: a %s of %u bytes at offset %s failed: %s",
                                                 self->name, verb, width, at.text, strerror(error));
        raise_host_error(state, message, error);
    }
    return false;
}

static const char *
cure_of_map(int error)
{
    switch (error) {
    case EPERM:
        return "; the kernel does not let this process map it: run as the owner of the node";
    case EACCES:
        return "; open the file for reading and writing, or map it with writable=False";
    case EINVAL:
        return "; the region cannot be mapped there: use Window.over_file";
    case ENODEV:
        return "; this file cannot be mapped: use Window.over_file";
    case EBADF:
        return "; the file descriptor is closed";
    default:
        return "";
    }
}

bool
refuse_map(struct module_state *state, PyObject *name, const char *verb, int error)
{
    PyObject *message = PyUnicode_FromFormat("%U: cannot %s it: %s%s", name, verb, strerror(error),
                                             cure_of_map(error));
    return raise_host_error(state, message, error);
}

/* Takes over the message; the operating system's error is the cause. */
bool
raise_host_error(struct module_state *state, PyObject *message, int error)
{
    PyObject *cause = PyObject_CallFunction(PyExc_OSError, "is", error, strerror(error));
    PyObject *arguments = message ? PyTuple_Pack(1, message) : NULL;
    PyObject *keywords = cause ? Py_BuildValue("{sO}", "cause", cause) : NULL;
    PyObject *raised = NULL;
    if (arguments && keywords)
        raised = PyObject_Call(state->host_error, arguments, keywords);
    if (raised) {
        PyException_SetCause(raised, Py_NewRef(cause));
        PyErr_SetObject(state->host_error, raised);
    }
    Py_XDECREF(raised);
    Py_XDECREF(keywords);
    Py_XDECREF(arguments);
    Py_XDECREF(cause);
    Py_XDECREF(message);
    return false;
}
