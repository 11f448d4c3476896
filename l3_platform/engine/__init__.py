"""Three verbs over shards: map_shards, shuffle, map_actors. Same bytes out on any number of workers."""

from l3_platform.engine.verbs import connect, map_actors, map_shards, shuffle
from l3_platform.store import QUARANTINE_SCHEMA, Counts, Output

__all__ = ["QUARANTINE_SCHEMA", "Counts", "Output", "connect", "map_actors", "map_shards", "shuffle"]
