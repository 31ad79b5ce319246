/*
 * _core_gmp.c: the scheduler for Python: Sched, one run of script Gs, one that is looked at, or a copy of one.
 *
 * The template and the Ms are forked from this process and never come back to Python: they run the core until they end.
 * What they must not inherit is the interpreter's way with signals: its handlers only set flags that nobody would read.
 *
 * wait and stop give the GIL up. While a thread is in one of them the others are refused what would pull the segment
 * from under it; looking is allowed.
 */
#include "_core_gmp.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/futex.h"
#include "core/gmp/observe.h"
#include "core/gmp/schedtrace.h"

#define EVENTS_MOST 8192u
#define PROGRAM_MOST 1000000

typedef struct {
	PyObject_HEAD
	struct gmp rt;
	int open;    /* rt has a segment */
	int busy;    /* threads that are in the core without the GIL */
	int observer; /* mapped read-only, or a copy */
	pid_t owner; /* a forked child has the mapping and owns nothing */
} SchedObject;

static PyTypeObject *sched_type;

/* --- processes --- */

/* In a child: Python's handlers go; Ctrl-C is the caller's business, who ends the run. */
static void forget_handlers(void)
{
	struct sigaction action;

	for (int signo = 1; signo < NSIG; signo++) {
		if (sigaction(signo, NULL, &action) < 0 || (!(action.sa_flags & SA_SIGINFO) && action.sa_handler == SIG_IGN))
			continue;
		memset(&action, 0, sizeof action);
		action.sa_handler = signo == SIGINT ? SIG_IGN : SIG_DFL;
		sigaction(signo, &action, NULL);
	}
}

static pid_t fork_core(void)
{
	static int forgotten; /* in the template, and so in its Ms */
	pid_t pid = fork();

	if (pid == 0 && !forgotten) {
		forget_handlers();
		forgotten = 1;
	}
	return pid;
}

static const struct gmp_hooks hooks = {.fork = fork_core, .end = _exit};

/* --- birth and end --- */

static int Sched_init(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"procs", "model", "seed", "eventslots", "maxg", "maxm", "programs", "steps", "chans",
				   "semas", "words", "randomize", "nopreempt", "mainends", NULL};
	SchedObject *self = (SchedObject *)object;
	struct gmp_config config = {.tracking = 1, .hooks = hooks};
	unsigned long long seed = 0;
	int randomize = 0, nopreempt = 0, mainends = 0, rc;

	if (!PyArg_ParseTupleAndKeywords(args, names, "|$IIKIIIIIIIIppp", keywords, &config.procs, &config.model, &seed,
					 &config.eventslots, &config.maxg, &config.maxm, &config.programs, &config.steps,
					 &config.chans, &config.semas, &config.words, &randomize, &nopreempt, &mainends))
		return -1;
	if (self->open) {
		PyErr_SetString(PyExc_RuntimeError, "this Sched is open already");
		return -1;
	}
	config.seed = seed;
	config.randomize = (uint32_t)randomize;
	config.nopreempt = (uint32_t)nopreempt;
	config.mainends = (uint32_t)mainends;
	rc = gmp_create(&self->rt, &config);
	if (rc < 0) {
		raise_os_error(rc, "gmp_create");
		return -1;
	}
	self->open = 1;
	self->owner = getpid();
	return 0;
}

static void release(SchedObject *self)
{
	if (!self->open)
		return;
	self->open = 0;
	if (self->owner != getpid()) /* a child of the caller: only what is its own */
		self->rt.template = 0;
	gmp_destroy(&self->rt);
}

static void Sched_dealloc(PyObject *object)
{
	release((SchedObject *)object);
	free_object(object);
}

static struct gmp *opened(PyObject *object)
{
	SchedObject *self = (SchedObject *)object;

	if (self->open)
		return &self->rt;
	PyErr_SetString(PyExc_RuntimeError, "this Sched is closed");
	return NULL;
}

