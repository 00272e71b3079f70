"""Who is in already, over all workers: open connections by client, in memory that they share.

A limit that holds over all workers needs a count of all of them at every accept. So each
worker has a table in one shared block, is its only writer, and reads the others'. A table has
no locks and no pointers: a key's place is one of WAYS words of a bucket, and a word holds a
fingerprint of the key and its count. A worker writes first and reads then: when two of them
are about to let the last one in at the same moment, both may refuse, but never both let in.

The hash is keyed with a secret that the supervisor made: nobody can choose addresses that
fall on each other. A key that finds its bucket full is counted by its own worker only.
"""

from __future__ import annotations

from hashlib import blake2b

SECRET_BYTES = 32
_SECRET_WORDS = SECRET_BYTES // 8
WAYS = 8
BUCKETS = 8192
TABLE_WORDS = WAYS * BUCKETS
_COUNT_BITS = 24
_COUNT_MASK = (1 << _COUNT_BITS) - 1


def size(workers: int) -> int:
    """Bytes of the block for so many workers; it is sparse, only what is touched costs anything."""
    return (_SECRET_WORDS + workers * TABLE_WORDS) * 8


def prepare(words: memoryview, secret: bytes) -> None:
    """Write the secret, once, before any worker starts."""
    for index in range(_SECRET_WORDS):
        words[index] = int.from_bytes(secret[index * 8 : index * 8 + 8])


def clear(words: memoryview, worker: int) -> None:
    """Forget what a dead worker had counted: its connections died with it."""
    start = _start(worker)
    words[start : start + TABLE_WORDS] = memoryview(bytes(TABLE_WORDS * 8)).cast("Q")


def _start(worker: int) -> int:
    return _SECRET_WORDS + worker * TABLE_WORDS


class Door:
    """One worker's view of the block; `words` are unsigned 64-bit integers."""

    def __init__(self, words: memoryview, worker: int, workers: int) -> None:
        self._words = words
        self._secret = words[:_SECRET_WORDS].tobytes()
        self._own = _start(worker)
        self._others = [_start(each) for each in range(workers) if each != worker]
        self._counts: dict[int, int] = {}
        self._places: dict[int, int] = {}

    def key(self, name: bytes) -> int:
        """What stands for `name` in the tables; never 0."""
        return int.from_bytes(blake2b(name, digest_size=8, key=self._secret).digest()) or 1

    def enter(self, key: int, most: int) -> bool:
        """Count one more, unless there are `most` over all workers."""
        count = self._counts.get(key, 0) + 1
        self._write(key, count)
        if count > most or count + self._elsewhere(key) > most:
            self._write(key, count - 1)
            return False
        return True

    def add(self, key: int, more: int) -> None:
        """Count without asking; `more` may be negative."""
        self._write(key, self._counts.get(key, 0) + more)

    def count(self, key: int) -> int:
        """How many there are over all workers."""
        return self._counts.get(key, 0) + self._elsewhere(key)

    def _elsewhere(self, key: int) -> int:
        words, bucket, fingerprint = self._words, _bucket(key), _fingerprint(key)
        total = 0
        for start in self._others:
            place = start + bucket
            for word in words[place : place + WAYS].tolist():
                if word >> _COUNT_BITS == fingerprint:
                    total += word & _COUNT_MASK
        return total

    def _write(self, key: int, count: int) -> None:
        if count <= 0:
            self._counts.pop(key, None)
            place = self._places.pop(key, None)
            if place is not None:
                self._words[place] = 0
            return
        self._counts[key] = count
        place = self._places.get(key)
        if place is None:
            place = self._free_place(key)
            if place is None:
                return
            self._places[key] = place
        self._words[place] = _fingerprint(key) << _COUNT_BITS | min(count, _COUNT_MASK)

    def _free_place(self, key: int) -> int | None:
        start = self._own + _bucket(key)
        bucket = self._words[start : start + WAYS].tolist()
        return start + bucket.index(0) if 0 in bucket else None


def _bucket(key: int) -> int:
    return key % BUCKETS * WAYS


def _fingerprint(key: int) -> int:
    """Forty bits that have nothing to do with the bucket; never 0, which is a free place."""
    return key >> _COUNT_BITS or 1
