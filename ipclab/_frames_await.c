/*
 * _frames_await.c: what awaits put between two coroutines, both ways.
 *
 * `await coroutine` puts the coroutine itself there. coroutine.__await__() and anext(iterator, default) give objects of
 * types that the interpreter does not export; their structures are those of genobject.c and iterobject.c.
 */
#include "_frames.h"

#include <string.h>

static bool is_called(PyObject *object, const char *name)
{
	return strcmp(Py_TYPE(object)->tp_name, name) == 0;
}

/* --- coroutine.__await__() ------------------------------------------------------------------------------------------ */

typedef struct {
	PyObject_HEAD
	PyObject *coroutine;
} Wrapper;

static int write_wrapper(struct writer *w, PyObject *object)
{
	size_t start = w->used;

	if (write_tag(w, TAG_WRAPPER) < 0 || write_held(w, ((Wrapper *)object)->coroutine) < 0)
		return -1;
	return write_after(w, object, start) < 0 ? -1 : 1;
}

PyObject *read_wrapper(struct reader *r)
{
	PyObject *coroutine = read_object(r), *wrapper;

	if (coroutine && !PyCoro_CheckExact(coroutine)) {
		Py_DECREF(coroutine);
		return corrupt("the await of something that is no coroutine");
	}
	wrapper = coroutine ? PyObject_CallMethod(coroutine, "__await__", NULL) : NULL;
	Py_XDECREF(coroutine);
	return seen(r, wrapper);
}

/* --- anext(iterator, default) --------------------------------------------------------------------------------------- */

typedef struct {
	PyObject_HEAD
	PyObject *wrapped; /* what __anext__ gave; it may have begun */
	PyObject *fallback;
} Anext;

static int write_anext(struct writer *w, PyObject *object)
{
	size_t start = w->used;

	if (write_tag(w, TAG_ANEXT) < 0 || write_held(w, ((Anext *)object)->wrapped) < 0 ||
	    write_held(w, ((Anext *)object)->fallback) < 0)
		return -1;
	return write_after(w, object, start) < 0 ? -1 : 1;
}

/* Such objects come from anext() alone, and anext() takes an iterator: this one gives what there is already. */
typedef struct {
	PyObject_HEAD
	PyObject *wrapped; /* borrowed, for the length of one call */
} Giver;

static PyObject *giver_next(PyObject *self)
{
	return Py_NewRef(((Giver *)self)->wrapped);
}

static PyAsyncMethods giver_async = {.am_anext = giver_next};

static PyTypeObject Giver_Type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ipclab._frames.Giver",
	.tp_basicsize = sizeof(Giver),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_as_async = &giver_async,
};

static PyObject *anext_of(PyObject *wrapped, PyObject *fallback)
{
	PyObject *function, *result;
	Giver *giver;

	if (PyType_Ready(&Giver_Type) < 0 || !(giver = PyObject_New(Giver, &Giver_Type)))
		return NULL;
	giver->wrapped = wrapped;
	function = PyDict_GetItemString(PyEval_GetBuiltins(), "anext");
	result = function ? PyObject_CallFunctionObjArgs(function, giver, fallback, NULL) : corrupt("no anext is here");
	Py_DECREF(giver);
	return result;
}

PyObject *read_anext(struct reader *r)
{
	PyObject *wrapped = read_object(r), *fallback = wrapped ? read_object(r) : NULL;
	PyObject *result = fallback ? anext_of(wrapped, fallback) : NULL;

	Py_XDECREF(wrapped);
	Py_XDECREF(fallback);
	return seen(r, result);
}

int write_awaitable(struct writer *w, PyObject *object)
{
	if (is_called(object, "coroutine_wrapper"))
		return write_wrapper(w, object);
	return is_called(object, "anext_awaitable") ? write_anext(w, object) : 0;
}
