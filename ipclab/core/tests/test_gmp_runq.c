/*
 * The queues by themselves, and the store-load pairs of the essay: each story below fails if one of its four accesses
 * loses its order (the threads leave a spinning barrier together before every round, so that they race each time).
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>

#include "core/gmp/lock_futex.h"
#include "core/gmp/runq.h"
#include "gmp.h"

#define GS 2000
#define ROUNDS 10000

static struct gmp world;

/* A player: M number m with P number m - 1, without the life of an M. */
static struct gmp player(uint32_t m)
{
	struct gmp rt = world;

	rt.m = M(&world, m);
	rt.m->id = m - 1;
	rt.where = &rt.m->where;
	rt.p = P(&world, m);
	rt.tid = 1000 + m;
	rt.rng = m * 12345;
	return rt;
}

static void open_world(uint32_t randomize)
{
	int error;

	make(&world, (struct gmp_config){.procs = 4, .threads = 1, .maxg = 100000, .randomize = randomize, .seed = 5});
	store_relaxed(&world.s->gomaxprocs, 4);
	for (uint32_t g = 1; g <= GS; g++)
		CHECK_EQ(malg(&world, &error), g);
}

static pthread_t run(void *(*role)(void *), void *argument)
{
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, role, argument), 0);
	return thread;
}

/* --- what one does alone --------------------------------------------------------------------------------------------- */

static int a_ring_alone(void)
{
	struct gmp rt, other;
	bool inherit;

	open_world(0);
	rt = player(1);
	other = player(2);
	CHECK(runqempty(rt.p));
	CHECK_EQ(runqget(&rt, rt.p, &inherit), 0);
	runqput(&rt, rt.p, 1, false);
	runqput(&rt, rt.p, 2, true);
	runqput(&rt, rt.p, 3, true); /* kicks 2 out, to the tail */
	CHECK(!runqempty(rt.p));
	CHECK_EQ(runqget(&rt, rt.p, &inherit), 3);
	CHECK(inherit);
	CHECK_EQ(runqget(&rt, rt.p, &inherit), 1);
	CHECK(!inherit);
	CHECK_EQ(runqget(&rt, rt.p, &inherit), 2);
	/* 256 fit; the next one takes half of them along to the global queue */
	for (uint32_t g = 1; g <= 256; g++)
		runqput(&rt, rt.p, g, false);
	CHECK_EQ(load_relaxed(&world.s->runq.size), 0);
	runqput(&rt, rt.p, 257, false);
	CHECK_EQ(load_relaxed(&world.s->runq.size), 129);
	CHECK_EQ(load_relaxed(&world.s->runq.head), 1);
	CHECK_EQ(load_relaxed(&world.s->runq.tail), 257);
	/* a thief takes half of the other 128, rounded up, and runs the last of them */
	runqget(&rt, rt.p, &inherit);
	CHECK_EQ(runqsteal(&other, other.p, rt.p, false), 129 + 64);
	CHECK_EQ(load_relaxed(&other.p->runqtail) - load_relaxed(&other.p->runqhead), 63);
	CHECK_EQ(load_relaxed(&rt.p->runqtail) - load_relaxed(&rt.p->runqhead), 63);
	/* runnext only in the last pass */
	while (runqget(&rt, rt.p, &inherit))
		;
	runqput(&rt, rt.p, 500, true);
	CHECK_EQ(runqsteal(&other, other.p, rt.p, false), 0);
	CHECK_EQ(runqsteal(&other, other.p, rt.p, true), 500);
	gmp_destroy(&world);
	return 0;
}

static int the_global_queue_in_batches(void)
{
	struct gQueue rest = {0};
	struct gmp rt;

	open_world(0);
	rt = player(1);
	for (uint32_t g = 1; g <= 401; g++)
		globrunqput(&rt, g);
	CHECK_EQ(globrunqgetbatch(&rt, 128, &rest), 1); /* 401 / 4 + 1 */
	CHECK_EQ(load_relaxed(&rest.size), 100);
	runqputbatch(&rt, rt.p, &rest);
	CHECK_EQ(load_relaxed(&rest.size), 0);
	CHECK_EQ(load_relaxed(&rt.p->runqtail), 100);
	globrunqputhead(&rt, 1);
	CHECK_EQ(globrunqget(&rt), 1);
	for (uint32_t g = 102; g <= 401; g++)
		CHECK_EQ(globrunqget(&rt), g);
	CHECK_EQ(globrunqget(&rt), 0);
	CHECK_EQ(load_relaxed(&world.s->runq.tail), 0);
	gmp_destroy(&world);
	return 0;
}

