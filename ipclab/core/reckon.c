/* reckon.c: see reckon.h. */
#include "reckon.h"

#include <time.h>

/* Time of interrupts and stolen time is booked to nobody. Chosen: on a busy virtual machine it was below 1/64. */
#define DOUBT_NS(period) (20000 + (period) / 64)
/* A tick may be late by this much. */
#define LATE_TICK_NS 1000000
#define USUAL_TICK_NS 4000000

/* One step between two looks. */
struct step {
	struct thread *thread;
	struct spans *out;
	const struct look *a, *b;
	int64_t period, ran, waited, slices, tick;
};

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
	return most < least || value < least ? least : value > most ? most : value;
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

int64_t tick_of_the_kernel(void)
{
	struct timespec resolution;

	if (clock_getres(CLOCK_MONOTONIC_COARSE, &resolution) < 0 || resolution.tv_sec)
		return USUAL_TICK_NS;
	return resolution.tv_nsec;
}

static void cut(const struct step *step, int64_t at_ns, int64_t slack_ns, char state, int on_cpu, int flags)
{
	const struct edge edge = {
		.at_ns = clamp(at_ns, step->thread->line.open.start_ns, step->b->at_ns),
		.slack_ns = clamp(slack_ns, 0, step->period),
		.state = state,
		.on_cpu = (int8_t)on_cpu,
		.cpu = state == 'R' ? step->b->cpu : -1,
		.source = SOURCE_POLL,
		.flags = (uint8_t)flags,
	};

	timeline_cut(&step->thread->line, step->out, &edge);
}

/* Into what b found, of one that does not run: R means that it waits. */
static void cut_to_b(const struct step *step, int64_t at_ns, int64_t slack_ns)
{
	cut(step, at_ns, slack_ns, step->b->state, step->b->state == 'R' ? 0 : ON_CPU_UNKNOWN, 0);
}

/* More ends of slices than could be drawn: their order is not known. */
static void missed(const struct step *step, int64_t count)
{
	if (count > 0)
		timeline_uncover(&step->thread->line, step->period);
}

static void runs_from(const struct step *step, int64_t at_ns, int64_t slack_ns)
{
	cut(step, at_ns, slack_ns, 'R', 1, 0);
	step->thread->progress_ns = step->b->at_ns;
}

/* It slept at a and has had a CPU since. */
static void woke_and_ran(const struct step *step)
{
	int64_t room = clamp(step->period - step->ran - step->waited, 0, step->period), from, unbooked;

	if (step->b->state == 'R') { /* it runs; of that the time since the last tick is not booked */
		unbooked = least(step->tick, room) / 2;
		from = step->b->at_ns - step->ran - unbooked;
		room = least(step->tick, room);
	} else {
		from = step->b->at_ns - step->ran - room / 2;
	}
	if (step->waited > 0)
		cut(step, from - step->waited, room / 2, 'R', 0, 0);
	runs_from(step, from, room / 2);
	step->thread->booked_to_ns = step->thread->line.open.start_ns + step->ran;
	if (step->b->state != 'R')
		cut_to_b(step, step->thread->booked_to_ns, room / 2);
	missed(step, step->slices - 1);
}

static void from_sleep(const struct step *step)
{
	if (step->slices > 0)
		woke_and_ran(step);
	else if (step->b->state != step->a->state)
		cut_to_b(step, step->b->at_ns - step->period / 2, step->period / 2);
}

