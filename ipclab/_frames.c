/*
 * _frames.c: a running coroutine that stops in one process and goes on in another. This header is the essay.
 *
 * Vocabulary
 *   suspended   a coroutine (or generator) stands at an await or yield; nothing of it is on the C stack
 *   frame       what it consists of then: code, globals, where it goes on, its locals, cells and half-evaluated values
 *   capture     a suspended coroutine, with all it awaits, as bytes: Codec.dump
 *   restore     a new coroutine from such bytes, in any process that has the same code: Codec.load
 *   name        under which another process finds what cannot be made anew: functions, classes, modules, code, globals
 *
 * The problem. A G must be able to go on in any M, and Ms are processes. Pickle cannot: a coroutine has no constructor
 * that says "and you are in the middle of line 7, in the second pass of that loop".
 *
 * Rejected
 *   - to replay the function up to the same await: its side effects would happen twice
 *   - to rewrite the source into a state machine: tracebacks, debuggers and closures would see another program
 *   - to move the whole process image: the point is that many Gs share one M
 *   - a subclass of pickle.Pickler: 17 us for two frames, nearly all of it setting it up and looking up names
 *
 * Chosen. The interpreter keeps a suspended frame in the coroutine object itself (since 3.11): `localsplus`, an array of
 * locals, cells, free variables and then the value stack, of which `stacktop` slots are in use, and a pointer to the
 * instruction. A coroutine is restored by calling a function over the same code, which gives one that has not taken a
 * step, and giving that one the slots, the offset and the state of the captured one. The value stack holds the iterators
 * of the loops around the await and, on top, what is awaited: the next coroutine, down to a Suspension. So one walk over
 * the slots captures the whole chain, and as long as it is one walk, what two frames share stays shared.
 *
 *      main()                     fetch()                     Suspension
 *      +-----------------+        +-----------------+
 *      | locals, cells   |        | locals, cells   |         asked; waits to be told
 *      | range_iterator  |        | fetch's stack   |            ^
 *      | fetch() --------|------->| ----------------|------------+
 *      +-----------------+        +-----------------+
 *
 * What the bytes rest on: both processes run this same version of CPython and found the same code under the same name. A
 * name of ipclab.gmp.names has a checksum of the code in it; the bytes end with one of themselves, which the version is
 * part of; and what is read is checked against its bounds all the same. None of this is a defence against malice: like
 * pickle, load calls what the bytes say.
 *
 * What must hold
 *   1. Capturing changes nothing: the coroutine can still go on where it is. Meanwhile it is marked as executing, so that
 *      neither a __reduce__ nor another thread goes on with it while it is read.
 *   2. An object that two places share is shared again, if it travels in the same capture; a cell above all.
 *   3. Nothing else is kept alive: an argument that the function has dropped does not travel.
 *   4. What cannot travel says so (NotPortable) before anything has happened: which function, which local, and why.
 *   5. A frame under restoration is at every moment one that the garbage collector may visit and an error may free.
 *   6. A coroutine that has moved must not end here too, with its finally blocks and __exit__: abandon takes it away.
 *
 * What cannot travel: a coroutine that runs; one that stands in an `except` block (its traceback refers to frames of this
 * process); async generators, and what is built on them (asynccontextmanager); functions and frames whose globals are
 * those of no module; whatever pickle refuses (open files, locks, sockets).
 *
 * What travels but means another thing there: the number of a file descriptor, id(), thread-locals. An object that a
 * module's global refers to, and a local or a half-evaluated expression too, becomes a copy: `SEEN.append(await x)` appends
 * to a list that is no longer the global SEEN, `got = await x; SEEN.append(got)` to that of the process it is in by then.
 * An exception loses traceback, cause and context, as in pickle. A set may be in another order, and a loop over it no
 * longer notices that it changes.
 */
#include "_frames.h"

PyObject *NotPortable;
struct interned interned;

/* --- Codec ---------------------------------------------------------------------------------------------------------- */

static int codec_traverse(PyObject *object, visitproc visit, void *arg)
{
	Codec *self = (Codec *)object;

	Py_VISIT(self->name_of);
	Py_VISIT(self->find);
	Py_VISIT(self->reduce);
	Py_VISIT(self->objects);
	Py_VISIT(self->names);
	Py_VISIT(self->found);
	Py_VISIT(self->prototypes);
	Py_VISIT(self->dispatch);
	return 0;
}

static int codec_clear(PyObject *object)
{
	Codec *self = (Codec *)object;

	identities_end(&self->named); /* before what they name is freed */
	identities_end(&self->codes);
	identities_begin(&self->named);
	identities_begin(&self->codes);
	Py_CLEAR(self->name_of);
	Py_CLEAR(self->find);
	Py_CLEAR(self->reduce);
	Py_CLEAR(self->objects);
	Py_CLEAR(self->names);
	Py_CLEAR(self->found);
	Py_CLEAR(self->prototypes);
	Py_CLEAR(self->dispatch);
	return 0;
}

static void codec_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	codec_clear(self);
	identities_end(&((Codec *)self)->named);
	identities_end(&((Codec *)self)->codes);
	Py_TYPE(self)->tp_free(self);
}

static PyObject *dispatch_table(void)
{
	PyObject *copyreg = PyImport_ImportModule("copyreg");
	PyObject *table = copyreg ? PyObject_GetAttrString(copyreg, "dispatch_table") : NULL;

	Py_XDECREF(copyreg);
	return table;
}

