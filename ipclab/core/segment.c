/* segment.c: see segment.h. */
#define _GNU_SOURCE
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif

static size_t round_to_pages(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) / page * page;
}

static int open_memfd(void)
{
	int fd = (int)syscall(SYS_memfd_create, "ipclab", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* an older kernel does not know the last flag */
		fd = (int)syscall(SYS_memfd_create, "ipclab", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

/* The first number in a file behind `label`; INT64_MAX when there is none ("max", no such file). */
static int64_t number_in(const char *path, const char *label)
{
	char text[2048];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	const char *at = text;
	long long number;

	if (fd >= 0)
		close(fd);
	if (size <= 0)
		return INT64_MAX;
	text[size] = '\0';
	if (label)
		at = strstr(text, label);
	return at && sscanf(at + (label ? strlen(label) : 0), "%lld", &number) == 1 ? number : INT64_MAX;
}

static int64_t room_in_group(const char *limit_path, const char *used_path)
{
	int64_t limit = number_in(limit_path, NULL), used = number_in(used_path, NULL);

	return limit == INT64_MAX || used == INT64_MAX || used > limit ? INT64_MAX : limit - used;
}

/*
 * How many bytes of memory can be had. A memfd lies on a mount without a size limit: fallocate of more than the machine
 * has does not say ENOSPC, it calls the out-of-memory killer. So the question is asked first.
 */
static int64_t memory_room(void)
{
	int64_t room = number_in("/proc/meminfo", "MemAvailable:");
	int64_t v2 = room_in_group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current");
	int64_t v1 = room_in_group("/sys/fs/cgroup/memory/memory.limit_in_bytes",
				   "/sys/fs/cgroup/memory/memory.usage_in_bytes");

	room = room > INT64_MAX / 1024 ? INT64_MAX : room * 1024;
	room = v2 < room ? v2 : room;
	return v1 < room ? v1 : room;
}

#define ASK_FROM_BYTES ((size_t)1 << 20) /* below, the question (about 50 us) costs more than the answer is worth */

static int allocate(int fd, size_t offset, size_t size)
{
	int rc;

	if (size > (size_t)INT64_MAX || offset > (size_t)INT64_MAX - size)
		return -EFBIG;
	if (size >= ASK_FROM_BYTES && (int64_t)size > memory_room())
		return -ENOSPC;
	do {
		rc = fallocate(fd, 0, (off_t)offset, (off_t)size) < 0 ? -errno : 0;
	} while (rc == -EINTR);
	return rc;
}

/* Maps header and data, and with `mirror` the data once more behind them. */
static int map(struct segment *segment, size_t header_bytes, int mirror, int protection)
{
	size_t data_bytes = segment->total_bytes - header_bytes;
	size_t size = segment->total_bytes + (mirror ? data_bytes : 0);
	char *base = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return -errno;
	segment->base = base;
	segment->mapped_bytes = size;
	if (mmap(base, segment->total_bytes, protection, MAP_SHARED | MAP_FIXED, segment->fd, 0) == MAP_FAILED)
		return -errno;
	if (mirror && mmap(base + segment->total_bytes, data_bytes, protection, MAP_SHARED | MAP_FIXED, segment->fd,
			   (off_t)header_bytes) == MAP_FAILED)
		return -errno;
	return 0;
}

static int fill_in(struct segment *segment, const char *name, uint32_t kind, size_t header_bytes)
{
	struct segment_header *header = segment->base;

	header->version = SEGMENT_VERSION;
	header->kind = kind;
	header->header_bytes = header_bytes;
	header->total_bytes = segment->total_bytes;
	header->creator = identity_self();
	header->pid_namespace = pid_namespace();
	header->magic = SEGMENT_MAGIC;
	/* Files that shm_open makes cannot be sealed; their name is private to this user instead. */
	if (!name && fcntl(segment->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return 0;
}

int segment_create(struct segment *segment, const char *name, uint32_t kind, size_t header_bytes, size_t data_bytes,
		   int mirror)
{
	int rc;

	*segment = (struct segment){.fd = -1};
	if (header_bytes < sizeof(struct segment_header) || data_bytes > SIZE_MAX / 4 || header_bytes > SIZE_MAX / 4)
		return -EINVAL;
	header_bytes = round_to_pages(header_bytes);
	segment->total_bytes = header_bytes + round_to_pages(data_bytes);
	if (name) {
		rc = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		rc = rc < 0 ? -errno : rc;
	} else {
		rc = open_memfd();
	}
	if (rc < 0)
		return rc;
	segment->fd = rc;
	rc = allocate(segment->fd, 0, segment->total_bytes);
	if (!rc)
		rc = map(segment, header_bytes, mirror, PROT_READ | PROT_WRITE);
	if (!rc)
		rc = fill_in(segment, name, kind, header_bytes);
	if (rc) {
		segment_close(segment);
		if (name)
			shm_unlink(name);
	}
	return rc;
}

int segment_reserve(struct segment *segment, uint32_t kind, size_t header_bytes, size_t total_bytes,
		    size_t first_bytes)
{
	int rc;

	*segment = (struct segment){.fd = -1};
	if (header_bytes < sizeof(struct segment_header) || total_bytes > SIZE_MAX / 4 || first_bytes < header_bytes ||
	    first_bytes > total_bytes)
		return -EINVAL;
	segment->total_bytes = round_to_pages(total_bytes);
	rc = open_memfd();
	if (rc < 0)
		return rc;
	segment->fd = rc;
	rc = ftruncate(segment->fd, (off_t)segment->total_bytes) < 0 ? -errno : 0;
	if (!rc)
		rc = allocate(segment->fd, 0, round_to_pages(first_bytes));
	if (!rc)
		rc = map(segment, round_to_pages(header_bytes), 0, PROT_READ | PROT_WRITE);
	if (!rc)
		rc = fill_in(segment, NULL, kind, round_to_pages(header_bytes));
	if (rc)
		segment_close(segment);
	return rc;
}

int segment_commit(const struct segment *segment, size_t offset, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), from = offset / page * page;

	if (offset > segment->total_bytes || bytes > segment->total_bytes - offset)
		return -EINVAL;
	return allocate(segment->fd, from, round_to_pages(offset + bytes) - from);
}

int segment_discard(const struct segment *segment, size_t offset, size_t bytes)
{
	int rc = fallocate(segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)bytes);

	return rc < 0 ? -errno : 0;
}

static int check(const struct segment_header *header, ssize_t got, uint32_t kind, off_t size)
{
	if (got < (ssize_t)sizeof *header || header->magic != SEGMENT_MAGIC)
		return -EBADMSG;
	if (header->version != SEGMENT_VERSION)
		return -EPROTO;
	if (header->kind != kind)
		return -EPROTOTYPE;
	if (header->header_bytes < sizeof *header || header->header_bytes >= header->total_bytes ||
	    header->header_bytes % (uint64_t)sysconf(_SC_PAGESIZE) || (uint64_t)size < header->total_bytes)
		return -ENODATA;
	return 0;
}

static int attach(struct segment *segment, int fd, uint32_t kind, int mirror, int protection)
{
	struct segment_header header;
	struct stat info;
	int rc;

	*segment = (struct segment){.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)};
	if (segment->fd < 0)
		return -errno;
	if (fstat(fd, &info) < 0) {
		rc = -errno;
	} else {
		/* Read, not mapped: a file too short for its header would be a SIGBUS. A pipe's fd says ESPIPE. */
		ssize_t got = pread(fd, &header, sizeof header, 0);

		rc = got < 0 ? -EBADMSG : check(&header, got, kind, info.st_size);
	}
	if (!rc) {
		segment->total_bytes = header.total_bytes;
		rc = map(segment, header.header_bytes, mirror, protection);
	}
	if (rc)
		segment_close(segment);
	return rc;
}

int segment_attach(struct segment *segment, int fd, uint32_t kind, int mirror)
{
	return attach(segment, fd, kind, mirror, PROT_READ | PROT_WRITE);
}

int segment_attach_readonly(struct segment *segment, int fd, uint32_t kind)
{
	return attach(segment, fd, kind, 0, PROT_READ);
}

int segment_attach_named(struct segment *segment, const char *name, uint32_t kind, int mirror)
{
	int fd = shm_open(name, O_RDWR | O_CLOEXEC, 0);
	int rc;

	*segment = (struct segment){.fd = -1}; /* so that closing after a failure is harmless */
	if (fd < 0)
		return -errno;
	rc = segment_attach(segment, fd, kind, mirror);
	close(fd);
	return rc;
}

void segment_close(struct segment *segment)
{
	if (segment->base)
		munmap(segment->base, segment->mapped_bytes);
	if (segment->fd >= 0)
		close(segment->fd);
	*segment = (struct segment){.fd = -1};
}
