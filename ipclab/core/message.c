/* message.c: see message.h. */
#include "message.h"

#include <errno.h>
#include <string.h>

#include "wide.h"

typedef uint64_t lanes __attribute__((vector_size(32), aligned(8), may_alias));

#define VECTORS 4
#define BLOCK_BYTES (VECTORS * sizeof(lanes))
#define LANES (BLOCK_BYTES / sizeof(uint64_t))

/*
 * Verifying must cost little beside what it verifies, and 64 KiB pass through a ring in a few microseconds.
 * Fletcher's sum over 64-bit words, in 16 lanes: `plain` adds the words, `running` adds up `plain` after every block, so
 * that a word in the wrong place is seen as well as a wrong word.
 */
FOR_WIDE_REGISTERS("avx2")
static uint64_t blocks_sum(const unsigned char *at, size_t blocks)
{
	lanes plain[VECTORS] = {{0}}, running[VECTORS] = {{0}}, words;
	uint64_t sum = 0, weight = 1;

	for (; blocks; blocks--, at += BLOCK_BYTES) {
		for (int i = 0; i < VECTORS; i++) {
			memcpy(&words, at + (size_t)i * sizeof words, sizeof words);
			plain[i] += words;
			running[i] += plain[i];
		}
	}
	for (int i = 0; i < VECTORS; i++)
		for (int lane = 0; lane < 4; lane++, weight += 2)
			sum += running[i][lane] * weight;
	return sum;
}

/* Up to 7 bytes, as the beginning of a word. Not one memcpy of a length unknown here: that is a call, 5 ns each time. */
static inline uint64_t last_word(const unsigned char *at, size_t left)
{
	uint64_t word = 0;

	for (size_t i = 0; i < left; i++)
		word |= (uint64_t)at[i] << (8 * i);
	return word;
}

/* A small message has no block: it must not pay for what makes large ones fast. */
static inline uint64_t payload_sum(const void *buffer, size_t size)
{
	const unsigned char *at = (const unsigned char *)buffer + MESSAGE_HEADER_BYTES;
	size_t left = size > MESSAGE_HEADER_BYTES ? size - MESSAGE_HEADER_BYTES : 0, blocks = left / BLOCK_BYTES;
	uint64_t sum = blocks ? blocks_sum(at, blocks) : 0, word, weight = 1 + 2 * LANES;

	at += blocks * BLOCK_BYTES;
	for (left %= BLOCK_BYTES; left >= sizeof word; left -= sizeof word, at += sizeof word, weight += 2) {
		memcpy(&word, at, sizeof word);
		sum += word * weight;
	}
	return left ? sum + last_word(at, left) * weight : sum;
}

void message_fill(void *buffer, size_t size)
{
	unsigned char *at = buffer;
	uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

	for (size_t i = 0; i < size; i++) {
		state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		at[i] = (unsigned char)(state >> 56);
	}
	if (size >= MESSAGE_HEADER_BYTES)
		memcpy(buffer, (uint64_t[3]){0, size, payload_sum(buffer, size) + size}, MESSAGE_HEADER_BYTES);
	else
		memset(buffer, 0, size < 8 ? size : 8);
}

void message_stamp(void *buffer, size_t size, uint64_t sequence)
{
	uint64_t head[3];

	if (size < MESSAGE_HEADER_BYTES) {
		memcpy(buffer, &sequence, size < 8 ? size : 8);
		return;
	}
	memcpy(head, buffer, sizeof head);
	head[2] += sequence - head[0];
	head[0] = sequence;
	memcpy(buffer, head, sizeof head);
}

int message_check(const void *buffer, size_t size, uint64_t sequence)
{
	uint64_t head[3] = {0, 0, 0}, want = sequence;

	if (size < MESSAGE_HEADER_BYTES) {
		memcpy(head, buffer, size < 8 ? size : 8);
		if (size < 8)
			want &= (UINT64_C(1) << (8 * size)) - 1;
		return head[0] == want ? 0 : -EBADMSG;
	}
	memcpy(head, buffer, sizeof head);
	if (head[0] != sequence || head[1] != size || head[2] != payload_sum(buffer, size) + sequence + size)
		return -EBADMSG;
	return 0;
}
