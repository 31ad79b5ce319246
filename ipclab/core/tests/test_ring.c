/* The ring between threads of one process (each with a handle of its own), so that ThreadSanitizer sees both sides. */
#define _GNU_SOURCE
#include "core/ring.h"

#include <pthread.h>
#include <sched.h>

#include "core/message.h"
#include "core/ring_internal.h"
#include "test.h"

/* Puts and gets through one handle, as one process that is both ends. */
static void pass_through(struct ring *ring, const void *message, size_t size)
{
	const void *got;

	CHECK_EQ(ring_put(ring, message, size), 0);
	CHECK_EQ(ring_peek(ring, &got), size);
	CHECK(memcmp(got, message, size) == 0);
	ring_consume(ring);
}

static int every_length_wraps(void)
{
	static const size_t capacities[] = {1, 7, 8, 9, 100, 4087, 4088, 4089, 5000, 65536};
	unsigned char message[65536];
	struct ring ring;

	message_fill(message, sizeof message);
	for (size_t c = 0; c < sizeof capacities / sizeof *capacities; c++) {
		size_t step = capacities[c] > 5000 ? 977 : 1;

		CHECK_EQ(ring_create(&ring, NULL, capacities[c]), 0);
		for (size_t size = 0; size <= capacities[c]; size += step) {
			pass_through(&ring, message, size);
			pass_through(&ring, message, capacities[c] - size);
		}
		CHECK_EQ(ring_used_bytes(&ring), 0);
		ring_close(&ring);
	}
	return 0;
}

static int full_empty_and_too_large(void)
{
	const void *got;
	struct ring ring;
	int count = 0;

	CHECK_EQ(ring_create(&ring, NULL, 0), -EINVAL);
	CHECK_EQ(ring_create(&ring, NULL, 1000), 0);
	CHECK_EQ(ring_peek(&ring, &got), -EAGAIN);
	CHECK_EQ(ring_put(&ring, "", 1001), -EMSGSIZE);
	while (ring_put(&ring, &count, sizeof count) == 0)
		count++;
	CHECK_EQ(ring_put(&ring, &count, sizeof count), -EAGAIN);
	CHECK_EQ(ring_wait(&ring, RING_PRODUCER, sizeof count, monotonic_ns() + 1000), -ETIMEDOUT);
	for (int i = 0; i < count; i++) {
		CHECK_EQ(ring_peek(&ring, &got), sizeof count);
		CHECK(memcmp(got, &i, sizeof i) == 0);
		ring_consume(&ring);
	}
	CHECK_EQ(ring_wait(&ring, RING_CONSUMER, 0, monotonic_ns() + 1000), -ETIMEDOUT);
	ring_close(&ring);
	return 0;
}

static int what_was_put_is_got_after_the_close(void)
{
	struct ring producer, consumer;
	const void *got;

	CHECK_EQ(ring_create(&producer, NULL, 100), 0);
	CHECK_EQ(ring_attach(&consumer, producer.segment.fd), 0);
	CHECK_EQ(ring_put(&producer, "abc", 3), 0);
	ring_close(&producer);
	CHECK_EQ(ring_wait(&consumer, RING_CONSUMER, 0, NO_DEADLINE), 0);
	CHECK_EQ(ring_peek(&consumer, &got), 3);
	ring_consume(&consumer);
	CHECK_EQ(ring_peek(&consumer, &got), -EPIPE);
	CHECK_EQ(ring_wait(&consumer, RING_CONSUMER, 0, NO_DEADLINE), -EPIPE);
	ring_close(&consumer);
	return 0;
}

static int a_producer_learns_of_the_close(void)
{
	struct ring producer, consumer;

	CHECK_EQ(ring_create(&producer, NULL, 100), 0);
	CHECK_EQ(ring_attach(&consumer, producer.segment.fd), 0);
	CHECK_EQ(ring_claim(&consumer, RING_CONSUMER), 0);
	CHECK_EQ(ring_put(&producer, "abc", 3), 0);
	ring_close(&consumer);
	CHECK_EQ(ring_put(&producer, "abc", 3), -EPIPE);
	ring_close(&producer);
	return 0;
}

