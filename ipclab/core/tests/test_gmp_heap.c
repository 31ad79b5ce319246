/* test_gmp_heap: blocks: sizes, a full heap, memory that goes back, hands and channels under load. Kills: test_gmp_kill. */
#define _GNU_SOURCE
#include "core/gmp/chan.h"
#include "core/gmp/mheap.h"
#include "gmp.h"

#include <sys/stat.h>

#define HEAP (8u << 20)
#define LARGE_BYTES 100000u

static int64_t blocks_of_disk(struct gmp *rt)
{
	struct stat stat;

	CHECK_EQ(fstat(rt->segment.fd, &stat), 0);
	return stat.st_blocks;
}

static void check_heap(struct gmp *rt)
{
	const char *broken = heapBroken(rt);

	if (broken)
		fprintf(stderr, "%s\n", broken);
	CHECK(!broken);
}

/* Of every size about a boundary: as large as asked for, aligned, and nobody else's. */
static int every_size(void)
{
	enum { MOST = 2000 };
	static uint32_t got[MOST];
	struct gmp rt;
	uint32_t n = 0;
	int error;

	make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 10, .heapbytes = 4 * HEAP});
	for (uint64_t bytes = 0; bytes < 70000; bytes += bytes < 1000 ? 7 : 997) {
		uint32_t b = blockAlloc(&rt, bytes, &error);

		CHECK(b && (uintptr_t)blockData(&rt, b) % 32 == 0);
		CHECK_EQ(blockOf(&rt, b)->bytes, bytes);
		memset(blockData(&rt, b), (int)(n & 0xff), bytes);
		got[n++] = b;
	}
	CHECK(n > 100 && n < MOST);
	for (uint32_t i = 0; i < n; i++) {
		unsigned char *data = blockData(&rt, got[i]);
		uint64_t bytes = blockOf(&rt, got[i])->bytes;

		for (uint64_t at = 0; at < bytes; at++)
			CHECK_EQ(data[at], i & 0xff);
		blockFree(&rt, got[i]);
	}
	check_heap(&rt);
	CHECK_EQ(heapLost(&rt), 0);
	gmp_destroy(&rt);
	return 0;
}

/* A full heap is an error, and room again when something is given back. */
static int a_full_heap(void)
{
	static uint32_t got[HEAP / 64];
	static const uint64_t each[] = {10, 3000, 30000, LARGE_BYTES, HEAP};
	struct gmp rt;
	int error;

	make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 10, .heapbytes = HEAP});
	for (uint32_t i = 0; i < COUNT_OF(each); i++) {
		uint32_t n = 0;

		while ((got[n] = blockAlloc(&rt, each[i], &error)))
			n++;
		CHECK_EQ(error, -ENOSPC);
		CHECK_EQ(n > 0, each[i] < HEAP);
		if (n) {
			blockFree(&rt, got[--n]);
			CHECK((got[n] = blockAlloc(&rt, each[i], &error)));
			n++;
		}
		while (n > 0)
			blockFree(&rt, got[--n]);
		check_heap(&rt);
		gmp_destroy(&rt);
		make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 10, .heapbytes = HEAP});
	}
	gmp_destroy(&rt);
	return 0;
}

/* A large block's memory goes back to the kernel, and its place is used again. */
static int memory_goes_back(void)
{
	struct gmp rt;
	int64_t before;
	uint32_t first = 0;
	int error;

	make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 10, .heapbytes = HEAP});
	before = blocks_of_disk(&rt);
	for (int i = 0; i < 100; i++) {
		uint32_t b = blockAlloc(&rt, LARGE_BYTES, &error);

		CHECK(b && (!first || b == first));
		first = b;
		memset(blockData(&rt, b), 1, LARGE_BYTES);
		CHECK(blocks_of_disk(&rt) > before);
		blockFree(&rt, b);
		CHECK_EQ(blocks_of_disk(&rt), before);
	}
	gmp_destroy(&rt);
	return 0;
}

/* A word whose block has become another's, or nothing, does not touch what is there now. */
static int stale_words(void)
{
	struct gmp rt;
	uint64_t words[4];
	uint32_t b;
	int error;

	make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 10, .heapbytes = HEAP});
	gmp_chan(&rt, 4);
	b = blockAlloc(&rt, LARGE_BYTES, &error);
	memset(blockData(&rt, b), 0, LARGE_BYTES);
	words[0] = wordOfBlock(b + 7);    /* into its middle */
	words[1] = wordOfBlock(b + 1025); /* into its second span */
	words[2] = wordOfBlock(0x7fffffff);
	words[3] = 0xdeadbeef | 1;
	for (uint64_t i = 0; i < COUNT_OF(words); i++)
		store_relaxed(&rt.words[rt.chans[0].buf + i], words[i]);
	store_relaxed(&rt.chans[0].sendx, 4);
	CHECK_EQ(heapRebuild(&rt), 0); /* the caller's: kept */
	for (uint32_t i = 0; i < LARGE_BYTES; i++)
		CHECK_EQ(((char *)blockData(&rt, b))[i], 0);
	blockPublish(&rt, b);
	CHECK_EQ(heapRebuild(&rt), 1); /* published, and named by no word */
	CHECK_EQ(heapRebuild(&rt), 0);
	gmp_destroy(&rt);
	return 0;
}

