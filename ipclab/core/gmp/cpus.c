/*
 * cpus.c: how many CPUs this process may use, for the default number of Ps: those of its affinity mask, and no more than
 * its cgroup's quota, rounded up.
 *
 * A quota may sit at any level between our group and the root of the hierarchy, and the smallest one holds. So the walk
 * goes from our group (/proc/self/cgroup), below where the hierarchy is mounted (/proc/self/mountinfo), up to the mount
 * point. Levels that are not there, as in a container, have no file and say nothing. cgroups(7), cgroup v1 and v2.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gmp.h"
#include "runtime2.h"

#define PATH_BYTES 4096

static bool listed(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *at = list; at && *at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		if (strncmp(at, word, n) == 0 && (at[n] == ',' || at[n] == '\0' || at[n] == '\n'))
			return true;
	return false;
}

static bool readNumbers(const char *folder, const char *name, const char *format, long long *one, long long *two)
{
	char path[2 * PATH_BYTES + 64];
	FILE *file;
	int n;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fscanf(file, format, one, two);
	fclose(file);
	return n == (two ? 2 : 1);
}

/* Of one level, in CPUs, rounded up; UINT32_MAX: no limit. */
static uint32_t quotaOf(const char *folder, bool v2)
{
	long long quota = 0, period = 0;
	bool told = v2 ? readNumbers(folder, "cpu.max", "%lld %lld", &quota, &period) :
			 readNumbers(folder, "cpu.cfs_quota_us", "%lld", &quota, NULL) &&
				 readNumbers(folder, "cpu.cfs_period_us", "%lld", &period, NULL);

	if (!told || quota <= 0 || period <= 0)
		return UINT32_MAX;
	return (uint32_t)((quota + period - 1) / period);
}

/* Our group in the hierarchy that has the cpu controller; v2 has all. False: in none. */
static bool groupOf(bool v2, char *group)
{
	char line[PATH_BYTES];
	FILE *file = fopen("/proc/self/cgroup", "re");
	bool found = false;

	while (file && !found && fgets(line, sizeof line, file)) {
		char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		found = v2 ? controllers[1] == '\0' : listed(controllers + 1, "cpu");
		path[strcspn(path, "\n")] = '\0';
		if (found)
			snprintf(group, PATH_BYTES, "%s", strcmp(path, "/") == 0 ? "" : path);
	}
	if (file)
		fclose(file);
	return found;
}

/* The smallest of all levels from our group up to the mount point, of which `root` is seen there. */
static uint32_t quotaBelow(const char *point, const char *root, bool v2)
{
	char group[PATH_BYTES], folder[2 * PATH_BYTES];
	size_t shown = strcmp(root, "/") == 0 ? 0 : strlen(root);
	uint32_t least = UINT32_MAX;

	if (!groupOf(v2, group))
		return least;
	if (strncmp(group, root, shown) != 0)
		shown = strlen(group); /* outside of what is mounted here: its root is all there is */
	snprintf(folder, sizeof folder, "%s%s", point, group + shown);
	for (;;) {
		uint32_t quota = quotaOf(folder, v2);

		least = quota < least ? quota : least;
		if (strlen(folder) <= strlen(point))
			return least;
		*strrchr(folder, '/') = '\0';
	}
}

static uint32_t quotaCpus(void)
{
	char line[4 * PATH_BYTES], root[PATH_BYTES], point[PATH_BYTES], type[64], options[PATH_BYTES];
	FILE *file = fopen("/proc/self/mountinfo", "re");
	uint32_t least = UINT32_MAX, quota;

	while (file && fgets(line, sizeof line, file)) {
		const char *tail = strstr(line, " - ");
		bool v2;

		if (!tail || sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) != 2 ||
		    sscanf(tail, " - %63s %*s %4095s", type, options) != 2)
			continue;
		v2 = strcmp(type, "cgroup2") == 0;
		if (!v2 && (strcmp(type, "cgroup") != 0 || !listed(options, "cpu")))
			continue;
		quota = quotaBelow(point, root, v2);
		least = quota < least ? quota : least;
	}
	if (file)
		fclose(file);
	return least;
}

uint32_t gmp_cpus(void)
{
	uint32_t cpus, quota = quotaCpus();
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof set, &set) == 0)
		cpus = (uint32_t)CPU_COUNT(&set);
	else
		cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t holds */
	cpus = quota < cpus ? quota : cpus;
	return cpus > GMP_MAXPROCS ? GMP_MAXPROCS : cpus;
}
