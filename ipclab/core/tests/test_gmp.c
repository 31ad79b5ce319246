/* The scheduler: what scripts may do, with Ms as threads and as processes. */
#define _GNU_SOURCE
#include "core/gmp/point.h"
#include "core/gmp/schedtrace.h"
#include "gmp.h"

/* Each story is told for threads (which ThreadSanitizer sees) and for processes, at several numbers of Ps. */
static const struct setting {
	uint32_t threads, procs, randomize;
} settings[] = {{1, 1, 0}, {1, 2, 0}, {1, 4, 1}, {0, 1, 0}, {0, 2, 0}, {0, 4, 1}};

static struct gmp_config config_of(const struct setting *setting)
{
	return (struct gmp_config){.procs = setting->procs, .threads = setting->threads, .randomize = setting->randomize,
				   .eventslots = 1024, .tracking = 1, .maxg = 1 << 20, .seed = 7};
}

static int everywhere(void (*story)(struct gmp *))
{
	for (uint32_t i = 0; i < COUNT_OF(settings); i++) {
		struct gmp rt;

		if (THREADS_ONLY && !settings[i].threads)
			continue;
		make(&rt, config_of(&settings[i]));
		story(&rt);
		gmp_destroy(&rt);
	}
	return 0;
}

/* --- stories --- */

static void spawn_and_end_story(struct gmp *rt)
{
	struct step mother[] = {{OP_SPAWN, 1, 100}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 50}};
	struct step child[] = {{OP_YIELD, 0, 0}};

	CHECK_EQ(gmp_program(rt, mother, COUNT_OF(mother)), 0);
	CHECK_EQ(gmp_program(rt, child, COUNT_OF(child)), 1);
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 0, 1, 0);
	check_done(rt, 1, 5000, 0);
}

static int spawn_and_end(void)
{
	return everywhere(spawn_and_end_story);
}

static void ping_pong_story(struct gmp *rt)
{
	int there = gmp_chan(rt, 0), back = gmp_chan(rt, 0);
	struct step ping[] = {{OP_SPAWN, 1, 1}, {OP_SEND, there, 3}, {OP_RECV, back, 0}, {OP_LOOP, 1, 2000}};
	struct step pong[] = {{OP_RECV, there, 0}, {OP_SEND, back, 4}, {OP_LOOP, 0, 2000}};

	gmp_program(rt, ping, COUNT_OF(ping));
	gmp_program(rt, pong, COUNT_OF(pong));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 0, 1, 4 * 2000);
	check_done(rt, 1, 1, 3 * 2000);
}

static int ping_pong(void)
{
	return everywhere(ping_pong_story);
}

static void buffered_story(struct gmp *rt)
{
	int c = gmp_chan(rt, 10), wg = gmp_sema(rt, 0);
	struct step mother[] = {{OP_WG_ADD, wg, 20}, {OP_SPAWN, 1, 20}, {OP_SPAWN, 2, 4}, {OP_WG_WAIT, wg, 0},
				{OP_CLOSE, c, 0}};
	struct step sender[] = {{OP_SEND, c, 1}, {OP_LOOP, 0, 400}, {OP_WG_ADD, wg, -1}};
	struct step receiver[] = {{OP_RECV, c, 0}, {OP_LOOP, 0, 2000}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, sender, COUNT_OF(sender));
	gmp_program(rt, receiver, COUNT_OF(receiver));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 1, 20, 0);
	check_done(rt, 2, 4, 8000);
}

static int buffered_and_closed(void)
{
	return everywhere(buffered_story);
}

/* Four channels, senders on each, two selects that receive from all of them; one more that sends or receives. */
static void select_story(struct gmp *rt)
{
	struct step selecting[] = {{OP_SELECT, 4, 0}, {OP_RECV, 0, 0}, {OP_RECV, 1, 0}, {OP_RECV, 2, 0}, {OP_RECV, 3, 0},
				   {OP_LOOP, 0, 2000}};
	struct step mother[] = {{OP_SPAWN, 1, 2}, {OP_SPAWN, 2, 1}, {OP_SPAWN, 3, 1}, {OP_SPAWN, 4, 1}, {OP_SPAWN, 5, 1}};

	for (int i = 0; i < 4; i++)
		CHECK_EQ(gmp_chan(rt, i % 2 ? 3 : 0), i);
	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, selecting, COUNT_OF(selecting));
	for (int64_t i = 0; i < 4; i++) {
		struct step sender[] = {{OP_SEND, i, 1 << (4 * i)}, {OP_LOOP, 0, 1000}};

		gmp_program(rt, sender, COUNT_OF(sender));
	}
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 1, 2, 1000 * 0x1111);
}

