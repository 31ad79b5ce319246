/*
 * _frames_iter.c: the iterators that loops leave on the value stack, and the views of a dict, both ways.
 *
 * They pickle, but not as what they are: an iterator over a dict becomes one over a list of what was still to come, which
 * no longer sees that a value was replaced. And pickling costs half a microsecond for each loop around the await. The
 * structures are those of rangeobject.c, listobject.c, tupleobject.c and dictobject.c; the self-test tries each.
 */
#include "_frames.h"

#define Py_BUILD_CORE 1
#if PY_VERSION_HEX >= 0x030c0000
#include "internal/pycore_range.h"
#endif
#undef Py_BUILD_CORE

/* --- range ---------------------------------------------------------------------------------------------------------- */

#if PY_VERSION_HEX >= 0x030c0000
typedef _PyRangeIterObject RangeIter;

static long next_of(RangeIter *iter)
{
	return iter->start;
}

static long left_of(RangeIter *iter)
{
	return iter->len;
}
#else
typedef struct {
	PyObject_HEAD
	long index, start, step, len;
} RangeIter;

static long next_of(RangeIter *iter)
{
	return (long)((unsigned long)iter->start + (unsigned long)iter->index * (unsigned long)iter->step);
}

static long left_of(RangeIter *iter)
{
	return iter->len - iter->index;
}
#endif

static int write_range(struct writer *w, PyObject *object)
{
	RangeIter *iter = (RangeIter *)object;

	if (write_tag_n(w, TAG_RANGE_ITER, zigzag(next_of(iter))) < 0 || write_n(w, zigzag(iter->step)) < 0 ||
	    write_n(w, zigzag(left_of(iter))) < 0)
		return -1;
	return write_seen(w, object);
}

PyObject *read_range_iterator(struct reader *r)
{
	uint64_t start, step, left;
	RangeIter *iter;

	if (read_n(r, &start) < 0 || read_n(r, &step) < 0 || read_n(r, &left) < 0)
		return NULL;
	iter = PyObject_New(RangeIter, &PyRangeIter_Type);
	if (!iter)
		return NULL;
#if PY_VERSION_HEX < 0x030c0000
	iter->index = 0;
#endif
	iter->start = (long)unzigzag(start);
	iter->step = (long)unzigzag(step);
	iter->len = (long)unzigzag(left);
	return seen(r, (PyObject *)iter);
}

/* Over something empty: it ends as the interpreter ends it, which is not the same in every version. */
static PyObject *ended(PyObject *iter)
{
	if (iter) {
		PyObject *item = Py_TYPE(iter)->tp_iternext(iter);

		Py_XDECREF(item);
	}
	return iter;
}

/* --- list and tuple ------------------------------------------------------------------------------------------------- */

typedef struct { /* one structure serves both */
	PyObject_HEAD
	Py_ssize_t index;
	PyObject *sequence; /* NULL: it has ended */
} SequenceIter;

static int write_sequence(struct writer *w, PyObject *object, enum tag tag)
{
	SequenceIter *iter = (SequenceIter *)object;
	size_t start = w->used;

	if (write_tag_n(w, tag, iter->sequence ? (uint64_t)iter->index : 0) < 0 || write_held(w, iter->sequence) < 0)
		return -1;
	return write_after(w, object, start) < 0 ? -1 : 0;
}

static PyObject *iterator_over(PyObject *sequence, enum tag tag)
{
	PyObject *any = sequence ? Py_NewRef(sequence) : tag == TAG_LIST_ITER ? PyList_New(0) : PyTuple_New(0), *iter;

	if (!any)
		return NULL;
	/* Not PyObject_GetIter: a subclass may have its own __iter__, and what was captured was the plain one. */
	iter = (tag == TAG_LIST_ITER ? PyList_Type.tp_iter : PyTuple_Type.tp_iter)(any);
	Py_DECREF(any);
	return sequence ? iter : ended(iter);
}

PyObject *read_sequence_iterator(struct reader *r, enum tag tag)
{
	PyObject *sequence = NULL, *iter = NULL;
	uint64_t index;

	if (read_n(r, &index) < 0 || read_slot(r, &sequence) < 0)
		return NULL;
	if (index > PY_SSIZE_T_MAX || (sequence && !(tag == TAG_LIST_ITER ? PyList_Check(sequence) : PyTuple_Check(sequence))))
		corrupt("an iterator over nothing of its kind");
	else
		iter = iterator_over(sequence, tag);
	if (iter && sequence)
		((SequenceIter *)iter)->index = (Py_ssize_t)index;
	Py_XDECREF(sequence);
	return seen(r, iter);
}

/* --- dict ----------------------------------------------------------------------------------------------------------- */

typedef struct { /* dictobject.c: dictiterobject */
	PyObject_HEAD
	PyObject *dict; /* NULL: it has ended */
	Py_ssize_t used; /* how many there were when it began; -1: it has complained */
	Py_ssize_t at;
	PyObject *result;
	Py_ssize_t hint;
} DictIter;

