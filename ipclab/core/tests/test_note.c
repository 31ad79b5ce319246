/* Notes: both protocols between threads (ThreadSanitizer sees those) and between processes that get killed. */
#define _GNU_SOURCE
#include "core/note.h"

#include <pthread.h>
#include <sys/mman.h>

#include "test.h"

static void *shared_page(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(page != MAP_FAILED);
	return page;
}

static int the_states_are_as_written(void)
{
	struct note note = {0};

	CHECK_EQ(note_sleep(&note, monotonic_ns() - 1, 10), -ETIMEDOUT);
	CHECK_EQ(note_wakeup(&note), 0); /* nobody slept: no system call */
	CHECK_EQ(note_wakeup(&note), -EALREADY);
	CHECK_EQ(note_sleep(&note, NO_DEADLINE, 0), 0);
	note_clear(&note);
	CHECK_EQ(note_poke(&note), 0);
	note_arm(&note);
	CHECK_EQ(note_sleep(&note, SECONDS(1), 0), -EBUSY); /* one sleeper at a time */
	CHECK_EQ(note_park(&note, monotonic_ns() - 1), -ETIMEDOUT);
	CHECK_EQ(note_poke(&note), 1);
	CHECK_EQ(note_poke(&note), 0);
	CHECK_EQ(note_park(&note, NO_DEADLINE), 0);
	note_disarm(&note);
	return 0;
}

#define ROUNDS 20000

struct ping {
	struct note there, back;
	uint64_t value; /* plain: guarded by the two notes alone, so a missing ordering is a race that TSan reports */
};

static void *answer(void *argument)
{
	struct ping *ping = argument;

	for (int i = 0; i < ROUNDS; i++) {
		CHECK_EQ(note_sleep(&ping->there, SECONDS(60), i % 50), 0);
		note_clear(&ping->there);
		ping->value++;
		CHECK(note_wakeup(&ping->back) >= 0);
	}
	return NULL;
}

static int one_shot_there_and_back(void)
{
	struct ping ping = {0};
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, answer, &ping), 0);
	for (int i = 0; i < ROUNDS; i++) {
		ping.value++;
		CHECK(note_wakeup(&ping.there) >= 0);
		CHECK_EQ(note_sleep(&ping.back, SECONDS(60), i % 70), 0);
		note_clear(&ping.back);
	}
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(ping.value, 2 * ROUNDS);
	return 0;
}

struct condition {
	struct note note;
	_Atomic uint64_t made;
	uint64_t data[ROUNDS]; /* plain: written before `made`, read after it */
};

static void *make(void *argument)
{
	struct condition *condition = argument;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		condition->data[i] = i + 1;
		store_seq_cst(&condition->made, i + 1);
		note_poke(&condition->note);
	}
	return NULL;
}

static void wait_for(struct condition *condition, uint64_t value)
{
	for (;;) {
		note_arm(&condition->note);
		if (load_seq_cst(&condition->made) >= value)
			break;
		CHECK_EQ(note_park(&condition->note, SECONDS(60)), 0); /* -ETIMEDOUT: a wake-up was lost */
	}
	note_disarm(&condition->note);
}

/* The store-load litmus: a lost wake-up leaves the sleeper for its whole minute. */
static int no_wake_up_is_lost(void)
{
	for (int round = 0; round < 5; round++) {
		struct condition *condition = calloc(1, sizeof *condition);
		pthread_t thread;

		CHECK_EQ(pthread_create(&thread, NULL, make, condition), 0);
		for (uint64_t i = 1; i <= ROUNDS; i++) {
			wait_for(condition, i);
			CHECK_EQ(condition->data[i - 1], i);
		}
		CHECK_EQ(pthread_join(thread, NULL), 0);
		free(condition);
	}
	return 0;
}

static void wake_for_ever(void *argument)
{
	struct condition *condition = argument;

	for (uint64_t i = load_seq_cst(&condition->made) + 1;; i++) {
		store_seq_cst(&condition->made, i);
		note_poke(&condition->note);
	}
}

/* The waker is killed anywhere: the sleeper comes back by its deadline, and the note serves the next waker. */
static int a_killed_waker_costs_one_deadline(void)
{
	struct condition *condition = shared_page();
	uint64_t seed = 2;

	for (int i = 0; i < KILLS; i++) {
		pid_t pid = spawn(wake_for_ever, condition);
		int64_t until = monotonic_ns() + random_below(&seed, 500000);
		uint64_t value;

		while (monotonic_ns() < until) {
			value = load_seq_cst(&condition->made) + 1;
			note_arm(&condition->note);
			if (load_seq_cst(&condition->made) < value)
				note_park(&condition->note, until);
			note_disarm(&condition->note);
		}
		kill_9(pid);
		note_arm(&condition->note);
		CHECK_EQ(note_park(&condition->note, monotonic_ns() + 1000), -ETIMEDOUT);
		CHECK_EQ(note_poke(&condition->note), 1);
		note_disarm(&condition->note);
	}
	munmap(condition, 4096);
	return 0;
}

static void sleep_for_ever(void *argument)
{
	for (;;) {
		note_sleep(argument, monotonic_ns() + 20000, 5);
		note_clear(argument);
	}
}

/* The sleeper is killed anywhere: the waker never blocks, and a clear makes the note good for the next sleeper. */
static int a_killed_sleeper_does_not_hold_the_waker(void)
{
	struct note *note = shared_page();
	uint64_t seed = 3;

	for (int i = 0; i < KILLS; i++) {
		pid_t pid = spawn(sleep_for_ever, note);
		int64_t until = monotonic_ns() + random_below(&seed, 400000);

		while (monotonic_ns() < until)
			CHECK(note_wakeup(note) >= -EALREADY);
		kill_9(pid);
		note_clear(note);
		CHECK_EQ(note_wakeup(note), 0);
		CHECK_EQ(note_sleep(note, SECONDS(60), 0), 0);
		note_clear(note);
	}
	munmap(note, 4096);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"the_states_are_as_written", the_states_are_as_written},
		{"one_shot_there_and_back", one_shot_there_and_back},
		{"no_wake_up_is_lost", no_wake_up_is_lost},
		{"a_killed_waker_costs_one_deadline", a_killed_waker_costs_one_deadline},
		{"a_killed_sleeper_does_not_hold_the_waker", a_killed_sleeper_does_not_hold_the_waker},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
