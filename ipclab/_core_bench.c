/*
 * _core_bench.c: the bench's native loops for Python: Carrier and Counts.
 *
 * A loop runs without the GIL and comes back for every signal and twenty times a second (core/ticker.h), so that
 * Python's handlers run; unless one raises it then goes on where it was. While it runs the carrier is `busy`: another
 * thread that comes in, or closes it, is refused.
 */
#include "_core.h"

#include <errno.h>
#include <string.h>

#include "core/carrier.h"
#include "core/futex.h"
#include "core/loops.h"

#define MOST_NUMBERS 16

static PyTypeObject *counts_type; /* one interpreter per process */

/* --- Counts --- */

static PyStructSequence_Field counts_fields[] = {
	{"messages", "moved, and by a receiver verified"},
	{"duration_ns", "receivers: first to last message; others: the whole loop"},
	{"system_calls", "the mechanism's own"},
	{"sleeps", "how often this side went to sleep"},
	{"wakes", "calls made only to wake the other side"},
	{"bad_sequence", "of the first message that was not what it had to be; -1: none"},
	{NULL, NULL},
};

static PyStructSequence_Desc counts_description = {
	.name = "ipclab._core.Counts",
	.doc = "What one side of a loop did.",
	.fields = counts_fields,
	.n_in_sequence = 6,
};

static PyObject *counts_of(const struct loop *loop)
{
	const int64_t values[] = {(int64_t)loop->messages, loop->duration_ns, (int64_t)loop->system_calls,
				  (int64_t)loop->sleeps,   (int64_t)loop->wakes, loop->bad_sequence};
	PyObject *counts = PyStructSequence_New(counts_type), *number;

	for (int i = 0; counts && i < 6; i++) {
		number = PyLong_FromLongLong(values[i]);
		if (!number) {
			Py_CLEAR(counts);
			break;
		}
		PyStructSequence_SetItem(counts, i, number);
	}
	return counts;
}

/* --- Carrier --- */

typedef struct {
	PyObject_HEAD
	struct carrier *carrier; /* NULL before __init__ and after close */
	Py_buffer view;          /* view.obj NULL: no memory */
	int busy;                /* a loop runs without the GIL */
} CarrierObject;

struct numbers {
	struct carrier_number number[MOST_NUMBERS];
	PyObject *items; /* keeps the names */
	int count;
};

static int parse_numbers(PyObject *mapping, struct numbers *numbers)
{
	PyObject *name, *value;
	Py_ssize_t size;

	numbers->count = 0;
	numbers->items = PyMapping_Items(mapping);
	if (!numbers->items)
		return -1;
	size = PyList_Size(numbers->items);
	if (size > MOST_NUMBERS) {
		PyErr_SetString(PyExc_ValueError, "too many numbers for a carrier");
		return -1;
	}
	for (int i = 0; i < size; i++, numbers->count++) {
		if (!PyArg_ParseTuple(PyList_GetItem(numbers->items, i), "OO", &name, &value))
			return -1;
		numbers->number[i].name = PyUnicode_AsUTF8AndSize(name, NULL);
		numbers->number[i].value = PyLong_AsLongLong(value);
		if (!numbers->number[i].name || PyErr_Occurred())
			return -1;
	}
	return 0;
}

static int parse_fds(PyObject *tuple, int *fds)
{
	Py_ssize_t count = PyTuple_Size(tuple);

	if (count > CARRIER_FDS) {
		PyErr_Format(PyExc_ValueError, "a carrier has at most %d descriptors", CARRIER_FDS);
		return -1;
	}
	for (Py_ssize_t i = 0; i < count; i++) {
		fds[i] = (int)PyLong_AsLong(PyTuple_GetItem(tuple, i));
		if (fds[i] == -1 && PyErr_Occurred())
			return -1;
	}
	return (int)count;
}

/* posix-sem's memory is only read: names. All others write, so a read-only buffer is refused. */
static int get_memory(const char *kind, PyObject *buffer, Py_buffer *view)
{
	view->obj = NULL;
	if (buffer == Py_None)
		return 0;
	return PyObject_GetBuffer(buffer, view, strcmp(kind, "posix-sem") == 0 ? PyBUF_SIMPLE : PyBUF_WRITABLE);
}

static int open_carrier(CarrierObject *self, const char *kind, const int *fds, int fd_count, const struct numbers *numbers)
{
	const struct carrier_setup setup = {
		.fds = fds,
		.fd_count = fd_count,
		.memory = self->view.obj ? self->view.buf : NULL,
		.memory_bytes = self->view.obj ? (size_t)self->view.len : 0,
		.numbers = numbers->number,
		.number_count = numbers->count,
	};
	int rc;

	if (!carrier_kind_exists(kind)) {
		PyErr_Format(PyExc_ValueError, "there is no carrier of the kind '%s'", kind);
		return -1;
	}
	rc = carrier_open(&self->carrier, kind, &setup);
	if (rc == -EINVAL)
		PyErr_Format(PyExc_ValueError, "a descriptor, a number or the memory of this '%s' is missing or wrong", kind);
	else if (rc < 0)
		raise_os_error(rc, kind);
	return rc < 0 ? -1 : 0;
}