/* The same for what changes it: by its owner alone, and while no thread is in the core. */
static struct gmp *owned(PyObject *object)
{
	SchedObject *self = (SchedObject *)object;

	if (!opened(object))
		return NULL;
	if (!self->observer && !self->busy && self->owner == getpid())
		return &self->rt;
	PyErr_SetString(PyExc_RuntimeError, self->observer ? "this Sched is only looked at"
					    : self->busy ? "another thread is in this Sched"
							 : "this Sched belongs to another process");
	return NULL;
}

static PyObject *Sched_close(PyObject *object, PyObject *unused)
{
	SchedObject *self = (SchedObject *)object;

	(void)unused;
	if (self->busy) {
		PyErr_SetString(PyExc_RuntimeError, "another thread is in this Sched");
		return NULL;
	}
	release(self);
	Py_RETURN_NONE;
}

static PyObject *new_observer(void)
{
	allocfunc allocate = PyType_GetSlot(sched_type, Py_tp_alloc);
	PyObject *object = allocate(sched_type, 0);

	if (object) {
		((SchedObject *)object)->observer = 1;
		((SchedObject *)object)->owner = getpid();
	}
	return object;
}

static PyObject *Sched_attach(PyObject *type, PyObject *args)
{
	PyObject *object;
	int fd, rc;

	(void)type;
	if (!PyArg_ParseTuple(args, "i", &fd))
		return NULL;
	object = new_observer();
	if (!object)
		return NULL;
	rc = gmp_attach(&((SchedObject *)object)->rt, fd);
	if (rc < 0) {
		Py_DECREF(object);
		return raise_os_error(rc, "gmp_attach");
	}
	((SchedObject *)object)->open = 1;
	return object;
}

static PyObject *Sched_copy(PyObject *object, PyObject *args)
{
	struct gmp *rt = opened(object);
	PyObject *copy;
	unsigned int most;
	int rc;

	if (!rt || !PyArg_ParseTuple(args, "I", &most))
		return NULL;
	copy = new_observer();
	if (!copy)
		return NULL;
	rc = gmp_copy(&((SchedObject *)copy)->rt, rt, most);
	if (rc < 0) {
		Py_DECREF(copy);
		return raise_os_error(rc, "mmap");
	}
	((SchedObject *)copy)->open = 1;
	return copy;
}

static PyObject *Sched_observe(PyObject *object, PyObject *args)
{
	SchedObject *self = (SchedObject *)object, *copy;
	struct gmp *rt = opened(object);
	PyObject *timeout_ns = Py_None, *made;
	struct observed told;
	int64_t deadline_ns;
	unsigned int most;
	int rc, raised;

	if (!rt || !PyArg_ParseTuple(args, "IO", &most, &timeout_ns) || deadline_of_ns(timeout_ns, &deadline_ns) < 0)
		return NULL;
	if (rt->segment.fd < 0) {
		PyErr_SetString(PyExc_RuntimeError, "this Sched is a copy");
		return NULL;
	}
	made = new_observer();
	if (!made)
		return NULL;
	copy = (SchedObject *)made;
	self->busy++;
	do {
		Py_BEGIN_ALLOW_THREADS
		rc = gmp_observe(&copy->rt, rt, most, deadline_ns, &told);
		Py_END_ALLOW_THREADS
		raised = rc == -EINTR && PyErr_CheckSignals() < 0;
	} while (rc == -EINTR && !raised);
	self->busy--;
	copy->open = rc >= 0;
	if (rc < 0 || raised) {
		Py_DECREF(made);
		return raised ? NULL : raise_os_error(rc, "mmap");
	}
	return Py_BuildValue("NNNLIi", made, PyBool_FromLong(told.consistent), PyBool_FromLong(told.held),
			     (long long)told.stopped_ns, told.inside, -told.error);
}

/* --- the work --- */

