/* parcel.h: a block whose contents tell whether it has come through whole: what scripts give to each other. */
#ifndef IPCLAB_GMP_PARCEL_H
#define IPCLAB_GMP_PARCEL_H

#include "runtime2.h"

/* Made, filled and published; the word to send. 0: the heap is full, and -errno in *error. */
uint64_t parcelMake(struct gmp *rt, uint64_t bytes, int *error);
/* Taken, looked through, given back; its bytes. Throws if it is not what was put into it. */
uint64_t parcelOpen(struct gmp *rt, uint64_t word);

#endif