static int every_p_once_in_any_order(void)
{
	struct gmp rt;

	open_world(0);
	rt = player(1);
	for (uint32_t count = 1; count <= GMP_MAXPROCS; count++) {
		uint8_t seen[GMP_MAXPROCS] = {0};
		struct randomEnum order = randomOrder(&rt, count);

		for (; !enumDone(&order); enumNext(&order))
			CHECK_EQ(seen[order.pos]++, 0);
		for (uint32_t i = 0; i < count; i++)
			CHECK_EQ(seen[i], 1);
	}
	gmp_destroy(&world);
	return 0;
}

static int the_dead_are_kept(void)
{
	struct gmp rt, other;

	open_world(0);
	rt = player(1);
	other = player(2);
	for (uint32_t g = 1; g <= 63; g++)
		gfput(&rt, rt.p, g);
	CHECK_EQ(load_relaxed(&world.s->gFreeN), 0);
	gfput(&rt, rt.p, 64); /* the 64th takes all but 31 to the others */
	CHECK_EQ(load_relaxed(&rt.p->gFreeN), 31);
	CHECK_EQ(load_relaxed(&world.s->gFreeN), 33);
	CHECK(gfget(&other, other.p) != 0);
	CHECK_EQ(load_relaxed(&other.p->gFreeN), 31);
	CHECK_EQ(load_relaxed(&world.s->gFreeN), 1);
	gfpurge(&rt, rt.p);
	CHECK_EQ(load_relaxed(&rt.p->gFreeN), 0);
	CHECK_EQ(load_relaxed(&world.s->gFreeN), 32);
	for (int i = 1; i <= 2 * GOID_BATCH; i++)
		CHECK_EQ(newgoid(&rt, rt.p), i);
	CHECK_EQ(newgoid(&other, other.p), 2 * GOID_BATCH + 1);
	gmp_destroy(&world);
	return 0;
}

/* --- one owner, three thieves: no G lost, none doubled ---------------------------------------------------------------- */

static _Atomic uint32_t owned[GS + 1]; /* how often a G is in somebody's hands: 0 in a queue, 1 taken */
static _Atomic uint32_t stop;

static void take(uint32_t g)
{
	CHECK_EQ(add_seq_cst(&owned[g], 1), 0);
}

static void give(uint32_t g)
{
	CHECK_EQ(add_seq_cst(&owned[g], -1), 1);
}

static void *owner(void *argument)
{
	struct gmp rt = player(1);
	uint32_t hand[GS], n = 0;
	bool inherit;

	(void)argument;
	int64_t deadline = SECONDS(2);

	for (uint32_t g = 1; g <= GS; g++)
		hand[n++] = g, take(g);
	for (int i = 0; i < 4 * ROUNDS && (i % 256 || monotonic_ns() < deadline); i++) {
		uint32_t g;

		if (n > 0 && cheaprandn(&rt, 2)) {
			g = hand[--n];
			give(g);
			runqput(&rt, rt.p, g, cheaprandn(&rt, 3) == 0);
			continue;
		}
		g = runqget(&rt, rt.p, &inherit);
		if (!g) {
			lock(&rt, &rt.s->lock);
			g = globrunqget(&rt);
			unlock(&rt, &rt.s->lock);
		}
		if (g)
			take(g), hand[n++] = g;
	}
	while (n > 0)
		give(hand[--n]), runqput(&rt, rt.p, hand[n], false);
	store_seq_cst(&stop, 1);
	return NULL;
}

static void *thief(void *argument)
{
	struct gmp rt = player((uint32_t)(uintptr_t)argument);
	bool inherit;

	while (!load_seq_cst(&stop)) {
		uint32_t g = runqsteal(&rt, rt.p, P(&rt, 1), cheaprandn(&rt, 2));

		for (; g; g = runqget(&rt, rt.p, &inherit)) { /* back by way of the global queue */
			take(g);
			give(g);
			lock(&rt, &rt.s->lock);
			globrunqput(&rt, g);
			unlock(&rt, &rt.s->lock);
		}
	}
	return NULL;
}

