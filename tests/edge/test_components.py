import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from irstd_edge.edge.components import Components


@given(st.integers(1, 24), st.integers(1, 12), st.sampled_from([0.2, 0.4, 0.6]), st.data())
def test_strips_have_the_components_of_the_whole(height, width, share, data):
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    image = (random.random((height, width)) < share).astype(np.uint8)
    cuts = sorted(data.draw(st.sets(st.integers(1, height), max_size=5)) - {height})
    components, names = Components(), np.zeros(image.shape, int)
    for strip, part in zip(np.split(image, cuts), np.split(names, cuts), strict=True):
        first = len(components.roots())
        count, labels = cv2.connectedComponents(strip, connectivity=8)
        components.add(labels, count - 1)
        part[...] = np.where(labels > 0, labels + first, 0)
    roots = np.concatenate([[0], 1 + components.roots()])
    many, whole = cv2.connectedComponents(image, connectivity=8)
    pairs = set(zip(whole.ravel(), roots[names].ravel(), strict=True))
    assert len(pairs) == many - (not (image == 0).any()) == len({b for _, b in pairs})


def test_a_part_below_joins_two_above_and_the_first_names_them():
    components = Components()
    components.add(np.array([[1, 0, 2]]), 2)
    components.add(np.array([[0, 1, 0], [0, 0, 0]]), 1)
    components.add(np.array([[0, 1, 0]]), 1)
    assert components.roots().tolist() == [0, 0, 0, 3]
