/*
 * runq.h: where runnable and dead Gs wait: a P's ring, the global queue, the free lists. (Go: runtime/proc.go, from
 * "runqempty" on.)
 *
 *                 runnext          one G that shares the time slice of the one which readied it
 *   owner ->  [ head ... tail ]    256 slots; the owner puts at the tail; anybody, the owner too, takes at the head
 *                  |                by compare-and-swap
 *             full: half of it and the new one, 129 Gs, go to the global queue in one splice, under sched.lock
 *
 * Orders that matter
 *   put    slot, then tail (release; runqput: seq_cst, see proc.c): who sees the new tail sees the slot.
 *   take   copy the slots, then head by CAS (release): after it the owner may overwrite them, and a copy that was
 *          overwritten under the reader's hands is one whose CAS fails.
 *   empty  head, tail and runnext do not change together: runnext may be kicked into the ring between two looks, and
 *          neither look would see the G. So tail is read again: unchanged means that all three were true at once.
 *   A G's schedlink is written only by who has the G alone: after the CAS that took it out, never before.
 *
 * A G that is on its way is on no queue. Every move takes it from one place before it puts it in another, so a kill in
 * between loses the place and never doubles it: repair finds a runnable G that is nowhere, and queues it.
 */
#ifndef IPCLAB_GMP_RUNQ_H
#define IPCLAB_GMP_RUNQ_H

#include "runtime2.h"

/* lists by schedlink; the caller holds what guards them */
void queuePushBack(struct gmp *rt, struct gQueue *q, uint32_t g);
void queuePushBackAll(struct gmp *rt, struct gQueue *q, struct gQueue *batch);
uint32_t queuePop(struct gmp *rt, struct gQueue *q);

/* the P's ring; put* by its owner only */
bool runqempty(struct p *pp);
void runqput(struct gmp *rt, struct p *pp, uint32_t g, bool next);
void runqputbatch(struct gmp *rt, struct p *pp, struct gQueue *q); /* what does not fit stays in q */
uint32_t runqget(struct gmp *rt, struct p *pp, bool *inheritTime);
uint32_t runqsteal(struct gmp *rt, struct p *pp, struct p *p2, bool stealRunNextG);

/* the global queue; with sched.lock held */
void globrunqput(struct gmp *rt, uint32_t g);
void globrunqputhead(struct gmp *rt, uint32_t g);
void globrunqputbatch(struct gmp *rt, struct gQueue *batch);
uint32_t globrunqget(struct gmp *rt);
uint32_t globrunqgetbatch(struct gmp *rt, int32_t n, struct gQueue *rest);

/* dead Gs: 64 at most with a P, then down to 32; the rest with sched */
void gfput(struct gmp *rt, struct p *pp, uint32_t g);
uint32_t gfget(struct gmp *rt, struct p *pp);
void gfpurge(struct gmp *rt, struct p *pp);
/* A new record, dead and in allgs; 0 and -errno in *error when the segment is full. */
uint32_t malg(struct gmp *rt, int *error);
uint64_t newgoid(struct gmp *rt, struct p *pp);

/* Makes sure that record `index` of a table has memory; *committed counts records; the table's lock is held. */
int commitRecord(struct gmp *rt, uint64_t off, size_t size, uint32_t index, uint32_t *committed, uint32_t most);

/* sudogs beyond a G's own; by index, which counts on from maxg. 0: the segment is full */
uint32_t acquireSudog(struct gmp *rt);
void releaseSudog(struct gmp *rt, uint32_t sg);
static inline struct sudog *sudogOf(struct gmp *rt, uint32_t sg)
{
	return sg <= rt->s->maxg ? &G(rt, sg)->sg : &rt->sudogs[sg - rt->s->maxg];
}

/* Visits 0..count-1 once each, from a random start by a random stride that has no factor in common with count. */
struct randomEnum {
	uint32_t i, count, pos, inc;
};
struct randomEnum randomOrder(struct gmp *rt, uint32_t count);
static inline bool enumDone(const struct randomEnum *order)
{
	return order->i == order->count;
}
static inline void enumNext(struct randomEnum *order)
{
	order->i++;
	order->pos = (order->pos + order->inc) % order->count;
}

#endif
