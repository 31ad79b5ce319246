/* loops.c: see loops.h. */
#define _GNU_SOURCE
#include "loops.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "barrier.h"
#include "futex.h"
#include "message.h"

#define PAGE 4096
#define MEASURE_NS INT64_C(5000000)

enum { DEADLINE = 1 }; /* beside 0 and -errno: the loop has ended, and not because all was done */

/* --- the message under way --- */

static void *built(struct loop *loop, uint64_t sequence)
{
	struct carrier *carrier = loop->carrier;
	void *message = loop->outgoing;

	if (carrier->calls->stage)
		message = carrier->calls->stage(carrier, loop->size);
	if (message)
		message_stamp(message, loop->size, sequence);
	return message;
}

static inline int send_one(struct loop *loop, uint64_t sequence)
{
	void *message = built(loop, sequence);

	return message ? loop->carrier->calls->send(loop->carrier, message, loop->size) : -ENOMEM;
}

/* 0, -EBADMSG, or what the carrier said. */
static inline int receive_one(struct loop *loop, uint64_t sequence)
{
	struct carrier *carrier = loop->carrier;
	const void *message;
	ssize_t got = carrier->calls->receive(carrier, loop->incoming, loop->size, &message);
	int rc;

	if (got < 0)
		return (int)got;
	rc = (size_t)got == loop->size ? message_check(message, loop->size, sequence) : -EBADMSG;
	if (carrier->calls->release)
		carrier->calls->release(carrier);
	return rc;
}

/* --- interruptions --- */

static int peer_ended(const struct carrier *carrier)
{
	struct pollfd about = {.fd = carrier->watch, .events = POLLIN};

	return carrier->watch >= 0 && poll(&about, 1, 0) > 0;
}

static int only_sends(const struct loop *loop)
{
	return loop->pattern == LOOP_SEND || loop->pattern == LOOP_SEND_ON_SCHEDULE;
}

/* After a tick or a signal: what is there to do? DEADLINE, -EOWNERDEAD, or -EINTR: let the caller look too. */
static int look(struct loop *loop)
{
	loop->ticker.ticked = 0;
	if (loop->deadline_ns >= 0 && monotonic_ns() >= loop->deadline_ns)
		return DEADLINE;
	if (!loop->carrier->hurry && peer_ended(loop->carrier)) {
		if (only_sends(loop))
			return -EOWNERDEAD; /* nobody will read it */
		carrier_hurry(loop->carrier); /* what it has sent comes first */
	}
	return -EINTR;
}

/* What becomes of a carrier's refusal. */
static int stopped(struct loop *loop, int rc)
{
	if (rc == -EINTR)
		return look(loop);
	if (rc == -EBADMSG) {
		loop->bad_sequence = (int64_t)(loop->first + loop->messages);
		return DEADLINE;
	}
	return rc == -EAGAIN && loop->carrier->hurry ? -EOWNERDEAD : rc;
}

/* --- the patterns; each goes on where it was --- */

static int run_send(struct loop *loop)
{
	int rc;

	while (loop->messages < loop->count) {
		rc = send_one(loop, loop->first + loop->messages);
		if (rc < 0)
			return stopped(loop, rc);
		loop->messages++;
		if (loop->ticker.ticked)
			return look(loop);
	}
	return 0;
}

static int run_receive(struct loop *loop)
{
	int rc;

	while (loop->messages < loop->count) {
		rc = receive_one(loop, loop->first + loop->messages);
		if (rc < 0)
			return stopped(loop, rc);
		if (loop->messages++ == 0)
			loop->began_ns = monotonic_ns(); /* the clock starts when there is something to time */
		if (loop->ticker.ticked)
			return look(loop);
	}
	return 0;
}

