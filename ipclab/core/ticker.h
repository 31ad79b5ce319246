/*
 * ticker.h: a knock at the door, twenty times a second, for a loop that sleeps in a system call or never leaves user
 * space.
 *
 * The problem. A loop that measures must not ask "is my time over?" by a system call or a look at the clock per message,
 * and must not wait by poll(2) before it reads: that would be the price of the question. But it must end at a deadline,
 * notice that its watched peer was killed, and let Python's signal handlers run, wherever it is: asleep in read(2),
 * msgrcv(2), semop(2), or spinning.
 *
 * Rejected: SO_RCVTIMEO and friends (pipes and queues have none); O_NONBLOCK and poll (a system call more per message);
 * a watching thread (a second thread makes every descriptor's look-up atomic in the kernel, and that is measurable).
 *
 * Chosen: a timer that sends SIGURG to this thread (timer_create(2), SIGEV_THREAD_ID). Its handler raises the flag
 * `ticked`; without SA_RESTART, the call it interrupts returns EINTR. The loop looks at the flag once per message,
 * which is a load from the cache. A signal that comes between the look and the call is lost, the next one is not: so a
 * loop is at most two periods late. SIGURG because nobody's default action for it does anything, should one be late.
 *
 * The handler is installed while any thread has a ticker, and the former one put back after the last.
 */
#ifndef IPCLAB_TICKER_H
#define IPCLAB_TICKER_H

#include <signal.h>
#include <stdint.h>
#include <time.h>

#define TICK_NS INT64_C(50000000) /* chosen: as often as the ring looks for its peer; costs below 0.01 % of a CPU */

struct ticker {
	volatile sig_atomic_t ticked; /* writers: the handler, and the same thread between two calls */
	timer_t timer;
	sigset_t mask; /* the thread's, as it was */
};

/*
 * Starts ticking for the calling thread, with SIGPIPE held back (the loops want EPIPE). The first tick comes at
 * `deadline_ns` if that is sooner than a period; negative: never. 0, or -EAGAIN (RLIMIT_SIGPENDING), -EPERM, ...
 */
int ticker_start(struct ticker *ticker, int64_t deadline_ns);
/* Stops; no tick comes after it. Same thread. */
void ticker_stop(struct ticker *ticker);

#endif