static int select_from_many(void)
{
	return everywhere(select_story);
}

/* Every G both sends and receives on the same two channels by select: each exchange pairs two selects. */
static void exchange_story(struct gmp *rt)
{
	int a = gmp_chan(rt, 0), b = gmp_chan(rt, 0);
	struct step mother[] = {{OP_SPAWN, 1, 6}};
	struct step both[] = {{OP_SELECT, 3, 1}, {OP_SEND, a, 1}, {OP_RECV, a, 0}, {OP_RECV, b, 0},
			      {OP_YIELD, 0, 0}, {OP_LOOP, 0, 1000}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, both, COUNT_OF(both));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	CHECK_EQ(gmp_tally(rt, 1).done, 6);
}

static int select_meets_select(void)
{
	return everywhere(exchange_story);
}

static void mutex_story(struct gmp *rt)
{
	int mutex = gmp_sema(rt, 0), inside = gmp_chan(rt, 1);
	struct step mother[] = {{OP_SPAWN, 1, 8}};
	/* a send into a buffer of one and a receive from it: two inside at once would block, or take the other's */
	struct step worker[] = {{OP_LOCK, mutex, 0}, {OP_SEND, inside, 5}, {OP_YIELD, 0, 0}, {OP_RECV, inside, 0},
				{OP_UNLOCK, mutex, 0}, {OP_LOOP, 0, 300}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, worker, COUNT_OF(worker));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 1, 8, 8 * 300 * 5);
	CHECK_EQ(load_relaxed(&rt->semas[mutex].state), 0);
	CHECK_EQ(load_relaxed(&rt->semas[mutex].nwait), 0);
}

static int mutex_excludes(void)
{
	return everywhere(mutex_story);
}

static void semaphore_story(struct gmp *rt)
{
	int sema = gmp_sema(rt, 3), room = gmp_chan(rt, 3);
	struct step mother[] = {{OP_SPAWN, 1, 12}};
	struct step worker[] = {{OP_ACQUIRE, sema, 0}, {OP_SEND, room, 1}, {OP_SLEEP, 0, 10000}, {OP_RECV, room, 0},
				{OP_RELEASE, sema, 0}, {OP_LOOP, 0, 20}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, worker, COUNT_OF(worker));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 1, 12, 12 * 20);
	CHECK_EQ(load_relaxed(&rt->semas[sema].value), 3);
}

static int semaphore_counts(void)
{
	return everywhere(semaphore_story);
}

static void sleep_story(struct gmp *rt)
{
	struct step mother[] = {{OP_SPAWN, 1, 200}, {OP_SPAWN, 2, 200}};
	struct step one[] = {{OP_SLEEP, 0, 1000000}, {OP_LOOP, 0, 10}};
	struct step other[] = {{OP_SLEEP, 0, 30000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 30}};
	int64_t from = monotonic_ns();

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, one, COUNT_OF(one));
	gmp_program(rt, other, COUNT_OF(other));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 1, 200, 0);
	check_done(rt, 2, 200, 0);
	CHECK(monotonic_ns() - from >= 10 * 1000000); /* nobody slept too short */
}

static int sleepers_wake(void)
{
	return everywhere(sleep_story);
}

static void block_story(struct gmp *rt)
{
	struct step mother[] = {{OP_SPAWN, 1, 6}, {OP_SPAWN, 2, 6}, {OP_SPAWN, 3, 6}};
	struct step blocks[] = {{OP_BLOCK, 0, 500000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 5}};
	struct step knows[] = {{OP_BLOCKING, 0, 500000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 5}};
	struct step computes[] = {{OP_COMPUTE, 0, 300000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 5}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, blocks, COUNT_OF(blocks));
	gmp_program(rt, knows, COUNT_OF(knows));
	gmp_program(rt, computes, COUNT_OF(computes));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	for (uint32_t i = 1; i <= 3; i++)
		check_done(rt, i, 6, 0);
}

