/* The tracker as a whole: one thread looks, others add, take and stop; processes are born and die meanwhile. */
#include <pthread.h>

#include "core/tracker.h"
#include "test.h"

static void sleeper(void *unused)
{
	(void)unused;
	for (;;)
		pause();
}

static void forker(void *unused)
{
	(void)unused;
	for (int i = 0; i < 50; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid > 0)
			waitpid(pid, NULL, 0);
	}
}

static void *run(void *tracker)
{
	tracker_run(tracker, NO_DEADLINE);
	return NULL;
}

static size_t take(struct tracker *tracker)
{
	size_t count, facts_count;
	struct span *spans = tracker_take_spans(tracker, &count), *open;
	struct facts *facts = tracker_take_facts(tracker, &facts_count);

	CHECK(facts);
	for (size_t i = 0; i < count; i++)
		CHECK(spans[i].end_ns > spans[i].start_ns);
	free(facts);
	free(spans);
	open = tracker_copy_open(tracker, &count);
	free(open);
	return facts_count;
}

/* `use`: nothing, or a source to lead. SKIP where that is not here. */
static int follow_a_storm(int (*use)(struct tracker *), int64_t period_ns)
{
	struct tracker *tracker;
	pthread_t thread;
	size_t seen = 0;
	pid_t asleep, storm;

	CHECK_EQ(tracker_open(&tracker, period_ns, 1, 512), 0);
	if (use && use(tracker) < 0) {
		tracker_close(tracker);
		return SKIP;
	}
	asleep = spawn(sleeper, NULL);
	storm = spawn(forker, NULL);
	CHECK_EQ(tracker_add(tracker, asleep, 0, 1), 0);
	tracker_add(tracker, storm, 0, 1); /* it may have ended already */
	CHECK_EQ(tracker_add(tracker, 0x3ffffff, 0, 1), -ESRCH);
	CHECK_EQ(pthread_create(&thread, NULL, run, tracker), 0);
	for (int i = 0; i < 25; i++) {
		seen += take(tracker);
		pass_ns(1000000);
	}
	ending_of(storm);
	tracker_tell_exit(tracker, storm, 0);
	tracker_stop(tracker);
	pthread_join(thread, NULL);
	tracker_finish(tracker);
	seen += take(tracker);
	CHECK(seen >= 1);
	tracker_close(tracker);
	kill_9(asleep);
	return 0;
}

static int looks(void)
{
	return follow_a_storm(NULL, 1000000);
}

static int looks_flat_out(void)
{
	return follow_a_storm(NULL, FLAT_OUT);
}

static int switches(void)
{
	return follow_a_storm(tracker_use_switch, 1000000);
}

static void none_kept(struct tracker *tracker)
{
	struct tracker_numbers numbers;

	tracker_round(tracker);
	tracker_count(tracker, &numbers);
	CHECK(numbers.reopened > 0);
}

static int without_descriptors_it_opens_anew(void)
{
	struct tracker *tracker;
	pid_t asleep = spawn(sleeper, NULL);
	size_t count, met = 0;
	struct facts *facts;

	CHECK_EQ(tracker_open(&tracker, 1000000, 0, 0), 0);
	CHECK_EQ(tracker_add(tracker, asleep, 0, 1), 0);
	none_kept(tracker);
	kill_9(asleep);
	tracker_round(tracker);
	tracker_finish(tracker);
	facts = tracker_take_facts(tracker, &count);
	for (size_t i = 0; i < count; i++) {
		met += facts[i].tid == asleep; /* a sanitizer gives it a thread of its own besides, sooner or later */
		CHECK_EQ(facts[i].gone, 1);
	}
	CHECK_EQ(met, 1);
	free(facts);
	tracker_close(tracker);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"looks", looks},
		{"looks_flat_out", looks_flat_out},
		{"switches", switches},
		{"without_descriptors_it_opens_anew", without_descriptors_it_opens_anew},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