/* Givers and takers through buffered and unbuffered channels; what is given is taken, whole; then all is on the lists. */
static int blocks_change_hands(void)
{
	static const uint32_t procs[] = {1, 2, 4, 8};
	enum { PAIRS = 8, ROUNDS = 200 };

	for (uint32_t threads = THREADS_ONLY; threads < 2; threads++)
		for (uint32_t i = 0; i < 2 * COUNT_OF(procs); i++) {
			struct gmp rt;
			struct tally taken;

			make(&rt, (struct gmp_config){.procs = procs[i / 2], .threads = threads, .maxg = 100, .randomize = i % 2,
						      .seed = i, .heapbytes = 2 * HEAP});
			gmp_chan(&rt, 0);
			gmp_chan(&rt, 5);
			gmp_chan(&rt, 2);
			gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, PAIRS}, {OP_SPAWN, 2, PAIRS}, {OP_STOPWORLD, 3, 0},
							 {OP_YIELD, 0, 0}, {OP_STOPWORLD, 1, 0}, {OP_LOOP, 2, 20}}, 6);
			gmp_program(&rt, (struct step[]){{OP_GIVE, 0, 24}, {OP_GIVE, 1, 700}, {OP_GIVE, 1, 20000}, {OP_LOOP, 0, ROUNDS},
							 {OP_GIVE, 2, LARGE_BYTES}, {OP_LOOP, 4, 5}}, 6);
			gmp_program(&rt, (struct step[]){{OP_TAKE, 0, 0}, {OP_TAKE, 1, 0}, {OP_TAKE, 1, 0}, {OP_LOOP, 0, ROUNDS},
							 {OP_TAKE, 2, 0}, {OP_LOOP, 4, 5}}, 6);
			start(&rt, 0);
			ends(&rt, FATAL_DONE);
			taken = gmp_tally(&rt, 2);
			CHECK_EQ(taken.done, PAIRS);
			CHECK_EQ(taken.acc, (uint64_t)PAIRS * (ROUNDS * (24 + 700 + 20000) + 5 * LARGE_BYTES));
			CHECK_EQ(heapLost(&rt), 0);
			check_heap(&rt);
			gmp_destroy(&rt);
		}
	return 0;
}

/* Channels and mutexes made and given back by many at a time: the records are used again, and all blocks come back. */
static int channels_come_and_go(void)
{
	enum { CHURNERS = 10, ROUNDS = 50 };

	for (uint32_t threads = THREADS_ONLY; threads < 2; threads++)
		for (uint32_t procs = 1; procs <= 4; procs *= 2) {
			struct gmp rt;

			make(&rt, (struct gmp_config){.procs = procs, .threads = threads, .maxg = 100, .randomize = 1, .seed = procs,
						      .heapbytes = HEAP});
			gmp_program(&rt, (struct step[]){{OP_SPAWN, 1, CHURNERS}}, 1);
			gmp_program(&rt, (struct step[]){{OP_CHURN, 5, 3}, {OP_YIELD, 0, 0}, {OP_CHURN, 0, 2}, {OP_CHURN, 2000, 1},
							 {OP_LOOP, 0, ROUNDS}}, 5);
			start(&rt, 0);
			ends(&rt, FATAL_DONE);
			CHECK(load_relaxed(&rt.s->nchans) > 0 && load_relaxed(&rt.s->nchans) <= CHURNERS);
			CHECK(load_relaxed(&rt.s->nsemas) > 0 && load_relaxed(&rt.s->nsemas) <= CHURNERS);
			CHECK_EQ(heapLost(&rt), 0);
			check_heap(&rt);
			gmp_destroy(&rt);
		}
	return 0;
}

/* More than there may be is an error, and leaves nothing; one that is given back can be had again. */
static int no_more_channels(void)
{
	struct gmp rt;

	make(&rt, (struct gmp_config){.procs = 1, .threads = 1, .maxg = 10, .chans = 3, .semas = 2, .heapbytes = HEAP});
	for (int i = 0; i < 3; i++)
		CHECK_EQ(makechan(&rt, 4), i);
	CHECK_EQ(makechan(&rt, 4), -ENOSPC);
	CHECK_EQ(makechan(&rt, HEAP), -ENOSPC);
	freechan(&rt, 1);
	CHECK_EQ(makechan(&rt, 0), 1);
	CHECK_EQ(makesema(&rt, 1), 0);
	CHECK_EQ(makesema(&rt, 1), 1);
	CHECK_EQ(makesema(&rt, 1), -ENOSPC);
	freesema(&rt, 0);
	CHECK_EQ(makesema(&rt, 7), 0);
	CHECK_EQ(load_relaxed(&rt.semas[0].value), 7);
	for (uint32_t i = 0; i < 3; i++)
		freechan(&rt, i);
	CHECK_EQ(heapRebuild(&rt), 0);
	CHECK_EQ(heapLost(&rt), 0);
	gmp_destroy(&rt);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"every_size", every_size},
		{"a_full_heap", a_full_heap},
		{"memory_goes_back", memory_goes_back},
		{"stale_words", stale_words},
		{"blocks_change_hands", blocks_change_hands},
		{"channels_come_and_go", channels_come_and_go},
		{"no_more_channels", no_more_channels},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
