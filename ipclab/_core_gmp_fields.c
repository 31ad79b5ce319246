/*
 * _core_gmp_fields.c: the scheduler's records for Python, field by field, under Go's names.
 *
 * Every word is loaded on its own, without a lock: what changes together may be from different moments unless the world
 * stands still or the segment is a copy. An index that leads nowhere ends a list; it is never followed.
 */
#include "_core_gmp.h"

#include <stddef.h>
#include <string.h>

#include "core/gmp/runq.h"

#define MOST_WAITING 1000000 /* a list that is longer goes in a circle: it changed while it was read */

struct field {
	const char *name;
	uint16_t offset;
	uint8_t bytes;
	uint8_t is_signed;
};

#define U(type, field) {#field, offsetof(type, field), sizeof(((type *)0)->field), 0}
#define I(type, field) {#field, offsetof(type, field), sizeof(((type *)0)->field), 1}
#define KEY(type, field) {#field, offsetof(type, field), sizeof(uint32_t), 0} /* a lock or a note: its word */

static const struct field sched_table[] = {
	U(struct schedt, model), U(struct schedt, maxg), U(struct schedt, maxmcount), U(struct schedt, maxsudog),
	U(struct schedt, nprograms), U(struct schedt, nsteps), U(struct schedt, nchans), U(struct schedt, nsemas),
	U(struct schedt, eventslots), U(struct schedt, tracking), U(struct schedt, randomize), U(struct schedt, nopreempt),
	U(struct schedt, mainends), U(struct schedt, seed), I(struct schedt, starttime), I(struct schedt, callerpid),
	I(struct schedt, ncpu), KEY(struct schedt, lock), U(struct schedt, midle), I(struct schedt, nmidle),
	I(struct schedt, nmidlelocked), I(struct schedt, nmsys), I(struct schedt, mnext), I(struct schedt, nmfreed), I(struct schedt, nmspare),
	U(struct schedt, allm), U(struct schedt, pidle), U(struct schedt, runq.head), U(struct schedt, runq.tail),
	I(struct schedt, runq.size), I(struct schedt, stopwait), U(struct schedt, newprocs), I(struct schedt, npidle),
	I(struct schedt, nmspinning), U(struct schedt, needspinning), I(struct schedt, gomaxprocs),
	U(struct schedt, gcwaiting), U(struct schedt, gate), U(struct schedt, exiting), I(struct schedt, lastpoll),
	I(struct schedt, pollUntil), KEY(struct schedt, pollnote), KEY(struct schedt, stopnote),
	KEY(struct schedt, worldsema), I(struct schedt, stopsince), KEY(struct schedt, sysmonnote), U(struct schedt, sysmonwait),
	KEY(struct schedt, allpLock), KEY(struct schedt, allglock), U(struct schedt, allglen), U(struct schedt, gcommitted),
	U(struct schedt, sudoglen), KEY(struct schedt, gFreelock), U(struct schedt, gFree), I(struct schedt, gFreeN),
	KEY(struct schedt, sudoglock), U(struct schedt, sudogfree), U(struct schedt, goidgen),
	KEY(struct schedt, newmlock), U(struct schedt, newm), KEY(struct schedt, templatenote),
	I(struct schedt, templatepid), KEY(struct schedt, donenote), U(struct schedt, fatal), U(struct schedt, fatalarg),
	U(struct schedt, deaths), U(struct schedt, repairs), U(struct schedt, repairns), U(struct schedt, longestns),
	U(struct schedt, lostgs), U(struct schedt, callerwhere), U(struct schedt, callerstops), U(struct schedt, preempts),
	U(struct schedt, parks), U(struct schedt, taken), U(struct schedt, stalls),
	U(struct schedt, retakes), U(struct schedt, queuens), U(struct schedt, queuedms), {0},
};

static const struct field p_table[] = {
	U(struct p, id), U(struct p, status), U(struct p, link), U(struct p, m), U(struct p, schedtick),
	U(struct p, syscalltick), U(struct p, preempt), U(struct p, gFree), U(struct p, gFreeN), U(struct p, goidcache),
	U(struct p, goidcacheend), U(struct p, sudogcache), U(struct p, sudogN), U(struct p, sysmontick.schedtick),
	U(struct p, sysmontick.syscalltick), I(struct p, sysmontick.schedwhen), I(struct p, sysmontick.syscallwhen),
	KEY(struct p, timers.lock), U(struct p, timers.heap), U(struct p, timers.len), I(struct p, timers.minWhen),
	U(struct p, runqhead), U(struct p, runqtail), U(struct p, runnext), {0},
};

