/*
 * _core_zoo.c: the states Python has no call for, for Python: sleep_in_d, trace_stop, trace_end, reap_watched.
 */
#include "_core.h"

#include "core/zoo.h"

static PyObject *none_or_error(int rc, const char *name)
{
	if (rc < 0)
		return raise_os_error(rc, name);
	Py_RETURN_NONE;
}

static PyObject *py_sleep_in_d(PyObject *module, PyObject *args)
{
	PyObject *timeout_ns;
	int64_t deadline_ns;
	int fd, rc;

	(void)module;
	if (!PyArg_ParseTuple(args, "iO", &fd, &timeout_ns) || deadline_of_ns(timeout_ns, &deadline_ns) < 0)
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = zoo_sleep_in_d(fd, deadline_ns);
	Py_END_ALLOW_THREADS
	return none_or_error(rc, "clone");
}

static PyObject *py_trace_stop(PyObject *module, PyObject *pid)
{
	long number = PyLong_AsLong(pid);
	int rc;

	(void)module;
	if (number == -1 && PyErr_Occurred())
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = zoo_trace_stop((pid_t)number);
	Py_END_ALLOW_THREADS
	return none_or_error(rc, "ptrace");
}

static PyObject *py_trace_end(PyObject *module, PyObject *pid)
{
	long number = PyLong_AsLong(pid);

	(void)module;
	if (number == -1 && PyErr_Occurred())
		return NULL;
	return none_or_error(zoo_trace_end((pid_t)number), "ptrace");
}

static PyObject *py_reap_watched(PyObject *module, PyObject *args)
{
	long long delay_ns = 0;
	struct zoo_end end;
	int pid, rc;

	(void)module;
	if (!PyArg_ParseTuple(args, "i|L", &pid, &delay_ns))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	rc = zoo_reap_watched(pid, delay_ns, &end);
	Py_END_ALLOW_THREADS
	if (rc < 0)
		return raise_os_error(rc, "wait4");
	return Py_BuildValue("(iIy)", end.status, end.looks, end.dead_stat);
}

static PyMethodDef functions[] = {
	{"sleep_in_d", py_sleep_in_d, METH_VARARGS, NULL},
	{"trace_stop", py_trace_stop, METH_O, NULL},
	{"trace_end", py_trace_end, METH_O, NULL},
	{"reap_watched", py_reap_watched, METH_VARARGS, NULL},
	{NULL, NULL, 0, NULL},
};

int add_zoo(PyObject *module)
{
	return PyModule_AddFunctions(module, functions);
}