static int spoilt_lengths_are_refused(void)
{
	struct ring ring;
	const void *got;
	uint64_t bad[] = {101, 5000, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};

	CHECK_EQ(ring_create(&ring, NULL, 100), 0);
	CHECK_EQ(ring_put(&ring, "abc", 3), 0);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		memcpy(ring.data, &bad[i], 8);
		CHECK_EQ(ring_peek(&ring, &got), -EBADMSG);
	}
	ring_close(&ring);
	return 0;
}

static void claim_both(void *argument)
{
	CHECK_EQ(ring_claim(argument, RING_PRODUCER), -EBUSY); /* the parent's */
	CHECK_EQ(ring_claim(argument, RING_CONSUMER), 0);
}

static int one_producer_and_one_consumer(void)
{
	struct ring ring;
	const void *got;

	CHECK_EQ(ring_create(&ring, NULL, 100), 0);
	CHECK_EQ(ring_put(&ring, "x", 1), 0);
	CHECK_EQ(ending_of(spawn(claim_both, &ring)), 0);
	CHECK_EQ(ring_peek(&ring, &got), -EBUSY);
	ring_close(&ring);
	return 0;
}

#define MESSAGES 200000

struct stream {
	int fd;
	size_t capacity;
	uint64_t seed;
};

static size_t length_of(uint64_t sequence, size_t capacity)
{
	uint64_t state = sequence;

	return sequence % 100 == 0 ? capacity : random_below(&state, (uint32_t)(capacity < 200 ? capacity : 200)) + 1;
}

static void *produce(void *argument)
{
	struct stream *stream = argument;
	unsigned char *message = malloc(stream->capacity);
	struct ring ring;
	int rc;

	CHECK_EQ(ring_attach(&ring, stream->fd), 0);
	for (uint64_t i = 0; i < MESSAGES; i++) {
		size_t size = length_of(i, stream->capacity);

		message_fill(message, size);
		message_stamp(message, size, i);
		while ((rc = ring_put(&ring, message, size)) == -EAGAIN)
			CHECK_EQ(ring_wait(&ring, RING_PRODUCER, size, SECONDS(60)), 0);
		CHECK_EQ(rc, 0);
	}
	ring_close(&ring);
	free(message);
	return NULL;
}

static void consume_all(struct ring *ring, size_t capacity)
{
	const void *got;
	ssize_t size;

	for (uint64_t i = 0; i < MESSAGES; i++) {
		while ((size = ring_peek(ring, &got)) == -EAGAIN)
			CHECK_EQ(ring_wait(ring, RING_CONSUMER, 0, SECONDS(60)), 0);
		CHECK_EQ(size, length_of(i, capacity));
		CHECK_EQ(message_check(got, (size_t)size, i), 0);
		ring_consume(ring);
	}
}

/* Without spinning every wait goes to sleep: the wake-up protocol is what is tested. */
static int stream_through(size_t capacity, int spin)
{
	struct ring ring;
	struct stream stream = {.capacity = capacity};
	pthread_t thread;

	CHECK_EQ(ring_create(&ring, NULL, capacity), 0);
	if (!spin)
		ring.side[RING_CONSUMER].pace.spin_ns = 0;
	stream.fd = ring.segment.fd;
	CHECK_EQ(pthread_create(&thread, NULL, produce, &stream), 0);
	consume_all(&ring, capacity);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(ring_wait(&ring, RING_CONSUMER, 0, SECONDS(60)), -EPIPE);
	ring_close(&ring);
	return 0;
}

static int a_stream_arrives_whole_and_in_order(void)
{
	return stream_through(64, 1) || stream_through(1000, 1) || stream_through(100000, 1);
}

static int a_stream_of_sleepers_too(void)
{
	return stream_through(64, 0) || stream_through(5000, 0);
}

static void *wait_for_ever(void *argument)
{
	CHECK_EQ(ring_wait(argument, RING_CONSUMER, 0, NO_DEADLINE), -ECANCELED);
	return NULL;
}

static int a_cancel_ends_a_wait(void)
{
	for (int i = 0; i < 200; i++) {
		struct ring ring;
		pthread_t thread;

		CHECK_EQ(ring_create(&ring, NULL, 100), 0);
		CHECK_EQ(ring_claim(&ring, RING_CONSUMER), 0);
		CHECK_EQ(pthread_create(&thread, NULL, wait_for_ever, &ring), 0);
		pass_ns(i * 1000);
		ring_cancel(&ring);
		CHECK_EQ(pthread_join(thread, NULL), 0);
		ring_close(&ring);
	}
	return 0;
}

