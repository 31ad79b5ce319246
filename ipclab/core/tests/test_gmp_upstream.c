/*
 * Bugs that Go's scheduler has had, or has: each is a test that fails where we have it too. Nothing is timed: a run that
 * goes wrong here does not end, or an M that is only played takes what it must not.
 *
 *   golang/go#43997  an M that does not spin looks at all queues once more after it has dropped its P: useless
 *   golang/go#55160  an M that could not spin, and one that has just dropped its P, each rely on the other: work is lost
 *   golang/go#45867, #60693  an idle P beside a runnable G; preemption hides it: test_gmp_stress, no_wake_up_is_lost
 *   golang/go#28701  ticks differ at every look of sysmon, so a P is never taken out of system calls
 *   golang/go#18236  sysmon looks every 20 us whatever there is to do
 *   golang/go#29734  a call that is known to block waits for sysmon all the same
 *   golang/go#65178  two Gs that keep waking each other starve a third one
 *
 * And one that Go has not, by what its snapshot of the idle Ps is: no copy of the mask, but the mask itself.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

#include "core/gmp/lock_futex.h"
#include "core/gmp/point.h"
#include "core/gmp/runq.h"
#include "gmp.h"

/* --- by an M that is only played, so that the moment is exact -------------------------------------------------------- */

static struct gmp world;
static _Atomic uint32_t found; /* the G, by the player */

static void *player(void *unused)
{
	struct gmp rt = world;
	bool inheritTime;
	sigset_t usr1;

	(void)unused;
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	CHECK_EQ(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL), 0);
	rt.m = M(&world, 1);
	rt.where = &rt.m->where;
	rt.p = P(&world, 1);
	rt.tid = (uint32_t)gettid();
	rt.rng = 12345;
	store_relaxed(&rt.m->procid, (int32_t)rt.tid);
	store_relaxed(&rt.m->p, 1);
	store_relaxed(&rt.p->m, 1);
	store_relaxed(&rt.p->status, _Prunning);
	store_seq_cst(&found, findRunnable(&rt, &inheritTime));
	return NULL;
}

/*
 * Four busy Ps, two spinning Ms: nobody else may spin. There is a G in the queue of P 2, and M 1 has nothing.
 * Returns once M 1 has found it, or sleeps.
 */
static void look_for_work(bool needed)
{
	pthread_t thread;
	int error;

	make(&world, (struct gmp_config){.procs = 4, .threads = 1, .maxg = 1000});
	store_relaxed(&world.s->gomaxprocs, 4);
	store_relaxed(&world.s->mnext, 10); /* so that nobody finds all asleep */
	store_relaxed(&world.s->nmspinning, 2);
	store_seq_cst(&world.s->needspinning, needed);
	for (uint32_t p = 2; p <= 4; p++)
		store_relaxed(&P(&world, p)->status, _Prunning);
	CHECK_EQ(malg(&world, &error), 1);
	store_relaxed(&G(&world, 1)->atomicstatus, _Grunnable);
	runqput(&world, P(&world, 2), 1, false);
	store_seq_cst(&found, 0);
	CHECK_EQ(pthread_create(&thread, NULL, player, NULL), 0);
	for (int64_t until = SECONDS(LIMIT_S); !load_seq_cst(&found) && load_seq_cst(&M(&world, 1)->where) != M_PARKED;) {
		CHECK(monotonic_ns() < until);
		usleep(100);
	}
	store_seq_cst(&world.s->exiting, 1);
	if (!load_seq_cst(&found))
		note_wakeup(&M(&world, 1)->park);
	CHECK_EQ(pthread_join(thread, NULL), 0);
}

static int who_does_not_spin_looks_once(void) /* #43997 */
{
	look_for_work(false);
	CHECK_EQ(load_seq_cst(&found), 0);
	CHECK(!runqempty(P(&world, 2)));
	CHECK_EQ(load_seq_cst(&world.s->pidle), 1);
	CHECK_EQ(load_seq_cst(&world.s->midle), 1);
	CHECK_EQ(load_seq_cst(&world.s->nmspinning), 2);
	gmp_destroy(&world);
	return 0;
}

static int who_is_needed_looks_again(void) /* #55160 */
{
	look_for_work(true);
	CHECK_EQ(load_seq_cst(&found), 1);
	CHECK(runqempty(P(&world, 2)));
	CHECK_EQ(load_seq_cst(&world.s->pidle), 0);
	CHECK_EQ(load_seq_cst(&world.s->nmspinning), 3);
	CHECK_EQ(load_seq_cst(&world.s->needspinning), 0);
	gmp_destroy(&world);
	return 0;
}

