/*
 * ring.h: messages from one process to another through shared memory, without a system call unless somebody sleeps.
 *
 * Vocabulary
 *   producer, consumer   one process each; whoever puts first is the producer for good, whoever gets first the consumer
 *   head, tail           how many bytes have ever been taken out and put in: free-running 64-bit counters.
 *                        tail - head is what is in the ring; the place of a byte is its counter modulo the data size
 *   record               8 bytes of length, the message, padding to 8 bytes; a message of 1 KiB or more begins with a
 *                        cache line
 *   mirror               the data area is mapped twice in a row, so a record that wraps is one run of bytes
 *   members              everybody who has the ring open: the creator, whoever attached, every child that inherited it
 *
 *            producer's line          consumer's line          each in cache lines of its own
 *           +---------------+        +---------------+        +---------------+----------------+
 *           | tail          |        | head          |        | producer.note | consumer.note  |
 *           +---------------+        +---------------+        +---------------+----------------+
 *             writes: producer         writes: consumer         sleeper arms, the other one pokes
 *             reads: consumer          reads: producer
 *
 * The problem. Both sides run on their own CPU. A word one writes and the other reads costs a cache line's journey
 * (100-400 cycles) each time it is read after having been written; a system call costs ten times that.
 *
 * Rejected
 *   - a lock around the indices: two journeys a message, and a dead holder stops the other side
 *   - a "full/empty" flag in every record: the consumer must write every record back, the line travels twice
 *   - semaphores that count: their word is written by both on every message, and sem_post looks for sleepers each time
 *   - streaming stores (MOVNTDQ) by the producer: half as fast where the two CPUs share a cache, for the consumer then
 *     reads from memory
 *   - a copy of a small message beside tail, so that one journey brings both: 10 % faster there and back, but one way
 *     the consumer's looks take away two lines instead of one, and 64 B pass 20 to 40 % slower
 *   - asking for the next record's lines before they are written (PREFETCHW): no gain there and back, a third lost when
 *     Python is the producer
 *   - fixed slots: a 64-byte message in a 64-KiB slot touches new pages for each message, and the caches are gone
 *
 * Chosen. Indices with a private copy of the other side's (cached_head, cached_tail): the other's line is read only when
 * the copy says full or empty. The counters only grow, so an old copy errs on the safe side.
 *
 * The order each side follows
 *   put   1. room by cached_head? no: cached_head = load head (acquire: the consumer is done with those bytes), look again
 *         2. write length and message
 *         3. store tail (seq_cst: the bytes before tail; tail before the look at the consumer's note)
 *         4. poke consumer.note if it sleeps
 *   get   1. data by cached_tail? no: cached_tail = load tail (acquire: the bytes are there), look again
 *         2. read length and message
 *         3. store head (seq_cst: reads before head; head before the look at the producer's note)
 *         4. poke producer.note if it sleeps
 *   sleep note.h's second protocol; the condition is the other's index.
 *
 * Death. A record exists when tail says so: a producer killed anywhere before step 3 has put nothing, after it all. A
 * consumer killed before its step 3 has taken nothing. Nothing else is shared, so nothing can be torn. A sleeper looks
 * at least every RING_LOOK_NS whether the other side lives: first the death is read, then the index once more, so that the last
 * record of the dead is still delivered. Before the other side has made itself known by its first call, a sleeper gives
 * up when there have been other members (or children that may have died before they joined) and none of them lives. A process in another pid namespace cannot be looked
 * for: such a ring waits by its deadlines alone (`foreign`).
 *
 * Trust. The peer can write to the same memory, so lengths read from it are checked against what the indices allow
 * (-EBADMSG); it can spoil the messages, but not make this side read or write outside the mapping.
 */
#ifndef IPCLAB_RING_H
#define IPCLAB_RING_H

#include <stddef.h>
#include <stdint.h>

#include "barrier.h"
#include "note.h"
#include "segment.h"

#define RING_MEMBERS 62
/* A sleeper looks whether the other side lives after 4, 8, 16, 32 ms and then every 50 ms: a look costs about 10 us. */
#define RING_FIRST_LOOK_NS INT64_C(4000000)
#define RING_LOOK_NS INT64_C(50000000)

enum ring_side { RING_PRODUCER = 0, RING_CONSUMER = 1 };

