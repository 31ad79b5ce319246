/*
 * _core.c: the C core for Python. The _core*.c files are the only ones that know both.
 *
 * Every function borrows its buffers for the call, checks offset and alignment, and turns the core's -errno into an
 * OSError that carries errno and the name of the call. Calls that may block release the GIL; when a signal interrupts
 * them its Python handler runs, and unless that raises they go on with the same deadline.
 */
#include "_core.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "core/futex.h"
#include "core/message.h"
#include "core/sync.h"
#include "core/sys.h"

#define OBJECT_ALIGN 64

PyObject *raise_os_error(int rc, const char *syscall)
{
	PyObject *error = PyObject_CallFunction(PyExc_OSError, "is", -rc, strerror(-rc));
	PyObject *name = error ? PyUnicode_FromString(syscall) : NULL;

	if (name && PyObject_SetAttrString(error, "syscall", name) == 0)
		PyErr_SetObject((PyObject *)Py_TYPE(error), error);
	Py_XDECREF(name);
	Py_XDECREF(error);
	return NULL;
}

static PyObject *none_or_error(int rc, const char *syscall)
{
	if (rc < 0)
		return raise_os_error(rc, syscall);
	Py_RETURN_NONE;
}

static PyObject *long_or_error(int64_t rc, const char *syscall)
{
	return rc < 0 ? raise_os_error((int)rc, syscall) : PyLong_FromLongLong(rc);
}

int deadline_of_ns(PyObject *timeout_ns, int64_t *deadline_ns)
{
	long long left_ns;

	*deadline_ns = NO_DEADLINE;
	if (!timeout_ns || timeout_ns == Py_None)
		return 0;
	left_ns = PyLong_AsLongLong(timeout_ns);
	if (left_ns == -1 && PyErr_Occurred())
		return -1;
	if (left_ns < 0) {
		PyErr_SetString(PyExc_ValueError, "a time-out cannot be negative");
		return -1;
	}
	if (left_ns < INT64_MAX / 2)
		*deadline_ns = monotonic_ns() + left_ns;
	return 0;
}

int deadline_of_seconds(PyObject *seconds, int64_t *deadline_ns)
{
	double left_s;

	*deadline_ns = NO_DEADLINE;
	if (!seconds || seconds == Py_None)
		return 0;
	left_s = PyFloat_AsDouble(seconds);
	if (left_s == -1.0 && PyErr_Occurred())
		return -1;
	if (!(left_s >= 0)) { /* NaN too */
		PyErr_SetString(PyExc_ValueError, "a time-out cannot be negative");
		return -1;
	}
	if (left_s < 4e9) /* more than a century is for ever */
		*deadline_ns = monotonic_ns() + (int64_t)(left_s * 1e9);
	return 0;
}

/* --- an object inside a buffer --- */

struct place {
	Py_buffer view;
	void *at;
};

static int open_place(PyObject *buffer, Py_ssize_t offset, size_t size, size_t align, struct place *place)
{
	if (PyObject_GetBuffer(buffer, &place->view, PyBUF_WRITABLE) < 0)
		return -1;
	place->at = (char *)place->view.buf + offset;
	if (offset >= 0 && (size_t)place->view.len >= size && (size_t)offset <= (size_t)place->view.len - size &&
	    (uintptr_t)place->at % align == 0)
		return 0;
	PyErr_Format(PyExc_ValueError, "offset %zd is not a place for an object of %zu bytes aligned to %zu", offset, size,
		     align);
	PyBuffer_Release(&place->view);
	return -1;
}

static void close_place(struct place *place)
{
	PyBuffer_Release(&place->view);
}

/* Most functions here are f(buffer, offset[, number]): one parser for them. */
static int parse_place(PyObject *args, size_t size, size_t align, struct place *place, PyObject **third)
{
	PyObject *buffer;
	Py_ssize_t offset;

	*third = NULL;
	if (!PyArg_ParseTuple(args, "On|O", &buffer, &offset, third))
		return -1;
	return open_place(buffer, offset, size, align, place);
}

static int number_of(PyObject *object, int64_t *number)
{
	if (!object) {
		PyErr_SetString(PyExc_TypeError, "a number is missing");
		return -1;
	}
	*number = PyLong_AsLongLong(object);
	return *number == -1 && PyErr_Occurred() ? -1 : 0;
}

typedef int (*plain_call)(void *at);