static uint32_t count_all(void)
{
	uint32_t n = (uint32_t)load_relaxed(&world.s->runq.size);

	for (int i = 0; i < 4; i++)
		n += load_relaxed(&world.allp[i].runqtail) - load_relaxed(&world.allp[i].runqhead) +
		     (load_relaxed(&world.allp[i].runnext) != 0);
	return n;
}

static int thieves_and_an_owner(void)
{
	for (uint32_t randomize = 0; randomize < 2; randomize++) {
		pthread_t threads[4];

		open_world(randomize);
		store_seq_cst(&stop, 0);
		threads[0] = run(owner, NULL);
		for (uintptr_t m = 2; m <= 4; m++)
			threads[m - 1] = run(thief, (void *)m);
		for (int i = 0; i < 4; i++)
			pthread_join(threads[i], NULL);
		CHECK_EQ(count_all(), GS);
		gmp_destroy(&world);
	}
	return 0;
}

/* --- runqempty is never wrong: one G moves between runnext and ring, never away ---------------------------------------- */

static void *mover(void *argument)
{
	struct gmp rt = player(1);
	bool inherit;

	(void)argument;
	for (int i = 0; i < 10 * ROUNDS; i++) {
		uint32_t g = runqget(&rt, rt.p, &inherit);

		runqput(&rt, rt.p, g, true); /* two Gs are there: one of them is, at every moment */
	}
	store_seq_cst(&stop, 1);
	return NULL;
}

static int never_spuriously_empty(void)
{
	pthread_t thread;
	struct gmp rt;

	open_world(0);
	rt = player(1);
	store_seq_cst(&stop, 0);
	runqput(&rt, rt.p, 1, false);
	runqput(&rt, rt.p, 2, true);
	thread = run(mover, NULL);
	while (!load_seq_cst(&stop))
		CHECK(!runqempty(rt.p));
	pthread_join(thread, NULL);
	gmp_destroy(&world);
	return 0;
}

/* --- the store-load pairs ---------------------------------------------------------------------------------------------- */

#define LITMUS_ROUNDS 30000

static _Atomic uint32_t saw[2];
static _Atomic uint32_t arrived;

/* Both come, twice a round, leave within nanoseconds of each other, which no futex does. */
static void meet(uint32_t nth)
{
	add_seq_cst(&arrived, 1);
	for (uint32_t spins = 0; load_seq_cst(&arrived) < 2 * nth; spins++) {
		if (spins > 2000) /* the other one is not on a CPU */
			sched_yield();
		cpu_relax();
	}
}

/* Submitter: the G into the ring, then nmspinning. Spinner: nmspinning down, then the ring. */
static void submit(struct gmp *rt)
{
	runqput(rt, rt->p, 1, false);
	store_relaxed(&saw[0], load_seq_cst(&rt->s->nmspinning) == 0);
}

static void give_up_spinning(struct gmp *rt)
{
	add_seq_cst(&rt->s->nmspinning, -1);
	store_relaxed(&saw[1], !runqempty(P(rt, 1)));
}

static void submit_undo(struct gmp *rt)
{
	bool inherit;

	runqget(rt, rt->p, &inherit);
	add_seq_cst(&rt->s->nmspinning, 1);
}

/* Stopper: gcwaiting, then the P's status. The one who enters a system call: the status, then gcwaiting. */
static void stop_world(struct gmp *rt)
{
	store_seq_cst(&rt->s->gcwaiting, 1);
	store_relaxed(&saw[0], load_seq_cst(&P(rt, 2)->status) == _Psyscall);
}

static void enter_syscall(struct gmp *rt)
{
	store_seq_cst(&P(rt, 2)->status, _Psyscall);
	store_relaxed(&saw[1], load_seq_cst(&rt->s->gcwaiting));
}

static void stop_undo(struct gmp *rt)
{
	store_seq_cst(&rt->s->gcwaiting, 0);
	store_seq_cst(&P(rt, 2)->status, _Prunning);
}

/* Repairer: the gate, then where the M is. The M: where it is, then the gate. */
static void close_gate(struct gmp *rt)
{
	store_seq_cst(&rt->s->gate, 1);
	store_relaxed(&saw[0], load_seq_cst(&M(rt, 2)->where) == M_RUNTIME);
}

static void go_in(struct gmp *rt)
{
	store_seq_cst(rt->where, M_RUNTIME);
	store_relaxed(&saw[1], load_seq_cst(&rt->s->gate));
}

