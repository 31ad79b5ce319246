/* parcel.c: see parcel.h. */
#define _GNU_SOURCE
#include "parcel.h"

#include "mheap.h"
#include "proc.h"

/* Every word of it is another one, and none is another block's. */
static uint64_t filling(uint32_t b, uint64_t at)
{
	return ((uint64_t)b << 32 | at) * UINT64_C(0x9e3779b97f4a7c15);
}

uint64_t parcelMake(struct gmp *rt, uint64_t bytes, int *error)
{
	uint32_t b = blockAlloc(rt, bytes, error);
	uint64_t *data = b ? blockData(rt, b) : NULL;

	if (!b)
		return 0;
	/* no point: nobody else knows of it */
	for (uint64_t at = 0; at < bytes / sizeof *data; at++)
		data[at] = filling(b, at);

	blockPublish(rt, b);
	return wordOfBlock(b);
}

uint64_t parcelOpen(struct gmp *rt, uint64_t word)
{
	uint32_t b = blockOfWord(word);
	uint64_t *data = blockData(rt, b), bytes;

	blockTake(rt, b);
	bytes = blockOf(rt, b)->bytes;
	for (uint64_t at = 0; at < bytes / sizeof *data; at++)
		if (data[at] != filling(b, at))
			throw(rt, "a block is not what was put into it");
	blockFree(rt, b);
	return bytes;
}
