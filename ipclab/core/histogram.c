/* histogram.c: see histogram.h. */
#include "histogram.h"

#include <string.h>

#define SUB_BUCKETS (1 << HISTOGRAM_SUB_BITS)

void histogram_clear(struct histogram *histogram)
{
	memset(histogram, 0, sizeof *histogram);
	histogram->min = UINT64_MAX;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	for (int i = 0; i < HISTOGRAM_BUCKETS; i++)
		into->bucket[i] += from->bucket[i];
	into->count += from->count;
	if (from->min < into->min)
		into->min = from->min;
	if (from->max > into->max)
		into->max = from->max;
}

uint64_t histogram_lower_ns(int bucket)
{
	int shift = bucket / SUB_BUCKETS - 1;

	if (shift < 0)
		return (uint64_t)bucket;
	return (uint64_t)(SUB_BUCKETS + bucket % SUB_BUCKETS) << shift;
}

uint64_t histogram_upper_ns(int bucket)
{
	return histogram_lower_ns(bucket + 1);
}

/* How many of `count` values q percent are, at least one: 50 % of 5 are 3. */
static uint64_t rank_of(uint64_t count, double q)
{
	double exact = q / 100.0 * (double)count;
	uint64_t rank = (uint64_t)exact;

	if ((double)rank < exact)
		rank++;
	return rank < 1 ? 1 : rank > count ? count : rank;
}

uint64_t histogram_percentile(const struct histogram *histogram, double q)
{
	uint64_t rank, seen = 0, middle;
	int bucket = 0;

	if (!histogram->count)
		return 0;
	if (!(q > 0))
		return histogram->min;
	if (q >= 100)
		return histogram->max;
	rank = rank_of(histogram->count, q);
	while (bucket < HISTOGRAM_BUCKETS - 1 && (seen += histogram->bucket[bucket]) < rank)
		bucket++;
	middle = (histogram_lower_ns(bucket) + histogram_upper_ns(bucket) - 1) / 2;
	/* The outermost values are known better than their buckets. */
	if (middle < histogram->min)
		return histogram->min;
	return middle > histogram->max ? histogram->max : middle;
}
