/*
 * The checks of checked builds, each broken once: what a check guards is written wrong, on purpose, and the run must end
 * by a throw that names the file, the line and the rule. Some by a player (an M that is only played, so that the moment is
 * exact), some in a world that runs.
 */
#define _GNU_SOURCE
#include <pthread.h>

#include "core/gmp/checked.h"
#include "core/gmp/lock_futex.h"
#include "core/gmp/runq.h"
#include "gmp.h"

static struct gmp world;

/* "file.c:123: what" */
static void check_thrown(struct gmp *rt, const char *file, const char *what)
{
	char *colon, name[64];

	CHECK_EQ(load_seq_cst(&rt->s->fatal), FATAL_THROW);
	snprintf(name, sizeof name, "%s:", file);
	if (strncmp(rt->s->fataltext, name, strlen(name)) != 0 || !strstr(rt->s->fataltext, what))
		fprintf(stderr, "thrown: %s; should be: %s: %s\n", rt->s->fataltext, file, what);
	CHECK(strncmp(rt->s->fataltext, name, strlen(name)) == 0);
	CHECK(strtol(rt->s->fataltext + strlen(name), &colon, 10) > 0 && *colon == ':');
	CHECK(strcmp(colon + 2, what) == 0);
}

/* --- by a player ----------------------------------------------------------------------------------------------------- */

static void bind(struct gmp *rt)
{
	store_relaxed(&rt->m->p, P_INDEX(rt->p));
	store_relaxed(&rt->p->m, M_INDEX(rt, rt->m));
	store_relaxed(&rt->p->status, _Prunning);
}

/* P 2 on the idle list, as it should be; then something about it is changed, and P 3 comes to the list. */
static void idle_p(struct gmp *rt)
{
	pidleput(rt, 2);
}

static void p_with_work(struct gmp *rt)
{
	idle_p(rt);
	runqput(rt, P(rt, 2), 1, false);
	pidleput(rt, 3);
}

static void p_with_status(struct gmp *rt)
{
	idle_p(rt);
	store_relaxed(&P(rt, 2)->status, _Psyscall);
	pidleput(rt, 3);
}

static void p_with_m(struct gmp *rt)
{
	idle_p(rt);
	store_relaxed(&P(rt, 2)->m, 3);
	pidleget(rt);
	pidleput(rt, 2);
}

static void p_without_mask(struct gmp *rt)
{
	idle_p(rt);
	maskclear(rt->s->idlepMask, 1);
	pidleput(rt, 3);
}

static void ps_miscounted(struct gmp *rt)
{
	store_relaxed(&rt->s->npidle, 1);
	idle_p(rt);
}

static void m_with_p(struct gmp *rt)
{
	store_relaxed(&M(rt, 2)->nextp, 2);
	mput(rt, 2);
}

static void m_with_g(struct gmp *rt)
{
	store_relaxed(&M(rt, 2)->curg, 1);
	mput(rt, 2);
}

static void m_that_spins(struct gmp *rt)
{
	store_relaxed(&M(rt, 2)->spinning, 1);
	mput(rt, 2);
}

static void m_that_denies(struct gmp *rt)
{
	mput(rt, 2);
	store_relaxed(&M(rt, 2)->idle, 0);
	mput(rt, 3);
}

static void ms_miscounted(struct gmp *rt)
{
	mput(rt, 2);
	store_relaxed(&rt->s->nmidle, 0);
	mput(rt, 3);
}

static void spins_uncounted(struct gmp *rt)
{
	bool inherit;

	store_relaxed(&rt->m->spinning, 1);
	findRunnable(rt, &inherit);
}

static void counted_and_all_idle(struct gmp *rt)
{
	store_relaxed(&rt->s->nmspinning, 1);
	store_relaxed(&rt->s->mnext, 1);
	mput(rt, 2);
}

static void queued_twice(struct gmp *rt)
{
	runqput(rt, rt->p, 1, false);
	runqput(rt, rt->p, 1, false);
}

