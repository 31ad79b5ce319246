/* The process barrier: rounds, orders of arrival, withdrawal by deadline, breaking, and parties that are killed. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>

#include "core/sync.h"
#include "test.h"

#define PARTIES 4
#define MEETINGS 3000

struct meeting {
	struct pbarrier barrier;
	_Atomic uint32_t arrivals; /* in all rounds */
	uint64_t last;             /* plain: written by the last to arrive, read by all after the next meeting */
};

static void *meet(void *argument)
{
	struct meeting *meeting = argument;

	for (uint32_t round = 1; round <= MEETINGS; round++) {
		add_seq_cst(&meeting->arrivals, 1);
		int order = pbarrier_wait(&meeting->barrier, SECONDS(60));

		CHECK(order >= 0 && order < PARTIES);
		CHECK(load_seq_cst(&meeting->arrivals) >= round * PARTIES); /* nobody passes before all have come */
		if (order == PARTIES - 1)
			meeting->last = round;
		CHECK(pbarrier_wait(&meeting->barrier, SECONDS(60)) >= 0);
		CHECK_EQ(meeting->last, round);
		CHECK(pbarrier_wait(&meeting->barrier, SECONDS(60)) >= 0);
	}
	return NULL;
}

static int everybody_waits_for_the_last(void)
{
	struct meeting meeting = {0};
	pthread_t threads[PARTIES];

	CHECK_EQ(pbarrier_init(&meeting.barrier, PARTIES), 0);
	for (int i = 0; i < PARTIES; i++)
		CHECK_EQ(pthread_create(&threads[i], NULL, meet, &meeting), 0);
	for (int i = 0; i < PARTIES; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
	CHECK_EQ(load_seq_cst(&meeting.arrivals), PARTIES * MEETINGS);
	return 0;
}

static int the_edges(void)
{
	struct pbarrier barrier;

	CHECK_EQ(pbarrier_init(&barrier, 0), -EINVAL);
	CHECK_EQ(pbarrier_init(&barrier, 65536), -EINVAL);
	CHECK_EQ(pbarrier_init(&barrier, 1), 0);
	for (int i = 0; i < 40000; i++) /* the round counter wraps */
		CHECK_EQ(pbarrier_wait(&barrier, 0), 0);
	CHECK_EQ(pbarrier_init(&barrier, 2), 0);
	CHECK_EQ(pbarrier_wait(&barrier, monotonic_ns() - 1), -ETIMEDOUT);
	CHECK_EQ(load_seq_cst(&barrier.word) & 0xffff, 0); /* withdrawn */
	pbarrier_break(&barrier);
	CHECK_EQ(pbarrier_wait(&barrier, NO_DEADLINE), -EPIPE);
	return 0;
}

static void wait_once(void *argument)
{
	CHECK(pbarrier_wait(argument, NO_DEADLINE) == -EPIPE);
}

static int breaking_frees_the_sleepers(void)
{
	struct pbarrier *barrier = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[3];

	CHECK(barrier != MAP_FAILED);
	CHECK_EQ(pbarrier_init(barrier, 5), 0);
	for (int i = 0; i < 3; i++)
		pid[i] = spawn(wait_once, barrier);
	while ((load_seq_cst(&barrier->word) & 0xffff) < 3)
		cpu_relax();
	kill_9(pid[0]); /* one will never come: whoever watched it breaks the barrier */
	pbarrier_break(barrier);
	CHECK_EQ(ending_of(pid[1]), 0);
	CHECK_EQ(ending_of(pid[2]), 0);
	munmap(barrier, 4096);
	return 0;
}

static void meet_for_ever(void *argument)
{
	while (pbarrier_wait(argument, SECONDS(60)) >= 0)
		;
}

/* A party is killed anywhere: the other one is never stuck past its deadline, and the word is always a valid state. */
static int a_killed_party_tears_nothing(void)
{
	struct pbarrier *barrier = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t seed = 5;

	CHECK(barrier != MAP_FAILED);
	for (int i = 0; i < KILLS; i++) {
		int64_t until = monotonic_ns() + random_below(&seed, 400000);
		pid_t pid;

		CHECK_EQ(pbarrier_init(barrier, 2), 0);
		pid = spawn(meet_for_ever, barrier);
		while (monotonic_ns() < until) {
			int rc = pbarrier_wait(barrier, until);

			CHECK(rc == 0 || rc == 1 || rc == -ETIMEDOUT);
		}
		kill_9(pid);
		CHECK((load_seq_cst(&barrier->word) & 0xffff) <= 1);
	}
	munmap(barrier, 4096);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"the_edges", the_edges},
		{"everybody_waits_for_the_last", everybody_waits_for_the_last},
		{"breaking_frees_the_sleepers", breaking_frees_the_sleepers},
		{"a_killed_party_tears_nothing", a_killed_party_tears_nothing},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
