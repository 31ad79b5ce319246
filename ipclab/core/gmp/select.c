/*
 * select.c: the first of several channel operations that can be done. (Go: select.go.)
 *
 *   1. lock all channels, by rising index (two selects never wait for each other in a ring)
 *   2. look at the cases in random order: a ready one is done
 *   3. none: a sudog on every channel; park. Wakers race for the G by a CAS on selectDone; one wins
 *   4. woken: lock all again, take the other sudogs out
 */
#define _GNU_SOURCE
#include "chan.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

/* The channels of the cases by rising index, each once; returns how many. */
static uint32_t lockOrder(const struct scase *cases, uint32_t n, uint32_t *order)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t c = cases[i].c, at = count;

		while (at > 0 && order[at - 1] > c)
			at--;
		if (at > 0 && order[at - 1] == c)
			continue;
		for (uint32_t j = count++; j > at; j--)
			order[j] = order[j - 1];
		order[at] = c;
	}
	return count;
}

static void sellock(struct gmp *rt, const uint32_t *order, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		lock(rt, &rt->chans[order[i]].lock);
}

static void selunlock(struct gmp *rt, const uint32_t *order, uint32_t count)
{
	while (count-- > 0)
		unlock(rt, &rt->chans[order[count]].lock);
}

static struct waitq *queueOf(struct gmp *rt, const struct scase *scase)
{
	struct hchan *c = &rt->chans[scase->c];

	return scase->sending ? &c->sendq : &c->recvq;
}

static enum waited tryCase(struct gmp *rt, struct scase *scase, uint32_t *woken)
{
	struct hchan *c = &rt->chans[scase->c];

	return scase->sending ? trysend(rt, c, scase->elem, woken) : tryrecv(rt, c, &scase->elem, woken);
}

/* All sudogs are there before the first one is seen: a G that could not get them must not hang in some queues. */
static bool makeSudogs(struct gmp *rt, uint32_t g, const struct scase *cases, uint32_t n)
{
	struct g *gp = G(rt, g);
	uint32_t sg = g;

	gp->waiting = 0;
	for (uint32_t i = n; i-- > 0;) {
		struct sudog *s;

		sg = i == 0 ? g : acquireSudog(rt);
		if (!sg)
			return false;
		s = sudogOf(rt, sg);
		/* no point: it is in no queue yet */
		*s = (struct sudog){.g = g, .c = cases[i].c, .elem = cases[i].elem, .isSelect = 1,
				    .sending = cases[i].sending, .selectcase = (uint8_t)i, .waitlink = gp->waiting};
		gp->waiting = sg;
	}
	gp->nwaiting = n;
	return true;
}

enum waited selectgo(struct gmp *rt, uint32_t g, struct scase *cases, uint32_t n, bool block, uint32_t *chosen)
{
	uint32_t locks[SELECT_MOST], poll[SELECT_MOST], count = lockOrder(cases, n, locks), woken = 0, at = 0;
	struct g *gp = G(rt, g);

	for (uint32_t i = 0; i < n; i++)
		poll[i] = i;
	shuffle(rt, poll, n);
	sellock(rt, locks, count);
	for (uint32_t i = 0; i < n; i++) {
		enum waited how = tryCase(rt, &cases[poll[i]], &woken);

		if (how == WAIT_WOULDBLOCK)
			continue;
		selunlock(rt, locks, count);
		POINT(rt, "select.unlocked");
		if (woken)
			ready(rt, woken, true);
		*chosen = poll[i];
		return how;
	}
	if (!block || !makeSudogs(rt, g, cases, n)) {
		selunlock(rt, locks, count);
		if (block)
			fatal(rt, FATAL_MEMORY, ENOSPC, "no room for another sudog");
		return WAIT_WOULDBLOCK;
	}
	store_relaxed(&gp->param, 0);
	POINT(rt, "select.param");
	store_relaxed(&gp->selectDone, 0);
	POINT(rt, "select.open");
	for (uint32_t sg = gp->waiting; sg; sg = sudogOf(rt, sg)->waitlink) {
		waitqPut(rt, queueOf(rt, &cases[at++]), sg, false);
		POINT(rt, "select.enqueued");
	}
	gopark(rt, g, waitReasonSelect);
	selunlock(rt, locks, count);
	return WAIT_PARKED;
}

enum waited selectgoResume(struct gmp *rt, uint32_t g, struct scase *cases, uint32_t n, uint32_t *chosen)
{
	uint32_t locks[SELECT_MOST], count = lockOrder(cases, n, locks), next;
	struct g *gp = G(rt, g);
	struct sudog *served = sudogOf(rt, load_relaxed(&gp->param));
	enum waited how = load_relaxed(&served->success) ? WAIT_DONE : WAIT_CLOSED;

	*chosen = served->selectcase;
	cases[*chosen].elem = load_relaxed(&served->elem);
	sellock(rt, locks, count);
	for (uint32_t sg = gp->waiting; sg; sg = sudogOf(rt, sg)->waitlink)
		if (sudogOf(rt, sg) != served) {
			waitqTake(rt, queueOf(rt, &cases[sudogOf(rt, sg)->selectcase]), sg);
			POINT(rt, "select.dequeued");
		}
	selunlock(rt, locks, count);
	for (uint32_t sg = gp->waiting; sg; sg = next) {
		next = sudogOf(rt, sg)->waitlink;
		gp->waiting = next;
		if (sg != g)
			releaseSudog(rt, sg);
	}
	gp->nwaiting = 0;
	store_relaxed(&gp->sg.elem, 0); /* it has been taken out; no point: the owner's alone */
	return how;
}
