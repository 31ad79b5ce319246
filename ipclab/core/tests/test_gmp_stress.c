/* The scheduler under load: random programs on many Ps, a million Gs, ends of caller and template, the event log. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/stat.h>

#include "core/gmp/schedtrace.h"
#include "gmp.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SCALE 50
#else
#define SCALE 1
#endif

/* --- random programs ------------------------------------------------------------------------------------------------- */

enum { RANDOM_PROGRAMS = 8, CHANS = 4, MUTEXES = 3, SEMAS = 2 };

/* Adds a step that cannot wait for ever, or a balanced group of steps; returns how many steps there are then. */
static uint32_t add_random(uint64_t *seed, struct step *steps, uint32_t n, uint32_t program)
{
	uint32_t c = random_below(seed, CHANS), other = random_below(seed, CHANS);
	uint32_t mutex = random_below(seed, MUTEXES), sema = MUTEXES + random_below(seed, SEMAS);

	switch (random_below(seed, 11)) {
	case 0:
		steps[n++] = (struct step){OP_COMPUTE, 0, random_below(seed, 30000)};
		break;
	case 1:
		steps[n++] = (struct step){OP_SLEEP, 0, random_below(seed, 300000)};
		break;
	case 2:
		steps[n++] = (struct step){OP_BLOCK, 0, random_below(seed, 100000)};
		break;
	case 3:
		steps[n++] = (struct step){OP_BLOCKING, 0, random_below(seed, 100000)};
		break;
	case 4:
		steps[n++] = (struct step){OP_LOCK, mutex, 0};
		steps[n++] = (struct step){OP_YIELD, 0, 0};
		steps[n++] = (struct step){OP_UNLOCK, mutex, 0};
		break;
	case 5:
		steps[n++] = (struct step){OP_ACQUIRE, sema, 0};
		steps[n++] = (struct step){OP_SLEEP, 0, 1000};
		steps[n++] = (struct step){OP_RELEASE, sema, 0};
		break;
	case 6:
		steps[n++] = (struct step){OP_SELECT, 2, 1};
		steps[n++] = (struct step){OP_SEND, c, 1};
		steps[n++] = (struct step){OP_RECV, other, 0};
		break;
	case 7:
		if (program + 1 < RANDOM_PROGRAMS)
			steps[n++] = (struct step){OP_SPAWN, program + 1, 1 + random_below(seed, 2)};
		break;
	case 8:
		steps[n++] = (struct step){OP_LOCKM, 0, 0};
		steps[n++] = (struct step){OP_YIELD, 0, 0};
		steps[n++] = (struct step){OP_UNLOCKM, 0, 0};
		break;
	case 9:
		if (random_below(seed, 8) == 0)
			steps[n++] = (struct step){OP_STOPWORLD, 0, 0};
		break;
	default:
		steps[n++] = (struct step){OP_YIELD, 0, 0};
		break;
	}
	return n;
}

static void random_programs(struct gmp *rt, uint64_t seed, uint32_t gs)
{
	struct step steps[80];

	for (int i = 0; i < CHANS; i++)
		CHECK(gmp_chan(rt, i % 2 ? 2 : 0) == i);
	for (int i = 0; i < MUTEXES; i++)
		gmp_sema(rt, 0);
	for (int i = 0; i < SEMAS; i++)
		gmp_sema(rt, 2);
	gmp_program(rt, (struct step[]){{OP_SPAWN, 1, gs}, {OP_SPAWN, 2, gs}, {OP_SPAWN, 3, gs}}, 3);
	for (uint32_t i = 1; i < RANDOM_PROGRAMS; i++) {
		uint32_t n = 0, length = 4 + random_below(&seed, 12);

		while (n < length)
			n = add_random(&seed, steps, n, i);
		steps[n++] = (struct step){OP_LOOP, 0, 1 + random_below(&seed, 3)};
		CHECK_EQ(gmp_program(rt, steps, n), i);
	}
}