static PyObject *call_plain(PyObject *args, size_t size, plain_call call, const char *name)
{
	struct place place;
	PyObject *unused;
	int rc;

	if (parse_place(args, size, OBJECT_ALIGN, &place, &unused) < 0)
		return NULL;
	rc = call(place.at);
	close_place(&place);
	return none_or_error(rc, name);
}

typedef int (*waiting_call)(void *at, int64_t deadline_ns);

/* A call that may block: without the GIL, on again after a signal. The core's result, or -1 with an exception: see `failed`. */
static int64_t call_waiting(void *at, PyObject *timeout_ns, waiting_call call, int *failed)
{
	int64_t deadline_ns;
	int rc;

	*failed = deadline_of_ns(timeout_ns, &deadline_ns) < 0;
	while (!*failed) {
		Py_BEGIN_ALLOW_THREADS
		rc = call(at, deadline_ns);
		Py_END_ALLOW_THREADS
		if (rc != -EINTR)
			return rc;
		*failed = PyErr_CheckSignals() < 0;
	}
	return -1;
}

static PyObject *wait_on_place(PyObject *args, size_t size, waiting_call call, const char *name, int timeout_is_false)
{
	struct place place;
	PyObject *timeout_ns;
	int64_t rc;
	int failed;

	if (parse_place(args, size, OBJECT_ALIGN, &place, &timeout_ns) < 0)
		return NULL;
	rc = call_waiting(place.at, timeout_ns, call, &failed);
	close_place(&place);
	if (failed)
		return NULL;
	if (timeout_is_false && (rc == 0 || rc == -ETIMEDOUT))
		return PyBool_FromLong(rc == 0);
	return long_or_error(rc, name);
}

/* --- unnamed semaphores --- */

static PyObject *py_sem_init(PyObject *module, PyObject *args)
{
	struct place place;
	PyObject *third;
	int64_t value;
	int rc;

	(void)module;
	if (parse_place(args, sizeof(sem_t), OBJECT_ALIGN, &place, &third) < 0)
		return NULL;
	if (number_of(third, &value) < 0) {
		close_place(&place);
		return NULL;
	}
	rc = value < 0 || value > UINT32_MAX ? -EINVAL : sem_init(place.at, 1, (unsigned int)value) < 0 ? -errno : 0;
	close_place(&place);
	return none_or_error(rc, "sem_init");
}

static int do_sem_post(void *at)
{
	return sem_post(at) < 0 ? -errno : 0;
}

static int do_sem_destroy(void *at)
{
	return sem_destroy(at) < 0 ? -errno : 0;
}

static int do_sem_wait(void *at, int64_t deadline_ns)
{
	struct timespec when = timespec_of_ns(deadline_ns < 0 ? 0 : deadline_ns);

	if (deadline_ns < 0)
		return sem_wait(at) < 0 ? -errno : 0;
	return sem_clockwait(at, CLOCK_MONOTONIC, &when) < 0 ? -errno : 0;
}

static PyObject *py_sem_post(PyObject *module, PyObject *args)
{
	(void)module;
	return call_plain(args, sizeof(sem_t), do_sem_post, "sem_post");
}

static PyObject *py_sem_destroy(PyObject *module, PyObject *args)
{
	(void)module;
	return call_plain(args, sizeof(sem_t), do_sem_destroy, "sem_destroy");
}

static PyObject *py_sem_wait(PyObject *module, PyObject *args)
{
	(void)module;
	return wait_on_place(args, sizeof(sem_t), do_sem_wait, "sem_clockwait", 1);
}

static PyObject *py_sem_getvalue(PyObject *module, PyObject *args)
{
	struct place place;
	PyObject *unused;
	int value = 0, rc;

	(void)module;
	if (parse_place(args, sizeof(sem_t), OBJECT_ALIGN, &place, &unused) < 0)
		return NULL;
	rc = sem_getvalue(place.at, &value) < 0 ? -errno : value;
	close_place(&place);
	return long_or_error(rc, "sem_getvalue");
}

/* --- robust locks --- */

static int do_lock_init(void *at)
{
	return lock_init(at);
}

static int do_lock_acquire(void *at, int64_t deadline_ns)
{
	return lock_acquire(at, deadline_ns, NULL);
}

static int do_lock_consistent(void *at)
{
	return lock_consistent(at);
}

static int do_lock_release(void *at)
{
	return lock_release(at);
}

static PyObject *py_lock_init(PyObject *module, PyObject *args)
{
	(void)module;
	return call_plain(args, sizeof(struct lock), do_lock_init, "pthread_mutex_init");
}