static const struct field m_table[] = {
	I(struct m, id), I(struct m, procid), U(struct m, where), U(struct m, curg), U(struct m, p), U(struct m, nextp),
	U(struct m, oldp), U(struct m, spinning), U(struct m, blocked), U(struct m, lockedg), I(struct m, locks),
	U(struct m, schedlink), U(struct m, alllink), U(struct m, mstartfn), U(struct m, syscalltick), KEY(struct m, park),
	U(struct m, idle), U(struct m, lockedwait), U(struct m, exiting), U(struct m, polling), U(struct m, dead),
	U(struct m, stalled), U(struct m, lent), U(struct m, switches), U(struct m, steals), U(struct m, handoffs), U(struct m, eventhead), {0},
};

static const struct field g_table[] = {
	U(struct g, goid), U(struct g, atomicstatus), U(struct g, m), U(struct g, schedlink), U(struct g, lockedm),
	U(struct g, parentGoid), U(struct g, startpc), U(struct g, gopc), U(struct g, waitreason), U(struct g, preempt),
	I(struct g, waitsince), U(struct g, selectDone), U(struct g, param), U(struct g, waiting), U(struct g, nwaiting),
	I(struct g, when), U(struct g, timerp), U(struct g, pc), U(struct g, resume), I(struct g, left), U(struct g, acc),
	I(struct g, created), I(struct g, started), I(struct g, runnablesince), I(struct g, waited), U(struct g, lockedExt),
	{0},
};

static const struct field chan_table[] = {
	KEY(struct hchan, lock), U(struct hchan, used), U(struct hchan, dataqsiz), U(struct hchan, closed), U(struct hchan, sendx),
	U(struct hchan, recvx), U(struct hchan, recvq.first), U(struct hchan, sendq.first), {0},
};

static const struct field sema_table[] = {
	U(struct sema, used), U(struct sema, value), U(struct sema, nwait), KEY(struct sema, lock), U(struct sema, state), U(struct sema, kind),
	U(struct sema, holder), U(struct sema, q.first), {0},
};

static uint64_t load_word(const char *at, unsigned int bytes)
{
	switch (bytes) {
	case 8:
		return load_relaxed((_Atomic uint64_t *)at);
	case 4:
		return load_relaxed((_Atomic uint32_t *)at);
	default:
		return load_relaxed((_Atomic uint8_t *)at);
	}
}

static PyObject *number(const struct field *field, uint64_t word)
{
	if (!field->is_signed)
		return PyLong_FromUnsignedLongLong(word);
	return PyLong_FromLongLong(field->bytes == 8 ? (int64_t)word : (int32_t)(uint32_t)word);
}

static int set(PyObject *dict, const char *name, PyObject *value)
{
	int rc = value ? PyDict_SetItemString(dict, name, value) : -1;

	Py_XDECREF(value);
	return rc;
}

static PyObject *fields(const void *record, const struct field *table)
{
	PyObject *dict = PyDict_New();

	for (; dict && table->name; table++)
		if (set(dict, table->name, number(table, load_word((const char *)record + table->offset, table->bytes))) < 0)
			Py_CLEAR(dict);
	return dict;
}

static PyObject *no_such(const char *what, uint32_t index)
{
	PyErr_Format(PyExc_IndexError, "there is no %s %u", what, index);
	return NULL;
}

static bool is_g(struct gmp *rt, uint32_t g)
{
	return g && g <= load_acquire(&rt->s->allglen) && g <= rt->s->maxg;
}

static bool is_m(struct gmp *rt, uint32_t m)
{
	return m && m < rt->s->maxmcount && m <= mLast(rt);
}

PyObject *sched_fields(struct gmp *rt)
{
	return fields(rt->s, sched_table);
}

PyObject *p_fields(struct gmp *rt, uint32_t p)
{
	return p < GMP_MAXPROCS ? fields(&rt->allp[p], p_table) : no_such("P", p);
}

PyObject *m_fields(struct gmp *rt, uint32_t m)
{
	return is_m(rt, m) ? fields(M(rt, m), m_table) : no_such("M", m);
}

