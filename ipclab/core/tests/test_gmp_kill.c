/*
 * Death: Ms are killed -9 at random moments and at every labelled point, or stopped there for a while. The G that an M
 * ran is lost; every other one ends exactly once, and all lists and counts are right again.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/stat.h>

#include "core/gmp/mheap.h"
#include "core/gmp/point.h"
#include "core/gmp/runq.h"
#include "gmp.h"

static const char *const points[] = {
#include "points.inc"
};

#ifndef POINT_KILLS
#define POINT_KILLS 1
#endif
#define ANY_POINT 1
#define PATIENCE_NS (60 * NS_PER_S)

enum { MOTHER, WORKER, SLEEPER, LOCKER, SELECTER, BLOCKER, TIED, STOPPER, PRODUCER, CONSUMER, WAITER, ADDER, CLOSER, BULK,
       NAPPER, PERMIT, WAVE, LONER, HANDER, CALLER, TURNS, SPAWNER, GIVER, TAKER, CHURNER, PROGRAMS };

/* Workloads. BUSY: both Ps have work all the time. PAIRS: producers and consumers with it. QUIET: little to do, so that Ms
 * sleep, poll and are handed Ps; waves of selects. */
enum { BUSY, PAIRS, QUIET, WORKLOADS };

/* No G here waits for another one for ever, so that a lost one does not hold others up: producers and consumers come in
 * numbers, and when some are lost the others end by a deadlock of those that are left, which is told apart below. */
