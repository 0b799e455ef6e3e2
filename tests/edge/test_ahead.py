import threading

import pytest

from irstd_edge.edge.ahead import read_ahead


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("read_ahead")]


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_items_keep_their_order(ahead):
    assert list(read_ahead(range(20), ahead)) == list(range(20))
    assert list(read_ahead([], ahead)) == []
    assert list(read_ahead([None, None], ahead)) == [None, None]
    assert not threads()


def test_the_next_item_is_made_while_one_is_worked_on():
    made = [threading.Event() for _ in range(4)]

    def items():
        for event in made:
            event.set()
            yield event

    for place, _ in enumerate(read_ahead(items(), 2)):
        for event in made[: place + 3]:
            assert event.wait(10)


def test_no_more_than_asked_for_is_ahead():
    made = []

    def items():
        for number in range(50):
            made.append(number)
            yield number

    for number in read_ahead(items(), 3):
        assert len(made) <= number + 1 + 3


def test_an_error_comes_in_its_place():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    found = []
    with pytest.raises(ValueError, match="third"):
        found.extend(read_ahead(items(), 5))
    assert found == [1, 2] and not threads()


def test_leaving_early_ends_the_thread():
    made = []

    def items():
        for number in range(1000):
            made.append(number)
            yield number

    run = read_ahead(items(), 2)
    assert next(run) == 0
    run.close()
    assert not threads() and len(made) <= 4
