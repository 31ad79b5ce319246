/* What is told, in order of time: against a plain sort of the same, for random runs. */
#include "core/told.h"
#include "test.h"

static void push(struct told_queue *queue, int64_t at_ns, int mark)
{
	struct told told = {.at_ns = at_ns, .tid = mark};

	told_push(queue, &told);
}

static int runs_are_merged_and_equals_keep_their_order(void)
{
	uint64_t seed = 7;

	for (int round = 0; round < 300; round++) {
		struct told_queue queue = {0};
		int rings = 1 + (int)random_below(&seed, 5), total = 0;

		for (int ring = 0; ring < rings; ring++) {
			int64_t at = 0;

			for (uint32_t n = random_below(&seed, 60); n > 0; n--)
				push(&queue, at += random_below(&seed, 4), total++);
		}
		CHECK_EQ(told_sort(&queue, INT64_MAX), total);
		for (int i = 1; i < total; i++) {
			CHECK(queue.told[i - 1].at_ns <= queue.told[i].at_ns);
			if (queue.told[i - 1].at_ns == queue.told[i].at_ns)
				CHECK(queue.told[i - 1].tid < queue.told[i].tid);
		}
		told_free(&queue);
	}
	return 0;
}

static int what_is_later_waits(void)
{
	struct told_queue queue = {0};

	push(&queue, 10, 1);
	push(&queue, 30, 3);
	push(&queue, 20, 2);
	CHECK_EQ(told_sort(&queue, 20), 2);
	told_drop(&queue, 2);
	CHECK_EQ(queue.count, 1);
	push(&queue, 25, 4);
	CHECK_EQ(told_sort(&queue, 40), 2);
	CHECK_EQ(queue.told[0].tid, 4);
	CHECK_EQ(queue.told[1].tid, 3);
	told_free(&queue);
	CHECK_EQ(told_sort(&queue, 40), 0);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"runs_are_merged_and_equals_keep_their_order", runs_are_merged_and_equals_keep_their_order},
		{"what_is_later_waits", what_is_later_waits},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