static void load_up(struct gmp *rt, int64_t rounds, int load)
{
	int through = gmp_chan(rt, 4), fast = gmp_chan(rt, 8), mutex = gmp_sema(rt, 0), other = gmp_chan(rt, 0);
	int over = gmp_chan(rt, 0), wg = gmp_sema(rt, 0), permits = gmp_sema(rt, 2), wg2 = gmp_sema(rt, 0);
	int w[] = {gmp_chan(rt, 0), gmp_chan(rt, 0), gmp_chan(rt, 0)}, v[] = {gmp_chan(rt, 0), gmp_chan(rt, 0), gmp_chan(rt, 0)};
	int pairs = load == PAIRS ? 6 : 0, parcels = gmp_chan(rt, 3), hands = gmp_chan(rt, 0), large = gmp_chan(rt, 2);
	struct step busy[] = {{OP_SPAWN, WORKER, 10}, {OP_SPAWN, SLEEPER, 10}, {OP_SPAWN, LOCKER, 6}, {OP_SPAWN, SELECTER, 6},
			      {OP_SPAWN, BLOCKER, 4}, {OP_SPAWN, TIED, 2}, {OP_SPAWN, STOPPER, 1}, {OP_SPAWN, PERMIT, 4},
			      {OP_SPAWN, PRODUCER, pairs}, {OP_SPAWN, CONSUMER, pairs}, {OP_WG_ADD, wg, 7},
			      {OP_SPAWN, GIVER, pairs / 2}, {OP_SPAWN, TAKER, pairs / 2}, {OP_SPAWN, CHURNER, 3},
			      {OP_SPAWN, TURNS, 4}, {OP_SPAWN, WAITER, 4}, {OP_SPAWN, ADDER, 3}, {OP_SPAWN, CLOSER, 1},
			      {OP_SPAWN, SPAWNER, 4}, {OP_SPAWN, BULK, 300}, {OP_SLEEP, 0, 100000}, {OP_SPAWN, BULK, 100}};
	struct step quiet[] = {{OP_SPAWN, LONER, 1}, {OP_SPAWN, HANDER, 1}, {OP_SLEEP, 0, 1500000},
			       {OP_SPAWN, NAPPER, 3}, {OP_SLEEP, 0, 300000}, {OP_SPAWN, NAPPER, 2}, {OP_SPAWN, SLEEPER, 2},
			       {OP_SPAWN, WAVE, 70}, {OP_SPAWN, CALLER, 1}, {OP_SPAWN, STOPPER, 1}, {OP_SPAWN, TIED, 1},
			       {OP_SPAWN, PERMIT, 4}, {OP_SPAWN, LOCKER, 2}, {OP_SPAWN, BLOCKER, 1}, {OP_SPAWN, TURNS, 3},
			       {OP_SLEEP, 0, 500000}, {OP_SPAWN, BULK, 20}};
	struct step worker[] = {{OP_YIELD, 0, 0}, {OP_COMPUTE, 0, 20000}, {OP_LOOP, 0, 3 * rounds}};
	struct step sleeper[] = {{OP_SLEEP, 0, 30000}, {OP_LOOP, 0, 3 * rounds}};
	struct step locker[] = {{OP_LOCK, mutex, 0}, {OP_YIELD, 0, 0}, {OP_UNLOCK, mutex, 0}, {OP_LOOP, 0, 5 * rounds}};
	struct step selecter[] = {{OP_SELECT, 3, 1}, {OP_SEND, fast, 1}, {OP_RECV, fast, 0}, {OP_SEND, other, 1},
				  {OP_SELECT, 2, 1}, {OP_RECV, other, 0}, {OP_RECV, fast, 0},
				  {OP_YIELD, 0, 0}, {OP_LOOP, 0, 4 * rounds}};
	struct step blocker[] = {{OP_BLOCK, 0, 100000}, {OP_BLOCKING, 0, 50000}, {OP_LOOP, 0, rounds}};
	struct step tied[] = {{OP_LOCKM, 0, 0}, {OP_YIELD, 0, 0}, {OP_SLEEP, 0, 20000}, {OP_UNLOCKM, 0, 0},
			      {OP_LOOP, 0, rounds}, {OP_LOCKM, 0, 0}, {OP_YIELD, 0, 0}, {OP_LOOP, 6, rounds}};
	struct step stopper[] = {{OP_STOPWORLD, 3, 0}, {OP_SLEEP, 0, 100000}, {OP_STOPWORLD, 4, 0}, {OP_YIELD, 0, 0},
				 {OP_STOPWORLD, 1, 0}, {OP_SLEEP, 0, 50000}, {OP_STOPWORLD, 2, 0}, {OP_LOOP, 0, rounds}};
	struct step producer[] = {{OP_SEND, through, 1}, {OP_LOOP, 0, 4 * rounds}};
	struct step giver[] = {{OP_GIVE, hands, 40}, {OP_GIVE, parcels, 20}, {OP_GIVE, parcels, 5000}, {OP_LOOP, 0, 4 * rounds},
			       {OP_GIVE, large, 200000}, {OP_LOOP, 4, 3}};
	struct step taker[] = {{OP_TAKE, hands, 0}, {OP_TAKE, parcels, 0}, {OP_TAKE, parcels, 0}, {OP_LOOP, 0, 4 * rounds},
			       {OP_TAKE, large, 0}, {OP_LOOP, 4, 3}};
	struct step churner[] = {{OP_CHURN, 3, 2}, {OP_YIELD, 0, 0}, {OP_CHURN, 0, 2}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 2 * rounds}};
	struct step consumer[] = {{OP_SELECT, 2, 0}, {OP_RECV, through, 0}, {OP_RECV, other, 0}, {OP_LOOP, 0, 4 * rounds}};
	struct step waiter[] = {{OP_WG_WAIT, wg, 0}, {OP_RECV, over, 0}, {OP_RECV, over, 0}};
	struct step adder[] = {{OP_YIELD, 0, 0}, {OP_SLEEP, 0, 50000}, {OP_WG_ADD, wg, -1}};
	struct step turns[] = {{OP_WG_ADD, wg2, 1}, {OP_YIELD, 0, 0}, {OP_WG_ADD, wg2, -1}, {OP_WG_WAIT, wg2, 0},
			       {OP_LOOP, 0, 15 * rounds}};
	struct step closer[] = {{OP_WG_ADD, wg, -1}, {OP_WG_ADD, wg, -1}, {OP_SLEEP, 0, 300000}, {OP_WG_ADD, wg, -1},
				{OP_WG_ADD, wg, -1}, {OP_SLEEP, 0, 200000}, {OP_CLOSE, over, 0}};
	struct step bulk[] = {{OP_EXIT, 0, 0}};
	struct step spawner[] = {{OP_SPAWN, BULK, 20}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 4}};
	struct step napper[] = {{OP_SLEEP, 0, 200000}, {OP_BLOCK, 0, 100000}, {OP_SLEEP, 0, 700000}, {OP_LOOP, 0, rounds}};
	struct step permit[] = {{OP_ACQUIRE, permits, 0}, {OP_RELEASE, permits, 0}, {OP_LOOP, 0, 100 * rounds}};
	struct step wave[] = {{OP_SELECT, 3, 0}, {OP_RECV, w[0], 0}, {OP_RECV, w[1], 0}, {OP_RECV, w[2], 0},
			      {OP_SLEEP, 0, 100000}, {OP_SELECT, 3, 0}, {OP_RECV, v[0], 0}, {OP_RECV, v[1], 0}, {OP_RECV, v[2], 0}};
	struct step loner[] = {{OP_COMPUTE, 0, 1000000}};
	struct step hander[] = {{OP_BLOCKING, 0, 20000}, {OP_LOOP, 0, 10}};
	struct step caller[] = {{OP_SLEEP, 0, 300000}, {OP_CLOSE, w[1], 0}, {OP_SLEEP, 0, 900000}, {OP_CLOSE, v[0], 0}};

