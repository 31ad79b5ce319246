/* _frames_name.c: what goes by its name, because it is there already; and functions, which may have none. Both ways. */
#include "_frames.h"

/* --- writing a name ------------------------------------------------------------------------------------------------- */

static int write_name(struct writer *w, PyObject *name)
{
	if (PyLong_CheckExact(name)) {
		uint64_t n = PyLong_AsUnsignedLongLong(name);

		return PyErr_Occurred() ? -1 : write_tag_n(w, TAG_NUMBERED, n);
	}
	if (!PyBytes_CheckExact(name)) {
		PyErr_SetString(PyExc_TypeError, "name_of returns an int, bytes or None");
		return -1;
	}
	return write_run(w, TAG_NAMED, PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name));
}

/* Both lists and the map grow by one, or none of them is read from. */
static int remember_name(Codec *codec, PyObject *object, PyObject *name)
{
	Py_ssize_t at = PyList_GET_SIZE(codec->objects);

	if (PyList_Append(codec->objects, object) < 0)
		return -1;
	if (PyList_Append(codec->names, name) < 0 || identities_put(&codec->named, object, (uint32_t)at) < 0)
		return -1;
	return 0;
}

/* Borrowed; NULL without an exception: it has none. */
static PyObject *name_of(Codec *codec, PyObject *object, PyObject *scope)
{
	struct identity *known = identities_at(&codec->named, object);
	PyObject *name;
	int rc;

	if (known->object)
		return PyList_GET_ITEM(codec->names, known->number);
	name = PyObject_CallFunctionObjArgs(codec->name_of, object, scope ? scope : Py_None, NULL);
	if (!name || name == Py_None) {
		Py_XDECREF(name);
		return NULL;
	}
	/* Asking ran Python code: another capture of this codec may have asked the same meanwhile. */
	known = identities_at(&codec->named, object);
	rc = known->object ? 0 : remember_name(codec, object, name);
	Py_DECREF(name);
	if (rc < 0)
		return NULL;
	return PyList_GET_ITEM(codec->names, identities_at(&codec->named, object)->number);
}

int write_named(struct writer *w, PyObject *object, PyObject *scope)
{
	struct identity *again = identities_at(&w->seen, object);
	PyObject *name;

	if (again->object)
		return write_tag_n(w, TAG_AGAIN, again->number) < 0 ? -1 : 1;
	name = name_of(w->codec, object, scope);
	if (!name)
		return PyErr_Occurred() ? -1 : 0;
	return write_name(w, name) < 0 || write_seen(w, object) < 0 ? -1 : 1;
}

/* --- reading a name ------------------------------------------------------------------------------------------------- */

static PyObject *find(Codec *codec, PyObject *name)
{
	PyObject *object = PyDict_GetItemWithError(codec->found, name);

	if (object || PyErr_Occurred())
		return Py_XNewRef(object);
	object = PyObject_CallOneArg(codec->find, name);
	if (object && PyDict_SetItem(codec->found, name, object) < 0)
		Py_CLEAR(object);
	return object;
}

PyObject *read_named(struct reader *r, enum tag tag)
{
	PyObject *name, *object;
	const unsigned char *bytes;
	uint64_t n;

	if (tag == TAG_NUMBERED) {
		name = read_n(r, &n) < 0 ? NULL : PyLong_FromUnsignedLongLong(n);
	} else {
		bytes = read_run(r, &n);
		name = bytes ? PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)n) : NULL;
	}
	object = name ? find(r->codec, name) : NULL;
	Py_XDECREF(name);
	return seen(r, object);
}

/* --- functions ------------------------------------------------------------------------------------------------------ */

static int write_annotations(struct writer *w, PyObject *function)
{
	/* Kept in pieces until somebody asks; NULL where there are none, which is what the reader makes anyway. */
	if (!((PyFunctionObject *)function)->func_annotations)
		return write_tag(w, TAG_EMPTY);
	return write_held(w, PyFunction_GetAnnotations(function));
}

/* One that has no name of its own: made anew, over the same code and globals; its cells are shared with frames. */
static int write_parts(struct writer *w, PyObject *object)
{
	PyFunctionObject *function = (PyFunctionObject *)object;

	return write_held(w, function->func_qualname) < 0 || write_seen(w, object) < 0 ||
			       write_held(w, function->func_name) < 0 || write_held(w, function->func_module) < 0 ||
			       write_held(w, function->func_doc) < 0 || write_held(w, function->func_closure) < 0 ||
			       write_held(w, function->func_defaults) < 0 ||
			       write_held(w, function->func_kwdefaults) < 0 || write_annotations(w, object) < 0 ||
			       write_held(w, function->func_dict) < 0
		       ? -1
		       : 0;
}