static int blocked_ms_leave_their_ps(void)
{
	return everywhere(block_story);
}

static void locked_story(struct gmp *rt)
{
	int there = gmp_chan(rt, 0), back = gmp_chan(rt, 0);
	struct step ping[] = {{OP_LOCKM, 0, 0}, {OP_SPAWN, 1, 1}, {OP_SEND, there, 3}, {OP_RECV, back, 0},
			      {OP_LOOP, 2, 200}, {OP_UNLOCKM, 0, 0}, {OP_YIELD, 0, 0}, {OP_SPAWN, 2, 5}};
	struct step pong[] = {{OP_RECV, there, 0}, {OP_SEND, back, 4}, {OP_LOOP, 0, 200}};
	struct step dies[] = {{OP_LOCKM, 0, 0}, {OP_BLOCK, 0, 1000}, {OP_SLEEP, 0, 1000}, {OP_YIELD, 0, 0}};

	gmp_program(rt, ping, COUNT_OF(ping));
	gmp_program(rt, pong, COUNT_OF(pong));
	gmp_program(rt, dies, COUNT_OF(dies));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 0, 1, 800);
	check_done(rt, 1, 1, 600);
	check_done(rt, 2, 5, 0);
	CHECK_EQ(load_relaxed(&rt->s->nmfreed), 5); /* Ms whose locked G ended went with it */
}

static int locked_gs_keep_their_m(void)
{
	return everywhere(locked_story);
}

/* The world is stopped by a G, resized up and down under load; all work is done all the same. */
static void stop_story(struct gmp *rt)
{
	struct step mother[] = {{OP_SPAWN, 2, 100}, {OP_SPAWN, 1, 3}};
	struct step stopper[] = {{OP_STOPWORLD, 8, 10000}, {OP_YIELD, 0, 0}, {OP_STOPWORLD, 1, 0}, {OP_SLEEP, 0, 100000},
				 {OP_STOPWORLD, 0, 0}, {OP_STOPWORLD, 3, 0}, {OP_LOOP, 0, 30}};
	struct step worker[] = {{OP_YIELD, 0, 0}, {OP_SLEEP, 0, 50000}, {OP_BLOCK, 0, 10000}, {OP_LOOP, 0, 20}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, stopper, COUNT_OF(stopper));
	gmp_program(rt, worker, COUNT_OF(worker));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 1, 3, 0);
	check_done(rt, 2, 100, 0);
}

static int the_world_stops_and_resizes(void)
{
	return everywhere(stop_story);
}

/* Resized from outside, by somebody without a P. */
static void outside_story(struct gmp *rt)
{
	struct step mother[] = {{OP_SPAWN, 1, 20}};
	struct step worker[] = {{OP_COMPUTE, 0, 20000}, {OP_SLEEP, 0, 20000}, {OP_LOOP, 0, 50}};
	uint64_t seed = 5;

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, worker, COUNT_OF(worker));
	start(rt, 0);
	CHECK_EQ(gmp_set_procs(rt, 0), -EINVAL);
	CHECK_EQ(gmp_set_procs(rt, GMP_MAXPROCS + 1), -EINVAL);
	for (int i = 0; i < 50; i++)
		CHECK_EQ(gmp_set_procs(rt, 1 + random_below(&seed, 8)), 0);
	ends(rt, FATAL_DONE);
	check_done(rt, 1, 20, 0);
}

static int resized_from_outside(void)
{
	return everywhere(outside_story);
}

/* One P, and a G that computes for ever beside one that wants to run: preempted after 10 ms. */
static void preempt_story(struct gmp *rt)
{
	struct step mother[] = {{OP_SPAWN, 1, 4}, {OP_YIELD, 0, 0}, {OP_LOOP, 1, 5}};
	struct step endless[] = {{OP_COMPUTE, 0, 3600 * NS_PER_S}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, endless, COUNT_OF(endless));
	start(rt, 0);
	ends(rt, FATAL_DONE);
	CHECK_EQ(gmp_tally(rt, 0).done, 1);
	CHECK(load_relaxed(&rt->s->preempts) > 0);
}

/*
 * Each time all may be idle but for their timers, which the caller tells an M of when he has let the world go on: then he has
 * a P in his hands, and counts as running. Who comes to any point dawdles now and then.
 */
