/* Messages of the process events connector, made by hand: in order, with gaps, cut off, and random bytes. */
#include "core/procevent.h"
#include "test.h"

#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>

static uint32_t next[4];
static uint8_t known[4];
static const struct event_sequence sequence = {next, known, 4};

/* One message; its length. */
static size_t put(uint8_t *at, uint32_t seq, uint32_t what, uint32_t cpu, uint64_t time, const uint32_t data[4])
{
	struct nlmsghdr header = {.nlmsg_type = NLMSG_DONE};
	struct cn_msg message = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .seq = seq, .len = 40};
	size_t size = NLMSG_HDRLEN + sizeof message + 40;

	header.nlmsg_len = (uint32_t)size;
	memset(at, 0, size);
	memcpy(at, &header, sizeof header);
	memcpy(at + NLMSG_HDRLEN, &message, sizeof message);
	at += NLMSG_HDRLEN + sizeof message;
	memcpy(at, &what, 4);
	memcpy(at + 4, &cpu, 4);
	memcpy(at + 8, &time, 8);
	memcpy(at + 16, data, 16);
	return size;
}

static int forks_and_exits(void)
{
	_Alignas(8) uint8_t bytes[512];
	const uint32_t fork_of[4] = {12, 11, 21, 21}, thread_of[4] = {12, 11, 22, 11}, exit_of[4] = {21, 21, 256, 17};
	struct told_queue queue = {0};
	uint64_t lost = 0;
	size_t size = 0;

	memset(known, 0, sizeof known);
	size += put(bytes, 7, 1, 0, 1000, fork_of);
	size += put(bytes + size, 8, 1, 0, 1001, thread_of);
	size += put(bytes + size, 9, 0x80000000u, 0, 1002, exit_of);
	CHECK_EQ(procevents_decode(bytes, size, &sequence, &queue, &lost), 3);
	CHECK_EQ(queue.count, 3);
	CHECK(queue.told[0].kind == TOLD_FORK && queue.told[0].tid == 21 && queue.told[0].other == 11);
	CHECK(queue.told[0].state == 0 && queue.told[0].at_ns == 1000);
	CHECK(queue.told[1].state == 't' && queue.told[1].pid == 11 && queue.told[1].tid == 22);
	CHECK(queue.told[2].kind == TOLD_EXIT && queue.told[2].value == 256);
	CHECK_EQ(lost, 0);
	told_free(&queue);
	return 0;
}

static int gaps_are_lost_messages_of_their_cpu(void)
{
	_Alignas(8) uint8_t bytes[128];
	const uint32_t data[4] = {0};
	struct told_queue queue = {0};
	uint64_t lost = 0;

	memset(known, 0, sizeof known);
	CHECK_EQ(procevents_decode(bytes, put(bytes, 0xfffffffe, 1, 1, 1, data), &sequence, &queue, &lost), 1);
	CHECK_EQ(procevents_decode(bytes, put(bytes, 70, 1, 2, 1, data), &sequence, &queue, &lost), 1);
	CHECK_EQ(lost, 0);
	CHECK_EQ(procevents_decode(bytes, put(bytes, 3, 1, 1, 1, data), &sequence, &queue, &lost), 1);
	CHECK_EQ(lost, 4); /* over the end of the numbers: ...ff, 0, 1, 2 */
	CHECK_EQ(procevents_decode(bytes, put(bytes, 71, 1, 2, 1, data), &sequence, &queue, &lost), 1);
	CHECK_EQ(lost, 4);
	told_free(&queue);
	return 0;
}

/* When another listener comes, everybody gets the answer to it. */
static int answers_have_a_place_in_the_sequence(void)
{
	_Alignas(8) uint8_t bytes[256];
	const uint32_t data[4] = {0};
	struct told_queue queue = {0};
	uint64_t lost = 0;
	size_t size;

	memset(known, 0, sizeof known);
	size = put(bytes, 5, 1, 1, 1, data);
	size += put(bytes + size, 6, 0, 1, 1, data);
	size += put(bytes + size, 999, 0, 0xffffffffu, 1, data); /* an older kernel's */
	procevents_decode(bytes, size, &sequence, &queue, &lost);
	procevents_decode(bytes, put(bytes, 7, 1, 1, 1, data), &sequence, &queue, &lost);
	CHECK_EQ(queue.count, 2);
	CHECK_EQ(lost, 0);
	told_free(&queue);
	return 0;
}

static int garbage_ends(void)
{
	const uint32_t data[4] = {1, 2, 3, 4};
	struct told_queue queue = {0};
	uint64_t seed = 9, lost = 0;

	for (int round = 0; round < 5000; round++) {
		size_t size = random_below(&seed, 200);
		uint8_t *bytes = aligned_alloc(8, 256);

		CHECK(bytes);
		put(bytes, 1, 1, 0, 1, data);
		for (uint32_t n = random_below(&seed, 12); n > 0; n--)
			bytes[random_below(&seed, 100)] = (uint8_t)random_below(&seed, 256);
		procevents_decode(bytes, size < 96 ? size : 96, &sequence, &queue, &lost);
		free(bytes);
	}
	told_free(&queue);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"forks_and_exits", forks_and_exits},
		{"gaps_are_lost_messages_of_their_cpu", gaps_are_lost_messages_of_their_cpu},
		{"answers_have_a_place_in_the_sequence", answers_have_a_place_in_the_sequence},
		{"garbage_ends", garbage_ends},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
