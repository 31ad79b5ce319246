/* _frames_reduce.c: whatever pickles, by its own __reduce_ex__ and in pickle's order; both ways. */
#include "_frames.h"

/* --- writing -------------------------------------------------------------------------------------------------------- */

static int no_name(PyObject *object)
{
	PyErr_Format(NotPortable, "%R is found by no name: it is not what its module has under it", object);
	return -1;
}

/* What is no longer, or never was, under any name. */
static PyObject *reduce_unnamed(struct writer *w, PyObject *object)
{
	PyObject *parts = w->codec->reduce == Py_None ? Py_NewRef(Py_None) : PyObject_CallOneArg(w->codec->reduce, object);

	if (parts == Py_None) {
		Py_CLEAR(parts);
		no_name(object);
	}
	return parts;
}

bool goes_by_name(PyObject *object)
{
	if (PyCFunction_CheckExact(object)) { /* a function of a module, not a method of an object */
		PyObject *self = PyCFunction_GET_SELF(object);

		return !self || PyModule_Check(self);
	}
	return PyType_Check(object) || PyFunction_Check(object) || PyModule_Check(object) || PyCode_Check(object);
}

/* As pickle asks: copyreg first, then the object. If it refuses, whoever knows what pickle does not. */
static PyObject *reduce(struct writer *w, PyObject *object)
{
	PyObject *reducer, *parts, *type, *value, *trace;

	if (goes_by_name(object))
		return reduce_unnamed(w, object);
	reducer = PyDict_GetItemWithError(w->codec->dispatch, (PyObject *)Py_TYPE(object));
	if (reducer)
		return PyObject_CallOneArg(reducer, object);
	if (PyErr_Occurred())
		return NULL;
	parts = PyObject_CallMethodOneArg(object, interned.reduce_ex, interned.protocol);
	if (parts || w->codec->reduce == Py_None || !PyErr_ExceptionMatches(PyExc_TypeError))
		return parts;
	PyErr_Fetch(&type, &value, &trace);
	parts = PyObject_CallOneArg(w->codec->reduce, object);
	if (parts == Py_None) {
		Py_DECREF(parts);
		PyErr_Restore(type, value, trace);
		return NULL;
	}
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(trace);
	return parts;
}

/* An iterator's items as a list: how many there are comes first in the bytes. None stays. */
static PyObject *listed(PyObject *items)
{
	return items == Py_None ? Py_NewRef(items) : PySequence_List(items);
}

/* State, list items, dict items, state setter. */
static int write_rest(struct writer *w, PyObject *parts)
{
	for (Py_ssize_t i = 2; i < 6; i++) {
		PyObject *part = parts && i < PyTuple_GET_SIZE(parts) ? PyTuple_GET_ITEM(parts, i) : Py_None;
		int rc;

		part = i == 3 || i == 4 ? listed(part) : Py_NewRef(part);
		rc = part ? write_object(w, part) : -1;
		Py_XDECREF(part);
		if (rc < 0)
			return -1;
	}
	return 0;
}

static int write_parts(struct writer *w, PyObject *object, PyObject *parts)
{
	Py_ssize_t n = PyTuple_GET_SIZE(parts);
	size_t start = w->used;

	if (n < 2 || n > 6 || !PyTuple_Check(PyTuple_GET_ITEM(parts, 1))) {
		PyErr_Format(NotPortable, "__reduce_ex__ of %.200s gave %zd parts that are not a callable and its arguments",
			     Py_TYPE(object)->tp_name, n);
		return -1;
	}
	if (write_tag(w, TAG_REDUCED) < 0 || write_object(w, PyTuple_GET_ITEM(parts, 0)) < 0 ||
	    write_object(w, PyTuple_GET_ITEM(parts, 1)) < 0)
		return -1;
	if (!identities_at(&w->seen, object)->object)
		return write_seen(w, object) < 0 ? -1 : write_rest(w, parts);
	/* Its arguments led back to it, and it was made within: the one made here is not taken, and stays empty. */
	return write_rest(w, NULL) < 0 || write_after(w, object, start) < 0 ? -1 : 0;
}

/* Its __reduce_ex__ gave a string: it is the only one of its kind, and has that name in its module. */
static int write_asked_name(struct writer *w, PyObject *object, PyObject *name)
{
	int rc = write_named(w, object, name);

	return rc == 0 ? no_name(object) : rc > 0 ? 0 : -1;
}

int write_reduced(struct writer *w, PyObject *object)
{
	PyObject *parts = reduce(w, object);
	int rc = -1;

	if (!parts)
		return -1;
	if (PyUnicode_Check(parts))
		rc = write_asked_name(w, object, parts);
	else if (PyTuple_Check(parts))
		rc = write_parts(w, object, parts);
	else
		PyErr_Format(NotPortable, "__reduce_ex__ of %.200s gave no tuple", Py_TYPE(object)->tp_name);
	Py_DECREF(parts);
	return rc;
}

int write_must_be_named(struct writer *w, PyObject *object)
{
	int rc = write_named(w, object, NULL);

	if (rc != 0)
		return rc > 0 ? 0 : -1;
	return write_reduced(w, object);
}

/* --- reading -------------------------------------------------------------------------------------------------------- */