static int write_made(struct writer *w, PyObject *object)
{
	PyFunctionObject *function = (PyFunctionObject *)object;
	size_t start = w->used;
	int rc;

	if (write_tag(w, TAG_FUNCTION) < 0)
		return -1;
	rc = write_named(w, function->func_globals, NULL);
	if (rc == 0) { /* exec'd somewhere: the reducer must take what it needs of the globals */
		w->used = start;
		return write_reduced(w, object);
	}
	if (rc > 0)
		rc = write_named(w, function->func_code, function->func_globals);
	if (rc == 0)
		PyErr_Format(NotPortable, "%R: its code has no name", object);
	return rc > 0 ? write_parts(w, object) : -1;
}

int write_function(struct writer *w, PyObject *object)
{
	PyObject *qualname = ((PyFunctionObject *)object)->func_qualname;
	/* "<locals>", "<lambda>": no name leads there, and there may be a new one with every call. */
	bool local = PyUnicode_FindChar(qualname, '<', 0, PyUnicode_GET_LENGTH(qualname), 1) >= 0;
	int rc = local ? 0 : write_named(w, object, NULL);

	return rc == 0 ? write_made(w, object) : rc > 0 ? 0 : -1;
}

static int take_attribute(struct reader *r, PyObject *function, const char *attribute)
{
	PyObject *value;
	int rc = read_slot(r, &value);

	if (rc == 0 && value)
		rc = PyObject_SetAttrString(function, attribute, value);
	Py_XDECREF(value);
	return rc;
}

static int take_closure(struct reader *r, PyObject *function)
{
	Py_ssize_t n = ((PyCodeObject *)PyFunction_GET_CODE(function))->co_nfreevars;
	PyObject *cells;
	bool fits;

	if (read_slot(r, &cells) < 0)
		return -1;
	fits = cells ? PyTuple_CheckExact(cells) && PyTuple_GET_SIZE(cells) == n : n == 0;
	for (Py_ssize_t i = 0; fits && i < n; i++)
		fits = PyCell_Check(PyTuple_GET_ITEM(cells, i));
	if (!fits)
		corrupt("a function without its cells");
	else if (cells && PyFunction_SetClosure(function, cells) < 0)
		fits = false;
	Py_XDECREF(cells);
	return fits ? 0 : -1;
}

static int take_parts(struct reader *r, PyObject *function)
{
	static const char *const first[] = {"__name__", "__module__", "__doc__"};
	static const char *const last[] = {"__defaults__", "__kwdefaults__", "__annotations__", "__dict__"};
	int rc = 0;

	for (int i = 0; rc == 0 && i < 3; i++)
		rc = take_attribute(r, function, first[i]);
	if (rc == 0)
		rc = take_closure(r, function);
	for (int i = 0; rc == 0 && i < 4; i++)
		rc = take_attribute(r, function, last[i]);
	return rc;
}

PyObject *read_function(struct reader *r)
{
	PyObject *globals = read_object(r), *code = globals ? read_object(r) : NULL, *qualname = code ? read_object(r) : NULL;
	PyObject *function = NULL;

	if (qualname && PyCode_Check(code) && PyDict_Check(globals) && PyUnicode_Check(qualname))
		function = seen(r, PyFunction_NewWithQualName(code, globals, qualname));
	else if (qualname)
		corrupt("a function without code or globals");
	if (function && take_parts(r, function) < 0)
		Py_CLEAR(function);
	Py_XDECREF(globals);
	Py_XDECREF(code);
	Py_XDECREF(qualname);
	return function;
}

/* --- methods -------------------------------------------------------------------------------------------------------- */

int write_method(struct writer *w, PyObject *object)
{
	size_t start = w->used;

	if (write_tag(w, TAG_METHOD) < 0 || write_object(w, PyMethod_GET_FUNCTION(object)) < 0 ||
	    write_object(w, PyMethod_GET_SELF(object)) < 0)
		return -1;
	return write_after(w, object, start) < 0 ? -1 : 0;
}

PyObject *read_method(struct reader *r)
{
	PyObject *function = read_object(r), *self = function ? read_object(r) : NULL;
	PyObject *method = self ? PyMethod_New(function, self) : NULL;

	Py_XDECREF(function);
	Py_XDECREF(self);
	return seen(r, method);
}