/* What the two sides share; the beginning of the segment. */
struct ring_shared {
	struct segment_header header;
	uint64_t capacity;         /* constant; bytes: the largest message */
	_Atomic uint32_t foreign;  /* set once by a member of another pid namespace */
	_Atomic uint32_t crowded;  /* set once when members[] had no room: deaths before the first call go unseen */
	_Atomic uint32_t attached; /* how many have ever become members besides the creator */
	_Alignas(FALSE_SHARING_BYTES) _Atomic uint64_t tail; /* writer: the producer; unit: bytes */
	_Alignas(FALSE_SHARING_BYTES) _Atomic uint64_t head; /* writer: the consumer; unit: bytes */
	struct {
		_Alignas(FALSE_SHARING_BYTES) struct note note; /* where this side sleeps */
		_Atomic uint64_t owner;                        /* identity, by compare-and-swap from 0; then constant */
		_Atomic uint32_t closed;                       /* set once, by the owner */
		_Atomic uint32_t confined;                     /* 1 + the only CPU the owner may run on; 0: several, or not known */
	} side[2];
	_Alignas(FALSE_SHARING_BYTES) _Atomic uint64_t members[RING_MEMBERS]; /* identity; taken and left by swaps */
};

/* How a side waits; it adapts (ring_wait.c). */
struct ring_pace {
	uint32_t spin_ns;      /* how long it spins before it sleeps; 0: never */
	uint32_t short_sleeps; /* since the full time was last tried */
	uint32_t retry_after;  /* so many of them */
	uint32_t lingers;      /* it gives the other side time before it looks */
	uint32_t hasty_count;  /* waits since it last tried that */
	uint64_t moved_before; /* messages it had moved when it last had to wait */
};

/* One process's handle. Not thread-safe per side: one thread puts, one gets (they may be two). */
struct ring {
	struct segment segment;
	struct ring_shared *shared;
	char *data;
	uint64_t data_bytes;
	uint64_t capacity;
	struct ring *next; /* all open rings of this process: a forked child joins them */
	uint32_t attentive; /* for the binding: a wait returns -EINTR after every look, so that signal handlers get a turn */
	uint32_t forked;   /* set once: this process has forked since it opened the ring */
	/* the producer's private words; unit: bytes */
	_Alignas(64) uint64_t cached_head;
	uint64_t tail_at; /* tail modulo data_bytes */
	uint64_t put_count;
	/* the consumer's */
	_Alignas(64) uint64_t cached_tail;
	uint64_t head_at;
	uint64_t get_count;
	struct {
		_Alignas(64) uint32_t claimed;   /* this process owns the side */
		struct ring_pace pace;
		int64_t look_every_ns;           /* of a wait that is under way; else 0 */
		int64_t look_at_ns;              /* its next look */
		uint64_t sleep_count;            /* waits that ended in a system call */
		uint64_t park_count;             /* futex(2) calls those waits made, at most */
		uint64_t wake_count;             /* pokes that woke the other side */
		uint32_t busy;                   /* for the binding: a thread of this process is in a call */
	} side[2];
	_Atomic uint32_t cancelled; /* set once: this process's waits end with -ECANCELED */
};

/* A ring for messages of up to capacity bytes. name NULL: memfd, else shm_open's name. 0 or -errno. */
int ring_create(struct ring *ring, const char *name, size_t capacity);
int ring_attach(struct ring *ring, int fd);
int ring_attach_named(struct ring *ring, const char *name);
/* Closes the sides this process owns (their peers get -EPIPE once the ring is empty, or at once when they put). */
void ring_close(struct ring *ring);

/* Ends the waits of this process's other threads; ring_close may follow when they have returned. */
void ring_cancel(struct ring *ring);

/* Makes this process the owner of a side. 0; -EBUSY another process is; -EPIPE it has been closed. */
int ring_claim(struct ring *ring, enum ring_side side);

/* Copies one message in. 0; -EAGAIN full; -EMSGSIZE; -EPIPE the consumer has closed; -EBUSY not the producer. */
int ring_put(struct ring *ring, const void *message, size_t size);
/* The next message, in place, until ring_consume; size >= 0. -EAGAIN empty, -EPIPE empty and closed, -EBADMSG torn. */
ssize_t ring_peek(struct ring *ring, const void **message);
void ring_consume(struct ring *ring);
/*
 * The same for two sides that both spin and never call ring_wait: without the store that is ordered before the look for
 * a sleeper, which costs 20 cycles and makes the lines travel one after the other. A sleeper would not be woken by it.
 */
int ring_put_sleepless(struct ring *ring, const void *message, size_t size);
void ring_consume_sleepless(struct ring *ring);

/*
 * Waits until the side can go on: RING_PRODUCER until `size` bytes fit, RING_CONSUMER until there is a message.
 * 0; -ETIMEDOUT; -EINTR (call again to go on waiting); -ECANCELED; -EPIPE the other side has closed; -EOWNERDEAD it has died (and nothing is left to get).
 */
int ring_wait(struct ring *ring, enum ring_side side, size_t size, int64_t deadline_ns);
/* The part of ring_wait that burns CPU: 0 when the side can go on, -EAGAIN when not within max_ns (or it would not pay). */
int ring_spin(struct ring *ring, enum ring_side side, size_t size, int64_t max_ns);

/* Bytes that lie in the ring, records and padding counted. */
uint64_t ring_used_bytes(const struct ring *ring);

#endif
