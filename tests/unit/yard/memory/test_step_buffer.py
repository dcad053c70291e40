"""Where the tensors of a graph find their places."""

from __future__ import annotations

from modelyard.yard.memory.step_buffer import StepGraph, touched_bytes


def test_tensors_that_live_at_the_same_time_lie_side_by_side() -> None:
    graph = StepGraph()
    left, right = graph.operation(64), graph.operation(96)
    graph.use(left, right)
    assert graph.buffer_bytes() == 160


def test_the_place_of_what_nothing_reads_any_more_is_taken_again() -> None:
    graph = StepGraph()
    first = graph.operation(64)
    second = graph.operation(64, first)
    graph.operation(64, second)
    assert graph.places()[:3] == [0, 64, 0]
    assert graph.buffer_bytes() == 128


def test_sizes_are_rounded_up_to_what_is_aligned() -> None:
    graph = StepGraph()
    graph.use(graph.operation(1), graph.operation(33))
    assert graph.buffer_bytes() == 32 + 64


def test_an_operation_in_place_takes_that_of_what_it_is_the_last_to_read() -> None:
    graph = StepGraph()
    graph.in_place(64, graph.operation(64))
    assert graph.buffer_bytes() == 64


def test_what_is_read_later_or_in_another_shape_or_of_another_size_is_not_overwritten() -> None:
    later = StepGraph()
    read_again = later.operation(64)
    later.in_place(64, read_again)
    later.use(read_again)
    shaped = StepGraph()
    shaped.in_place(64, views=(shaped.operation(64),))
    smaller = StepGraph()
    smaller.in_place(32, smaller.operation(64))
    assert [graph.buffer_bytes() for graph in (later, shaped, smaller)] == [128, 128, 96]


def test_the_smallest_gap_that_is_large_enough_is_taken() -> None:
    graph = StepGraph()
    large, wall, small, end = (graph.operation(size) for size in (256, 32, 64, 32))
    graph.use(large)
    graph.use(small)
    first, second = graph.operation(64), graph.operation(64)
    assert [graph.places()[one] for one in (first, second)] == [256 + 32, 0]
    graph.use(wall, end)
    assert graph.buffer_bytes() == 256 + 32 + 64 + 32


def test_gaps_side_by_side_are_one() -> None:
    graph = StepGraph()
    tensors = [graph.operation(64) for _ in range(3)]
    end = graph.operation(32)
    for tensor in (tensors[0], tensors[2], tensors[1]):
        graph.use(tensor)
    joined = graph.operation(192)
    graph.use(end)
    assert graph.places()[joined] == 0


def test_what_outlives_the_step_keeps_its_place() -> None:
    graph = StepGraph()
    result = graph.keep(graph.operation(64))
    graph.use(result)
    graph.operation(64)
    assert graph.buffer_bytes() == 128


def test_inputs_that_nothing_reads_keep_theirs() -> None:
    graph = StepGraph()
    graph.input(64)
    graph.operation(64)
    assert graph.buffer_bytes() == 128


def step(*sizes: int) -> StepGraph:
    """Tensors side by side, of which the last read all others."""
    graph = StepGraph()
    graph.use(*[graph.operation(size) for size in sizes])
    return graph


def test_of_a_smaller_step_what_lies_behind_its_tensors_is_not_touched() -> None:
    assert touched_bytes(step(128, 128), [step(32, 64)]) == 32 + 64


def test_steps_that_touch_the_same_bytes_touch_them_once() -> None:
    assert touched_bytes(step(128, 128), [step(32, 64), step(64, 32), step(64, 32)]) == 64 + 64


def test_the_reserved_step_itself_touches_all_of_the_buffer() -> None:
    whole = step(128, 96)
    assert touched_bytes(whole, [whole]) == whole.buffer_bytes()


def test_an_empty_graph_has_no_buffer() -> None:
    assert StepGraph().buffer_bytes() == 0
