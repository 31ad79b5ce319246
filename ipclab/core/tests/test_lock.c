/* The robust lock: exclusion, deadlines, and what the next one learns of a dead holder. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/mman.h>

#include "core/sync.h"
#include "test.h"

struct guarded {
	struct lock lock;
	uint64_t a, b; /* guard: lock. Equal whenever nobody holds it */
};

static struct guarded *shared_guarded(void)
{
	struct guarded *guarded = mmap(NULL, sizeof *guarded, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	CHECK(guarded != MAP_FAILED);
	CHECK_EQ(lock_init(&guarded->lock), 0);
	return guarded;
}

static void free_guarded(struct guarded *guarded)
{
	munmap(guarded, sizeof *guarded);
}

#define INCREMENTS 20000

static void *increment(void *argument)
{
	struct guarded *guarded = argument;

	for (int i = 0; i < INCREMENTS; i++) {
		CHECK_EQ(lock_acquire(&guarded->lock, SECONDS(60), NULL), LOCK_OK);
		guarded->a++;
		guarded->b++;
		CHECK_EQ(lock_release(&guarded->lock), 0);
	}
	return NULL;
}

static void increment_role(void *argument)
{
	increment(argument);
}

static int one_at_a_time(void)
{
	struct guarded *guarded = shared_guarded();
	pid_t child = spawn(increment_role, guarded);
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, increment, guarded), 0);
	increment(guarded);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(ending_of(child), 0);
	CHECK_EQ(guarded->a, 3 * INCREMENTS);
	CHECK_EQ(guarded->b, 3 * INCREMENTS);
	free_guarded(guarded);
	return 0;
}

static void hold_and_tell(void *argument)
{
	struct guarded *guarded = argument;

	CHECK_EQ(lock_acquire(&guarded->lock, NO_DEADLINE, NULL), LOCK_OK);
	__atomic_store_n(&guarded->a, (uint64_t)gettid(), __ATOMIC_SEQ_CST);
	for (;;)
		pause();
}

static pid_t wait_until_held(struct guarded *guarded)
{
	uint64_t tid;

	while (!(tid = __atomic_load_n(&guarded->a, __ATOMIC_SEQ_CST)))
		cpu_relax();
	return (pid_t)tid;
}

static int the_wrong_use_is_refused(void)
{
	struct guarded *guarded = shared_guarded();
	pid_t child, holder;

	CHECK_EQ(lock_release(&guarded->lock), -EPERM);
	CHECK_EQ(lock_acquire(&guarded->lock, NO_DEADLINE, NULL), LOCK_OK);
	CHECK_EQ(load_relaxed(&guarded->lock.owner_tid), gettid());
	CHECK_EQ(lock_acquire(&guarded->lock, NO_DEADLINE, NULL), -EDEADLK);
	CHECK_EQ(lock_release(&guarded->lock), 0);
	CHECK_EQ(load_relaxed(&guarded->lock.owner_tid), 0);
	child = spawn(hold_and_tell, guarded);
	holder = wait_until_held(guarded);
	CHECK_EQ(load_relaxed(&guarded->lock.owner_tid), holder);
	CHECK_EQ(lock_acquire(&guarded->lock, monotonic_ns() + 1000000, NULL), -ETIMEDOUT);
	CHECK_EQ(lock_release(&guarded->lock), -EPERM);
	kill_9(child);
	free_guarded(guarded);
	return 0;
}

static int the_next_one_learns_who_died(void)
{
	struct guarded *guarded = shared_guarded();
	pid_t child = spawn(hold_and_tell, guarded);
	uint32_t dead = 0;

	wait_until_held(guarded);
	kill_9(child);
	CHECK_EQ(lock_acquire(&guarded->lock, SECONDS(60), &dead), LOCK_OWNER_DIED);
	CHECK_EQ(dead, child);
	CHECK_EQ(load_relaxed(&guarded->lock.owner_tid), gettid());
	CHECK_EQ(lock_consistent(&guarded->lock), 0);
	CHECK_EQ(lock_release(&guarded->lock), 0);
	CHECK_EQ(lock_acquire(&guarded->lock, SECONDS(60), NULL), LOCK_OK);
	CHECK_EQ(lock_release(&guarded->lock), 0);
	free_guarded(guarded);
	return 0;
}

