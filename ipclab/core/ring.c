/* ring.c: see ring.h. */
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "futex.h"
#include "ring_internal.h"

/* --- members: who has the ring open --- */

static pthread_mutex_t open_rings_lock = PTHREAD_MUTEX_INITIALIZER;
static struct ring *open_rings; /* guard: open_rings_lock */

static void join_members(struct ring *ring)
{
	identity self = identity_self(), seen;

	if (pid_namespace() != ring->shared->header.pid_namespace)
		store_seq_cst(&ring->shared->foreign, 1);
	for (int i = 0; i < RING_MEMBERS; i++) {
		seen = load_seq_cst(&ring->shared->members[i]);
		if (seen == self)
			return;
		if (seen && identity_alive(seen))
			continue;
		if (cas_seq_cst(&ring->shared->members[i], &seen, self)) {
			if (self != ring->shared->header.creator)
				add_seq_cst(&ring->shared->attached, 1);
			return;
		}
	}
	store_seq_cst(&ring->shared->crowded, 1);
}

static void leave_members(struct ring *ring)
{
	identity self = identity_self(), seen;

	for (int i = 0; i < RING_MEMBERS; i++) {
		seen = self;
		if (cas_seq_cst(&ring->shared->members[i], &seen, 0))
			return;
	}
}

/* Whether nobody who could still become the other side lives. Only ever says so when that is certain. */
int ring_deserted(struct ring *ring)
{
	identity self = identity_self(), seen;

	if (load_seq_cst(&ring->shared->foreign) || load_seq_cst(&ring->shared->crowded))
		return 0;
	if (self == ring->shared->header.creator && !load_seq_cst(&ring->shared->attached) && !ring->forked)
		return 0; /* nobody has come yet: the fd may be on its way */
	for (int i = 0; i < RING_MEMBERS; i++) {
		seen = load_seq_cst(&ring->shared->members[i]);
		if (seen && seen != self && identity_alive(seen))
			return 0;
	}
	return !ring->forked || !any_child_alive(); /* a child that has not run yet has not joined yet */
}

static void lock_open_rings(void)
{
	pthread_mutex_lock(&open_rings_lock);
}

static void prepare_fork(void)
{
	lock_open_rings();
	for (struct ring *ring = open_rings; ring; ring = ring->next)
		ring->forked = 1;
}

static void unlock_open_rings(void)
{
	pthread_mutex_unlock(&open_rings_lock);
}

/* A forked child has the mapping but owns no side of it: what its parent claimed is the parent's. */
static void join_in_child(void)
{
	for (struct ring *ring = open_rings; ring; ring = ring->next) {
		for (int side = 0; side < 2; side++)
			ring->side[side].claimed = ring->side[side].busy = 0, ring->side[side].look_every_ns = 0;
		ring->forked = 0;
		join_members(ring);
	}
	pthread_mutex_unlock(&open_rings_lock);
}

static void watch_forks(void)
{
	pthread_atfork(prepare_fork, unlock_open_rings, join_in_child);
}

static void list_open(struct ring *ring)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, watch_forks);
	lock_open_rings();
	ring->next = open_rings;
	open_rings = ring;
	unlock_open_rings();
}

static void unlist_open(struct ring *ring)
{
	lock_open_rings();
	for (struct ring **at = &open_rings; *at; at = &(*at)->next) {
		if (*at == ring) {
			*at = ring->next;
			break;
		}
	}
	unlock_open_rings();
}

/* --- opening and closing --- */

static void set_up(struct ring *ring)
{
	ring->shared = ring->segment.base;
	ring->data = segment_data(&ring->segment);
	ring->data_bytes = ring->segment.total_bytes - ring->shared->header.header_bytes;
	ring->capacity = ring->shared->capacity;
	ring_pace(&ring->side[0].pace);
	ring_pace(&ring->side[1].pace);
	join_members(ring);
	list_open(ring);
}

int ring_create(struct ring *ring, const char *name, size_t capacity)
{
	int rc;

	memset(ring, 0, sizeof *ring);
	ring->segment.fd = -1;
	if (capacity < 1 || capacity > (size_t)INT64_MAX / 8)
		return -EINVAL;
	rc = segment_create(&ring->segment, name, SEGMENT_RING, sizeof(struct ring_shared), room_for(capacity), 1);
	if (rc)
		return rc;
	((struct ring_shared *)ring->segment.base)->capacity = capacity;
	set_up(ring);
	return 0;
}

static int attached(struct ring *ring, int rc)
{
	const struct ring_shared *shared = ring->segment.base;

	if (rc)
		return rc;
	if (shared->header.header_bytes < sizeof *shared || !shared->capacity ||
	    room_for(shared->capacity) > shared->header.total_bytes - shared->header.header_bytes) {
		segment_close(&ring->segment);
		return -EBADMSG;
	}
	set_up(ring);
	return 0;
}

int ring_attach(struct ring *ring, int fd)
{
	memset(ring, 0, sizeof *ring);
	return attached(ring, segment_attach(&ring->segment, fd, SEGMENT_RING, 1));
}

int ring_attach_named(struct ring *ring, const char *name)
{
	memset(ring, 0, sizeof *ring);
	return attached(ring, segment_attach_named(&ring->segment, name, SEGMENT_RING, 1));
}

void ring_close(struct ring *ring)
{
	if (!ring->shared)
		return;
	unlist_open(ring);
	for (int side = 0; side < 2; side++) {
		if (!ring->side[side].claimed)
			continue;
		store_seq_cst(&ring->shared->side[side].closed, 1);
		note_poke(&ring->shared->side[ring_other(side)].note);
	}
	leave_members(ring);
	segment_close(&ring->segment);
	ring->shared = NULL;
}

