/* _frames_values.c: the bytes of a capture, and the values without parts that go into them. The format is in _frames.h. */
#include "_frames.h"

#include <string.h>

/* --- bytes ---------------------------------------------------------------------------------------------------------- */

/* What does not fit into the first kilobyte goes into what will be the result, so that it is not copied once more. */
static int make_room(struct writer *w, size_t n)
{
	size_t least = w->used + n + SEAL_BYTES, room = w->room * 2 > least ? w->room * 2 : least;

	if (w->large) {
		if (_PyBytes_Resize(&w->large, (Py_ssize_t)room) < 0) {
			w->room = w->used; /* which has been freed */
			return -1;
		}
	} else {
		w->large = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
		if (!w->large)
			return -1;
		memcpy(PyBytes_AS_STRING(w->large), w->first, w->used);
	}
	w->bytes = PyBytes_AS_STRING(w->large);
	w->room = room;
	return 0;
}

static inline int reserve(struct writer *w, size_t n)
{
	return w->room - w->used >= n ? 0 : make_room(w, n);
}

static inline void put_n(struct writer *w, uint64_t n)
{
	for (; n >= 0x80; n >>= 7)
		w->bytes[w->used++] = (char)(n | 0x80);
	w->bytes[w->used++] = (char)n;
}

int write_tag(struct writer *w, enum tag tag)
{
	if (reserve(w, 1) < 0)
		return -1;
	w->bytes[w->used++] = (char)tag;
	return 0;
}

int write_n(struct writer *w, uint64_t n)
{
	if (reserve(w, 10) < 0)
		return -1;
	put_n(w, n);
	return 0;
}

int write_tag_n(struct writer *w, enum tag tag, uint64_t n)
{
	if (reserve(w, 11) < 0)
		return -1;
	w->bytes[w->used++] = (char)tag;
	put_n(w, n);
	return 0;
}

int write_run(struct writer *w, enum tag tag, const void *bytes, size_t n)
{
	if (reserve(w, n + 11) < 0)
		return -1;
	w->bytes[w->used++] = (char)tag;
	put_n(w, n);
	memcpy(w->bytes + w->used, bytes, n);
	w->used += n;
	return 0;
}

/* Kept until the end: the memory of one that was freed might become another object, and pass for it. */
int write_seen(struct writer *w, PyObject *object)
{
	if (identities_put(&w->seen, object, w->numbers++) < 0)
		return -1;
	Py_INCREF(object);
	return 0;
}

/*
 * A tuple that holds itself, by way of a list, has been written whole, and numbered, within itself. The reader has then
 * made one; this second one he must read, count, and not take.
 */
int write_after(struct writer *w, PyObject *object, size_t start)
{
	struct identity *before = identities_at(&w->seen, object);

	if (!before->object)
		return write_seen(w, object);
	if (reserve(w, 1) < 0)
		return -1;
	memmove(w->bytes + start + 1, w->bytes + start, w->used++ - start);
	w->bytes[start] = TAG_RATHER;
	w->numbers++;
	return write_n(w, before->number) < 0 ? -1 : 1;
}

/* --- values --------------------------------------------------------------------------------------------------------- */

static int write_bigint(struct writer *w, PyObject *object)
{
	size_t n = _PyLong_NumBits(object) / 8 + 1;
	unsigned char *bytes = PyMem_Malloc(n);
	int rc;

	if (!bytes) {
		PyErr_NoMemory();
		return -1;
	}
#if PY_VERSION_HEX >= 0x030d0000
	rc = _PyLong_AsByteArray((PyLongObject *)object, bytes, n, 1, 1, 1);
#else
	rc = _PyLong_AsByteArray((PyLongObject *)object, bytes, n, 1, 1);
#endif
	if (rc == 0)
		rc = write_run(w, TAG_BIGINT, bytes, n);
	PyMem_Free(bytes);
	return rc;
}

int write_int(struct writer *w, PyObject *object)
{
	int overflow;
	long long value = PyLong_AsLongLongAndOverflow(object, &overflow);

	return overflow ? write_bigint(w, object) : write_tag_n(w, TAG_INT, zigzag(value));
}

static int write_encoded(struct writer *w, PyObject *object)
{
	PyObject *encoded = PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass");
	Py_ssize_t n = encoded ? PyBytes_GET_SIZE(encoded) : 0;
	int rc = encoded ? 0 : -1;

	if (rc == 0 && n >= SHARED_BYTES)
		rc = write_seen(w, object);
	if (rc == 0)
		rc = write_run(w, TAG_STR, PyBytes_AS_STRING(encoded), (size_t)n);
	Py_XDECREF(encoded);
	return rc;
}

int write_str(struct writer *w, PyObject *object)
{
	Py_ssize_t n = PyUnicode_GET_LENGTH(object);

	if (!PyUnicode_IS_COMPACT_ASCII(object))
		return write_encoded(w, object);
	if (n >= SHARED_BYTES && write_seen(w, object) < 0)
		return -1;
	return write_run(w, TAG_STR, PyUnicode_1BYTE_DATA(object), (size_t)n);
}

int write_bytes(struct writer *w, PyObject *object)
{
	Py_ssize_t n = PyBytes_GET_SIZE(object);

	if (n >= SHARED_BYTES && write_seen(w, object) < 0)
		return -1;
	return write_run(w, TAG_BYTES, PyBytes_AS_STRING(object), (size_t)n);
}

int write_float(struct writer *w, PyObject *object)
{
	double value = PyFloat_AS_DOUBLE(object);

	if (reserve(w, 1 + sizeof value) < 0)
		return -1;
	w->bytes[w->used] = TAG_FLOAT;
	memcpy(w->bytes + w->used + 1, &value, sizeof value);
	w->used += 1 + sizeof value;
	return 0;
}

int write_bytearray(struct writer *w, PyObject *object)
{
	if (write_seen(w, object) < 0)
		return -1;
	return write_run(w, TAG_BYTEARRAY, PyByteArray_AS_STRING(object), (size_t)PyByteArray_GET_SIZE(object));
}

/* What protocol 5 would send out of band: here it is in band, and as there, writable is a bytearray. */
int write_buffer(struct writer *w, PyObject *object)
{
	const Py_buffer *view = PyPickleBuffer_GetBuffer(object);

	if (!view)
		return -1;
	if (!PyBuffer_IsContiguous(view, 'A')) {
		PyErr_SetString(NotPortable, "a PickleBuffer that is not contiguous");
		return -1;
	}
	if (!view->readonly || view->len >= SHARED_BYTES)
		w->numbers++; /* the reader counts it; nothing here can mean it again */
	return write_run(w, view->readonly ? TAG_BYTES : TAG_BYTEARRAY, view->buf, (size_t)view->len);
}

PyObject *written(struct writer *w)
{
	uint32_t seal = seal_of(w->bytes, w->used);
	PyObject *bytes;

	if (reserve(w, SEAL_BYTES) < 0)
		return NULL;
	memcpy(w->bytes + w->used, &seal, SEAL_BYTES);
	w->used += SEAL_BYTES;
	if (!w->large)
		return PyBytes_FromStringAndSize(w->bytes, (Py_ssize_t)w->used);
	bytes = w->large;
	w->large = NULL;
	_PyBytes_Resize(&bytes, (Py_ssize_t)w->used);
	return bytes;
}
