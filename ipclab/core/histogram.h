/*
 * histogram.h: how often each duration was seen, for any number of durations, in a fixed piece of memory.
 *
 * Below 32 ns every value has a bucket of its own. From there each power of two is cut into 32 buckets of equal width,
 * so that a bucket is never wider than 1/32 of its lower bound: a percentile is off by 3.2 % at most (half of that, as
 * the middle of the bucket is told), whether it is 40 ns or a minute. What lies above 2^42 ns (73 minutes) is counted
 * in the last bucket. The least and the largest value are kept exactly.
 *
 * Recording is a shift, a count-leading-zeros and an increment: about 2 ns. Histograms of many samples are added bucket
 * by bucket, and nothing is lost by it. Not atomic: one thread records.
 */
#ifndef IPCLAB_HISTOGRAM_H
#define IPCLAB_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5 /* 32 buckets per power of two */
#define HISTOGRAM_TOP_BITS 42
#define HISTOGRAM_BUCKETS ((HISTOGRAM_TOP_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t count;
	uint64_t min; /* ns; UINT64_MAX while count is 0 */
	uint64_t max; /* ns */
	uint64_t bucket[HISTOGRAM_BUCKETS];
};

void histogram_clear(struct histogram *histogram);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* The value at or below which q percent of all lie, in ns; q is cut to 0..100. 0 when nothing was recorded. */
uint64_t histogram_percentile(const struct histogram *histogram, double q);
/* The least value that is counted in a bucket. */
uint64_t histogram_lower_ns(int bucket);
/* The least value that is counted in the bucket after it. */
uint64_t histogram_upper_ns(int bucket);

static inline int histogram_bucket_of(uint64_t ns)
{
	int exponent;

	if (ns < (UINT64_C(1) << HISTOGRAM_SUB_BITS))
		return (int)ns;
	exponent = 63 - __builtin_clzll(ns);
	if (exponent >= HISTOGRAM_TOP_BITS)
		return HISTOGRAM_BUCKETS - 1;
	/* The bits below the leading one choose among 32; each further power of two begins 32 buckets later. */
	return (exponent - HISTOGRAM_SUB_BITS) * (1 << HISTOGRAM_SUB_BITS) + (int)(ns >> (exponent - HISTOGRAM_SUB_BITS));
}

static inline void histogram_add(struct histogram *histogram, uint64_t ns, uint64_t times)
{
	histogram->bucket[histogram_bucket_of(ns)] += times;
	histogram->count += times;
	if (ns < histogram->min)
		histogram->min = ns;
	if (ns > histogram->max)
		histogram->max = ns;
}

static inline void histogram_record(struct histogram *histogram, uint64_t ns)
{
	histogram_add(histogram, ns, 1);
}

#endif
