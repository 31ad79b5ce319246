/* events.c: reading the rings. See events.h. no point: it fills what the reader gave. */
#define _GNU_SOURCE
#include "events.h"

#include "proc.h"

static const char *const names[EV_COUNT] = {
	[EV_NONE] = "none",
	[EV_GO_CREATE] = "create",
	[EV_GO_START] = "start",
	[EV_GO_END] = "end",
	[EV_GO_SCHED] = "sched",
	[EV_GO_PREEMPT] = "preempt",
	[EV_GO_BLOCK] = "block",
	[EV_GO_UNBLOCK] = "unblock",
	[EV_SYSCALL] = "syscall enter",
	[EV_SYSEXIT] = "syscall exit",
	[EV_SYSBLOCK] = "syscall blocked",
	[EV_STEAL] = "steal",
	[EV_GLOBAL] = "global",
	[EV_SPIN] = "spin",
	[EV_PARK] = "park",
	[EV_UNPARK] = "unpark",
	[EV_WAKEP] = "wakep",
	[EV_HANDOFF] = "handoff",
	[EV_RETAKE] = "retake",
	[EV_ACQUIREP] = "acquirep",
	[EV_RELEASEP] = "releasep",
	[EV_PIDLE] = "P idle",
	[EV_PSTATUS] = "P status",
	[EV_STW_START] = "stw start",
	[EV_STW_END] = "stw end",
	[EV_NEWM] = "new M",
	[EV_MSTART] = "M start",
	[EV_MEXIT] = "M exit",
	[EV_LOCKEDM] = "to locked M",
};

const char *eventName(enum event_kind kind)
{
	return kind < EV_COUNT && names[kind] ? names[kind] : "unknown";
}

uint32_t eventsRead(struct gmp *rt, uint32_t m, uint64_t *from, struct event *into, uint32_t most, uint64_t *lost)
{
	struct m *mp = M(rt, m);
	uint64_t slots = rt->s->eventslots, head = load_acquire(&mp->eventhead), oldest;
	struct event *ring = (struct event *)(talliesOf(rt, m) + rt->s->maxprograms);
	uint32_t n = 0, skip;

	if (!slots)
		return 0;
	if (head - *from > slots) {
		*lost += head - *from - slots;
		*from = head - slots;
	}
	while (n < most && *from + n < head) {
		struct event *at = &ring[(*from + n) & (slots - 1)];

		store_relaxed(&into[n].ticks, load_relaxed(&at->ticks));
		store_relaxed(&into[n].what, load_relaxed(&at->what));
		store_relaxed(&into[n].goid, load_relaxed(&at->goid));
		store_relaxed(&into[n].arg, load_relaxed(&at->arg));
		n++;
	}
	/* What was overwritten while we copied; the slot the M may be in the middle of counts as such. */
	head = load_seq_cst(&mp->eventhead) + 1;
	oldest = head > slots ? head - slots : 0;
	skip = oldest > *from ? (uint32_t)(oldest - *from < n ? oldest - *from : n) : 0;
	for (uint32_t i = skip; skip && i < n; i++)
		into[i - skip] = into[i];
	*lost += skip;
	*from += n;
	return n - skip;
}