static void check_everybody_ended(struct gmp *rt)
{
	for (uint32_t i = 0; i < rt->s->nprograms; i++) {
		struct tally tally = gmp_tally(rt, i);

		CHECK_EQ(tally.done, tally.spawned);
	}
	for (uint32_t g = 1; g <= load_relaxed(&rt->s->allglen); g++)
		CHECK_EQ(load_relaxed(&G(rt, g)->atomicstatus), _Gdead);
}

static int random_programs_end(void)
{
	static const uint32_t procs[] = {1, 2, 3, 8, 64};
	int rounds = getenv("IPCLAB_ROUNDS") ? atoi(getenv("IPCLAB_ROUNDS")) : SCALE > 1 ? 1 : 3;

	for (int round = 0; round < rounds; round++)
		for (uint32_t i = 0; i < COUNT_OF(procs); i++)
			for (uint32_t threads = THREADS_ONLY; threads < 2; threads++) {
				struct gmp rt;

				make(&rt, (struct gmp_config){.procs = procs[i], .threads = threads, .randomize = 1,
							      .seed = round * 100 + i, .maxg = 100000, .tracking = 1,
							      .eventslots = 64, .nopreempt = round % 2});
				random_programs(&rt, round * 1000 + i, 40);
				start(&rt, 0);
				ends(&rt, FATAL_DONE);
				check_everybody_ended(&rt);
				gmp_destroy(&rt);
			}
	return 0;
}

/* 200 Ms: as many Gs block at once in the kernel; all come back. */
static int two_hundred_ms(void)
{
	for (uint32_t threads = THREADS_ONLY; threads < 2; threads++) {
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 64, .threads = threads, .maxg = 1000, .maxm = 400});
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 190}}, 1);
		gmp_program(&rt, (struct step[]){{OP_BLOCKING, 0, 300000000}, {OP_YIELD, 0, 0}, {OP_BLOCK, 0, 1000}}, 3);
		start(&rt, 0);
		ends(&rt, FATAL_DONE);
		check_done(&rt, 1, 190, 0);
		CHECK(load_relaxed(&rt.s->mnext) > 100);
		gmp_destroy(&rt);
	}
	return 0;
}

/* --- many Gs --------------------------------------------------------------------------------------------------------- */

static int64_t bytes_of(struct gmp *rt)
{
	struct stat info;

	CHECK_EQ(fstat(rt->segment.fd, &info), 0);
	return info.st_blocks * 512;
}

static int a_million_alive(void)
{
	const int64_t count = 1000000 / SCALE;
	struct gmp rt;
	int64_t before;

	make(&rt, (struct gmp_config){.procs = 2, .threads = THREADS_ONLY, .maxg = 1100000});
	before = bytes_of(&rt);
	gmp_chan(&rt, 0);
	gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, count}, {OP_YIELD, 0, 0}, {OP_CLOSE, 0, 0}}, 3);
	gmp_program(&rt, (struct step[]){{OP_RECV, 0, 0}}, 1);
	start(&rt, 0);
	ends(&rt, FATAL_DONE);
	check_done(&rt, 1, count, 0);
	CHECK(load_relaxed(&rt.s->allglen) > count);
	fprintf(stderr, "  %.0f bytes a G\n", (double)(bytes_of(&rt) - before) / (double)count);
	CHECK(SCALE > 1 || bytes_of(&rt) - before < 400 * count);
	gmp_destroy(&rt);
	return 0;
}

static int memory_stays_constant(void)
{
	const int64_t count = (getenv("IPCLAB_TEN_MILLION") ? 10000000 : 1000000) / SCALE;
	struct gmp rt;

	make(&rt, (struct gmp_config){.procs = 2, .threads = THREADS_ONLY, .maxg = 1100000});
	gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 10}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, count / 10}}, 3);
	gmp_program(&rt, (struct step[]){{OP_EXIT, 0, 0}}, 1);
	start(&rt, 0);
	ends(&rt, FATAL_DONE);
	check_done(&rt, 1, count, 0);
	fprintf(stderr, "  %u records for %lld Gs\n", load_relaxed(&rt.s->allglen), (long long)count);
	CHECK(load_relaxed(&rt.s->allglen) < 20000);
	gmp_destroy(&rt);
	return 0;
}