/* On M 1, between "spinning" and "no more": M 2 comes out of the kernel, takes two Ps, and leaves a G in the second one. */
static void another_comes(int signo)
{
	struct gmp rt = world;
	uint32_t p;

	(void)signo;
	rt.m = M(&world, 2);
	rt.where = &rt.m->where;
	lock(&rt, &rt.s->lock);
	CHECK_EQ(pidleget(&rt), 1); /* that of M 1 */
	p = pidleget(&rt);
	unlock(&rt, &rt.s->lock);
	CHECK_EQ(p, 2);
	rt.p = P(&world, p);
	store_relaxed(&rt.p->status, _Prunning);
	runqput(&rt, rt.p, 1, false);
	CHECK_EQ(load_seq_cst(&world.s->nmspinning), 1);
	wakep(&rt); /* somebody spins: he will find it */
}

static int who_gives_up_sees_what_was_idle(void)
{
	pthread_t thread;
	sigset_t usr1;
	int error;

	if (THREADS_ONLY) /* where points strike nobody */
		return SKIP;
	make(&world, (struct gmp_config){.procs = 3, .maxg = 1000});
	store_relaxed(&world.s->gomaxprocs, 3);
	store_relaxed(&world.s->mnext, 10);
	lock(&world, &world.s->lock);
	for (uint32_t p = 3; p >= 2; p--) {
		store_relaxed(&P(&world, p)->status, _Pidle);
		pidleput(&world, p);
	}
	unlock(&world, &world.s->lock);
	CHECK_EQ(malg(&world, &error), 1);
	store_relaxed(&G(&world, 1)->atomicstatus, _Grunnable);
	store_seq_cst(&found, 0);
	store_seq_cst(&world.s->killcountdown, 1);
	store_seq_cst(&world.s->killsignal, SIGUSR1);
	store_seq_cst(&world.s->killpoint, pointhash("lookAgain.off"));
	signal(SIGUSR1, another_comes);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0); /* it is the player's */
	CHECK_EQ(pthread_create(&thread, NULL, player, NULL), 0);
	for (int64_t until = SECONDS(LIMIT_S); !load_seq_cst(&found);) {
		CHECK(monotonic_ns() < until && !(load_seq_cst(&M(&world, 1)->where) == M_PARKED));
		usleep(100);
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(load_seq_cst(&found), 1);
	CHECK_EQ(load_seq_cst(&world.s->killpoint), 0);
	CHECK_EQ(load_seq_cst(&M(&world, 1)->p), 3);
	CHECK(runqempty(P(&world, 2)));
	gmp_destroy(&world);
	return 0;
}

/* --- in a world that runs: main waits for a message of the one who must not be forgotten ----------------------------- */

static void world_of(struct gmp *rt, bool threads)
{
	make(rt, (struct gmp_config){.procs = 1, .threads = threads, .maxg = 100, .mainends = 1});
	CHECK_EQ(gmp_chan(rt, 0), 0);
	CHECK_EQ(gmp_chan(rt, 0), 1);
	CHECK_EQ(gmp_chan(rt, 0), 2);
	CHECK_EQ(gmp_program(rt, (struct step[]){{OP_SPAWN, 1, 1}, {OP_SPAWN, 2, 1}, {OP_SPAWN, 3, 1}, {OP_RECV, 0, 0}}, 4), 0);
}

/* The caller's P changes its ticks between any two looks, and is hardly ever out of a call. */
static int ticks_that_always_differ_are_no_reason(void) /* #28701 */
{
	for (uint32_t i = 0; i < 4; i++) {
		struct gmp rt;

		world_of(&rt, THREADS_ONLY || i % 2);
		gmp_program(&rt, (struct step[]){{OP_BLOCK, 0, 20000000}, {OP_LOOP, 0, INT64_MAX}}, 2);
		gmp_program(&rt, (struct step[]){{OP_COMPUTE, 0, 20000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 100}, {OP_SEND, 0, 1}}, 4);
		gmp_program(&rt, (struct step[]){{OP_YIELD, 0, 0}, {OP_LOOP, 0, INT64_MAX}}, 2);
		start(&rt, 0);
		ends(&rt, FATAL_DONE);
		CHECK(load_relaxed(&rt.s->retakes) >= 1);
		gmp_destroy(&rt);
	}
	return 0;
}

