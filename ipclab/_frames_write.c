/* _frames_write.c: objects -> bytes: containers, and who writes what. The format is in _frames.h. */
#include "_frames.h"

#include <string.h>

/* --- containers ----------------------------------------------------------------------------------------------------- */

static int write_tuple(struct writer *w, PyObject *object)
{
	Py_ssize_t n = PyTuple_GET_SIZE(object);
	size_t start = w->used;

	if (write_tag_n(w, TAG_TUPLE, (uint64_t)n) < 0)
		return -1;
	for (Py_ssize_t i = 0; i < n; i++)
		if (write_object(w, PyTuple_GET_ITEM(object, i)) < 0)
			return -1;
	return n && write_after(w, object, start) < 0 ? -1 : 0;
}

static int changed(const char *what)
{
	PyErr_Format(PyExc_RuntimeError, "%s changed size while it was captured", what);
	return -1;
}

/* Writing an item may run code of the user's (__reduce__), which may do anything to the container. */
static int write_list(struct writer *w, PyObject *object)
{
	Py_ssize_t n = PyList_GET_SIZE(object);

	if (write_seen(w, object) < 0 || write_tag_n(w, TAG_LIST, (uint64_t)n) < 0)
		return -1;
	for (Py_ssize_t i = 0; i < n; i++) {
		if (PyList_GET_SIZE(object) != n)
			return changed("list");
		if (write_held(w, PyList_GET_ITEM(object, i)) < 0)
			return -1;
	}
	return 0;
}

/* The globals of a module belong to the process, also where they are a value: whoever has a __builtins__ is asked. */
static int write_globals(struct writer *w, PyObject *object)
{
	if (!PyDict_GetItemWithError(object, interned.builtins))
		return PyErr_Occurred() ? -1 : 0;
	return write_named(w, object, NULL);
}

static int write_dict(struct writer *w, PyObject *object)
{
	Py_ssize_t n = PyDict_GET_SIZE(object), at = 0, count = 0;
	PyObject *key, *value;
	int rc = write_globals(w, object);

	if (rc != 0)
		return rc > 0 ? 0 : -1;
	if (write_seen(w, object) < 0 || write_tag_n(w, TAG_DICT, (uint64_t)n) < 0)
		return -1;
	while (rc == 0 && PyDict_Next(object, &at, &key, &value)) {
		Py_INCREF(key);
		Py_INCREF(value);
		if (write_object(w, key) < 0 || write_object(w, value) < 0)
			rc = -1;
		else if (PyDict_GET_SIZE(object) != n || ++count > n)
			rc = changed("dict");
		Py_DECREF(key);
		Py_DECREF(value);
	}
	return rc == 0 && count != n ? changed("dict") : rc;
}

static int write_set(struct writer *w, PyObject *object, enum tag tag)
{
	size_t start = w->used;
	PyObject *items;
	int rc = 0;

	if (tag == TAG_SET && write_seen(w, object) < 0)
		return -1;
	items = PySequence_Tuple(object);
	if (!items || write_tag_n(w, tag, (uint64_t)PyTuple_GET_SIZE(items)) < 0)
		rc = -1;
	for (Py_ssize_t i = 0; rc == 0 && i < PyTuple_GET_SIZE(items); i++)
		rc = write_object(w, PyTuple_GET_ITEM(items, i));
	Py_XDECREF(items);
	if (rc == 0 && tag == TAG_FROZENSET && write_after(w, object, start) < 0)
		rc = -1;
	return rc;
}

static int write_cell(struct writer *w, PyObject *object)
{
	if (write_seen(w, object) < 0 || write_tag(w, TAG_CELL) < 0)
		return -1;
	return write_held(w, PyCell_GET(object));
}

/* --- all of them ---------------------------------------------------------------------------------------------------- */

static int write_other(struct writer *w, PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	int rc;

	if (type == &PyFunction_Type)
		return write_function(w, object);
	if (type == &PyMethod_Type)
		return write_method(w, object);
	if (goes_by_name(object))
		return write_must_be_named(w, object);
	if (type == &PyByteArray_Type)
		return write_bytearray(w, object);
	if (type == &PyPickleBuffer_Type)
		return write_buffer(w, object);
	if (!(type->tp_flags & Py_TPFLAGS_HEAPTYPE) && (rc = write_awaitable(w, object)) != 0)
		return rc < 0 ? -1 : 0;
	if (type == &PyAsyncGen_Type) {
		PyErr_SetString(NotPortable, "an async generator cannot leave its process");
		return -1;
	}
	rc = write_iterator(w, object);
	return rc == 0 ? write_reduced(w, object) : rc < 0 ? -1 : 0;
}

