/* script_check.c: is a program right, before it runs? See script.h. */
#include "chan.h"
#include "gmp.h"
#include "script.h"

static bool stepIsRight(const struct step *steps, uint32_t n, uint32_t at, uint32_t chans, uint32_t semas,
			uint32_t programs)
{
	const struct step *step = &steps[at];

	switch (step->op) {
	case OP_EXIT:
	case OP_YIELD:
	case OP_LOCKM:
	case OP_UNLOCKM:
	case OP_USER:
		return true;
	case OP_CRUNCH:
	case OP_COMPUTE:
	case OP_SLEEP:
	case OP_BLOCK:
	case OP_BLOCKING:
		return step->b >= 0;
	case OP_SEND:
	case OP_RECV:
	case OP_CLOSE:
	case OP_TAKE:
		return step->a < chans;
	case OP_CHURN:
		return step->b >= 0;
	case OP_GIVE:
		return step->a < chans && step->b >= 0;
	case OP_SELECT:
		if (step->a < 1 || step->a > SELECT_MOST || step->a >= n - at)
			return false;
		for (uint32_t i = 1; i <= step->a; i++)
			if (steps[at + i].op != OP_SEND && steps[at + i].op != OP_RECV)
				return false;
		return true;
	case OP_LOCK:
	case OP_UNLOCK:
	case OP_ACQUIRE:
	case OP_RELEASE:
	case OP_WG_ADD:
	case OP_WG_WAIT:
		return step->a < semas;
	case OP_SPAWN:
		return step->a < programs && step->b >= 0;
	case OP_LOOP:
		return TARGET(step->a) < at && COUNTER(step->a) < LOOP_COUNTERS && step->b >= 1;
	case OP_STOPWORLD:
		return step->a <= GMP_MAXPROCS && step->b >= 0;
	default:
		return false;
	}
}

uint32_t scriptCheck(const struct step *steps, uint32_t n, uint32_t chans, uint32_t semas, uint32_t programs)
{
	for (uint32_t i = 0; i < n; i++)
		if (!stepIsRight(steps, n, i, chans, semas, programs))
			return i + 1;
	return 0;
}