static void find_lost(void *argument)
{
	struct guarded *guarded = argument;

	CHECK_EQ(lock_acquire(&guarded->lock, SECONDS(60), NULL), -ENOTRECOVERABLE);
}

static int unrepaired_is_not_recoverable(void)
{
	struct guarded *guarded = shared_guarded();
	pid_t child = spawn(hold_and_tell, guarded);

	wait_until_held(guarded);
	kill_9(child);
	CHECK_EQ(lock_acquire(&guarded->lock, SECONDS(60), NULL), LOCK_OWNER_DIED);
	CHECK_EQ(lock_release(&guarded->lock), 0);
	for (int i = 0; i < 3; i++) { /* every time, whichever way it is asked, and for others too */
		CHECK_EQ(lock_acquire(&guarded->lock, SECONDS(60), NULL), -ENOTRECOVERABLE);
		CHECK_EQ(lock_acquire(&guarded->lock, NO_DEADLINE, NULL), -ENOTRECOVERABLE);
		CHECK_EQ(lock_acquire(&guarded->lock, 0, NULL), -ENOTRECOVERABLE);
		CHECK_EQ(ending_of(spawn(find_lost, guarded)), 0);
	}
	free_guarded(guarded);
	return 0;
}

static void tear_for_ever(void *argument)
{
	struct guarded *guarded = argument;

	for (;;) {
		CHECK(lock_acquire(&guarded->lock, NO_DEADLINE, NULL) == LOCK_OK);
		__atomic_fetch_add(&guarded->a, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&guarded->b, 1, __ATOMIC_RELAXED);
		CHECK_EQ(lock_release(&guarded->lock), 0);
	}
}

/* Killed at a random instruction: the lock is never stuck, and what is torn is always announced. */
static int a_killed_holder_is_always_noticed(void)
{
	struct guarded *guarded = shared_guarded();
	uint64_t seed = 4;
	int died = 0, rc;

	for (int i = 0; i < KILLS; i++) {
		uint64_t before = __atomic_load_n(&guarded->a, __ATOMIC_SEQ_CST);
		pid_t pid = spawn(tear_for_ever, guarded);

		/* one in four is killed while it still starts */
		while (i % 4 && __atomic_load_n(&guarded->a, __ATOMIC_SEQ_CST) == before)
			cpu_relax();
		/* compete with it part of the time */
		for (int64_t until = monotonic_ns() + random_below(&seed, 400000); monotonic_ns() < until;) {
			if (i % 2)
				continue;
			CHECK_EQ(lock_acquire(&guarded->lock, SECONDS(60), NULL), LOCK_OK);
			CHECK_EQ(guarded->a, guarded->b);
			CHECK_EQ(lock_release(&guarded->lock), 0);
		}
		kill_9(pid);
		rc = lock_acquire(&guarded->lock, SECONDS(60), NULL);
		if (rc == LOCK_OWNER_DIED) {
			died++;
			CHECK(guarded->a == guarded->b || guarded->a == guarded->b + 1);
			guarded->b = guarded->a;
			CHECK_EQ(lock_consistent(&guarded->lock), 0);
		} else {
			CHECK_EQ(rc, LOCK_OK);
			CHECK_EQ(guarded->a, guarded->b);
		}
		CHECK_EQ(lock_release(&guarded->lock), 0);
	}
	fprintf(stderr, "  %d of %d died holding the lock\n", died, KILLS);
	CHECK(died > 0);
	free_guarded(guarded);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"one_at_a_time", one_at_a_time},
		{"the_wrong_use_is_refused", the_wrong_use_is_refused},
		{"the_next_one_learns_who_died", the_next_one_learns_who_died},
		{"unrepaired_is_not_recoverable", unrepaired_is_not_recoverable},
		{"a_killed_holder_is_always_noticed", a_killed_holder_is_always_noticed},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