static void release_carrier(CarrierObject *self)
{
	struct carrier *carrier = self->carrier;

	self->carrier = NULL;
	carrier_close(carrier);
	if (self->view.obj)
		PyBuffer_Release(&self->view);
	self->view.obj = NULL;
}

static int Carrier_init(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"kind", "fds", "buffer", "numbers", NULL};
	CarrierObject *self = (CarrierObject *)object;
	PyObject *tuple, *buffer, *mapping;
	struct numbers numbers = {.items = NULL};
	int fds[CARRIER_FDS], fd_count, rc = -1;
	const char *kind;

	if (!PyArg_ParseTupleAndKeywords(args, names, "sO!OO", keywords, &kind, &PyTuple_Type, &tuple, &buffer,
					 &mapping))
		return -1;
	if (self->carrier || self->busy) {
		PyErr_SetString(PyExc_RuntimeError, "this Carrier is open already");
		return -1;
	}
	fd_count = parse_fds(tuple, fds);
	if (fd_count >= 0 && parse_numbers(mapping, &numbers) == 0 && get_memory(kind, buffer, &self->view) == 0)
		rc = open_carrier(self, kind, fds, fd_count, &numbers);
	Py_XDECREF(numbers.items);
	if (rc < 0)
		release_carrier(self);
	return rc;
}

static void Carrier_dealloc(PyObject *object)
{
	release_carrier((CarrierObject *)object);
	free_object(object);
}

static PyObject *Carrier_close(PyObject *object, PyObject *unused)
{
	CarrierObject *self = (CarrierObject *)object;

	(void)unused;
	if (self->busy) {
		PyErr_SetString(PyExc_RuntimeError, "a loop of this Carrier is running");
		return NULL;
	}
	release_carrier(self);
	Py_RETURN_NONE;
}

static PyObject *Carrier_get_kind(PyObject *object, void *unused)
{
	const struct carrier *carrier = ((CarrierObject *)object)->carrier;

	(void)unused;
	return PyUnicode_FromString(carrier ? carrier->calls->kind : "");
}

static PyObject *raise_with_counts(const struct loop *loop, int rc)
{
	PyObject *type, *error, *trace, *counts;

	raise_os_error(rc, loop->carrier->calls->kind);
	PyErr_Fetch(&type, &error, &trace);
	PyErr_NormalizeException(&type, &error, &trace);
	counts = counts_of(loop);
	if (counts && error)
		PyObject_SetAttrString(error, "counts", counts);
	Py_XDECREF(counts);
	PyErr_Restore(type, error, trace);
	return NULL;
}

/* Runs a loop to its end, with a rest for Python's signal handlers. */
static PyObject *run(struct loop *loop)
{
	int rc, raised = 0;

	do {
		Py_BEGIN_ALLOW_THREADS
		rc = loop_run(loop);
		Py_END_ALLOW_THREADS
		raised = rc == -EINTR && PyErr_CheckSignals() < 0;
	} while (rc == -EINTR && !raised);
	if (raised)
		return NULL;
	return rc < 0 ? raise_with_counts(loop, rc) : counts_of(loop);
}

static PyObject *raise_opening(const struct loop *loop, int rc)
{
	const struct carrier_calls *calls = loop->carrier->calls;

	if (rc == -EINVAL && calls->is_bell && loop->count)
		PyErr_Format(PyExc_ValueError, "%s carries no data: ping and pong only", calls->kind);
	else if (rc == -EINVAL)
		PyErr_SetString(PyExc_ValueError, "size and count are 1 or more, intervals 0 or more");
	else
		return raise_with_counts(loop, rc);
	return NULL;
}

static PyObject *open_and_run(CarrierObject *self, struct loop *loop)
{
	PyObject *result;
	int rc;

	if (!self->carrier || self->busy) {
		PyErr_SetString(PyExc_RuntimeError, self->busy ? "a loop of this Carrier is running" : "this Carrier is closed");
		return NULL;
	}
	loop->carrier = self->carrier;
	rc = loop_open(loop);
	if (rc < 0)
		return raise_opening(loop, rc);
	self->busy = 1;
	result = run(loop);
	self->busy = 0;
	loop_close(loop);
	return result;
}

/* --- the six loops --- */

struct arguments {
	long long size, count, first, start_ns, interval_ns, spin_ns;
	PyObject *deadline, *histogram;
};

static int deadline_of(PyObject *object, int64_t *deadline_ns)
{
	*deadline_ns = NO_DEADLINE;
	if (!object || object == Py_None)
		return 0;
	*deadline_ns = PyLong_AsLongLong(object);
	if (*deadline_ns == -1 && PyErr_Occurred())
		return -1;
	if (*deadline_ns < 0)
		*deadline_ns = 0; /* long ago */
	return 0;
}