static PyObject *index_or_error(int rc, const char *call)
{
	return rc < 0 ? raise_os_error(rc, call) : PyLong_FromLong(rc);
}

static PyObject *Sched_chan(PyObject *object, PyObject *args)
{
	struct gmp *rt = owned(object);
	unsigned int capacity;

	if (!rt || !PyArg_ParseTuple(args, "I", &capacity))
		return NULL;
	return index_or_error(gmp_chan(rt, capacity), "gmp_chan");
}

static PyObject *Sched_sema(PyObject *object, PyObject *args)
{
	struct gmp *rt = owned(object);
	unsigned int value = 0;

	if (!rt || !PyArg_ParseTuple(args, "|I", &value))
		return NULL;
	return index_or_error(gmp_sema(rt, value), "gmp_sema");
}

static int parse_step(PyObject *item, struct step *step)
{
	long long b;

	if (!PyTuple_Check(item)) {
		PyErr_SetString(PyExc_TypeError, "a step is a tuple (op, a, b)");
		return -1;
	}
	if (!PyArg_ParseTuple(item, "IIL", &step->op, &step->a, &b))
		return -1;
	step->b = b;
	return 0;
}

static PyObject *Sched_program(PyObject *object, PyObject *list)
{
	struct gmp *rt = owned(object);
	Py_ssize_t n = rt ? PySequence_Size(list) : -1;
	struct step *steps;
	int rc = 0;

	if (n < 0)
		return NULL;
	if (n > PROGRAM_MOST)
		return raise_os_error(-ENOSPC, "gmp_program");
	steps = calloc((size_t)n + 1, sizeof *steps);
	if (!steps)
		return PyErr_NoMemory();
	for (Py_ssize_t i = 0; i < n && rc == 0; i++) {
		PyObject *item = PySequence_GetItem(list, i);

		rc = item ? parse_step(item, &steps[i]) : -1;
		Py_XDECREF(item);
	}
	if (rc == 0)
		rc = gmp_program(rt, steps, (uint32_t)n);
	free(steps);
	return PyErr_Occurred() ? NULL : index_or_error(rc, "gmp_program");
}

static PyObject *Sched_start(PyObject *object, PyObject *args)
{
	struct gmp *rt = owned(object);
	unsigned int program;
	uint32_t wrong = UINT32_MAX;
	int rc;

	if (!rt || !PyArg_ParseTuple(args, "I", &program))
		return NULL;
	rc = gmp_start(rt, program, &wrong);
	if (rc == -EINVAL && wrong != UINT32_MAX) {
		PyErr_Format(PyExc_ValueError, "step %u of program %u is wrong", wrong & 0xffff, wrong >> 16);
		return NULL;
	}
	if (rc < 0)
		return raise_os_error(rc, "gmp_start");
	Py_RETURN_NONE;
}

/* --- waiting, changing, ending --- */

static PyObject *Sched_wait(PyObject *object, PyObject *args)
{
	SchedObject *self = (SchedObject *)object;
	struct gmp *rt = owned(object);
	PyObject *timeout_ns = Py_None;
	int64_t deadline_ns;
	int rc, raised = 0;

	if (!rt || !PyArg_ParseTuple(args, "|O", &timeout_ns) || deadline_of_ns(timeout_ns, &deadline_ns) < 0)
		return NULL;
	self->busy++;
	do {
		Py_BEGIN_ALLOW_THREADS
		rc = gmp_wait(rt, deadline_ns);
		Py_END_ALLOW_THREADS
		raised = rc == -EINTR && PyErr_CheckSignals() < 0;
	} while (rc == -EINTR && !raised);
	self->busy--;
	if (raised)
		return NULL;
	if (rc == -ETIMEDOUT)
		return PyLong_FromLong(FATAL_NONE);
	return index_or_error(rc, "waitpid");
}

