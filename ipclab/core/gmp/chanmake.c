/*
 * chanmake.c: channels and semaphores made and given back while all runs. (Go: makechan, and the collector's half.)
 *
 *   nobody's --take--> in the maker's hand --used = 1--> somebody's --used = 0--> --put--> nobody's
 *
 * A record that is not used is nobody's: repair makes the lists anew from that. The store of used is what counts: a maker
 * killed before it has made nothing (a buffer's block is found by heapRebuild), and who is killed after used = 0 has
 * given it back. A maker killed before he has told anybody the index of what he made leaves a record that is lost to the
 * run.
 */
#define _GNU_SOURCE
#include "chan.h"
#include "lock_futex.h"
#include "mheap.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

/* With chanlock held: a record that is nobody's, off the list, or a new one behind the last; -ENOSPC, -ENOMEM. */
static int takeChan(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t free = load_relaxed(&s->chanfree), n = load_relaxed(&s->nchans);
	int rc;

	if (free) {
		store_relaxed(&s->chanfree, load_relaxed(&rt->chans[free - 1].next));
		POINT(rt, "takeChan.taken");
		return (int)free - 1;
	}
	rc = n < s->maxchans ? commitRecord(rt, s->off_chans, sizeof(struct hchan), n, &s->chancommitted, s->maxchans) : -ENOSPC;
	if (rc)
		return rc;
	store_release(&s->nchans, n + 1);
	POINT(rt, "takeChan.new");
	return (int)n;
}

static int takeSema(struct gmp *rt)
{
	struct schedt *s = rt->s;
	uint32_t free = load_relaxed(&s->semafree), n = load_relaxed(&s->nsemas);
	int rc;

	if (free) {
		store_relaxed(&s->semafree, load_relaxed(&rt->semas[free - 1].next));
		POINT(rt, "takeSema.taken");
		return (int)free - 1;
	}
	rc = n < s->maxsemas ? commitRecord(rt, s->off_semas, sizeof(struct sema), n, &s->semacommitted, s->maxsemas) : -ENOSPC;
	if (rc)
		return rc;
	store_release(&s->nsemas, n + 1);
	POINT(rt, "takeSema.new");
	return (int)n;
}

/* Where its elements lie: in a block where there is a heap, else in words, which are never given back. */
static int giveBuffer(struct gmp *rt, struct hchan *c, uint32_t capacity, uint32_t block)
{
	struct schedt *s = rt->s;

	c->dataqsiz = capacity;
	c->block = block;
	c->buf = s->nwords;
	if (block)
		c->buf = (uint64_t)((uint64_t *)blockData(rt, block) - (uint64_t *)rt->words);
	else if (capacity > s->maxwords - s->nwords)
		return -ENOSPC;
	else
		s->nwords += capacity; /* no point: before the start */
	return 0;
}

int makechan(struct gmp *rt, uint32_t capacity)
{
	struct schedt *s = rt->s;
	uint32_t block = 0;
	int index = 0, rc = 0;

	if (capacity && s->maxspans && !(block = blockAlloc(rt, (uint64_t)capacity * sizeof(uint64_t), &rc)))
		return rc;
	lock(rt, &s->chanlock);
	index = takeChan(rt);
	if (index >= 0) {
		struct hchan *c = &rt->chans[index];

		/* no point: it is nobody's */
		store_relaxed(&c->closed, 0);
		store_relaxed(&c->sendx, 0);
		store_relaxed(&c->recvx, 0);
		rc = giveBuffer(rt, c, capacity, block);
		if (block)
			blockPublish(rt, block);

		store_release(&c->used, rc == 0);
		POINT(rt, "makechan.used");
	}
	unlock(rt, &s->chanlock);
	if (index < 0 && block)
		blockFree(rt, block);
	return rc ? rc : index;
}

int makesema(struct gmp *rt, uint32_t value)
{
	int index;

	lock(rt, &rt->s->chanlock);
	index = takeSema(rt);
	if (index >= 0) {
		struct sema *s = &rt->semas[index];

		/* no point: it is nobody's */
		store_relaxed(&s->value, value);
		store_relaxed(&s->state, 0);
		store_relaxed(&s->kind, SEMA_COUNTS);
		store_relaxed(&s->holder, 0);

		store_release(&s->used, 1);
		POINT(rt, "makesema.used");
	}
	unlock(rt, &rt->s->chanlock);
	return index;
}

void freechan(struct gmp *rt, uint32_t c)
{
	struct hchan *hc = &rt->chans[c];
	uint32_t block = hc->block;
	uint64_t word;
	uint32_t woken;

	while (tryrecv(rt, hc, &word, &woken) == WAIT_DONE)
		if (blockOfWord(word))
			blockFree(rt, blockOfWord(word));
	if (block)
		blockTake(rt, block);
	lock(rt, &rt->s->chanlock);
	store_release(&hc->used, 0);
	POINT(rt, "freechan.free");
	store_relaxed(&hc->next, load_relaxed(&rt->s->chanfree));
	POINT(rt, "freechan.linked");
	store_relaxed(&rt->s->chanfree, c + 1);
	POINT(rt, "freechan.listed");
	unlock(rt, &rt->s->chanlock);
	if (block)
		blockFree(rt, block);
}

void freesema(struct gmp *rt, uint32_t s)
{
	struct sema *sema = &rt->semas[s];

	lock(rt, &rt->s->chanlock);
	store_release(&sema->used, 0);
	POINT(rt, "freesema.free");
	store_relaxed(&sema->next, load_relaxed(&rt->s->semafree));
	POINT(rt, "freesema.linked");
	store_relaxed(&rt->s->semafree, s + 1);
	POINT(rt, "freesema.listed");
	unlock(rt, &rt->s->chanlock);
}

/* no point: the template alone; if that is killed, all Ms are */
void chansRebuild(struct gmp *rt)
{
	struct schedt *s = rt->s;

	store_relaxed(&s->chanfree, 0);
	store_relaxed(&s->semafree, 0);
	for (uint32_t i = load_relaxed(&s->nchans); i > 0; i--) {
		if (load_relaxed(&rt->chans[i - 1].used))
			continue;
		store_relaxed(&rt->chans[i - 1].next, load_relaxed(&s->chanfree));
		store_relaxed(&s->chanfree, i);
	}
	for (uint32_t i = load_relaxed(&s->nsemas); i > 0; i--) {
		if (load_relaxed(&rt->semas[i - 1].used))
			continue;
		store_relaxed(&rt->semas[i - 1].next, load_relaxed(&s->semafree));
		store_relaxed(&s->semafree, i);
	}
}
