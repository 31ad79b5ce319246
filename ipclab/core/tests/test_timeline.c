/* Timelines and what two looks prove: rules as in timeline.h, and any order of looks keeps them. */
#include "core/reckon.h"
#include "test.h"

#define TICK 4000000

static struct spans out = {.most = 1 << 20};

static void begin(struct thread *thread, char state, int on_cpu)
{
	const struct edge edge = {.at_ns = 1000, .state = state, .on_cpu = (int8_t)on_cpu, .cpu = 0};

	memset(thread, 0, sizeof *thread);
	out.count = 0;
	thread->last = (struct look){.at_ns = 1000, .state = state};
	thread->progress_ns = thread->booked_to_ns = 1000;
	timeline_begin(&thread->line, 1, 1, &edge);
}

static void look(struct thread *thread, int64_t at, char state, uint64_t run, uint64_t wait, uint64_t slices)
{
	const struct look seen = {.at_ns = at, .state = state, .counters = {run, wait, slices}};

	reckon(thread, &out, &seen, TICK);
}

static void is_span(size_t index, char state, int on_cpu, int64_t start, int64_t end)
{
	CHECK(index < out.count);
	CHECK_EQ(out.span[index].state, state);
	CHECK_EQ(out.span[index].on_cpu, on_cpu);
	CHECK_EQ(out.span[index].start_ns, start);
	CHECK_EQ(out.span[index].end_ns, end);
}

static int a_run_between_two_looks_has_its_length_and_lies_in_the_middle(void)
{
	struct thread thread;

	begin(&thread, 'S', -1);
	look(&thread, 1001000, 'S', 300000, 100000, 1);
	is_span(0, 'S', -1, 1000, 301000);
	is_span(1, 'R', 0, 301000, 401000);
	is_span(2, 'R', 1, 401000, 701000);
	CHECK_EQ(out.span[2].slack_ns, 300000);
	CHECK_EQ(thread.line.open.start_ns, 701000);
	CHECK_EQ(thread.line.switches, 1);
	return 0;
}

static int who_ran_left_where_its_time_is_booked_to(void)
{
	struct thread thread;

	begin(&thread, 'R', 1);
	look(&thread, 1001000, 'R', 0, 0, 0); /* no tick yet: it runs on */
	look(&thread, 2001000, 'S', 1250000, 0, 0);
	is_span(0, 'R', 1, 1000, 1251000);
	CHECK_EQ(thread.line.open.start_ns, 1251000);
	CHECK_EQ(thread.line.open.slack_ns, 0);
	return 0;
}

static int who_is_not_booked_for_a_tick_waits(void)
{
	struct thread thread;

	begin(&thread, 'R', 1);
	look(&thread, 2001000, 'R', 500000, 0, 0);
	look(&thread, 6001000, 'R', 500000, 0, 0);
	CHECK_EQ(thread.line.open.on_cpu, 1); /* it may run, and the next tick be late */
	look(&thread, 8001000, 'R', 500000, 0, 0);
	is_span(0, 'R', 1, 1000, 501000);
	CHECK_EQ(thread.line.open.on_cpu, 0);
	CHECK_EQ(thread.line.switches, 1);
	return 0;
}

static int who_waited_got_its_cpu_at_a_known_moment(void)
{
	struct thread thread;

	begin(&thread, 'R', 0);
	look(&thread, 1001000, 'R', 0, 0, 0);
	look(&thread, 2001000, 'R', 0, 1200000, 1);
	is_span(0, 'R', 0, 1000, 1201000);
	CHECK_EQ(thread.line.open.on_cpu, 1);
	CHECK_EQ(thread.line.open.start_ns, 1201000);
	return 0;
}

static int more_slices_than_can_be_drawn_are_uncovered(void)
{
	struct thread thread;

	begin(&thread, 'S', -1);
	look(&thread, 1001000, 'S', 300000, 0, 5);
	CHECK_EQ(thread.line.switches, 1);
	CHECK_EQ(thread.line.uncovered_ns, 1000000);
	return 0;
}

