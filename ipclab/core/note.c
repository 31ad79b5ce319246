/* note.c: see note.h. */
#define _GNU_SOURCE
#include "note.h"

#include <errno.h>

#include "futex.h"

void note_clear(struct note *note)
{
	store_release(&note->word, NOTE_CLEAR);
}

int note_wakeup(struct note *note)
{
	uint32_t before = note_set(note);

	if (before == NOTE_SET)
		return -EALREADY;
	if (before == NOTE_CLEAR)
		return 0;
	futex_wake(&note->word, 1);
	return 1;
}

/* Leaves a sleep that was not ended by the event; 0 if the event came all the same. */
static int give_up(struct note *note, int why)
{
	uint32_t sleeping = NOTE_SLEEP;

	return cas_seq_cst(&note->word, &sleeping, NOTE_CLEAR) ? why : 0;
}

int note_sleep(struct note *note, int64_t deadline_ns, uint32_t spins)
{
	uint32_t clear = NOTE_CLEAR;
	int rc;

	for (; spins; spins--) {
		if (load_acquire(&note->word) == NOTE_SET)
			return 0;
		cpu_relax();
	}
	if (!cas_seq_cst(&note->word, &clear, NOTE_SLEEP))
		return clear == NOTE_SET ? 0 : -EBUSY; /* SLEEP: a second sleeper, which a note does not have */
	while (load_acquire(&note->word) == NOTE_SLEEP) {
		rc = futex_wait_until(&note->word, NOTE_SLEEP, deadline_ns);
		if (rc == -ETIMEDOUT || rc == -EINTR)
			return give_up(note, rc);
	}
	return 0;
}

void note_arm(struct note *note)
{
	store_seq_cst(&note->word, NOTE_SLEEP);
}

void note_disarm(struct note *note)
{
	store_seq_cst(&note->word, NOTE_CLEAR);
}

int note_park(struct note *note, int64_t deadline_ns)
{
	int rc;

	if (load_seq_cst(&note->word) != NOTE_SLEEP)
		return 0;
	rc = futex_wait_until(&note->word, NOTE_SLEEP, deadline_ns);
	return rc == -EAGAIN ? 0 : rc;
}

int note_poke_sleeper(struct note *note)
{
	/* Only the swap that takes SLEEP away owes the system call. */
	if (swap_seq_cst(&note->word, NOTE_SET) != NOTE_SLEEP)
		return 0;
	futex_wake(&note->word, 1);
	return 1;
}
