/*
 * carrier_slots.c: the bounded buffer of mechanisms/shared/_slots.py, whose text explains layout and order; the two
 * must agree. Posix-shm, sysv-shm, memfd and mmap-file all end here: they differ in where the memory comes from.
 *
 *     header: message bytes, depth | a to b: filled, free, final, gone, slots | b to a: the same
 */
#define _GNU_SOURCE
#include "carrier.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "barrier.h"
#include "semaphore.h"

#define LINE 64
#define OPEN UINT64_MAX /* `final` while the writer has not closed */
enum { FILLED = 0, FREE = LINE, FINAL = 2 * LINE, GONE = 3 * LINE, SLOTS = 4 * LINE };

struct direction {
	sem_t *filled, *free;
	_Atomic uint64_t *final, *gone;
	unsigned char *slots;
	uint64_t count; /* messages moved through it by this side, in all */
	uint64_t at;    /* count modulo depth */
};

struct slots {
	struct carrier base;
	uint64_t message_bytes, depth, stride;
	struct direction out, in;
	int in_place;
	pid_t owner; /* a child that inherits the carrier has nothing to say at its end */
};

static void find_direction(const struct slots *self, struct direction *direction, size_t offset, int64_t count)
{
	unsigned char *block = self->base.memory + offset;

	direction->filled = (sem_t *)(void *)(block + FILLED);
	direction->free = (sem_t *)(void *)(block + FREE);
	direction->final = (_Atomic uint64_t *)(void *)(block + FINAL);
	direction->gone = (_Atomic uint64_t *)(void *)(block + GONE);
	direction->slots = block + SLOTS;
	direction->count = (uint64_t)count;
	direction->at = (uint64_t)count % self->depth;
}

static int slots_open(struct carrier *carrier)
{
	struct slots *self = (struct slots *)carrier;
	int64_t side, sent = carrier_number_or(carrier, "sent", 0), received = carrier_number_or(carrier, "received", 0);
	uint64_t header[2], block_bytes;

	if (carrier_number(carrier, "side", &side) < 0 || carrier->memory_bytes < LINE || sent < 0 || received < 0 ||
	    (uintptr_t)carrier->memory % LINE)
		return -EINVAL;
	memcpy(header, carrier->memory, sizeof header);
	self->message_bytes = header[0];
	self->depth = header[1];
	/* What the header says must fit what is mapped, step by step, so that nothing overflows. */
	if (!self->depth || self->message_bytes > carrier->memory_bytes || self->depth > carrier->memory_bytes)
		return -EBADMSG;
	self->stride = LINE + (self->message_bytes + LINE - 1) / LINE * LINE;
	if (self->depth > carrier->memory_bytes / self->stride)
		return -EBADMSG;
	block_bytes = SLOTS + self->depth * self->stride;
	if (LINE + 2 * block_bytes > carrier->memory_bytes)
		return -EBADMSG;
	find_direction(self, &self->out, LINE + (side ? block_bytes : 0), sent);
	find_direction(self, &self->in, LINE + (side ? 0 : block_bytes), received);
	self->in_place = carrier_number_or(carrier, "in_place", 0) != 0;
	self->owner = getpid();
	carrier->limit_bytes = self->message_bytes;
	return 0;
}

/* The orderly end, as SlotEnd.close() has it. */
static void slots_close(struct carrier *carrier)
{
	struct slots *self = (struct slots *)carrier;

	if (self->owner != getpid())
		return;
	store_seq_cst(self->out.final, self->out.count);
	store_seq_cst(self->in.gone, 1);
	sem_post(self->out.filled);
	sem_post(self->in.free);
}

static unsigned char *slot_of(const struct slots *self, const struct direction *direction)
{
	return direction->slots + direction->at * self->stride;
}

static void step(const struct slots *self, struct direction *direction)
{
	direction->count++;
	if (++direction->at == self->depth)
		direction->at = 0;
}

static int slots_send(struct carrier *carrier, void *message, size_t size)
{
	struct slots *self = (struct slots *)carrier;
	struct direction *out = &self->out;
	uint64_t length = size;
	unsigned char *slot;
	int rc;

	if (load_acquire(out->gone))
		return -EPIPE;
	rc = semaphore_take(carrier, out->free);
	if (rc < 0)
		return rc;
	if (load_acquire(out->gone)) { /* it was the close that posted */
		sem_post(out->free);
		return -EPIPE;
	}
	slot = slot_of(self, out);
	memcpy(slot + LINE, message, size);
	memcpy(slot, &length, sizeof length);
	step(self, out);
	return semaphore_give(carrier, out->filled);
}

static ssize_t slots_receive(struct carrier *carrier, void *room, size_t size, const void **message)
{
	struct slots *self = (struct slots *)carrier;
	struct direction *in = &self->in;
	unsigned char *slot;
	uint64_t length;
	int rc;

	rc = semaphore_take(carrier, in->filled);
	if (rc < 0)
		return rc;
	if (load_acquire(in->final) == in->count) {
		sem_post(in->filled); /* the end stays the end */
		return -EPIPE;
	}
	slot = slot_of(self, in);
	memcpy(&length, slot, sizeof length);
	if (length > self->message_bytes || length > size + CARRIER_MARGIN)
		return -EBADMSG;
	*message = slot + LINE;
	if (self->in_place)
		return (ssize_t)length;
	memcpy(room, slot + LINE, length);
	*message = room;
	step(self, in);
	rc = semaphore_give(carrier, in->free);
	return rc < 0 ? rc : (ssize_t)length;
}

static void slots_release(struct carrier *carrier)
{
	struct slots *self = (struct slots *)carrier;

	if (!self->in_place)
		return;
	step(self, &self->in);
	semaphore_give(carrier, self->in.free);
}

const struct carrier_calls carrier_slots = {
	.kind = "slots",
	.state_bytes = sizeof(struct slots),
	.counts_sleeps = 1,
	.open = slots_open,
	.close = slots_close,
	.send = slots_send,
	.receive = slots_receive,
	.release = slots_release,
};