static void move(struct ring *ring, int count)
{
	for (int i = 0; i < count; i++)
		pass_through(ring, "x", 1);
}

/* Whoever finds several messages each time it has to wait gives the other side time; whoever finds one does not. */
static int who_is_ahead_lingers(void)
{
	struct ring ring;
	const void *got;

	CHECK_EQ(ring_create(&ring, NULL, 1000), 0);
	for (int i = 0; i < 1000 && !ring.side[RING_CONSUMER].pace.lingers; i++) {
		move(&ring, 2);
		CHECK_EQ(ring_spin(&ring, RING_CONSUMER, 0, 1000), -EAGAIN);
	}
	CHECK_EQ(ring.side[RING_CONSUMER].pace.lingers, 1);
	move(&ring, 2);
	CHECK_EQ(ring_spin(&ring, RING_CONSUMER, 0, 1000), -EAGAIN);
	CHECK_EQ(ring.side[RING_CONSUMER].pace.lingers, 1);
	move(&ring, 1);
	CHECK_EQ(ring_spin(&ring, RING_CONSUMER, 0, 1000), -EAGAIN);
	CHECK_EQ(ring.side[RING_CONSUMER].pace.lingers, 0);
	CHECK_EQ(ring_put(&ring, "x", 1), 0); /* lingering or not: what is there is found */
	ring.side[RING_CONSUMER].pace.lingers = 1;
	CHECK_EQ(ring_spin(&ring, RING_CONSUMER, 0, 1000), 0);
	CHECK_EQ(ring_peek(&ring, &got), 1);
	ring_close(&ring);
	return 0;
}

static int whoever_is_confined_says_so(void)
{
	_Atomic uint32_t *producer, *consumer;
	cpu_set_t before, one;
	struct ring ring;
	int cpu = 0;

	CHECK_EQ(sched_getaffinity(0, sizeof before, &before), 0);
	while (!CPU_ISSET(cpu, &before))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	CHECK_EQ(ring_create(&ring, NULL, 1000), 0);
	producer = &ring.shared->side[RING_PRODUCER].confined, consumer = &ring.shared->side[RING_CONSUMER].confined;
	CHECK_EQ(ring_claim(&ring, RING_PRODUCER), 0);
	CHECK_EQ(load_acquire(producer), CPU_COUNT(&before) == 1 ? cpu + 1 : 0);
	CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
	CHECK_EQ(ring_claim(&ring, RING_CONSUMER), 0);
	CHECK_EQ(load_acquire(consumer), cpu + 1);
	CHECK_EQ(sched_setaffinity(0, sizeof before, &before), 0);
	CHECK_EQ(ring_wait(&ring, RING_CONSUMER, 0, monotonic_ns() + 1000), -ETIMEDOUT); /* a sleep looks it up again */
	CHECK_EQ(load_acquire(consumer), CPU_COUNT(&before) == 1 ? cpu + 1 : 0);
	ring_close(&ring);
	return 0;
}

/* So that a wait that slept is told from one that spun: pace as it is after many waits in vain. */
static struct ring_pace worn_down(void)
{
	struct ring_pace pace;

	ring_pace(&pace);
	for (int i = 0; i < 20; i++)
		ring_spun_in_vain(&pace);
	return pace;
}

static int spinning_in_vain_halves_and_what_paid_doubles(void)
{
	struct ring_pace pace;

	ring_pace(&pace);
	CHECK_EQ(pace.spin_ns, SPIN_MAX_NS);
	ring_spun_in_vain(&pace);
	CHECK_EQ(pace.spin_ns, SPIN_MAX_NS / 2);
	pace = worn_down();
	CHECK_EQ(pace.spin_ns, SPIN_MIN_NS);
	ring_spinning_paid(&pace);
	CHECK_EQ(pace.spin_ns, 2 * SPIN_MIN_NS);
	for (int i = 0; i < 20; i++)
		ring_spinning_paid(&pace);
	CHECK_EQ(pace.spin_ns, SPIN_MAX_NS);
	pace.spin_ns = 0; /* told not to */
	ring_spinning_paid(&pace);
	ring_spun_in_vain(&pace);
	ring_has_slept(&pace, 0);
	CHECK_EQ(pace.spin_ns, 0);
	return 0;
}