static int write_container(struct writer *w, PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	struct identity *again = identities_at(&w->seen, object);

	if (again->object)
		return write_tag_n(w, TAG_AGAIN, again->number);
	if (type == &PyUnicode_Type)
		return write_str(w, object);
	if (type == &PyBytes_Type)
		return write_bytes(w, object);
	if (type == &PyTuple_Type)
		return write_tuple(w, object);
	if (type == &PyList_Type)
		return write_list(w, object);
	if (type == &PyDict_Type)
		return write_dict(w, object);
	if (type == &PyCell_Type)
		return write_cell(w, object);
	if (type == &PyCoro_Type || type == &PyGen_Type)
		return write_frame(w, (PyGenObject *)object);
	if (type == &Suspension_Type)
		return write_suspension(w, object);
	if (type == &PySet_Type)
		return write_set(w, object, TAG_SET);
	if (type == &PyFrozenSet_Type)
		return write_set(w, object, TAG_FROZENSET);
	return write_other(w, object);
}

int write_object(struct writer *w, PyObject *object)
{
	PyTypeObject *type;
	int rc;

	if (!object)
		return write_tag(w, TAG_EMPTY);
	if (object == Py_None)
		return write_tag(w, TAG_NONE);
	type = Py_TYPE(object);
	if (type == &PyLong_Type)
		return write_int(w, object);
	/* A character may take three bytes: what is shorter than a third is never numbered. */
	if (type == &PyUnicode_Type && PyUnicode_GET_LENGTH(object) < SHARED_BYTES / 4)
		return write_str(w, object);
	if (type == &PyBool_Type)
		return write_tag(w, object == Py_True ? TAG_TRUE : TAG_FALSE);
	if (type == &PyFloat_Type)
		return write_float(w, object);
	if (object == Py_Ellipsis || object == Py_NotImplemented)
		return write_tag(w, object == Py_Ellipsis ? TAG_ELLIPSIS : TAG_NOTIMPLEMENTED);
	if (Py_EnterRecursiveCall(" while a coroutine was captured"))
		return -1;
	rc = write_container(w, object);
	Py_LeaveRecursiveCall();
	return rc;
}

int write_held(struct writer *w, PyObject *object)
{
	int rc;

	Py_XINCREF(object);
	rc = write_object(w, object);
	Py_XDECREF(object);
	return rc;
}

/* --- a capture ------------------------------------------------------------------------------------------------------ */

static void begin(struct writer *w, Codec *codec)
{
	w->codec = codec;
	w->bytes = w->first;
	w->large = NULL;
	w->used = 0, w->room = sizeof w->first;
	w->numbers = 0;
	w->located = false;
	identities_begin(&w->seen);
}

static void end(struct writer *w)
{
	size_t left = w->seen.used;

	for (size_t i = 0; left; i++) {
		if (!w->seen.slots[i].object)
			continue;
		Py_DECREF(w->seen.slots[i].object);
		left--;
	}
	identities_end(&w->seen);
	Py_XDECREF(w->large);
}

PyObject *dump(Codec *codec, PyObject *object)
{
	PyObject *bytes = NULL;
	struct writer w;

	begin(&w, codec);
	if (write_object(&w, object) == 0)
		bytes = written(&w);
	if (!bytes)
		not_portable(NULL, NULL);
	end(&w);
	return bytes;
}

static void for_each(struct identities *map, void (*call)(PyObject *))
{
	for (size_t i = 0; i <= map->mask; i++)
		if (map->slots[i].object)
			call(map->slots[i].object);
}

/* Walks as dump does, so that it finds what dump has found. */
int abandon(Codec *codec, PyObject *object)
{
	struct writer w;
	int rc;

	begin(&w, codec);
	rc = write_object(&w, object);
	if (rc == 0) {
		for_each(&w.seen, frame_forget);
		for_each(&w.seen, frame_empty);
	} else {
		not_portable(NULL, NULL);
	}
	end(&w);
	return rc;
}