/* --- ends ------------------------------------------------------------------------------------------------------------ */

static void run_for_ever(struct gmp *rt)
{
	make(rt, (struct gmp_config){.procs = 2, .maxg = 1000});
	gmp_program(rt, (struct step[]){{OP_SPAWN, 1, 5}, {OP_SPAWN, 2, 5}, {OP_SLEEP, 0, 3600 * NS_PER_S}}, 3);
	gmp_program(rt, (struct step[]){{OP_COMPUTE, 0, 3600 * NS_PER_S}}, 1);
	gmp_program(rt, (struct step[]){{OP_BLOCKING, 0, 3600 * NS_PER_S}}, 1);
	start(rt, 0);
}

static void caller(void *argument)
{
	_Atomic uint32_t *going = argument;
	struct gmp rt;

	CHECK_EQ(setpgid(0, 0), 0);
	run_for_ever(&rt);
	while (load_seq_cst(&rt.s->mnext) < 5)
		usleep(1000);
	store_seq_cst(going, 1);
	for (;;)
		pause();
}

/* Orphans come to us, for we are their subreaper: nobody of the group is left within a second. */
static void gone_within(pid_t group, int64_t ns)
{
	int64_t deadline = monotonic_ns() + ns;

	while (kill(-group, 0) == 0) {
		CHECK(monotonic_ns() < deadline);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		usleep(1000);
	}
}

static int all_die_with_the_caller(void)
{
	_Atomic uint32_t *going = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (THREADS_ONLY)
		return SKIP;
	CHECK(going != MAP_FAILED);
	CHECK_EQ(sys_set_child_subreaper(1), 0);
	for (int i = 0; i < 5; i++) {
		pid_t pid;

		store_seq_cst(going, 0);
		pid = spawn(caller, (void *)going);
		while (!load_seq_cst(going))
			usleep(1000);
		kill_9(pid);
		gone_within(pid, 5 * NS_PER_S);
	}
	munmap((void *)going, 4096);
	return 0;
}

static int the_templates_death_is_told(void)
{
	struct gmp rt;

	if (THREADS_ONLY)
		return SKIP;
	CHECK_EQ(sys_set_child_subreaper(1), 0);
	run_for_ever(&rt);
	CHECK_EQ(gmp_wait(&rt, monotonic_ns() + 50000000), -ETIMEDOUT);
	CHECK(kill(rt.template, SIGKILL) == 0);
	CHECK_EQ(gmp_wait(&rt, SECONDS(10)), -ECHILD);
	gmp_destroy(&rt);
	while (waitpid(-1, NULL, 0) > 0) /* its Ms, killed with it */
		;
	CHECK_EQ(errno, ECHILD);
	return 0;
}

/* One G is stopping the world and waits for another, which does not give way, when the run is ended: all Ms end. */
static int it_ends_while_the_world_is_being_stopped(void)
{
	struct gmp rt;

	for (int i = 0; i < 3; i++) {
		int64_t until = SECONDS(LIMIT_S);

		make(&rt, (struct gmp_config){.procs = 2, .threads = 1, .maxg = 100});
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 1}, {OP_SPAWN, 2, 1}}, 2);
		gmp_program(&rt, (struct step[]){{OP_CRUNCH, 0, 300000000}, {OP_LOOP, 0, 1 << 30}}, 2);
		gmp_program(&rt, (struct step[]){{OP_SLEEP, 0, 1000000}, {OP_STOPWORLD, 0, 0}, {OP_LOOP, 0, 1 << 30}}, 3);
		start(&rt, 0);
		while (!(load_seq_cst(&rt.s->gcwaiting) && load_relaxed(&rt.s->stopwait) > 0) && monotonic_ns() < until)
			cpu_relax();
		CHECK(monotonic_ns() < until);
		alarm(60); /* who hangs is ended by it */
		gmp_destroy(&rt);
		alarm(0);
	}
	return 0;
}

