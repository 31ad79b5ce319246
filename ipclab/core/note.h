/*
 * note.h: a place for one process to sleep until another one wakes it. The one blocking primitive of the core.
 *
 * Vocabulary. A note is one futex word: CLEAR, SET (the event has happened) or SLEEP (somebody sleeps on it or is about
 * to). It has one sleeper at a time. There are two ways to use one; a note is used in one way only.
 *
 * 1. The one-shot event, as Go's runtime has it (lock_futex.go: noteclear, notewakeup, notesleep):
 *      note_clear(n) ... one sleeper: note_sleep(n, ...)        one waker: note_wakeup(n)
 *    Waking twice without a clear in between is a bug in the caller and is reported (-EALREADY).
 *
 * 2. The wait for a condition, where the waker must not pay when nobody sleeps (the ring):
 *      sleeper                                   waker
 *      1. note_arm(n)      store SLEEP           1. make the condition true   (seq_cst store)
 *      2. look at the condition (seq_cst load);  2. note_poke(n)              (seq_cst load; only if it reads SLEEP
 *         true: note_disarm(n), done                                           a swap and a system call)
 *      3. note_park(n, deadline); go to 1
 *    Each side stores its own word and then loads the other's. All four are seq_cst, so in their one total order at
 *    least one side sees the other's store: the sleeper sees the condition, or the waker sees SLEEP. With release and
 *    acquire alone both could miss (store buffering), and the sleeper would sleep through the event.
 *
 * Rejected: a counter (eventcount) in place of the three states - the waker would have to write it on every event, and
 * the sleeper's cache line would travel with every message. A pipe or an eventfd - a system call per event.
 *
 * Death. A waker killed between the swap and the system call leaves a sleeper with a SET word: way 2 therefore parks in
 * slices and looks again; way 1 is repaired by whoever repairs the dead (the scheduler's template).
 */
#ifndef IPCLAB_NOTE_H
#define IPCLAB_NOTE_H

#include <stdint.h>

#include "barrier.h"

struct note {
	_Atomic uint32_t word; /* guard: itself. writers: sleeper and waker, as above. unit: enum note_state */
};

enum note_state { NOTE_CLEAR = 0, NOTE_SET = 1, NOTE_SLEEP = 2 };

void note_clear(struct note *note);
/* The first half of note_wakeup, for who must be able to say what happens between the two: what it was before. If that
 * was NOTE_SLEEP a futex_wake is owed. */
static inline uint32_t note_set(struct note *note)
{
	return swap_seq_cst(&note->word, NOTE_SET);
}
/* 0: nobody slept; 1: woke a sleeper; -EALREADY: was SET already. */
int note_wakeup(struct note *note);
/* Spins `spins` times, then sleeps until SET. 0, -ETIMEDOUT, -EINTR (the note is CLEAR again after both). */
int note_sleep(struct note *note, int64_t deadline_ns, uint32_t spins);

void note_arm(struct note *note);
void note_disarm(struct note *note);
/* 0 (woken, perhaps for nothing), -ETIMEDOUT, -EINTR. The note stays armed or SET; arm or disarm it next. */
int note_park(struct note *note, int64_t deadline_ns);
/* The slow half of note_poke. */
int note_poke_sleeper(struct note *note);

/* 1: woke a sleeper; 0: there was none, and nothing was written. */
static inline int note_poke(struct note *note)
{
	return load_seq_cst(&note->word) == NOTE_SLEEP ? note_poke_sleeper(note) : 0;
}

#endif
