/*
 * segment.h: a piece of shared memory with a header that says what it is.
 *
 * Two kinds of backing. A memfd has no name: nothing can be left behind, nobody can open it who was not given the fd,
 * and it is sealed so that nobody can shrink it under a reader's feet. A named POSIX object (shm_open) is for processes
 * that have no other way to find each other; the caller owns the name, and unlinks it.
 *
 * Room is allocated before the first touch (fallocate): a full /dev/shm is -ENOSPC here and now, never a SIGBUS later.
 *
 * The header's fields are written by the creator before the fd is handed on, and constant from then on.
 */
#ifndef IPCLAB_SEGMENT_H
#define IPCLAB_SEGMENT_H

#include <stddef.h>
#include <stdint.h>

#include "barrier.h"
#include "sys.h"

#define SEGMENT_MAGIC UINT64_C(0x0000424c4c435049) /* "IPCLLB" in memory */
#define SEGMENT_VERSION UINT32_C(1)

enum segment_kind { SEGMENT_PLAIN = 1, SEGMENT_RING = 2, SEGMENT_GMP = 3 };

struct segment_header {
	uint64_t magic;
	uint32_t version;
	uint32_t kind;         /* enum segment_kind */
	uint64_t header_bytes; /* where the data begins; a multiple of the page size */
	uint64_t total_bytes;  /* header and data */
	identity creator;
	uint64_t pid_namespace; /* of the creator: identities mean nothing elsewhere */
};

struct segment {
	void *base;         /* the mapping; NULL when closed */
	size_t total_bytes; /* of the object */
	size_t mapped_bytes;
	int fd;
};

/*
 * Creates, allocates, maps and fills in the header; sizes are rounded up to pages. name NULL: a memfd; else an shm_open
 * name, created exclusively with mode 0600. mirror: the data behind the header is mapped a second time right behind
 * itself, so that what wraps around the end is still one run of bytes.
 * 0, or -ENOSPC, -ENOMEM, -EEXIST, -EMFILE, -EACCES, -EINVAL ...; nothing is left behind on failure.
 */
int segment_create(struct segment *segment, const char *name, uint32_t kind, size_t header_bytes, size_t data_bytes,
		   int mirror);
/*
 * Reserves: a memfd of total_bytes that is mapped whole and has memory only for its first first_bytes. The rest must be
 * committed before it is touched; a mapping made before that sees it, so growing needs no word to the other processes.
 * 0, or as segment_create.
 */
int segment_reserve(struct segment *segment, uint32_t kind, size_t header_bytes, size_t total_bytes,
		    size_t first_bytes);
/* Gives memory to a part of a reserved segment, rounded outward to pages. 0, -ENOSPC. May be called twice for a part. */
int segment_commit(const struct segment *segment, size_t offset, size_t bytes);
/* Gives the memory of a part back; it reads as zeros, and must be committed again before it is written. Pages. */
int segment_discard(const struct segment *segment, size_t offset, size_t bytes);
/*
 * Maps what another process created. The fd is duplicated (close-on-exec); the caller keeps its own.
 * -EBADMSG not a segment, -EPROTO another version, -EPROTOTYPE another kind, -ENODATA shorter than its header says.
 */
int segment_attach(struct segment *segment, int fd, uint32_t kind, int mirror);
/* The same to look at: mapped read-only, so that the fd may be open for reading only and nothing can be changed. */
int segment_attach_readonly(struct segment *segment, int fd, uint32_t kind);
/* Opens a named segment and attaches. */
int segment_attach_named(struct segment *segment, const char *name, uint32_t kind, int mirror);
/* Unmaps and closes the fd. Does not unlink: the name belongs to whoever made it. Closing twice is allowed. */
void segment_close(struct segment *segment);

static inline struct segment_header *segment_header_of(const struct segment *segment)
{
	return segment->base;
}

static inline void *segment_data(const struct segment *segment)
{
	return (char *)segment->base + segment_header_of(segment)->header_bytes;
}

#endif
