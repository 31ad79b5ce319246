/*
 * _core_states.c: the states tracker for Python: Tracker, launch.
 *
 * Tracker.run keeps its thread inside the core, without the GIL, until stop(). All other methods may be called from
 * other threads meanwhile: the core has a lock of its own, and whoever waits for it has given the GIL up.
 */
#include "_core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/launch.h"
#include "core/procevent.h"
#include "core/tracefs.h"
#include "core/tracker.h"

#define TRACED_FILES 4096 /* raw files of all CPUs and instances */

/* --- Tracker --- */

typedef struct {
	PyObject_HEAD
	struct tracker *tracker; /* NULL before __init__ and after close */
	int running;             /* a thread is in run() */
} TrackerObject;

static int Tracker_init(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"period_ns", "follow", "fds_most", NULL};
	TrackerObject *self = (TrackerObject *)object;
	long long period_ns;
	int follow, fds_most, rc;

	if (!PyArg_ParseTupleAndKeywords(args, names, "Lpi", keywords, &period_ns, &follow, &fds_most))
		return -1;
	if (period_ns < 0 || self->tracker) {
		PyErr_SetString(PyExc_ValueError, self->tracker ? "this Tracker is open already" : "a period is 0 or more");
		return -1;
	}
	rc = tracker_open(&self->tracker, period_ns, follow, fds_most);
	if (rc < 0)
		raise_os_error(rc, "eventfd");
	return rc < 0 ? -1 : 0;
}

static void Tracker_dealloc(PyObject *object)
{
	tracker_close(((TrackerObject *)object)->tracker);
	free_object(object);
}

static struct tracker *opened(PyObject *object)
{
	struct tracker *tracker = ((TrackerObject *)object)->tracker;

	if (!tracker)
		PyErr_SetString(PyExc_RuntimeError, "this Tracker is closed");
	return tracker;
}

static PyObject *Tracker_close(PyObject *object, PyObject *unused)
{
	TrackerObject *self = (TrackerObject *)object;

	(void)unused;
	if (self->running) {
		PyErr_SetString(PyExc_RuntimeError, "this Tracker runs: stop it first");
		return NULL;
	}
	tracker_close(self->tracker);
	self->tracker = NULL;
	Py_RETURN_NONE;
}

static PyObject *Tracker_use_switch(PyObject *object, PyObject *unused)
{
	struct tracker *tracker = opened(object);
	size_t bytes;
	int rc, rings;

	(void)unused;
	if (!tracker)
		return NULL;
	rc = tracker_use_switch(tracker);
	if (rc < 0)
		return raise_os_error(rc, rc == -ENOBUFS ? "mmap" : "perf_event_open");
	bytes = switcher_ring_bytes(tracker->switcher, &rings);
	return Py_BuildValue("ni", (Py_ssize_t)bytes, rings);
}

/* Whole numbers of a tuple into an array; 0, or -1 with an exception set. */
static int integers_of(PyObject *tuple, int *into, Py_ssize_t most, const char *what)
{
	if (PyTuple_Size(tuple) > most) {
		PyErr_Format(PyExc_ValueError, "too many %s", what);
		return -1;
	}
	for (Py_ssize_t i = 0; i < PyTuple_Size(tuple); i++) {
		into[i] = (int)PyLong_AsLong(PyTuple_GetItem(tuple, i));
		if (into[i] == -1 && PyErr_Occurred())
			return -1;
	}
	return 0;
}

#define LAYOUT_NUMBERS (4 + 4 * TRACED)

