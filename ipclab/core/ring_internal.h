/* ring_internal.h: what ring.c (opening, put, get) and ring_wait.c (waiting) have in common, and nobody else needs. */
#ifndef IPCLAB_RING_INTERNAL_H
#define IPCLAB_RING_INTERNAL_H

#include "ring.h"

#define RECORD_HEADER_BYTES UINT64_C(8)
#define LINE_BYTES UINT64_C(64)
#define ALIGN_FROM_BYTES 1024 /* chosen: below, the padding costs more of the ring than the copy gains */

/*
 * Where the message of the record at `at` begins, counted from there: a long one begins with a cache line, because a
 * copy whose every other access crosses two lines takes longer. Both sides reckon alike, from the place and the length.
 */
static inline uint64_t message_offset(uint64_t at, uint64_t size)
{
	if (size < ALIGN_FROM_BYTES)
		return RECORD_HEADER_BYTES;
	return ((at + RECORD_HEADER_BYTES + LINE_BYTES - 1) & ~(LINE_BYTES - 1)) - at;
}

static inline uint64_t record_bytes(uint64_t at, uint64_t size)
{
	return message_offset(at, size) + ((size + 7) & ~UINT64_C(7));
}

/* Enough for a message of that size wherever its record begins. */
static inline uint64_t room_for(uint64_t size)
{
	return RECORD_HEADER_BYTES + LINE_BYTES + ((size + 7) & ~UINT64_C(7));
}

static inline enum ring_side ring_other(enum ring_side side)
{
	return side == RING_PRODUCER ? RING_CONSUMER : RING_PRODUCER;
}

/* Whether nobody who could still become the other side lives. Only ever says so when that is certain. */
int ring_deserted(struct ring *ring);

#define SPIN_MAX_NS 50000u /* about what waking an idle virtual CPU costs (measured: 37-51 us there and back) */
#define SPIN_MIN_NS 500u
#define SHORT_SLEEP_NS (2 * SPIN_MAX_NS) /* two wake-ups: our peer's, which spinning would have spared, and ours */
#define RETRY_FIRST 16u
#define RETRY_LAST 1024u /* so that trying in vain costs 50 ns a wait */

/* How long a side spins: how it begins, and what it learns from each wait (ring_wait.c says why). */
void ring_pace(struct ring_pace *pace);
void ring_spinning_paid(struct ring_pace *pace);
void ring_spun_in_vain(struct ring_pace *pace);
/* After a wait that began so long ago and ended in a sleep. */
void ring_has_slept(struct ring_pace *pace, int64_t waited_ns);
/* Lets the other side know which CPU this one is confined to, if it is. */
void ring_tell_cpu(struct ring *ring, enum ring_side side);

#endif
