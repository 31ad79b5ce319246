/* What is told, drawn: events in order, and events of which one was not told. */
#include "core/apply.h"
#include "core/tracker.h"
#include "test.h"

#define TID 4000001

static struct tracker *tracker;
static struct thread *thread;

/* A thread that `trace` leads, asleep since 1000. */
static void begin(void)
{
	const struct procstat stat = {.pid = TID, .start_ticks = 1, .state = 'S'};
	const struct edge edge = {.at_ns = 1000, .state = 'S', .on_cpu = ON_CPU_UNKNOWN, .cpu = -1, .source = SOURCE_TRACE};

	tracker_open(&tracker, 1000000, 0, 64);
	thread = followed_add_thread(&tracker->all, followed_add_process(&tracker->all, &stat), TID);
	thread->leader = SOURCE_TRACE;
	timeline_begin(&thread->line, TID, TID, &edge);
}

static void tell(int64_t at_ns, enum told_kind kind, char state)
{
	const struct told told = {.at_ns = at_ns, .tid = TID, .kind = (uint8_t)kind, .state = state, .source = SOURCE_TRACE};

	told_push(&tracker->told, &told);
}

static void is_span(size_t index, char state, int on_cpu, int64_t start_ns, int64_t end_ns, int flags)
{
	const struct span *span = &tracker->spans.span[index];

	CHECK(index < tracker->spans.count);
	CHECK_EQ(span->state, state);
	CHECK_EQ(span->on_cpu, on_cpu);
	CHECK_EQ(span->start_ns, start_ns);
	CHECK_EQ(span->end_ns, end_ns);
	CHECK_EQ(span->flags, flags);
}

static int what_is_told_is_drawn(void)
{
	begin();
	tell(2000, TOLD_WAKE, 0);
	tell(2100, TOLD_ON, 0);
	tell(3000, TOLD_OFF, 'D');
	apply_events(tracker, 5000);
	CHECK_EQ(tracker->spans.count, 3);
	is_span(0, 'S', ON_CPU_UNKNOWN, 1000, 2000, 0);
	is_span(1, 'R', 0, 2000, 2100, 0);
	is_span(2, 'R', 1, 2100, 3000, 0);
	CHECK_EQ(thread->line.open.state, 'D');
	CHECK_EQ(thread->line.switches, 1);
	CHECK_EQ(tracker->numbers.events_lost, 0);
	tracker_close(tracker);
	return 0;
}

static int who_loses_a_cpu_had_got_one(void)
{
	begin();
	tell(2000, TOLD_WAKE, 0);
	tell(3000, TOLD_OFF, 'S');
	apply_events(tracker, 5000);
	is_span(1, 'R', ON_CPU_UNKNOWN, 2000, 3000, 0);
	CHECK_EQ(tracker->numbers.events_lost, 1);
	CHECK_EQ(tracker->numbers.missing, 1);
	CHECK_EQ(thread->line.switches, 1);
	CHECK_EQ(thread->off_count, 1);
	CHECK_EQ(thread->line.uncovered_ns, 0);
	tracker_close(tracker);
	return 0;
}

static int who_was_not_even_woken_is_not_known_to_have_slept(void)
{
	begin();
	tell(3000, TOLD_OFF, 'S');
	apply_events(tracker, 5000);
	is_span(0, 'S', ON_CPU_UNKNOWN, 1000, 3000, SPAN_UNCOVERED);
	CHECK_EQ(tracker->numbers.events_lost, 1);
	CHECK_EQ(thread->line.uncovered_ns, 2000);
	CHECK_EQ(thread->line.switches, 0);
	CHECK_EQ(thread->off_count, 0);
	tracker_close(tracker);
	return 0;
}

static int who_gets_a_cpu_twice_had_lost_it(void)
{
	begin();
	tell(2000, TOLD_ON, 0);
	tell(3000, TOLD_ON, 0);
	tell(3500, TOLD_OFF, 'S');
	apply_events(tracker, 5000);
	is_span(1, 'R', 1, 2000, 3000, SPAN_UNCOVERED);
	is_span(2, 'R', 1, 3000, 3500, 0);
	CHECK_EQ(tracker->numbers.events_lost, 1);
	CHECK_EQ(thread->line.uncovered_ns, 1000);
	CHECK_EQ(thread->line.switches, 1);
	tracker_close(tracker);
	return 0;
}

/* The kernel's count of a thread that `switch` led: before the record, and at its end. */
static void facts_of_counts(int64_t begin, int64_t end, struct facts *facts)
{
	thread->leader = SOURCE_SWITCH;
	thread->counted_begin = begin;
	thread->counted_end = end;
	thread->inside_end[0] = thread->inside_end[1] = 5;
	facts_of(thread, 5000, facts);
}

static int switches_on_the_way_from_exit_to_death_are_not_the_lifes(void)
{
	struct facts facts;

	begin();
	facts_of_counts(10, 61, &facts); /* it lives: 46 are missing */
	CHECK_EQ(facts.counted, 51);
	CHECK_EQ(facts.checked_most, 5);
	thread->dying = 1; /* it may have lost the CPU 46 times since its exit was told */
	facts_of_counts(10, 61, &facts);
	CHECK_EQ(facts.counted, 5);
	facts_of_counts(10, 14, &facts); /* more were told than there were */
	CHECK_EQ(facts.counted, 4);
	CHECK_EQ(facts.checked_least, 5);
	facts_of_counts(NOT_COUNTED, NOT_COUNTED, &facts);
	CHECK_EQ(facts.counted, NOT_COUNTED);
	tracker_close(tracker);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"what_is_told_is_drawn", what_is_told_is_drawn},
		{"who_loses_a_cpu_had_got_one", who_loses_a_cpu_had_got_one},
		{"who_was_not_even_woken_is_not_known_to_have_slept", who_was_not_even_woken_is_not_known_to_have_slept},
		{"who_gets_a_cpu_twice_had_lost_it", who_gets_a_cpu_twice_had_lost_it},
		{"switches_on_the_way_from_exit_to_death_are_not_the_lifes",
		 switches_on_the_way_from_exit_to_death_are_not_the_lifes},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