static PyObject *Tracker_use_trace(PyObject *object, PyObject *args)
{
	struct tracker *tracker = opened(object);
	PyObject *numbers, *fd_tuple, *cpu_tuple;
	int number[LAYOUT_NUMBERS], fds[TRACED_FILES], cpus[TRACED_FILES], rc;
	struct trace_layout layout;

	if (!tracker || !PyArg_ParseTuple(args, "O!O!O!", &PyTuple_Type, &numbers, &PyTuple_Type, &fd_tuple,
					  &PyTuple_Type, &cpu_tuple))
		return NULL;
	if (PyTuple_Size(numbers) != LAYOUT_NUMBERS || PyTuple_Size(fd_tuple) != PyTuple_Size(cpu_tuple)) {
		PyErr_SetString(PyExc_ValueError, "that is no layout of trace events");
		return NULL;
	}
	if (integers_of(numbers, number, LAYOUT_NUMBERS, "numbers") < 0 ||
	    integers_of(fd_tuple, fds, TRACED_FILES, "files") < 0 || integers_of(cpu_tuple, cpus, TRACED_FILES, "CPUs") < 0)
		return NULL;
	layout.page_bytes = number[0];
	layout.commit_at = number[1];
	layout.data_at = number[2];
	layout.common_pid_at = number[3];
	for (int i = 0; i < TRACED; i++) {
		layout.event[i].id = number[4 + 4 * i];
		for (int j = 0; j < 3; j++)
			layout.event[i].at[j] = number[4 + 4 * i + 1 + j];
	}
	if (layout.page_bytes < 64 || layout.data_at < 8 || layout.commit_at < 8 || layout.data_at > layout.page_bytes) {
		PyErr_SetString(PyExc_ValueError, "that is no page of a trace buffer");
		return NULL;
	}
	rc = tracker_use_trace(tracker, &layout, fds, cpus, (int)PyTuple_Size(fd_tuple));
	if (rc < 0)
		return raise_os_error(rc, "malloc");
	Py_RETURN_NONE;
}

static PyObject *Tracker_use_events(PyObject *object, PyObject *argument)
{
	struct tracker *tracker = opened(object);
	int fd = (int)PyLong_AsLong(argument);

	if (!tracker || (fd == -1 && PyErr_Occurred()))
		return NULL;
	tracker_use_events(tracker, fd);
	Py_RETURN_NONE;
}

static PyObject *Tracker_add(PyObject *object, PyObject *args)
{
	struct tracker *tracker = opened(object);
	unsigned long long start_ticks = 0;
	int pid, named = 1, rc;

	if (!tracker || !PyArg_ParseTuple(args, "i|Kp", &pid, &start_ticks, &named))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = tracker_add(tracker, pid, start_ticks, named);
	Py_END_ALLOW_THREADS
	if (rc < 0)
		return raise_os_error(rc, "openat");
	Py_RETURN_NONE;
}

