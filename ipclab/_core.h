/* _core.h: what the files of the binding share. Limited API of CPython 3.11. */
#ifndef IPCLAB_CORE_BINDING_H
#define IPCLAB_CORE_BINDING_H

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>

/* Raises OSError(errno) with the attribute `syscall`; returns NULL. `rc` is the core's -errno. */
PyObject *raise_os_error(int rc, const char *syscall);
/* Seconds (None: for ever) to an absolute deadline on CLOCK_MONOTONIC; -1 with an exception set when it makes no sense. */
int deadline_of_seconds(PyObject *seconds, int64_t *deadline_ns);
/* The same for a time-out in nanoseconds. */
int deadline_of_ns(PyObject *timeout_ns, int64_t *deadline_ns);

int add_ring_type(PyObject *module);
int add_instruments(PyObject *module);
int add_bench(PyObject *module);
int add_states(PyObject *module);
int add_zoo(PyObject *module);
int add_gmp(PyObject *module);

/* A heap type without a state, added to the module; a reference is kept for ever. NULL with an exception set. */
PyTypeObject *add_type(PyObject *module, PyType_Spec *spec);
/* tp_dealloc's last lines for such a type. */
void free_object(PyObject *object);

/* The histogram of a Histogram, NULL for None; nobody else may change it until it is given back. 0, or -1. */
struct histogram;
int lend_histogram(PyObject *object, struct histogram **histogram);
void give_histogram_back(PyObject *object);

#define KEYWORDS(f) ((PyCFunction)(void (*)(void))(f))

#endif