static int resized_beside_sleepers(void)
{
	for (uint32_t i = 0; i < 12; i++) {
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 2, .threads = THREADS_ONLY || i % 2, .maxg = 1000, .randomize = 1, .seed = i});
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 3}}, 1);
		gmp_program(&rt, (struct step[]){{OP_SLEEP, 0, 70000}, {OP_LOOP, 0, INT64_MAX}}, 2);
		store_seq_cst(&rt.s->killpoint, pointhash("none of them"));
		start(&rt, 0);
		for (uint32_t j = 0; j < 2000 && !load_seq_cst(&rt.s->fatal); j++) {
			CHECK_EQ(gmp_set_procs(&rt, 1 + j % 3), 0);
			if (j % 3 == 0)
				usleep(j % 100);
		}
		if (load_seq_cst(&rt.s->fatal))
			says(&rt);
		CHECK_EQ(load_seq_cst(&rt.s->fatal), 0);
		gmp_destroy(&rt);
	}
	return 0;
}

static int endless_gs_are_preempted(void)
{
	for (uint32_t threads = THREADS_ONLY; threads < 2; threads++) {
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 1, .threads = threads, .mainends = 1, .maxg = 1000});
		preempt_story(&rt);
		gmp_destroy(&rt);
	}
	return 0;
}

static void deadlock_story(struct gmp *rt)
{
	int c = gmp_chan(rt, 0), mutex = gmp_sema(rt, 0), sema = gmp_sema(rt, 0), wg = gmp_sema(rt, 0);
	struct step mother[] = {{OP_SPAWN, 1, 1}, {OP_SPAWN, 2, 2}, {OP_SPAWN, 3, 1}, {OP_SPAWN, 4, 1},
				{OP_WG_ADD, wg, 1}, {OP_WG_WAIT, wg, 0}};
	struct step receives[] = {{OP_RECV, c, 0}};
	struct step locks[] = {{OP_LOCK, mutex, 0}, {OP_LOCK, mutex, 0}};
	struct step acquires[] = {{OP_ACQUIRE, sema, 0}};
	struct step selects[] = {{OP_SELECT, 1, 0}, {OP_RECV, c, 0}};

	gmp_program(rt, mother, COUNT_OF(mother));
	gmp_program(rt, receives, COUNT_OF(receives));
	gmp_program(rt, locks, COUNT_OF(locks));
	gmp_program(rt, acquires, COUNT_OF(acquires));
	gmp_program(rt, selects, COUNT_OF(selects));
	start(rt, 0);
	ends(rt, FATAL_DEADLOCK);
	CHECK_EQ(load_relaxed(&rt->s->fatalarg), 6);
}

/* Whose timer is due, or for whom a wait group has come to 0, runs next, as in Go: 50 others that are runnable do not come
 * before it. Between two turns of it some 5 of them get a turn of 1 ms, not all. */
static int the_woken_run_next(void)
{
	for (uint32_t i = 0; i < 2; i++) {
		struct gmp rt;
		uint64_t turns = 0;

		make(&rt, (struct gmp_config){.procs = 1, .threads = THREADS_ONLY || i, .maxg = 1000, .mainends = 1});
		gmp_sema(&rt, 0);
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 50}, {OP_WG_ADD, 0, 1}, {OP_SPAWN, 2, 1}, {OP_WG_WAIT, 0, 0},
						 {OP_LOOP, 1, 20}}, 5);
		gmp_program(&rt, (struct step[]){{OP_COMPUTE, 0, 1000000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, INT64_MAX}}, 3);
		gmp_program(&rt, (struct step[]){{OP_SLEEP, 0, 5000000}, {OP_WG_ADD, 0, -1}}, 2);
		start(&rt, 0);
		ends(&rt, FATAL_DONE);
		for (uint32_t g = 1; g <= load_relaxed(&rt.s->allglen); g++)
			turns += G(&rt, g)->startpc == 1 ? G(&rt, g)->count[0] : 0;
		if (turns >= 20 * 25)
			fprintf(stderr, "  %llu turns of others in 20 sleeps\n", (unsigned long long)turns);
		CHECK(turns < 20 * 25);
		gmp_destroy(&rt);
	}
	return 0;
}