static PyObject *Sched_set_procs(PyObject *object, PyObject *args)
{
	SchedObject *self = (SchedObject *)object;
	struct gmp *rt = owned(object);
	unsigned int procs;
	int rc;

	if (!rt || !PyArg_ParseTuple(args, "I", &procs))
		return NULL;
	self->busy++;
	Py_BEGIN_ALLOW_THREADS
	rc = gmp_set_procs(rt, procs);
	Py_END_ALLOW_THREADS
	self->busy--;
	if (rc < 0)
		return raise_os_error(rc, "gmp_set_procs");
	Py_RETURN_NONE;
}

static PyObject *Sched_stop(PyObject *object, PyObject *unused)
{
	SchedObject *self = (SchedObject *)object;
	struct gmp *rt = owned(object);

	(void)unused;
	if (!rt)
		return NULL;
	self->busy++;
	Py_BEGIN_ALLOW_THREADS
	gmp_stop(rt);
	Py_END_ALLOW_THREADS
	self->busy--;
	Py_RETURN_NONE;
}

/* --- looking --- */

static PyObject *Sched_tally(PyObject *object, PyObject *args)
{
	struct gmp *rt = opened(object);
	unsigned int program;
	struct tally t;

	if (!rt || !PyArg_ParseTuple(args, "I", &program))
		return NULL;
	if (program >= rt->s->nprograms) {
		PyErr_Format(PyExc_IndexError, "there is no program %u", program);
		return NULL;
	}
	t = gmp_tally(rt, program);
	return Py_BuildValue("KKKKLLLL", (unsigned long long)t.spawned, (unsigned long long)t.done,
			     (unsigned long long)load_relaxed(&rt->programs[program].lost), (unsigned long long)t.acc,
			     (long long)t.turnaround, (long long)t.response, (long long)t.waiting, (long long)t.lastend);
}

static PyObject *Sched_events(PyObject *object, PyObject *args)
{
	struct gmp *rt = opened(object);
	unsigned long long from;
	uint64_t at, lost = 0;
	struct event *into;
	PyObject *result;
	unsigned int m, n = 0;

	if (!rt || !PyArg_ParseTuple(args, "IK", &m, &from))
		return NULL;
	if (!m || m >= rt->s->maxmcount) {
		PyErr_Format(PyExc_IndexError, "there is no M %u", m);
		return NULL;
	}
	into = malloc(EVENTS_MOST * sizeof *into);
	if (!into)
		return PyErr_NoMemory();
	at = from;
	if (rt->segment.fd >= 0) /* a copy has no rings */
		n = eventsRead(rt, m, &at, into, EVENTS_MOST, &lost);
	result = Py_BuildValue("y#KK", (const char *)into, (Py_ssize_t)(n * sizeof *into), (unsigned long long)at,
			       (unsigned long long)lost);
	free(into);
	return result;
}

static PyObject *Sched_clock(PyObject *object, PyObject *unused)
{
	struct gmp *rt = opened(object);

	(void)unused;
	if (!rt)
		return NULL;
	return Py_BuildValue("KLKL", (unsigned long long)rt->s->startticks, (long long)rt->s->starttime,
			     (unsigned long long)cputicks(), (long long)monotonic_ns());
}

static PyObject *Sched_fatal(PyObject *object, PyObject *unused)
{
	struct gmp *rt = opened(object);
	uint32_t why;
	char text[sizeof rt->s->fataltext + 1] = "";

	(void)unused;
	if (!rt)
		return NULL;
	why = load_seq_cst(&rt->s->fatal);
	if (why == UINT32_MAX)
		why = FATAL_NONE;
	if (why)
		memcpy(text, rt->s->fataltext, sizeof rt->s->fataltext);
	return Py_BuildValue("IKs", why, (unsigned long long)load_relaxed(&rt->s->fatalarg), text);
}

