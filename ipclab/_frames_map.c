/* _frames_map.c: which objects a capture has met, by identity. */
#include "_frames.h"

#include <string.h>

void identities_begin(struct identities *map)
{
	map->slots = map->few;
	map->mask = sizeof map->few / sizeof *map->few - 1;
	map->used = 0;
	memset(map->few, 0, sizeof map->few);
}

void identities_end(struct identities *map)
{
	if (map->slots != map->few)
		PyMem_Free(map->slots);
	map->slots = map->few;
}

static int identities_grow(struct identities *map)
{
	size_t count = map->mask + 1;
	struct identity *old = map->slots, *slots = PyMem_Calloc(count * 4, sizeof *slots);

	if (!slots) {
		PyErr_NoMemory();
		return -1;
	}
	map->slots = slots;
	map->mask = count * 4 - 1;
	for (size_t i = 0; i < count; i++)
		if (old[i].object)
			*identities_at(map, old[i].object) = old[i];
	if (old != map->few)
		PyMem_Free(old);
	return 0;
}

int identities_put(struct identities *map, PyObject *object, uint32_t number)
{
	if (map->used * 2 >= map->mask && identities_grow(map) < 0)
		return -1;
	*identities_at(map, object) = (struct identity){object, number};
	map->used++;
	return 0;
}
