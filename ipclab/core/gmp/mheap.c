/* mheap.c: blocks of shared memory. The essay is in mheap.h. */
#define _GNU_SOURCE
#include "mheap.h"

#include "lock_futex.h"
#include "point.h"
#include "mspan.h"
#include "proc.h"

#define CACHE_BYTES 32768u /* chosen: what a P keeps of a class is at most twice this, and at least two blocks */

const uint32_t sizes[SIZE_CLASSES] = {64,   128,  192,	256,  384,  512,   768,	  1024,	 1536,
				      2048, 3072, 4096, 6144, 8192, 12288, 16384, 21824, 32768};

static uint32_t batchOf(uint32_t class)
{
	uint32_t n = CACHE_BYTES / sizes[class];

	return n < 2 ? 2 : n > 64 ? 64 : n;
}

/* SIZE_CLASSES: a large one. */
static uint32_t classOf(uint64_t bytes)
{
	uint64_t size = bytes + sizeof(struct block);
	uint32_t class = 0;

	while (class < SIZE_CLASSES && sizes[class] < size)
		class++;
	return class;
}

static uint32_t whoami(struct gmp *rt)
{
	return rt->m ? M_INDEX(rt, rt->m) : BLOCK_CALLER;
}

/* --- lists --- */

static void push(struct gmp *rt, struct blocklist *list, uint32_t b)
{
	store_relaxed(&blockOf(rt, b)->next, load_relaxed(&list->first));
	POINT(rt, "block.linked");
	store_relaxed(&list->first, b);
	POINT(rt, "block.listed");
	store_relaxed(&list->n, load_relaxed(&list->n) + 1);
	POINT(rt, "block.counted");
}

static uint32_t pop(struct gmp *rt, struct blocklist *list)
{
	uint32_t b = load_relaxed(&list->first);

	if (!b)
		return 0;
	store_relaxed(&list->first, load_relaxed(&blockOf(rt, b)->next));
	POINT(rt, "block.unlisted");
	store_relaxed(&list->n, load_relaxed(&list->n) - 1);
	POINT(rt, "block.uncounted");
	return b;
}

/* --- spans; heaplock is held --- */

/* `n` in a row that are nothing yet; 0: there are not. The first one is never used, so that no block is number 0. */
static uint32_t freeSpans(struct gmp *rt, uint32_t n)
{
	_Atomic uint32_t *spans = spansOf(rt);
	uint32_t run = 0;

	for (uint32_t i = 1; i < rt->s->maxspans; i++) {
		run = load_relaxed(&spans[i]) ? 0 : run + 1;
		if (run == n)
			return i - n + 1;
	}
	return 0;
}

static uint32_t takeSpans(struct gmp *rt, uint32_t n, int *error)
{
	uint32_t span = freeSpans(rt, n);

	*error = span ? segment_commit(&rt->segment, rt->s->off_heap + (uint64_t)span * SPAN_BYTES, (uint64_t)n * SPAN_BYTES)
		      : -ENOSPC;
	return *error ? 0 : span;
}

/* A span of that class, all of whose blocks go on the list. */
static int grow(struct gmp *rt, uint32_t class)
{
	struct blocklist *list = &rt->s->mcentral[class];
	uint32_t step = sizes[class] / BLOCK_UNIT, n = SPAN_BYTES / sizes[class], span, first;
	int error;

	span = takeSpans(rt, 1, &error);
	if (!span)
		return error;
	first = firstOfSpan(span);
	for (uint32_t i = 0; i < n; i++) {
		struct block *block = blockOf(rt, first + i * step);

		/* no point: the span is nothing yet */
		store_relaxed(&block->used, 0);
		store_relaxed(&block->owner, 0);
		store_relaxed(&block->next, i + 1 < n ? first + (i + 1) * step : load_relaxed(&list->first));
	}

	store_release(&spansOf(rt)[span], class + 1);
	POINT(rt, "grow.span");
	store_relaxed(&list->first, first);
	POINT(rt, "grow.listed");
	store_relaxed(&list->n, load_relaxed(&list->n) + n);
	POINT(rt, "grow.counted");
	return 0;
}

static uint32_t allocLarge(struct gmp *rt, uint64_t bytes, int *error)
{
	uint64_t spans = (bytes + sizeof(struct block) + SPAN_BYTES - 1) / SPAN_BYTES;
	uint32_t span = 0, b = 0;

	*error = -ENOSPC;
	lock(rt, &rt->s->heaplock);
	if (spans < rt->s->maxspans)
		span = takeSpans(rt, (uint32_t)spans, error);
	if (span) {
		b = firstOfSpan(span);
		/* no point: the span is nothing yet */
		store_relaxed(&blockOf(rt, b)->owner, whoami(rt));
		store_relaxed(&blockOf(rt, b)->used, 1);

		for (uint32_t i = 1; i < spans; i++) {
			store_relaxed(&spansOf(rt)[span + i], LATER);
			POINT(rt, "allocLarge.later");
		}
		store_release(&spansOf(rt)[span], LARGE | (uint32_t)spans);
		POINT(rt, "allocLarge.span");
	}
	unlock(rt, &rt->s->heaplock);
	return b;
}

