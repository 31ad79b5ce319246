/*
 * _frames_layout.h: where CPython 3.11, 3.12 and 3.13 keep what a suspended frame consists of.
 *
 * The structures are those of the interpreter's own internal headers (pycore_frame.h), so the compiler knows the offsets;
 * this file knows what the fields are called and what they mean in which version. A version that is not here is refused
 * when it is compiled; one whose structures were changed within a version is found out by the self-test at import.
 */
#ifndef IPCLAB_FRAMES_LAYOUT_H
#define IPCLAB_FRAMES_LAYOUT_H

#include "_frames.h"

#if PY_VERSION_HEX < 0x030b0000 || PY_VERSION_HEX >= 0x030e0000 || defined(Py_GIL_DISABLED)
#error "_frames knows the frames of CPython 3.11, 3.12 and 3.13, with the GIL"
#endif

#define Py_BUILD_CORE 1
#include "internal/pycore_frame.h"
#undef Py_BUILD_CORE

/* What the interpreter's states mean here; the numbers travel. */
enum frame_state {
	STATE_CREATED = 0,   /* not a step taken */
	STATE_SUSPENDED = 1, /* at a yield, or at an await before 3.13, which does not tell the two apart */
	STATE_AWAITING = 2,  /* 3.13: at an await, or a yield from */
	STATE_FINISHED = 3,
	STATE_RUNNING = 4,   /* never written */
};

/* What else travels about a frame. */
enum frame_kind {
	KIND_COROUTINE = 1, /* else a generator */
	KIND_RENAMED = 2,   /* name and qualified name are not those of the code, and follow */
};

static inline _PyInterpreterFrame *frame_of(PyGenObject *generator)
{
	return (_PyInterpreterFrame *)generator->gi_iframe;
}

static inline PyCodeObject *code_of(_PyInterpreterFrame *frame)
{
#if PY_VERSION_HEX >= 0x030d0000
	return (PyCodeObject *)frame->f_executable;
#else
	return frame->f_code;
#endif
}

/* Also when it has ended and the frame is gone. */
static inline PyCodeObject *code_of_generator(PyGenObject *generator)
{
#if PY_VERSION_HEX >= 0x030c0000
	return code_of(frame_of(generator));
#else
	return generator->gi_code;
#endif
}

static inline enum frame_state state_of(PyGenObject *generator)
{
	int state = generator->gi_frame_state;

	if (state == FRAME_CREATED)
		return STATE_CREATED;
	if (state == FRAME_SUSPENDED)
		return STATE_SUSPENDED;
#if PY_VERSION_HEX >= 0x030d0000
	if (state == FRAME_SUSPENDED_YIELD_FROM)
		return STATE_AWAITING;
#endif
	return state == FRAME_EXECUTING ? STATE_RUNNING : STATE_FINISHED;
}

/* As if it had returned; the interpreter clears the frame when the generator is freed. */
static inline void set_finished(PyGenObject *generator)
{
	generator->gi_frame_state = FRAME_COMPLETED;
}

static inline int set_state(PyGenObject *generator, uint64_t state)
{
	switch (state) {
	case STATE_CREATED:
		generator->gi_frame_state = FRAME_CREATED;
		return 0;
	case STATE_SUSPENDED:
		generator->gi_frame_state = FRAME_SUSPENDED;
		return 0;
#if PY_VERSION_HEX >= 0x030d0000
	case STATE_AWAITING:
		generator->gi_frame_state = FRAME_SUSPENDED_YIELD_FROM;
		return 0;
#endif
	}
	return -1;
}

/* In code units from the first. 3.11 and 3.12: of the instruction before the next one, -1 for none; 3.13: of the next. */
static inline int64_t offset_of(_PyInterpreterFrame *frame)
{
#if PY_VERSION_HEX >= 0x030d0000
	return frame->instr_ptr - _PyCode_CODE(code_of(frame));
#else
	return frame->prev_instr - _PyCode_CODE(code_of(frame));
#endif
}

static inline void set_offset(_PyInterpreterFrame *frame, int64_t offset)
{
#if PY_VERSION_HEX >= 0x030d0000
	frame->instr_ptr = _PyCode_CODE(code_of(frame)) + offset;
#else
	frame->prev_instr = _PyCode_CODE(code_of(frame)) + offset;
#endif
}

/* The offset of a frame that has not run at all. */
#if PY_VERSION_HEX >= 0x030d0000
#define BEGINNING 0
#else
#define BEGINNING (-1)
#endif

/* Back to as many empty locals as the code has: the interpreter wants to see no fewer. */
static inline void clear_slots(_PyInterpreterFrame *frame)
{
	int locals = code_of(frame)->co_nlocalsplus;

	while (frame->stacktop > locals) {
		frame->stacktop--;
		Py_CLEAR(frame->localsplus[frame->stacktop]);
	}
	for (int i = 0; i < locals; i++)
		Py_CLEAR(frame->localsplus[i]);
}

#endif
