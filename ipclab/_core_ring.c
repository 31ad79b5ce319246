/*
 * _core_ring.c: the ring for Python; ipclab.Ring (mechanisms/shared/ring.py) is a subclass with the user's text.
 *
 * put and get are the hot path: METH_FASTCALL, no Python frame in between, one copy, and the GIL is released only to
 * sleep and to copy more than RELEASE_BYTES. While it is released the side is `busy`: another thread that comes in is
 * told so (a ring has one producer and one consumer), and close() cancels and leaves the unmapping to the busy one.
 */
#include "_core.h"

#include <errno.h>
#include <string.h>

#include "core/copy.h"
#include "core/ring.h"

#define RELEASE_BYTES 65536 /* releasing the GIL costs about 27 ns; copying this much, microseconds */
#define SPIN_WITH_GIL_NS 2000 /* a peer that is about to act does so within this; no other thread starves */

typedef struct {
	PyObject_HEAD
	struct ring *ring; /* NULL before __init__ and after close */
	int named;
} RingObject;

/* --- errors: made in Python (mechanisms/shared/ring.py: ring_error), where their text is --- */

static PyObject *raise_ring(RingObject *self, enum ring_side side, int rc, Py_ssize_t size)
{
	PyObject *module, *error = NULL;
	uint64_t owner = 0;
	unsigned long long capacity = 0;

	if (self->ring && self->ring->shared) {
		int whose = rc == -EBUSY ? (int)side : 1 - (int)side;

		owner = load_seq_cst(&self->ring->shared->side[whose].owner);
		capacity = self->ring->capacity;
	}
	module = PyImport_ImportModule("ipclab.mechanisms.shared.ring");
	if (module)
		error = PyObject_CallMethod(module, "ring_error", "isnKi", -rc, side == RING_PRODUCER ? "put" : "get", size,
					    capacity, (int)identity_pid(owner));
	if (error)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(error);
	Py_XDECREF(module);
	return NULL;
}

/* --- who may come in --- */

static int enter(RingObject *self, enum ring_side side)
{
	if (self->ring && !self->ring->side[side].busy)
		return 0;
	raise_ring(self, side, self->ring ? -EALREADY : -EBADF, 0);
	return -1;
}

static void destroy(RingObject *self)
{
	struct ring *ring = self->ring;

	self->ring = NULL;
	if (ring) {
		ring_close(ring);
		PyMem_Free(ring);
	}
}

/* After a stretch without the GIL: if close() came meanwhile, the last one out closes. */
static int leave(RingObject *self, enum ring_side side)
{
	struct ring *ring = self->ring;

	ring->side[side].busy = 0;
	if (!load_seq_cst(&ring->cancelled))
		return 0;
	if (!ring->side[RING_PRODUCER].busy && !ring->side[RING_CONSUMER].busy)
		destroy(self);
	raise_ring(self, side, -EBADF, 0);
	return -1;
}

/* Waits for the side to be able to go on; 0, or -1 with an exception set. */
static int wait_for(RingObject *self, enum ring_side side, size_t size, int64_t deadline_ns)
{
	struct ring *ring = self->ring;
	int rc;

	if (ring_spin(ring, side, size, SPIN_WITH_GIL_NS) == 0)
		return 0;
	do {
		ring->side[side].busy = 1;
		Py_BEGIN_ALLOW_THREADS
		rc = ring_wait(ring, side, size, deadline_ns);
		Py_END_ALLOW_THREADS
		if (leave(self, side) < 0)
			return -1;
		if (rc == -EINTR && PyErr_CheckSignals() < 0)
			return -1;
		if (!self->ring) { /* a signal handler closed it */
			raise_ring(self, side, -EBADF, 0);
			return -1;
		}
	} while (rc == -EINTR);
	if (rc < 0) {
		raise_ring(self, side, rc, (Py_ssize_t)size);
		return -1;
	}
	return 0;
}

/* --- put --- */

static int copy_in(RingObject *self, const Py_buffer *view)
{
	int rc;

	if (view->len <= RELEASE_BYTES)
		return ring_put(self->ring, view->buf, (size_t)view->len);
	self->ring->side[RING_PRODUCER].busy = 1;
	Py_BEGIN_ALLOW_THREADS
	rc = ring_put(self->ring, view->buf, (size_t)view->len);
	Py_END_ALLOW_THREADS
	return leave(self, RING_PRODUCER) < 0 ? 1 : rc;
}