static PyObject *run_pattern(PyObject *object, enum loop_pattern pattern, const struct arguments *given)
{
	struct loop loop = {.pattern = pattern};
	PyObject *result;

	if (deadline_of(given->deadline, &loop.deadline_ns) < 0)
		return NULL;
	if (given->size < 0 || given->count < 0 || given->first < 0) {
		PyErr_SetString(PyExc_ValueError, "size, count and first cannot be negative");
		return NULL;
	}
	loop.size = (size_t)given->size;
	loop.count = (uint64_t)given->count;
	loop.first = (uint64_t)given->first;
	loop.start_ns = given->start_ns;
	loop.interval_ns = given->interval_ns;
	loop.spin_ns = given->spin_ns;
	if (lend_histogram(given->histogram, &loop.histogram) < 0)
		return NULL;
	result = open_and_run((CarrierObject *)object, &loop);
	give_histogram_back(given->histogram);
	return result;
}

static PyObject *run_one_way(PyObject *object, PyObject *args, PyObject *names, enum loop_pattern pattern)
{
	static char *keywords[] = {"size", "count", "first", "deadline_ns", NULL};
	struct arguments given = {0};

	if (!PyArg_ParseTupleAndKeywords(args, names, "LL|LO", keywords, &given.size, &given.count, &given.first,
					 &given.deadline))
		return NULL;
	return run_pattern(object, pattern, &given);
}

static PyObject *Carrier_send(PyObject *object, PyObject *args, PyObject *names)
{
	return run_one_way(object, args, names, LOOP_SEND);
}

static PyObject *Carrier_receive(PyObject *object, PyObject *args, PyObject *names)
{
	return run_one_way(object, args, names, LOOP_RECEIVE);
}

static PyObject *Carrier_ping(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"size", "count", "histogram", "deadline_ns", "first", NULL};
	struct arguments given = {0};

	if (!PyArg_ParseTupleAndKeywords(args, names, "LL|OOL", keywords, &given.size, &given.count, &given.histogram,
					 &given.deadline, &given.first))
		return NULL;
	return run_pattern(object, LOOP_PING, &given);
}

static PyObject *Carrier_pong(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"size", "count", "deadline_ns", "first", NULL};
	struct arguments given = {0};

	if (!PyArg_ParseTupleAndKeywords(args, names, "LL|OL", keywords, &given.size, &given.count, &given.deadline,
					 &given.first))
		return NULL;
	return run_pattern(object, LOOP_PONG, &given);
}

static PyObject *Carrier_send_on_schedule(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"size", "count", "start_ns", "interval_ns", "first", "deadline_ns", "spin_ns", NULL};
	struct arguments given = {.spin_ns = 150000};

	if (!PyArg_ParseTupleAndKeywords(args, names, "LLLL|LOL", keywords, &given.size, &given.count, &given.start_ns,
					 &given.interval_ns, &given.first, &given.deadline, &given.spin_ns))
		return NULL;
	return run_pattern(object, LOOP_SEND_ON_SCHEDULE, &given);
}

static PyObject *Carrier_receive_on_schedule(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"size", "count", "start_ns", "interval_ns", "histogram", "first", "deadline_ns", NULL};
	struct arguments given = {0};

	if (!PyArg_ParseTupleAndKeywords(args, names, "LLLLO|LO", keywords, &given.size, &given.count, &given.start_ns,
					 &given.interval_ns, &given.histogram, &given.first, &given.deadline))
		return NULL;
	return run_pattern(object, LOOP_RECEIVE_ON_SCHEDULE, &given);
}

static PyMethodDef carrier_methods[] = {
	{"send", KEYWORDS(Carrier_send), METH_VARARGS | METH_KEYWORDS, NULL},
	{"receive", KEYWORDS(Carrier_receive), METH_VARARGS | METH_KEYWORDS, NULL},
	{"ping", KEYWORDS(Carrier_ping), METH_VARARGS | METH_KEYWORDS, NULL},
	{"pong", KEYWORDS(Carrier_pong), METH_VARARGS | METH_KEYWORDS, NULL},
	{"send_on_schedule", KEYWORDS(Carrier_send_on_schedule), METH_VARARGS | METH_KEYWORDS, NULL},
	{"receive_on_schedule", KEYWORDS(Carrier_receive_on_schedule), METH_VARARGS | METH_KEYWORDS, NULL},
	{"close", Carrier_close, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef carrier_properties[] = {
	{"kind", Carrier_get_kind, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot carrier_slot_table[] = {
	{Py_tp_doc, "One mechanism's way to move a message natively; core/carrier.h."},
	{Py_tp_init, Carrier_init},
	{Py_tp_dealloc, Carrier_dealloc},
	{Py_tp_methods, carrier_methods},
	{Py_tp_getset, carrier_properties},
	{0, NULL},
};

static PyType_Spec carrier_spec = {
	.name = "ipclab._core.Carrier",
	.basicsize = sizeof(CarrierObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = carrier_slot_table,
};

int add_bench(PyObject *module)
{
	if (!add_type(module, &carrier_spec))
		return -1;
	counts_type = PyStructSequence_NewType(&counts_description);
	if (!counts_type || PyModule_AddObjectRef(module, "Counts", (PyObject *)counts_type) < 0)
		return -1;
	return 0;
}