static void queued_here_and_there(struct gmp *rt)
{
	runqput(rt, rt->p, 1, true);
	globrunqput(rt, 1);
}

static void queued_in_a_batch(struct gmp *rt)
{
	struct gQueue batch = {0};

	globrunqput(rt, 1);
	queuePushBack(rt, &batch, 2);
	queuePushBack(rt, &batch, 1);
	runqputbatch(rt, rt->p, &batch);
}

static void on_a_ring_unasked(struct gmp *rt)
{
	bool inherit;

	runqput(rt, rt->p, 1, false);
	store_relaxed(&rt->p->runq[0], 2);
	runqget(rt, rt->p, &inherit);
}

static void runs_and_is_queued(struct gmp *rt)
{
	store_relaxed(&G(rt, 1)->atomicstatus, _Grunnable);
	runqput(rt, rt->p, 1, false);
	execute(rt, 1, false);
}

static void two_have_it(struct gmp *rt)
{
	store_relaxed(&G(rt, 1)->atomicstatus, _Grunnable);
	store_relaxed(&rt->s->allm, 4);
	store_relaxed(&M(rt, 3)->curg, 1);
	execute(rt, 1, false);
}

static void not_its_g(struct gmp *rt)
{
	store_relaxed(&rt->m->curg, 1);
	store_relaxed(&G(rt, 1)->m, 3);
	dropg(rt);
}

static void gone_astray_before_a_call(struct gmp *rt)
{
	store_relaxed(&G(rt, 1)->atomicstatus, _Grunnable);
	execute(rt, 1, false);
	store_relaxed(&G(rt, 1)->m, 3);
	entersyscall(rt);
}

static void has_one_already(struct gmp *rt)
{
	store_relaxed(&rt->m->curg, 1);
	schedule(rt);
}

static void born_twice(struct gmp *rt)
{
	store_relaxed(&rt->m->procid, (int32_t)gettid());
	checkBirth(rt);
	checkBirth(rt);
}

static const struct {
	void (*breaks)(struct gmp *);
	const char *file, *what;
} moments[] = {
	{p_with_work, "checked.c", "idle list: a P with work"},
	{p_with_status, "checked.c", "idle list: a P that is not _Pidle"},
	{p_with_m, "checked.c", "idle list: a P with an M"},
	{p_without_mask, "checked.c", "idle list: a P that the mask does not name"},
	{ps_miscounted, "checked.c", "idle list: npidle is not how many Ps are on it"},
	{m_with_p, "checked.c", "idle list: an M with a P"},
	{m_with_g, "checked.c", "idle list: an M with a G"},
	{m_that_spins, "checked.c", "idle list: an M that spins"},
	{m_that_denies, "checked.c", "idle list: an M that does not say so"},
	{ms_miscounted, "checked.c", "idle list: nmidle is not how many Ms are on it"},
	{spins_uncounted, "find.c", "spinning: an M spins, and nobody is counted"},
	{counted_and_all_idle, "checked.c", "spinning: counted, and every M is idle"},
	{queued_twice, "runq.c", "P to G: on a run queue already"},
	{queued_here_and_there, "runq.c", "P to G: on a run queue already"},
	{queued_in_a_batch, "runq.c", "P to G: on a run queue already"},
	{on_a_ring_unasked, "runq.c", "P to G: on no run queue"},
	{runs_and_is_queued, "checked.c", "P to G: runs, and is on a run queue"},
	{two_have_it, "checked.c", "M to G: two Ms run the same G"},
	{not_its_g, "proc.c", "M to G: g.m is not its M"},
	{gone_astray_before_a_call, "checked.c", "M to G: g.m is not its M"},
	{has_one_already, "checked.c", "M to G: between two Gs, and has one"},
	{born_twice, "checked.c", "M to kernel entity: the record had one before"},
};

static void *play(void *argument)
{
	struct gmp rt = world;

	rt.m = M(&world, 1);
	rt.where = &rt.m->where;
	rt.p = P(&world, 1);
	rt.tid = (uint32_t)gettid();
	rt.rng = 12345;
	bind(&rt);
	for (uint32_t i = 1; i < 4; i++)
		store_relaxed(&P(&world, i + 1)->status, _Pidle);
	(*(void (**)(struct gmp *))argument)(&rt);
	return NULL;
}