static PyObject *Sched_lost(PyObject *object, PyObject *unused)
{
	struct gmp *rt = opened(object);
	uint64_t count, kept;
	PyObject *goids;

	(void)unused;
	if (!rt)
		return NULL;
	count = load_seq_cst(&rt->s->lostgs);
	kept = count < GMP_LOST_KEPT ? count : GMP_LOST_KEPT;
	goids = PyList_New(0);
	for (uint64_t i = count - kept; goids && i < count; i++) {
		PyObject *goid = PyLong_FromUnsignedLongLong(load_relaxed(&rt->s->lostgoids[i % GMP_LOST_KEPT]));

		if (!goid || PyList_Append(goids, goid) < 0)
			Py_CLEAR(goids);
		Py_XDECREF(goid);
	}
	return goids ? Py_BuildValue("KN", (unsigned long long)count, goids) : NULL;
}

static PyObject *Sched_schedtrace(PyObject *object, PyObject *args)
{
	struct gmp *rt = opened(object);
	int detailed = 0;
	PyObject *text;
	size_t size = 65536;
	int64_t length;
	char *into = NULL;

	if (!rt || !PyArg_ParseTuple(args, "|p", &detailed))
		return NULL;
	do { /* it may grow between two calls */
		char *more = realloc(into, size);

		if (!more) {
			free(into);
			return PyErr_NoMemory();
		}
		into = more;
		length = schedtrace(rt, detailed, into, size);
		if (length < 0 || (size_t)length < size)
			break;
		size = (size_t)length + size;
	} while (1);
	text = length < 0 ? raise_os_error((int)length, "schedtrace") : PyUnicode_FromStringAndSize(into, (Py_ssize_t)length);
	free(into);
	return text;
}

static PyObject *Sched_usage(PyObject *object, PyObject *unused)
{
	struct gmp *rt = opened(object);
	const struct rusage *used = rt ? &rt->usage : NULL;

	(void)unused;
	if (!rt)
		return NULL;
	return Py_BuildValue("LLll", (long long)used->ru_utime.tv_sec * NS_PER_S + used->ru_utime.tv_usec * 1000LL,
			     (long long)used->ru_stime.tv_sec * NS_PER_S + used->ru_stime.tv_usec * 1000LL, used->ru_nvcsw,
			     used->ru_nivcsw);
}

static PyObject *Sched_fd(PyObject *object, PyObject *unused)
{
	struct gmp *rt = opened(object);

	(void)unused;
	return rt ? PyLong_FromLong(rt->segment.fd) : NULL;
}

static PyObject *Sched_left_out(PyObject *object, PyObject *unused)
{
	struct gmp *rt = opened(object);

	(void)unused;
	return rt ? PyLong_FromUnsignedLong(rt->leftout) : NULL;
}

static PyObject *Sched_sched(PyObject *object, PyObject *unused)
{
	struct gmp *rt = opened(object);

	(void)unused;
	return rt ? sched_fields(rt) : NULL;
}

/* f(index) -> dict */
static PyObject *by_index(PyObject *object, PyObject *args, PyObject *(*read)(struct gmp *, uint32_t))
{
	struct gmp *rt = opened(object);
	unsigned int index;

	if (!rt || !PyArg_ParseTuple(args, "I", &index))
		return NULL;
	return read(rt, index);
}

static PyObject *Sched_p(PyObject *object, PyObject *args)
{
	return by_index(object, args, p_fields);
}

static PyObject *Sched_runq(PyObject *object, PyObject *args)
{
	return by_index(object, args, p_runq);
}

static PyObject *Sched_m(PyObject *object, PyObject *args)
{
	return by_index(object, args, m_fields);
}

static PyObject *Sched_g(PyObject *object, PyObject *args)
{
	return by_index(object, args, g_fields);
}

static PyObject *Sched_chan_fields(PyObject *object, PyObject *args)
{
	return by_index(object, args, chan_fields);
}

