/* reckon.c: see reckon.h. */
#include "reckon.h"

/* Below this a gap may be the clocks' own: interrupts and stolen time are not booked to a thread. Chosen, measured
 * against trace: at most 1 in 64 of a period on a busy virtual machine. */
#define DOUBT_NS(period) (20000 + (period) / 64)

/* One step between two looks. */
struct step {
	struct thread *thread;
	struct spans *out;
	const struct look *a, *b;
	int64_t period, ran, waited, slices;
};

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
	return value < least ? least : value > most ? most : value;
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

static void cut_to_now(const struct step *step, int64_t at_ns, int64_t slack_ns)
{
	cut(step, at_ns, slack_ns, step->b->state, step->b->on_cpu, 0);
}

/* More ends of slices than could be drawn: their order is not known. */
static void missed(const struct step *step, int64_t count)
{
	if (count > 0)
		timeline_uncover(&step->thread->line, step->period);
}

/* It slept at a and has run since: for `ran`, after `waited`, at latest until b. */
static void woke_and_ran(const struct step *step)
{
	int64_t run_at = step->b->at_ns - step->ran, slack = run_at - step->a->at_ns;

	if (step->waited > 0)
		cut(step, run_at - step->waited, slack, 'R', 0, 0);
	cut(step, run_at, slack, 'R', 1, 0);
	if (!(step->b->state == 'R' && step->b->on_cpu == 1))
		cut_to_now(step, step->b->at_ns, slack);
	missed(step, step->slices - 1);
}

static void from_sleep(const struct step *step)
{
	if (step->slices > 0)
		woke_and_ran(step);
	else if (step->b->state == 'R')
		cut(step, step->b->at_ns, step->period, 'R', step->b->on_cpu, 0);
	else if (step->b->state != step->a->state)
		cut_to_now(step, step->b->at_ns, step->period);
}

/* Runnable at a, given no CPU since: it still waits, or had one already at a. */
static void no_slice(const struct step *step)
{
	const struct span *open = &step->thread->line.open;
	int64_t left_at = step->a->at_ns + step->ran;

	if (step->b->state == 'R' && step->b->on_cpu == 1) {
		cut(step, step->a->at_ns, step->period, 'R', 1, 0);
		return;
	}
	if (step->b->state == 'R' && open->on_cpu == 0 && step->ran == 0)
		return;
	if (open->on_cpu != 1) /* it had one at a: nobody sleeps or dies without running */
		cut(step, step->a->at_ns, 0, 'R', 1, 0);
	cut_to_now(step, left_at, 0);
}

/* It waited at a, since the open interval's start, and was given a CPU. */
static void from_the_queue(const struct step *step)
{
	const struct span *open = &step->thread->line.open;
	int64_t got_at = clamp(open->start_ns + step->waited, step->a->at_ns, step->b->at_ns - step->ran);

	cut(step, got_at, got_at - step->a->at_ns, 'R', 1, 0);
	if (!(step->b->state == 'R' && step->b->on_cpu == 1)) {
		cut_to_now(step, got_at + step->ran, step->period - step->ran);
		missed(step, step->slices - 1);
	} else {
		missed(step, step->slices - 1);
	}
}

/* It ran at a, lost the CPU, and was given one again. Where between a and b the gap lies is not known: in the middle. */
static void lost_and_got(const struct step *step)
{
	int64_t gap = clamp(step->period - step->ran, 0, step->period), waited = clamp(step->waited, 0, gap);
	int64_t slept = gap - waited, at = step->a->at_ns + step->ran / 2, ends = step->slices;
	int still = step->b->state == 'R';

	if (!still)
		slept = 0; /* or the sleep it is in now: not to be told apart */
	if (slept > DOUBT_NS(step->period))
		cut(step, at, step->period, 'S', ON_CPU_UNKNOWN, SPAN_ASSUMED);
	else
		slept = 0;
	if (waited > 0)
		cut(step, at + slept, step->period, 'R', 0, 0);
	if (slept || waited) {
		cut(step, at + slept + waited, step->period, 'R', 1, 0);
		ends--;
	}
	if (!(still && step->b->on_cpu == 1)) {
		cut_to_now(step, step->a->at_ns + step->ran + waited + slept, step->period);
	}
	missed(step, ends);
}

static void from_runnable(const struct step *step)
{
	if (step->slices == 0)
		no_slice(step);
	else if (step->thread->line.open.on_cpu == 0)
		from_the_queue(step);
	else
		lost_and_got(step);
}

void reckon(struct thread *thread, struct spans *out, const struct look *look)
{
	const struct step step = {
		.thread = thread,
		.out = out,
		.a = &thread->last,
		.b = look,
		.period = look->at_ns - thread->last.at_ns,
		.ran = clamp((int64_t)(look->counters.run_ns - thread->last.counters.run_ns), 0,
			     look->at_ns - thread->last.at_ns),
		.waited = (int64_t)(look->counters.wait_ns - thread->last.counters.wait_ns),
		.slices = (int64_t)(look->counters.slices - thread->last.counters.slices),
	};

	if (thread->counterless || thread->fresh || thread->last.state == 'Z' || thread->last.state == 'X')
		cut_to_now(&step, look->at_ns, step.period);
	else if (thread->last.state == 'R')
		from_runnable(&step);
	else
		from_sleep(&step);
	thread->fresh = 0;
	thread->last = *look;
}
