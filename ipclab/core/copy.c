/*
 * copy.c: copying a message that another CPU has just written.
 *
 * Its lines are in that CPU's cache or in the shared one, far away. The hardware fetches ahead only to the end of a page
 * and starts anew on the next; asking for each line 1 KiB ahead keeps as many fetches under way as the CPU can have.
 * Measured, 64 KiB messages through 2 MiB between two cores with private caches of 1 MiB: 11-16 GB/s by memcpy, 17-22 so.
 * Wide registers gain 6 % more where a line's journey is long, nothing where it is short (39 GB/s, verifying counted).
 */
#include "copy.h"

#include <stdint.h>

#include "wide.h"

#define LINE 64
#define AHEAD_BYTES 1024

/* One line: the compiler makes of it what the registers are wide enough for. */
typedef uint64_t line __attribute__((vector_size(LINE), aligned(1), may_alias));

FOR_WIDE_REGISTERS("avx512f", "avx2")
void copy_lines_from_peer(void *to, const void *from, size_t size)
{
	const char *source = from;
	char *at = to;

	for (; size >= LINE; size -= LINE, source += LINE, at += LINE) {
		__builtin_prefetch(source + AHEAD_BYTES);
		*(line *)at = *(const line *)source;
	}
	memcpy(at, source, size);
}