static int run_ping(struct loop *loop)
{
	int64_t now_ns;
	int rc;

	while (loop->messages < loop->count) {
		if (!loop->half) {
			rc = send_one(loop, loop->first + loop->messages);
			if (rc < 0)
				return stopped(loop, rc);
			loop->half = 1;
		}
		rc = receive_one(loop, loop->first + loop->messages);
		if (rc < 0)
			return stopped(loop, rc);
		loop->half = 0;
		loop->messages++;
		if (loop->histogram) {
			now_ns = monotonic_ns();
			histogram_record(loop->histogram, (uint64_t)(now_ns - loop->start_ns));
			loop->start_ns = now_ns; /* one look ends a round trip and begins the next */
		}
		if (loop->ticker.ticked)
			return look(loop);
	}
	return 0;
}

static int run_pong(struct loop *loop)
{
	int rc;

	while (loop->messages < loop->count) {
		if (!loop->half) {
			rc = receive_one(loop, loop->first + loop->messages);
			if (rc < 0)
				return stopped(loop, rc);
			loop->half = 1;
		}
		rc = send_one(loop, loop->first + loop->messages);
		if (rc < 0)
			return stopped(loop, rc);
		loop->half = 0;
		loop->messages++;
		if (loop->ticker.ticked)
			return look(loop);
	}
	return 0;
}

static int64_t due_ns(const struct loop *loop)
{
	return loop->start_ns + (int64_t)loop->messages * loop->interval_ns;
}

/* Sleeps to shortly before, then spins: nanosleep alone comes 50 to 100 us late. 0, or -EINTR. */
static int await_due(struct loop *loop)
{
	int64_t due = due_ns(loop), now_ns;
	struct timespec wake = timespec_of_ns(due > loop->spin_ns ? due - loop->spin_ns : 0);

	while ((now_ns = monotonic_ns()) < due) {
		if (loop->ticker.ticked)
			return -EINTR;
		if (due - now_ns <= loop->spin_ns)
			cpu_relax();
		else if (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL) == EINTR)
			return -EINTR;
	}
	return 0;
}

static int run_send_on_schedule(struct loop *loop)
{
	int rc;

	while (loop->messages < loop->count) {
		if (!loop->half) {
			rc = await_due(loop);
			if (rc < 0)
				return stopped(loop, rc);
			loop->half = 1;
		}
		rc = send_one(loop, loop->first + loop->messages);
		if (rc < 0)
			return stopped(loop, rc);
		loop->half = 0;
		loop->messages++;
		if (loop->ticker.ticked)
			return look(loop);
	}
	return 0;
}

static int run_receive_on_schedule(struct loop *loop)
{
	int64_t now_ns, late_ns;
	int rc;

	while (loop->messages < loop->count) {
		rc = receive_one(loop, loop->first + loop->messages);
		if (rc < 0)
			return stopped(loop, rc);
		now_ns = monotonic_ns();
		late_ns = now_ns - due_ns(loop);
		if (late_ns < 0)
			return -EPROTO; /* before it was due: the two sides have not been given the same schedule */
		if (loop->histogram)
			histogram_record(loop->histogram, (uint64_t)late_ns);
		if (loop->messages++ == 0)
			loop->began_ns = now_ns;
		if (loop->ticker.ticked)
			return look(loop);
	}
	return 0;
}

static int (*const patterns[])(struct loop *) = {
	[LOOP_SEND] = run_send,
	[LOOP_RECEIVE] = run_receive,
	[LOOP_PING] = run_ping,
	[LOOP_PONG] = run_pong,
	[LOOP_SEND_ON_SCHEDULE] = run_send_on_schedule,
	[LOOP_RECEIVE_ON_SCHEDULE] = run_receive_on_schedule,
};

/* --- counting --- */

static uint64_t kernel_sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) < 0 ? 0 : (uint64_t)usage.ru_nvcsw;
}

static void take_counts(const struct loop *loop, uint64_t counts[3])
{
	struct carrier *carrier = loop->carrier;

	if (carrier->calls->count)
		carrier->calls->count(carrier);
	counts[0] = carrier->system_calls;
	counts[1] = carrier->calls->counts_sleeps ? carrier->sleeps : kernel_sleeps();
	counts[2] = carrier->wakes;
}

