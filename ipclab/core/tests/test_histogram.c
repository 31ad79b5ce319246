/* The histogram: where values are counted, how far off percentiles are, merging. */
#include "core/histogram.h"
#include "test.h"

static int every_value_lies_in_its_bucket(void)
{
	uint64_t seed = 1;

	for (uint64_t ns = 0; ns < 100000; ns++) {
		int bucket = histogram_bucket_of(ns);

		CHECK(histogram_lower_ns(bucket) <= ns && ns < histogram_upper_ns(bucket));
	}
	for (int i = 0; i < 100000; i++) {
		uint64_t ns = ((uint64_t)random_below(&seed, UINT32_MAX) << 10) >> random_below(&seed, 42);
		int bucket = histogram_bucket_of(ns);

		CHECK(histogram_lower_ns(bucket) <= ns && ns < histogram_upper_ns(bucket));
	}
	return 0;
}

static int buckets_follow_each_other_and_are_narrow(void)
{
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t lower = histogram_lower_ns(i), width = histogram_upper_ns(i) - lower;

		CHECK_EQ(histogram_bucket_of(lower), i);
		CHECK_EQ(histogram_bucket_of(histogram_upper_ns(i) - 1), i);
		CHECK(width >= 1 && (width == 1 || width * 32 <= lower));
	}
	CHECK_EQ(histogram_upper_ns(HISTOGRAM_BUCKETS - 1), INT64_C(1) << HISTOGRAM_TOP_BITS);
	return 0;
}

static int what_is_too_large_is_counted_last(void)
{
	struct histogram histogram;

	histogram_clear(&histogram);
	histogram_record(&histogram, UINT64_MAX);
	histogram_record(&histogram, UINT64_C(1) << HISTOGRAM_TOP_BITS);
	CHECK_EQ(histogram.bucket[HISTOGRAM_BUCKETS - 1], 2);
	CHECK(histogram.max == UINT64_MAX && histogram_percentile(&histogram, 100) == UINT64_MAX);
	return 0;
}

static int an_empty_one(void)
{
	struct histogram histogram, other;

	histogram_clear(&histogram);
	histogram_clear(&other);
	CHECK_EQ(histogram_percentile(&histogram, 50), 0);
	histogram_record(&other, 77);
	histogram_merge(&other, &histogram);
	CHECK_EQ(other.min, 77);
	histogram_merge(&histogram, &other);
	CHECK(histogram.min == 77 && histogram.max == 77 && histogram.count == 1);
	return 0;
}

static int percentiles_of_one_to_a_thousand(void)
{
	struct histogram histogram;

	histogram_clear(&histogram);
	for (uint64_t i = 1; i <= 1000; i++)
		histogram_record(&histogram, i * 1000);
	for (int q = 0; q <= 100; q++) {
		double exact = q ? q * 10000.0 : 1000.0, got = (double)histogram_percentile(&histogram, q);

		CHECK(got >= exact * 0.98 && got <= exact * 1.02);
	}
	CHECK_EQ(histogram_percentile(&histogram, 0), 1000);
	CHECK_EQ(histogram_percentile(&histogram, 100), 1000000);
	CHECK_EQ(histogram_percentile(&histogram, -5), 1000);
	CHECK_EQ(histogram_percentile(&histogram, 1e9), 1000000);
	return 0;
}

static int merging_is_adding(void)
{
	struct histogram all, part[2];
	uint64_t seed = 3;

	histogram_clear(&all);
	histogram_clear(&part[0]);
	histogram_clear(&part[1]);
	for (int i = 0; i < 10000; i++) {
		uint64_t ns = random_below(&seed, 1u << random_below(&seed, 31));

		histogram_record(&all, ns);
		histogram_record(&part[i % 2], ns);
	}
	histogram_merge(&part[0], &part[1]);
	CHECK(memcmp(&all, &part[0], sizeof all) == 0);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		{"every_value_lies_in_its_bucket", every_value_lies_in_its_bucket},
		{"buckets_follow_each_other_and_are_narrow", buckets_follow_each_other_and_are_narrow},
		{"what_is_too_large_is_counted_last", what_is_too_large_is_counted_last},
		{"an_empty_one", an_empty_one},
		{"percentiles_of_one_to_a_thousand", percentiles_of_one_to_a_thousand},
		{"merging_is_adding", merging_is_adding},
		{NULL, NULL},
	};

	return run_tests(tests, argc, argv);
}
