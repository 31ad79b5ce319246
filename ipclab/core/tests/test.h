/* test.h: what every C test needs: a check that says what went wrong, a table of named tests, and children to kill. */
#ifndef IPCLAB_TEST_H
#define IPCLAB_TEST_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/futex.h"
#include "core/sys.h"

#define SKIP 77
#ifndef KILLS
#define KILLS 1000
#endif
#define SECONDS(n) (monotonic_ns() + (n) * NS_PER_S) /* deadlines here only detect deadlocks */

#define CHECK(condition)                                                                        \
	do {                                                                                        \
		if (!(condition)) {                                                                     \
			fprintf(stderr, "%s:%d: failed: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno); \
			exit(1);                                                                            \
		}                                                                                       \
	} while (0)

#define CHECK_EQ(got, want)                                                                             \
	do {                                                                                                \
		long long got_ = (long long)(got), want_ = (long long)(want);                                  \
		if (got_ != want_) {                                                                            \
			fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__, #got, got_, want_); \
			exit(1);                                                                                    \
		}                                                                                               \
	} while (0)

struct test {
	const char *name;
	int (*run)(void); /* 0 passed, SKIP; a failed CHECK exits */
};

static inline int run_tests(const struct test *tests, int argc, char **argv)
{
	int skipped = 0, ran = 0, rc;

	for (; tests->name; tests++) {
		if (argc > 1 && strcmp(argv[1], tests->name) != 0)
			continue;
		fprintf(stderr, "%s\n", tests->name);
		rc = tests->run();
		CHECK(rc == 0 || rc == SKIP);
		skipped += rc == SKIP;
		ran++;
	}
	CHECK(ran > 0);
	return skipped == ran ? SKIP : 0;
}

/* A small generator: the same seed gives the same run. */
static inline uint32_t random_below(uint64_t *state, uint32_t limit)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*state >> 33) % limit;
}

/* Forks a child that dies with us; `role` never returns. */
static inline pid_t spawn(void (*role)(void *), void *argument)
{
	pid_t parent = getpid(), pid = fork();

	CHECK(pid >= 0);
	if (pid)
		return pid;
	sys_set_pdeathsig(SIGKILL);
	if (getppid() != parent)
		_exit(1);
	role(argument);
	_exit(0);
}

static inline int ending_of(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		CHECK(errno == EINTR);
	return status;
}

static inline void kill_9(pid_t pid)
{
	int status;

	CHECK(kill(pid, SIGKILL) == 0);
	status = ending_of(pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Passes time on the CPU: what is killed after it is at a random instruction. */
static inline void pass_ns(int64_t ns)
{
	int64_t until = monotonic_ns() + ns;

	while (monotonic_ns() < until)
		cpu_relax();
}

#endif