/* Its memory goes back to the kernel first: whoever is killed behind that leaves a block of zeros, which is not used. */
static void freeLarge(struct gmp *rt, uint32_t b)
{
	uint32_t span = spanOfBlock(b), n = load_relaxed(&spansOf(rt)[span]) & ~LARGE;

	lock(rt, &rt->s->heaplock);
	segment_discard(&rt->segment, rt->s->off_heap + (uint64_t)span * SPAN_BYTES, (uint64_t)n * SPAN_BYTES);
	POINT(rt, "freeLarge.discarded");
	store_release(&spansOf(rt)[span], 0);
	POINT(rt, "freeLarge.span");
	for (uint32_t i = 1; i < n; i++) {
		store_relaxed(&spansOf(rt)[span + i], 0);
		POINT(rt, "freeLarge.later");
	}
	unlock(rt, &rt->s->heaplock);
}

/* --- a P's own --- */

static int refill(struct gmp *rt, struct blocklist *cache, uint32_t class)
{
	struct schedt *s = rt->s;
	int error = 0;

	lock(rt, &s->heaplock);
	if (!load_relaxed(&s->mcentral[class].first))
		error = grow(rt, class);
	for (uint32_t i = batchOf(class), b; i > 0 && (b = pop(rt, &s->mcentral[class])); i--)
		push(rt, cache, b);
	unlock(rt, &s->heaplock);
	return error;
}

static void release(struct gmp *rt, struct blocklist *cache, uint32_t class, uint32_t keep)
{
	lock(rt, &rt->s->heaplock);
	while (load_relaxed(&cache->n) > keep)
		push(rt, &rt->s->mcentral[class], pop(rt, cache));
	unlock(rt, &rt->s->heaplock);
}

void mcachePurge(struct gmp *rt, struct p *pp)
{
	for (uint32_t class = 0; class < SIZE_CLASSES; class++)
		if (load_relaxed(&pp->mcache[class].n))
			release(rt, &pp->mcache[class], class, 0);
}

/* Without a P, the caller: of the shared list. */
static uint32_t allocSmall(struct gmp *rt, uint32_t class, int *error)
{
	struct blocklist *list = &rt->s->mcentral[class];
	uint32_t b;

	if (rt->p) {
		list = &rt->p->mcache[class];
		*error = load_relaxed(&list->first) ? 0 : refill(rt, list, class);
		return pop(rt, list);
	}
	lock(rt, &rt->s->heaplock);
	*error = load_relaxed(&list->first) ? 0 : grow(rt, class);
	b = pop(rt, list);
	unlock(rt, &rt->s->heaplock);
	return b;
}

uint32_t blockAlloc(struct gmp *rt, uint64_t bytes, int *error)
{
	uint32_t class = classOf(bytes), b;

	if (class == SIZE_CLASSES) {
		b = allocLarge(rt, bytes, error);
	} else {
		b = allocSmall(rt, class, error);
		if (b) {
			store_relaxed(&blockOf(rt, b)->owner, whoami(rt));
			POINT(rt, "blockAlloc.owner");
			store_release(&blockOf(rt, b)->used, 1);
			POINT(rt, "blockAlloc.used");
		}
	}
	if (b)
		blockOf(rt, b)->bytes = bytes;
	return b;
}

void blockFree(struct gmp *rt, uint32_t b)
{
	uint32_t class = (load_relaxed(&spansOf(rt)[spanOfBlock(b)]) & ~(LARGE | LATER)) - 1;
	struct blocklist *list;

	if (load_relaxed(&spansOf(rt)[spanOfBlock(b)]) & LARGE) {
		freeLarge(rt, b);
		return;
	}
	store_release(&blockOf(rt, b)->used, 0);
	POINT(rt, "blockFree.free");
	if (!rt->p) {
		lock(rt, &rt->s->heaplock);
		push(rt, &rt->s->mcentral[class], b);
		unlock(rt, &rt->s->heaplock);
		return;
	}
	list = &rt->p->mcache[class];
	push(rt, list, b);
	if (load_relaxed(&list->n) >= 2 * batchOf(class))
		release(rt, list, class, batchOf(class));
}

void blockPublish(struct gmp *rt, uint32_t b)
{
	store_release(&blockOf(rt, b)->owner, 0);
	POINT(rt, "block.published");
}

void blockTake(struct gmp *rt, uint32_t b)
{
	store_release(&blockOf(rt, b)->owner, whoami(rt));
	POINT(rt, "block.taken");
}