static PyObject *py_lock_acquire(PyObject *module, PyObject *args)
{
	(void)module;
	return wait_on_place(args, sizeof(struct lock), do_lock_acquire, "pthread_mutex_lock", 0);
}

static PyObject *py_lock_consistent(PyObject *module, PyObject *args)
{
	(void)module;
	return call_plain(args, sizeof(struct lock), do_lock_consistent, "pthread_mutex_consistent");
}

static PyObject *py_lock_release(PyObject *module, PyObject *args)
{
	(void)module;
	return call_plain(args, sizeof(struct lock), do_lock_release, "pthread_mutex_unlock");
}

static PyObject *py_lock_owner(PyObject *module, PyObject *args)
{
	struct place place;
	PyObject *unused;
	uint32_t tid;

	(void)module;
	if (parse_place(args, sizeof(struct lock), OBJECT_ALIGN, &place, &unused) < 0)
		return NULL;
	tid = load_relaxed(&((struct lock *)place.at)->owner_tid);
	close_place(&place);
	return PyLong_FromUnsignedLong(tid);
}

/* --- barriers --- */

static PyObject *py_barrier_init(PyObject *module, PyObject *args)
{
	struct place place;
	PyObject *third;
	int64_t parties;
	int rc;

	(void)module;
	if (parse_place(args, sizeof(struct pbarrier), OBJECT_ALIGN, &place, &third) < 0)
		return NULL;
	if (number_of(third, &parties) < 0) {
		close_place(&place);
		return NULL;
	}
	rc = parties < 1 || parties > UINT16_MAX ? -EINVAL : pbarrier_init(place.at, (uint32_t)parties);
	close_place(&place);
	return none_or_error(rc, "barrier_init");
}

static int do_barrier_wait(void *at, int64_t deadline_ns)
{
	return pbarrier_wait(at, deadline_ns);
}

static int do_barrier_break(void *at)
{
	pbarrier_break(at);
	return 0;
}

static PyObject *py_barrier_wait(PyObject *module, PyObject *args)
{
	(void)module;
	return wait_on_place(args, sizeof(struct pbarrier), do_barrier_wait, "barrier_wait", 0);
}

static PyObject *py_barrier_break(PyObject *module, PyObject *args)
{
	(void)module;
	return call_plain(args, sizeof(struct pbarrier), do_barrier_break, "barrier_break");
}

/* --- futex words and atomics --- */

typedef _Atomic uint32_t word32;

struct futex_wait_args {
	word32 *word;
	uint32_t expected;
};

static int do_futex_wait(void *at, int64_t deadline_ns)
{
	struct futex_wait_args *wait = at;
	int rc = futex_wait_until(wait->word, wait->expected, deadline_ns);

	return rc == -EAGAIN ? 0 : rc;
}

static PyObject *py_futex_wait(PyObject *module, PyObject *args)
{
	struct place place;
	struct futex_wait_args wait;
	PyObject *buffer, *timeout_ns = Py_None;
	Py_ssize_t offset;
	unsigned int expected;
	int64_t rc;
	int failed;

	(void)module;
	if (!PyArg_ParseTuple(args, "OnI|O", &buffer, &offset, &expected, &timeout_ns) ||
	    open_place(buffer, offset, sizeof(word32), sizeof(word32), &place) < 0)
		return NULL;
	wait = (struct futex_wait_args){.word = place.at, .expected = expected};
	rc = call_waiting(&wait, timeout_ns, do_futex_wait, &failed);
	close_place(&place);
	if (failed)
		return NULL;
	if (rc == 0 || rc == -ETIMEDOUT)
		return PyBool_FromLong(rc == 0);
	return raise_os_error((int)rc, "futex");
}

/* f(buffer, offset, a, b) -> number, on a 32-bit word. */
typedef int64_t (*word_call)(word32 *word, uint32_t a, uint32_t b);

static PyObject *call_word(PyObject *args, int count, word_call call, const char *name)
{
	struct place place;
	PyObject *buffer, *numbers[2] = {NULL, NULL};
	Py_ssize_t offset;
	uint32_t value[2] = {0, 0};
	int64_t rc;

	if (!PyArg_ParseTuple(args, count == 0 ? "On" : count == 1 ? "OnO" : "OnOO", &buffer, &offset, &numbers[0],
			      &numbers[1]))
		return NULL;
	for (int i = 0; i < count; i++) {
		if (number_of(numbers[i], &rc) < 0)
			return NULL;
		value[i] = (uint32_t)rc; /* modulo 2^32, so that -1 may be added */
	}
	if (open_place(buffer, offset, sizeof(word32), sizeof(word32), &place) < 0)
		return NULL;
	rc = call(place.at, value[0], value[1]);
	close_place(&place);
	return long_or_error(rc, name);
}