#define ADD(steps) CHECK(gmp_program(rt, steps, COUNT_OF(steps)) >= 0)
	if (load == QUIET)
		ADD(quiet);
	else
		ADD(busy);
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
	ADD(napper);
	ADD(permit);
	ADD(wave);
	ADD(loner);
	ADD(hander);
	ADD(caller);
	ADD(turns);
	ADD(spawner);
	ADD(giver);
	ADD(taker);
	ADD(churner);
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
	for (uint32_t m = 1; m <= mLast(rt); m++)
		fprintf(stderr, "m%u procid %d dead %u exiting %u where %u idle %u blocked %u polling %u nextp %u p %u oldp %u curg %u spin %u fn %u lockedg %u word %u\n",
			m, load_relaxed(&M(rt, m)->procid), load_relaxed(&M(rt, m)->dead), load_relaxed(&M(rt, m)->exiting), load_relaxed(&M(rt, m)->where), load_relaxed(&M(rt, m)->idle),
			load_relaxed(&M(rt, m)->blocked), load_relaxed(&M(rt, m)->polling), load_relaxed(&M(rt, m)->nextp), load_relaxed(&M(rt, m)->p), load_relaxed(&M(rt, m)->oldp),
			load_relaxed(&M(rt, m)->curg), load_relaxed(&M(rt, m)->spinning), load_relaxed(&M(rt, m)->mstartfn), load_relaxed(&M(rt, m)->lockedg), load_relaxed(&M(rt, m)->park.word));
	fprintf(stderr, "mnext %lld nmfreed %lld nmidle %d nmidlelocked %d nmsys %d npidle %d nmspinning %d gomaxprocs %d gcwaiting %u stopwait %d repairs %llu\n",
		(long long)load_relaxed(&rt->s->mnext), (long long)load_relaxed(&rt->s->nmfreed), load_relaxed(&rt->s->nmidle), load_relaxed(&rt->s->nmidlelocked),
		load_relaxed(&rt->s->nmsys), load_relaxed(&rt->s->npidle), load_relaxed(&rt->s->nmspinning), load_relaxed(&rt->s->gomaxprocs), load_relaxed(&rt->s->gcwaiting),
		load_relaxed(&rt->s->stopwait), (unsigned long long)load_relaxed(&rt->s->repairs));
	for (uint32_t i = 0; i < load_relaxed(&rt->s->nsemas); i++)
		fprintf(stderr, "sema %u value %u state %u nwait %u holder %u first %u awake %u\n", i, load_relaxed(&rt->semas[i].value),
			load_relaxed(&rt->semas[i].state), load_relaxed(&rt->semas[i].nwait), load_relaxed(&rt->semas[i].holder), load_relaxed(&rt->semas[i].q.first), rt->semas[i].awake);
}

/* After the end: every G that was born has ended once, is lost, or waits where it must. */
static void check_books(struct gmp *rt, uint64_t kills)
{
	uint64_t alive[PROGRAMS] = {0}, lost = 0, lost_any = load_relaxed(&rt->s->lostgs);

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
		if (i == PRODUCER || i == CONSUMER || (lost_any && (i == GIVER || i == TAKER)))
			continue;
		if (lost_any && (i == WAITER || i == TURNS || i == WAVE || i == PERMIT))
			continue; /* whom they wait for may be lost */
		if (alive[i])
			dump(rt);
		CHECK_EQ(alive[i], 0);
	}
	CHECK_EQ(lost, load_relaxed(&rt->s->lostgs));
	CHECK(lost <= 2 * kills); /* its own, and the one that was locked to it */
}