/* An hour, or until the end of time: in a system call, declared or not, or by a timer. */
static int long_is_not_at_once(void)
{
	static const uint32_t ops[] = {OP_BLOCK, OP_BLOCKING, OP_SLEEP};

	for (uint32_t i = 0; i < 2 * COUNT_OF(ops); i++) {
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 1, .threads = THREADS_ONLY || i % 2, .maxg = 1000, .mainends = 1});
		gmp_program(&rt, (struct step[]){{ops[i / 2], 0, INT64_MAX}}, 1);
		start(&rt, 0);
		CHECK_EQ(gmp_wait(&rt, monotonic_ns() + 30000000), -ETIMEDOUT);
		gmp_destroy(&rt);
	}
	return 0;
}

static void goes_round(struct gmp *rt)
{
	struct step forever[] = {{OP_LOCK, gmp_sema(rt, 0), 0}, {OP_UNLOCK, 0, 0}, {OP_LOOP, 0, INT64_MAX}};

	gmp_program(rt, forever, COUNT_OF(forever));
	start(rt, 0);
	while (!gmp_tally(rt, 0).spawned)
		usleep(100);
	usleep(2000);
	CHECK_EQ(gmp_stop(rt), 0);
}

/* Who never leaves the runtime sees the end all the same: sysmon has seen it, and preempts nobody any more. */
static int the_end_comes_to_who_goes_round(void)
{
	return everywhere(goes_round);
}

static int all_asleep_is_an_error(void)
{
	return everywhere(deadlock_story);
}

static int misuse_is_an_error(void)
{
	static const struct {
		enum misuse misuse;
		struct step steps[3];
	} stories[] = {
		{MISUSE_SEND_CLOSED, {{OP_CLOSE, 0, 0}, {OP_SEND, 0, 1}}},
		{MISUSE_CLOSE_CLOSED, {{OP_CLOSE, 0, 0}, {OP_CLOSE, 0, 0}}},
		{MISUSE_UNLOCK_UNLOCKED, {{OP_UNLOCK, 0, 0}}},
		{MISUSE_NEGATIVE_WAITGROUP, {{OP_WG_ADD, 0, -1}}},
		{MISUSE_SEND_CLOSED, {{OP_CLOSE, 0, 0}, {OP_SELECT, 1, 0}, {OP_SEND, 0, 1}}},
	};

	for (uint32_t i = 0; i < COUNT_OF(stories); i++) {
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 1000});
		gmp_chan(&rt, 0);
		gmp_sema(&rt, 0);
		gmp_program(&rt, stories[i].steps, 3);
		start(&rt, 0);
		ends(&rt, FATAL_USE);
		CHECK_EQ(load_relaxed(&rt.s->fatalarg), (uint64_t)stories[i].misuse << 32 | 1);
		CHECK_EQ(gmp_tally(&rt, 0).done, 0);
		gmp_destroy(&rt);
	}
	return 0;
}

static int wrong_programs_are_refused(void)
{
	static const struct step wrong[] = {
		{OP_COUNT, 0, 0}, {OP_SEND, 1, 0}, {OP_LOCK, 1, 0}, {OP_SPAWN, 9, 1}, {OP_SLEEP, 0, -1}, {OP_LOOP, 1, 1},
		{OP_LOOP, 0, 0}, {OP_SELECT, 1, 0}, {OP_STOPWORLD, GMP_MAXPROCS + 1, 0}, {OP_SPAWN, 0, -1},
	};

	for (uint32_t i = 0; i < COUNT_OF(wrong); i++) {
		struct step steps[] = {{OP_YIELD, 0, 0}, wrong[i]};
		struct gmp rt;
		uint32_t at = 0;

		make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 1000});
		gmp_chan(&rt, 0);
		gmp_sema(&rt, 0);
		gmp_program(&rt, steps, 2);
		CHECK_EQ(gmp_start(&rt, 0, &at), -EINVAL);
		CHECK_EQ(at, wrong[i].op == OP_LOOP && wrong[i].a == 0 && wrong[i].b ? 0 : 1);
		gmp_destroy(&rt);
	}
	return 0;
}

