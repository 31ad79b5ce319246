/*
 * _core_instruments.c: what the bench measures with, for Python: Histogram, fingerprint, verification_cost.
 *
 * While a loop without the GIL records into a histogram it is `busy`, and every other change is refused.
 */
#include "_core.h"

#include "core/fingerprint.h"
#include "core/histogram.h"
#include "core/loops.h"

static PyTypeObject *histogram_type; /* one interpreter per process */

/* --- Histogram --- */

typedef struct {
	PyObject_HEAD
	struct histogram histogram;
	int busy; /* a loop without the GIL records into it */
} HistogramObject;

static int open_histogram(HistogramObject *self)
{
	if (!self->busy)
		return 0;
	PyErr_SetString(PyExc_RuntimeError, "a loop is recording into this histogram");
	return -1;
}

static int Histogram_init(PyObject *object, PyObject *args, PyObject *names)
{
	static char *keywords[] = {NULL};
	HistogramObject *self = (HistogramObject *)object;

	if (!PyArg_ParseTupleAndKeywords(args, names, "", keywords) || open_histogram(self) < 0)
		return -1;
	histogram_clear(&self->histogram);
	return 0;
}

void free_object(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	freefunc release = PyType_GetSlot(type, Py_tp_free);

	release(object);
	Py_DECREF(type);
}

static int number_in_range(PyObject *object, const char *what, uint64_t *number)
{
	long long value = PyLong_AsLongLong(object);

	if (value == -1 && PyErr_Occurred())
		return -1;
	if (value < 0) {
		PyErr_Format(PyExc_ValueError, "%s cannot be negative", what);
		return -1;
	}
	*number = (uint64_t)value;
	return 0;
}

static PyObject *Histogram_record(PyObject *object, PyObject *ns)
{
	HistogramObject *self = (HistogramObject *)object;
	uint64_t value;

	if (open_histogram(self) < 0 || number_in_range(ns, "a duration", &value) < 0)
		return NULL;
	histogram_record(&self->histogram, value);
	Py_RETURN_NONE;
}

static PyObject *Histogram_record_many(PyObject *object, PyObject *values)
{
	HistogramObject *self = (HistogramObject *)object;
	PyObject *each = PyObject_GetIter(values), *item;
	uint64_t value;
	int rc = each ? 0 : -1;

	while (rc == 0 && (item = PyIter_Next(each))) {
		rc = number_in_range(item, "a duration", &value);
		Py_DECREF(item);
		if (rc == 0 && (rc = open_histogram(self)) == 0)
			histogram_record(&self->histogram, value);
	}
	Py_XDECREF(each);
	if (PyErr_Occurred())
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *Histogram_merge(PyObject *object, PyObject *other)
{
	HistogramObject *self = (HistogramObject *)object;

	if (!PyObject_TypeCheck(other, histogram_type)) {
		PyErr_SetString(PyExc_TypeError, "merge takes a Histogram");
		return NULL;
	}
	if (open_histogram(self) < 0 || open_histogram((HistogramObject *)other) < 0)
		return NULL;
	histogram_merge(&self->histogram, &((HistogramObject *)other)->histogram);
	Py_RETURN_NONE;
}

static PyObject *Histogram_percentile(PyObject *object, PyObject *argument)
{
	const struct histogram *histogram = &((HistogramObject *)object)->histogram;
	double q = PyFloat_AsDouble(argument);

	if (q == -1.0 && PyErr_Occurred())
		return NULL;
	if (!(q >= 0 && q <= 100)) {
		PyErr_SetString(PyExc_ValueError, "a percentile is within 0 and 100");
		return NULL;
	}
	if (!histogram->count) {
		PyErr_SetString(PyExc_ValueError, "nothing was recorded");
		return NULL;
	}
	return PyLong_FromUnsignedLongLong(histogram_percentile(histogram, q));
}

static PyObject *Histogram_buckets(PyObject *object, PyObject *unused)
{
	const struct histogram *histogram = &((HistogramObject *)object)->histogram;
	PyObject *list = PyList_New(0), *pair;
	int rc = 0;

	(void)unused;
	for (int i = 0; list && rc == 0 && i < HISTOGRAM_BUCKETS; i++) {
		if (!histogram->bucket[i])
			continue;
		pair = Py_BuildValue("KK", (unsigned long long)histogram_lower_ns(i), (unsigned long long)histogram->bucket[i]);
		rc = pair ? PyList_Append(list, pair) : -1;
		Py_XDECREF(pair);
	}
	if (rc < 0)
		Py_CLEAR(list);
	return list;
}

static int add_bucket(struct histogram *histogram, PyObject *pair)
{
	PyObject *lower_object, *times_object, *tuple = PySequence_Tuple(pair);
	uint64_t lower, times;
	int rc = -1;

	if (tuple && PyArg_ParseTuple(tuple, "OO;a bucket is (lower bound, count)", &lower_object, &times_object) &&
	    number_in_range(lower_object, "a bucket's bound", &lower) == 0 &&
	    number_in_range(times_object, "a bucket's count", &times) == 0) {
		rc = 0;
		if (times) {
			uint64_t last = histogram_upper_ns(histogram_bucket_of(lower)) - 1;

			histogram_add(histogram, lower, times);
			if (last > histogram->max)
				histogram->max = last;
		}
	}
	Py_XDECREF(tuple);
	return rc;
}

static int set_bound(PyObject *object, const char *what, uint64_t *bound)
{
	return !object || object == Py_None ? 0 : number_in_range(object, what, bound);
}

static PyObject *Histogram_from_buckets(PyObject *type, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"buckets", "min", "max", NULL};
	PyObject *buckets, *min = NULL, *max = NULL, *object, *each, *pair;
	struct histogram *histogram;
	int rc = 0;

	if (!PyArg_ParseTupleAndKeywords(args, names, "O|OO", keywords, &buckets, &min, &max))
		return NULL;
	object = PyObject_CallNoArgs(type);
	each = object ? PyObject_GetIter(buckets) : NULL;
	if (!each) {
		Py_XDECREF(object);
		return NULL;
	}
	histogram = &((HistogramObject *)object)->histogram;
	while (rc == 0 && (pair = PyIter_Next(each))) {
		rc = add_bucket(histogram, pair);
		Py_DECREF(pair);
	}
	Py_DECREF(each);
	if (histogram->count && !PyErr_Occurred() && set_bound(min, "min", &histogram->min) == 0)
		set_bound(max, "max", &histogram->max);
	if (PyErr_Occurred())
		Py_CLEAR(object);
	return object;
}