static PyObject *Sched_sema_fields(PyObject *object, PyObject *args)
{
	return by_index(object, args, sema_fields);
}

static PyObject *Sched_members(PyObject *object, PyObject *args)
{
	struct gmp *rt = opened(object);
	unsigned int first, most;
	const char *kind;

	if (!rt || !PyArg_ParseTuple(args, "sII", &kind, &first, &most))
		return NULL;
	return list_members(rt, kind, first, most);
}

static PyObject *py_gmp_cpus(PyObject *module, PyObject *unused)
{
	(void)module, (void)unused;
	return PyLong_FromUnsignedLong(gmp_cpus());
}

static PyObject *py_event_name(PyObject *module, PyObject *args)
{
	unsigned int kind;

	(void)module;
	if (!PyArg_ParseTuple(args, "I", &kind))
		return NULL;
	return PyUnicode_FromString(eventName(kind));
}

static PyMethodDef sched_methods[] = {
	{"attach", Sched_attach, METH_VARARGS | METH_STATIC, NULL},
	{"copy", Sched_copy, METH_VARARGS, NULL},
	{"observe", Sched_observe, METH_VARARGS, NULL},
	{"chan", Sched_chan, METH_VARARGS, NULL},
	{"sema", Sched_sema, METH_VARARGS, NULL},
	{"program", Sched_program, METH_O, NULL},
	{"start", Sched_start, METH_VARARGS, NULL},
	{"wait", Sched_wait, METH_VARARGS, NULL},
	{"set_procs", Sched_set_procs, METH_VARARGS, NULL},
	{"stop", Sched_stop, METH_NOARGS, NULL},
	{"close", Sched_close, METH_NOARGS, NULL},
	{"tally", Sched_tally, METH_VARARGS, NULL},
	{"events", Sched_events, METH_VARARGS, NULL},
	{"clock", Sched_clock, METH_NOARGS, NULL},
	{"fatal", Sched_fatal, METH_NOARGS, NULL},
	{"lost", Sched_lost, METH_NOARGS, NULL},
	{"schedtrace", Sched_schedtrace, METH_VARARGS, NULL},
	{"usage", Sched_usage, METH_NOARGS, NULL},
	{"fileno", Sched_fd, METH_NOARGS, NULL},
	{"left_out", Sched_left_out, METH_NOARGS, NULL},
	{"sched_fields", Sched_sched, METH_NOARGS, NULL},
	{"p_fields", Sched_p, METH_VARARGS, NULL},
	{"p_runq", Sched_runq, METH_VARARGS, NULL},
	{"m_fields", Sched_m, METH_VARARGS, NULL},
	{"g_fields", Sched_g, METH_VARARGS, NULL},
	{"chan_fields", Sched_chan_fields, METH_VARARGS, NULL},
	{"sema_fields", Sched_sema_fields, METH_VARARGS, NULL},
	{"members", Sched_members, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot sched_slots[] = {
	{Py_tp_doc, "The scheduler of core/gmp: one run of script Gs, or a look at one."},
	{Py_tp_init, Sched_init},
	{Py_tp_dealloc, Sched_dealloc},
	{Py_tp_methods, sched_methods},
	{0, NULL},
};

static PyType_Spec sched_spec = {
	.name = "ipclab._core.Sched",
	.basicsize = sizeof(SchedObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = sched_slots,
};

static PyMethodDef functions[] = {
	{"gmp_cpus", py_gmp_cpus, METH_NOARGS, NULL},
	{"gmp_event_name", py_event_name, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

int add_gmp(PyObject *module)
{
	sched_type = add_type(module, &sched_spec);
	if (!sched_type || PyModule_AddIntConstant(module, "GMP_MAXPROCS", GMP_MAXPROCS) < 0 ||
	    PyModule_AddIntConstant(module, "GMP_SELECT_MOST", 16) < 0)
		return -1;
	return PyModule_AddFunctions(module, functions);
}
