"""How long a client waits before it connects again."""

from modelyard.mcp.backoff import delay_s


def test_the_delay_doubles_from_one_second_to_a_minute():
    assert [delay_s(failures, 0) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delay_s(10**9, 0) == 60


def test_chance_takes_up_to_a_quarter_of_it():
    assert (delay_s(4, 1), delay_s(4, 0.5)) == (6, 7)