static const struct kind { /* its place in the list travels */
	PyTypeObject *iterator;
	PyTypeObject *view;
	const char *name;
	bool backwards;
} kinds[] = {
	{&PyDictIterKey_Type, &PyDictKeys_Type, "keys", false},
	{&PyDictIterValue_Type, &PyDictValues_Type, "values", false},
	{&PyDictIterItem_Type, &PyDictItems_Type, "items", false},
	{&PyDictRevIterKey_Type, NULL, "keys", true},
	{&PyDictRevIterValue_Type, NULL, "values", true},
	{&PyDictRevIterItem_Type, NULL, "items", true},
};
#define KINDS ((int)(sizeof kinds / sizeof *kinds))

/* How many of the dict's items lie before that place in its table: there, where it is filled anew, no holes are left. */
static Py_ssize_t items_before(PyObject *dict, Py_ssize_t place)
{
	Py_ssize_t at = 0, count = 0;
	PyObject *key, *value;

	while (PyDict_Next(dict, &at, &key, &value) && at <= place)
		count++;
	return count;
}

static int write_dict_iterator(struct writer *w, PyObject *object, int kind)
{
	DictIter *iter = (DictIter *)object;
	Py_ssize_t at = 0;
	size_t start = w->used;

	if (iter->dict) /* backwards, `at` is the place of the next one, not the one behind it */
		at = kinds[kind].backwards ? items_before(iter->dict, iter->at + 1) - 1 : items_before(iter->dict, iter->at);
	if (write_tag_n(w, TAG_DICT_ITER, (uint64_t)kind) < 0 || write_n(w, zigzag(iter->used)) < 0 ||
	    write_n(w, zigzag(at)) < 0 || write_n(w, zigzag(iter->hint)) < 0 || write_held(w, iter->dict) < 0)
		return -1;
	return write_after(w, object, start) < 0 ? -1 : 0;
}

static PyObject *view_of(PyObject *dict, const char *name)
{
	return PyObject_CallMethod((PyObject *)&PyDict_Type, name, "O", dict);
}

static PyObject *new_dict_iterator(PyObject *dict, const struct kind *kind)
{
	PyObject *any = dict ? Py_NewRef(dict) : PyDict_New();
	PyObject *view = any ? view_of(any, kind->name) : NULL, *iter = NULL;

	if (view)
		iter = kind->backwards ? PyObject_CallMethod(view, "__reversed__", NULL) : PyObject_GetIter(view);
	Py_XDECREF(view);
	Py_XDECREF(any);
	return dict ? iter : ended(iter);
}

PyObject *read_dict_iterator(struct reader *r)
{
	uint64_t kind, used, at, hint;
	PyObject *dict = NULL, *iter = NULL;

	if (read_n(r, &kind) < 0 || read_n(r, &used) < 0 || read_n(r, &at) < 0 || read_n(r, &hint) < 0 ||
	    read_slot(r, &dict) < 0)
		return NULL;
	/* The dict may be one that holds this iterator and is not full yet: its size says nothing about `at`. */
	if (kind >= (uint64_t)KINDS || (dict && !PyDict_Check(dict)) || unzigzag(at) < -1)
		corrupt("an iterator over no dict");
	else
		iter = new_dict_iterator(dict, &kinds[kind]);
	if (iter && dict) {
		((DictIter *)iter)->used = (Py_ssize_t)unzigzag(used);
		((DictIter *)iter)->at = (Py_ssize_t)unzigzag(at);
		((DictIter *)iter)->hint = (Py_ssize_t)unzigzag(hint);
	}
	Py_XDECREF(dict);
	return seen(r, iter);
}

typedef struct { /* _PyDictViewObject, which 3.13 no longer shows */
	PyObject_HEAD
	PyObject *dict;
} DictView;

static int write_view(struct writer *w, PyObject *object, int kind)
{
	size_t start = w->used;

	if (write_tag_n(w, TAG_DICT_VIEW, (uint64_t)kind) < 0 || write_object(w, ((DictView *)object)->dict) < 0)
		return -1;
	return write_after(w, object, start) < 0 ? -1 : 0;
}

PyObject *read_dict_view(struct reader *r)
{
	PyObject *dict, *view;
	uint64_t kind;

	if (read_n(r, &kind) < 0 || !(dict = read_object(r)))
		return NULL;
	view = kind < (uint64_t)KINDS && PyDict_Check(dict) ? view_of(dict, kinds[kind].name) : corrupt("a view of no dict");
	Py_DECREF(dict);
	return seen(r, view);
}

/* --- all of them ---------------------------------------------------------------------------------------------------- */

int write_iterator(struct writer *w, PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);

	if (type == &PyRangeIter_Type)
		return write_range(w, object) < 0 ? -1 : 1;
	if (type == &PyListIter_Type)
		return write_sequence(w, object, TAG_LIST_ITER) < 0 ? -1 : 1;
	if (type == &PyTupleIter_Type)
		return write_sequence(w, object, TAG_TUPLE_ITER) < 0 ? -1 : 1;
	for (int kind = 0; kind < KINDS; kind++) {
		if (type == kinds[kind].iterator)
			return write_dict_iterator(w, object, kind) < 0 ? -1 : 1;
		if (type == kinds[kind].view)
			return write_view(w, object, kind) < 0 ? -1 : 1;
	}
	return 0;
}