/* Runnable at a, given no CPU since. */
static void no_slice(const struct step *step)
{
	struct thread *thread = step->thread;
	const struct span *open = &thread->line.open;

	if (step->ran > 0 && open->on_cpu != 1) { /* it had one already at a, and since it is known to be runnable */
		if (open->on_cpu == ON_CPU_UNKNOWN && open->start_ns == thread->line.first_ns)
			thread->line.began_running = 1;
		if (open->on_cpu == ON_CPU_UNKNOWN)
			thread->line.open.on_cpu = 1;
		else
			cut(step, step->a->at_ns, step->period, 'R', 1, 0);
		thread->booked_to_ns = step->a->at_ns;
	}
	if (step->ran > 0) {
		thread->booked_to_ns += step->ran;
		thread->progress_ns = step->b->at_ns;
	}
	if (step->b->state != 'R')
		cut_to_b(step, clamp(thread->booked_to_ns, step->a->at_ns, step->b->at_ns), 0);
	else if (open->on_cpu != 0 && step->b->at_ns - thread->progress_ns > step->tick + LATE_TICK_NS)
		cut_to_b(step, open->on_cpu == 1 ? thread->booked_to_ns : open->start_ns, 0);
}

/* It waited at a, since the open interval's start, and was given a CPU. */
static void from_the_queue(const struct step *step)
{
	struct thread *thread = step->thread;
	int64_t got_at = clamp(thread->line.open.start_ns + step->waited, step->a->at_ns, step->b->at_ns - step->ran);

	runs_from(step, got_at, thread->line.open.slack_ns);
	thread->booked_to_ns = got_at + step->ran;
	if (step->b->state != 'R')
		cut_to_b(step, thread->booked_to_ns, thread->line.open.slack_ns);
	missed(step, step->slices - 1);
}

/* It ran at a, lost the CPU, and was given one again. Where in this the gap lies is not known: in the middle. */
static void lost_and_got(const struct step *step)
{
	struct thread *thread = step->thread;
	int64_t unbooked = step->b->state == 'R' ? least(step->tick, step->period) / 2 : 0;
	int64_t left_at = thread->booked_to_ns + step->ran / 2;
	int64_t until = step->b->state == 'R' ? step->b->at_ns : step->a->at_ns; /* it ran somewhere behind that */
	int64_t slept = until - unbooked - thread->booked_to_ns - step->ran - step->waited, ends = step->slices;

	if (slept <= DOUBT_NS(step->period))
		slept = 0;
	/* It may have waited at a already: what it waited ended before b, so it began early enough. */
	left_at = least(left_at, step->b->at_ns - step->waited - slept);
	if (slept)
		cut(step, left_at, step->period, 'S', ON_CPU_UNKNOWN, SPAN_ASSUMED);
	if (step->waited > 0)
		cut(step, left_at + slept, step->period, 'R', 0, 0);
	if (slept || step->waited > 0) {
		runs_from(step, left_at + slept + step->waited, step->period);
		ends--;
	}
	thread->progress_ns = step->b->at_ns;
	thread->booked_to_ns = clamp(thread->booked_to_ns + step->ran + slept + step->waited, 0, step->b->at_ns);
	if (step->b->state != 'R')
		cut_to_b(step, thread->booked_to_ns, step->period);
	missed(step, ends);
}

static void from_runnable(const struct step *step)
{
	if (step->slices == 0)
		no_slice(step);
	else if (step->thread->line.open.on_cpu == 1)
		lost_and_got(step);
	else
		from_the_queue(step);
}

void reckon(struct thread *thread, struct spans *out, const struct look *look, int64_t tick_ns)
{
	const struct step step = {
		.thread = thread,
		.out = out,
		.a = &thread->last,
		.b = look,
		.period = look->at_ns - thread->last.at_ns,
		.ran = clamp((int64_t)(look->counters.run_ns - thread->last.counters.run_ns), 0, INT64_MAX),
		.waited = clamp((int64_t)(look->counters.wait_ns - thread->last.counters.wait_ns), 0, INT64_MAX),
		.slices = (int64_t)(look->counters.slices - thread->last.counters.slices),
		.tick = tick_ns,
	};

	if (thread->counterless || thread->fresh || thread->last.state == 'Z' || thread->last.state == 'X')
		cut(&step, look->at_ns, step.period, look->state, ON_CPU_UNKNOWN, 0);
	else if (thread->last.state == 'R')
		from_runnable(&step);
	else
		from_sleep(&step);
	if (thread->fresh)
		thread->progress_ns = look->at_ns;
	thread->fresh = 0;
	thread->last = *look;
}
