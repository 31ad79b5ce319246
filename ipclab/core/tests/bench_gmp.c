/*
 * bench_gmp: what the scheduler costs, with Ms as processes; not a test.
 *
 *   bench_gmp                            everything, one line each: medians of five
 *   bench_gmp KEY PROCS [EVENTSLOTS]     one sample of one line; the key and the unit are in the table at the end
 *
 * gmp_bench.go beside it does the same in Go, by the same keys. scripts/gmp_targets.py runs both in turn.
 */
#define _GNU_SOURCE
#include "gmp.h"

#include <sys/stat.h>

#define N 400000
#define MANY 1000000

static uint32_t eventslots;

/* The shapes of the Go program: main drives, a second G answers where one is needed. */
struct shape {
	const char *key;
	struct step main_steps[8], other_steps[8];
	uint32_t main_count, other_count, capacity, operations;
};

static const struct shape shapes[] = {
	{"create", {{OP_SPAWN, 1, 1}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, N}}, {{OP_EXIT, 0, 0}}, 3, 1, 0, N},
	{"yield", {{OP_SPAWN, 1, 1}, {OP_YIELD, 0, 0}, {OP_LOOP, 1, N}}, {{OP_YIELD, 0, 0}, {OP_LOOP, 0, N}}, 3, 2, 0, 2 * N},
	{"channel", {{OP_SPAWN, 1, 1}, {OP_SEND, 0, 1}, {OP_RECV, 1, 0}, {OP_LOOP, 1, N}},
	 {{OP_RECV, 0, 0}, {OP_SEND, 1, 1}, {OP_LOOP, 0, N}}, 4, 3, 0, N},
	{"stream", {{OP_SPAWN, 1, 1}, {OP_RECV, 0, 0}, {OP_LOOP, 1, 2 * N}}, {{OP_SEND, 0, 1}, {OP_LOOP, 0, 2 * N}},
	 3, 2, 128, 2 * N},
	{"select",
	 {{OP_SPAWN, 1, 1}, {OP_SEND, 0, 1}, {OP_SELECT, 2, 0}, {OP_RECV, 1, 0}, {OP_RECV, 2, 0}, {OP_LOOP, 1, N}},
	 {{OP_SELECT, 2, 0}, {OP_RECV, 0, 0}, {OP_RECV, 2, 0}, {OP_SEND, 1, 1}, {OP_LOOP, 0, N}}, 6, 5, 0, N},
	{"mutex", {{OP_LOCK, 0, 0}, {OP_UNLOCK, 0, 0}, {OP_LOOP, 0, 8 * N}}, {{OP_EXIT, 0, 0}}, 3, 1, 0, 8 * N},
	{"locked", {{OP_LOCKM, 0, 0}, {OP_SPAWN, 1, 1}, {OP_SEND, 0, 1}, {OP_RECV, 1, 0}, {OP_LOOP, 2, N / 40}},
	 {{OP_RECV, 0, 0}, {OP_SEND, 1, 1}, {OP_LOOP, 0, N / 40}}, 5, 3, 0, N / 40},
};

static void add(struct gmp *rt, const struct step *steps, uint32_t count, bool once)
{
	struct step copy[8];

	for (uint32_t i = 0; i < count; i++) {
		copy[i] = steps[i];
		if (once && copy[i].op == OP_LOOP)
			copy[i].b = 1;
	}
	gmp_program(rt, copy, count);
}

static void wait_for(struct gmp *rt)
{
	if (gmp_wait(rt, SECONDS(LIMIT_S)) == FATAL_DONE)
		return;
	says(rt);
	exit(1);
}

