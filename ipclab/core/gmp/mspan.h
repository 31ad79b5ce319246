/* mspan.h: what the files of the heap know of its spans. See mheap.h. (Go: mheap.go, sizeclasses.go.) */
#ifndef IPCLAB_GMP_MSPAN_H
#define IPCLAB_GMP_MSPAN_H

#include "mheap.h"

/* Sizes with the header. Each is at most half as much again as the one before: a third of a block is wasted at most. */
extern const uint32_t sizes[SIZE_CLASSES];

/* What spans[i] says: 0 nothing yet; 1 + class; LARGE and the number of its spans, in the first; LATER in the others. */
#define LARGE UINT32_C(0x80000000)
#define LATER UINT32_C(0x40000000)

static inline _Atomic uint32_t *spansOf(struct gmp *rt)
{
	return (_Atomic uint32_t *)((char *)rt->s + rt->s->off_spans);
}

static inline uint32_t firstOfSpan(uint32_t span)
{
	return span * (SPAN_BYTES / BLOCK_UNIT);
}

static inline uint32_t spanOfBlock(uint32_t b)
{
	return b / (SPAN_BYTES / BLOCK_UNIT);
}

#endif
