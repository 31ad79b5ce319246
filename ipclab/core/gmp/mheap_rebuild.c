/*
 * mheap_rebuild.c: blocks that nobody has any more, found after a death. See mheap.h.
 *
 * no point: the template alone; if that is killed, all Ms are.
 */
#define _GNU_SOURCE
#include "mspan.h"
#include "proc.h"
#include "runq.h"
#include "template.h"

/* Whether a block begins there: the word may be stale, and its block's span something else by now. */
static bool isBlock(struct gmp *rt, uint32_t b)
{
	uint32_t span = spanOfBlock(b), at = b - firstOfSpan(span), word;

	if (!b || span >= rt->s->maxspans)
		return false;
	word = load_relaxed(&spansOf(rt)[span]);
	if (!word || word & (LARGE | LATER))
		return word & LARGE && at == 0;
	return at % (sizes[word - 1] / BLOCK_UNIT) == 0 && at / (sizes[word - 1] / BLOCK_UNIT) < SPAN_BYTES / sizes[word - 1];
}

static void markWord(struct gmp *rt, uint64_t word)
{
	uint32_t b = blockOfWord(word);

	if (isBlock(rt, b))
		blockOf(rt, b)->mark = rt->s->heapepoch;
}

/* What a sleeper has to send and has not sent, or what a receiver has been given and has not taken out. */
static void markSudog(struct gmp *rt, struct sudog *s)
{
	bool served = load_relaxed(&s->done) && load_relaxed(&s->success);

	if (s->sending ? !served : load_relaxed(&s->done))
		markWord(rt, load_relaxed(&s->elem));
}

/* All words that may name a block. */
static void markAll(struct gmp *rt)
{
	for (uint32_t i = 0; i < load_acquire(&rt->s->nchans); i++) {
		struct hchan *c = &rt->chans[i];

		if (!load_relaxed(&c->used))
			continue;
		markWord(rt, wordOfBlock(c->block));
		for (uint64_t at = load_relaxed(&c->recvx); at != load_relaxed(&c->sendx); at++)
			markWord(rt, load_relaxed(&rt->words[c->buf + at % c->dataqsiz]));
	}
	for (uint32_t g = 1; g <= load_acquire(&rt->s->allglen); g++) {
		if (load_relaxed(&G(rt, g)->atomicstatus) == _Gdead)
			continue;
		markSudog(rt, &G(rt, g)->sg);
		for (uint32_t sg = G(rt, g)->waiting; sg; sg = sudogOf(rt, sg)->waitlink)
			markSudog(rt, sudogOf(rt, sg));
	}
}

static bool inLiveHand(struct gmp *rt, struct block *block)
{
	uint32_t owner = load_relaxed(&block->owner);

	return owner == BLOCK_CALLER || (owner && owner <= mLast(rt) && mLives(rt, owner));
}

static bool isKept(struct gmp *rt, struct block *block)
{
	return load_relaxed(&block->used) && (inLiveHand(rt, block) || block->mark == rt->s->heapepoch);
}

/* A word names it, though the dead had it: it is not to be taken for that of whoever gets his record. */
static void disown(struct gmp *rt, struct block *block)
{
	if (!inLiveHand(rt, block))
		store_relaxed(&block->owner, 0);
}

/* Free, and on the list if it is a small one. Returns 1 if it was used. */
static uint32_t sweep(struct gmp *rt, uint32_t b, struct blocklist *list)
{
	struct block *block = blockOf(rt, b);
	uint32_t was = load_relaxed(&block->used);

	store_relaxed(&block->used, 0);
	store_relaxed(&block->owner, 0);
	store_relaxed(&block->next, load_relaxed(&list->first));
	store_relaxed(&list->first, b);
	store_relaxed(&list->n, load_relaxed(&list->n) + 1);
	return was;
}

static uint32_t sweepSmall(struct gmp *rt, uint32_t span, uint32_t class)
{
	uint32_t lost = 0, step = sizes[class] / BLOCK_UNIT, first = firstOfSpan(span);

	for (uint32_t n = SPAN_BYTES / sizes[class]; n-- > 0;)
		if (isKept(rt, blockOf(rt, first + n * step)))
			disown(rt, blockOf(rt, first + n * step));
		else
			lost += sweep(rt, first + n * step, &rt->s->mcentral[class]);
	return lost;
}