static int strangers_are_refused(void)
{
	struct gmp rt, other;
	struct segment plain;

	make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 1000});
	CHECK_EQ(gmp_attach(&other, rt.segment.fd), 0);
	segment_close(&other.segment);
	rt.s->recordbytes++;
	CHECK_EQ(gmp_attach(&other, rt.segment.fd), -EPROTO);
	rt.s->header.version++;
	CHECK_EQ(gmp_attach(&other, rt.segment.fd), -EPROTO);
	gmp_destroy(&rt);
	CHECK_EQ(segment_create(&plain, NULL, SEGMENT_PLAIN, 4096, 4096, 0), 0);
	CHECK_EQ(gmp_attach(&other, plain.fd), -EPROTOTYPE);
	segment_close(&plain);
	CHECK_EQ(gmp_create(&rt, &(struct gmp_config){.procs = GMP_MAXPROCS + 1, .threads = 1}), -EINVAL);
	CHECK_EQ(gmp_create(&rt, &(struct gmp_config){.eventslots = 3, .threads = 1}), -EINVAL);
	CHECK_EQ(gmp_create(&rt, &(struct gmp_config){.model = 9, .threads = 1}), -EINVAL);
	CHECK_EQ(gmp_create(&rt, &(struct gmp_config){.procs = 1}), -EINVAL); /* processes, but no way to make them */
	return 0;
}

/* --- the event log --------------------------------------------------------------------------------------------------- */

static void count_events(struct gmp *rt, uint64_t *counts, uint64_t *lost)
{
	struct event some[100];

	for (uint32_t m = 1; m <= mLast(rt); m++) {
		uint64_t from = 0, last = 0;
		uint32_t n;

		while ((n = eventsRead(rt, m, &from, some, COUNT_OF(some), lost)))
			for (uint32_t i = 0; i < n; i++) {
				uint64_t what = load_relaxed(&some[i].what);

				CHECK_EQ(what >> 32, m - 1);
				CHECK((what & 0xffff) > EV_NONE && (what & 0xffff) < EV_COUNT);
				CHECK(load_relaxed(&some[i].ticks) >= last);
				last = load_relaxed(&some[i].ticks);
				counts[what & 0xffff]++;
			}
	}
}

/* The graph of P's states, drawn from the events, is Go's. ("+": a way that must have been taken.) */
static const char *const graph[] = {
	/* to:          idle running syscall gcstop dead */
	/* idle    */ " +-+-",
	/* running */ "+ ++-",
	/* syscall */ "+- +-",
	/* gcstop  */ "++- +",
	/* dead    */ "---+ ",
};

static void draw(struct gmp *rt, uint64_t ways[5][5])
{
	struct event some[100];
	uint64_t lost = 0;

	for (uint32_t m = 1; m <= mLast(rt); m++) {
		uint64_t from = 0;
		uint32_t n;

		while ((n = eventsRead(rt, m, &from, some, COUNT_OF(some), &lost)))
			for (uint32_t i = 0; i < n; i++)
				if ((load_relaxed(&some[i].what) & 0xffff) == EV_PSTATUS)
					ways[load_relaxed(&some[i].arg) >> 8 & 0xff][load_relaxed(&some[i].arg) & 0xff]++;
	}
}

