/* _core_gmp.h: what the two files of the scheduler's binding share. */
#ifndef IPCLAB_CORE_GMP_BINDING_H
#define IPCLAB_CORE_GMP_BINDING_H

#include "_core.h"

#include "core/gmp/gmp.h"

/* The records as dicts, {Go's name: number}; NULL with an exception set: no such index, or no memory. */
PyObject *sched_fields(struct gmp *rt);
PyObject *p_fields(struct gmp *rt, uint32_t p);   /* p: its id */
PyObject *m_fields(struct gmp *rt, uint32_t m);   /* m: its index, id + 1 */
PyObject *g_fields(struct gmp *rt, uint32_t g);   /* g: its index */
PyObject *chan_fields(struct gmp *rt, uint32_t c); /* with the Gs that wait for it */
PyObject *sema_fields(struct gmp *rt, uint32_t s);
/* The members of a list in their order, at most `most`: kind is "m.schedlink", "m.alllink", "p.link" or "g.schedlink". */
PyObject *list_members(struct gmp *rt, const char *kind, uint32_t first, uint32_t most);
PyObject *p_runq(struct gmp *rt, uint32_t p);

#endif
