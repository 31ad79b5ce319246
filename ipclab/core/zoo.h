/*
 * zoo.h: how a process gets into the states that Python has no call for. Each call returns >= 0 or -errno.
 *
 *   D  the parent of a vfork sleeps uninterruptibly until its child has ended or exec'ed. Without CLONE_VM the child
 *      has memory of its own, so that what it does meanwhile can harm nobody: here it waits for a word.
 *   t  a tracer stops its tracee: PTRACE_SEIZE, PTRACE_INTERRUPT.
 *   X  between the parent's wait and the release of the last structure a dead process is neither zombie nor gone. It
 *      lasts some microseconds, inside wait4(2): only somebody else who looks just then can see it.
 */
#ifndef IPCLAB_ZOO_H
#define IPCLAB_ZOO_H

#include <stdint.h>
#include <sys/types.h>

/*
 * Sleeps in D until `fd` is readable or at its end, or the deadline (CLOCK_MONOTONIC) has come: 0. Reads nothing.
 * A deadly signal (SIGKILL, or another one that is neither caught nor ignored) ends it earlier, for this kind of D is
 * killable; its child then dies too, by its death signal. A signal with a handler waits.
 */
int zoo_sleep_in_d(int fd, int64_t deadline_ns);

/* Traces `pid` and stops it: t. It dies when its tracer, this thread, does. -EPERM: not allowed; -ESRCH: it has ended. */
int zoo_trace_stop(pid_t pid);
/* Lets it go on, untraced. */
int zoo_trace_end(pid_t pid);

#define ZOO_STAT_BYTES 512

struct zoo_end {
	int status;                    /* of wait4(2) */
	uint32_t looks;                /* how often /proc/PID/stat was read meanwhile */
	char dead_stat[ZOO_STAT_BYTES]; /* its line in state X; "" when nobody looked at the right moment */
};

/*
 * Waits for a child as wait4(2) does, while a thread looks at /proc/PID/stat without pause. Blocks until the child has
 * ended. -ECHILD: no such child; -EAGAIN: no room for the thread (the child is then not reaped).
 *
 * A look takes 2 to 4 us and meets the state at one instant of it; X lasts about as long. So it matters when, after a
 * look, the wait begins: that is `delay_ns` (measured: seen in 10 % of tries with one delay, 80 % with another, and
 * which one is which depends on the machine). Who tries again tries another.
 */
int zoo_reap_watched(pid_t pid, int64_t delay_ns, struct zoo_end *end);

#endif