static PyObject *Tracker_tell_exit(PyObject *object, PyObject *args)
{
	struct tracker *tracker = opened(object);
	int pid, status;

	if (!tracker || !PyArg_ParseTuple(args, "ii", &pid, &status))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	tracker_tell_exit(tracker, pid, status);
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyObject *Tracker_run(PyObject *object, PyObject *args)
{
	TrackerObject *self = (TrackerObject *)object;
	struct tracker *tracker = opened(object);
	long long deadline_ns = -1;

	if (!tracker || !PyArg_ParseTuple(args, "|L", &deadline_ns))
		return NULL;
	if (self->running) {
		PyErr_SetString(PyExc_RuntimeError, "this Tracker runs already");
		return NULL;
	}
	self->running = 1;
	Py_BEGIN_ALLOW_THREADS
	tracker_run(tracker, deadline_ns);
	Py_END_ALLOW_THREADS
	self->running = 0;
	Py_RETURN_NONE;
}

/* A call of the core that returns nothing and may wait for its lock. */
static PyObject *without_gil(PyObject *object, void (*call)(struct tracker *))
{
	struct tracker *tracker = opened(object);

	if (!tracker)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	call(tracker);
	Py_END_ALLOW_THREADS
	Py_RETURN_NONE;
}

static PyObject *Tracker_round(PyObject *object, PyObject *unused)
{
	(void)unused;
	return without_gil(object, tracker_round);
}

static PyObject *Tracker_stop(PyObject *object, PyObject *unused)
{
	(void)unused;
	return without_gil(object, tracker_stop);
}

static PyObject *Tracker_finish(PyObject *object, PyObject *unused)
{
	(void)unused;
	return without_gil(object, tracker_finish);
}

static PyObject *spans_as_bytes(PyObject *object, struct span *(*call)(struct tracker *, size_t *))
{
	struct tracker *tracker = opened(object);
	struct span *spans;
	PyObject *bytes;
	size_t count;

	if (!tracker)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	spans = call(tracker, &count);
	Py_END_ALLOW_THREADS
	bytes = PyBytes_FromStringAndSize((const char *)spans, spans ? (Py_ssize_t)(count * sizeof *spans) : 0);
	free(spans);
	return bytes;
}

static PyObject *Tracker_spans(PyObject *object, PyObject *unused)
{
	(void)unused;
	return spans_as_bytes(object, tracker_take_spans);
}

static PyObject *Tracker_open_spans(PyObject *object, PyObject *unused)
{
	(void)unused;
	return spans_as_bytes(object, tracker_copy_open);
}

static PyObject *Tracker_facts(PyObject *object, PyObject *unused)
{
	struct tracker *tracker = opened(object);
	struct facts *facts;
	PyObject *bytes;
	size_t count;

	(void)unused;
	if (!tracker)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	facts = tracker_take_facts(tracker, &count);
	Py_END_ALLOW_THREADS
	if (!facts)
		return PyErr_NoMemory();
	bytes = PyBytes_FromStringAndSize((const char *)facts, (Py_ssize_t)(count * sizeof *facts));
	free(facts);
	return bytes;
}

static PyObject *Tracker_names(PyObject *object, PyObject *argument)
{
	struct tracker *tracker = opened(object);
	Py_ssize_t from = PyLong_AsSsize_t(argument);
	PyObject *list, *name;
	int rc = 0;

	if (!tracker || (from == -1 && PyErr_Occurred()))
		return NULL;
	list = PyList_New(0);
	Py_BEGIN_ALLOW_THREADS
	tracker_lock(tracker);
	Py_END_ALLOW_THREADS
	for (size_t i = from < 0 ? 0 : (size_t)from; list && rc == 0 && i < tracker->all.names_count; i++) {
		name = PyUnicode_DecodeUTF8(tracker->all.names[i], (Py_ssize_t)strlen(tracker->all.names[i]), "replace");
		rc = name ? PyList_Append(list, name) : -1;
		Py_XDECREF(name);
	}
	tracker_unlock(tracker);
	if (rc < 0)
		Py_CLEAR(list);
	return list;
}

static PyObject *Tracker_numbers(PyObject *object, PyObject *unused)
{
	struct tracker *tracker = opened(object);
	struct tracker_numbers n;

	(void)unused;
	if (!tracker)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	tracker_count(tracker, &n);
	Py_END_ALLOW_THREADS
	return Py_BuildValue("{sK sK sK sK sK sK sK sK sK sK sK sK sK sK sK sK sL sL sL sL sL sL}", "rounds", n.rounds, "late",
			     n.late, "looks", n.looks, "stat_reads", n.stat_reads, "schedstat_reads", n.schedstat_reads,
			     "reopened", n.reopened, "spans_cut", n.spans_cut, "spans_lost", n.spans_lost, "events",
			     n.events, "events_lost", n.events_lost, "missing", n.missing, "late_events", n.late_events,
			     "unseen", n.unseen, "unattached", n.unattached,
			     "named_alive", n.named_alive, "alive", n.alive, "cpu_ns", (long long)n.cpu_ns, "begun_ns",
			     (long long)n.begun_ns, "now_ns", (long long)n.now_ns, "broke_ns", (long long)n.broke_ns,
			     "broke_error", (long long)n.broke_error, "attach_error", (long long)n.attach_error);
}

static PyMethodDef tracker_methods[] = {
	{"use_switch", Tracker_use_switch, METH_NOARGS, NULL},
	{"use_trace", Tracker_use_trace, METH_VARARGS, NULL},
	{"use_events", Tracker_use_events, METH_O, NULL},
	{"add", Tracker_add, METH_VARARGS, NULL},
	{"tell_exit", Tracker_tell_exit, METH_VARARGS, NULL},
	{"run", Tracker_run, METH_VARARGS, NULL},
	{"round", Tracker_round, METH_NOARGS, NULL},
	{"stop", Tracker_stop, METH_NOARGS, NULL},
	{"finish", Tracker_finish, METH_NOARGS, NULL},
	{"close", Tracker_close, METH_NOARGS, NULL},
	{"spans", Tracker_spans, METH_NOARGS, NULL},
	{"open_spans", Tracker_open_spans, METH_NOARGS, NULL},
	{"facts", Tracker_facts, METH_NOARGS, NULL},
	{"names", Tracker_names, METH_O, NULL},
	{"numbers", Tracker_numbers, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot tracker_slots[] = {
	{Py_tp_doc, "Follows processes and turns what the kernel tells of them into intervals; core/tracker.h."},
	{Py_tp_init, Tracker_init},
	{Py_tp_dealloc, Tracker_dealloc},
	{Py_tp_methods, tracker_methods},
	{0, NULL},
};

static PyType_Spec tracker_spec = {
	.name = "ipclab._core.Tracker",
	.basicsize = sizeof(TrackerObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = tracker_slots,
};

/* --- launch --- */

/* A NULL-terminated vector of the bytes in a tuple, which keeps them; PyMem_Free it. */
static char **vector_of(PyObject *tuple)
{
	Py_ssize_t count = PyTuple_Size(tuple);
	char **vector = count < 0 ? NULL : PyMem_Calloc((size_t)count + 1, sizeof *vector);

	for (Py_ssize_t i = 0; vector && i < count; i++) {
		vector[i] = PyBytes_AsString(PyTuple_GetItem(tuple, i));
		if (!vector[i]) {
			PyMem_Free(vector);
			return NULL;
		}
	}
	if (!vector && !PyErr_Occurred())
		PyErr_NoMemory();
	return vector;
}

static PyObject *py_launch(PyObject *module, PyObject *args)
{
	PyObject *arguments, *environment;
	struct launch what = {.files_set = 1};
	unsigned long long soft, hard;
	int release_fd = -1, failed_fd = -1, code = 0;
	char **argv, **envp;
	pid_t pid;

	(void)module;
	if (!PyArg_ParseTuple(args, "yO!O!KK", &what.path, &PyTuple_Type, &arguments, &PyTuple_Type, &environment, &soft,
			      &hard))
		return NULL;
	argv = vector_of(arguments);
	envp = argv ? vector_of(environment) : NULL;
	if (!envp) {
		PyMem_Free(argv);
		return NULL;
	}
	what.argv = argv;
	what.envp = envp;
	what.files = (struct rlimit){.rlim_cur = (rlim_t)soft, .rlim_max = (rlim_t)hard};
	pid = launch(&what, &release_fd, &failed_fd, &code);
	if (pid == 0)
		_exit(code); /* the child, and its program cannot be run */
	PyMem_Free(argv);
	PyMem_Free(envp);
	if (pid < 0)
		return raise_os_error(pid, "fork");
	return Py_BuildValue("iii", (int)pid, release_fd, failed_fd);
}

static PyObject *py_procevents_open(PyObject *module, PyObject *unused)
{
	int fd;

	(void)module, (void)unused;
	Py_BEGIN_ALLOW_THREADS
	fd = procevents_open();
	Py_END_ALLOW_THREADS
	return fd < 0 ? raise_os_error(fd, "bind") : PyLong_FromLong(fd);
}

static PyObject *py_tracefs_open(PyObject *module, PyObject *unused)
{
	int fd = tracefs_open();

	(void)module, (void)unused;
	return fd < 0 ? raise_os_error(fd, "fsopen") : PyLong_FromLong(fd);
}

static PyMethodDef functions[] = {
	{"procevents_open", py_procevents_open, METH_NOARGS, NULL},
	{"tracefs_open", py_tracefs_open, METH_NOARGS, NULL},
	{"launch", py_launch, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

int add_states(PyObject *module)
{
	static PyTypeObject *tracker_type;

	tracker_type = add_type(module, &tracker_spec);
	return tracker_type ? PyModule_AddFunctions(module, functions) : -1;
}
