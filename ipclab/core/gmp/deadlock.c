/* deadlock.c: how a run ends when it cannot go on. (Go: checkdead, fatal, throw.) */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>

#include "checked.h"
#include "events.h"
#include "lock_futex.h"
#include "point.h"
#include "proc.h"
#include "runq.h"
#include "template.h"

/*
 * The first reason counts. The caller is woken; it ends the others. The reason stands in the word from the first store on:
 * who dies before the last one has not taken it along, and the template says it (repair.c).
 */
void fatal(struct gmp *rt, enum fatal why, uint64_t arg, const char *text)
{
	struct schedt *s = rt->s;
	uint32_t none = FATAL_NONE;

	if (!cas_seq_cst(&s->fatal, &none, FATAL_SAYING | why))
		return;
	POINT(rt, "fatal.claimed");
	/* no point: nobody reads them before fatal says why */
	strncpy(s->fataltext, text, sizeof s->fataltext - 1);
	store_relaxed(&s->fatalarg, arg);
	POINT(rt, "fatal.written");
	store_seq_cst(&s->fatal, why);
	POINT(rt, "fatal.said");
	note_poke(&s->donenote);
	POINT(rt, "fatal.poked");
}

bool isOver(struct gmp *rt)
{
	return load_seq_cst(&rt->s->exiting) || load_seq_cst(&rt->s->fatal) || (!rt->m && templateLook(rt) < 0);
}

static _Noreturn void leaveProcess(struct gmp *rt, int code)
{
	if (!rt->s->threads)
		rt->hooks.end(code);
	pthread_exit(NULL);
}

void mexit(struct gmp *rt)
{
	struct schedt *s = rt->s;

	event(rt, EV_MEXIT, 0, 0);
	if (!load_seq_cst(&s->exiting)) {
		lock(rt, &s->lock);
		store_relaxed(&s->nmfreed, load_relaxed(&s->nmfreed) + 1);
		POINT(rt, "mexit.counted");
		checkdead(rt);
		unlock(rt, &s->lock);
	}
	store_seq_cst(&rt->m->exiting, 1);
	POINT(rt, "mexit.exiting");
	store_seq_cst(&rt->m->where, M_GONE);
	leaveProcess(rt, 0);
}

void throw(struct gmp *rt, const char *text)
{
	fatal(rt, FATAL_THROW, rt->m ? (uint64_t)load_relaxed(&rt->m->id) : UINT64_MAX, text);
	leaveProcess(rt, 2);
}

void checkdead(struct gmp *rt)
{
	struct schedt *s = rt->s;
	int64_t run = mcount(rt) - load_relaxed(&s->nmidle) - load_relaxed(&s->nmidlelocked) - load_relaxed(&s->nmsys);
	uint64_t waiting = 0;

	/* Counts are off while the dead are being repaired; and the end needs no second reason. */
	if (run > 0 || load_seq_cst(&s->gate) || load_seq_cst(&s->exiting) || load_seq_cst(&s->fatal))
		return;
	if (run < 0) {
		fatal(rt, FATAL_THROW, (uint64_t)run, "checkdead: inconsistent counts");
		return;
	}
	checkAllIdle(rt);
	for (uint32_t g = 1; g <= load_acquire(&s->allglen); g++) {
		switch (load_seq_cst(&G(rt, g)->atomicstatus)) {
		case _Gwaiting:
			waiting++;
			break;
		case _Grunnable:
		case _Grunning:
		case _Gsyscall:
			fatal(rt, FATAL_THROW, load_relaxed(&G(rt, g)->goid), "checkdead: runnable g");
			return;
		default:
			break;
		}
	}
	if (waiting == 0) {
		fatal(rt, FATAL_DONE, 0, "no goroutines");
		return;
	}
	for (int32_t i = 0; i < load_relaxed(&s->gomaxprocs); i++)
		if (load_seq_cst(&rt->allp[i].timers.len))
			return;
	fatal(rt, FATAL_DEADLOCK, waiting, DEADLOCK_TEXT);
}