PyObject *g_fields(struct gmp *rt, uint32_t g)
{
	PyObject *dict = is_g(rt, g) ? fields(G(rt, g), g_table) : no_such("G", g);

	if (dict && set(dict, "waitreason", PyUnicode_FromString(waitReasonString(load_relaxed(&G(rt, g)->waitreason)))) < 0)
		Py_CLEAR(dict);
	return dict;
}

/* --- lists --- */

/* 0: the end, or an index that names nothing. */
static uint32_t next_of(struct gmp *rt, const char *kind, uint32_t at)
{
	if (strcmp(kind, "m.schedlink") == 0)
		return is_m(rt, at) ? load_relaxed(&M(rt, at)->schedlink) : 0;
	if (strcmp(kind, "m.alllink") == 0)
		return is_m(rt, at) ? load_relaxed(&M(rt, at)->alllink) : 0;
	if (strcmp(kind, "p.link") == 0)
		return at && at <= GMP_MAXPROCS ? load_relaxed(&P(rt, at)->link) : 0;
	return is_g(rt, at) ? load_relaxed(&G(rt, at)->schedlink) : 0;
}

static int append(PyObject *list, uint32_t value)
{
	PyObject *item = PyLong_FromUnsignedLong(value);
	int rc = item ? PyList_Append(list, item) : -1;

	Py_XDECREF(item);
	return rc;
}

PyObject *list_members(struct gmp *rt, const char *kind, uint32_t first, uint32_t most)
{
	PyObject *list = PyList_New(0);

	for (uint32_t at = first, n = 0; list && at && n < most; at = next_of(rt, kind, at), n++)
		if (append(list, at) < 0)
			Py_CLEAR(list);
	return list;
}

PyObject *p_runq(struct gmp *rt, uint32_t p)
{
	PyObject *list = p < GMP_MAXPROCS ? PyList_New(0) : no_such("P", p);
	uint32_t head, tail;

	if (!list)
		return NULL;
	head = load_acquire(&rt->allp[p].runqhead);
	tail = load_acquire(&rt->allp[p].runqtail);
	for (uint32_t n = 0; list && head != tail && n < GMP_RUNQ; head++, n++)
		if (append(list, load_relaxed(&rt->allp[p].runq[head % GMP_RUNQ])) < 0)
			Py_CLEAR(list);
	return list;
}

/* NULL: no such sudog. */
static struct sudog *sudog_at(struct gmp *rt, uint32_t sg)
{
	if (sg <= rt->s->maxg)
		return is_g(rt, sg) ? sudogOf(rt, sg) : NULL;
	return sg - rt->s->maxg <= rt->s->sudoglen && sg - rt->s->maxg <= rt->s->maxsudog ? sudogOf(rt, sg) : NULL;
}

/* The Gs in a queue of waiting ones, in their order. */
static PyObject *waiting_gs(struct gmp *rt, uint32_t first)
{
	PyObject *list = PyList_New(0);
	uint32_t n = 0;

	for (uint32_t at = first; list && at && n < MOST_WAITING; n++) {
		struct sudog *sg = sudog_at(rt, at);

		if (!sg)
			break;
		if (append(list, load_relaxed(&sg->g)) < 0)
			Py_CLEAR(list);
		at = load_relaxed(&sg->next);
	}
	return list;
}

PyObject *chan_fields(struct gmp *rt, uint32_t c)
{
	PyObject *dict = c < load_acquire(&rt->s->nchans) ? fields(&rt->chans[c], chan_table) : no_such("channel", c);

	if (dict && (set(dict, "recvq", waiting_gs(rt, load_relaxed(&rt->chans[c].recvq.first))) < 0 ||
		     set(dict, "sendq", waiting_gs(rt, load_relaxed(&rt->chans[c].sendq.first))) < 0))
		Py_CLEAR(dict);
	return dict;
}

PyObject *sema_fields(struct gmp *rt, uint32_t s)
{
	PyObject *dict = s < load_acquire(&rt->s->nsemas) ? fields(&rt->semas[s], sema_table) : no_such("semaphore", s);

	if (dict && set(dict, "q", waiting_gs(rt, load_relaxed(&rt->semas[s].q.first))) < 0)
		Py_CLEAR(dict);
	return dict;
}
