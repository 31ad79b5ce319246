/* The fingerprint: it needs two CPUs to say anything. */
#define _GNU_SOURCE
#include <sched.h>

#include "core/fingerprint.h"
#include "test.h"

/* The first two CPUs we may use; how many there are. */
static int two_cpus(int cpus[2])
{
	cpu_set_t set;
	int found = 0;

	CHECK(sched_getaffinity(0, sizeof set, &set) == 0);
	for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[found++] = cpu;
	return found;
}

static int one_cpu_has_no_distance(void)
{
	int cpus[2];

	two_cpus(cpus);
	CHECK_EQ(fingerprint(cpus[0], cpus[0], 100), 0);
	return 0;
}

static int two_cpus_have_one(void)
{
	cpu_set_t before, after;
	int cpus[2];
	int64_t ns;

	if (two_cpus(cpus) < 2)
		return SKIP;
	CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
	ns = fingerprint(cpus[0], cpus[1], 1000);
	CHECK(ns == -ETIMEDOUT || (ns > 0 && ns < FINGERPRINT_MOST_NS));
	CHECK(sched_getaffinity(0, sizeof after, &after) == 0);
	CHECK(CPU_EQUAL(&before, &after));
	return 0;
}

static int what_cannot_be(void)
{
	int cpus[2];

	two_cpus(cpus);
	CHECK_EQ(fingerprint(-1, cpus[0], 100), -EINVAL);
	CHECK_EQ(fingerprint(cpus[0], cpus[0], 0), -EINVAL);
	CHECK_EQ(fingerprint(cpus[0], 100000, 100), -EINVAL);
	CHECK_EQ(fingerprint(100000, cpus[0], 100), -EINVAL);
	CHECK_EQ(fingerprint(100000, 100000, 100), -EINVAL);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"one_cpu_has_no_distance", one_cpu_has_no_distance},
		{"two_cpus_have_one", two_cpus_have_one},
		{"what_cannot_be", what_cannot_be},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
