/*
 * carrier_ring.c: the ring (ring.h), one for each direction, by handles of the carrier's own.
 *
 * How it waits is the ring's policy (ring_wait.c): spin, then sleep. `spin_only`, which both sides must be, never
 * sleeps: the price is a CPU, the gain is what the cache lines cost and no more.
 */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <string.h>

#include "barrier.h"
#include "copy.h"
#include "ring.h"
#include "sys.h"

#define SPINS_PER_LOOK 1024

struct ring_carrier {
	struct carrier base;
	int spin_only;
	int in_place;
	struct ring out, in;
};

static int ring_open(struct carrier *carrier)
{
	struct ring_carrier *self = (struct ring_carrier *)carrier;
	int rc = ring_attach(&self->out, carrier->fds[1]);

	if (rc < 0)
		return rc;
	rc = ring_attach(&self->in, carrier->fds[0]);
	if (rc == 0 && (rc = ring_claim(&self->out, RING_PRODUCER)) == 0)
		rc = ring_claim(&self->in, RING_CONSUMER);
	if (rc < 0) {
		ring_close(&self->out);
		ring_close(&self->in);
		return rc;
	}
	self->spin_only = carrier_number_or(carrier, "spin_only", 0) != 0;
	self->in_place = carrier_number_or(carrier, "in_place", 0) != 0;
	carrier->limit_bytes = self->out.capacity;
	return 0;
}

static void ring_carrier_close(struct carrier *carrier)
{
	struct ring_carrier *self = (struct ring_carrier *)carrier;

	ring_close(&self->out);
	ring_close(&self->in);
}

/* A spinner is told by nobody that the other side was killed: it looks when it is interrupted. */
static int interrupted(struct ring_carrier *self, struct ring *ring, enum ring_side side)
{
	identity owner = load_seq_cst(&ring->shared->side[1 - side].owner);

	if (owner && !load_seq_cst(&ring->shared->foreign) && !identity_alive(owner))
		self->base.hurry = 1;
	return -EINTR;
}

/* Spins on `word`, which the other side writes, while it is `old`. 0: look again; -EINTR, -EAGAIN. */
static int spin_on(struct ring_carrier *self, struct ring *ring, enum ring_side side, _Atomic uint64_t *word, uint64_t old)
{
	for (int spins = 0; spins < SPINS_PER_LOOK; spins++) {
		if (load_acquire(word) != old)
			return 0;
		cpu_relax(); /* measured: without it, or with more, the writer gets the line later */
	}
	if (*self->base.ticked)
		return interrupted(self, ring, side);
	return self->base.hurry ? -EAGAIN : 0;
}

static int spin_send(struct ring_carrier *self, const void *message, size_t size)
{
	struct ring *out = &self->out;
	int rc;

	while ((rc = ring_put_sleepless(out, message, size)) == -EAGAIN)
		if ((rc = spin_on(self, out, RING_PRODUCER, &out->shared->head, out->cached_head)) < 0)
			return rc;
	return rc;
}

static int ring_send(struct carrier *carrier, void *message, size_t size)
{
	struct ring_carrier *self = (struct ring_carrier *)carrier;
	int rc;

	if (self->spin_only)
		return spin_send(self, message, size);
	while ((rc = ring_put(&self->out, message, size)) == -EAGAIN)
		if ((rc = ring_wait(&self->out, RING_PRODUCER, size, -1)) < 0)
			return rc;
	return rc;
}

static int wait_for_message(struct ring_carrier *self)
{
	struct ring *in = &self->in;

	if (self->spin_only)
		return spin_on(self, in, RING_CONSUMER, &in->shared->tail, in->cached_tail);
	return ring_wait(in, RING_CONSUMER, 0, -1);
}

static void consume(struct ring_carrier *self)
{
	if (self->spin_only)
		ring_consume_sleepless(&self->in);
	else
		ring_consume(&self->in);
}

static ssize_t ring_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct ring_carrier *self = (struct ring_carrier *)carrier;
	ssize_t got;
	int rc;

	while ((got = ring_peek(&self->in, message)) == -EAGAIN)
		if ((rc = wait_for_message(self)) < 0)
			return rc;
	if (got < 0 || self->in_place)
		return got;
	if ((size_t)got > size + CARRIER_MARGIN)
		return -EBADMSG;
	copy_from_peer(room, *message, (size_t)got);
	consume(self);
	*message = room;
	return got;
}

static void ring_release(struct carrier *carrier)
{
	struct ring_carrier *self = (struct ring_carrier *)carrier;

	if (self->in_place)
		consume(self);
}

static void ring_count(struct carrier *carrier)
{
	struct ring_carrier *self = (struct ring_carrier *)carrier;
	uint64_t parks = self->out.side[RING_PRODUCER].park_count + self->in.side[RING_CONSUMER].park_count;

	carrier->sleeps = self->out.side[RING_PRODUCER].sleep_count + self->in.side[RING_CONSUMER].sleep_count;
	carrier->wakes = self->out.side[RING_PRODUCER].wake_count + self->in.side[RING_CONSUMER].wake_count;
	carrier->system_calls = parks + carrier->wakes;
}

const struct carrier_calls carrier_ring = {
	.kind = "ring",
	.state_bytes = sizeof(struct ring_carrier),
	.fds = 2,
	.counts_sleeps = 1,
	.open = ring_open,
	.close = ring_carrier_close,
	.send = ring_send,
	.receive = ring_receive,
	.release = ring_release,
	.count = ring_count,
};
