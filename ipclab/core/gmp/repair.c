/* repair.c: after the death of an M. */
#define _GNU_SOURCE
#include "proc.h"
#include "template.h"

void repair(struct gmp *rt, uint32_t m)
{
	fatal(rt, FATAL_THROW, (uint64_t)M(rt, m)->id, "an M has died");
}