/* `deadline_ns` NULL: must not wait. */
static PyObject *put(RingObject *self, PyObject *data, const int64_t *deadline_ns)
{
	PyObject *result = NULL;
	Py_buffer view;
	int rc;

	if (enter(self, RING_PRODUCER) < 0 || PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	while ((rc = copy_in(self, &view)) == -EAGAIN && deadline_ns) {
		if (wait_for(self, RING_PRODUCER, (size_t)view.len, *deadline_ns) < 0)
			goto out;
	}
	if (rc < 0)
		raise_ring(self, RING_PRODUCER, rc, view.len);
	else if (rc == 0)
		result = Py_NewRef(Py_None);
out:
	PyBuffer_Release(&view);
	return result;
}

/* --- get --- */

/* The next message's length, waiting for it when deadline_ns is given; -1 with an exception set. */
static Py_ssize_t next_message(RingObject *self, const void **message, const int64_t *deadline_ns)
{
	ssize_t size;

	if (enter(self, RING_CONSUMER) < 0)
		return -1;
	while ((size = ring_peek(self->ring, message)) == -EAGAIN && deadline_ns) {
		if (wait_for(self, RING_CONSUMER, 0, *deadline_ns) < 0)
			return -1;
	}
	if (size < 0) {
		raise_ring(self, RING_CONSUMER, (int)size, 0);
		return -1;
	}
	return size;
}

static int copy_out(RingObject *self, void *into, const void *message, Py_ssize_t size)
{
	if (size <= RELEASE_BYTES) {
		copy_from_peer(into, message, (size_t)size);
		ring_consume(self->ring);
		return 0;
	}
	self->ring->side[RING_CONSUMER].busy = 1;
	Py_BEGIN_ALLOW_THREADS
	copy_from_peer(into, message, (size_t)size);
	ring_consume(self->ring);
	Py_END_ALLOW_THREADS
	return leave(self, RING_CONSUMER);
}

static PyObject *get(RingObject *self, const int64_t *deadline_ns)
{
	const void *message;
	Py_ssize_t size = next_message(self, &message, deadline_ns);
	PyObject *bytes;

	if (size < 0)
		return NULL;
	bytes = PyBytes_FromStringAndSize(NULL, size);
	if (bytes && copy_out(self, PyBytes_AsString(bytes), message, size) < 0)
		Py_CLEAR(bytes);
	return bytes;
}

static PyObject *get_into(RingObject *self, PyObject *buffer, const int64_t *deadline_ns)
{
	PyObject *result = NULL;
	const void *message;
	Py_ssize_t size;
	Py_buffer view;

	if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
		return NULL;
	size = next_message(self, &message, deadline_ns);
	if (size > view.len)
		raise_ring(self, RING_CONSUMER, -ENOBUFS, size);
	else if (size >= 0 && copy_out(self, view.buf, message, size) == 0)
		result = PyLong_FromSsize_t(size);
	PyBuffer_Release(&view);
	return result;
}

/* --- arguments: f([object,] timeout_s=None), without building a tuple or a dict --- */

static int parse(PyObject *const *args, Py_ssize_t count, PyObject *names, Py_ssize_t objects, const char *usage,
		 int64_t *deadline_ns)
{
	Py_ssize_t named = names ? PyTuple_Size(names) : 0;
	PyObject *timeout_s = Py_None;

	*deadline_ns = -1;
	if (count == objects && named == 0)
		return 0;
	if (count == objects + 1 && named == 0)
		timeout_s = args[objects];
	else if (count == objects && named == 1 &&
		 PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "timeout_s") == 0)
		timeout_s = args[objects];
	else {
		PyErr_Format(PyExc_TypeError, "call it as %s", usage);
		return -1;
	}
	return deadline_of_seconds(timeout_s, deadline_ns);
}

static PyObject *Ring_put(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	int64_t deadline_ns;

	if (parse(args, count, names, 1, "put(data, timeout_s=None)", &deadline_ns) < 0)
		return NULL;
	return put((RingObject *)self, args[0], &deadline_ns);
}

static PyObject *Ring_put_nowait(PyObject *self, PyObject *data)
{
	return put((RingObject *)self, data, NULL);
}

static PyObject *Ring_get(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	int64_t deadline_ns;

	if (parse(args, count, names, 0, "get(timeout_s=None)", &deadline_ns) < 0)
		return NULL;
	return get((RingObject *)self, &deadline_ns);
}

static PyObject *Ring_get_nowait(PyObject *self, PyObject *unused)
{
	(void)unused;
	return get((RingObject *)self, NULL);
}

static PyObject *Ring_get_into(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
	int64_t deadline_ns;

	if (parse(args, count, names, 1, "get_into(buffer, timeout_s=None)", &deadline_ns) < 0)
		return NULL;
	return get_into((RingObject *)self, args[0], &deadline_ns);
}

static PyObject *Ring_get_into_nowait(PyObject *self, PyObject *buffer)
{
	return get_into((RingObject *)self, buffer, NULL);
}

/* --- the rest --- */

static PyObject *Ring_claim(PyObject *object, PyObject *args)
{
	RingObject *self = (RingObject *)object;
	int side, rc;

	if (!PyArg_ParseTuple(args, "p", &side))
		return NULL;
	if (!self->ring)
		return raise_ring(self, side, -EBADF, 0);
	rc = ring_claim(self->ring, side ? RING_CONSUMER : RING_PRODUCER);
	if (rc < 0)
		return raise_ring(self, side, rc, 0);
	Py_RETURN_NONE;
}

