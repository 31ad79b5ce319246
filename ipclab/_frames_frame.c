/* _frames_frame.c: suspended frames -> bytes, and how they end here. _frames_layout.h knows where things are. */
#include "_frames_layout.h"

/* --- what cannot travel --------------------------------------------------------------------------------------------- */

static bool fatal(void)
{
	return !PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError);
}

static void set_cause(PyObject *cause)
{
	PyObject *type, *value, *trace;

	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	PyException_SetCause(value, cause); /* takes it over */
	PyErr_Restore(type, value, trace);
}

void not_portable(PyCodeObject *code, PyObject *where)
{
	PyObject *type, *value, *trace;

	if (fatal() || (!code && PyErr_ExceptionMatches(NotPortable)))
		return;
	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace)
		PyException_SetTraceback(value, trace);
	if (code)
		PyErr_Format(NotPortable, "%U: %U: %S", code->co_qualname, where, value);
	else
		PyErr_Format(NotPortable, "%S", value);
	if (!Py_IS_TYPE(value, (PyTypeObject *)NotPortable))
		set_cause(Py_NewRef(value));
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(trace);
}

/* What is in that slot, for people. */
static PyObject *slot_name(PyCodeObject *code, int slot)
{
	if (slot >= code->co_nlocalsplus)
		return PyUnicode_FromString("a value of the expression that waits, or of a loop or with around it");
	return PyUnicode_FromFormat("local %R", PyTuple_GET_ITEM(code->co_localsplusnames, slot));
}

/* The first frame to see what cannot be captured says where it was; the ones around it pass that on. */
static void say_where(struct writer *w, PyCodeObject *code, int slot)
{
	PyObject *type, *value, *trace, *name;

	if (w->located || fatal())
		return;
	w->located = true;
	PyErr_Fetch(&type, &value, &trace);
	name = slot_name(code, slot);
	if (!name)
		PyErr_Clear();
	PyErr_Restore(type, value, trace);
	if (name)
		not_portable(code, name);
	Py_XDECREF(name);
}

static int must_stay(struct writer *w, PyCodeObject *code, const char *why)
{
	w->located = true;
	PyErr_Format(NotPortable, "%U: %s", code->co_qualname, why);
	return -1;
}

/* Whether it is in a state that means the same elsewhere. */
static int check(struct writer *w, PyGenObject *generator, enum frame_state state)
{
	PyCodeObject *code = code_of_generator(generator);
	PyObject *handled = generator->gi_exc_state.exc_value;

	if (state == STATE_FINISHED)
		return 0;
	if (state == STATE_RUNNING)
		return must_stay(w, code, "it is running");
	if (handled && handled != Py_None)
		return must_stay(w, code, "suspended while it handles an exception, whose traceback cannot leave the process");
	if (!(code->co_flags & CO_OPTIMIZED)) /* of a function it is a copy, which locals() makes anew */
		return must_stay(w, code, "its locals are in a dictionary");
	return 0;
}

/* --- capture -------------------------------------------------------------------------------------------------------- */

static int write_place(struct writer *w, PyObject *globals, PyCodeObject *code)
{
	int rc = write_named(w, globals, NULL);

	if (rc == 0)
		return must_stay(w, code, "its globals are those of no module");
	if (rc > 0)
		rc = write_named(w, (PyObject *)code, globals);
	if (rc == 0)
		return must_stay(w, code, "its code has no name by which another process finds it");
	return rc > 0 ? 0 : -1;
}

static int write_slots(struct writer *w, _PyInterpreterFrame *frame)
{
	int n = frame->stacktop;

	if (write_n(w, (uint64_t)n) < 0)
		return -1;
	for (int i = 0; i < n; i++) {
		if (write_object(w, frame->localsplus[i]) < 0) {
			say_where(w, code_of(frame), i);
			return -1;
		}
	}
	return 0;
}

/*
 * Writing a value may run code of the user's (__reduce__), or let another thread run. Who then tries to go on with this
 * coroutine is told that it is executing already.
 */
static int write_still(struct writer *w, PyGenObject *generator)
{
	int8_t state = generator->gi_frame_state;
	int rc;

	generator->gi_frame_state = FRAME_EXECUTING;
	rc = write_slots(w, frame_of(generator));
	generator->gi_frame_state = state;
	return rc;
}

/* functools.wraps gives a coroutine another name than that of its code. */
static bool renamed(PyGenObject *generator, PyCodeObject *code)
{
	return generator->gi_name != code->co_name || generator->gi_qualname != code->co_qualname;
}

static int write_head(struct writer *w, PyGenObject *generator, enum frame_state state)
{
	PyCodeObject *code = code_of_generator(generator);
	uint64_t kind = (PyCoro_CheckExact(generator) ? KIND_COROUTINE : 0) | (renamed(generator, code) ? KIND_RENAMED : 0);
	PyObject *globals = state == STATE_FINISHED ? NULL : frame_of(generator)->f_globals;

	if (write_tag(w, TAG_FRAME) < 0 || write_n(w, kind) < 0 || write_n(w, state) < 0)
		return -1;
	if (globals ? write_place(w, globals, code) < 0 : write_must_be_named(w, (PyObject *)code) < 0)
		return -1;
	if (kind & KIND_RENAMED && (write_object(w, generator->gi_name) < 0 || write_object(w, generator->gi_qualname) < 0))
		return -1;
	return 0;
}

int write_frame(struct writer *w, PyGenObject *generator)
{
	enum frame_state state = state_of(generator);
	_PyInterpreterFrame *frame = frame_of(generator);

	if (check(w, generator, state) < 0 || write_head(w, generator, state) < 0)
		return -1;
	if (state == STATE_FINISHED) /* its frame is gone; it still says that it is finished */
		return write_seen(w, (PyObject *)generator);
	if (write_n(w, (uint64_t)Py_SIZE(code_of(frame))) < 0 || write_n(w, (uint64_t)(offset_of(frame) + 1)) < 0 || write_seen(w, (PyObject *)generator) < 0)
		return -1;
	return write_still(w, generator);
}

/* --- the end -------------------------------------------------------------------------------------------------------- */

static bool is_frame(PyObject *object)
{
	return PyCoro_CheckExact(object) || PyGen_CheckExact(object);
}

void frame_forget(PyObject *object)
{
	enum frame_state state = is_frame(object) ? state_of((PyGenObject *)object) : STATE_FINISHED;

	if (state != STATE_FINISHED && state != STATE_RUNNING)
		set_finished((PyGenObject *)object);
}

void frame_empty(PyObject *object)
{
	if (!is_frame(object) || ((PyGenObject *)object)->gi_frame_state != FRAME_COMPLETED)
		return;
	set_offset(frame_of((PyGenObject *)object), BEGINNING); /* cr_await must not look for what it awaits */
	clear_slots(frame_of((PyGenObject *)object));
	Py_CLEAR(frame_of((PyGenObject *)object)->f_locals); /* what locals() left there before 3.13 */
}

/* --- for the self-test ---------------------------------------------------------------------------------------------- */

PyObject *describe(PyObject *object)
{
	PyGenObject *generator = (PyGenObject *)object;
	_PyInterpreterFrame *frame;
	enum frame_state state;

	if (!is_frame(object)) {
		PyErr_SetString(PyExc_TypeError, "a coroutine or generator");
		return NULL;
	}
	state = state_of(generator);
	if (state == STATE_FINISHED || state == STATE_RUNNING)
		return Py_BuildValue("(i)", state);
	frame = frame_of(generator);
	return Py_BuildValue("(iOOLi)", state, code_of(frame), frame->f_globals, (long long)offset_of(frame), frame->stacktop);
}
