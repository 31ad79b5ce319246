/* zoo.c: see zoo.h. */
#define _GNU_SOURCE
#include "core/zoo.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/barrier.h"
#include "core/futex.h"

/* --- D --- */

/* The end of a child that the libc does not know of. */
static _Noreturn void end_child(long code)
{
	for (;;)
		syscall(SYS_exit_group, code);
}

/* The vfork's child: system calls alone. */
static _Noreturn void wait_for_word(pid_t parent, int fd, int64_t deadline_ns)
{
	struct pollfd word = {.fd = fd, .events = POLLIN};
	int64_t left_ns;

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	prctl(PR_SET_NAME, "vfork-child", 0, 0, 0);
	if (syscall(SYS_getppid) != parent)
		end_child(1); /* it died before the death signal was set */
	while ((left_ns = deadline_ns - monotonic_ns()) > 0)
		if (poll(&word, 1, left_ns > NS_PER_S ? 1000 : (int)(left_ns / 1000000) + 1) > 0)
			break;
	end_child(0);
}

int zoo_sleep_in_d(int fd, int64_t deadline_ns)
{
	pid_t parent = getpid();
	long child = syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0L, 0L, 0L, 0L);

	if (child < 0)
		return -errno;
	if (child == 0)
		wait_for_word(parent, fd, deadline_ns);
	while (waitpid((pid_t)child, NULL, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

/* --- t --- */

int zoo_trace_stop(pid_t pid)
{
	int status, rc;

	if (ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL) < 0)
		return -errno;
	if (ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0) {
		rc = -errno;
		ptrace(PTRACE_DETACH, pid, 0, 0);
		return rc;
	}
	while (waitpid(pid, &status, __WALL) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFSTOPPED(status) ? 0 : -ESRCH;
}

int zoo_trace_end(pid_t pid)
{
	return ptrace(PTRACE_DETACH, pid, 0, 0) < 0 ? -errno : 0;
}

/* --- X --- */

#define MEET_NS (200 * 1000 * 1000) /* longer than busy CPUs keep two threads apart; then without */

struct watch {
	int fd;                    /* /proc/PID/stat: reads the same process for ever, then ESRCH */
	atomic_uint looks;         /* writer: the watching thread */
	atomic_int over;           /* writer: the one that waits */
	char dead_stat[ZOO_STAT_BYTES]; /* writer: the watching thread, until it is joined */
};

/* "1 (name with ) in it) X ...": whether the letter is X. */
static int shows_dead(const char *text)
{
	const char *bracket = strrchr(text, ')');

	return bracket && bracket[1] == ' ' && (bracket[2] == 'X' || bracket[2] == 'x');
}

static void *look_without_pause(void *argument)
{
	struct watch *watch = argument;
	char text[ZOO_STAT_BYTES];
	ssize_t size;

	while (!atomic_load(&watch->over)) {
		size = pread(watch->fd, text, sizeof text - 1, 0);
		if (size <= 0)
			break; /* gone */
		text[size] = '\0';
		atomic_fetch_add(&watch->looks, 1);
		if (shows_dead(text)) {
			memcpy(watch->dead_stat, text, sizeof text);
			break;
		}
	}
	return NULL;
}

/* Until the thread has just finished a look, that is, has a CPU at this moment; and then `delay_ns` more. */
static void meet(struct watch *watch, int64_t delay_ns)
{
	int64_t until_ns = monotonic_ns() + MEET_NS;
	unsigned int before;

	while (atomic_load(&watch->looks) == 0 && monotonic_ns() < until_ns)
		sched_yield();
	before = atomic_load(&watch->looks);
	while (atomic_load(&watch->looks) == before && monotonic_ns() < until_ns)
		cpu_relax();
	until_ns = monotonic_ns() + delay_ns;
	while (monotonic_ns() < until_ns)
		cpu_relax();
}

/* Puts this thread and the reader on a CPU each, where there are two: on one they would take turns and never meet. */
static void part(pthread_t reader, cpu_set_t *before)
{
	cpu_set_t here, there;
	int cpu;

	CPU_ZERO(before);
	if (sched_getaffinity(0, sizeof *before, before) < 0 || CPU_COUNT(before) < 2 || (cpu = sched_getcpu()) < 0)
		return;
	CPU_ZERO(&here);
	CPU_SET(cpu, &here);
	there = *before;
	CPU_CLR(cpu, &there);
	pthread_setaffinity_np(reader, sizeof there, &there);
	sched_setaffinity(0, sizeof here, &here);
}

int zoo_reap_watched(pid_t pid, int64_t delay_ns, struct zoo_end *end)
{
	struct watch watch = {.fd = -1};
	struct rusage usage;
	pthread_t reader;
	siginfo_t info;
	cpu_set_t before;
	char path[40];
	int rc = 0;

	memset(end, 0, sizeof *end);
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0)
		if (errno != EINTR)
			return -errno;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	watch.fd = open(path, O_RDONLY | O_CLOEXEC);
	if (watch.fd < 0)
		return -errno;
	rc = -pthread_create(&reader, NULL, look_without_pause, &watch);
	if (rc)
		goto error;
	part(reader, &before);
	meet(&watch, delay_ns);
	/* With the resource use, which is counted while the process is in X: the state lasts a little longer. */
	if (wait4(pid, &end->status, 0, &usage) < 0)
		rc = -errno;
	atomic_store(&watch.over, 1);
	pthread_join(reader, NULL);
	if (CPU_COUNT(&before) > 1)
		sched_setaffinity(0, sizeof before, &before);
	end->looks = atomic_load(&watch.looks);
	memcpy(end->dead_stat, watch.dead_stat, sizeof end->dead_stat);
error:
	close(watch.fd);
	return rc;
}
