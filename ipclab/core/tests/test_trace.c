/* Pages of the kernel's trace buffer, made by hand: every kind of entry, losses, pages cut off, and random bytes. */
#include "core/trace.h"
#include "test.h"

#define PAGE 4096
#define DATA 16

static const struct trace_layout layout = {
	.page_bytes = PAGE, .commit_at = 8, .data_at = DATA, .common_pid_at = 4,
	.event = {
		[TRACED_SWITCH] = {10, {24, 32, 56}}, [TRACED_WAKEUP] = {11, {24, -1, -1}},
		[TRACED_WAKEUP_NEW] = {12, {24, -1, -1}}, [TRACED_FORK] = {13, {12, 20, -1}},
		[TRACED_EXEC] = {14, {12, -1, -1}}, [TRACED_EXIT] = {15, {24, -1, -1}},
		[TRACED_WAIT] = {16, {12, -1, -1}}, [TRACED_FREE] = {17, {12, -1, -1}},
	},
};

static uint8_t page[PAGE];
static size_t used;

static void begin(uint64_t time)
{
	memset(page, 0, sizeof page);
	memcpy(page, &time, sizeof time);
	used = 0;
}

static void commit(uint64_t flags)
{
	uint64_t word = used | flags;

	memcpy(page + 8, &word, sizeof word);
}

static void put_word(uint32_t word)
{
	memcpy(page + DATA + used, &word, sizeof word);
	used += 4;
}

static void put_event(uint32_t delta, const void *event, uint32_t size)
{
	put_word(delta << 5 | (size <= 112 ? size / 4 : 0));
	if (size > 112)
		put_word(size + 4);
	memcpy(page + DATA + used, event, size);
	used += size;
}

static void put_switch(uint32_t delta, int32_t prev, int64_t state, int32_t next)
{
	uint8_t event[64] = {10};

	memcpy(event + 24, &prev, 4);
	memcpy(event + 32, &state, 8);
	memcpy(event + 56, &next, 4);
	put_event(delta, event, sizeof event);
}

static int a_switch_is_an_off_and_an_on(void)
{
	struct told_queue queue = {0};
	uint64_t lost = 0;

	begin(1000);
	put_switch(5, 100, 1, 200);
	put_switch(7, 200, 0x100, 0);
	commit(0);
	CHECK_EQ(trace_page(&layout, page, PAGE, 1, &queue, &lost), 2);
	CHECK_EQ(queue.count, 3); /* nobody follows the idle task */
	CHECK(queue.told[0].kind == TOLD_OFF && queue.told[0].tid == 100 && queue.told[0].state == 'S');
	CHECK(queue.told[1].kind == TOLD_ON && queue.told[1].tid == 200 && queue.told[1].at_ns == 1005);
	CHECK(queue.told[2].kind == TOLD_OFF && queue.told[2].state == 'R' && queue.told[2].at_ns == 1012);
	CHECK_EQ(lost, 0);
	told_free(&queue);
	return 0;
}

static int times_are_extended(void)
{
	struct told_queue queue = {0};
	uint64_t lost = 0;

	begin(1000);
	put_word(3u << 5 | 30); /* extend */
	put_word(2);
	put_switch(1, 5, 2, 0);
	put_word(9u << 5 | 31); /* absolute */
	put_word(4);
	put_switch(1, 5, 2, 0);
	put_word(1u << 5 | 29); /* something that was taken back */
	put_word(8);
	put_word(0);
	put_switch(1, 5, 2, 0);
	put_word(29); /* the end */
	put_word(0xffffffff);
	commit(0);
	CHECK_EQ(trace_page(&layout, page, PAGE, 0, &queue, &lost), 3);
	CHECK_EQ(queue.told[0].at_ns, 1000 + (2ll << 27) + 3 + 1);
	CHECK_EQ(queue.told[1].at_ns, (4ll << 27) + 9 + 1);
	told_free(&queue);
	return 0;
}

static int losses_are_counted(void)
{
	struct told_queue queue = {0};
	uint64_t lost = 0, missed = 4321;

	begin(1000);
	put_switch(1, 5, 2, 0);
	commit(0xc0000000u);
	memcpy(page + DATA + used, &missed, sizeof missed);
	CHECK_EQ(trace_page(&layout, page, PAGE, 0, &queue, &lost), 1);
	CHECK_EQ(lost, 4321);
	commit(0x80000000u); /* it does not say how many: at least one */
	CHECK_EQ(trace_page(&layout, page, PAGE, 0, &queue, &lost), 1);
	CHECK_EQ(lost, 4322);
	told_free(&queue);
	return 0;
}

static int states(void)
{
	CHECK_EQ(trace_state(0), 'R');
	CHECK_EQ(trace_state(0x100), 'R');
	CHECK_EQ(trace_state(1), 'S');
	CHECK_EQ(trace_state(2), 'D');
	CHECK_EQ(trace_state(4), 'T');
	CHECK_EQ(trace_state(8), 't');
	CHECK_EQ(trace_state(0x10), 'X');
	CHECK_EQ(trace_state(0x20), 'Z');
	CHECK_EQ(trace_state(0x40), 'P');
	CHECK_EQ(trace_state(0x80), 'I');
	return 0;
}

/* In memory of exactly the size that is told, so that a byte too far is seen. */
static int garbage_ends(void)
{
	uint64_t seed = 5, lost = 0;

	for (int round = 0; round < 5000; round++) {
		size_t size = random_below(&seed, 300);
		uint8_t *text = malloc(size + 1);
		struct told_queue queue = {0};

		CHECK(text);
		for (size_t i = 0; i < size; i++)
			text[i] = (uint8_t)random_below(&seed, 256);
		if (size >= DATA && round % 2) {
			uint64_t word = random_below(&seed, (uint32_t)(size - DATA) + 1);

			memcpy(text + 8, &word, sizeof word);
		}
		trace_page(&layout, text, size, 0, &queue, &lost);
		told_free(&queue);
		free(text);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"a_switch_is_an_off_and_an_on", a_switch_is_an_off_and_an_on},
		{"times_are_extended", times_are_extended},
		{"losses_are_counted", losses_are_counted},
		{"states", states},
		{"garbage_ends", garbage_ends},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
