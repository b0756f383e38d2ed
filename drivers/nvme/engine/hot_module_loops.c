/* One blocking request, and whole batches, as Python calls them. */
#include "hot_module.h"

/* What transfer() answers beside a status. */
enum { STILL_FLYING = -1, FOREIGN_MEMORY = -2, QUEUE_FULL = -3 };

/* Opcodes say in two bits which way data goes (section 4.2). */
enum { DIRECTION = 3, TO_HOST = 2, WRITE_UNCORRECTABLE = 4 };

/* Without the GIL, for a round at a time. The first look at the clock comes when the device has
 * work already. */
static PyObject *
await_transfer(Queue *self, int64_t spin)
{
    struct hot_queue *queue = &self->core;
    int64_t deadline = 0;
    bool done, failed = false;
    do {
        PyThreadState *state = PyEval_SaveThread();
        if (deadline == 0)
            deadline = hot_now() + spin;
        done = hot_transfer_until(queue, round_end(deadline));
        PyEval_RestoreThread(state);
        if (LIKELY(done) || queue->violation.breach)
            break;
        failed = PyErr_CheckSignals() < 0;
    } while (!failed && hot_now() < deadline);
    queue_leave(self);
    if (failed)
        return NULL;
    if (LIKELY(done)) {
        queue->transfer = TRANSFER_NONE;
        return PyLong_FromLong(queue->transfer_status);
    }
    return queue->violation.breach ? report_violation(self) : PyLong_FromLong(STILL_FLYING);
}

/* Bytes that a good request moves; one that is not good is refused later. */
static uint64_t
bytes_of(Queue *self, const struct hot_request *request)
{
    const struct hot_namespace *namespace = hot_namespace_of(&self->core, request->namespace);
    if (request->opcode == 9)
        return (uint64_t)request->blocks * 16;
    return namespace ? (uint64_t)request->blocks << namespace->shift : 0;
}

enum found { FOUND, NOT_FOUND, FAILED };

static enum found
find_data(Queue *self, PyObject *data, struct hot_request *request)
{
    unsigned way = request->opcode & DIRECTION;
    Py_buffer buffer;
    if (way == 0)
        return FOUND;
    if (PyObject_GetBuffer(data, &buffer, way == TO_HOST ? PyBUF_WRITABLE : PyBUF_SIMPLE) < 0)
        return FAILED;
    uint64_t size = bytes_of(self, request), length = (uint64_t)buffer.len;
    bool found = hot_find(self->memory->ranges, (uintptr_t)buffer.buf, length, &request->data);
    PyBuffer_Release(&buffer);
    if (UNLIKELY(length < size)) {
        refuse(self, "data of %llu bytes for %u blocks or ranges, expected %llu",
               (unsigned long long)length, request->blocks, (unsigned long long)size);
        return FAILED;
    }
    return found ? FOUND : NOT_FOUND;
}

static bool
take_request(PyObject *object, PyObject *const *arguments, struct hot_request *request)
{
    uint64_t opcode, flags, namespace, blocks;
    if (!take_count(object, arguments[0], "transfer: opcode", 0xFF, &opcode)
        || !take_count(object, arguments[1], "transfer: flags", 0xFF, &flags)
        || !take_count(object, arguments[2], "transfer: namespace", UINT32_MAX, &namespace)
        || !take_count(object, arguments[3], "transfer: lba", UINT64_MAX, &request->lba)
        || !take_count(object, arguments[4], "transfer: blocks", UINT32_MAX, &blocks))
        return false;
    request->opcode = (uint8_t)opcode;
    request->flags = (uint8_t)flags;
    request->namespace = (uint32_t)namespace;
    request->blocks = (uint32_t)blocks;
    return true;
}

/* The queue is taken and stays so where this returns 0; else it is the answer, or FAILED. */
static int
launch(Queue *self, PyObject *data, struct hot_request *request)
{
    struct hot_queue *queue = &self->core;
    if (queue->transfer == TRANSFER_FLYING) {
        refuse_busy(self, "a transfer is still in flight; finish() it first");
        return FAILED;
    }
    if (hot_free(queue) == 0)
        return QUEUE_FULL;
    enum found found = find_data(self, data, request);
    if (found != FOUND)
        return found == FAILED ? FAILED : FOREIGN_MEMORY;
    enum hot_wrong wrong = hot_transfer(queue, self->memory->ranges, request);
    if (LIKELY(!wrong))
        return 0;
    refuse_request(self, request, wrong, 0);
    return FAILED;
}

