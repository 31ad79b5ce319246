/*
 * bench_gmp: what the scheduler's operations cost, in ns, with Ms as processes; not a test.
 *
 *   bench_gmp [EVENTSLOTS [REPEATS]]      one line per operation: name, at one P, at two Ps (medians)
 *
 * gmp_bench.go beside it does the same in Go, in the same form; compare them in one sitting.
 */
#define _GNU_SOURCE
#include "gmp.h"

#define N 200000

static uint32_t eventslots;

/* The shapes of the Go program: main drives, a second G answers where one is needed. */
struct shape {
	const char *name;
	struct step main_steps[8], other_steps[8];
	uint32_t main_count, other_count, capacity, operations;
};

static const struct shape shapes[] = {
	{"create + exit", {{OP_SPAWN, 1, 1}, {OP_YIELD, 0, 0}, {OP_LOOP, 0, N}}, {{OP_EXIT, 0, 0}}, 3, 1, 0, N},
	{"yield between two", {{OP_SPAWN, 1, 1}, {OP_YIELD, 0, 0}, {OP_LOOP, 1, N}}, {{OP_YIELD, 0, 0}, {OP_LOOP, 0, N}},
	 3, 2, 0, 2 * N},
	{"channel there and back", {{OP_SPAWN, 1, 1}, {OP_SEND, 0, 1}, {OP_RECV, 1, 0}, {OP_LOOP, 1, N}},
	 {{OP_RECV, 0, 0}, {OP_SEND, 1, 1}, {OP_LOOP, 0, N}}, 4, 3, 0, N},
	{"buffered stream", {{OP_SPAWN, 1, 1}, {OP_RECV, 0, 0}, {OP_LOOP, 1, N}}, {{OP_SEND, 0, 1}, {OP_LOOP, 0, N}},
	 3, 2, 128, N},
	{"select there and back",
	 {{OP_SPAWN, 1, 1}, {OP_SEND, 0, 1}, {OP_SELECT, 2, 0}, {OP_RECV, 1, 0}, {OP_RECV, 2, 0}, {OP_LOOP, 1, N}},
	 {{OP_SELECT, 2, 0}, {OP_RECV, 0, 0}, {OP_RECV, 2, 0}, {OP_SEND, 1, 1}, {OP_LOOP, 0, N}}, 6, 5, 0, N},
	{"mutex pair", {{OP_LOCK, 0, 0}, {OP_UNLOCK, 0, 0}, {OP_LOOP, 0, N}}, {{OP_EXIT, 0, 0}}, 3, 1, 0, N},
	{"locked there and back", {{OP_LOCKM, 0, 0}, {OP_SPAWN, 1, 1}, {OP_SEND, 0, 1}, {OP_RECV, 1, 0}, {OP_LOOP, 2, 20000}},
	 {{OP_RECV, 0, 0}, {OP_SEND, 1, 1}, {OP_LOOP, 0, 20000}}, 5, 3, 0, 20000},
};

/* From the first event of the run to its end would need events; the wall clock has the start of two processes in it. */
static double run(const struct shape *shape, uint32_t procs, uint32_t factor)
{
	struct gmp rt;
	struct step main_steps[8];
	int64_t from;
	double ns;

	make(&rt, (struct gmp_config){.procs = procs, .mainends = 1, .maxg = 1u << 20, .eventslots = eventslots});
	for (int i = 0; i < 3; i++)
		gmp_chan(&rt, i == 2 ? 0 : shape->capacity);
	gmp_sema(&rt, 0);
	for (uint32_t i = 0; i < 8; i++) {
		main_steps[i] = shape->main_steps[i];
		if (main_steps[i].op == OP_LOOP)
			main_steps[i].b *= factor;
	}
	gmp_program(&rt, main_steps, shape->main_count);
	for (uint32_t i = 0; i < 8; i++) {
		main_steps[i] = shape->other_steps[i];
		if (main_steps[i].op == OP_LOOP)
			main_steps[i].b *= factor;
	}
	gmp_program(&rt, main_steps, shape->other_count);
	from = monotonic_ns();
	start(&rt, 0);
	if (gmp_wait(&rt, SECONDS(LIMIT_S)) != FATAL_DONE)
		says(&rt);
	ns = (double)(monotonic_ns() - from);
	gmp_destroy(&rt);
	return ns;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* The cost of starting and ending cancels: the difference between a run of three times the length and one. */
static double cost(const struct shape *shape, uint32_t procs, int repeats)
{
	double figures[32];

	for (int i = 0; i < repeats; i++)
		figures[i] = (run(shape, procs, 3) - run(shape, procs, 1)) / (2.0 * shape->operations);
	qsort(figures, (size_t)repeats, sizeof *figures, by_value);
	return figures[repeats / 2];
}

/* 50 Gs that block 100 ms in the kernel and 100 that compute 10 ms, on two Ps: 0.5 s of CPU time each. In s. */
static double mixed(void)
{
	struct gmp rt;
	double ns;
	int64_t from;

	make(&rt, (struct gmp_config){.procs = 2, .maxg = 1000, .eventslots = eventslots});
	gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, 50}, {OP_SPAWN, 2, 100}}, 2);
	gmp_program(&rt, (struct step[]){{OP_BLOCK, 0, 100000000}}, 1);
	gmp_program(&rt, (struct step[]){{OP_COMPUTE, 0, 10000000}}, 1);
	from = monotonic_ns();
	start(&rt, 0);
	if (gmp_wait(&rt, SECONDS(LIMIT_S)) != FATAL_DONE)
		says(&rt);
	ns = (double)(monotonic_ns() - from);
	gmp_destroy(&rt);
	return ns / 1e9;
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

	for (uint32_t m = 1; m <= (uint32_t)load_relaxed(&rt->s->mnext); m++) {
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
	if (gmp_wait(&rt, SECONDS(LIMIT_S)) != FATAL_DONE)
		says(&rt);
	gmp_stop(&rt);
	ns_per_tick = (double)(monotonic_ns() - rt.s->starttime) / (double)(cputicks() - rt.s->startticks);
	n = moments_of(&rt, moments, COUNT_OF(moments));
	for (uint32_t i = 0; i + 1 < n && count < COUNT_OF(figures); i++)
		if (moments[i].kind == EV_SYSCALL && moments[i + 1].kind == EV_GO_START)
			figures[count++] = (double)(moments[i + 1].ticks - moments[i].ticks) * ns_per_tick / 1000;
	gmp_destroy(&rt);
	qsort(figures, count, sizeof *figures, by_value);
	return count ? figures[count / 2] : -1;
}

int main(int argc, char **argv)
{
	int repeats = argc > 2 ? atoi(argv[2]) : 5;
	double loads[32];

	eventslots = argc > 1 ? (uint32_t)atoi(argv[1]) : 0;
	CHECK(repeats > 0 && repeats <= 32);
	for (uint32_t i = 0; i < COUNT_OF(shapes); i++)
		printf("%-24s %8.0f %8.0f\n", shapes[i].name, cost(&shapes[i], 1, repeats), cost(&shapes[i], 2, repeats));
	for (int i = 0; i < repeats; i++)
		loads[i] = mixed();
	qsort(loads, (size_t)repeats, sizeof *loads, by_value);
	printf("%-24s %8s %8.2f s\n", "mixed load", "", loads[repeats / 2]);
	printf("%-24s %8.0f us (declared blocking, p50)\n", "hand-off", handoff(OP_BLOCKING));
	printf("%-24s %8.0f us (by sysmon, p50)\n", "hand-off", handoff(OP_BLOCK));
	return 0;
}
