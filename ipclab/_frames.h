/*
 * _frames.h: a suspended coroutine as bytes. The essay is in _frames.c.
 *
 *   _frames_layout.h   where each CPython version keeps what a suspended frame consists of
 *   _frames_map.c      which objects a capture has met
 *   _frames_values.c   values without parts -> bytes
 *   _frames_write.c    objects -> bytes: containers, and who writes what else
 *   _frames_read.c     bytes -> objects: the mirror of it
 *   _frames_name.c     what goes by its name, and functions, both ways
 *   _frames_reduce.c   whatever pickles, both ways
 *   _frames_iter.c     iterators and views, both ways
 *   _frames_frame.c    suspended frames -> bytes, and their end
 *   _frames_restore.c  bytes -> suspended frames
 *   _frames_await.c    what awaits put between two coroutines, both ways
 *   _frames_suspend.c  Suspension: what the innermost await waits for
 *   _frames.c          the module: Codec, NotPortable
 */
#ifndef IPCLAB_FRAMES_H
#define IPCLAB_FRAMES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * A capture is one object and SEAL_BYTES of checksum. What follows each tag; n is a varint. Objects that can be met again
 * are numbered, in the order in which this says so: before their parts where they can be made empty, else after.
 */
enum tag {
	TAG_EMPTY,         /* no object: an empty slot or cell */
	TAG_NONE,
	TAG_TRUE,
	TAG_FALSE,
	TAG_ELLIPSIS,
	TAG_NOTIMPLEMENTED,
	TAG_INT,           /* n, zigzag */
	TAG_BIGINT,        /* n, bytes: two's complement, little endian */
	TAG_FLOAT,         /* 8 bytes */
	TAG_STR,           /* n, UTF-8 with surrogates passed; numbered from SHARED_BYTES on */
	TAG_BYTES,         /* n, bytes; numbered from SHARED_BYTES on */
	TAG_BYTEARRAY,     /* n, bytes; numbered */
	TAG_TUPLE,         /* n, items; numbered after them, unless n is 0 */
	TAG_LIST,          /* numbered; n, items */
	TAG_DICT,          /* numbered; n, keys and values */
	TAG_SET,           /* numbered; n, items */
	TAG_FROZENSET,     /* n, items; numbered after them */
	TAG_AGAIN,         /* n: the object of that number */
	TAG_RATHER,        /* an object, n: not that one, the object of that number (write_after says why) */
	TAG_CELL,          /* numbered; its content */
	TAG_NAMED,         /* n, bytes: what Codec.find turns into an object; numbered */
	TAG_NUMBERED,      /* n: the same; numbered */
	TAG_FUNCTION,      /* globals, code, qualname; numbered; name, module, doc, closure, defaults,
	                      kwdefaults, annotations, dict */
	TAG_METHOD,        /* function, self; numbered */
	TAG_REDUCED,       /* callable, arguments; numbered; state, list items, dict items, state setter */
	TAG_FRAME,         /* kind, state, globals, code, names, size of the code, offset; numbered; n, slots */
	TAG_WRAPPER,       /* a coroutine, for its __await__(); numbered */
	TAG_ANEXT,         /* what anext() has got, default: for anext() of it; numbered */
	TAG_SUSPENSION,    /* what the innermost await waits for: 0: told, 1: asked, 2: not yet, and the request; numbered */
	TAG_RANGE_ITER,    /* start, step, n: zigzag; numbered */
	TAG_LIST_ITER,     /* n: where; the list, or nothing; numbered */
	TAG_TUPLE_ITER,    /* the same */
	TAG_DICT_ITER,     /* n: kind; used, at, hint: zigzag; the dict, or nothing; numbered */
	TAG_DICT_VIEW,     /* n: kind; the dict; numbered */
	TAG_COUNT
};

#define SHARED_BYTES 64 /* chosen: below, finding out that a string was there before costs more than the string */
#define SEAL_BYTES 4    /* one in four thousand million damaged captures passes for whole */

/* A number for each of some objects, by identity. Open addressing; nothing is taken out. Keeps no references. */
struct identities {
	struct identity {
		PyObject *object;
		uint32_t number;
	} *slots;
	size_t mask, used; /* slots are mask + 1 */
	struct identity few[64]; /* most captures need no more */
};
void identities_begin(struct identities *map);
void identities_end(struct identities *map);
int identities_put(struct identities *map, PyObject *object, uint32_t number);

/* The place of the object, or where it would be put. */
static inline struct identity *identities_at(struct identities *map, PyObject *object)
{
	size_t at = ((uintptr_t)object >> 4) * UINT64_C(0x9e3779b97f4a7c15) >> 32;

	while (map->slots[at &= map->mask].object && map->slots[at].object != object)
		at++;
	return &map->slots[at];
}

/* What one process remembers from one capture to the next. */
typedef struct {
	PyObject_HEAD
	PyObject *name_of; /* object, scope (see write_named) -> int or bytes: its name in every process; None: it has none */
	PyObject *find;    /* int or bytes -> object */
	PyObject *reduce;  /* object without a name -> what __reduce_ex__ would give, or None: it cannot travel */
	struct identities named; /* object -> its place in the two lists */
	PyObject *objects, *names;
	PyObject *found;         /* dict: name -> object */
	struct identities codes; /* code -> its place in the list */
	PyObject *prototypes;    /* functions, each over one code, whose call gives a fresh coroutine */
	PyObject *dispatch;      /* copyreg.dispatch_table */
} Codec;

