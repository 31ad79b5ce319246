/* runq.c: see runq.h. */
#define _GNU_SOURCE
#include "runq.h"

#include <time.h>

#include "checked.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"

/* --- lists --- */

void queuePushBack(struct gmp *rt, struct gQueue *q, uint32_t g)
{
	struct gQueue one = {.head = g, .tail = g, .size = 1};

	queuePushBackAll(rt, q, &one);
}

void queuePushBackAll(struct gmp *rt, struct gQueue *q, struct gQueue *batch)
{
	uint32_t tail = load_relaxed(&q->tail), first = load_relaxed(&batch->head);

	if (!first)
		return;
	store_relaxed(&G(rt, load_relaxed(&batch->tail))->schedlink, 0);
	POINT(rt, "queue.closed");
	if (tail)
		store_relaxed(&G(rt, tail)->schedlink, first);
	else
		store_relaxed(&q->head, first);
	POINT(rt, "queue.linked");
	store_relaxed(&q->tail, load_relaxed(&batch->tail));
	POINT(rt, "queue.tail");
	store_relaxed(&q->size, load_relaxed(&q->size) + load_relaxed(&batch->size));
	*batch = (struct gQueue){0}; /* no point: the caller's own */
	POINT(rt, "queue.size");
}

uint32_t queuePop(struct gmp *rt, struct gQueue *q)
{
	uint32_t g = load_relaxed(&q->head), next;

	if (!g)
		return 0;
	next = load_relaxed(&G(rt, g)->schedlink);
	if (!next) /* tail first: a list whose head is nil is empty, whatever its tail says */
		store_relaxed(&q->tail, 0);
	POINT(rt, "queue.pop.tail");
	store_relaxed(&q->head, next);
	POINT(rt, "queue.pop.head");
	store_relaxed(&q->size, load_relaxed(&q->size) - 1);
	POINT(rt, "queue.pop.size");
	return g;
}

/* --- the ring --- */

static _Atomic uint32_t *slot(struct p *pp, uint32_t at)
{
	return &pp->runq[at % GMP_RUNQ];
}

bool runqempty(struct p *pp)
{
	for (;;) {
		uint32_t head = load_seq_cst(&pp->runqhead), tail = load_seq_cst(&pp->runqtail);
		uint32_t runnext = load_seq_cst(&pp->runnext);

		if (tail == load_seq_cst(&pp->runqtail))
			return head == tail && runnext == 0;
	}
}

/* Puts g and half of a full ring on the global queue; false when a thief made room meanwhile. */
static bool runqputslow(struct gmp *rt, struct p *pp, uint32_t g, uint32_t h, uint32_t t)
{
	uint32_t batch[GMP_RUNQ / 2 + 1], n = (t - h) / 2;
	struct gQueue q = {0};

	if (n != GMP_RUNQ / 2)
		throw(rt, "runqputslow: queue is not full");
	for (uint32_t i = 0; i < n; i++)
		batch[i] = load_relaxed(slot(pp, h + i));
	if (!cas_release(&pp->runqhead, &h, h + n))
		return false;
	POINT(rt, "runqputslow.taken");
	batch[n] = g;
	for (uint32_t i = 0; i <= n; i++)
		QUEUED(rt, batch[i], P_INDEX(pp), QUEUED_NOWHERE);
	if (rt->s->randomize)
		shuffle(rt, batch, n + 1);
	for (uint32_t i = 0; i < n; i++)
		store_relaxed(&G(rt, batch[i])->schedlink, batch[i + 1]); /* no point: Gs on no list */
	q = (struct gQueue){.head = batch[0], .tail = batch[n], .size = (int32_t)n + 1};
	lock(rt, &rt->s->lock);
	globrunqputbatch(rt, &q);
	unlock(rt, &rt->s->lock);
	return true;
}

