/* The eight accesses of a window: every kind is checked here, memory is touched here.
 *
 * Both arguments become C integers before anything is checked, because `__index__` of a strange
 * argument may run Python code that closes the window. */
#include "native.h"

#include "uspace_drv.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE bool
check_offset(Window *self, PyObject *argument, const struct number *offset, unsigned width)
{
    bool inside = offset->value < self->limit && self->limit - offset->value >= width;
    bool aligned = (offset->value & (width - 1)) == 0;
    return LIKELY(offset->fits && inside && aligned) || refuse_offset(self, argument, width);
}

ALWAYS_INLINE uint64_t
load(const void *address, unsigned width)
{
    switch (width) {
    case 1:
        return uspace_read8(address);
    case 2:
        return uspace_read16(address);
    case 4:
        return uspace_read32(address);
    default:
        return uspace_read64(address);
    }
}

ALWAYS_INLINE void
store(void *address, unsigned width, uint64_t value)
{
    switch (width) {
    case 1:
        uspace_write8(address, (uint8_t)value);
        break;
    case 2:
        uspace_write16(address, (uint16_t)value);
        break;
    case 4:
        uspace_write32(address, (uint32_t)value);
        break;
    default:
        uspace_write64(address, value);
    }
}

/* The mark is looked at twice: do not touch what is gone, do not believe what went meanwhile. */
ALWAYS_INLINE bool
memory_read(Window *self, uint64_t offset, unsigned width, uint64_t *value)
{
    if (UNLIKELY(!is_live(self)))
        return refuse_state(self);
    *value = load(self->bytes + offset, width);
    return LIKELY(is_live(self)) || refuse_state(self);
}

ALWAYS_INLINE bool
memory_write(Window *self, uint64_t offset, unsigned width, uint64_t value)
{
    if (UNLIKELY(!is_live(self)))
        return refuse_state(self);
    store(self->bytes + offset, width, value);
    return LIKELY(is_live(self)) || refuse_state(self);
}

static bool
part_write(Window *part, uint64_t offset, unsigned width, uint64_t value)
{
    return part->writable ? memory_write(part, offset, width, value) : refuse_read_only(part);
}

ALWAYS_INLINE bool
read_by_kind(Window *self, uint64_t offset, unsigned width, uint64_t *value)
{
    if (LIKELY(self->kind == MEMORY_WINDOW))
        return memory_read(self, offset, width, value);
    if (self->kind == FILE_WINDOW)
        return file_read(self, offset, width, value);
    const struct part *part = part_at(self, offset);
    if (part)
        return memory_read((Window *)part->window, offset - part->start, width, value);
    return calls_read(self, offset, width, value);
}

ALWAYS_INLINE bool
write_by_kind(Window *self, uint64_t offset, unsigned width, uint64_t value)
{
    if (UNLIKELY(!self->writable))
        return refuse_read_only(self);
    if (LIKELY(self->kind == MEMORY_WINDOW))
        return memory_write(self, offset, width, value);
    if (self->kind == FILE_WINDOW)
        return file_write(self, offset, width, value);
    const struct part *part = part_at(self, offset);
    if (part)
        return part_write((Window *)part->window, offset - part->start, width, value);
    return calls_write(self, offset, width, value);
}

ALWAYS_INLINE PyObject *
read_width(PyObject *object, PyObject *argument, unsigned width)
{
    Window *self = (Window *)object;
    struct number offset;
    uint64_t value;
    if (!take_number(argument, &offset) || !check_offset(self, argument, &offset, width))
        return NULL;
    if (!read_by_kind(self, offset.value, width, &value))
        return NULL;
    return PyLong_FromUnsignedLongLong(value);
}

ALWAYS_INLINE PyObject *
write_width(PyObject *object, PyObject *const *arguments, Py_ssize_t count, unsigned width)
{
    Window *self = (Window *)object;
    struct number offset, value;
    if (UNLIKELY(count != 2)) {
        PyErr_Format(PyExc_TypeError, "a write takes an offset and a value (%zd given)", count);
        return NULL;
    }
    if (!take_number(arguments[0], &offset) || !take_number(arguments[1], &value))
        return NULL;
    if (!check_offset(self, arguments[0], &offset, width))
        return NULL;
    if (UNLIKELY(!value.fits || value.value > largest(width))) {
        refuse_value(self, arguments[1], width);
        return NULL;
    }
    if (!write_by_kind(self, offset.value, width, value.value))
        return NULL;
    Py_RETURN_NONE;
}

PyObject *
window_read8(PyObject *self, PyObject *offset)
{
    return read_width(self, offset, 1);
}

PyObject *
window_read16(PyObject *self, PyObject *offset)
{
    return read_width(self, offset, 2);
}

PyObject *
window_read32(PyObject *self, PyObject *offset)
{
    return read_width(self, offset, 4);
}

PyObject *
window_read64(PyObject *self, PyObject *offset)
{
    return read_width(self, offset, 8);
}

PyObject *
window_write8(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    return write_width(self, arguments, count, 1);
}

PyObject *
window_write16(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    return write_width(self, arguments, count, 2);
}

PyObject *
window_write32(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    return write_width(self, arguments, count, 4);
}

PyObject *
window_write64(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    return write_width(self, arguments, count, 8);
}
