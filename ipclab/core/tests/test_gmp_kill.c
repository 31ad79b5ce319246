/*
 * Death: Ms are killed -9 at random moments and at every labelled point, or stopped there for a while. The G that an M
 * ran is lost; every other one ends exactly once, and all lists and counts are right again.
 */
#define _GNU_SOURCE
#include "core/gmp/point.h"
#include "core/gmp/runq.h"
#include "gmp.h"

static const char *const points[] = {
#include "points.inc"
};

#ifndef POINT_KILLS
#define POINT_KILLS 2
#endif
#define ANY_POINT 1

enum { MOTHER, WORKER, SLEEPER, LOCKER, SELECTER, BLOCKER, TIED, STOPPER, PRODUCER, CONSUMER, WAITER, ADDER, CLOSER, BULK, PROGRAMS };

/* No G here waits for another one for ever, so that a lost one does not hold others up: producers and consumers come in
 * numbers, and when some are lost the others end by a deadlock of those that are left, which is told apart below. */
static void load_up(struct gmp *rt, int64_t rounds, bool pairs)
{
	int through = gmp_chan(rt, 4), fast = gmp_chan(rt, 8), mutex = gmp_sema(rt, 0), other = gmp_chan(rt, 0);
	int over = gmp_chan(rt, 0), wg = gmp_sema(rt, 0);
	struct step mother[] = {{OP_SPAWN, WORKER, 10}, {OP_SPAWN, SLEEPER, 10}, {OP_SPAWN, LOCKER, 6}, {OP_SPAWN, SELECTER, 6},
				{OP_SPAWN, BLOCKER, 4}, {OP_SPAWN, TIED, 2}, {OP_SPAWN, STOPPER, 1},
				{OP_SPAWN, PRODUCER, pairs ? 6 : 0}, {OP_SPAWN, CONSUMER, pairs ? 6 : 0}, {OP_WG_ADD, wg, 3},
				{OP_SPAWN, WAITER, 4}, {OP_SPAWN, ADDER, 3}, {OP_SPAWN, CLOSER, 1}, {OP_SPAWN, BULK, 300},
				{OP_SLEEP, 0, 100000}, {OP_SPAWN, BULK, 100}};
	struct step worker[] = {{OP_YIELD, 0, 0}, {OP_COMPUTE, 0, 20000}, {OP_LOOP, 0, 3 * rounds}};
	struct step sleeper[] = {{OP_SLEEP, 0, 30000}, {OP_LOOP, 0, 3 * rounds}};
	struct step locker[] = {{OP_LOCK, mutex, 0}, {OP_YIELD, 0, 0}, {OP_UNLOCK, mutex, 0}, {OP_LOOP, 0, 5 * rounds}};
	struct step selecter[] = {{OP_SELECT, 3, 1}, {OP_SEND, fast, 1}, {OP_RECV, fast, 0}, {OP_SEND, other, 1},
				  {OP_SELECT, 2, 1}, {OP_RECV, other, 0}, {OP_RECV, fast, 0},
				  {OP_YIELD, 0, 0}, {OP_LOOP, 0, 4 * rounds}};
	struct step blocker[] = {{OP_BLOCK, 0, 100000}, {OP_BLOCKING, 0, 50000}, {OP_LOOP, 0, rounds}};
	struct step tied[] = {{OP_LOCKM, 0, 0}, {OP_YIELD, 0, 0}, {OP_SLEEP, 0, 20000}, {OP_LOOP, 1, rounds}};
	struct step stopper[] = {{OP_STOPWORLD, 3, 0}, {OP_SLEEP, 0, 100000}, {OP_STOPWORLD, 2, 0}, {OP_LOOP, 0, rounds}};
	struct step producer[] = {{OP_SEND, through, 1}, {OP_LOOP, 0, 4 * rounds}};
	struct step consumer[] = {{OP_SELECT, 2, 0}, {OP_RECV, through, 0}, {OP_RECV, other, 0}, {OP_LOOP, 0, 4 * rounds}};
	struct step waiter[] = {{OP_WG_WAIT, wg, 0}, {OP_RECV, over, 0}, {OP_RECV, over, 0}};
	struct step adder[] = {{OP_YIELD, 0, 0}, {OP_SLEEP, 0, 50000}, {OP_WG_ADD, wg, -1}};
	struct step closer[] = {{OP_SLEEP, 0, 500000}, {OP_CLOSE, over, 0}};
	struct step bulk[] = {{OP_EXIT, 0, 0}};

#define ADD(steps) CHECK(gmp_program(rt, steps, COUNT_OF(steps)) >= 0)
	ADD(mother);
	ADD(worker);
	ADD(sleeper);
	ADD(locker);
	ADD(selecter);
	ADD(blocker);
	ADD(tied);
	ADD(stopper);
	ADD(producer);
	ADD(consumer);
	ADD(waiter);
	ADD(adder);
	ADD(closer);
	ADD(bulk);
#undef ADD
}