void runqput(struct gmp *rt, struct p *pp, uint32_t g, bool next)
{
	if (rt->s->randomize && next && cheaprandn(rt, 2) == 0)
		next = false;
	QUEUED(rt, g, QUEUED_NOWHERE, P_INDEX(pp));
	if (next) {
		g = swap_seq_cst(&pp->runnext, g); /* the old one is kicked out, to the tail */
		POINT(rt, "runqput.next");
		if (!g)
			return;
	}
	for (;;) {
		uint32_t h = load_acquire(&pp->runqhead), t = load_relaxed(&pp->runqtail);

		if (t - h < GMP_RUNQ) {
			store_relaxed(slot(pp, t), g);
			POINT(rt, "runqput.slot");
			store_seq_cst(&pp->runqtail, t + 1); /* and before wakep's look at nmspinning */
			POINT(rt, "runqput.tail");
			return;
		}
		if (runqputslow(rt, pp, g, h, t))
			return;
	}
}

void runqputbatch(struct gmp *rt, struct p *pp, struct gQueue *q)
{
	uint32_t batch[GMP_RUNQ], n = 0;
	uint32_t h = load_acquire(&pp->runqhead), t = load_relaxed(&pp->runqtail);

	while (t + n - h < GMP_RUNQ && (batch[n] = queuePop(rt, q)))
		n++;
	if (rt->s->randomize)
		shuffle(rt, batch, n);
	for (uint32_t i = 0; i < n; i++) {
		QUEUED(rt, batch[i], QUEUED_NOWHERE, P_INDEX(pp));
		store_relaxed(slot(pp, t + i), batch[i]); /* no point: behind the tail */
	}
	POINT(rt, "runqputbatch.slots");
	store_release(&pp->runqtail, t + n);
	POINT(rt, "runqputbatch.tail");
}

uint32_t runqget(struct gmp *rt, struct p *pp, bool *inheritTime)
{
	uint32_t next = load_relaxed(&pp->runnext);

	/* Tried once: only the owner sets it, so if the CAS fails it was stolen and is nil. */
	if (next && cas_seq_cst(&pp->runnext, &next, 0)) {
		POINT(rt, "runqget.next");
		QUEUED(rt, next, P_INDEX(pp), QUEUED_NOWHERE);
		*inheritTime = true;
		return next;
	}
	*inheritTime = false;
	for (;;) {
		uint32_t h = load_acquire(&pp->runqhead), t = load_relaxed(&pp->runqtail), g;

		if (t == h)
			return 0;
		g = load_relaxed(slot(pp, h));
		if (cas_release(&pp->runqhead, &h, h + 1)) {
			POINT(rt, "runqget.head");
			QUEUED(rt, g, P_INDEX(pp), QUEUED_NOWHERE);
			return g;
		}
	}
}

static void usleep3(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 3000}, NULL);
}

/* The victim's runnext, in the last pass only. Returns 1 when taken, 0 when there is none, -1 to look again. */
static int grabnext(struct p *victim, uint32_t *g)
{
	uint32_t next = load_seq_cst(&victim->runnext);

	if (!next)
		return 0;
	/* It is about to run there: give the owner the time to block, so that two Gs which wake each other do not
	 * wander between Ps. */
	if (load_relaxed(&victim->status) == _Prunning)
		usleep3();
	*g = next;
	return cas_seq_cst(&victim->runnext, &next, 0) ? 1 : -1;
}

/* Copies half of the victim's ring, rounded up, to `into` from its slot `at` on; returns how many. */
static uint32_t runqgrab(struct gmp *rt, struct p *victim, struct p *into, uint32_t at, bool stealRunNextG)
{
	for (;;) {
		uint32_t h = load_acquire(&victim->runqhead), t = load_acquire(&victim->runqtail), n = t - h, g;
		int got;

		n -= n / 2;
		if (n == 0) {
			got = stealRunNextG ? grabnext(victim, &g) : 0;
			POINT(rt, "runqgrab.next");
			if (got < 0)
				continue;
			if (got)
				store_relaxed(slot(into, at), g); /* no point: behind the tail */
			return (uint32_t)got;
		}
		if (n > GMP_RUNQ / 2) /* h and t are from different moments */
			continue;
		for (uint32_t i = 0; i < n; i++)
			store_relaxed(slot(into, at + i), load_relaxed(slot(victim, h + i))); /* no point: behind the tail */
		POINT(rt, "runqgrab.copied");
		if (cas_release(&victim->runqhead, &h, h + n)) {
			POINT(rt, "runqgrab.taken");
			return n;
		}
	}
}

