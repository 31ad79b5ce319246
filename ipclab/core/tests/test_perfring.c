/* Records of a perf ring, made by hand: over the ring's edge, too long, and random bytes. */
#include "core/perfring.h"
#include "test.h"

#include <linux/perf_event.h>

#define RING 256

struct id {
	uint32_t pid, tid;
	uint64_t time;
	uint32_t cpu, reserved;
};

static uint8_t bytes[RING];

/* Writes a record so that it begins at `at` (in bytes since for ever). Its length. */
static uint16_t put(uint64_t at, uint32_t type, uint16_t misc, const void *body, size_t size, uint64_t time)
{
	struct perf_event_header header = {.type = type, .misc = misc};
	struct id id = {.pid = 11, .tid = 12, .time = time, .cpu = 3};
	uint8_t record[128];

	header.size = (uint16_t)(sizeof header + size + sizeof id);
	memcpy(record, &header, sizeof header);
	memcpy(record + sizeof header, body, size);
	memcpy(record + sizeof header + size, &id, sizeof id);
	for (size_t i = 0; i < header.size; i++)
		bytes[(at + i) % RING] = record[i];
	return header.size;
}

static struct perf_ring ring_of(uint64_t tail, uint64_t head)
{
	return (struct perf_ring){.data = bytes, .size = RING, .tail = tail, .head = head};
}

static int switches_also_over_the_edge(void)
{
	struct told told;
	uint64_t lost;

	for (uint64_t at = 0; at < RING; at++) {
		uint16_t first = put(at, PERF_RECORD_SWITCH, PERF_RECORD_MISC_SWITCH_OUT, "", 0, 100);
		uint16_t second = put(at + first, PERF_RECORD_SWITCH, PERF_RECORD_MISC_SWITCH_OUT | 1 << 14, "", 0, 200);
		uint16_t third = put(at + first + second, PERF_RECORD_SWITCH, 0, "", 0, 300);
		struct perf_ring ring = ring_of(at, at + first + second + third);

		CHECK_EQ(perf_ring_next(&ring, &told, &lost), 1);
		CHECK(told.kind == TOLD_OFF && told.state == 0 && told.at_ns == 100 && told.tid == 12 && told.cpu == 3);
		CHECK_EQ(perf_ring_next(&ring, &told, &lost), 1);
		CHECK(told.kind == TOLD_OFF && told.state == 'R' && told.at_ns == 200);
		CHECK_EQ(perf_ring_next(&ring, &told, &lost), 1);
		CHECK(told.kind == TOLD_ON && told.at_ns == 300);
		CHECK_EQ(ring.tail, ring.head);
	}
	return 0;
}

static int forks_exits_and_losses(void)
{
	struct { uint32_t pid, ppid, tid, ptid; uint64_t time; } child = {21, 11, 21, 12, 50}, thread = {11, 11, 22, 12, 51};
	uint64_t loss[2] = {9, 1234}, lost = 0;
	struct perf_ring ring;
	struct told told;
	uint16_t size;

	size = put(0, PERF_RECORD_FORK, 0, &child, sizeof child, 99);
	ring = ring_of(0, size);
	CHECK_EQ(perf_ring_next(&ring, &told, &lost), 1);
	CHECK(told.kind == TOLD_FORK && told.tid == 21 && told.other == 11 && told.at_ns == 50 && told.state == 0);
	size = put(0, PERF_RECORD_FORK, 0, &thread, sizeof thread, 99);
	ring = ring_of(0, size);
	CHECK_EQ(perf_ring_next(&ring, &told, &lost), 1);
	CHECK(told.kind == TOLD_FORK && told.tid == 22 && told.pid == 11 && told.state == 't');
	size = put(0, PERF_RECORD_EXIT, 0, &child, sizeof child, 99);
	ring = ring_of(0, size);
	CHECK_EQ(perf_ring_next(&ring, &told, &lost), 1);
	CHECK(told.kind == TOLD_EXIT && told.tid == 21);
	size = put(0, PERF_RECORD_LOST, 0, loss, sizeof loss, 99);
	ring = ring_of(0, size);
	CHECK_EQ(perf_ring_next(&ring, &told, &lost), 2);
	CHECK_EQ(lost, 1234);
	return 0;
}

static int garbage_ends(void)
{
	uint64_t seed = 3, lost;
	struct told told;

	for (int round = 0; round < 20000; round++) {
		struct perf_ring ring = ring_of(random_below(&seed, RING), 0);
		int steps = 0;

		ring.head = ring.tail + random_below(&seed, RING);
		for (int i = 0; i < RING; i++)
			bytes[i] = (uint8_t)random_below(&seed, 256);
		if (round % 2) /* lengths that make sense get further */
			for (int i = 7; i < RING; i += 8)
				bytes[i] = 0;
		while (ring.tail < ring.head) {
			perf_ring_next(&ring, &told, &lost);
			CHECK(steps++ <= RING);
		}
		CHECK_EQ(ring.tail, ring.head);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"switches_also_over_the_edge", switches_also_over_the_edge},
		{"forks_exits_and_losses", forks_exits_and_losses},
		{"garbage_ends", garbage_ends},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
