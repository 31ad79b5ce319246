/* The scheduler under load: random programs on many Ps, a million Gs, ends of caller and template, the event log. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/stat.h>

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

	for (uint32_t m = 1; m <= (uint32_t)load_relaxed(&rt->s->mnext); m++) {
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
		for (uint32_t m = 1; m <= (uint32_t)load_relaxed(&rt.s->mnext); m++)
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
		{"strangers_are_refused", strangers_are_refused},
		{"events_tell_all", events_tell_all},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