static int ps_change_as_gos_do(void)
{
	uint64_t ways[5][5] = {0};

	for (uint32_t round = 0; round < 20; round++) {
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 1 + round % 4, .threads = 1, .maxg = 10000, .eventslots = 1 << 14});
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 10}, {OP_SPAWN, 2, 6}, {OP_SPAWN, 3, 4}}, 3);
		gmp_program(&rt, (struct step[]){{OP_STOPWORLD, 3, 0}, {OP_YIELD, 0, 0}, {OP_STOPWORLD, 1, 0}, {OP_BLOCK, 0, 1000},
						 {OP_STOPWORLD, 2, 10000}, {OP_LOOP, 0, 5}}, 6);
		gmp_program(&rt, (struct step[]){{OP_BLOCK, 0, 100000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 20}}, 3);
		gmp_program(&rt, (struct step[]){{OP_COMPUTE, 0, 50000}, {OP_BLOCKING, 0, 1000}, {OP_LOOP, 0, 10}}, 3);
		start(&rt, 0);
		ends(&rt, FATAL_DONE);
		draw(&rt, ways);
		gmp_destroy(&rt);
	}
	for (int from = 0; from < 5; from++)
		for (int to = 0; to < 5; to++) {
			if ((graph[from][to] == '+') != (ways[from][to] > 0))
				fprintf(stderr, "from %d to %d: %llu times\n", from, to, (unsigned long long)ways[from][to]);
			if (from != to)
				CHECK_EQ(ways[from][to] > 0, graph[from][to] == '+');
		}
	return 0;
}

/* --- work conservation ------------------------------------------------------------------------------------------------
 *
 * Two Ps, and nobody preempts. One G makes another one runnable, in some way, and then computes for ever: if the wake-up
 * of a second M is lost, nothing ever happens again, and main waits for ever. (golang/go#45867, #60693: preemption by
 * sysmon would hide it.) No time is measured.
 */
#define FOR_EVER {OP_COMPUTE, 0, 3600 * NS_PER_S}
#define ONLY_SEND {OP_SEND, 0, 1}

static const struct way {
	const char *name;
	struct step hog[5], other[4];
} ways_to_wake[] = {
	{"go", {{OP_SPAWN, 2, 1}, FOR_EVER}, {ONLY_SEND}},
	{"go, several", {{OP_SPAWN, 2, 3}, FOR_EVER}, {{OP_YIELD, 0, 0}, ONLY_SEND}},
	{"channel", {{OP_SPAWN, 2, 1}, {OP_YIELD, 0, 0}, {OP_SEND, 1, 1}, FOR_EVER}, {{OP_RECV, 1, 0}, ONLY_SEND}},
	{"close", {{OP_SPAWN, 2, 1}, {OP_YIELD, 0, 0}, {OP_CLOSE, 1, 0}, FOR_EVER}, {{OP_RECV, 1, 0}, ONLY_SEND}},
	{"timer", {{OP_SPAWN, 2, 1}, {OP_YIELD, 0, 0}, FOR_EVER}, {{OP_SLEEP, 0, 100000}, ONLY_SEND}},
	{"system call", {{OP_SPAWN, 2, 1}, {OP_YIELD, 0, 0}, FOR_EVER}, {{OP_BLOCK, 0, 100000}, ONLY_SEND}},
	{"blocking call", {{OP_SPAWN, 2, 1}, {OP_YIELD, 0, 0}, FOR_EVER}, {{OP_BLOCKING, 0, 100000}, ONLY_SEND}},
	{"semaphore", {{OP_SPAWN, 2, 1}, {OP_YIELD, 0, 0}, {OP_RELEASE, 0, 0}, FOR_EVER}, {{OP_ACQUIRE, 0, 0}, ONLY_SEND}},
	{"wait group", {{OP_WG_ADD, 1, 1}, {OP_SPAWN, 2, 1}, {OP_YIELD, 0, 0}, {OP_WG_ADD, 1, -1}, FOR_EVER},
	 {{OP_WG_WAIT, 1, 0}, ONLY_SEND}},
	{"the world starts", {{OP_SPAWN, 2, 2}, {OP_STOPWORLD, 2, 0}, FOR_EVER}, {{OP_YIELD, 0, 0}, ONLY_SEND}},
	{"locked", {{OP_SPAWN, 2, 1}, FOR_EVER}, {{OP_LOCKM, 0, 0}, {OP_YIELD, 0, 0}, ONLY_SEND}},
};