/* Every 20 us in half a second would be 25,000. */
static int sysmon_sleeps_when_there_is_nothing_to_see(void) /* #18236 */
{
	static const struct step quiet[] = {{OP_SLEEP, 0, 500000000}, {OP_SEND, 0, 1}};
	static const struct step busy[] = {{OP_COMPUTE, 0, 500000000}, {OP_SEND, 0, 1}};

	if (THREADS_ONLY)
		return SKIP;
	for (uint32_t i = 0; i < 2; i++) {
		struct gmp rt;
		int64_t before, after = 0;
		int32_t pid;

		world_of(&rt, false);
		gmp_program(&rt, i ? busy : quiet, 2);
		gmp_program(&rt, (struct step[]){{OP_EXIT, 0, 0}}, 1);
		gmp_program(&rt, (struct step[]){{OP_EXIT, 0, 0}}, 1);
		start(&rt, 0);
		while ((pid = load_seq_cst(&M(&rt, 1)->procid)) <= 0)
			usleep(100);
		before = sleeps_of(pid);
		CHECK(before >= 0);
		while (!load_seq_cst(&rt.s->fatal)) {
			after = sleeps_of(pid); /* it is there until gmp_wait */
			CHECK(after >= 0);
			usleep(1000);
		}
		ends(&rt, FATAL_DONE);
		/* busy: 50 looks, then ever longer ones up to 10 ms; quiet: none while all Ps are idle */
		if (after - before > 1000)
			fprintf(stderr, "  %lld looks\n", (long long)(after - before));
		CHECK(after >= before && after - before <= 1000);
		gmp_destroy(&rt);
	}
	return 0;
}

/* Sysmon is stopped, and the P moves all the same. */
static int who_says_that_he_blocks_needs_no_sysmon(void) /* #29734 */
{
	struct gmp rt;
	int32_t pid;

	if (THREADS_ONLY)
		return SKIP;
	world_of(&rt, false);
	gmp_program(&rt, (struct step[]){{OP_SLEEP, 0, 50000000}, {OP_BLOCKING, 0, 3600 * NS_PER_S}}, 2);
	gmp_program(&rt, (struct step[]){{OP_SLEEP, 0, 60000000}, {OP_COMPUTE, 0, 1000000}, {OP_SEND, 0, 1}}, 3);
	gmp_program(&rt, (struct step[]){{OP_EXIT, 0, 0}}, 1);
	start(&rt, 0);
	while ((pid = load_seq_cst(&M(&rt, 1)->procid)) <= 0 || load_seq_cst(&M(&rt, 1)->where) == M_RUNTIME)
		usleep(100);
	CHECK_EQ(kill(pid, SIGSTOP), 0);
	if (load_seq_cst(&M(&rt, 1)->where) == M_RUNTIME) { /* with a lock in its hand, perhaps */
		kill(pid, SIGCONT);
		ends(&rt, FATAL_DONE);
		gmp_destroy(&rt);
		return 0;
	}
	CHECK_EQ(gmp_wait(&rt, SECONDS(LIMIT_S)), FATAL_DONE);
	CHECK_EQ(load_relaxed(&rt.s->retakes), 0);
	kill(pid, SIGCONT);
	CHECK_EQ(gmp_stop(&rt), 0);
	gmp_destroy(&rt);
	return 0;
}

/* The pair wakes each other into runnext, again and again. */
static int a_pair_starves_nobody(void) /* #65178 */
{
	for (uint32_t i = 0; i < 4; i++) {
		struct gmp rt;

		world_of(&rt, THREADS_ONLY || i % 2);
		gmp_program(&rt, (struct step[]){{OP_SEND, 1, 1}, {OP_RECV, 2, 0}, {OP_LOOP, 0, INT64_MAX}}, 3);
		gmp_program(&rt, (struct step[]){{OP_RECV, 1, 0}, {OP_SEND, 2, 1}, {OP_LOOP, 0, INT64_MAX}}, 3);
		gmp_program(&rt, (struct step[]){{OP_YIELD, 0, 0}, {OP_LOOP, 0, 3}, {OP_SEND, 0, 1}}, 3);
		start(&rt, 0);
		ends(&rt, FATAL_DONE);
		gmp_destroy(&rt);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"who_does_not_spin_looks_once", who_does_not_spin_looks_once},
		{"who_is_needed_looks_again", who_is_needed_looks_again},
		{"who_gives_up_sees_what_was_idle", who_gives_up_sees_what_was_idle},
		{"ticks_that_always_differ_are_no_reason", ticks_that_always_differ_are_no_reason},
		{"sysmon_sleeps_when_there_is_nothing_to_see", sysmon_sleeps_when_there_is_nothing_to_see},
		{"who_says_that_he_blocks_needs_no_sysmon", who_says_that_he_blocks_needs_no_sysmon},
		{"a_pair_starves_nobody", a_pair_starves_nobody},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