static double run(const struct shape *shape, uint32_t procs, bool once)
{
	struct gmp rt;
	int64_t from;
	double ns;

	make(&rt, (struct gmp_config){.procs = procs, .mainends = 1, .maxg = 1u << 20, .eventslots = eventslots});
	for (int i = 0; i < 3; i++)
		gmp_chan(&rt, i == 2 ? 0 : shape->capacity);
	gmp_sema(&rt, 0);
	add(&rt, shape->main_steps, shape->main_count, once);
	add(&rt, shape->other_steps, shape->other_count, once);
	from = monotonic_ns();
	start(&rt, 0);
	wait_for(&rt);
	ns = (double)(monotonic_ns() - from);
	gmp_destroy(&rt);
	return ns;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static double median(double *figures, uint32_t n)
{
	qsort(figures, n, sizeof *figures, by_value);
	return n ? figures[n / 2] : -1;
}

/* ns an operation. What it costs to start and end the processes is taken off: the shortest of some runs of one loop. */
static double cost(const struct shape *shape, uint32_t procs)
{
	double empty[5];

	for (uint32_t i = 0; i < COUNT_OF(empty); i++)
		empty[i] = run(shape, procs, true);
	(void)median(empty, COUNT_OF(empty));
	return (run(shape, procs, false) - empty[0]) / shape->operations;
}

/* 50 Gs that block 100 ms in the kernel and 100 that compute 10 ms, on two Ps: 0.5 s of CPU time each. In ms. */
static double mixed(uint32_t procs)
{
	struct gmp rt;
	double ns;
	int64_t from;

	make(&rt, (struct gmp_config){.procs = procs, .maxg = 1000, .eventslots = eventslots});
	gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 50}, {OP_SPAWN, 2, 100}}, 2);
	gmp_program(&rt, (struct step[]){{OP_BLOCK, 0, 100000000}}, 1);
	gmp_program(&rt, (struct step[]){{OP_COMPUTE, 0, 10000000}}, 1);
	from = monotonic_ns();
	start(&rt, 0);
	wait_for(&rt);
	ns = (double)(monotonic_ns() - from);
	gmp_destroy(&rt);
	return ns / 1e6;
}

/* --- hand-off: from a G's entering the kernel to the start of the next G, on another M --- */

struct moment {
	uint64_t ticks;
	uint32_t kind;
};

static int by_ticks(const void *a, const void *b)
{
	uint64_t x = ((const struct moment *)a)->ticks, y = ((const struct moment *)b)->ticks;

	return x < y ? -1 : x > y;
}

static uint32_t moments_of(struct gmp *rt, struct moment *into, uint32_t most)
{
	uint32_t n = 0;

	for (uint32_t m = 1; m <= mLast(rt); m++) {
		struct event some[64];
		uint64_t from = 0, lost = 0;
		uint32_t got;

		while ((got = eventsRead(rt, m, &from, some, COUNT_OF(some), &lost)))
			for (uint32_t i = 0; i < got && n < most; i++) {
				uint32_t kind = load_relaxed(&some[i].what) & 0xffff;

				if (kind == EV_SYSCALL || kind == EV_GO_START)
					into[n++] = (struct moment){load_relaxed(&some[i].ticks), kind};
			}
	}
	qsort(into, n, sizeof *into, by_ticks);
	return n;
}

/* One P; one G blocks 2 ms at a time beside one that always has work. The median, in us. */
static double handoff(enum op op)
{
	static struct moment moments[1 << 16];
	double figures[1024], ns_per_tick;
	uint32_t n, count = 0;
	struct gmp rt;

	make(&rt, (struct gmp_config){.procs = 1, .maxg = 1000, .eventslots = 1 << 13});
	gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 1}, {OP_SPAWN, 2, 1}}, 2);
	gmp_program(&rt, (struct step[]){{op, 0, 2000000}, {OP_LOOP, 0, 300}}, 2);
	gmp_program(&rt, (struct step[]){{OP_COMPUTE, 0, 100000}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, 6500}}, 3);
	start(&rt, 0);
	wait_for(&rt);
	gmp_stop(&rt);
	ns_per_tick = (double)(monotonic_ns() - rt.s->starttime) / (double)(cputicks() - rt.s->startticks);
	n = moments_of(&rt, moments, COUNT_OF(moments));
	for (uint32_t i = 0; i + 1 < n && count < COUNT_OF(figures); i++)
		if (moments[i].kind == EV_SYSCALL && moments[i + 1].kind == EV_GO_START)
			figures[count++] = (double)(moments[i + 1].ticks - moments[i].ticks) * ns_per_tick / 1000;
	gmp_destroy(&rt);
	return median(figures, count);
}

static double declared(uint32_t procs)
{
	(void)procs;
	return handoff(OP_BLOCKING);
}

static double by_sysmon(uint32_t procs)
{
	(void)procs;
	return handoff(OP_BLOCK);
}

