/*
 * lend.c: whom everybody waits for gets the CPU.
 *
 * Where the time of a repair goes is an M that is inside, runnable, and not on a CPU, because others are; or one that
 * sleeps for the lock of such an M. So all that are inside are lent a real-time priority until they are outside, and so is
 * the template while it repairs. A nice value would not do: autogroups and cgroups weigh sessions against each other.
 *
 * It needs CAP_SYS_NICE. Without, nothing is lent, and on a full machine a repair takes some time slices longer.
 *
 * no point: the template alone; if that is killed, all Ms are.
 */
#define _GNU_SOURCE
#include <sched.h>

#include "template.h"

/* Those that have no priority of their own to be kept: it is 0, and their nice value stays as it is. */
static bool isPlain(int policy)
{
	int kind = policy & ~SCHED_RESET_ON_FORK;

	return kind == SCHED_OTHER || kind == SCHED_BATCH || kind == SCHED_IDLE;
}

int lend(pid_t pid)
{
	struct sched_param least = {.sched_priority = sched_get_priority_min(SCHED_RR)};
	int policy = sched_getscheduler(pid);

	/* Not to the children of a G that forks before it is taken back. */
	if (policy < 0 || !isPlain(policy) || sched_setscheduler(pid, SCHED_RR | SCHED_RESET_ON_FORK, &least) < 0)
		return -1;
	return policy;
}

void takeBack(int policy, pid_t pid)
{
	if (policy >= 0)
		sched_setscheduler(pid, policy, &(struct sched_param){0});
}

void lendTo(struct gmp *rt, uint32_t m)
{
	struct m *mp = M(rt, m);

	if (!mp->lent && load_relaxed(&mp->procid) > 0)
		mp->lent = (uint32_t)(lend(load_relaxed(&mp->procid)) + 1);
}

void takeBackFrom(struct gmp *rt, uint32_t m)
{
	struct m *mp = M(rt, m);

	if (mp->lent)
		takeBack((int)mp->lent - 1, load_relaxed(&mp->procid));
	mp->lent = 0;
}
