/* message.c: see message.h. */
#include "message.h"

#include <errno.h>
#include <string.h>

/* The sum over the payload's 8-byte words, and its odd bytes at the end. Four sums, so that the CPU can add in step. */
static uint64_t payload_sum(const void *buffer, size_t size)
{
	const unsigned char *at = (const unsigned char *)buffer + MESSAGE_HEADER_BYTES;
	size_t left = size > MESSAGE_HEADER_BYTES ? size - MESSAGE_HEADER_BYTES : 0;
	uint64_t sum[4] = {0, 0, 0, 0}, word[4], tail = 0;

	for (; left >= sizeof word; left -= sizeof word, at += sizeof word) {
		memcpy(word, at, sizeof word);
		for (int i = 0; i < 4; i++)
			sum[i] += word[i];
	}
	for (; left >= sizeof tail; left -= sizeof tail, at += sizeof tail) {
		memcpy(&tail, at, sizeof tail);
		sum[0] += tail;
	}
	tail = 0;
	memcpy(&tail, at, left);
	/* Different weights, so that swapped words are seen too. */
	return sum[0] + 3 * sum[1] + 5 * sum[2] + 7 * sum[3] + tail;
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