/* --- memory --- */

static double bytes_of(struct gmp *rt)
{
	struct stat stat;

	CHECK_EQ(fstat(rt->segment.fd, &stat), 0);
	return (double)stat.st_blocks * 512;
}

/* Bytes of the segment for each of a million Gs that all wait for one channel at once. */
static double alive(uint32_t procs)
{
	struct gmp rt;
	double before, bytes;

	make(&rt, (struct gmp_config){.procs = procs, .mainends = 1, .maxg = 2 * MANY, .eventslots = eventslots});
	gmp_chan(&rt, 0);
	gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, MANY}, {OP_SLEEP, 0, NS_PER_S / 2}}, 2);
	gmp_program(&rt, (struct step[]){{OP_RECV, 0, 0}}, 1);
	before = bytes_of(&rt);
	start(&rt, 0);
	wait_for(&rt);
	bytes = (bytes_of(&rt) - before) / MANY;
	for (uint32_t g = 2; g <= MANY + 1; g++)
		CHECK(load_relaxed(&rt.allgs[g].atomicstatus) != _Gdead && load_relaxed(&rt.allgs[g].goid) > 1);
	gmp_destroy(&rt);
	return bytes;
}

/* KiB by which the segment grows between a million Gs created and ended, and ten million. */
static double ended(uint32_t procs)
{
	double bytes[2];

	for (int i = 0; i < 2; i++) {
		int64_t count = i ? 10 * MANY : MANY;
		struct tally tally;
		struct gmp rt;

		make(&rt, (struct gmp_config){.procs = procs, .maxg = 2 * MANY, .eventslots = eventslots});
		gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 10}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, count / 10}}, 3);
		gmp_program(&rt, (struct step[]){{OP_EXIT, 0, 0}}, 1);
		start(&rt, 0);
		wait_for(&rt);
		tally = gmp_tally(&rt, 1);
		CHECK_EQ(load_relaxed(&tally.done), count);
		bytes[i] = bytes_of(&rt);
		gmp_destroy(&rt);
	}
	return (bytes[1] - bytes[0]) / 1024;
}

static const struct {
	const char *key, *unit;
	double (*sample)(uint32_t procs);
} others[] = {
	{"mixed", "ms", mixed},
	{"declared", "us, hand-off when the call is declared blocking, p50", declared},
	{"sysmon", "us, hand-off by sysmon, p50", by_sysmon},
	{"alive", "bytes a G, a million alive", alive},
	{"ended", "KiB more after ten million Gs than after one", ended},
};

static double sample_of(const char *key, uint32_t procs)
{
	for (uint32_t i = 0; i < COUNT_OF(shapes); i++)
		if (!strcmp(shapes[i].key, key))
			return cost(&shapes[i], procs);
	for (uint32_t i = 0; i < COUNT_OF(others); i++)
		if (!strcmp(others[i].key, key))
			return others[i].sample(procs);
	fprintf(stderr, "bench_gmp: %s: no such key\n", key);
	exit(2);
}

static double repeated(const char *key, uint32_t procs)
{
	double figures[5];

	for (uint32_t i = 0; i < COUNT_OF(figures); i++)
		figures[i] = sample_of(key, procs);
	return median(figures, COUNT_OF(figures));
}

int main(int argc, char **argv)
{
	uint32_t procs = argc > 2 ? (uint32_t)atoi(argv[2]) : 0;

	if (argc > 1) {
		if (procs < 1 || procs > GMP_MAXPROCS) {
			fprintf(stderr, "usage: bench_gmp [KEY PROCS [EVENTSLOTS]]\n");
			return 2;
		}
		eventslots = argc > 3 ? (uint32_t)atoi(argv[3]) : 0;
		printf("%.3f\n", sample_of(argv[1], procs));
		return 0;
	}
	for (uint32_t i = 0; i < COUNT_OF(shapes); i++)
		printf("%-10s %8.1f %8.1f ns, at one P and at two\n", shapes[i].key, repeated(shapes[i].key, 1),
		       repeated(shapes[i].key, 2));
	for (uint32_t i = 0; i < COUNT_OF(others); i++)
		printf("%-10s %8.1f %s\n", others[i].key, repeated(others[i].key, 2), others[i].unit);
	return 0;
}
