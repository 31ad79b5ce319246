/* The texts of /proc: made up, cut off at every byte, and this process's own. */
#include "core/procstat.h"
#include "test.h"

#define ODD "1234 (a) b ((c) R 77 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 -5 3 0 987654 9 10 18446744073709551615 1 2 3 4 5 6 7 8 9 10 " \
	    "11 12 17 5 0 0 0 0 0 0 0 0 0 0 0 0 0\n"

static int a_name_may_hold_brackets(void)
{
	struct procstat stat;

	CHECK_EQ(procstat_parse(ODD, strlen(ODD), &stat), 0);
	CHECK_EQ(stat.pid, 1234);
	CHECK(strcmp(stat.comm, "a) b ((c") == 0);
	CHECK_EQ(stat.state, 'R');
	CHECK_EQ(stat.ppid, 77);
	CHECK_EQ(stat.threads, 3);
	CHECK_EQ(stat.start_ticks, 987654);
	CHECK_EQ(stat.cpu, 5);
	CHECK_EQ(stat.kernel, 0);
	return 0;
}

/* In memory of exactly that size, so that a byte too far is seen. */
static int cut_off_anywhere_it_is_refused_or_whole(void)
{
	size_t length = strlen(ODD);
	struct procstat stat;

	for (size_t size = 0; size < length; size++) {
		char *text = malloc(size + 1);

		CHECK(text);
		memcpy(text, ODD, size);
		if (procstat_parse(text, size, &stat) == 0)
			CHECK(size > length - 40); /* behind the last field that is read */
		free(text);
	}
	return 0;
}

static int counters(void)
{
	struct schedstat stat;
	const char *text = "12345678901234 987 65\n";

	CHECK_EQ(schedstat_parse(text, strlen(text), &stat), 0);
	CHECK_EQ(stat.run_ns, 12345678901234);
	CHECK_EQ(stat.wait_ns, 987);
	CHECK_EQ(stat.slices, 65);
	CHECK_EQ(schedstat_parse("1 2", 3, &stat), -EINVAL);
	CHECK_EQ(schedstat_parse("", 0, &stat), -EINVAL);
	return 0;
}

static int switches(void)
{
	const char *text = "Name:\tx\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n";

	CHECK_EQ(status_switches(text, strlen(text)), 42);
	CHECK_EQ(status_switches(text, strlen(text) - 4), -EINVAL);
	CHECK_EQ(status_switches("Name:\tx\n", 8), -EINVAL);
	return 0;
}

static int our_own(void)
{
	struct procstat stat;
	char text[4096];
	FILE *file = fopen("/proc/self/stat", "r");
	size_t got;

	CHECK(file);
	got = fread(text, 1, sizeof text, file);
	fclose(file);
	CHECK_EQ(procstat_parse(text, got, &stat), 0);
	CHECK_EQ(stat.pid, getpid());
	CHECK_EQ(stat.ppid, getppid());
	CHECK_EQ(stat.state, 'R');
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"a_name_may_hold_brackets", a_name_may_hold_brackets},
		{"cut_off_anywhere_it_is_refused_or_whole", cut_off_anywhere_it_is_refused_or_whole},
		{"counters", counters},
		{"switches", switches},
		{"our_own", our_own},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