static void dump(struct gmp *rt)
{
	says(rt);
	for (uint32_t g = 1; g <= load_relaxed(&rt->s->allglen); g++)
		if (load_relaxed(&G(rt, g)->atomicstatus) != _Gdead)
			fprintf(stderr, "G%u program %u status %u (%s) pc %u resume %u param %u done %u selectDone %u lockedm %u\n", g, G(rt, g)->startpc,
				load_relaxed(&G(rt, g)->atomicstatus), waitReasonString(load_relaxed(&G(rt, g)->waitreason)),
				G(rt, g)->pc, G(rt, g)->resume, load_relaxed(&G(rt, g)->param), load_relaxed(&G(rt, g)->sg.done),
				load_relaxed(&G(rt, g)->selectDone), load_relaxed(&G(rt, g)->lockedm));
	for (uint32_t i = 0; i < 4; i++)
		fprintf(stderr, "P%u status %u m %u runq %u next %u\n", i, load_relaxed(&rt->allp[i].status), load_relaxed(&rt->allp[i].m),
			load_relaxed(&rt->allp[i].runqtail) - load_relaxed(&rt->allp[i].runqhead), load_relaxed(&rt->allp[i].runnext));
	for (uint32_t m = 1; m <= (uint32_t)load_relaxed(&rt->s->mnext); m++)
		fprintf(stderr, "m%u procid %d dead %u exiting %u where %u idle %u blocked %u polling %u nextp %u p %u oldp %u curg %u spin %u fn %u lockedg %u word %u\n",
			m, load_relaxed(&M(rt, m)->procid), load_relaxed(&M(rt, m)->dead), load_relaxed(&M(rt, m)->exiting), load_relaxed(&M(rt, m)->where), load_relaxed(&M(rt, m)->idle),
			load_relaxed(&M(rt, m)->blocked), load_relaxed(&M(rt, m)->polling), load_relaxed(&M(rt, m)->nextp), load_relaxed(&M(rt, m)->p), load_relaxed(&M(rt, m)->oldp),
			load_relaxed(&M(rt, m)->curg), load_relaxed(&M(rt, m)->spinning), load_relaxed(&M(rt, m)->mstartfn), load_relaxed(&M(rt, m)->lockedg), load_relaxed(&M(rt, m)->park.word));
	fprintf(stderr, "mnext %lld nmfreed %lld nmidle %d nmidlelocked %d nmsys %d npidle %d nmspinning %d gomaxprocs %d gcwaiting %u stopwait %d repairs %llu\n",
		(long long)load_relaxed(&rt->s->mnext), (long long)load_relaxed(&rt->s->nmfreed), load_relaxed(&rt->s->nmidle), load_relaxed(&rt->s->nmidlelocked),
		load_relaxed(&rt->s->nmsys), load_relaxed(&rt->s->npidle), load_relaxed(&rt->s->nmspinning), load_relaxed(&rt->s->gomaxprocs), load_relaxed(&rt->s->gcwaiting),
		load_relaxed(&rt->s->stopwait), (unsigned long long)load_relaxed(&rt->s->repairs));
	for (uint32_t i = 0; i < rt->s->nsemas; i++)
		fprintf(stderr, "sema %u value %u state %u nwait %u holder %u first %u awake %u\n", i, load_relaxed(&rt->semas[i].value),
			load_relaxed(&rt->semas[i].state), load_relaxed(&rt->semas[i].nwait), load_relaxed(&rt->semas[i].holder), load_relaxed(&rt->semas[i].q.first), rt->semas[i].awake);
}

/* After the end: every G that was born has ended once, is lost, or waits where it must. */
static void check_books(struct gmp *rt, uint64_t kills)
{
	uint64_t alive[PROGRAMS] = {0}, lost = 0;

	for (uint32_t g = 1; g <= load_relaxed(&rt->s->allglen); g++)
		if (load_relaxed(&G(rt, g)->atomicstatus) != _Gdead)
			alive[G(rt, g)->startpc]++;
	for (uint32_t i = 0; i < PROGRAMS; i++) {
		struct tally tally = gmp_tally(rt, i);
		uint64_t its = load_relaxed(&rt->programs[i].lost);

		lost += its;
		if (tally.spawned != tally.done + its + alive[i])
			fprintf(stderr, "program %u: %llu born, %llu done, %llu lost, %llu alive\n", i,
				(unsigned long long)tally.spawned, (unsigned long long)tally.done, (unsigned long long)its,
				(unsigned long long)alive[i]);
		CHECK_EQ(tally.spawned, tally.done + its + alive[i]);
		if (i == PRODUCER || i == CONSUMER || i == WAITER)
			continue; /* theirs may be lost for whom they wait */
		if (alive[i])
			dump(rt);
		CHECK_EQ(alive[i], 0);
	}
	CHECK_EQ(lost, load_relaxed(&rt->s->lostgs));
	CHECK(lost <= 2 * kills); /* its own, and the one that was locked to it */
}

static int run_to_the_end(struct gmp *rt)
{
	int got = gmp_wait(rt, SECONDS(10));

	if (got != FATAL_DONE && got != FATAL_DEADLOCK) {
		dump(rt);
		CHECK_EQ(got, FATAL_DONE);
	}
	CHECK_EQ(gmp_stop(rt), 0);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	return got;
}