static PyObject *Ring_close(PyObject *object, PyObject *unused)
{
	RingObject *self = (RingObject *)object;
	struct ring *ring = self->ring;

	(void)unused;
	if (ring && (ring->side[RING_PRODUCER].busy || ring->side[RING_CONSUMER].busy))
		ring_cancel(ring); /* the busy thread closes when it comes out */
	else
		destroy(self);
	Py_RETURN_NONE;
}

static PyObject *Ring_fileno(PyObject *object, PyObject *unused)
{
	RingObject *self = (RingObject *)object;

	(void)unused;
	if (!self->ring)
		return raise_ring(self, RING_PRODUCER, -EBADF, 0);
	return PyLong_FromLong(self->ring->segment.fd);
}

static PyObject *Ring_counts(PyObject *object, PyObject *unused)
{
	RingObject *self = (RingObject *)object;
	const struct ring *ring = self->ring;
	const struct ring_shared *shared;

	(void)unused;
	if (!ring)
		return raise_ring(self, RING_PRODUCER, -EBADF, 0);
	shared = ring->shared;
	return Py_BuildValue("{sKsKsKsKsKsKsKsKsKsKsKsisi}", "capacity_bytes", (unsigned long long)ring->capacity, "used_bytes",
			     (unsigned long long)ring_used_bytes(ring), "room_bytes", (unsigned long long)ring->data_bytes,
			     "put_count", (unsigned long long)ring->put_count, "get_count",
			     (unsigned long long)ring->get_count, "put_sleep_count",
			     (unsigned long long)ring->side[RING_PRODUCER].sleep_count, "get_sleep_count",
			     (unsigned long long)ring->side[RING_CONSUMER].sleep_count, "put_park_count",
			     (unsigned long long)ring->side[RING_PRODUCER].park_count, "get_park_count",
			     (unsigned long long)ring->side[RING_CONSUMER].park_count, "consumer_wake_count",
			     (unsigned long long)ring->side[RING_PRODUCER].wake_count, "producer_wake_count",
			     (unsigned long long)ring->side[RING_CONSUMER].wake_count, "producer_pid",
			     (int)identity_pid(load_seq_cst(&shared->side[RING_PRODUCER].owner)), "consumer_pid",
			     (int)identity_pid(load_seq_cst(&shared->side[RING_CONSUMER].owner)));
}

static int Ring_init(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"capacity_bytes", "fd", NULL};
	RingObject *self = (RingObject *)object;
	unsigned long long capacity = 0;
	struct ring *ring;
	int fd = -1, rc;

	if (!PyArg_ParseTupleAndKeywords(args, names, "K|i", keywords, &capacity, &fd))
		return -1;
	if (self->ring) {
		PyErr_SetString(PyExc_RuntimeError, "this Ring is open already");
		return -1;
	}
	ring = PyMem_Malloc(sizeof *ring);
	if (!ring) {
		PyErr_NoMemory();
		return -1;
	}
	rc = fd < 0 ? ring_create(ring, NULL, capacity) : ring_attach(ring, fd);
	if (rc < 0) {
		PyMem_Free(ring);
		raise_os_error(rc, fd < 0 ? "memfd_create" : "ring_attach");
		return -1;
	}
	ring->attentive = 1;
	self->ring = ring;
	return 0;
}

static void Ring_dealloc(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	freefunc release = PyType_GetSlot(type, Py_tp_free);

	destroy((RingObject *)object);
	release(object);
	Py_DECREF(type);
}

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef ring_methods[] = {
	{"put", FAST(Ring_put), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"put_nowait", Ring_put_nowait, METH_O, NULL},
	{"get", FAST(Ring_get), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"get_nowait", Ring_get_nowait, METH_NOARGS, NULL},
	{"get_into", FAST(Ring_get_into), METH_FASTCALL | METH_KEYWORDS, NULL},
	{"get_into_nowait", Ring_get_into_nowait, METH_O, NULL},
	{"_claim", Ring_claim, METH_VARARGS, NULL},
	{"_counts", Ring_counts, METH_NOARGS, NULL},
	{"fileno", Ring_fileno, METH_NOARGS, NULL},
	{"close", Ring_close, METH_NOARGS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot ring_slots[] = {
	{Py_tp_doc, "One-to-one ring of messages in shared memory; see ipclab.Ring."},
	{Py_tp_init, Ring_init},
	{Py_tp_dealloc, Ring_dealloc},
	{Py_tp_methods, ring_methods},
	{0, NULL},
};

static PyType_Spec ring_spec = {
	.name = "ipclab._core.Ring",
	.basicsize = sizeof(RingObject),
	.flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
	.slots = ring_slots,
};

int add_ring_type(PyObject *module)
{
	PyObject *type = PyType_FromModuleAndSpec(module, &ring_spec, NULL);
	int rc;

	if (!type)
		return -1;
	rc = PyModule_AddType(module, (PyTypeObject *)type);
	Py_DECREF(type);
	return rc;
}