struct writer {
	Codec *codec;
	char *bytes;     /* first, or what large has */
	PyObject *large; /* NULL: first is enough so far */
	size_t used, room;
	uint32_t numbers;
	bool located; /* the exception says already in which function it arose */
	struct identities seen;
	char first[1024];
};

struct reader {
	Codec *codec;
	const unsigned char *at, *end;
	PyObject **numbered; /* strong */
	size_t count, room;
	PyObject *first[64];
};

extern PyObject *NotPortable;
/* Made once: a name that is made for each look-up costs as much as the look-up. */
extern struct interned {
	PyObject *reduce_ex, *protocol, *setstate, *dict, *extend, *append, *builtins;
} interned;
extern PyTypeObject Suspension_Type;

/* Numbers with a sign, so that small ones stay short. */
static inline uint64_t zigzag(int64_t n)
{
	return (uint64_t)n << 1 ^ (uint64_t)(n >> 63);
}

static inline int64_t unzigzag(uint64_t n)
{
	return (int64_t)(n >> 1 ^ -(n & 1));
}

/* --- writing. All of these: 0, or -1 with an exception -------------------------------------------------------------- */

int write_object(struct writer *w, PyObject *object); /* NULL: TAG_EMPTY */
int write_held(struct writer *w, PyObject *object); /* the same, of what its owner may drop meanwhile */
int write_tag(struct writer *w, enum tag tag);
int write_n(struct writer *w, uint64_t n);
int write_tag_n(struct writer *w, enum tag tag, uint64_t n);
int write_run(struct writer *w, enum tag tag, const void *bytes, size_t n);
int write_int(struct writer *w, PyObject *object);
int write_float(struct writer *w, PyObject *object);
int write_str(struct writer *w, PyObject *object);
int write_bytes(struct writer *w, PyObject *object);
int write_bytearray(struct writer *w, PyObject *object);
int write_buffer(struct writer *w, PyObject *object); /* a PickleBuffer */
PyObject *written(struct writer *w); /* all of it, sealed; a new reference, or NULL with an exception */
int write_seen(struct writer *w, PyObject *object); /* gives it the next number */
/* write_seen for what is numbered after its parts; start: where w->used stood before its tag. 1: it was there already. */
int write_after(struct writer *w, PyObject *object, size_t start);
/*
 * 1: written by its name; 0: it has none, and nothing is written. scope: the globals of a code, the name that an object
 * asked for, else NULL.
 */
int write_named(struct writer *w, PyObject *object, PyObject *scope);
int write_function(struct writer *w, PyObject *object);
int write_method(struct writer *w, PyObject *object);
bool goes_by_name(PyObject *object); /* or not at all, unless the codec's reduce knows how to make it anew */
int write_must_be_named(struct writer *w, PyObject *object);
int write_reduced(struct writer *w, PyObject *object);
int write_frame(struct writer *w, PyGenObject *generator);
int write_suspension(struct writer *w, PyObject *object);
/* 1: it was one, written; 0: it is none. */
int write_awaitable(struct writer *w, PyObject *object);
int write_iterator(struct writer *w, PyObject *object);

/* --- reading. A new reference, or NULL with an exception ------------------------------------------------------------ */

PyObject *read_object(struct reader *r);
int read_slot(struct reader *r, PyObject **object); /* which may be NULL */
int read_n(struct reader *r, uint64_t *n);
const unsigned char *read_run(struct reader *r, uint64_t *n);
int read_seen(struct reader *r, PyObject *object);
PyObject *seen(struct reader *r, PyObject *object); /* the object, numbered; or NULL, and it is freed */
PyObject *read_named(struct reader *r, enum tag tag);
PyObject *read_function(struct reader *r);
PyObject *read_method(struct reader *r);
PyObject *read_reduced(struct reader *r);
PyObject *read_frame(struct reader *r);
PyObject *read_suspension(struct reader *r);
PyObject *read_wrapper(struct reader *r);
PyObject *read_anext(struct reader *r);
PyObject *read_range_iterator(struct reader *r);
PyObject *read_sequence_iterator(struct reader *r, enum tag tag);
PyObject *read_dict_iterator(struct reader *r);
PyObject *read_dict_view(struct reader *r);
PyObject *corrupt(const char *what);

/* --- both, for the module ------------------------------------------------------------------------------------------- */

PyObject *dump(Codec *codec, PyObject *object);
PyObject *load(Codec *codec, const void *bytes, size_t n);
int abandon(Codec *codec, PyObject *object);
/*
 * A suspended coroutine or generator ends here, and runs nothing more: not its finally, not its __exit__. First forget all
 * that belong together, then empty them: what one of them holds might otherwise be the last reference to the next.
 */
void frame_forget(PyObject *object);
void frame_empty(PyObject *object);
/* What this module believes about a suspended coroutine, for the self-test. */
PyObject *describe(PyObject *generator);
uint32_t seal_of(const void *bytes, size_t n);
/* Turns any exception but the fatal ones into NotPortable; where: what of that function could not be captured, or NULL. */
void not_portable(PyCodeObject *code, PyObject *where);

#endif
