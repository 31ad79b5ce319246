/*
 * chan.h: what Gs wait for each other with: channels and select (Go: chan.go, select.go), semaphores and what is built
 * on them: mutex, wait group (sema.go, internal/sync/mutex.go, sync/waitgroup.go).
 *
 * Values are 64-bit words. A call returns WAIT_DONE, or WAIT_PARKED: then the G is _Gwaiting, perhaps running elsewhere
 * already, and the caller must not touch it any more; when it runs again, the matching ...Resume tells the outcome.
 *
 * Who serves a sleeper: 1. writes its sudog's elem and success, and its G's param; 2. done = 1, the store that counts;
 * 3. takes the sudog out of the queue; 4. unlocks; 5. ready. Killed after 2, the sleeper has been served and repair wakes
 * it; before 2, nothing has happened. A value that goes into the buffer for a sleeping sender is logged (redo), so that
 * repair can tell the buffer's half of it from the sudog's.
 */
#ifndef IPCLAB_GMP_CHAN_H
#define IPCLAB_GMP_CHAN_H

#include "runtime2.h"

/* sema.state of a mutex */
#define MUTEX_LOCKED 1u
#define MUTEX_WOKEN 2u
#define MUTEX_STARVING 4u
#define WAITER_ONE 8u

enum waited { WAIT_DONE, WAIT_PARKED, WAIT_CLOSED, WAIT_WOULDBLOCK };

void waitqPut(struct gmp *rt, struct waitq *q, uint32_t sg, bool first);
void waitqTake(struct gmp *rt, struct waitq *q, uint32_t sg);
/* The first one that may be served (for a select: whose race we have won), still in the queue; 0. */
uint32_t waitqFirst(struct gmp *rt, struct waitq *q);
/* Steps 2 and 3 above. */
void waitqServe(struct gmp *rt, struct waitq *q, uint32_t sg);
/* The G's own sudog, filled in. */
uint32_t ownSudog(struct gmp *rt, uint32_t g, uint32_t c, bool sending, uint64_t elem);

/* chanmake.c: the index of a new one, or -ENOSPC. By an M in the runtime, or by the caller. */
int makechan(struct gmp *rt, uint32_t capacity);
int makesema(struct gmp *rt, uint32_t value); /* also a mutex (value 0) and a wait group (value 0) */
/* Nobody's from here on: nobody waits for it or will name it again. Blocks that are buffered go with it. */
void freechan(struct gmp *rt, uint32_t c);
void freesema(struct gmp *rt, uint32_t s);
void chansRebuild(struct gmp *rt); /* repair */

enum waited chansend(struct gmp *rt, uint32_t g, uint32_t c, uint64_t value, bool block); /* WAIT_CLOSED: a panic */
enum waited chansendResume(struct gmp *rt, uint32_t g);
enum waited chanrecv(struct gmp *rt, uint32_t g, uint32_t c, uint64_t *value, bool block); /* WAIT_CLOSED: zero, false */
enum waited chanrecvResume(struct gmp *rt, uint32_t g, uint64_t *value);
bool closechan(struct gmp *rt, uint32_t c); /* false: it was closed already */
/* With the lock held: the half of an operation that does not wait. *woken: whom to ready after the unlock. */
enum waited trysend(struct gmp *rt, struct hchan *c, uint64_t value, uint32_t *woken);
enum waited tryrecv(struct gmp *rt, struct hchan *c, uint64_t *value, uint32_t *woken);

/* Repair, with the lock a dead M held: the queues without those it has served or left in them. */
void mendChan(struct gmp *rt, struct hchan *c);
uint32_t mendQueue(struct gmp *rt, struct waitq *q);

struct scase {
	uint32_t c;
	bool sending;
	uint64_t elem; /* to send; or what was received */
};
#define SELECT_MOST 16
/* *chosen: which case. WAIT_WOULDBLOCK: none is ready and block is false. */
enum waited selectgo(struct gmp *rt, uint32_t g, struct scase *cases, uint32_t n, bool block, uint32_t *chosen);
enum waited selectgoResume(struct gmp *rt, uint32_t g, struct scase *cases, uint32_t n, uint32_t *chosen);

enum waited semacquire(struct gmp *rt, uint32_t g, struct sema *s);
enum waited semacquireResume(struct gmp *rt, uint32_t g, struct sema *s);
bool semrelease(struct gmp *rt, struct sema *s, bool handoff); /* true: it was handed over; let the G give way */
enum waited mutexLock(struct gmp *rt, uint32_t g, struct sema *s);
enum waited mutexLockResume(struct gmp *rt, uint32_t g, struct sema *s);
int mutexUnlock(struct gmp *rt, struct sema *s); /* -1: was not locked; 1: let the G give way; 0 */
bool waitgroupAdd(struct gmp *rt, struct sema *s, int32_t delta); /* false: negative counter */
enum waited waitgroupWait(struct gmp *rt, uint32_t g, struct sema *s);

#endif
