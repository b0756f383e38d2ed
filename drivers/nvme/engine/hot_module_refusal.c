/* What the engine says when it refuses: where, what was seen against what was expected. */
#include "hot_module.h"

#include <stdarg.h>
#include <stdio.h>

/* PyErr_Format of Python 3.11 prints no 64-bit number in hexadecimal, so C writes the text. */
enum { LONGEST = 320 };

struct module_state *
state_of(PyObject *object)
{
    return PyType_GetModuleState(Py_TYPE(object));
}

static PyObject *
raise(Queue *self, PyObject *error, const char *text)
{
    if (self->name)
        PyErr_Format(error, "%U queue %u: %s", self->name, (unsigned)self->core.number, text);
    else
        PyErr_Format(error, "a queue that was never made: %s", text);
    return NULL;
}

PyObject *
refuse(Queue *self, const char *format, ...)
{
    char text[LONGEST];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    return raise(self, state_of((PyObject *)self)->register_value_error, text);
}

PyObject *
refuse_busy(Queue *self, const char *format, ...)
{
    char text[LONGEST];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof(text), format, values);
    va_end(values);
    return raise(self, state_of((PyObject *)self)->busy_error, text);
}

static void
say_count(const struct hot_queue *queue, const struct hot_request *request, char *text)
{
    uint32_t most = MOST_BLOCKS;
    if (request->opcode == 9)
        most = MOST_RANGES;
    else if (request->opcode & 3) /* it moves data */
        most = queue->last_namespace.most_blocks;
    snprintf(text, LONGEST, "%u %s, expected 1 to %u", request->blocks,
             request->opcode == 9 ? "ranges" : "blocks", most);
}

static void
say_wrong(const struct hot_queue *queue, const struct hot_request *request, enum hot_wrong wrong,
          char *text)
{
    unsigned long long lba = request->lba, data = request->data;
    switch (wrong) {
    case WRONG_OPCODE:
        snprintf(text, LONGEST, "opcode 0x%02x is no I/O command of requests; use submit_command",
                 request->opcode);
        break;
    case WRONG_FLAGS:
        snprintf(text, LONGEST, "flags 0x%02x and attributes 0x%x do not go with opcode 0x%02x",
                 request->flags, request->attributes, request->opcode);
        break;
    case WRONG_NAMESPACE:
        snprintf(text, LONGEST, "namespace %u is not set for this queue", request->namespace);
        break;
    case WRONG_COUNT:
        say_count(queue, request, text);
        break;
    case PAST_THE_END:
        snprintf(text, LONGEST, "%u blocks from %llu on reach past the end of namespace %u "
                 "(%llu blocks)", request->blocks, lba, request->namespace,
                 (unsigned long long)queue->last_namespace.blocks);
        break;
    case ODD_DATA:
        snprintf(text, LONGEST, "data at IOVA 0x%llx, expected a multiple of 4", data);
        break;
    default:
        snprintf(text, LONGEST, "data at IOVA 0x%llx (%u blocks or ranges) does not lie in the "
                 "controller's Memory", data, request->blocks);
    }
}

PyObject *
refuse_request(Queue *self, const struct hot_request *request, enum hot_wrong wrong, size_t index)
{
    char text[LONGEST] = "";
    say_wrong(&self->core, request, wrong, text);
    if (index == 0)
        return refuse(self, "request 0: %s", text);
    return refuse(self, "request %zu: %s; the %zu before it were submitted", index, text, index);
}

static void
say_breach(const struct hot_queue *queue, char *text)
{
    const struct hot_violation *seen = &queue->violation;
    bool ones = seen->id == 0xFFFF && seen->queue == 0xFFFF && seen->head == 0xFFFF;
    if (seen->breach == BREACH_ID)
        snprintf(text, LONGEST, "completion for command %u, which is not in flight (%u are)%s",
                 seen->id, hot_in_flight(queue), ones ? "; all ones: has the device gone?" : "");
    else if (seen->breach == BREACH_QUEUE)
        snprintf(text, LONGEST, "completion for a command of queue %u, expected queue %u",
                 seen->queue, queue->number);
    else
        snprintf(text, LONGEST, "completion with submission queue head %u, expected %u to %u of %u "
                 "entries", seen->head, seen->first, seen->last, queue->entries);
}

PyObject *
report_violation(Queue *self)
{
    struct hot_violation *seen = &self->core.violation;
    char text[LONGEST], whole[LONGEST + 80];
    say_breach(&self->core, text);
    snprintf(whole, sizeof(whole), "%s (entry %u); reset the controller", text, seen->index);
    seen->breach = NO_BREACH;
    return raise(self, state_of((PyObject *)self)->device_error, whole);
}
