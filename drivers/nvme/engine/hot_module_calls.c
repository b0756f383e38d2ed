/* Submitting, polling and taking back, as Python calls them. */
#include "hot_module.h"

#include <string.h>

static PyObject *
submit_from(Queue *self, const struct hot_request *requests, size_t count, size_t start)
{
    enum hot_wrong wrong;
    struct hot_ranges *ranges = ranges_hold(self->memory);
    size_t room = hot_free(&self->core), wanted = count - start < room ? count - start : room;
    PyThreadState *state = wanted > BRIEF ? PyEval_SaveThread() : NULL;
    size_t done = hot_submit(&self->core, ranges, requests + start, count - start, &wrong);
    if (state)
        PyEval_RestoreThread(state);
    ranges_let_go(ranges);
    queue_leave(self);
    return wrong ? refuse_request(self, &requests[start + done], wrong, start + done)
                 : PyLong_FromSize_t(done);
}

PyObject *
queue_submit(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Queue *self = (Queue *)object;
    Py_buffer buffer;
    uint64_t start = 0;
    if ((count != 2 && !check_arguments("submit", count, 1))
        || !take_array(self, arguments[0], sizeof(struct hot_request), false, &buffer))
        return NULL;
    uint64_t entries = (uint64_t)buffer.len / sizeof(struct hot_request);
    PyObject *answer = NULL;
    if ((count == 1 || take_count(object, arguments[1], "submit: start", entries, &start))
        && queue_enter(self))
        answer = submit_from(self, buffer.buf, entries, start);
    PyBuffer_Release(&buffer);
    return answer;
}

static bool
check_command(Queue *self, const Py_buffer *command, uint64_t data, uint64_t size)
{
    if (command->len != COMMAND_SIZE)
        refuse(self, "a command of %zd bytes, expected %d", command->len, COMMAND_SIZE);
    else if (size && (data % 4 || size > hot_most_bytes(&self->core) || data + size < data))
        refuse(self, "a command with %llu bytes at IOVA 0x%llx, expected a multiple of 4 and at "
               "most %llu bytes", (unsigned long long)size, (unsigned long long)data,
               (unsigned long long)hot_most_bytes(&self->core));
    else
        return true;
    return false;
}

PyObject *
queue_submit_command(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Queue *self = (Queue *)object;
    Py_buffer command;
    uint64_t data, size, tag;
    if (!check_arguments("submit_command", count, 4)
        || !take_count(object, arguments[1], "submit_command: data", UINT64_MAX, &data)
        || !take_count(object, arguments[2], "submit_command: size", UINT64_MAX, &size)
        || !take_count(object, arguments[3], "submit_command: tag", UINT64_MAX, &tag)
        || PyObject_GetBuffer(arguments[0], &command, PyBUF_SIMPLE) < 0)
        return NULL;
    PyObject *answer = NULL;
    if (check_command(self, &command, data, size) && queue_enter(self)) {
        bool full = hot_free(&self->core) == 0;
        long id = full ? -1 : (long)hot_submit_command(&self->core, command.buf, data, size, tag);
        queue_leave(self);
        answer = PyLong_FromLong(id);
    }
    PyBuffer_Release(&command);
    return answer;
}

/* A signal's handler raised: the next call returns what is there. There is room, because nothing
 * was submitted since it was collected. */
static void
put_back(struct hot_queue *queue, const struct hot_result *results, size_t count)
{
    memcpy(queue->results, results, count * sizeof(*results));
    queue->waiting = (uint32_t)count;
}

/* -1 with an exception set. */
static Py_ssize_t
collect(Queue *self, struct hot_result *results, size_t room, size_t least, int64_t timeout)
{
    struct hot_queue *queue = &self->core;
    size_t count = hot_take_waiting(queue, results, room);
    count += hot_collect(queue, results + count, room - count);
    if (LIKELY(count >= least) || timeout == 0 || queue->violation.breach)
        return (Py_ssize_t)count;
    int64_t deadline = hot_now() + timeout, now;
    do {
        PyThreadState *state = PyEval_SaveThread();
        count += hot_collect_until(queue, results + count, room - count, least - count,
                                   round_end(deadline));
        PyEval_RestoreThread(state);
        now = hot_now();
        if (count < least && PyErr_CheckSignals() < 0) {
            put_back(queue, results, count);
            return -1;
        }
    } while (count < least && now < deadline && !queue->violation.breach);
    return (Py_ssize_t)count;
}

