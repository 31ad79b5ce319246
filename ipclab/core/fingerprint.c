/* fingerprint.c: see fingerprint.h. */
#define _GNU_SOURCE
#include "fingerprint.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "barrier.h"
#include "futex.h"

#define STRETCH 8 /* round trips between two looks at the clock, which cost 20-30 ns each */
#define SPINS_PER_LOOK 65536

/* The line that travels, and beside it nothing. */
struct court {
	_Alignas(FALSE_SHARING_BYTES) _Atomic uint32_t ball; /* odd: played by a; even: played back by b */
	_Alignas(FALSE_SHARING_BYTES) _Atomic uint32_t stop; /* set by a: no more balls will come */
	_Atomic uint32_t ready;                              /* set by b when it runs where it should: 1, or 2: it may not */
	int cpu_b;
	int64_t until_ns;
};

static int pin(int cpu)
{
	cpu_set_t *set = CPU_ALLOC(cpu + 1);
	size_t bytes = CPU_ALLOC_SIZE(cpu + 1);
	int rc;

	if (!set)
		return -ENOMEM;
	CPU_ZERO_S(bytes, set);
	CPU_SET_S(cpu, bytes, set);
	rc = sched_setaffinity(0, bytes, set) < 0 ? -errno : 0;
	CPU_FREE(set);
	return rc;
}

/* Spins until the ball has that number; 0, or -ETIMEDOUT (a) and -ECANCELED (b). No pause: it would be measured. */
static int await_ball(struct court *court, uint32_t number, int is_a)
{
	for (uint32_t spins = 1;; spins++) {
		if (load_acquire(&court->ball) == number)
			return 0;
		if (spins % SPINS_PER_LOOK)
			continue;
		if (!is_a && load_acquire(&court->stop))
			return -ECANCELED;
		if (is_a && monotonic_ns() >= court->until_ns)
			return -ETIMEDOUT;
	}
}

static void *play_back(void *argument)
{
	struct court *court = argument;
	int rc = pin(court->cpu_b);

	store_release(&court->ready, rc < 0 ? 2 : 1);
	for (uint32_t number = 1; rc == 0; number += 2) {
		rc = await_ball(court, number, 0);
		if (rc == 0)
			store_release(&court->ball, number + 1);
	}
	return NULL;
}

static int by_size(const void *left, const void *right)
{
	int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

	return (a > b) - (a < b);
}

static int await_partner(struct court *court)
{
	uint32_t ready;

	while (!(ready = load_acquire(&court->ready))) {
		if (monotonic_ns() >= court->until_ns)
			return -ETIMEDOUT;
		sched_yield();
	}
	return ready == 1 ? 0 : -EINVAL;
}

/* Plays `stretches` of STRETCH round trips; durations in ns of each. How many, or -errno. */
static int play(struct court *court, int64_t *durations_ns, int stretches)
{
	uint32_t number = 1;
	int64_t before_ns, now_ns;
	int rc = await_partner(court), done = 0;

	if (rc < 0)
		return rc;
	before_ns = monotonic_ns();
	for (; done < stretches; done++) {
		for (int i = 0; i < STRETCH; i++, number += 2) {
			store_release(&court->ball, number);
			if ((rc = await_ball(court, number + 1, 1)) < 0)
				return rc;
		}
		now_ns = monotonic_ns();
		durations_ns[done] = now_ns - before_ns;
		before_ns = now_ns;
		if (now_ns >= court->until_ns)
			return done + 1;
	}
	return done;
}

static int64_t play_between(struct court *court, int cpu_a, int rounds)
{
	int stretches = (rounds + STRETCH - 1) / STRETCH, played;
	int64_t *durations_ns = malloc((size_t)stretches * sizeof *durations_ns), result;
	pthread_t partner;
	int rc;

	if (!durations_ns)
		return -ENOMEM;
	rc = pin(cpu_a);
	if (rc == 0)
		rc = -pthread_create(&partner, NULL, play_back, court);
	if (rc < 0) {
		free(durations_ns);
		return rc;
	}
	played = play(court, durations_ns, stretches);
	store_release(&court->stop, 1);
	pthread_join(partner, NULL);
	result = played;
	if (played > 0) {
		qsort(durations_ns, (size_t)played, sizeof *durations_ns, by_size);
		result = (durations_ns[played / 2] + STRETCH / 2) / STRETCH;
	}
	free(durations_ns);
	return result;
}

int64_t fingerprint(int cpu_a, int cpu_b, int rounds)
{
	struct court *court;
	cpu_set_t before;
	int64_t result;

	if (cpu_a < 0 || cpu_b < 0 || rounds < 1)
		return -EINVAL;
	if (sched_getaffinity(0, sizeof before, &before) < 0)
		return -errno;
	if (cpu_a == cpu_b) {
		result = pin(cpu_a);
		sched_setaffinity(0, sizeof before, &before);
		return result;
	}
	court = aligned_alloc(FALSE_SHARING_BYTES, sizeof *court);
	if (!court)
		return -ENOMEM;
	*court = (struct court){.cpu_b = cpu_b, .until_ns = monotonic_ns() + FINGERPRINT_MOST_NS};
	result = play_between(court, cpu_a, rounds);
	sched_setaffinity(0, sizeof before, &before);
	free(court);
	return result;
}
