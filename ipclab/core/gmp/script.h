/*
 * script.h: what a script G can do: a program is an array of steps, a continuation is an index into it.
 *
 * A program is data, so any M can go on with any G, and the scheduler can be measured without a language on top of it.
 */
#ifndef IPCLAB_GMP_SCRIPT_H
#define IPCLAB_GMP_SCRIPT_H

#include "runtime2.h"

enum op {
	OP_EXIT,       /* the end; also what follows the last step */
	OP_COMPUTE,    /* b: ns of CPU time; looks whether it shall give way every few us, and stays portable */
	OP_SLEEP,      /* b: ns; a timer */
	OP_BLOCK,      /* b: ns in a system call (entersyscall: sysmon takes the P if it lasts) */
	OP_BLOCKING,   /* b: ns in a system call known to block (entersyscallblock: the P is handed off at once) */
	OP_SEND,       /* a: channel; b: value */
	OP_RECV,       /* a: channel; what comes is added to the G's sum */
	OP_CLOSE,      /* a: channel */
	OP_SELECT,     /* a: how many OP_SEND or OP_RECV steps follow as its cases; b: 1 with a default */
	OP_LOCK,       /* a: semaphore, as a mutex */
	OP_UNLOCK,
	OP_ACQUIRE,    /* a: semaphore */
	OP_RELEASE,
	OP_WG_ADD,     /* a: semaphore, as a wait group; b: delta */
	OP_WG_WAIT,
	OP_SPAWN,      /* a: program; b: how many */
	OP_YIELD,
	OP_LOOP,       /* a: step to go back to, below 2^24, and in the upper 8 bits which counter; b: times in all */
	OP_LOCKM,      /* LockOSThread */
	OP_UNLOCKM,
	OP_STOPWORLD,  /* a: Ps from then on, 0 as before; b: ns it stays stopped */
	OP_CRUNCH,     /* b: rounds of a plain loop that looks at nothing, as foreign code; crunch(b) is added to the sum */
	OP_USER,       /* a, b: for the caller's own function, hooks.user */
	OP_GIVE,       /* a: channel; b: bytes: a block of so many goes over it, filled in a way that tells if it is whole */
	OP_TAKE,       /* a: channel: takes such a block, looks through it, gives it back; its bytes are added to the sum */
	OP_CHURN,      /* a: capacity; b: how often a channel is made, filled with blocks, and given back with them; and a mutex */
	OP_COUNT
};
#define LOOP_COUNTERS 4
#define TARGET(a) ((a)&0xffffffu) /* of OP_LOOP's a: the step */
#define COUNTER(a) ((a) >> 24)    /* and which counter */

enum misuse { /* FATAL_USE's argument, upper half; the lower one is the goid */
	MISUSE_NONE,
	MISUSE_SEND_CLOSED,
	MISUSE_CLOSE_CLOSED,
	MISUSE_UNLOCK_UNLOCKED,
	MISUSE_NEGATIVE_WAITGROUP,
};

uint64_t crunch(int64_t rounds); /* some number that takes a ns or so per round to find out */
const char *waitReasonString(enum wait_reason reason);
/* 0, or the number of the first step that is wrong, counted from 1: unknown op, no such channel, semaphore, program or
 * step, a negative time, a select without its cases. */
uint32_t scriptCheck(const struct step *steps, uint32_t n, uint32_t chans, uint32_t semas, uint32_t programs);

#endif