/* If every death was repaired: each block is on a list, in a channel or a sleeper's hand. */
static void check_blocks(struct gmp *rt, uint64_t deaths)
{
	const char *broken = heapBroken(rt);

	if (load_relaxed(&rt->s->deaths) != deaths)
		return;
	if (broken)
		fprintf(stderr, "%s\n", broken);
	CHECK(!broken);
	CHECK_EQ(heapLost(rt), 0);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* No two Gs have had the same goid: as the Ms' event rings tell. */
static void check_goids(struct gmp *rt)
{
	static uint64_t goids[1 << 18];
	static struct event events[4096];
	uint32_t n = 0;

	for (uint32_t m = 1; m <= mLast(rt); m++) {
		uint64_t from = 0, lost = 0;
		uint32_t got = eventsRead(rt, m, &from, events, COUNT_OF(events), &lost);

		for (uint32_t i = 0; i < got; i++)
			if ((load_relaxed(&events[i].what) & 0xffff) == EV_GO_CREATE && n < COUNT_OF(goids))
				goids[n++] = load_relaxed(&events[i].goid);
	}
	qsort(goids, n, sizeof *goids, by_value);
	for (uint32_t i = 1; i < n; i++)
		CHECK(goids[i] != goids[i - 1]);
}

/* --- how long repairs take: from the reaping of the dead until the gate is open --- */

static struct {
	uint64_t ns[1 << 16];
	uint32_t n;
} times;

static void add_times(struct gmp *rt)
{
	uint64_t repairs = load_relaxed(&rt->s->repairs), kept = repairs < GMP_REPAIRS_KEPT ? repairs : GMP_REPAIRS_KEPT;

	for (uint64_t i = 0; i < kept && times.n < COUNT_OF(times.ns); i++)
		times.ns[times.n++] = load_relaxed(&rt->s->tookns[i]);
}

/* The line is read by a script: name, then pairs. */
static void say_times(const char *what)
{
	uint32_t n = times.n;

	if (!n)
		return;
	qsort(times.ns, n, sizeof *times.ns, by_value);
	fprintf(stderr, "  repair %s: %u, p50 %llu ns, p99 %llu ns, max %llu ns\n", what, n, (unsigned long long)times.ns[n / 2],
		(unsigned long long)times.ns[n * 99 / 100], (unsigned long long)times.ns[n - 1]);
	times.n = 0;
}

static bool has_been_lent(pid_t pid)
{
	int policy = sched_getscheduler(pid); /* -1: it is gone */

	return policy >= 0 && (policy & ~SCHED_RESET_ON_FORK) == SCHED_RR;
}

/* What was lent while it was repaired has been given back, unless it is being repaired again. */
static void check_priorities(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++) {
		int32_t pid = load_seq_cst(&M(rt, m)->procid);

		if (pid > 0 && !load_seq_cst(&M(rt, m)->dead) && !load_seq_cst(&rt->s->gate))
			CHECK(!has_been_lent(pid) || load_seq_cst(&rt->s->gate));
	}
}

static int run_to_the_end(struct gmp *rt)
{
	int got = gmp_wait(rt, SECONDS(LIMIT_S));

	if (got != FATAL_DONE && got != FATAL_DEADLOCK) {
		dump(rt);
		CHECK_EQ(got, FATAL_DONE);
	}
	check_priorities(rt);
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
	for (int round = 0; deaths < KILLS; round++) { /* who is killed twice dies once */
		struct gmp rt;
		int here = 0;

		make(&rt, (struct gmp_config){.procs = 2 + round % 3, .maxg = 10000, .randomize = round % 2, .seed = round,
					      .eventslots = 256, .heapbytes = 64 << 20});
		load_up(&rt, 60, round % 8 == 7 ? QUIET : round % 4 == 3 ? PAIRS : BUSY);
		start(&rt, MOTHER);
		while (!load_seq_cst(&rt.s->fatal) && here < 40) {
			uint32_t n = mLast(&rt), m = 1 + random_below(&seed, n);
			int32_t pid = load_seq_cst(&M(&rt, m)->procid);

			pass_ns(random_below(&seed, 1500000));
			if (pid <= 0 || load_seq_cst(&M(&rt, m)->dead) || load_seq_cst(&M(&rt, m)->exiting))
				continue;
			kill(pid, SIGKILL);
			here++;
		}
		run_to_the_end(&rt);
		check_books(&rt, here);
		check_blocks(&rt, here);
		killed += here;
		deaths += load_relaxed(&rt.s->deaths);
		repairs += load_relaxed(&rt.s->repairs);
		lost += load_relaxed(&rt.s->lostgs);
		longest = load_relaxed(&rt.s->longestns) > longest ? load_relaxed(&rt.s->longestns) : longest;
		add_times(&rt);
		gmp_destroy(&rt);
	}
	fprintf(stderr, "  %d kills, %llu deaths in %llu repairs, the longest %.1f ms, %llu Gs lost\n", killed,
		(unsigned long long)deaths, (unsigned long long)repairs, (double)longest / 1e6, (unsigned long long)lost);
	say_times("after random kills");
	return 0;
}