/*
 * Two sides that sleep wait for each other's wake-up: short sleeps make them try to spin again. How long a sleep was is
 * given here: how long one really takes is the machine's affair, and on a slow one none may be short for minutes.
 */
static int short_sleeps_make_it_spin_again(void)
{
	struct ring_pace pace = worn_down();

	for (uint32_t after = RETRY_FIRST; after <= 2 * RETRY_LAST; after *= 2) { /* in vain: twice as many the next time */
		for (uint32_t i = 1; i < (after < RETRY_LAST ? after : RETRY_LAST); i++) {
			ring_has_slept(&pace, SHORT_SLEEP_NS - 1);
			ring_has_slept(&pace, SHORT_SLEEP_NS); /* a long one does not count */
		}
		CHECK_EQ(pace.spin_ns, SPIN_MIN_NS);
		ring_has_slept(&pace, 0);
		CHECK_EQ(pace.spin_ns, SPIN_MAX_NS);
		while (pace.spin_ns > SPIN_MIN_NS)
			ring_spun_in_vain(&pace);
	}
	ring_spinning_paid(&pace); /* not in vain: from the beginning */
	CHECK_EQ(pace.retry_after, RETRY_FIRST);
	CHECK_EQ(pace.short_sleeps, 0);
	return 0;
}

static void *put_when_it_sleeps(void *argument)
{
	struct ring *ring = argument;

	while (load_seq_cst(&ring->shared->side[RING_CONSUMER].note.word) != NOTE_SLEEP)
		sched_yield();
	CHECK_EQ(ring_put(ring, "x", 1), 0);
	return NULL;
}

/* ring_wait tells the pace what became of each wait. */
static int a_wait_tells_what_became_of_it(void)
{
	struct ring_pace *pace;
	pthread_t thread;
	struct ring ring;

	CHECK_EQ(ring_create(&ring, NULL, 64), 0);
	pace = &ring.side[RING_CONSUMER].pace;
	pace->retry_after = UINT32_MAX; /* a short sleep or a long one: whichever this is, the full time is not tried again */
	CHECK_EQ(pthread_create(&thread, NULL, put_when_it_sleeps, &ring), 0);
	CHECK_EQ(ring_wait(&ring, RING_CONSUMER, 0, SECONDS(60)), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(ring.side[RING_CONSUMER].sleep_count, 1);
	CHECK_EQ(pace->spin_ns, SPIN_MAX_NS / 2);
	CHECK_EQ(ring_wait(&ring, RING_CONSUMER, 0, SECONDS(60)), 0); /* it is there */
	CHECK_EQ(ring.side[RING_CONSUMER].sleep_count, 1);
	CHECK_EQ(pace->spin_ns, SPIN_MAX_NS);
	ring_close(&ring);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"every_length_wraps", every_length_wraps},
		{"full_empty_and_too_large", full_empty_and_too_large},
		{"what_was_put_is_got_after_the_close", what_was_put_is_got_after_the_close},
		{"a_producer_learns_of_the_close", a_producer_learns_of_the_close},
		{"spoilt_lengths_are_refused", spoilt_lengths_are_refused},
		{"one_producer_and_one_consumer", one_producer_and_one_consumer},
		{"a_stream_arrives_whole_and_in_order", a_stream_arrives_whole_and_in_order},
		{"a_stream_of_sleepers_too", a_stream_of_sleepers_too},
		{"a_cancel_ends_a_wait", a_cancel_ends_a_wait},
		{"who_is_ahead_lingers", who_is_ahead_lingers},
		{"whoever_is_confined_says_so", whoever_is_confined_says_so},
		{"spinning_in_vain_halves_and_what_paid_doubles", spinning_in_vain_halves_and_what_paid_doubles},
		{"short_sleeps_make_it_spin_again", short_sleeps_make_it_spin_again},
		{"a_wait_tells_what_became_of_it", a_wait_tells_what_became_of_it},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
