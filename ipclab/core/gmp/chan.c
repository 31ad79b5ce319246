/* chan.c: channels. See chan.h. */
#define _GNU_SOURCE
#include "chan.h"

#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"

/* --- queues of sleepers; under the lock of what they sleep for --- */

void waitqPut(struct gmp *rt, struct waitq *q, uint32_t sg, bool first)
{
	struct sudog *s = sudogOf(rt, sg);
	uint32_t head = load_relaxed(&q->first), tail = load_relaxed(&q->last);

	/* no point: it is in no queue yet */
	store_relaxed(&s->prev, first ? 0 : tail);
	store_relaxed(&s->next, first ? head : 0);

	if (!head) {
		store_relaxed(&q->first, sg);
		POINT(rt, "waitq.first");
		store_relaxed(&q->last, sg);
	} else if (first) {
		store_relaxed(&sudogOf(rt, head)->prev, sg);
		POINT(rt, "waitq.prev");
		store_relaxed(&q->first, sg);
	} else {
		store_relaxed(&sudogOf(rt, tail)->next, sg);
		POINT(rt, "waitq.next");
		store_relaxed(&q->last, sg);
	}
	POINT(rt, "waitq.put");
}

void waitqTake(struct gmp *rt, struct waitq *q, uint32_t sg)
{
	struct sudog *s = sudogOf(rt, sg);
	uint32_t next = load_relaxed(&s->next), prev = load_relaxed(&s->prev);

	if (!prev && load_relaxed(&q->first) != sg)
		return; /* somebody has taken it out already */
	if (prev)
		store_relaxed(&sudogOf(rt, prev)->next, next);
	else
		store_relaxed(&q->first, next);
	POINT(rt, "waitq.unlinked");
	if (next)
		store_relaxed(&sudogOf(rt, next)->prev, prev);
	else
		store_relaxed(&q->last, prev);
	POINT(rt, "waitq.back");
	store_relaxed(&s->next, 0);
	POINT(rt, "waitq.nonext");
	store_relaxed(&s->prev, 0);
	POINT(rt, "waitq.out");
}

uint32_t waitqFirst(struct gmp *rt, struct waitq *q)
{
	for (;;) {
		uint32_t sg = load_relaxed(&q->first), open = 0;
		struct sudog *s = sudogOf(rt, sg);

		if (!sg)
			return 0;
		if (!s->isSelect || cas_seq_cst(&G(rt, load_relaxed(&s->g))->selectDone, &open, sg)) {
			POINT(rt, "waitq.won");
			return sg;
		}
		waitqTake(rt, q, sg); /* another case of its select was served first */
	}
}

void waitqServe(struct gmp *rt, struct waitq *q, uint32_t sg)
{
	struct sudog *s = sudogOf(rt, sg);

	store_relaxed(&G(rt, load_relaxed(&s->g))->param, sg);
	POINT(rt, "waitq.param");
	store_release(&s->done, 1);
	POINT(rt, "waitq.done");
	waitqTake(rt, q, sg);
}

/* no point: it is in no queue yet */
uint32_t ownSudog(struct gmp *rt, uint32_t g, uint32_t c, bool sending, uint64_t elem)
{
	struct sudog *s = &G(rt, g)->sg;

	store_relaxed(&s->g, g);
	store_relaxed(&s->elem, elem);
	store_relaxed(&s->success, 0);
	store_relaxed(&s->ticket, 0);
	store_relaxed(&s->done, 0);
	s->c = c;
	s->isSelect = 0;
	s->sending = sending;
	store_relaxed(&G(rt, g)->param, 0);
	return g;
}

/* --- the halves that do not wait --- */

static _Atomic uint64_t *slotOf(struct gmp *rt, struct hchan *c, uint64_t at)
{
	return &rt->words[c->buf + at % c->dataqsiz];
}

enum waited trysend(struct gmp *rt, struct hchan *c, uint64_t value, uint32_t *woken)
{
	uint64_t sendx = load_relaxed(&c->sendx);
	uint32_t sg;

	*woken = 0;
	if (load_relaxed(&c->closed))
		return WAIT_CLOSED;
	sg = waitqFirst(rt, &c->recvq);
	if (sg) { /* straight to the receiver, past the buffer: it must be empty */
		struct sudog *s = sudogOf(rt, sg);

		store_relaxed(&s->elem, value);
		store_relaxed(&s->success, 1);
		*woken = load_relaxed(&s->g);
		waitqServe(rt, &c->recvq, sg);
		return WAIT_DONE;
	}
	if (sendx - load_relaxed(&c->recvx) >= c->dataqsiz)
		return WAIT_WOULDBLOCK;
	store_relaxed(slotOf(rt, c, sendx), value);
	POINT(rt, "chansend.slot");
	store_relaxed(&c->sendx, sendx + 1);
	POINT(rt, "chansend.sendx");
	return WAIT_DONE;
}