static int64_t do_futex_wake(word32 *word, uint32_t count, uint32_t unused)
{
	(void)unused;
	return futex_wake(word, count > INT_MAX ? INT_MAX : (int)count);
}

static int64_t do_load(word32 *word, uint32_t unused, uint32_t unused2)
{
	(void)unused, (void)unused2;
	return load_seq_cst(word);
}

static int64_t do_store(word32 *word, uint32_t value, uint32_t unused)
{
	(void)unused;
	store_seq_cst(word, value);
	return 0;
}

static int64_t do_add(word32 *word, uint32_t value, uint32_t unused)
{
	(void)unused;
	return add_seq_cst(word, value);
}

static int64_t do_cas(word32 *word, uint32_t expected, uint32_t desired)
{
	cas_seq_cst(word, &expected, desired);
	return expected;
}

static PyObject *py_futex_wake(PyObject *module, PyObject *args)
{
	(void)module;
	return call_word(args, 1, do_futex_wake, "futex");
}

static PyObject *py_atomic_load(PyObject *module, PyObject *args)
{
	(void)module;
	return call_word(args, 0, do_load, "load");
}

static PyObject *py_atomic_store(PyObject *module, PyObject *args)
{
	PyObject *zero = call_word(args, 1, do_store, "store");

	(void)module;
	if (!zero)
		return NULL;
	Py_DECREF(zero);
	Py_RETURN_NONE;
}

static PyObject *py_atomic_add(PyObject *module, PyObject *args)
{
	(void)module;
	return call_word(args, 1, do_add, "add");
}

static PyObject *py_atomic_cas(PyObject *module, PyObject *args)
{
	(void)module;
	return call_word(args, 2, do_cas, "cas");
}

/* --- system calls --- */

static PyObject *py_vmsplice(PyObject *module, PyObject *args)
{
	Py_buffer view;
	unsigned int flags = 0;
	ssize_t sent;
	int fd;

	(void)module;
	if (!PyArg_ParseTuple(args, "iy*|I", &fd, &view, &flags))
		return NULL;
	do {
		Py_BEGIN_ALLOW_THREADS
		sent = sys_vmsplice(fd, view.buf, (size_t)view.len, flags);
		Py_END_ALLOW_THREADS
	} while (sent == -EINTR && PyErr_CheckSignals() == 0);
	PyBuffer_Release(&view);
	return sent == -EINTR ? NULL : long_or_error(sent, "vmsplice");
}

static PyObject *py_process_vm_readv(PyObject *module, PyObject *args)
{
	Py_buffer view;
	unsigned long long address;
	ssize_t got;
	int pid;

	(void)module;
	if (!PyArg_ParseTuple(args, "iKw*", &pid, &address, &view))
		return NULL;
	Py_BEGIN_ALLOW_THREADS
	got = sys_process_vm_readv(pid, address, view.buf, (size_t)view.len);
	Py_END_ALLOW_THREADS
	PyBuffer_Release(&view);
	return long_or_error(got, "process_vm_readv");
}

static PyObject *py_address_of(PyObject *module, PyObject *buffer)
{
	Py_buffer view;
	PyObject *address;

	(void)module;
	if (PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE) < 0)
		return NULL;
	address = PyLong_FromVoidPtr(view.buf);
	PyBuffer_Release(&view);
	return address;
}

static PyObject *py_sigqueue(PyObject *module, PyObject *args)
{
	int pid, signo, value;

	(void)module;
	if (!PyArg_ParseTuple(args, "iii", &pid, &signo, &value))
		return NULL;
	return none_or_error(sys_sigqueue(pid, signo, value), "sigqueue");
}

static PyObject *py_pidfd_send_signal(PyObject *module, PyObject *args)
{
	PyObject *payload = Py_None;
	int64_t value = 0;
	int pidfd, signo;

	(void)module;
	if (!PyArg_ParseTuple(args, "ii|O", &pidfd, &signo, &payload) ||
	    (payload != Py_None && number_of(payload, &value) < 0))
		return NULL;
	return none_or_error(sys_pidfd_send_signal(pidfd, signo, payload != Py_None, (int32_t)value),
			     "pidfd_send_signal");
}

