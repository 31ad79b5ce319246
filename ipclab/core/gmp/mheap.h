/*
 * mheap.h: blocks of shared memory for what Gs hand to each other. (Go: malloc.go, mheap.go, mcache.go; but nothing is
 * collected while all live: who has a block gives it back.)
 *
 *   mheap     | span | span | span | ...      64 KiB each; spans[] says what each is
 *   span      blocks of one size class, or the first or a later part of one large block
 *   block     | header | payload |            free: on a list by next; used: in a hand, or published
 *
 *   P's mcache --refill, release--> mheap's list of that class, heaplock --grow--> a span that is none yet
 *
 * Whose is a block?
 *   in a hand     owner names the M, or the caller; only he touches it
 *   published     owner is 0; a word somewhere names it: a channel's buffer, a sleeper's elem. Whoever takes that word out
 *                 has it
 *
 * What must hold
 *   1. Nobody is outside the runtime (proc.c, "The gate") with a block that does not name him. So a block is taken in the
 *      stay in which its word was received; and it is published in the stay in which its word is handed on, before that:
 *      afterwards it may be another's already.
 *   2. A block is on at most one list, and only if it is not used.
 *   3. spans[] names a span only when all headers in it are right.
 * Then a death leaves nothing that is not found: with everybody outside, a used block that is in no live hand and that no
 * word names belonged to the dead or to a message that was never sent (heapRebuild). Which words count is said by the
 * records they lie in: what is buffered, what a sleeper has not sent, what a receiver was given and has not taken out. A
 * word that counts though it is stale would keep a block until the next death; it would never free one.
 *
 * Rejected: reference counts (a kill between a copy and its count is a leak or a use after free); one list for all (the
 * lock is then the cost: 20 ns against 4).
 */
#ifndef IPCLAB_GMP_MHEAP_H
#define IPCLAB_GMP_MHEAP_H

#include "runtime2.h"

/* A block is named by its offset in units of this; so is the word that names it in a channel, shifted by one. */
#define BLOCK_UNIT 64u

static inline struct block *blockOf(struct gmp *rt, uint32_t b)
{
	return (struct block *)((char *)rt->s + rt->s->off_heap + (uint64_t)b * BLOCK_UNIT);
}

static inline void *blockData(struct gmp *rt, uint32_t b)
{
	return blockOf(rt, b) + 1;
}

/* Words are either a block's or anything else with the lowest bit set; 0 is nothing. */
static inline uint64_t wordOfBlock(uint32_t b)
{
	return (uint64_t)b << 1;
}

static inline uint32_t blockOfWord(uint64_t word)
{
	return word & 1 ? 0 : (uint32_t)(word >> 1);
}

/* In our hand; 0: the heap is full, and -errno in *error. Contents are whatever they were. */
uint32_t blockAlloc(struct gmp *rt, uint64_t bytes, int *error);
/* Out of our hand, for good. */
void blockFree(struct gmp *rt, uint32_t b);
/* See "What must hold", 1. */
void blockPublish(struct gmp *rt, uint32_t b);
void blockTake(struct gmp *rt, uint32_t b);
/* A P's mcache back to the heap. */
void mcachePurge(struct gmp *rt, struct p *pp);

/* Repair, with everybody outside. Returns how many blocks were found that nobody had any more. */
uint32_t heapRebuild(struct gmp *rt);
/* The same without changing anything, when nobody runs; also what is wrong with the lists. For tests. */
uint32_t heapLost(struct gmp *rt);
const char *heapBroken(struct gmp *rt);

#endif
