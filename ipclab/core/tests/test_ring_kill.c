/*
 * The ring when a side is killed -9 at a random instruction: the other side gets everything that was put, whole and in
 * order, then learns of the death; it never hangs. Every wait here has a deadline far beyond what a living ring needs.
 */
#define _GNU_SOURCE
#include "core/message.h"
#include "core/ring.h"
#include "test.h"

#define CAPACITY 3000

static size_t length_of(uint64_t sequence)
{
	uint64_t state = sequence;

	return 1 + random_below(&state, sequence % 16 ? 100 : CAPACITY);
}

static void put_for_ever(void *argument)
{
	unsigned char message[CAPACITY];
	struct ring *ring = argument;
	int rc;

	for (uint64_t i = 0;; i++) {
		size_t size = length_of(i);

		message_fill(message, size);
		message_stamp(message, size, i);
		while ((rc = ring_put(ring, message, size)) == -EAGAIN)
			CHECK_EQ(ring_wait(ring, RING_PRODUCER, size, SECONDS(60)), 0);
		CHECK_EQ(rc, 0);
	}
}

/* Gets until told that nothing more will come; how many, and in *why what was told. */
static uint64_t get_all(struct ring *ring, int64_t kill_at_ns, pid_t *victim, int *why)
{
	const void *got;
	ssize_t size;
	uint64_t count = 0;
	int rc = 0;

	while (rc == 0) {
		if (*victim && monotonic_ns() >= kill_at_ns) {
			kill_9(*victim);
			*victim = 0;
		}
		size = ring_peek(ring, &got);
		if (size >= 0) {
			CHECK_EQ(size, length_of(count));
			CHECK_EQ(message_check(got, (size_t)size, count), 0);
			ring_consume(ring);
			count++;
			continue;
		}
		CHECK(size == -EAGAIN || size == -EPIPE);
		rc = ring_wait(ring, RING_CONSUMER, 0, *victim ? kill_at_ns : SECONDS(60));
		if (rc == -ETIMEDOUT && *victim)
			rc = 0;
	}
	*why = rc;
	return count;
}

static int a_killed_producer(void)
{
	uint64_t seed = 6, total = 0;
	int why;

	for (int i = 0; i < KILLS; i++) {
		struct ring ring;
		pid_t pid;

		CHECK_EQ(ring_create(&ring, NULL, CAPACITY), 0);
		if (i % 3 == 0)
			ring.side[RING_PRODUCER].pace.spin_ns = ring.side[RING_CONSUMER].pace.spin_ns = 0;
		pid = spawn(put_for_ever, &ring);
		total += get_all(&ring, monotonic_ns() + random_below(&seed, 1500000), &pid, &why);
		CHECK_EQ(why, -EOWNERDEAD);
		CHECK_EQ(ring_used_bytes(&ring), 0);
		ring_close(&ring);
	}
	fprintf(stderr, "  %llu messages, %d kills\n", (unsigned long long)total, KILLS);
	return 0;
}

static void get_for_ever(void *argument)
{
	struct ring *ring = argument;
	const void *got;

	for (uint64_t count = 0;; count++) {
		ssize_t size;

		while ((size = ring_peek(ring, &got)) == -EAGAIN)
			CHECK_EQ(ring_wait(ring, RING_CONSUMER, 0, SECONDS(60)), 0);
		CHECK_EQ(size, length_of(count));
		CHECK_EQ(message_check(got, (size_t)size, count), 0);
		ring_consume(ring);
	}
}

/* Puts until told that nobody will get any more. */
static int put_all(struct ring *ring, int64_t kill_at_ns, pid_t *victim)
{
	unsigned char message[CAPACITY];
	int rc = 0;

	for (uint64_t count = 0; rc == 0;) {
		size_t size = length_of(count);

		if (*victim && monotonic_ns() >= kill_at_ns) {
			kill_9(*victim);
			*victim = 0;
		}
		message_fill(message, size);
		message_stamp(message, size, count);
		if (ring_put(ring, message, size) == 0) {
			count++;
			continue;
		}
		rc = ring_wait(ring, RING_PRODUCER, size, *victim ? kill_at_ns : SECONDS(60));
		if (rc == -ETIMEDOUT && *victim)
			rc = 0;
	}
	return rc;
}

static int a_killed_consumer(void)
{
	uint64_t seed = 7;

	for (int i = 0; i < KILLS; i++) {
		struct ring ring;
		pid_t pid;

		CHECK_EQ(ring_create(&ring, NULL, CAPACITY), 0);
		if (i % 3 == 0)
			ring.side[RING_PRODUCER].pace.spin_ns = ring.side[RING_CONSUMER].pace.spin_ns = 0;
		pid = spawn(get_for_ever, &ring);
		CHECK_EQ(put_all(&ring, monotonic_ns() + random_below(&seed, 1500000), &pid), -EOWNERDEAD);
		ring_close(&ring);
	}
	return 0;
}

static void do_nothing(void *unused)
{
	(void)unused;
}

/* It inherited the ring and died before its first call: nobody else is there, so nobody is waited for. */
static int a_peer_that_never_came(void)
{
	for (int i = 0; i < 20; i++) {
		struct ring ring;

		CHECK_EQ(ring_create(&ring, NULL, CAPACITY), 0);
		CHECK_EQ(ending_of(spawn(do_nothing, NULL)), 0);
		CHECK_EQ(ring_wait(&ring, i % 2, CAPACITY + 5000, SECONDS(60)), -EOWNERDEAD);
		ring_close(&ring);
	}
	return 0;
}

struct pair {
	struct ring ring;
	int go[2];
};

static void exit_when_told(void *argument)
{
	struct pair *pair = argument;
	char byte;

	close(pair->go[1]);
	CHECK(read(pair->go[0], &byte, 1) == 0);
}

/* Somebody who holds the ring still lives and could come: the wait goes on, until that one is gone too. */
static int a_peer_that_may_still_come(void)
{
	struct pair pair;
	pid_t pid;

	CHECK_EQ(ring_create(&pair.ring, NULL, CAPACITY), 0);
	CHECK(pipe(pair.go) == 0);
	pid = spawn(exit_when_told, &pair);
	CHECK_EQ(ring_wait(&pair.ring, RING_CONSUMER, 0, monotonic_ns() + 3 * RING_LOOK_NS), -ETIMEDOUT);
	close(pair.go[1]);
	CHECK_EQ(ending_of(pid), 0);
	CHECK_EQ(ring_wait(&pair.ring, RING_CONSUMER, 0, SECONDS(60)), -EOWNERDEAD);
	close(pair.go[0]);
	ring_close(&pair.ring);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"a_killed_producer", a_killed_producer},
		{"a_killed_consumer", a_killed_consumer},
		{"a_peer_that_never_came", a_peer_that_never_came},
		{"a_peer_that_may_still_come", a_peer_that_may_still_come},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