PyObject *
queue_transfer(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
    Queue *self = (Queue *)object;
    struct hot_request request = {0};
    int64_t spin;
    if (!check_arguments("transfer", count, 7) || !take_request(object, arguments, &request)
        || !take_time(object, arguments[6], "transfer: spin", &spin) || !queue_enter(self))
        return NULL;
    int answer = launch(self, arguments[5], &request);
    if (LIKELY(answer == 0))
        return await_transfer(self, spin);
    queue_leave(self);
    return answer == FAILED ? NULL : PyLong_FromLong(answer);
}

PyObject *
queue_finish(PyObject *object, PyObject *seconds)
{
    Queue *self = (Queue *)object;
    int64_t spin;
    if (!take_time(object, seconds, "finish: spin", &spin) || !queue_enter(self))
        return NULL;
    if (self->core.transfer != TRANSFER_NONE)
        return await_transfer(self, spin);
    queue_leave(self);
    return refuse(self, "no transfer is unfinished");
}

/* False with an exception set: a signal's handler raised. */
static bool
run_rounds(Queue *self, struct hot_run *run, int64_t timeout)
{
    struct hot_ranges *ranges = ranges_hold(self->memory);
    int64_t deadline = hot_now() + timeout;
    bool over, good = true;
    do {
        PyThreadState *state = PyEval_SaveThread();
        over = hot_run_until(&self->core, ranges, run, round_end(deadline));
        PyEval_RestoreThread(state);
        good = over || PyErr_CheckSignals() == 0;
    } while (good && !over && hot_now() < deadline);
    ranges_let_go(ranges);
    return good;
}

static PyObject *
run_batch(Queue *self, struct hot_run *run, int64_t timeout)
{
    if (!queue_enter(self))
        return NULL;
    uint32_t flying = hot_in_flight(&self->core), waiting = self->core.waiting;
    bool idle = !flying && !waiting;
    bool good = !idle || run_rounds(self, run, timeout);
    queue_leave(self);
    if (!idle)
        return refuse_busy(self, "%u commands are in flight and %u results wait; poll() first",
                           flying, waiting);
    if (!good)
        return NULL;
    if (run->wrong && run->done == run->submitted)
        return refuse_request(self, &run->requests[run->done], run->wrong, run->done);
    if (run->done == 0 && self->core.violation.breach)
        return report_violation(self);
    return PyLong_FromSize_t(run->done);
}

static bool
check_run(Queue *self, const struct hot_run *run, size_t room)
{
    if (run->depth > 0 && room >= run->count)
        return true;
    refuse(self, "run of %zu requests with room for %zu results at a depth of %zu, expected room "
           "for all and a depth of 1 or more", run->count, room, run->depth);
    return false;
}

PyObject *
queue_run(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"", "", "depth", "timeout", NULL};
    Queue *self = (Queue *)object;
    PyObject *request_array, *result_array, *depth_number, *seconds, *answer = NULL;
    Py_buffer requests, results;
    uint64_t depth;
    int64_t timeout;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOOO:run", names, &request_array,
                                     &result_array, &depth_number, &seconds)
        || !take_count(object, depth_number, "run: depth", UINT32_MAX, &depth)
        || !take_time(object, seconds, "run: timeout", &timeout)
        || !take_array(self, request_array, sizeof(struct hot_request), false, &requests))
        return NULL;
    if (take_array(self, result_array, sizeof(struct hot_result), true, &results)) {
        struct hot_run run = {.requests = requests.buf, .results = results.buf, .depth = depth,
                              .count = (size_t)requests.len / sizeof(struct hot_request)};
        if (check_run(self, &run, (size_t)results.len / sizeof(struct hot_result)))
            answer = run_batch(self, &run, timeout);
        PyBuffer_Release(&results);
    }
    PyBuffer_Release(&requests);
    return answer;
}