static int signal_set(PyObject *numbers, sigset_t *set)
{
	PyObject *each = PyObject_GetIter(numbers), *item;
	long signo;

	sigemptyset(set);
	while (each && (item = PyIter_Next(each))) {
		signo = PyLong_AsLong(item);
		Py_DECREF(item);
		if (signo == -1 && PyErr_Occurred())
			break;
		if (signo < 1 || signo > 64 || sigaddset(set, (int)signo) < 0) {
			PyErr_Format(PyExc_ValueError, "%ld is not a signal number", signo);
			break;
		}
	}
	Py_XDECREF(each);
	return PyErr_Occurred() ? -1 : 0;
}

static PyObject *py_signalfd(PyObject *module, PyObject *args)
{
	PyObject *numbers;
	sigset_t set;
	int fd, flags = 0, rc;

	(void)module;
	if (!PyArg_ParseTuple(args, "iO|i", &fd, &numbers, &flags) || signal_set(numbers, &set) < 0)
		return NULL;
	rc = signalfd(fd, &set, flags | SFD_CLOEXEC);
	return long_or_error(rc < 0 ? -errno : rc, "signalfd");
}

struct sigwait_args {
	const sigset_t *set;
	siginfo_t info;
};

static int do_sigwait(void *at, int64_t deadline_ns)
{
	struct sigwait_args *wait = at;
	int64_t left_ns = deadline_ns < 0 ? -1 : deadline_ns - monotonic_ns();

	if (deadline_ns >= 0 && left_ns < 0)
		left_ns = 0;
	return sys_sigwait(wait->set, left_ns, &wait->info);
}

static PyObject *py_sigwaitinfo_value(PyObject *module, PyObject *args)
{
	PyObject *numbers, *timeout_ns = Py_None;
	struct sigwait_args wait;
	sigset_t set;
	int64_t rc;
	int failed;

	(void)module;
	if (!PyArg_ParseTuple(args, "O|O", &numbers, &timeout_ns) || signal_set(numbers, &set) < 0)
		return NULL;
	wait.set = &set;
	rc = call_waiting(&wait, timeout_ns, do_sigwait, &failed);
	if (failed)
		return NULL;
	if (rc == -EAGAIN)
		Py_RETURN_NONE;
	if (rc < 0)
		return raise_os_error((int)rc, "sigtimedwait");
	return Py_BuildValue("iiiIi", wait.info.si_signo, wait.info.si_code, (int)wait.info.si_pid,
			     (unsigned int)wait.info.si_uid, wait.info.si_value.sival_int);
}

static PyObject *py_set_pdeathsig(PyObject *module, PyObject *signo)
{
	int64_t number;

	(void)module;
	if (number_of(signo, &number) < 0)
		return NULL;
	return none_or_error(sys_set_pdeathsig((int)number), "prctl");
}

static PyObject *py_set_child_subreaper(PyObject *module, PyObject *on)
{
	(void)module;
	return none_or_error(sys_set_child_subreaper(PyObject_IsTrue(on)), "prctl");
}

static PyObject *py_is_child_subreaper(PyObject *module, PyObject *unused)
{
	int rc = sys_is_child_subreaper();

	(void)module, (void)unused;
	return rc < 0 ? raise_os_error(rc, "prctl") : PyBool_FromLong(rc);
}

static PyObject *py_set_ptracer_any(PyObject *module, PyObject *unused)
{
	int rc = sys_set_ptracer_any();

	(void)module, (void)unused;
	return rc < 0 ? raise_os_error(rc, "prctl") : PyBool_FromLong(rc);
}

/* --- stamped messages --- */

static PyObject *py_message_fill(PyObject *module, PyObject *buffer)
{
	Py_buffer view;

	(void)module;
	if (PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
		return NULL;
	message_fill(view.buf, (size_t)view.len);
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

static PyObject *py_message_stamp(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
	Py_buffer view;
	unsigned long long sequence;

	(void)module;
	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "message_stamp(buffer, sequence)");
		return NULL;
	}
	sequence = PyLong_AsUnsignedLongLong(args[1]);
	if ((sequence == (unsigned long long)-1 && PyErr_Occurred()) ||
	    PyObject_GetBuffer(args[0], &view, PyBUF_WRITABLE) < 0)
		return NULL;
	message_stamp(view.buf, (size_t)view.len, sequence);
	PyBuffer_Release(&view);
	Py_RETURN_NONE;
}