static int a_sleep_between_two_looks_at_a_runner_is_assumed(void)
{
	struct thread thread;

	begin(&thread, 'R', 1);
	look(&thread, 10001000, 'R', 2000000, 0, 1);
	CHECK_EQ(out.span[0].on_cpu, 1);
	CHECK_EQ(out.span[1].state, 'S');
	CHECK_EQ(out.span[1].flags, SPAN_ASSUMED);
	CHECK_EQ(out.span[1].end_ns - out.span[1].start_ns, 6000000); /* 8 ms less half a tick that may not be booked */
	CHECK_EQ(thread.line.switches, 1);
	return 0;
}

/* Whatever two looks say, also what no kernel would: no overlap, no hole, no negative time. */
static int any_looks_keep_the_rules(void)
{
	static const char states[] = "RSDTtZXI";
	uint64_t seed = 11;

	for (int round = 0; round < 2000; round++) {
		uint64_t run = 0, wait = 0, slices = 0;
		struct thread thread;
		int64_t at = 1000, sum = 0, shares[SHARES], end = 1000;

		begin(&thread, states[random_below(&seed, 8)], (int)random_below(&seed, 3) - 1);
		for (int i = 0; i < 40; i++) {
			at += random_below(&seed, 2000000);
			run += random_below(&seed, 1500000);
			wait += random_below(&seed, 3) ? 0 : random_below(&seed, 2000000);
			slices += random_below(&seed, 4) ? random_below(&seed, 2) : random_below(&seed, 6);
			look(&thread, at, states[random_below(&seed, 8)], run, wait, slices);
		}
		timeline_end(&thread.line, &out, at, 1);
		for (size_t i = 0; i < out.count; i++) {
			CHECK_EQ(out.span[i].start_ns, end);
			CHECK(out.span[i].end_ns > out.span[i].start_ns);
			CHECK(out.span[i].slack_ns >= 0);
			end = out.span[i].end_ns;
		}
		CHECK_EQ(end, at);
		timeline_shares(&thread.line, at, shares);
		for (int i = 0; i < SHARES; i++)
			sum += shares[i];
		CHECK_EQ(sum, at - 1000);
	}
	return 0;
}

static int spans_that_nobody_fetches_are_counted(void)
{
	struct spans few = {.most = 300};
	struct edge edge = {.at_ns = 1, .state = 'S', .on_cpu = -1};
	struct timeline line;

	timeline_begin(&line, 1, 1, &edge);
	for (int i = 0; i < 2000; i++) {
		edge.at_ns++;
		edge.state = i % 2 ? 'S' : 'D';
		timeline_cut(&line, &few, &edge);
	}
	CHECK_EQ(few.count + few.lost, 2000);
	CHECK(few.lost > 0);
	free(few.span);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"a_run_between_two_looks_has_its_length_and_lies_in_the_middle",
		 a_run_between_two_looks_has_its_length_and_lies_in_the_middle},
		{"who_ran_left_where_its_time_is_booked_to", who_ran_left_where_its_time_is_booked_to},
		{"who_is_not_booked_for_a_tick_waits", who_is_not_booked_for_a_tick_waits},
		{"who_waited_got_its_cpu_at_a_known_moment", who_waited_got_its_cpu_at_a_known_moment},
		{"more_slices_than_can_be_drawn_are_uncovered", more_slices_than_can_be_drawn_are_uncovered},
		{"a_sleep_between_two_looks_at_a_runner_is_assumed", a_sleep_between_two_looks_at_a_runner_is_assumed},
		{"any_looks_keep_the_rules", any_looks_keep_the_rules},
		{"spans_that_nobody_fetches_are_counted", spans_that_nobody_fetches_are_counted},
		{NULL, NULL},
	};
	int rc = run_tests(tests, argc, argv);

	free(out.span);
	return rc;
}
