/* _frames_read.c: bytes -> objects. The mirror of _frames_write.c: what one numbers, the other numbers at the same place. */
#include "_frames.h"

#include <string.h>

PyObject *corrupt(const char *what)
{
	PyErr_Format(PyExc_ValueError, "these bytes are no capture: %s", what);
	return NULL;
}

int read_n(struct reader *r, uint64_t *n)
{
	*n = 0;
	for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
		unsigned char byte = *r->at++;

		*n |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return 0;
	}
	corrupt("a number without an end");
	return -1;
}

/* So many bytes, or NULL. */
static const unsigned char *take(struct reader *r, uint64_t n)
{
	const unsigned char *bytes = r->at;

	if (n > (uint64_t)(r->end - r->at))
		return (const unsigned char *)corrupt("it ends too early");
	r->at += n;
	return bytes;
}

const unsigned char *read_run(struct reader *r, uint64_t *n)
{
	return read_n(r, n) < 0 ? NULL : take(r, *n);
}

/* How many items follow; each takes a byte at least. */
static int read_count(struct reader *r, uint64_t *n)
{
	if (read_n(r, n) < 0)
		return -1;
	if (*n <= (uint64_t)(r->end - r->at))
		return 0;
	corrupt("it ends too early");
	return -1;
}

int read_seen(struct reader *r, PyObject *object)
{
	if (r->count == r->room) {
		PyObject **more = PyMem_Malloc(r->room * 4 * sizeof *more);

		if (!more) {
			PyErr_NoMemory();
			return -1;
		}
		memcpy(more, r->numbered, r->count * sizeof *more);
		if (r->numbered != r->first)
			PyMem_Free(r->numbered);
		r->numbered = more;
		r->room *= 4;
	}
	r->numbered[r->count++] = Py_NewRef(object);
	return 0;
}

PyObject *seen(struct reader *r, PyObject *object)
{
	if (object && read_seen(r, object) < 0)
		Py_CLEAR(object);
	return object;
}

/* --- values --------------------------------------------------------------------------------------------------------- */

static PyObject *read_int(struct reader *r)
{
	uint64_t n;

	return read_n(r, &n) < 0 ? NULL : PyLong_FromLongLong(unzigzag(n));
}

static PyObject *read_float(struct reader *r)
{
	const unsigned char *bytes = take(r, sizeof(double));
	double value;

	if (!bytes)
		return NULL;
	memcpy(&value, bytes, sizeof value);
	return PyFloat_FromDouble(value);
}

static PyObject *read_flat(struct reader *r, enum tag tag)
{
	uint64_t n;
	const unsigned char *bytes = read_run(r, &n);
	PyObject *object;

	if (!bytes)
		return NULL;
	if (tag == TAG_BIGINT)
		return _PyLong_FromByteArray(bytes, n, 1, 1);
	if (tag == TAG_BYTEARRAY)
		return seen(r, PyByteArray_FromStringAndSize((const char *)bytes, (Py_ssize_t)n));
	object = tag == TAG_STR ? PyUnicode_DecodeUTF8((const char *)bytes, (Py_ssize_t)n, "surrogatepass")
				: PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)n);
	return n >= SHARED_BYTES ? seen(r, object) : object;
}

static PyObject *read_again(struct reader *r)
{
	uint64_t n;

	if (read_n(r, &n) < 0)
		return NULL;
	return n < r->count ? Py_NewRef(r->numbered[n]) : corrupt("an object that was not there yet");
}

static PyObject *read_rather(struct reader *r)
{
	PyObject *other = read_object(r);

	if (!other)
		return NULL;
	Py_DECREF(other);
	return read_again(r);
}

/* --- containers ----------------------------------------------------------------------------------------------------- */

static PyObject *read_tuple(struct reader *r)
{
	PyObject *tuple, *item;
	uint64_t n;

	if (read_count(r, &n) < 0)
		return NULL;
	tuple = PyTuple_New((Py_ssize_t)n);
	for (uint64_t i = 0; tuple && i < n; i++) {
		item = read_object(r);
		if (item)
			PyTuple_SET_ITEM(tuple, i, item);
		else
			Py_CLEAR(tuple);
	}
	return n ? seen(r, tuple) : tuple;
}

