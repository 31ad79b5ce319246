/*
 * _frames_restore.c: bytes -> suspended frames.
 *
 * A fresh coroutine comes from calling a function: one that nobody else sees, made once for each code, with a default for
 * every argument. Its own slots are emptied before the captured ones go in, so nothing of that call is left.
 */
#include "_frames_layout.h"

/* --- a coroutine that has not begun --------------------------------------------------------------------------------- */

static PyObject *empty_cells(int n)
{
	PyObject *cells = PyTuple_New(n);

	for (int i = 0; cells && i < n; i++) {
		PyObject *cell = PyCell_New(NULL);

		if (cell)
			PyTuple_SET_ITEM(cells, i, cell);
		else
			Py_CLEAR(cells);
	}
	return cells;
}

/* So that it can be called without any argument. */
static int give_defaults(PyObject *function, PyCodeObject *code)
{
	PyObject *defaults = PyTuple_New(code->co_argcount), *keywords = PyDict_New();
	int rc = defaults && keywords ? 0 : -1;

	for (int i = 0; rc == 0 && i < code->co_argcount; i++)
		PyTuple_SET_ITEM(defaults, i, Py_NewRef(Py_None));
	for (int i = 0; rc == 0 && i < code->co_kwonlyargcount; i++)
		rc = PyDict_SetItem(keywords, PyTuple_GET_ITEM(code->co_localsplusnames, code->co_argcount + i), Py_None);
	if (rc == 0)
		rc = PyFunction_SetDefaults(function, defaults);
	if (rc == 0 && code->co_kwonlyargcount)
		rc = PyObject_SetAttrString(function, "__kwdefaults__", keywords);
	Py_XDECREF(defaults);
	Py_XDECREF(keywords);
	return rc;
}

static PyObject *make_prototype(PyCodeObject *code, PyObject *globals)
{
	PyObject *function = PyFunction_New((PyObject *)code, globals), *cells = NULL;

	if (function && code->co_nfreevars) {
		cells = empty_cells(code->co_nfreevars);
		if (!cells || PyFunction_SetClosure(function, cells) < 0)
			Py_CLEAR(function);
		Py_XDECREF(cells);
	}
	if (function && give_defaults(function, code) < 0)
		Py_CLEAR(function);
	return function;
}

static int keep_prototype(Codec *codec, PyObject *code, PyObject *function)
{
	Py_ssize_t at = PyList_GET_SIZE(codec->prototypes);

	return PyList_Append(codec->prototypes, function) < 0 || identities_put(&codec->codes, code, (uint32_t)at) < 0 ? -1 : 0;
}

/* The last one of each code is kept: by identity, as hashing a code reads all of it. NULL globals: any will do. */
static PyObject *prototype_of(Codec *codec, PyObject *code, PyObject *globals)
{
	struct identity *known = identities_at(&codec->codes, code);
	PyObject *function = known->object ? PyList_GET_ITEM(codec->prototypes, known->number) : NULL;
	uint32_t number = known->number;
	int rc;

	if (function && (!globals || PyFunction_GET_GLOBALS(function) == globals))
		return Py_NewRef(function);
	globals = globals ? Py_NewRef(globals) : PyDict_New();
	if (!globals)
		return NULL;
	rc = function != NULL;
	function = make_prototype((PyCodeObject *)code, globals);
	Py_DECREF(globals);
	if (!function)
		return NULL;
	rc = rc ? PyList_SetItem(codec->prototypes, number, Py_NewRef(function)) : keep_prototype(codec, code, function);
	if (rc < 0)
		Py_CLEAR(function);
	return function;
}

/* Whether calling it gives such a coroutine or generator, and runs nothing. */
static bool is_of(PyObject *code, bool coroutine)
{
	int flags = PyCode_Check(code) ? ((PyCodeObject *)code)->co_flags : 0;
	int kind = flags & (CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR);

	return kind == (coroutine ? CO_COROUTINE : CO_GENERATOR) && flags & CO_OPTIMIZED;
}