static PyObject *py_message_check(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
	Py_buffer view;
	unsigned long long sequence;
	int rc;

	(void)module;
	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "message_check(buffer, sequence)");
		return NULL;
	}
	sequence = PyLong_AsUnsignedLongLong(args[1]);
	if ((sequence == (unsigned long long)-1 && PyErr_Occurred()) ||
	    PyObject_GetBuffer(args[0], &view, PyBUF_SIMPLE) < 0)
		return NULL;
	rc = message_check(view.buf, (size_t)view.len, sequence);
	PyBuffer_Release(&view);
	return PyBool_FromLong(rc == 0);
}

#define FAST(f) ((PyCFunction)(void (*)(void))(f))

static PyMethodDef methods[] = {
	{"sem_init", py_sem_init, METH_VARARGS, NULL},
	{"sem_post", py_sem_post, METH_VARARGS, NULL},
	{"sem_wait", py_sem_wait, METH_VARARGS, NULL},
	{"sem_getvalue", py_sem_getvalue, METH_VARARGS, NULL},
	{"sem_destroy", py_sem_destroy, METH_VARARGS, NULL},
	{"lock_init", py_lock_init, METH_VARARGS, NULL},
	{"lock_acquire", py_lock_acquire, METH_VARARGS, NULL},
	{"lock_consistent", py_lock_consistent, METH_VARARGS, NULL},
	{"lock_release", py_lock_release, METH_VARARGS, NULL},
	{"lock_owner", py_lock_owner, METH_VARARGS, NULL},
	{"barrier_init", py_barrier_init, METH_VARARGS, NULL},
	{"barrier_wait", py_barrier_wait, METH_VARARGS, NULL},
	{"barrier_break", py_barrier_break, METH_VARARGS, NULL},
	{"futex_wait", py_futex_wait, METH_VARARGS, NULL},
	{"futex_wake", py_futex_wake, METH_VARARGS, NULL},
	{"atomic_load", py_atomic_load, METH_VARARGS, NULL},
	{"atomic_store", py_atomic_store, METH_VARARGS, NULL},
	{"atomic_add", py_atomic_add, METH_VARARGS, NULL},
	{"atomic_cas", py_atomic_cas, METH_VARARGS, NULL},
	{"vmsplice", py_vmsplice, METH_VARARGS, NULL},
	{"process_vm_readv", py_process_vm_readv, METH_VARARGS, NULL},
	{"address_of", py_address_of, METH_O, NULL},
	{"sigqueue", py_sigqueue, METH_VARARGS, NULL},
	{"pidfd_send_signal", py_pidfd_send_signal, METH_VARARGS, NULL},
	{"signalfd", py_signalfd, METH_VARARGS, NULL},
	{"sigwaitinfo_value", py_sigwaitinfo_value, METH_VARARGS, NULL},
	{"set_pdeathsig", py_set_pdeathsig, METH_O, NULL},
	{"set_child_subreaper", py_set_child_subreaper, METH_O, NULL},
	{"is_child_subreaper", py_is_child_subreaper, METH_NOARGS, NULL},
	{"set_ptracer_any", py_set_ptracer_any, METH_NOARGS, NULL},
	{"message_fill", py_message_fill, METH_O, NULL},
	{"message_stamp", FAST(py_message_stamp), METH_FASTCALL, NULL},
	{"message_check", FAST(py_message_check), METH_FASTCALL, NULL},
	{NULL, NULL, 0, NULL},
};

static int add_sizes(PyObject *module)
{
	if (PyModule_AddIntConstant(module, "SEM_SIZE", sizeof(sem_t)) < 0 ||
	    PyModule_AddIntConstant(module, "LOCK_SIZE", sizeof(struct lock)) < 0 ||
	    PyModule_AddIntConstant(module, "BARRIER_SIZE", sizeof(struct pbarrier)) < 0 ||
	    PyModule_AddIntConstant(module, "ALIGN", OBJECT_ALIGN) < 0)
		return -1;
	if (add_ring_type(module) < 0 || add_instruments(module) < 0 || add_bench(module) < 0)
		return -1;
	return add_states(module) < 0 || add_zoo(module) < 0 ? -1 : add_gmp(module);
}

static PyModuleDef_Slot slots[] = {
	{Py_mod_exec, (void *)add_sizes},
	{0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "ipclab._core",
	.m_doc = "The C core as Python sees it; _core.pyi says what each call does.",
	.m_methods = methods,
	.m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
	return PyModuleDef_Init(&definition);
}
