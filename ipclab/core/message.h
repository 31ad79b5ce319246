/*
 * message.h: messages that can be verified, the same way for every mechanism.
 *
 * A stamped message of n bytes carries, as far as it is long enough, the sequence number, its own length and the sum
 * over its words, so that a drop, a reordering, a truncation and a flipped byte are all seen. The receiver reads every
 * byte. Filling is done once per buffer; stamping a message changes 24 bytes.
 *
 *   bytes  0..7   sequence
 *   bytes  8..15  length
 *   bytes 16..23  sum over all words of the payload behind it (message.c), plus sequence and length
 *   bytes 24..    payload
 *
 * Below 24 bytes there is only the sequence number, cut to what fits: length is then what the receiver was given.
 */
#ifndef IPCLAB_MESSAGE_H
#define IPCLAB_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#define MESSAGE_HEADER_BYTES 24

/* Makes the payload and stamps it with sequence 0. */
void message_fill(void *buffer, size_t size);
/* Gives a filled message another sequence number. The sum is carried on from the stamp that is there, not added anew. */
void message_stamp(void *buffer, size_t size, uint64_t sequence);
/* 0, or -EBADMSG. */
int message_check(const void *buffer, size_t size, uint64_t sequence);

#endif