/* A program that spawns without end, more Ms than allowed: an error that says so, and an orderly end. */
static int limits_are_errors(void)
{
	struct step bomb[] = {{OP_SPAWN, 0, 2}, {OP_SLEEP, 0, 1000000000}};
	struct step mother[] = {{OP_SPAWN, 1, 50}}, blocks[] = {{OP_BLOCKING, 0, 200000000}};
	struct gmp rt;

	make(&rt, (struct gmp_config){.procs = 2, .threads = 1, .maxg = 5000});
	gmp_program(&rt, bomb, COUNT_OF(bomb));
	start(&rt, 0);
	ends(&rt, FATAL_MEMORY);
	gmp_destroy(&rt);
	make(&rt, (struct gmp_config){.procs = 2, .threads = 1, .maxg = 5000, .maxm = 10});
	gmp_program(&rt, mother, COUNT_OF(mother));
	gmp_program(&rt, blocks, COUNT_OF(blocks));
	start(&rt, 0);
	ends(&rt, FATAL_THREADS);
	gmp_destroy(&rt);
	return 0;
}

/* One workload, three models: what they have in common is the result, what tells them apart are the Ms. */
static int the_three_models(void)
{
	for (uint32_t threads = THREADS_ONLY; threads < 2; threads++)
		for (uint32_t model = GMP_MN; model <= GMP_1_TO_1; model++) {
			struct gmp rt;

			make(&rt, (struct gmp_config){.procs = 2, .model = model, .threads = threads, .maxg = 1000});
			gmp_chan(&rt, 0);
			gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 10}, {OP_SPAWN, 2, 10}}, 2);
			gmp_program(&rt, (struct step[]){{OP_BLOCK, 0, 2000000}, {OP_SEND, 0, 1}, {OP_LOOP, 0, 3}}, 3);
			gmp_program(&rt, (struct step[]){{OP_RECV, 0, 0}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 3}}, 3);
			start(&rt, 0);
			ends(&rt, FATAL_DONE);
			check_done(&rt, 2, 10, 30);
			if (model == GMP_MANY_TO_1)
				CHECK_EQ(load_relaxed(&rt.s->mnext), 2); /* sysmon, and the one */
			if (model == GMP_1_TO_1)
				CHECK_EQ(load_relaxed(&rt.s->nmfreed), 21); /* an M for each G, and it went with it */
			gmp_destroy(&rt);
		}
	return 0;
}

/* A line or a block of it must be what Go's own schedtrace prints, to the letter. */
static bool next_is(const char **at, const char *text)
{
	if (strncmp(*at, text, strlen(text)) != 0)
		return false;
	*at += strlen(text);
	return true;
}

static int64_t number(const char **at)
{
	char *end;
	int64_t value;

	if (next_is(at, "nil"))
		return -1;
	value = strtoll(*at, &end, 10);
	CHECK(end != *at);
	*at = end;
	return value;
}

#define FIELD(at, name) (next_is(at, name) ? number(at) : (fprintf(stderr, "at: %.40s\n", *(at)), exit(1), 0))

static const char *headline_of(const char *at, int64_t procs)
{
	CHECK(FIELD(&at, "SCHED ") >= 0);
	CHECK_EQ(FIELD(&at, "ms: gomaxprocs="), procs);
	CHECK(FIELD(&at, " idleprocs=") >= 0);
	CHECK(FIELD(&at, " threads=") >= 0);
	CHECK(FIELD(&at, " spinningthreads=") >= 0);
	CHECK(FIELD(&at, " needspinning=") >= 0);
	CHECK(FIELD(&at, " idlethreads=") >= 0);
	CHECK(FIELD(&at, " runqueue=") >= 0);
	return at;
}

static void flag(const char **at, const char *name)
{
	CHECK(next_is(at, name) && (next_is(at, "true") || next_is(at, "false")));
}

static void check_short(const char *at, int64_t procs)
{
	at = headline_of(at, procs);
	CHECK(next_is(&at, " ["));
	for (int64_t i = 0; i < procs; i++)
		CHECK(FIELD(&at, " ") >= 0);
	CHECK(next_is(&at, " ] schedticks=["));
	for (int64_t i = 0; i < procs; i++)
		CHECK(FIELD(&at, " ") >= 0);
	CHECK_EQ(strcmp(at, " ]\n"), 0);
}