static void add_counts(struct loop *loop)
{
	uint64_t after[3];

	take_counts(loop, after);
	loop->system_calls += after[0] - loop->before[0];
	loop->sleeps += after[1] - loop->before[1];
	loop->wakes += after[2] - loop->before[2];
}

/* --- opening, running, closing --- */

int loop_open(struct loop *loop)
{
	const struct carrier_calls *calls = loop->carrier->calls;
	size_t room;
	int rc;

	loop->allocated = NULL;
	if (calls->is_bell) {
		if (loop->pattern != LOOP_PING && loop->pattern != LOOP_PONG)
			return -EINVAL;
		loop->size = calls->word_bytes;
	} else if (!loop->size) {
		return -EINVAL;
	}
	if (!loop->count || loop->interval_ns < 0 || loop->spin_ns < 0)
		return -EINVAL;
	if (loop->size > loop->carrier->limit_bytes || loop->size > SIZE_MAX / 4)
		return -EMSGSIZE;
	loop->messages = loop->system_calls = loop->sleeps = loop->wakes = 0;
	loop->duration_ns = 0;
	loop->bad_sequence = -1;
	loop->half = loop->began = 0;
	/* Both messages begin on a page, with a margin before and behind. */
	room = (loop->size + CARRIER_MARGIN + PAGE - 1) / PAGE * PAGE + PAGE;
	loop->allocated = aligned_alloc(PAGE, 2 * room);
	if (!loop->allocated)
		return -ENOMEM;
	memset(loop->allocated, 0, 2 * room); /* no page is touched for the first time while it is timed */
	loop->outgoing = (unsigned char *)loop->allocated + PAGE;
	loop->incoming = loop->outgoing + room;
	if (!calls->stage)
		message_fill(loop->outgoing, loop->size);
	loop->carrier->one_way = loop->pattern != LOOP_PING && loop->pattern != LOOP_PONG;
	loop->carrier->ticked = &loop->ticker.ticked;
	rc = ticker_start(&loop->ticker, loop->deadline_ns);
	if (rc < 0) {
		free(loop->allocated);
		loop->allocated = NULL;
	}
	return rc;
}

int loop_run(struct loop *loop)
{
	int rc;

	take_counts(loop, loop->before);
	if (!loop->began) {
		loop->began = 1;
		loop->began_ns = monotonic_ns();
	}
	if (loop->pattern == LOOP_PING && !loop->half)
		loop->start_ns = monotonic_ns(); /* what the caller did after a tick is no part of a round trip */
	rc = patterns[loop->pattern](loop);
	loop->duration_ns = monotonic_ns() - loop->began_ns;
	add_counts(loop);
	return rc == DEADLINE ? 0 : rc;
}

void loop_close(struct loop *loop)
{
	if (!loop->allocated)
		return;
	ticker_stop(&loop->ticker);
	loop->carrier->ticked = &loop->carrier->never;
	free(loop->allocated);
	loop->allocated = NULL;
}

/* --- what verification costs --- */

int64_t verification_cost_ps(size_t size)
{
	size_t room = (size + PAGE - 1) / PAGE * PAGE;
	int64_t began_ns, batch_ns, passed_ns;
	int64_t least_ps = INT64_MAX, round_ps; /* a batch in which we lost the CPU took longer than its rounds */
	uint64_t batch = 1, bad = 0;
	void *message;

	if (!size || size > SIZE_MAX / 4)
		return -EINVAL;
	message = aligned_alloc(PAGE, room);
	if (!message)
		return -ENOMEM;
	message_fill(message, size);
	began_ns = monotonic_ns();
	do {
		batch_ns = monotonic_ns();
		for (uint64_t i = 0; i < batch; i++)
			bad += (uint64_t)(message_check(message, size, 0) != 0);
		passed_ns = monotonic_ns();
		batch_ns = passed_ns - batch_ns;
		round_ps = batch_ns * 1000 / (int64_t)batch;
		least_ps = round_ps < least_ps ? round_ps : least_ps;
		batch *= 2;
	} while (passed_ns - began_ns < MEASURE_NS);
	free(message);
	return bad ? -EBADMSG : least_ps;
}