/* A large block, and what one that was being made or given back left of it. Returns how many spans it has. */
static uint32_t sweepLarge(struct gmp *rt, uint32_t span, uint32_t *lost)
{
	uint32_t word = load_relaxed(&spansOf(rt)[span]), n = word & LARGE ? word & ~LARGE : 1;
	struct block *block = blockOf(rt, firstOfSpan(span));

	if (word & LARGE && isKept(rt, block)) {
		disown(rt, block);
		return n;
	}
	*lost += word & LARGE && load_relaxed(&block->used);
	segment_discard(&rt->segment, rt->s->off_heap + (uint64_t)span * SPAN_BYTES, (uint64_t)n * SPAN_BYTES);
	for (uint32_t i = 0; i < n; i++)
		store_relaxed(&spansOf(rt)[span + i], 0);
	return n;
}

static void forgetLists(struct gmp *rt)
{
	for (uint32_t class = 0; class < SIZE_CLASSES; class++) {
		store_relaxed(&rt->s->mcentral[class].first, 0);
		store_relaxed(&rt->s->mcentral[class].n, 0);
		for (uint32_t p = 0; p < GMP_MAXPROCS; p++) {
			store_relaxed(&rt->allp[p].mcache[class].first, 0);
			store_relaxed(&rt->allp[p].mcache[class].n, 0);
		}
	}
}

uint32_t heapRebuild(struct gmp *rt)
{
	uint32_t lost = 0;

	if (!rt->s->maxspans)
		return 0;
	rt->s->heapepoch++;
	forgetLists(rt);
	markAll(rt);
	for (uint32_t span = 1; span < rt->s->maxspans;) {
		uint32_t word = load_relaxed(&spansOf(rt)[span]);

		if (word & (LARGE | LATER)) {
			span += sweepLarge(rt, span, &lost);
			continue;
		}
		lost += word ? sweepSmall(rt, span, word - 1) : 0;
		span++;
	}
	return lost;
}

/* --- for tests --- */

uint32_t heapLost(struct gmp *rt)
{
	uint32_t lost = 0;

	rt->s->heapepoch++;
	markAll(rt);
	for (uint32_t span = 1; span < rt->s->maxspans; span++) {
		uint32_t word = load_relaxed(&spansOf(rt)[span]), first = firstOfSpan(span);
		uint32_t n = !word || word & LATER ? 0 : word & LARGE ? 1 : SPAN_BYTES / sizes[word - 1];

		for (uint32_t i = 0; i < n; i++) {
			struct block *block = blockOf(rt, first + i * (word & LARGE ? 0 : sizes[word - 1] / BLOCK_UNIT));

			lost += load_relaxed(&block->used) && !isKept(rt, block);
		}
	}
	return lost;
}

static const char *listIsRight(struct gmp *rt, struct blocklist *list, uint32_t class)
{
	uint32_t n = 0;

	for (uint32_t b = load_relaxed(&list->first); b; b = load_relaxed(&blockOf(rt, b)->next), n++) {
		if (n > load_relaxed(&list->n) || load_relaxed(&spansOf(rt)[spanOfBlock(b)]) != class + 1)
			return "a list of blocks runs astray";
		if (load_relaxed(&blockOf(rt, b)->used))
			return "a used block is on a list";
		if (blockOf(rt, b)->mark == rt->s->heapepoch)
			return "a block is on two lists, or free and published";
		blockOf(rt, b)->mark = rt->s->heapepoch;
	}
	return n == load_relaxed(&list->n) ? NULL : "a list of blocks is counted wrong";
}

const char *heapBroken(struct gmp *rt)
{
	const char *wrong = NULL;

	rt->s->heapepoch++;
	for (uint32_t class = 0; rt->s->maxspans && class < SIZE_CLASSES; class++) {
		wrong = wrong ? wrong : listIsRight(rt, &rt->s->mcentral[class], class);
		for (uint32_t p = 0; p < GMP_MAXPROCS; p++)
			wrong = wrong ? wrong : listIsRight(rt, &rt->allp[p].mcache[class], class);
	}
	return wrong;
}
