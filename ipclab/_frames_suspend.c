/* _frames_suspend.c: Suspension, what the innermost await of a portable coroutine waits for. */
#include "_frames.h"

enum { TOLD, ASKED, NOT_YET }; /* these numbers travel */

typedef struct {
	PyObject_HEAD
	PyObject *request; /* what it yields, once; NULL: it has */
	char state;
} Suspension;

static PyObject *make(PyObject *request, char state)
{
	Suspension *self = PyObject_GC_New(Suspension, &Suspension_Type);

	if (!self)
		return NULL;
	self->request = Py_XNewRef(request);
	self->state = state;
	PyObject_GC_Track(self);
	return (PyObject *)self;
}

static PyObject *suspension_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	PyObject *request;

	if (kwargs && PyDict_GET_SIZE(kwargs)) {
		PyErr_SetString(PyExc_TypeError, "Suspension takes no keyword arguments");
		return NULL;
	}
	return PyArg_ParseTuple(args, "O:Suspension", &request) ? make(request, NOT_YET) : NULL;
}

static int suspension_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(((Suspension *)self)->request);
	return 0;
}

static int suspension_clear(PyObject *self)
{
	Py_CLEAR(((Suspension *)self)->request);
	return 0;
}

static void suspension_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	suspension_clear(self);
	PyObject_GC_Del(self);
}

/* First the request goes out to whoever drives the coroutine; then what he sends is what the await is worth. */
static PySendResult suspension_send(PyObject *object, PyObject *value, PyObject **result)
{
	Suspension *self = (Suspension *)object;

	*result = NULL;
	if (self->state == NOT_YET && self->request) {
		*result = self->request;
		self->request = NULL;
		self->state = ASKED;
		return PYGEN_NEXT;
	}
	if (self->state != ASKED) {
		PyErr_SetString(PyExc_RuntimeError, "cannot await the same operation twice");
		return PYGEN_ERROR;
	}
	self->state = TOLD;
	*result = Py_NewRef(value);
	return PYGEN_RETURN;
}

static PyObject *suspension_next(PyObject *self)
{
	PyObject *result;

	switch (suspension_send(self, Py_None, &result)) {
	case PYGEN_NEXT:
		return result;
	case PYGEN_RETURN:
		Py_DECREF(result); /* None: the end without a value */
		return NULL;
	default:
		return NULL;
	}
}

/* 3.11 awaits by am_send; since 3.12 whatever is no coroutine needs a method for values other than None. */
static PyObject *suspension_send_method(PyObject *self, PyObject *value)
{
	PyObject *result, *stop;

	switch (suspension_send(self, value, &result)) {
	case PYGEN_NEXT:
		return result;
	case PYGEN_RETURN:
		stop = PyObject_CallOneArg(PyExc_StopIteration, result); /* not PyErr_SetObject: it would unpack a tuple */
		Py_DECREF(result);
		if (stop)
			PyErr_SetObject(PyExc_StopIteration, stop);
		Py_XDECREF(stop);
		return NULL;
	default:
		return NULL;
	}
}

static PyMethodDef suspension_methods[] = {
	{"send", suspension_send_method, METH_O, PyDoc_STR("send(value): as of a generator.")},
	{NULL, NULL, 0, NULL},
};

static PyAsyncMethods suspension_async = {.am_await = PyObject_SelfIter, .am_send = suspension_send};

PyTypeObject Suspension_Type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ipclab._frames.Suspension",
	.tp_doc = PyDoc_STR("Suspension(request): awaited, it hands the request to whoever drives the coroutine, and is worth\n"
			    "what that one sends back. It can travel with the coroutine."),
	.tp_basicsize = sizeof(Suspension),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_new = suspension_new,
	.tp_dealloc = suspension_dealloc,
	.tp_traverse = suspension_traverse,
	.tp_clear = suspension_clear,
	.tp_as_async = &suspension_async,
	.tp_iter = PyObject_SelfIter,
	.tp_iternext = suspension_next,
	.tp_methods = suspension_methods,
};

int write_suspension(struct writer *w, PyObject *object)
{
	Suspension *self = (Suspension *)object;
	size_t start = w->used;

	if (write_tag_n(w, TAG_SUSPENSION, (uint64_t)self->state) < 0)
		return -1;
	if (self->state == NOT_YET && write_held(w, self->request) < 0)
		return -1;
	return write_after(w, object, start) < 0 ? -1 : 0;
}

PyObject *read_suspension(struct reader *r)
{
	PyObject *request = NULL, *suspension;
	uint64_t state;

	if (read_n(r, &state) < 0 || (state == NOT_YET && !(request = read_object(r))))
		return NULL;
	suspension = state <= NOT_YET ? make(request, (char)state) : corrupt("an await in no known state");
	Py_XDECREF(request);
	return seen(r, suspension);
}