static void gate_undo(struct gmp *rt)
{
	store_seq_cst(&rt->s->gate, 0);
	store_seq_cst(&M(rt, 2)->where, M_PARKED);
}

/* Who adds a timer: minWhen, then whether somebody polls. Who polls: lastpoll, then (as wakeNetPoller's M) minWhen. */
static void add_timer(struct gmp *rt)
{
	store_seq_cst(&rt->p->timers.minWhen, 5);
	store_relaxed(&saw[0], load_seq_cst(&rt->s->lastpoll) == 0);
}

static void begin_to_poll(struct gmp *rt)
{
	swap_seq_cst(&rt->s->lastpoll, 0);
	store_relaxed(&saw[1], load_seq_cst(&P(rt, 1)->timers.minWhen) != 0);
}

static void timer_undo(struct gmp *rt)
{
	store_seq_cst(&rt->p->timers.minWhen, 0);
	store_seq_cst(&rt->s->lastpoll, 7);
}

/* Releaser of a semaphore: the count, then nwait. Sleeper: nwait, then the count. */
static void add_count(struct gmp *rt)
{
	add_seq_cst(&rt->semas[0].value, 1);
	store_relaxed(&saw[0], load_seq_cst(&rt->semas[0].nwait) != 0);
}

static void count_oneself(struct gmp *rt)
{
	store_seq_cst(&rt->semas[0].nwait, 1);
	store_relaxed(&saw[1], load_seq_cst(&rt->semas[0].value) != 0);
}

static void sema_undo(struct gmp *rt)
{
	store_seq_cst(&rt->semas[0].value, 0);
	store_seq_cst(&rt->semas[0].nwait, 0);
}

static const struct pair {
	const char *name;
	void (*one)(struct gmp *), (*other)(struct gmp *), (*undo)(struct gmp *);
} pairs[] = {
	{"submit / stop spinning", submit, give_up_spinning, submit_undo},
	{"stop the world / enter a system call", stop_world, enter_syscall, stop_undo},
	{"close the gate / go in", close_gate, go_in, gate_undo},
	{"add a timer / begin to poll", add_timer, begin_to_poll, timer_undo},
	{"release / sleep", add_count, count_oneself, sema_undo},
};

static void *other_side(void *argument)
{
	const struct pair *pair = argument;
	struct gmp rt = player(2);

	for (uint32_t i = 0; i < LITMUS_ROUNDS; i++) {
		meet(2 * i + 1);
		pair->other(&rt);
		meet(2 * i + 2);
		if (load_relaxed(&stop))
			break;
	}
	return NULL;
}

static int one_side_sees_the_other(void)
{
	for (uint32_t k = 0; k < COUNT_OF(pairs); k++) {
		int64_t deadline;
		pthread_t thread;
		struct gmp rt;

		open_world(0);
		rt = player(1);
		pairs[k].undo(&rt);
		store_seq_cst(&rt.s->nmspinning, 1);
		store_seq_cst(&arrived, 0);
		store_seq_cst(&stop, 0);
		deadline = SECONDS(1); /* on a machine that is full, fewer rounds */
		thread = run(other_side, (void *)&pairs[k]);
		for (uint32_t i = 0; i < LITMUS_ROUNDS; i++) {
			meet(2 * i + 1);
			pairs[k].one(&rt);
			store_relaxed(&stop, i == LITMUS_ROUNDS - 1 || monotonic_ns() > deadline);
			meet(2 * i + 2);
			if (!load_relaxed(&saw[0]) && !load_relaxed(&saw[1]))
				fprintf(stderr, "%s: neither saw the other, round %u\n", pairs[k].name, i);
			CHECK(load_relaxed(&saw[0]) || load_relaxed(&saw[1]));
			pairs[k].undo(&rt);
			if (load_relaxed(&stop))
				break;
		}
		pthread_join(thread, NULL);
		gmp_destroy(&world);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"a_ring_alone", a_ring_alone},
		{"the_global_queue_in_batches", the_global_queue_in_batches},
		{"every_p_once_in_any_order", every_p_once_in_any_order},
		{"the_dead_are_kept", the_dead_are_kept},
		{"thieves_and_an_owner", thieves_and_an_owner},
		{"never_spuriously_empty", never_spuriously_empty},
		{"one_side_sees_the_other", one_side_sees_the_other},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