static int random_kills(void)
{
	uint64_t seed = 11, deaths = 0, repairs = 0, longest = 0, lost = 0;
	int killed = 0;

	if (THREADS_ONLY)
		return SKIP;
	for (int round = 0; killed < KILLS; round++) {
		struct gmp rt;
		int here = 0;

		make(&rt, (struct gmp_config){.procs = 2 + round % 3, .maxg = 10000, .randomize = round % 2, .seed = round,
					      .eventslots = 256});
		load_up(&rt, 60, round % 4 == 3);
		start(&rt, MOTHER);
		while (!load_seq_cst(&rt.s->fatal) && here < 40) {
			uint32_t n = (uint32_t)load_seq_cst(&rt.s->mnext), m = 1 + random_below(&seed, n);
			int32_t pid = load_seq_cst(&M(&rt, m)->procid);

			pass_ns(random_below(&seed, 1500000));
			if (pid <= 0 || load_seq_cst(&M(&rt, m)->dead) || load_seq_cst(&M(&rt, m)->exiting))
				continue;
			kill(pid, SIGKILL);
			here++;
		}
		run_to_the_end(&rt);
		check_books(&rt, here);
		killed += here;
		deaths += load_relaxed(&rt.s->deaths);
		repairs += load_relaxed(&rt.s->repairs);
		lost += load_relaxed(&rt.s->lostgs);
		longest = load_relaxed(&rt.s->longestns) > longest ? load_relaxed(&rt.s->longestns) : longest;
		gmp_destroy(&rt);
	}
	fprintf(stderr, "  %d kills, %llu deaths in %llu repairs, the longest %.1f ms, %llu Gs lost\n", killed,
		(unsigned long long)deaths, (unsigned long long)repairs, longest / 1e6, (unsigned long long)lost);
	CHECK(deaths > 0);
	return 0;
}

static void wake_the_stopped(struct gmp *rt)
{
	for (uint32_t m = 1; m <= (uint32_t)load_seq_cst(&rt->s->mnext); m++)
		if (load_seq_cst(&M(rt, m)->procid) > 0 && !load_seq_cst(&M(rt, m)->dead))
			kill(load_seq_cst(&M(rt, m)->procid), SIGCONT);
}

/* One M is struck at the point, the countdown-th time anybody comes there. True if anybody did. */
static bool strike(const char *name, int signo, uint64_t seed, uint32_t countdown)
{
	struct gmp rt;
	bool struck;

	make(&rt, (struct gmp_config){.procs = 2, .maxg = 10000, .randomize = seed % 2, .seed = seed, .eventslots = 64});
	load_up(&rt, 3, seed % 3 != 0);
	store_seq_cst(&rt.s->killcountdown, (int32_t)countdown);
	store_seq_cst(&rt.s->killsignal, signo);
	store_seq_cst(&rt.s->killpoint, name ? pointhash(name) : ANY_POINT);
	start(&rt, MOTHER);
	if (signo == SIGSTOP) {
		while (!load_seq_cst(&rt.s->fatal) && load_seq_cst(&rt.s->killpoint))
			usleep(200);
		usleep(2000);
		wake_the_stopped(&rt);
	}
	run_to_the_end(&rt);
	struck = !load_seq_cst(&rt.s->killpoint);
	check_books(&rt, signo == SIGKILL && struck);
	if (signo == SIGSTOP)
		CHECK_EQ(load_relaxed(&rt.s->lostgs), 0);
	gmp_destroy(&rt);
	return struck;
}

static int at_every_point(int signo, int times)
{
	uint32_t reached = 0;
	uint64_t seed = 3;

	if (THREADS_ONLY)
		return SKIP;
	for (uint32_t i = 0; i < COUNT_OF(points); i++) {
		const char *only = getenv("IPCLAB_POINT"); /* those whose name begins so: to look into one */
		bool here = false;

		if (only && strncmp(points[i], only, strlen(only)) != 0)
			continue;
		for (int j = 0; j < times; j++) {
			if (getenv("IPCLAB_VERBOSE"))
				fprintf(stderr, "  %s %d\n", points[i], j);
			here |= strike(points[i], signo, j + i, j == 0 ? 1 : 1 + random_below(&seed, 20));
		}
		reached += here;
		if (!here)
			fprintf(stderr, "  nobody came to %s\n", points[i]);
	}
	fprintf(stderr, "  %u of %u points struck\n", reached, COUNT_OF(points));
	CHECK(getenv("IPCLAB_POINT") || reached * 10 >= COUNT_OF(points) * 8);
	return 0;
}

static int killed_at_every_point(void)
{
	return at_every_point(SIGKILL, getenv("IPCLAB_POINT_KILLS") ? atoi(getenv("IPCLAB_POINT_KILLS")) : POINT_KILLS);
}

static int stopped_at_every_point(void)
{
	return at_every_point(SIGSTOP, 1);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"killed_at_every_point", killed_at_every_point},
		{"stopped_at_every_point", stopped_at_every_point},
		{"random_kills", random_kills},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