/* The receiver takes the oldest from the buffer, and the first sleeping sender's value takes its place at the end. */
static void recvAndRefill(struct gmp *rt, struct hchan *c, uint64_t *value, uint32_t sg)
{
	uint64_t recvx = load_relaxed(&c->recvx), sendx = load_relaxed(&c->sendx);
	uint64_t arriving = load_relaxed(&sudogOf(rt, sg)->elem);

	*value = load_relaxed(slotOf(rt, c, recvx));
	c->redosendx = sendx + 1;
	POINT(rt, "chanrecv.redosendx");
	store_release(&c->redo, sg);
	POINT(rt, "chanrecv.redo");
	store_relaxed(&c->recvx, recvx + 1);
	POINT(rt, "chanrecv.recvx");
	store_relaxed(slotOf(rt, c, sendx), arriving);
	POINT(rt, "chanrecv.slot");
	store_relaxed(&c->sendx, sendx + 1);
	POINT(rt, "chanrecv.sendx");
}

enum waited tryrecv(struct gmp *rt, struct hchan *c, uint64_t *value, uint32_t *woken)
{
	uint64_t recvx = load_relaxed(&c->recvx);
	uint32_t sg = waitqFirst(rt, &c->sendq);

	*woken = 0;
	if (sg) {
		struct sudog *s = sudogOf(rt, sg);

		if (c->dataqsiz == 0)
			*value = load_relaxed(&s->elem);
		else
			recvAndRefill(rt, c, value, sg);
		store_relaxed(&s->success, 1);
		*woken = load_relaxed(&s->g);
		waitqServe(rt, &c->sendq, sg);
		store_release(&c->redo, 0);
		POINT(rt, "chanrecv.over");
		return WAIT_DONE;
	}
	if (load_relaxed(&c->sendx) != recvx) {
		*value = load_relaxed(slotOf(rt, c, recvx));
		store_relaxed(&c->recvx, recvx + 1);
		POINT(rt, "chanrecv.taken");
		return WAIT_DONE;
	}
	*value = 0;
	return load_relaxed(&c->closed) ? WAIT_CLOSED : WAIT_WOULDBLOCK;
}

/* --- send, receive, close --- */

/* With the lock held: to sleep on q. */
static enum waited sleepOn(struct gmp *rt, struct hchan *hc, struct waitq *q, uint32_t sg, uint32_t g, enum wait_reason why)
{
	waitqPut(rt, q, sg, false);
	POINT(rt, "chan.enqueued");
	gopark(rt, g, why);
	unlock(rt, &hc->lock);
	return WAIT_PARKED;
}

enum waited chansend(struct gmp *rt, uint32_t g, uint32_t c, uint64_t value, bool block)
{
	struct hchan *hc = &rt->chans[c];
	enum waited how;
	uint32_t woken;

	lock(rt, &hc->lock);
	how = trysend(rt, hc, value, &woken);
	if (how == WAIT_WOULDBLOCK && block)
		return sleepOn(rt, hc, &hc->sendq, ownSudog(rt, g, c, true, value), g, waitReasonChanSend);
	unlock(rt, &hc->lock);
	POINT(rt, "chansend.unlocked");
	if (woken)
		ready(rt, woken, true);
	return how;
}

enum waited chansendResume(struct gmp *rt, uint32_t g)
{
	return load_relaxed(&G(rt, g)->sg.success) ? WAIT_DONE : WAIT_CLOSED;
}

enum waited chanrecv(struct gmp *rt, uint32_t g, uint32_t c, uint64_t *value, bool block)
{
	struct hchan *hc = &rt->chans[c];
	enum waited how;
	uint32_t woken;

	lock(rt, &hc->lock);
	how = tryrecv(rt, hc, value, &woken);
	if (how == WAIT_WOULDBLOCK && block)
		return sleepOn(rt, hc, &hc->recvq, ownSudog(rt, g, c, false, 0), g, waitReasonChanReceive);
	unlock(rt, &hc->lock);
	POINT(rt, "chanrecv.unlocked");
	if (woken)
		ready(rt, woken, true);
	return how;
}

enum waited chanrecvResume(struct gmp *rt, uint32_t g, uint64_t *value)
{
	struct sudog *s = &G(rt, g)->sg;

	*value = load_relaxed(&s->elem);
	store_relaxed(&s->elem, 0); /* it has been taken out; no point: the owner's alone */
	return load_relaxed(&s->success) ? WAIT_DONE : WAIT_CLOSED;
}

bool closechan(struct gmp *rt, uint32_t c)
{
	struct hchan *hc = &rt->chans[c];
	struct waitq *queues[] = {&hc->recvq, &hc->sendq};
	struct gQueue woken = {0};

	lock(rt, &hc->lock);
	if (load_relaxed(&hc->closed)) {
		unlock(rt, &hc->lock);
		return false;
	}
	store_relaxed(&hc->closed, 1);
	POINT(rt, "closechan.closed");
	for (int i = 0; i < 2; i++) {
		for (uint32_t sg; (sg = waitqFirst(rt, queues[i]));) {
			store_relaxed(&sudogOf(rt, sg)->success, 0);
			if (!sudogOf(rt, sg)->sending)
				store_relaxed(&sudogOf(rt, sg)->elem, 0);
			waitqServe(rt, queues[i], sg);
			queuePushBack(rt, &woken, load_relaxed(&sudogOf(rt, sg)->g));
		}
	}
	unlock(rt, &hc->lock);
	POINT(rt, "closechan.unlocked");
	for (uint32_t g; (g = queuePop(rt, &woken));)
		ready(rt, g, true);
	return true;
}