static PyObject *
poll_into(Queue *self, const Py_buffer *buffer, uint64_t least, int64_t timeout)
{
    size_t room = (size_t)buffer->len / sizeof(struct hot_result);
    if (!queue_enter(self))
        return NULL;
    Py_ssize_t count = collect(self, buffer->buf, room, least < room ? least : room, timeout);
    queue_leave(self);
    if (count == 0 && UNLIKELY(self->core.violation.breach))
        return report_violation(self);
    return count < 0 ? NULL : PyLong_FromSsize_t(count);
}

/* By name: least and timeout, in any order. */
static bool
take_named(PyObject *const *values, PyObject *names, PyObject **least, PyObject **timeout)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(names); i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        PyObject **place = NULL;
        if (PyUnicode_CompareWithASCIIString(name, "least") == 0)
            place = least;
        else if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0)
            place = timeout;
        if (!place || *place) {
            PyErr_Format(PyExc_TypeError, "poll(): %R is unknown or given twice", name);
            return false;
        }
        *place = values[i];
    }
    return true;
}

PyObject *
queue_poll(PyObject *object, PyObject *const *arguments, Py_ssize_t count, PyObject *names)
{
    Queue *self = (Queue *)object;
    PyObject *least_number = count > 1 ? arguments[1] : NULL;
    PyObject *seconds = count > 2 ? arguments[2] : NULL;
    uint64_t least = 0;
    int64_t timeout = 0;
    Py_buffer buffer;
    if (count < 1 || count > 3) {
        PyErr_Format(PyExc_TypeError, "poll() takes 1 to 3 arguments (%zd given)", count);
        return NULL;
    }
    if ((names && !take_named(arguments + count, names, &least_number, &seconds))
        || (least_number && !take_count(object, least_number, "poll: least", UINT64_MAX, &least))
        || (seconds && !take_time(object, seconds, "poll: timeout", &timeout))
        || !take_array(self, arguments[0], sizeof(struct hot_result), true, &buffer))
        return NULL;
    PyObject *answer = poll_into(self, &buffer, least, timeout);
    PyBuffer_Release(&buffer);
    return answer;
}

PyObject *
queue_abandon(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Queue *self = (Queue *)object;
    Py_buffer buffer;
    uint64_t status;
    if (!check_arguments("abandon", count, 2)
        || !take_count(object, arguments[1], "abandon: status", 0x7FFF, &status)
        || !take_array(self, arguments[0], sizeof(struct hot_result), true, &buffer))
        return NULL;
    PyObject *answer = NULL;
    if (queue_enter(self)) {
        size_t room = (size_t)buffer.len / sizeof(struct hot_result);
        answer = PyLong_FromSize_t(hot_abandon(&self->core, buffer.buf, room, (uint16_t)status));
        queue_leave(self);
    }
    PyBuffer_Release(&buffer);
    return answer;
}

PyObject *
queue_id_of(PyObject *object, PyObject *number)
{
    Queue *self = (Queue *)object;
    uint64_t tag;
    long id = -1;
    if (!take_count(object, number, "id_of: tag", UINT64_MAX, &tag) || !queue_enter(self))
        return NULL;
    for (uint32_t slot = 0; slot < self->core.depth && id < 0; slot++) {
        const struct hot_slot *each = &self->core.slots[slot];
        if (each->state && each->tag == tag)
            id = each->state & 0xFFFF;
    }
    queue_leave(self);
    return PyLong_FromLong(id);
}

PyObject *
queue_tag_of(PyObject *object, PyObject *number)
{
    Queue *self = (Queue *)object;
    uint64_t id;
    if (!take_count(object, number, "tag_of: id", 0xFFFF, &id) || !queue_enter(self))
        return NULL;
    const struct hot_slot *slot = &self->core.slots[id & self->core.slot_mask];
    bool found = slot->state == (id | SLOT_BUSY);
    uint64_t tag = slot->tag;
    queue_leave(self);
    return found ? PyLong_FromUnsignedLongLong(tag) : PyLong_FromLong(-1);
}