uint32_t runqsteal(struct gmp *rt, struct p *pp, struct p *p2, bool stealRunNextG)
{
	uint32_t t = load_relaxed(&pp->runqtail), n = runqgrab(rt, p2, pp, t, stealRunNextG), g;

	if (n == 0)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		QUEUED(rt, load_relaxed(slot(pp, t + i)), P_INDEX(p2), i == n - 1 ? QUEUED_NOWHERE : P_INDEX(pp));
	g = load_relaxed(slot(pp, t + --n));
	if (n == 0)
		return g;
	if (t - load_acquire(&pp->runqhead) + n >= GMP_RUNQ)
		throw(rt, "runqsteal: runq overflow");
	store_release(&pp->runqtail, t + n);
	POINT(rt, "runqsteal.tail");
	return g;
}

/* --- the global queue --- */

void globrunqput(struct gmp *rt, uint32_t g)
{
	QUEUED(rt, g, QUEUED_NOWHERE, QUEUED_GLOBAL);
	queuePushBack(rt, &rt->s->runq, g);
}

void globrunqputhead(struct gmp *rt, uint32_t g)
{
	struct gQueue *q = &rt->s->runq;

	QUEUED(rt, g, QUEUED_NOWHERE, QUEUED_GLOBAL);
	store_relaxed(&G(rt, g)->schedlink, load_relaxed(&q->head));
	POINT(rt, "globrunqputhead.linked");
	store_relaxed(&q->head, g);
	POINT(rt, "globrunqputhead.head");
	if (!load_relaxed(&q->tail))
		store_relaxed(&q->tail, g);
	POINT(rt, "globrunqputhead.tail");
	store_relaxed(&q->size, load_relaxed(&q->size) + 1);
	POINT(rt, "globrunqputhead.size");
}

void globrunqputbatch(struct gmp *rt, struct gQueue *batch)
{
	uint32_t g = load_relaxed(&batch->head);

	for (int32_t i = IS_CHECKED ? load_relaxed(&batch->size) : 0; i > 0; i--, g = load_relaxed(&G(rt, g)->schedlink))
		QUEUED(rt, g, QUEUED_NOWHERE, QUEUED_GLOBAL);
	queuePushBackAll(rt, &rt->s->runq, batch);
}

uint32_t globrunqget(struct gmp *rt)
{
	uint32_t g = queuePop(rt, &rt->s->runq);

	if (g)
		QUEUED(rt, g, QUEUED_GLOBAL, QUEUED_NOWHERE);
	return g;
}

uint32_t globrunqgetbatch(struct gmp *rt, int32_t n, struct gQueue *rest)
{
	int32_t size = load_relaxed(&rt->s->runq.size), share = size / load_relaxed(&rt->s->gomaxprocs) + 1;
	uint32_t first = globrunqget(rt), g;

	if (!first)
		return 0;
	n = n < size ? n : size;
	n = n < share ? n : share;
	while (--n > 0 && (g = globrunqget(rt)))
		queuePushBack(rt, rest, g);
	return first;
}

/* --- the order of stealing --- */

static uint32_t gcd(uint32_t a, uint32_t b)
{
	while (b) {
		uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

/* Go keeps a table of all coprimes of gomaxprocs; a stride drawn until it is one costs two draws on average. */
struct randomEnum randomOrder(struct gmp *rt, uint32_t count)
{
	struct randomEnum order = {.count = count, .pos = cheaprandn(rt, count), .inc = 1};

	if (count > 2)
		do {
			order.inc = 1 + cheaprandn(rt, count - 1);
		} while (gcd(order.inc, count) != 1);
	return order;
}