static PyObject *codec_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
	static char *keywords[] = {"name_of", "find", "reduce", NULL};
	PyObject *name_of, *find, *reduce = Py_None;
	Codec *self;

	if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|O:Codec", keywords, &name_of, &find, &reduce))
		return NULL;
	self = (Codec *)type->tp_alloc(type, 0);
	if (!self)
		return NULL;
	identities_begin(&self->named);
	identities_begin(&self->codes);
	self->name_of = Py_NewRef(name_of);
	self->find = Py_NewRef(find);
	self->reduce = Py_NewRef(reduce);
	self->objects = PyList_New(0);
	self->names = PyList_New(0);
	self->found = PyDict_New();
	self->prototypes = PyList_New(0);
	self->dispatch = dispatch_table();
	if (!self->objects || !self->names || !self->found || !self->prototypes || !self->dispatch)
		Py_CLEAR(self);
	return (PyObject *)self;
}

static int usable(Codec *self)
{
	if (self->find)
		return 1;
	PyErr_SetString(PyExc_RuntimeError, "this Codec has been cleared by the garbage collector");
	return 0;
}

static PyObject *codec_dump(PyObject *self, PyObject *object)
{
	return usable((Codec *)self) ? dump((Codec *)self, object) : NULL;
}

static PyObject *codec_load(PyObject *self, PyObject *bytes)
{
	PyObject *object;
	Py_buffer view;

	if (!usable((Codec *)self) || PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	object = load((Codec *)self, view.buf, (size_t)view.len);
	PyBuffer_Release(&view);
	return object;
}

static PyObject *codec_abandon(PyObject *self, PyObject *object)
{
	if (!usable((Codec *)self) || abandon((Codec *)self, object) < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyMethodDef codec_methods[] = {
	{"dump", codec_dump, METH_O,
	 PyDoc_STR("dump(object) -> bytes. Suspended coroutines and generators within it are captured, nothing is changed.\n"
		   "NotPortable names what cannot travel.")},
	{"load", codec_load, METH_O, PyDoc_STR("load(bytes) -> object: a copy of what was dumped, coroutines ready to go on.\n"
					       "The bytes must come from dump of the same build: they may call anything.")},
	{"abandon", codec_abandon, METH_O,
	 PyDoc_STR("abandon(object): the coroutines and generators that dump captures end here, and run nothing more: they go\n"
		   "on elsewhere, and so do their finally blocks. NotPortable: it cannot be captured, and nothing has happened.")},
	{NULL, NULL, 0, NULL},
};

static PyTypeObject Codec_Type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "ipclab._frames.Codec",
	.tp_doc = PyDoc_STR("Codec(name_of, find, reduce=None): turns objects, suspended coroutines among them, into bytes and\n"
			    "back.\n\n"
			    "name_of(object, globals) gives the int or bytes under which find(name), in any process, gives the\n"
			    "same function, class, module, code (then globals are its function's, else None) or dictionary of\n"
			    "globals; None: it has no name. Both are asked once. reduce(object) says, as __reduce_ex__ would, how\n"
			    "to make anew what has no name or refuses to pickle; None: it cannot."),
	.tp_basicsize = sizeof(Codec),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_new = codec_new,
	.tp_dealloc = codec_dealloc,
	.tp_traverse = codec_traverse,
	.tp_clear = codec_clear,
	.tp_methods = codec_methods,
};

/* --- the module ----------------------------------------------------------------------------------------------------- */

static PyObject *module_describe(PyObject *module, PyObject *generator)
{
	(void)module;
	return describe(generator);
}

static PyMethodDef module_methods[] = {
	{"describe", module_describe, METH_O,
	 PyDoc_STR("describe(coroutine) -> (state, code, globals, offset, values): what this module takes its frame for.")},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_def = {
	PyModuleDef_HEAD_INIT,
	.m_name = "ipclab._frames",
	.m_doc = "Captures suspended coroutines and restores them, in another process. Reads the interpreter's structures.",
	.m_size = -1,
	.m_methods = module_methods,
};

static int make_interned(void)
{
	interned.reduce_ex = PyUnicode_InternFromString("__reduce_ex__");
	interned.protocol = PyLong_FromLong(5);
	interned.setstate = PyUnicode_InternFromString("__setstate__");
	interned.dict = PyUnicode_InternFromString("__dict__");
	interned.extend = PyUnicode_InternFromString("extend");
	interned.append = PyUnicode_InternFromString("append");
	interned.builtins = PyUnicode_InternFromString("__builtins__");
	return PyErr_Occurred() ? -1 : 0;
}

/* A class of ours like any other error, so that whoever catches IpclabError catches it. */
static int get_error(void)
{
	PyObject *errors = PyImport_ImportModule("ipclab.errors");

	NotPortable = errors ? PyObject_GetAttrString(errors, "NotPortable") : NULL;
	Py_XDECREF(errors);
	return NotPortable ? 0 : -1;
}

PyMODINIT_FUNC PyInit__frames(void)
{
	PyObject *module = PyModule_Create(&module_def);

	if (!module)
		return NULL;
	if (make_interned() < 0 || get_error() < 0 || PyModule_AddObjectRef(module, "NotPortable", NotPortable) < 0 ||
	    PyModule_AddType(module, &Suspension_Type) < 0 || PyModule_AddType(module, &Codec_Type) < 0)
		Py_CLEAR(module);
	return module;
}