static int every_moment_is_seen(void)
{
	for (uint32_t i = 0; i < COUNT_OF(moments); i++) {
		pthread_t thread;
		int error;

		make(&world, (struct gmp_config){.procs = 4, .threads = 1, .maxg = 1000});
		store_relaxed(&world.s->gomaxprocs, 4);
		store_relaxed(&world.s->mnext, 10); /* so that nobody finds all asleep */
		for (uint32_t g = 1; g <= 3; g++)
			CHECK_EQ(malg(&world, &error), g);
		CHECK_EQ(pthread_create(&thread, NULL, play, (void *)&moments[i].breaks), 0);
		pthread_join(thread, NULL);
		check_thrown(&world, moments[i].file, moments[i].what);
		gmp_destroy(&world);
	}
	return 0;
}

/* --- in a world that runs -------------------------------------------------------------------------------------------- */

enum { SYSMON = 1, WORKER = 2 }; /* the Ms: the second one has the only P */

static void other_id(struct gmp *rt)
{
	store_relaxed(&M(rt, WORKER)->procid, INT32_MAX); /* nobody's: above any pid_max */
}

static void other_start(struct gmp *rt)
{
	store_relaxed(&M(rt, WORKER)->starttime, load_relaxed(&M(rt, WORKER)->starttime) + 1);
}

static void same_entity(struct gmp *rt)
{
	store_relaxed(&M(rt, SYSMON)->starttime, load_relaxed(&M(rt, WORKER)->starttime));
	store_relaxed(&M(rt, SYSMON)->procid, load_relaxed(&M(rt, WORKER)->procid));
}

static void p_denies(struct gmp *rt)
{
	store_relaxed(&P(rt, 1)->m, SYSMON);
}

static void m_denies(struct gmp *rt)
{
	store_relaxed(&M(rt, WORKER)->p, 0);
}

static void not_running(struct gmp *rt)
{
	store_relaxed(&P(rt, 1)->status, _Pidle);
}

static void same_p(struct gmp *rt)
{
	store_relaxed(&M(rt, SYSMON)->p, 1);
}

static void promised_p(struct gmp *rt)
{
	store_relaxed(&M(rt, SYSMON)->nextp, 1);
}

static void same_g(struct gmp *rt)
{
	store_relaxed(&M(rt, SYSMON)->curg, 3);
}

static const struct {
	void (*breaks)(struct gmp *);
	const char *what;
} runs[] = {
	{other_id, "M to kernel entity: not the thread it was born as"},
	{other_start, "M to kernel entity: another start time"},
	{same_entity, "M to kernel entity: two Ms are one"},
	{p_denies, "M to P: p.m is not its M"},
	{m_denies, "M to P: m.p is not its P"},
	{not_running, "M to P: bound, and the P is not _Prunning"},
	{same_p, "M to P: two Ms have the same P"},
	{promised_p, "M to P: a P in use is promised to another M"},
	{same_g, "M to G: two Ms run the same G"},
};

static int every_run_is_ended(void)
{
	for (uint32_t i = 0; i < COUNT_OF(runs); i++) {
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 1000, .nopreempt = 1});
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 3}}, 1);
		gmp_program(&rt, (struct step[]){{OP_YIELD, 0, 0}, {OP_LOOP, 0, INT64_MAX}}, 2);
		start(&rt, 0);
		while (load_seq_cst(&M(&rt, WORKER)->switches) < 100 || !load_seq_cst(&M(&rt, SYSMON)->starttime))
			usleep(100);
		runs[i].breaks(&rt);
		ends(&rt, FATAL_THROW);
		check_thrown(&rt, "checked.c", runs[i].what);
		gmp_destroy(&rt);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"every_moment_is_seen", every_moment_is_seen},
		{"every_run_is_ended", every_run_is_ended},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