static PyObject *read_list(struct reader *r)
{
	PyObject *list = seen(r, PyList_New(0)), *item;
	uint64_t n;

	if (list && read_count(r, &n) < 0)
		Py_CLEAR(list);
	for (uint64_t i = 0; list && i < n; i++) {
		item = read_object(r);
		if (!item || PyList_Append(list, item) < 0)
			Py_CLEAR(list);
		Py_XDECREF(item);
	}
	return list;
}

static PyObject *read_dict(struct reader *r)
{
	PyObject *dict = seen(r, PyDict_New()), *key, *value;
	uint64_t n;

	if (dict && read_count(r, &n) < 0)
		Py_CLEAR(dict);
	for (uint64_t i = 0; dict && i < n; i++) {
		key = read_object(r);
		value = key ? read_object(r) : NULL;
		if (!value || PyDict_SetItem(dict, key, value) < 0)
			Py_CLEAR(dict);
		Py_XDECREF(key);
		Py_XDECREF(value);
	}
	return dict;
}

static PyObject *read_set(struct reader *r, enum tag tag)
{
	PyObject *set = tag == TAG_SET ? seen(r, PySet_New(NULL)) : PyFrozenSet_New(NULL), *item;
	uint64_t n;

	if (set && read_count(r, &n) < 0)
		Py_CLEAR(set);
	for (uint64_t i = 0; set && i < n; i++) {
		item = read_object(r);
		if (!item || PySet_Add(set, item) < 0) /* which fills a frozenset that nobody else has yet */
			Py_CLEAR(set);
		Py_XDECREF(item);
	}
	return tag == TAG_SET ? set : seen(r, set);
}

static PyObject *read_cell(struct reader *r)
{
	PyObject *cell = seen(r, PyCell_New(NULL)), *content;

	if (!cell || read_slot(r, &content) < 0) {
		Py_XDECREF(cell);
		return NULL;
	}
	PyCell_SET(cell, content);
	return cell;
}

/* --- all of them ---------------------------------------------------------------------------------------------------- */

static PyObject *read_tagged(struct reader *r, enum tag tag)
{
	switch (tag) {
	case TAG_NONE:
		return Py_NewRef(Py_None);
	case TAG_TRUE:
		return Py_NewRef(Py_True);
	case TAG_FALSE:
		return Py_NewRef(Py_False);
	case TAG_ELLIPSIS:
		return Py_NewRef(Py_Ellipsis);
	case TAG_NOTIMPLEMENTED:
		return Py_NewRef(Py_NotImplemented);
	case TAG_INT:
		return read_int(r);
	case TAG_FLOAT:
		return read_float(r);
	case TAG_BIGINT:
	case TAG_STR:
	case TAG_BYTES:
	case TAG_BYTEARRAY:
		return read_flat(r, tag);
	case TAG_TUPLE:
		return read_tuple(r);
	case TAG_LIST:
		return read_list(r);
	case TAG_DICT:
		return read_dict(r);
	case TAG_SET:
	case TAG_FROZENSET:
		return read_set(r, tag);
	case TAG_AGAIN:
		return read_again(r);
	case TAG_RATHER:
		return read_rather(r);
	case TAG_CELL:
		return read_cell(r);
	case TAG_NAMED:
	case TAG_NUMBERED:
		return read_named(r, tag);
	case TAG_FUNCTION:
		return read_function(r);
	case TAG_METHOD:
		return read_method(r);
	case TAG_REDUCED:
		return read_reduced(r);
	case TAG_FRAME:
		return read_frame(r);
	case TAG_WRAPPER:
		return read_wrapper(r);
	case TAG_ANEXT:
		return read_anext(r);
	case TAG_SUSPENSION:
		return read_suspension(r);
	case TAG_RANGE_ITER:
		return read_range_iterator(r);
	case TAG_LIST_ITER:
	case TAG_TUPLE_ITER:
		return read_sequence_iterator(r, tag);
	case TAG_DICT_ITER:
		return read_dict_iterator(r);
	case TAG_DICT_VIEW:
		return read_dict_view(r);
	default:
		return corrupt("an unknown tag");
	}
}

