/* Arguments of the engine's calls: numbers, times and arrays, checked before anything is done. */
#include "hot_module.h"

#include <math.h>

bool
queue_enter(Queue *self)
{
    if (UNLIKELY(!self->core.slots)) {
        PyErr_SetString(PyExc_TypeError, "Queue: it was never made");
        return false;
    }
    if (UNLIKELY(self->taken)) {
        refuse_busy(self, "another thread is in it; a queue belongs to one thread at a time");
        return false;
    }
    self->taken = true;
    return true;
}

bool
take_count(PyObject *object, PyObject *number, const char *name, uint64_t most, uint64_t *value)
{
    *value = PyLong_AsUnsignedLongLong(number);
    if (UNLIKELY(*value == UINT64_MAX && PyErr_Occurred())) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError))
            return false;
        PyErr_Clear();
    } else if (LIKELY(*value <= most)) {
        return true;
    }
    PyErr_Format(state_of(object)->register_value_error, "%s is %R, expected 0 to %llu", name,
                 number, (unsigned long long)most);
    return false;
}

bool
take_time(PyObject *object, PyObject *seconds, const char *name, int64_t *nanoseconds)
{
    const double longest = 1e9; /* 31 years: keeps the sum of two inside 63 bits */
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred())
        return false;
    if (!isfinite(value) || value < 0) {
        PyErr_Format(state_of(object)->register_value_error,
                     "%s is %R, expected 0 or more seconds", name, seconds);
        return false;
    }
    *nanoseconds = (int64_t)(fmin(value, longest) * 1e9);
    return true;
}

bool
take_array(Queue *self, PyObject *argument, size_t size, bool writable, Py_buffer *buffer)
{
    if (PyObject_GetBuffer(argument, buffer, PyBUF_ND | (writable ? PyBUF_WRITABLE : 0)) < 0)
        return false;
    if (LIKELY((size_t)buffer->itemsize == size && buffer->ndim == 1
               && (uintptr_t)buffer->buf % 8 == 0))
        return true;
    refuse(self, "an array of %d dimensions with items of %zd bytes at an address of 8n+%u, "
           "expected an array of %s: 1 dimension, whole entries of %zu bytes at a multiple of 8",
           buffer->ndim, buffer->itemsize, (unsigned)((uintptr_t)buffer->buf % 8),
           size == sizeof(struct hot_request) ? "Request" : "Result", size);
    PyBuffer_Release(buffer);
    return false;
}

bool
check_arguments(const char *name, Py_ssize_t count, Py_ssize_t expected)
{
    if (LIKELY(count == expected))
        return true;
    PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments (%zd given)", name, expected, count);
    return false;
}
