/*
 * events.h: what each M did and when: fixed-size records in a ring of its own in the segment.
 *
 * One writer (the M), any number of readers. The oldest is overwritten; a reader that was too slow finds by eventhead
 * how many it has lost. Times are in cputicks (a counter that costs 10 ns to read, where clock_gettime costs 30);
 * readers turn them into ns by two pairs of readings.
 */
#ifndef IPCLAB_GMP_EVENTS_H
#define IPCLAB_GMP_EVENTS_H

#include "core/futex.h"
#include "runtime2.h"

enum event_kind {
	EV_NONE,
	EV_GO_CREATE,    /* g: the new one; arg: its parent's goid */
	EV_GO_START,     /* arg: 1 if it inherited the time slice */
	EV_GO_END,
	EV_GO_SCHED,     /* gave way by itself */
	EV_GO_PREEMPT,   /* was made to; arg: 1 by itself, for the one it has handed a semaphore: Go calls it the same */
	EV_GO_BLOCK,     /* arg: enum wait_reason */
	EV_GO_UNBLOCK,   /* g: the one made runnable */
	EV_SYSCALL,      /* enter; arg: 1 known to block */
	EV_SYSEXIT,      /* arg: 0 with the old P, 1 another P, 2 none */
	EV_SYSBLOCK,     /* the call keeps its P no longer, others may have it; arg: that P; g: 0 where sysmon took it */
	EV_STEAL,        /* arg: from P << 32 | pass, 1 to 4, << 16 | how many, with the one that runs */
	EV_GLOBAL,       /* from the global queue; arg: 61 if it was its turn, else 0 */
	EV_SPIN,         /* arg: 1 begins, 0 ends */
	EV_PARK,         /* M to sleep; arg: 1 on the idle list, 2 with its locked G, 3 as the poller */
	EV_UNPARK,
	EV_WAKEP,
	EV_HANDOFF,      /* arg: P */
	EV_RETAKE,       /* arg: P */
	EV_ACQUIREP,     /* arg: P */
	EV_RELEASEP,     /* arg: P */
	EV_PIDLE,        /* arg: P << 1 | 1 it is on the idle list now, 0 no more */
	EV_PSTATUS,      /* arg: P << 32 | old << 8 | new */
	EV_STW_START,
	EV_STW_END,
	EV_NEWM,         /* arg: M id; allocm .. handed to the template */
	EV_MSTART,
	EV_MEXIT,
	EV_LOCKEDM,      /* this M gives its P to the one g is locked to; arg: that M's id */
	EV_COUNT
};

struct event { /* writer: the M whose ring it is in */
	_Atomic uint64_t ticks;
	_Atomic uint64_t what; /* kind | P << 16 (0xffff: none) | M id << 32 */
	_Atomic uint64_t goid; /* 0: none */
	_Atomic uint64_t arg;
};

static inline uint64_t cputicks(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	uint64_t ticks;

	__asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
#else
	return (uint64_t)monotonic_ns();
#endif
}

/* no point: for observers, who find out what was torn */
static inline void eventAt(struct gmp *rt, uint64_t ticks, enum event_kind kind, uint64_t goid, uint64_t arg)
{
	uint64_t head;
	struct event *at;

	if (!rt->events)
		return;
	head = load_relaxed(&rt->m->eventhead);
	at = &rt->events[head & rt->eventmask];
	rt->eventticks = ticks;
	store_relaxed(&at->ticks, ticks);
	store_relaxed(&at->what, (uint64_t)kind | rt->eventwho);
	store_relaxed(&at->goid, goid);
	store_relaxed(&at->arg, arg);
	store_release(&rt->m->eventhead, head + 1);
}

static inline void event(struct gmp *rt, enum event_kind kind, uint64_t goid, uint64_t arg)
{
	if (rt->events)
		eventAt(rt, cputicks(), kind, goid, arg);
}

/*
 * The moment at which a G starts. Reading the counter costs more than the rest of an event, so it is not read again for
 * a start that follows the M's last event by some 20 ns: it is one tick later. Only where that event is later than all
 * that was told of this G, by whomever, so that the times of a G grow wherever it goes: the event says that the G was
 * taken (global queue, steal), or the G lay in this P's own queue, where only this M and former ones of this P put Gs.
 */
static inline uint64_t eventNext(struct gmp *rt)
{
	return rt->told && rt->eventticks ? rt->eventticks + 1 : cputicks();
}

/* Who writes: with every change of rt->p. */
static inline void eventWho(struct gmp *rt)
{
	rt->eventwho = (uint64_t)(uint16_t)(rt->p ? rt->p->id : 0xffff) << 16 | (uint64_t)load_relaxed(&rt->m->id) << 32;
}

/*
 * Copies events of ring m from *from on, at most `most`; moves *from on; counts in *lost what was overwritten before it
 * could be read. Returns how many. Any process that has the segment mapped may call it, while the M runs.
 */
uint32_t eventsRead(struct gmp *rt, uint32_t m, uint64_t *from, struct event *into, uint32_t most, uint64_t *lost);
const char *eventName(enum event_kind kind);

#endif
