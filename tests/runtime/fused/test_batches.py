"""Batches: who belongs together, how large they grow, and what counts as too little memory."""

from __future__ import annotations

import pytest

from umbel.runtime.fused.batches import FIRST, LONG_S, TRIES, BatchSizes, batch_key, is_out_of_memory, split, together


def test_a_window_ends_where_a_batch_is_full() -> None:
    sizes = BatchSizes(3)
    assert together("aabab", sizes) == 5
    assert together("aababa", sizes) == 5
    assert together("aaaa", sizes) == 3
    assert together("", sizes) == 0
    sizes.out_of_memory("b", 2)
    assert together("aabbba", sizes) == 6
    assert together("bba", sizes) == 1


def test_sizes_double_while_that_pays() -> None:
    sizes = BatchSizes("auto")
    assert sizes.limit("k") == FIRST
    sizes.ran("k", FIRST, 1.0)
    assert sizes.limit("k") == sizes.limit("other") == 2 * FIRST
    sizes.ran("other", FIRST, 4.0)  # begun before that; its trials take longer
    sizes.ran("k", FIRST, 0.9)
    assert sizes.limit("k") == 2 * FIRST
    sizes.ran("other", 2 * FIRST, 5.0)
    assert sizes.limit("k") == 4 * FIRST
    sizes.ran("k", 4 * FIRST, 4.5)  # no gain, but that may be chance
    sizes.ran("k", 3 * FIRST, 2.4)
    assert sizes.limit("k") == 8 * FIRST
    sizes.ran("new", 8 * FIRST, 1.0)  # nothing to compare with
    for _ in range(TRIES):
        assert sizes.limit("k") == 8 * FIRST
        sizes.ran("k", 8 * FIRST, 9.0)
    sizes.ran("k", 8 * FIRST, 0.1)
    assert sizes.limit("k") == 8 * FIRST


def test_long_batches_don_t_grow() -> None:
    sizes = BatchSizes("auto")
    sizes.ran("k", FIRST, LONG_S + 1)
    sizes.ran("k", FIRST, 0.1)
    assert sizes.limit("k") == FIRST


@pytest.mark.parametrize("most", [100, "auto"])
def test_what_did_not_fit_is_remembered(most: int) -> None:
    sizes = BatchSizes(most)
    sizes.out_of_memory("k", 60)
    assert sizes.limit("k") == 30
    sizes.ran("k", 30, 1.0)
    sizes.ran("k", 30, 0.01)
    assert sizes.limit("k") == 30
    sizes.out_of_memory("k", 1)
    assert sizes.limit("k") == 1
    assert sizes.limit("other") in (100, FIRST)


def test_parts_are_of_equal_size() -> None:
    assert [list(part) for part in split(range(7))] == [[0, 1, 2, 3], [4, 5, 6]]
    assert [len(part) for part in split(range(10), 4)] == [3, 3, 3, 1]
    assert [list(part) for part in split([5])] == [[5]]


def test_keys() -> None:
    assert batch_key(("a", "b"), {"a": 1, "b": [1, 2], "c": 3}) == batch_key(("a", "b"), {"a": 1, "b": [1, 2], "c": 4})
    assert batch_key(("b",), {"b": {"x": 1}}) != batch_key(("b",), {"b": {"x": 2}})
    assert batch_key((), {"a": 1}) == ()


def test_memory_errors() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(ValueError("out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