static PyObject *Histogram_get_count(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(((HistogramObject *)object)->histogram.count);
}

static PyObject *Histogram_get_min(PyObject *object, void *unused)
{
	const struct histogram *histogram = &((HistogramObject *)object)->histogram;

	(void)unused;
	return PyLong_FromUnsignedLongLong(histogram->count ? histogram->min : 0);
}

static PyObject *Histogram_get_max(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(((HistogramObject *)object)->histogram.max);
}

static PyMethodDef histogram_methods[] = {
	{"record", Histogram_record, METH_O, NULL},
	{"record_many", Histogram_record_many, METH_O, NULL},
	{"merge", Histogram_merge, METH_O, NULL},
	{"percentile", Histogram_percentile, METH_O, NULL},
	{"buckets", Histogram_buckets, METH_NOARGS, NULL},
	{"from_buckets", KEYWORDS(Histogram_from_buckets), METH_VARARGS | METH_KEYWORDS | METH_CLASS, NULL},
	{NULL, NULL, 0, NULL},
};

static PyGetSetDef histogram_properties[] = {
	{"count", Histogram_get_count, NULL, NULL, NULL},
	{"min", Histogram_get_min, NULL, NULL, NULL},
	{"max", Histogram_get_max, NULL, NULL, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot histogram_slots[] = {
	{Py_tp_doc, "Log-linear histogram of durations in ns; core/histogram.h."},
	{Py_tp_init, Histogram_init},
	{Py_tp_dealloc, free_object},
	{Py_tp_methods, histogram_methods},
	{Py_tp_getset, histogram_properties},
	{0, NULL},
};

static PyType_Spec histogram_spec = {
	.name = "ipclab._core.Histogram",
	.basicsize = sizeof(HistogramObject),
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = histogram_slots,
};

PyTypeObject *add_type(PyObject *module, PyType_Spec *spec)
{
	PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);

	if (type && PyModule_AddType(module, (PyTypeObject *)type) < 0)
		Py_CLEAR(type);
	return (PyTypeObject *)type; /* our reference is kept in a static, or lost with the process */
}

int lend_histogram(PyObject *object, struct histogram **histogram)
{
	*histogram = NULL;
	if (!object || object == Py_None)
		return 0;
	if (!PyObject_TypeCheck(object, histogram_type)) {
		PyErr_SetString(PyExc_TypeError, "a Histogram is wanted");
		return -1;
	}
	if (open_histogram((HistogramObject *)object) < 0)
		return -1;
	((HistogramObject *)object)->busy = 1;
	*histogram = &((HistogramObject *)object)->histogram;
	return 0;
}

void give_histogram_back(PyObject *object)
{
	if (object && object != Py_None)
		((HistogramObject *)object)->busy = 0;
}

/* --- functions --- */

static PyObject *py_fingerprint(PyObject *module, PyObject *args, PyObject *names)
{
	static char *keywords[] = {"cpu_a", "cpu_b", "rounds", NULL};
	int cpu_a, cpu_b, rounds = 1000;
	int64_t rc;

	(void)module;
	if (!PyArg_ParseTupleAndKeywords(args, names, "ii|i", keywords, &cpu_a, &cpu_b, &rounds))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = fingerprint(cpu_a, cpu_b, rounds);
	Py_END_ALLOW_THREADS
	return rc < 0 ? raise_os_error((int)rc, "sched_setaffinity") : PyLong_FromLongLong(rc);
}

static PyObject *py_verification_cost(PyObject *module, PyObject *argument)
{
	Py_ssize_t size = PyLong_AsSsize_t(argument);
	int64_t rc;

	(void)module;
	if (size == -1 && PyErr_Occurred())
		return NULL;
	if (size < 1) {
		PyErr_SetString(PyExc_ValueError, "a message has 1 byte or more");
		return NULL;
	}
	Py_BEGIN_ALLOW_THREADS
	rc = verification_cost_ps((size_t)size);
	Py_END_ALLOW_THREADS
	return rc < 0 ? raise_os_error((int)rc, "message_check") : PyFloat_FromDouble((double)rc / 1000.0);
}

static PyMethodDef functions[] = {
	{"fingerprint", KEYWORDS(py_fingerprint), METH_VARARGS | METH_KEYWORDS, NULL},
	{"verification_cost", py_verification_cost, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

int add_instruments(PyObject *module)
{
	histogram_type = add_type(module, &histogram_spec);
	return histogram_type ? PyModule_AddFunctions(module, functions) : -1;
}