static void check_detailed(const char *at, int64_t procs)
{
	at = headline_of(at, procs);
	flag(&at, " gcwaiting=");
	FIELD(&at, " nmidlelocked=");
	FIELD(&at, " stopwait=");
	flag(&at, " sysmonwait=");
	CHECK(next_is(&at, "\n"));
	for (int64_t i = 0; i < procs; i++) {
		CHECK_EQ(FIELD(&at, "  P"), i);
		CHECK(FIELD(&at, ": status=") <= _Pdead);
		FIELD(&at, " schedtick=");
		FIELD(&at, " syscalltick=");
		FIELD(&at, " m=");
		FIELD(&at, " runqsize=");
		FIELD(&at, " gfreecnt=");
		FIELD(&at, " timerslen=");
		CHECK(next_is(&at, "\n"));
	}
	while (next_is(&at, "  M")) {
		number(&at);
		FIELD(&at, ": p=");
		FIELD(&at, " curg=");
		CHECK(next_is(&at, " mallocing=0 throwing=0 preemptoff="));
		FIELD(&at, " locks=");
		CHECK(next_is(&at, " dying=0"));
		flag(&at, " spinning=");
		flag(&at, " blocked=");
		FIELD(&at, " lockedg=");
		CHECK(next_is(&at, "\n"));
	}
	while (next_is(&at, "  G")) {
		number(&at);
		FIELD(&at, ": status=");
		CHECK(next_is(&at, "("));
		at = strchr(at, ')');
		CHECK(at != NULL);
		FIELD(&at, ") m=");
		FIELD(&at, " lockedm=");
		CHECK(next_is(&at, "\n"));
	}
	CHECK_EQ(*at, 0);
}

static int schedtrace_is_gos(void)
{
	static char text[1 << 20];
	struct gmp rt;

	make(&rt, (struct gmp_config){.procs = 3, .threads = 1, .maxg = 1000});
	gmp_chan(&rt, 0);
	gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 20}, {OP_SPAWN, 2, 3}, {OP_SLEEP, 0, 20000000}, {OP_CLOSE, 0, 0}}, 4);
	gmp_program(&rt, (struct step[]){{OP_RECV, 0, 0}}, 1);
	gmp_program(&rt, (struct step[]){{OP_LOCKM, 0, 0}, {OP_SLEEP, 0, 100000}, {OP_COMPUTE, 0, 100000}, {OP_LOOP, 1, 20}}, 4);
	start(&rt, 0);
	while (!load_seq_cst(&rt.s->fatal)) {
		CHECK(schedtrace(&rt, false, text, sizeof text) == (int64_t)strlen(text));
		check_short(text, 3);
		CHECK(schedtrace(&rt, true, text, sizeof text) == (int64_t)strlen(text));
		check_detailed(text, 3);
		CHECK(schedtrace(&rt, true, text, 100) > 100); /* cut, and says how long it would be */
		CHECK_EQ(strlen(text), 99);
	}
	ends(&rt, FATAL_DONE);
	gmp_destroy(&rt);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"spawn_and_end", spawn_and_end},
		{"ping_pong", ping_pong},
		{"buffered_and_closed", buffered_and_closed},
		{"select_from_many", select_from_many},
		{"select_meets_select", select_meets_select},
		{"mutex_excludes", mutex_excludes},
		{"semaphore_counts", semaphore_counts},
		{"sleepers_wake", sleepers_wake},
		{"blocked_ms_leave_their_ps", blocked_ms_leave_their_ps},
		{"locked_gs_keep_their_m", locked_gs_keep_their_m},
		{"the_world_stops_and_resizes", the_world_stops_and_resizes},
		{"resized_from_outside", resized_from_outside},
		{"resized_beside_sleepers", resized_beside_sleepers},
		{"endless_gs_are_preempted", endless_gs_are_preempted},
		{"the_woken_run_next", the_woken_run_next},
		{"long_is_not_at_once", long_is_not_at_once},
		{"the_end_comes_to_who_goes_round", the_end_comes_to_who_goes_round},
		{"all_asleep_is_an_error", all_asleep_is_an_error},
		{"misuse_is_an_error", misuse_is_an_error},
		{"wrong_programs_are_refused", wrong_programs_are_refused},
		{"limits_are_errors", limits_are_errors},
		{"the_three_models", the_three_models},
		{"schedtrace_is_gos", schedtrace_is_gos},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