static uint32_t kill_one(struct gmp *rt, uint64_t *seed)
{
	uint32_t m = 1 + random_below(seed, mLast(rt));
	int32_t pid = load_seq_cst(&M(rt, m)->procid);

	if (pid <= 0 || load_seq_cst(&M(rt, m)->dead) || load_seq_cst(&M(rt, m)->exiting))
		return 0;
	kill(pid, SIGKILL);
	return 1;
}

/* --- what a kill leaves of records and of memory: nothing --- */

enum { MS_AT_ONCE = 20, LEVEL_KILLS = KILLS / 4 };

/* First as many Ms and Gs at once as there will never be again, so that the level is known; then lines that go on. */
static void load_for_level(struct gmp *rt)
{
	int out = gmp_chan(rt, 0), other = gmp_chan(rt, 3), gate = gmp_chan(rt, 0), here = gmp_sema(rt, 0);
	struct step mother[] = {{OP_WG_ADD, here, MS_AT_ONCE + 3000}, {OP_SPAWN, 1, MS_AT_ONCE}, {OP_SPAWN, 2, 3000},
				{OP_WG_WAIT, here, 0}, {OP_CLOSE, gate, 0}, {OP_SPAWN, 3, 1000}, {OP_SPAWN, 4, 6},
				{OP_SPAWN, 7, 20}, {OP_SPAWN, 6, 400}};
	struct step holds[] = {{OP_LOCKM, 0, 0}, {OP_WG_ADD, here, -1}, {OP_RECV, gate, 0}, {OP_UNLOCKM, 0, 0}};
	struct step waits[] = {{OP_WG_ADD, here, -1}, {OP_RECV, gate, 0}};
	struct step line[] = {{OP_SELECT, 2, 0}, {OP_SEND, out, 1}, {OP_SEND, other, 1}, {OP_LOOP, 0, 1000000000}};
	struct step blocker[] = {{OP_BLOCK, 0, 300000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 1000000000}};
	struct step leaf[] = {{OP_EXIT, 0, 0}};
	struct step spawner[] = {{OP_SPAWN, 5, 2}, {OP_SLEEP, 0, 300000}, {OP_LOOP, 0, 1000000000}};
	struct step sink[] = {{OP_SELECT, 2, 0}, {OP_RECV, out, 0}, {OP_RECV, other, 0}, {OP_LOOP, 0, 1000000000}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, holds, COUNT_OF(holds));
	gmp_program(rt, waits, COUNT_OF(waits));
	gmp_program(rt, line, COUNT_OF(line));
	gmp_program(rt, blocker, COUNT_OF(blocker));
	gmp_program(rt, leaf, COUNT_OF(leaf));
	gmp_program(rt, sink, COUNT_OF(sink));
	gmp_program(rt, spawner, COUNT_OF(spawner));
}

static int64_t memory_of(struct gmp *rt)
{
	struct stat stat;

	CHECK_EQ(fstat(rt->segment.fd, &stat), 0);
	return stat.st_blocks;
}

