/* What a receiver must be able to notice: every kind of damage, at every length. */
#include "core/message.h"
#include "test.h"

static int whole_messages_pass(void)
{
	unsigned char buffer[300];

	for (size_t size = 0; size <= sizeof buffer; size++) {
		message_fill(buffer, size);
		CHECK_EQ(message_check(buffer, size, 0), 0);
		for (uint64_t sequence = 1; sequence < 70000; sequence += 4999) {
			message_stamp(buffer, size, sequence);
			CHECK_EQ(message_check(buffer, size, sequence), 0);
		}
	}
	return 0;
}

static int a_wrong_sequence_is_seen(void)
{
	unsigned char buffer[300];

	for (size_t size = 1; size <= sizeof buffer; size++) {
		message_fill(buffer, size);
		message_stamp(buffer, size, 7);
		CHECK_EQ(message_check(buffer, size, 8), -EBADMSG);
		CHECK_EQ(message_check(buffer, size, 6), -EBADMSG);
	}
	return 0;
}

static int every_flipped_byte_is_seen(void)
{
	unsigned char buffer[200];

	for (size_t size = 24; size <= sizeof buffer; size++) {
		message_fill(buffer, size);
		message_stamp(buffer, size, 5);
		for (size_t i = 0; i < size; i++) {
			buffer[i] ^= 0x10;
			CHECK_EQ(message_check(buffer, size, 5), -EBADMSG);
			buffer[i] ^= 0x10;
		}
		CHECK_EQ(message_check(buffer, size, 5), 0);
	}
	return 0;
}

static int truncation_and_swapped_words_are_seen(void)
{
	unsigned char buffer[200], word[8];

	message_fill(buffer, sizeof buffer);
	for (size_t size = 24; size < sizeof buffer; size++)
		CHECK_EQ(message_check(buffer, size, 0), -EBADMSG);
	memcpy(word, buffer + 24, 8);
	memcpy(buffer + 24, buffer + 32, 8);
	memcpy(buffer + 32, word, 8);
	CHECK_EQ(message_check(buffer, sizeof buffer, 0), -EBADMSG);
	return 0;
}

static int swapped_blocks_are_seen(void)
{
	static const size_t sizes[] = {8, 32, 64, 128, 256, 4096};
	static unsigned char buffer[24 + 16384], block[4096];

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		message_fill(buffer, sizeof buffer);
		memcpy(block, buffer + 24, sizes[i]);
		memcpy(buffer + 24, buffer + 24 + 8192, sizes[i]);
		memcpy(buffer + 24 + 8192, block, sizes[i]);
		CHECK_EQ(message_check(buffer, sizeof buffer, 0), -EBADMSG);
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"whole_messages_pass", whole_messages_pass},
		{"a_wrong_sequence_is_seen", a_wrong_sequence_is_seen},
		{"every_flipped_byte_is_seen", every_flipped_byte_is_seen},
		{"truncation_and_swapped_words_are_seen", truncation_and_swapped_words_are_seen},
		{"swapped_blocks_are_seen", swapped_blocks_are_seen},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