static PyGenObject *fresh(struct reader *r, PyObject *code, PyObject *globals, bool coroutine)
{
	PyObject *function, *generator;

	if (!is_of(code, coroutine) || (globals && !PyDict_Check(globals)))
		return (PyGenObject *)corrupt("a frame without its code or globals");
	function = prototype_of(r->codec, code, globals);
	generator = function ? PyObject_CallNoArgs(function) : NULL;
	Py_XDECREF(function);
	if (generator && Py_TYPE(generator) != (coroutine ? &PyCoro_Type : &PyGen_Type)) {
		Py_DECREF(generator);
		return (PyGenObject *)corrupt("a frame whose code is of another kind");
	}
	return (PyGenObject *)generator;
}

/* --- what it is given ----------------------------------------------------------------------------------------------- */

static int read_name(struct reader *r, PyObject **name)
{
	PyObject *object = read_object(r);

	if (object && !PyUnicode_Check(object)) {
		Py_CLEAR(object);
		corrupt("a name that is no string");
	}
	if (!object)
		return -1;
	Py_SETREF(*name, object);
	return 0;
}

static int read_names(struct reader *r, PyGenObject *generator, uint64_t kind)
{
	if (!(kind & KIND_RENAMED))
		return 0;
	return read_name(r, &generator->gi_name) < 0 || read_name(r, &generator->gi_qualname) < 0 ? -1 : 0;
}

/*
 * stacktop counts what has been filled in at any moment: the garbage collector may look, and an error may end it. The
 * locals it counts from the beginning; they are empty.
 */
static int read_slots(struct reader *r, _PyInterpreterFrame *frame)
{
	PyCodeObject *code = code_of(frame);
	uint64_t locals = (uint64_t)code->co_nlocalsplus, n;

	if (read_n(r, &n) < 0)
		return -1;
	if (n < locals || n > locals + (uint64_t)code->co_stacksize) {
		corrupt("a frame with more values than its code has room for");
		return -1;
	}
	clear_slots(frame);
	for (int i = 0; i < (int)n; i++) {
		if (read_slot(r, &frame->localsplus[i]) < 0)
			return -1;
		if (i >= frame->stacktop)
			frame->stacktop = i + 1;
	}
	return 0;
}

/* The state comes last: until then it is one that has not begun, and that nobody can have gone on with. */
static int read_rest(struct reader *r, PyGenObject *generator, uint64_t kind, uint64_t state)
{
	PyCodeObject *code = code_of_generator(generator);
	uint64_t size, offset;

	if (read_names(r, generator, kind) < 0 || read_n(r, &size) < 0 || read_n(r, &offset) < 0 ||
	    read_seen(r, (PyObject *)generator) < 0)
		return -1;
	/* Who gives numbers for names may have mixed them up: a frame over other code would take the process with it. */
	if (size != (uint64_t)Py_SIZE(code) || offset > size) {
		corrupt("a frame whose code is not what it was there");
		return -1;
	}
	if (read_slots(r, frame_of(generator)) < 0)
		return -1;
	if (set_state(generator, state) < 0) {
		corrupt("a frame in a state that is not of this version");
		return -1;
	}
	set_offset(frame_of(generator), (int64_t)offset - 1);
	return 0;
}

static PyObject *read_suspended(struct reader *r, uint64_t kind, uint64_t state)
{
	PyObject *globals = read_object(r), *code = globals ? read_object(r) : NULL;
	PyGenObject *generator = code ? fresh(r, code, globals, kind & KIND_COROUTINE) : NULL;

	if (generator && read_rest(r, generator, kind, state) < 0) {
		frame_forget((PyObject *)generator);
		frame_empty((PyObject *)generator);
		Py_CLEAR(generator);
	}
	Py_XDECREF(code);
	Py_XDECREF(globals);
	return (PyObject *)generator;
}

/* One that has ended: a new one of that code, which ends before its first step. */
static PyObject *read_finished(struct reader *r, uint64_t kind)
{
	PyObject *code = read_object(r);
	PyGenObject *generator = code ? fresh(r, code, NULL, kind & KIND_COROUTINE) : NULL;

	Py_XDECREF(code);
	if (!generator)
		return NULL;
	frame_forget((PyObject *)generator);
	frame_empty((PyObject *)generator);
	if (read_names(r, generator, kind) < 0)
		Py_CLEAR(generator);
	return seen(r, (PyObject *)generator);
}

PyObject *read_frame(struct reader *r)
{
	uint64_t kind, state;

	if (read_n(r, &kind) < 0 || read_n(r, &state) < 0)
		return NULL;
	return state == STATE_FINISHED ? read_finished(r, kind) : read_suspended(r, kind, state);
}