int read_slot(struct reader *r, PyObject **object)
{
	const unsigned char *tag = take(r, 1);

	*object = NULL;
	if (!tag)
		return -1;
	if (*tag == TAG_EMPTY)
		return 0;
	if (*tag == TAG_INT) { /* half of what there is: not through the switch */
		*object = read_int(r);
		return *object ? 0 : -1;
	}
	if (Py_EnterRecursiveCall(" while a coroutine was restored"))
		return -1;
	*object = read_tagged(r, *tag);
	Py_LeaveRecursiveCall();
	return *object ? 0 : -1;
}

PyObject *read_object(struct reader *r)
{
	PyObject *object;

	if (read_slot(r, &object) < 0)
		return NULL;
	return object ? object : corrupt("an empty slot where an object must be");
}

/* --- a capture ------------------------------------------------------------------------------------------------------ */

#define ODD UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t fold(uint64_t hash, uint64_t piece)
{
	unsigned __int128 product = (unsigned __int128)(hash ^ piece ^ ODD) * ODD;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t word_at(const unsigned char *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof word);
	return word;
}

/*
 * Against damage, not against malice. It also tells another CPython's captures, whose frames mean something else here.
 * FNV would take a nanosecond for each byte; this folds a 64 by 64 bit product for eight, and four at a time where there
 * is much, as each has to wait for the one before.
 */
uint32_t seal_of(const void *bytes, size_t n)
{
	const unsigned char *at = bytes;
	uint64_t hash = (uint64_t)(PY_VERSION_HEX >> 16) << 8 ^ TAG_COUNT ^ (uint64_t)n << 32, last = 0;

	if (n >= 64) {
		uint64_t lanes[4] = {hash, hash + 1, hash + 2, hash + 3};

		for (; n >= 32; at += 32, n -= 32)
			for (int i = 0; i < 4; i++)
				lanes[i] = fold(lanes[i], word_at(at + 8 * i));
		for (int i = 0; i < 4; i++)
			hash = fold(hash, lanes[i]);
	}
	for (; n >= 8; at += 8, n -= 8)
		hash = fold(hash, word_at(at));
	memcpy(&last, at, n);
	hash = fold(hash, last);
	return (uint32_t)(hash ^ hash >> 32);
}

/* The end of what the seal covers; NULL: it is broken. */
static const unsigned char *sealed(const unsigned char *bytes, size_t n)
{
	uint32_t seal;

	if (n < SEAL_BYTES)
		return (const unsigned char *)corrupt("it ends too early");
	memcpy(&seal, bytes + n - SEAL_BYTES, SEAL_BYTES);
	if (seal != seal_of(bytes, n - SEAL_BYTES))
		return (const unsigned char *)corrupt("they are damaged, or from another version of Python");
	return bytes + n - SEAL_BYTES;
}

/* Half of a capture: what of its coroutines is there must not run its finally blocks, which are still due elsewhere. */
static void abandon_read(struct reader *r)
{
	PyObject *type, *value, *trace;

	PyErr_Fetch(&type, &value, &trace);
	for (size_t i = 0; i < r->count; i++)
		frame_forget(r->numbered[i]);
	for (size_t i = 0; i < r->count; i++)
		frame_empty(r->numbered[i]);
	PyErr_Restore(type, value, trace);
}

PyObject *load(Codec *codec, const void *bytes, size_t n)
{
	PyObject *object;
	struct reader r;

	r.codec = codec;
	r.at = bytes;
	r.end = sealed(bytes, n);
	if (!r.end)
		return NULL;
	r.numbered = r.first;
	r.count = 0, r.room = sizeof r.first / sizeof *r.first;
	object = read_object(&r);
	if (object && r.at != r.end) {
		Py_CLEAR(object);
		corrupt("something follows its end");
	}
	if (!object)
		abandon_read(&r);
	while (r.count > 0)
		Py_DECREF(r.numbered[--r.count]);
	if (r.numbered != r.first)
		PyMem_Free(r.numbered);
	return object;
}