static uint32_t length_of(const struct step *steps, uint32_t most)
{
	while (most > 0 && steps[most - 1].op == OP_EXIT)
		most--;
	return most;
}

static int no_wake_up_is_lost(void)
{
	uint32_t rounds = getenv("IPCLAB_ROUNDS") ? (uint32_t)atoi(getenv("IPCLAB_ROUNDS")) : 10;

	for (uint32_t i = 0; i < COUNT_OF(ways_to_wake) * rounds; i++) {
		if (getenv("IPCLAB_WAY") && strcmp(getenv("IPCLAB_WAY"), ways_to_wake[i % COUNT_OF(ways_to_wake)].name) != 0)
			continue;
		const struct way *way = &ways_to_wake[i % COUNT_OF(ways_to_wake)];
		struct gmp rt;
		int got;

		make(&rt, (struct gmp_config){.procs = 2, .threads = THREADS_ONLY || i % 2, .maxg = 100, .seed = i, .mainends = 1,
					      .randomize = i % 3 == 0, .nopreempt = 1});
		gmp_chan(&rt, 0);
		gmp_chan(&rt, 0);
		gmp_sema(&rt, 0);
		gmp_sema(&rt, 0);
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 1}, {OP_RECV, 0, 0}}, 2);
		gmp_program(&rt, way->hog, length_of(way->hog, 5));
		gmp_program(&rt, way->other, length_of(way->other, 4));
		start(&rt, 0);
		got = gmp_wait(&rt, SECONDS(5));
		if (got != FATAL_DONE) {
			static char text[1 << 16];

			schedtrace(&rt, true, text, sizeof text);
			fprintf(stderr, "%s: lost in round %u, threads %u\n%s", way->name, i, rt.s->threads, text);
		}
		CHECK_EQ(got, FATAL_DONE);
		gmp_destroy(&rt);
	}
	return 0;
}

static int events_tell_all(void)
{
	for (uint32_t slots = 64; slots <= 1u << 16; slots *= 1024) {
		uint64_t counts[EV_COUNT] = {0}, lost = 0, born = 0, switches = 0;
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = 3, .threads = 1, .maxg = 10000, .eventslots = slots});
		random_programs(&rt, 5, 4);
		start(&rt, 0);
		ends(&rt, FATAL_DONE);
		count_events(&rt, counts, &lost);
		if (slots == 64) {
			CHECK(lost > 0);
			gmp_destroy(&rt);
			continue;
		}
		for (uint32_t i = 0; i < rt.s->nprograms; i++)
			born += gmp_tally(&rt, i).spawned;
		for (uint32_t m = 1; m <= mLast(&rt); m++)
			switches += load_relaxed(&M(&rt, m)->switches);
		CHECK_EQ(lost, 0);
		CHECK_EQ(counts[EV_GO_CREATE], born - 1); /* the first one was made by the caller, who has no ring */
		CHECK_EQ(counts[EV_GO_END], born);
		CHECK_EQ(counts[EV_GO_START], switches);
		CHECK_EQ(counts[EV_SYSCALL], counts[EV_SYSEXIT]);
		CHECK_EQ(counts[EV_STW_START], counts[EV_STW_END]);
		gmp_destroy(&rt);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"random_programs_end", random_programs_end},
		{"two_hundred_ms", two_hundred_ms},
		{"a_million_alive", a_million_alive},
		{"memory_stays_constant", memory_stays_constant},
		{"all_die_with_the_caller", all_die_with_the_caller},
		{"the_templates_death_is_told", the_templates_death_is_told},
		{"it_ends_while_the_world_is_being_stopped", it_ends_while_the_world_is_being_stopped},
		{"strangers_are_refused", strangers_are_refused},
		{"events_tell_all", events_tell_all},
		{"ps_change_as_gos_do", ps_change_as_gos_do},
		{"no_wake_up_is_lost", no_wake_up_is_lost},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