void ring_cancel(struct ring *ring)
{
	store_seq_cst(&ring->cancelled, 1);
	for (int side = 0; side < 2; side++)
		note_poke(&ring->shared->side[side].note);
}

int ring_claim(struct ring *ring, enum ring_side side)
{
	identity self, nobody = 0;

	if (ring->side[side].claimed)
		return 0;
	self = identity_self();
	if (!cas_seq_cst(&ring->shared->side[side].owner, &nobody, self) && nobody != self)
		return -EBUSY;
	if (load_seq_cst(&ring->shared->side[side].closed))
		return -EPIPE;
	ring->side[side].claimed = 1;
	if (side == RING_PRODUCER) {
		ring->cached_head = load_acquire(&ring->shared->head);
		ring->tail_at = load_relaxed(&ring->shared->tail) % ring->data_bytes;
	} else {
		ring->cached_tail = load_acquire(&ring->shared->tail);
		ring->head_at = load_relaxed(&ring->shared->head) % ring->data_bytes;
	}
	ring_tell_cpu(ring, side);
	return 0;
}

/* --- the two hot paths --- */

static int fits(struct ring *ring, uint64_t tail, uint64_t need)
{
	if (ring->data_bytes - (tail - ring->cached_head) >= need)
		return 1;
	ring->cached_head = load_acquire(&ring->shared->head);
	return ring->data_bytes - (tail - ring->cached_head) >= need;
}

static uint64_t advance(uint64_t at, uint64_t by, uint64_t size)
{
	at += by;
	return at >= size ? at - size : at;
}

/* Writes a record behind tail, which is not moved yet: *new_tail is where it goes. */
static inline int write_record(struct ring *ring, const void *message, size_t size, uint64_t *new_tail)
{
	struct ring_shared *shared = ring->shared;
	uint64_t tail, need, length = size;
	char *record;
	int rc;

	if (size > ring->capacity)
		return -EMSGSIZE;
	if (!ring->side[RING_PRODUCER].claimed && (rc = ring_claim(ring, RING_PRODUCER)) < 0)
		return rc;
	if (load_relaxed(&shared->side[RING_CONSUMER].closed))
		return -EPIPE;
	need = record_bytes(ring->tail_at, size);
	tail = load_relaxed(&shared->tail);
	if (!fits(ring, tail, need))
		return -EAGAIN;
	record = ring->data + ring->tail_at;
	memcpy(record, &length, sizeof length);
	memcpy(record + message_offset(ring->tail_at, size), message, size);
	ring->tail_at = advance(ring->tail_at, need, ring->data_bytes);
	ring->put_count++;
	*new_tail = tail + need;
	return 0;
}

int ring_put(struct ring *ring, const void *message, size_t size)
{
	uint64_t tail;
	int rc = write_record(ring, message, size, &tail);

	if (rc < 0)
		return rc;
	/* So that the consumer sees the record before tail, and that we see it asleep if it did not see tail. */
	store_seq_cst(&ring->shared->tail, tail);
	ring->side[RING_PRODUCER].wake_count += (uint64_t)note_poke(&ring->shared->side[RING_CONSUMER].note);
	return 0;
}

int ring_put_sleepless(struct ring *ring, const void *message, size_t size)
{
	uint64_t tail;
	int rc = write_record(ring, message, size, &tail);

	if (rc == 0)
		store_release(&ring->shared->tail, tail); /* nobody sleeps, so nobody is looked for */
	return rc;
}

ssize_t ring_peek(struct ring *ring, const void **message)
{
	struct ring_shared *shared = ring->shared;
	uint64_t head, length;
	uint32_t closed;
	int rc;

	if (!ring->side[RING_CONSUMER].claimed && (rc = ring_claim(ring, RING_CONSUMER)) < 0)
		return rc;
	head = load_relaxed(&shared->head);
	if (head == ring->cached_tail) {
		closed = load_acquire(&shared->side[RING_PRODUCER].closed); /* before tail: see Death in ring.h */
		ring->cached_tail = load_acquire(&shared->tail);
		if (head == ring->cached_tail)
			return closed ? -EPIPE : -EAGAIN;
	}
	memcpy(&length, ring->data + ring->head_at, sizeof length);
	if (length > ring->capacity || record_bytes(ring->head_at, length) > ring->cached_tail - head)
		return -EBADMSG;
	*message = ring->data + ring->head_at + message_offset(ring->head_at, length);
	return (ssize_t)length;
}

/* Steps over the record at head, which is not moved yet; where it goes, or where it is when the record is spoilt. */
static inline uint64_t step_over(struct ring *ring)
{
	uint64_t head = load_relaxed(&ring->shared->head), length, took;

	memcpy(&length, ring->data + ring->head_at, sizeof length);
	took = record_bytes(ring->head_at, length);
	if (length > ring->capacity || took > ring->cached_tail - head)
		return head; /* spoilt since the peek; the next peek says so */
	ring->head_at = advance(ring->head_at, took, ring->data_bytes);
	ring->get_count++;
	return head + took;
}

void ring_consume(struct ring *ring)
{
	uint64_t head = step_over(ring);

	/* So that our reads are done before the producer sees room, and that we see it asleep if it did not see head. */
	store_seq_cst(&ring->shared->head, head);
	ring->side[RING_CONSUMER].wake_count += (uint64_t)note_poke(&ring->shared->side[RING_PRODUCER].note);
}

void ring_consume_sleepless(struct ring *ring)
{
	store_release(&ring->shared->head, step_over(ring));
}

uint64_t ring_used_bytes(const struct ring *ring)
{
	uint64_t head = load_seq_cst(&ring->shared->head);

	return load_seq_cst(&ring->shared->tail) - head;
}
