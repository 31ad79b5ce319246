/* gmp.h: what the scheduler's tests share: a world that runs one script, as threads or as processes, and its checks. */
#ifndef IPCLAB_TEST_GMP_H
#define IPCLAB_TEST_GMP_H

#include "core/gmp/gmp.h"
#include "core/gmp/proc.h"
#include "test.h"

#if defined(__SANITIZE_THREAD__)
#define THREADS_ONLY 1 /* ThreadSanitizer sees threads of one process; it is told nothing of memory shared by several */
#else
#define THREADS_ONLY 0
#endif

#define LIMIT_S 120 /* a run that takes longer hangs */
#define COUNT_OF(array) (uint32_t)(sizeof(array) / sizeof((array)[0]))

static inline pid_t fork_here(void)
{
	return fork();
}

static inline void end_here(int code)
{
	_exit(code);
}

#define HOOKS {.fork = fork_here, .end = end_here}

static inline void make(struct gmp *rt, struct gmp_config config)
{
	config.hooks = (struct gmp_hooks)HOOKS;
	CHECK_EQ(gmp_create(rt, &config), 0);
}

static inline void start(struct gmp *rt, uint32_t program)
{
	uint32_t wrong = 0;
	int rc = gmp_start(rt, program, &wrong);

	if (rc)
		fprintf(stderr, "program %u step %u\n", wrong >> 16, wrong & 0xffff);
	CHECK_EQ(rc, 0);
}

static inline void says(struct gmp *rt)
{
	fprintf(stderr, "fatal %u: %s (%lld)\n", load_relaxed(&rt->s->fatal), rt->s->fataltext,
		(long long)load_relaxed(&rt->s->fatalarg));
}

/* The kernel's own count of how often a process has gone to sleep; -1: it is gone. */
static inline int64_t sleeps_of(int32_t pid)
{
	char path[40], line[128];
	long long count = -1;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/status", pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "voluntary_ctxt_switches: %lld", &count) == 1)
			break;
	if (file)
		fclose(file);
	return count;
}

/* Ends when it should, for the reason it should, and leaves nobody. */
static inline void ends(struct gmp *rt, int reason)
{
	int got = gmp_wait(rt, SECONDS(LIMIT_S));

	if (got != reason)
		says(rt);
	CHECK_EQ(got, reason);
	CHECK_EQ(gmp_stop(rt), 0);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static inline void check_done(struct gmp *rt, uint32_t program, uint64_t spawned, uint64_t acc)
{
	struct tally tally = gmp_tally(rt, program);

	CHECK_EQ(load_relaxed(&tally.spawned), spawned);
	CHECK_EQ(load_relaxed(&tally.done), spawned);
	CHECK_EQ(load_relaxed(&tally.acc), acc);
}

#endif
