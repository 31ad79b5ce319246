/* ticker.c: see ticker.h. */
#define _GNU_SOURCE
#include "ticker.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "futex.h"

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

static pthread_mutex_t users_lock = PTHREAD_MUTEX_INITIALIZER;
static int users;                 /* guard: users_lock */
static struct sigaction former; /* guard: users_lock; what SIGURG did before the first user */

static void on_tick(int signo, siginfo_t *info, void *context)
{
	struct ticker *ticker = info->si_value.sival_ptr;

	(void)signo, (void)context;
	if (info->si_code == SI_TIMER && ticker) /* anybody may send a SIGURG */
		ticker->ticked = 1;
}

static void add_user(void)
{
	struct sigaction action = {.sa_sigaction = on_tick, .sa_flags = SA_SIGINFO};

	sigemptyset(&action.sa_mask);
	pthread_mutex_lock(&users_lock);
	if (users++ == 0)
		sigaction(SIGURG, &action, &former);
	pthread_mutex_unlock(&users_lock);
}

static void remove_user(void)
{
	pthread_mutex_lock(&users_lock);
	if (--users == 0)
		sigaction(SIGURG, &former, NULL);
	pthread_mutex_unlock(&users_lock);
}

static void set_mask(struct ticker *ticker)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, &ticker->mask);
	sigemptyset(&set);
	sigaddset(&set, SIGURG);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* A SIGPIPE of our own making is taken away before it could be delivered. */
static void restore_mask(const struct ticker *ticker)
{
	const struct timespec at_once = {0, 0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGPIPE);
	if (!sigismember(&ticker->mask, SIGPIPE))
		while (sigtimedwait(&set, NULL, &at_once) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &ticker->mask, NULL);
}

int ticker_start(struct ticker *ticker, int64_t deadline_ns)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGURG, .sigev_value.sival_ptr = ticker};
	struct itimerspec period;
	int64_t first_ns = TICK_NS;
	int rc;

	if (deadline_ns >= 0 && deadline_ns - monotonic_ns() < first_ns)
		first_ns = deadline_ns - monotonic_ns();
	period.it_value = timespec_of_ns(first_ns < 1 ? 1 : first_ns); /* 0 would switch it off */
	period.it_interval = timespec_of_ns(TICK_NS);
	event.sigev_notify_thread_id = (pid_t)syscall(SYS_gettid);
	ticker->ticked = 0;
	set_mask(ticker);
	add_user();
	if (timer_create(CLOCK_MONOTONIC, &event, &ticker->timer) == 0) {
		if (timer_settime(ticker->timer, 0, &period, NULL) == 0)
			return 0;
		rc = -errno;
		timer_delete(ticker->timer);
	} else {
		rc = -errno;
	}
	remove_user();
	restore_mask(ticker);
	return rc;
}

void ticker_stop(struct ticker *ticker)
{
	/* The signal is this thread's own: what was pending is delivered before the call returns. */
	timer_delete(ticker->timer);
	remove_user();
	restore_mask(ticker);
}