/* As `kills` Ms die, one after another, each as soon as the one before it is repaired. */
static void kill_many(struct gmp *rt, uint64_t kills, uint64_t *seed)
{
	int64_t deadline = SECONDS(LIMIT_S);

	while (load_seq_cst(&rt->s->deaths) < kills) {
		uint64_t repairs = load_seq_cst(&rt->s->repairs);
		bool waits = kill_one(rt, seed);

		while (waits && load_seq_cst(&rt->s->repairs) == repairs && !load_seq_cst(&rt->s->fatal) && monotonic_ns() < deadline)
			usleep(50);
		if (load_seq_cst(&rt->s->fatal) || monotonic_ns() >= deadline) {
			dump(rt);
			CHECK_EQ(load_seq_cst(&rt->s->fatal), 0);
			CHECK(monotonic_ns() < deadline);
		}
		pass_ns(random_below(seed, 300000));
	}
}

/* The record of one that died is the next one's: many more Ms than the segment has records for, and no more memory. */
static int records_and_memory_come_back(void)
{
	struct gmp rt;
	uint64_t seed = 5;
	int64_t level;
	uint32_t records;

	if (THREADS_ONLY)
		return SKIP;
	make(&rt, (struct gmp_config){.procs = 2, .maxg = 10000, .maxm = MS_AT_ONCE + 12, .eventslots = 4096});
	load_for_level(&rt);
	start(&rt, 0);
	while (gmp_tally(&rt, 6).spawned < 400 || rt.s->sudoglen == 0) /* all there is has been used */
		usleep(1000);
	level = memory_of(&rt);
	records = mLast(&rt);
	CHECK(records > MS_AT_ONCE);
	kill_many(&rt, LEVEL_KILLS, &seed);
	CHECK_EQ(memory_of(&rt), level);
	CHECK_EQ(mLast(&rt), records);
	CHECK(load_relaxed(&rt.s->mnext) > LEVEL_KILLS);
	CHECK_EQ(gmp_stop(&rt), 0);
	CHECK(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
	gmp_destroy(&rt);
	return 0;
}

static void wake_the_stopped(struct gmp *rt)
{
	for (uint32_t m = 1; m <= mLast(rt); m++)
		if (load_seq_cst(&M(rt, m)->procid) > 0 && !load_seq_cst(&M(rt, m)->dead))
			kill(load_seq_cst(&M(rt, m)->procid), SIGCONT);
}

/* Again and again: one that was told to stop itself may do so later than we wake it. */
static void go_on(struct gmp *rt)
{
	int64_t deadline = SECONDS(LIMIT_S);

	do {
		wake_the_stopped(rt);
	} while (gmp_wait(rt, monotonic_ns() + 10000000) == -ETIMEDOUT && monotonic_ns() < deadline);
}

/* How a run goes about it: its workload, and what is done beside it. */
struct way {
	int load;
	bool gated;    /* Ms are killed meanwhile, so that others meet the closed gate */
	bool nosysmon; /* sysmon is stopped, so that nobody takes Ps out of system calls */
};
static const struct way ways[] = {{BUSY, false, false}, {PAIRS, false, false}, {QUIET, false, false}, {BUSY, true, false},
				  {QUIET, false, true}, {BUSY, false, true}};

/* Until the point is struck, or the run over. Returns how many Ms were killed elsewhere. */
static uint64_t until_struck(struct gmp *rt, const struct way *way, uint64_t seed)
{
	int32_t sysmon = 0;
	int stopped = 0; /* since which look sysmon is */
	uint64_t kills = 0;

	for (int i = 0; load_seq_cst(&rt->s->killpoint); i++) {
		if (load_seq_cst(&rt->s->fatal)) { /* who said so goes on to his points until he is killed */
			pass_ns(2000000);
			break;
		}
		if (sysmon > 0 && i >= stopped + 300) /* it may have been stopped with a lock in its hand */
			break;
		if (way->nosysmon && !sysmon && (sysmon = load_seq_cst(&M(rt, 1)->procid)) > 0) {
			kill(sysmon, SIGSTOP);
			stopped = i;
		}
		if (way->gated && i % 8 == 7 && kills < 6)
			kills += kill_one(rt, &seed);
		usleep(100);
	}
	if (sysmon > 0 && load_seq_cst(&M(rt, 1)->procid) == sysmon && !load_seq_cst(&M(rt, 1)->dead))
		kill(sysmon, SIGCONT);
	return kills;
}

/* One M is struck at the point, the countdown-th time anybody comes there. True if anybody did. */
static bool strike(const char *name, int signo, uint64_t seed, uint32_t countdown, const struct way *way)
{
	struct gmp rt;
	uint64_t kills;
	bool struck;

	make(&rt, (struct gmp_config){.procs = 2, .maxg = 10000, .randomize = seed % 2, .seed = seed, .eventslots = 4096,
				  .heapbytes = 64 << 20});
	load_up(&rt, 3, way->load);
	store_seq_cst(&rt.s->killcountdown, (int32_t)countdown);
	store_seq_cst(&rt.s->killsignal, signo);
	store_seq_cst(&rt.s->killpoint, name ? pointhash(name) : ANY_POINT);
	start(&rt, MOTHER);
	kills = until_struck(&rt, way, seed);
	if (signo == SIGSTOP) {
		usleep(2000);
		go_on(&rt);
	}
	run_to_the_end(&rt);
	struck = !load_seq_cst(&rt.s->killpoint);
	check_books(&rt, kills + (signo == SIGKILL && struck));
	check_blocks(&rt, kills + (signo == SIGKILL && struck));
	check_goids(&rt);
	if (signo == SIGKILL && !way->nosysmon) /* whom we stop inside is waited for until we let him go */
		add_times(&rt);
	if (signo == SIGSTOP && !kills)
		CHECK_EQ(load_relaxed(&rt.s->lostgs), 0);
	gmp_destroy(&rt);
	return struck;
}

/*
 * `times` blows at one point; the ways that lead there are found by trying. Returns how many fell. Whether an M comes by
 * is the kernel's affair, too: on a full machine the ways to some points are rare, so nobody gives up within a minute.
 */
static int strike_often(const char *name, int signo, int times, uint64_t *seed)
{
	uint32_t way = 0;
	int struck = 0;
	int64_t begun = monotonic_ns();

	for (int missed = 0; struck < times && (missed < 60 || monotonic_ns() - begun < PATIENCE_NS);) {
		uint32_t countdown = struck == 0 || missed ? 1 : 1 + random_below(seed, 20);

		if (getenv("IPCLAB_VERBOSE"))
			fprintf(stderr, "  %s way %u, %d struck, %d missed\n", name, way, struck, missed);
		if (strike(name, signo, ++*seed, countdown, &ways[way])) {
			struck++;
			missed = 0;
			begun = monotonic_ns();
		} else {
			missed++;
			way = (way + 1) % COUNT_OF(ways);
		}
	}
	return struck;
}

/* The ways to these are in test_gmp_preempt: they need Gs with code of their own, and Ms that stand still in it. */
static bool elsewhere(const char *name)
{
	return strncmp(name, "preempt.", 8) == 0 || strncmp(name, "robbed.", 7) == 0 || strncmp(name, "take.", 5) == 0;
}

static int at_every_point(int signo, int times)
{
	uint32_t reached = 0, asked = 0;
	uint64_t seed = getenv("IPCLAB_SEED") ? strtoull(getenv("IPCLAB_SEED"), NULL, 10) : 3;
	int blows = 0;

	if (THREADS_ONLY)
		return SKIP;
	for (uint32_t i = 0; i < COUNT_OF(points); i++) {
		const char *only = getenv("IPCLAB_POINT"); /* those whose name begins so: to look into one */
		int here;

		if ((only && strncmp(points[i], only, strlen(only)) != 0) || elsewhere(points[i]))
			continue;
		asked++;
		here = strike_often(points[i], signo, times, &seed);
		blows += here;
		reached += here > 0;
		if (here < times)
			fprintf(stderr, "  %s was reached %d times\n", points[i], here);
	}
	fprintf(stderr, "  %u of %u points, %d blows\n", reached, asked, blows);
	say_times("after a kill at a point");
	CHECK_EQ(reached, asked);
	return 0;
}

static int killed_at_every_point(void)
{
	return at_every_point(SIGKILL, getenv("IPCLAB_POINT_KILLS") ? atoi(getenv("IPCLAB_POINT_KILLS")) : POINT_KILLS);
}

static int stopped_at_every_point(void)
{
	return at_every_point(SIGSTOP, getenv("IPCLAB_POINT_KILLS") ? atoi(getenv("IPCLAB_POINT_KILLS")) : 1);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"killed_at_every_point", killed_at_every_point},
		{"stopped_at_every_point", stopped_at_every_point},
		{"random_kills", random_kills},
		{"records_and_memory_come_back", records_and_memory_come_back},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