static int update_attributes(PyObject *object, PyObject *state)
{
	PyObject *items = PyDict_Items(state); /* a setter may change anything */
	int rc = items ? 0 : -1;

	for (Py_ssize_t i = 0; rc == 0 && i < PyList_GET_SIZE(items); i++) {
		PyObject *item = PyList_GET_ITEM(items, i);

		rc = PyObject_SetAttr(object, PyTuple_GET_ITEM(item, 0), PyTuple_GET_ITEM(item, 1));
	}
	Py_XDECREF(items);
	return rc;
}

static int update_dict(PyObject *object, PyObject *state)
{
	PyObject *dict = PyObject_GetAttr(object, interned.dict), *key, *value;
	Py_ssize_t at = 0;
	int rc = dict ? 0 : -1;

	while (rc == 0 && PyDict_Next(state, &at, &key, &value)) {
		Py_INCREF(key);
		Py_INCREF(value);
		if (PyUnicode_CheckExact(key))
			PyUnicode_InternInPlace(&key);
		rc = PyObject_SetItem(dict, key, value);
		Py_DECREF(key);
		Py_DECREF(value);
	}
	Py_XDECREF(dict);
	return rc;
}

/* Its __setstate__, or NULL without an exception. */
static PyObject *setter_of(PyObject *object)
{
	PyObject *method = NULL;

#if PY_VERSION_HEX >= 0x030d0000
	(void)PyObject_GetOptionalAttr(object, interned.setstate, &method);
#else
	(void)_PyObject_LookupAttr(object, interned.setstate, &method);
#endif
	return method;
}

/* As pickle's BUILD: __setstate__, or the dictionary, or (dictionary, slots). */
static int set_state(PyObject *object, PyObject *state)
{
	PyObject *method = setter_of(object), *done, *slots = Py_None;

	if (method) {
		done = PyObject_CallOneArg(method, state);
		Py_DECREF(method);
		Py_XDECREF(done);
		return done ? 0 : -1;
	}
	if (PyErr_Occurred())
		return -1;
	if (PyTuple_CheckExact(state) && PyTuple_GET_SIZE(state) == 2) {
		slots = PyTuple_GET_ITEM(state, 1);
		state = PyTuple_GET_ITEM(state, 0);
	}
	if ((state != Py_None && !PyDict_Check(state)) || (slots != Py_None && !PyDict_Check(slots))) {
		corrupt("an object's state is no dict");
		return -1;
	}
	if (state != Py_None && PyDict_GET_SIZE(state) && update_dict(object, state) < 0)
		return -1;
	return slots == Py_None ? 0 : update_attributes(object, slots);
}

static int append_each(PyObject *object, PyObject *items)
{
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); i++) {
		PyObject *done = PyObject_CallMethodOneArg(object, interned.append, PyList_GET_ITEM(items, i));

		if (!done)
			return -1;
		Py_DECREF(done);
	}
	return 0;
}

static int add_items(PyObject *object, PyObject *items)
{
	PyObject *extend, *done;

	if (items == Py_None)
		return 0;
	if (!PyList_CheckExact(items)) {
		corrupt("items that are no list");
		return -1;
	}
	extend = PyObject_GetAttr(object, interned.extend);
	if (!extend) {
		if (!PyErr_ExceptionMatches(PyExc_AttributeError))
			return -1;
		PyErr_Clear();
		return append_each(object, items);
	}
	done = PyObject_CallOneArg(extend, items);
	Py_DECREF(extend);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

static int add_pairs(PyObject *object, PyObject *pairs)
{
	if (pairs == Py_None)
		return 0;
	if (!PyList_CheckExact(pairs)) {
		corrupt("pairs that are no list");
		return -1;
	}
	for (Py_ssize_t i = 0; i < PyList_GET_SIZE(pairs); i++) {
		PyObject *pair = PyList_GET_ITEM(pairs, i);

		if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2) {
			corrupt("a pair that is none");
			return -1;
		}
		if (PyObject_SetItem(object, PyTuple_GET_ITEM(pair, 0), PyTuple_GET_ITEM(pair, 1)) < 0)
			return -1;
	}
	return 0;
}

static int put_state(PyObject *object, PyObject *state, PyObject *setter)
{
	PyObject *done;

	if (setter == Py_None)
		return state == Py_None ? 0 : set_state(object, state);
	done = PyObject_CallFunctionObjArgs(setter, object, state, NULL);
	Py_XDECREF(done);
	return done ? 0 : -1;
}

/* Items first, then the state, as pickle has it. */
PyObject *read_reduced(struct reader *r)
{
	PyObject *callable = read_object(r), *arguments = callable ? read_object(r) : NULL, *object = NULL;
	PyObject *parts[4] = {NULL};
	int rc = 0;

	if (arguments && !PyTuple_CheckExact(arguments))
		corrupt("arguments that are no tuple");
	else if (arguments)
		object = seen(r, PyObject_CallObject(callable, arguments));
	for (int i = 0; object && rc == 0 && i < 4; i++)
		rc = (parts[i] = read_object(r)) ? 0 : -1;
	if (object && (rc < 0 || add_items(object, parts[1]) < 0 || add_pairs(object, parts[2]) < 0 ||
		       put_state(object, parts[0], parts[3]) < 0))
		Py_CLEAR(object);
	for (int i = 0; i < 4; i++)
		Py_XDECREF(parts[i]);
	Py_XDECREF(callable);
	Py_XDECREF(arguments);
	return object;
}
