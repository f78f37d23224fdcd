# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from relocalization.features.base import make_extractor
from relocalization.features.config import FeatureConfig
from relocalization.retrieval import RetrievalIndex, spherical_kmeans, vlad
from vision3d.geometry import se3

Float32 = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> Float32:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def places(n: int, seed: int = 0, noise: float = 0.0) -> list[Float32]:
    """n images of 120 descriptors each; the same seed with noise shows the same places again."""
    rng, shake = np.random.default_rng(seed), np.random.default_rng(99)
    base = [rng.normal(size=(120, 16)) for _ in range(n)]
    return [unit(rows + noise * shake.normal(size=rows.shape)) for rows in base]


@pytest.mark.parametrize("rerank", [0, 5, 100])
def test_every_image_finds_itself_and_its_noisy_self(rerank: int) -> None:
    index = RetrievalIndex.build(places(12), rerank=rerank, n_words=16)
    for image, (same, noisy) in enumerate(zip(places(12), places(12, noise=0.2))):
        assert index.query(same, 1)[0].tolist() == [image]
        assert index.query(noisy, 1)[0].tolist() == [image]


def test_vlad_equals_its_definition() -> None:
    words, rows = (
        unit(np.random.default_rng(0).normal(size=(5, 8))),
        unit(np.random.default_rng(1).normal(size=(40, 8))),
    )
    wanted = np.zeros((5, 8))
    for row in rows:
        word = max(range(5), key=lambda k: float(row @ words[k]))
        wanted[word] += row - words[word]
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(vlad(rows, words), (wanted / np.sqrt(5)).ravel(), atol=1e-5)


def test_order_of_descriptors_does_not_change_the_global_vector() -> None:
    words, rows = (
        unit(np.random.default_rng(0).normal(size=(5, 8))),
        unit(np.random.default_rng(1).normal(size=(40, 8))),
    )
    np.testing.assert_allclose(vlad(rows[::-1], words), vlad(rows, words), atol=1e-6)


def test_kmeans_finds_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = unit(rng.normal(size=(4, 32)))
    points = unit(np.repeat(centres, 100, axis=0) + 0.02 * rng.normal(size=(400, 32)))
    found = spherical_kmeans(points, 12, np.random.default_rng(1))
    assert (centres @ found.T).max(1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    # more centres than points are not made up
    assert len(spherical_kmeans(points[:3], 12, rng)) == 3


def test_matches_decide_between_images_with_equal_sums() -> None:
    """Two images share the query's global vector; only one has its descriptors."""
    rng = np.random.default_rng(0)
    query = unit(rng.normal(size=(60, 16)))
    index = RetrievalIndex.build([*places(4, seed=5), query], n_words=8)
    order, scores = index.query(query, 5)
    assert order[0] == 4
    # 60 perfect matches, up to half precision
    assert scores[0] == pytest.approx(61, abs=0.5)
    assert (np.diff(scores) <= 0).all()


def test_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    first, second = (RetrievalIndex.build(places(6), seed=3, n_words=8).to_arrays() for _ in range(2))
    assert all(first[key].tobytes() == second[key].tobytes() for key in first)
    assert RetrievalIndex.build(places(6), seed=4, n_words=8).words.tobytes() != first["words"].tobytes()


def test_stored_index_answers_alike(tmp_path: Path) -> None:
    index = RetrievalIndex.build(places(9), n_words=16, per_image=50, rerank=4)
    save_file(index.to_arrays(), tmp_path / "index.safetensors")
    again = RetrievalIndex.from_arrays(load_file(tmp_path / "index.safetensors"))
    for query in places(9, noise=0.5):
        for ours, theirs in zip(index.query(query, 5), again.query(query, 5)):
            assert ours.tobytes() == theirs.tobytes()
    assert (again.per_image, again.rerank) == (50, 4)
    # 9 images: 16 words x 16 channels and 50 descriptors of 16 channels each, two bytes per number
    assert sum(a.nbytes for a in index.to_arrays().values()) < 9 * 2 * (256 + 800) + 1000


def test_images_can_be_added() -> None:
    images = places(10)
    index = RetrievalIndex.build(images[:7], n_words=16)
    more = index.extended(images[7:])
    assert (len(index), len(more)) == (7, 10)
    assert [int(more.query(rows, 1)[0][0]) for rows in images] == list(range(10))


def test_images_and_queries_without_features() -> None:
    nothing = np.zeros((0, 16), np.float32)
    index = RetrievalIndex.build([nothing, *places(3)], n_words=8)
    assert len(index) == 4
    assert index.query(places(3)[1], 4)[0][0] == 2
    assert set(index.query(places(3)[1], 4)[0].tolist()) == {0, 1, 2, 3}
    order, scores = index.query(nothing, 3)
    assert len(order) == len(scores) == 0
    with pytest.raises(ValueError, match="no features"):
        RetrievalIndex.build([nothing, nothing])


def test_real_queries_find_images_of_the_same_view(shared_data: Path) -> None:
    """7-Scenes redkitchen, every 10th frame of the list as the map and 12 others: the first image is close by."""
    scene = shared_data / "7scenes_redkitchen"
    T_world_cam = {}
    for line in (scene / "pgt_sfm_redkitchen_seq01.txt").read_text().splitlines():
        name, *values = line.split()
        T = se3.from_rt(se3.quat_to_rotation(np.array(values[:4], float)), np.array(values[4:7], float))
        T_world_cam[Path(name).name.split(".")[0]] = se3.invert(T)
    names = sorted(T_world_cam)
    extractor = make_extractor(FeatureConfig(name="sift", max_keypoints=1000))

    def descriptors(name: str) -> Float32:
        image = cv2.imread(str(scene / f"redkitchen/seq-01/{name}.color.jpg"))[:, :, ::-1]
        return extractor(image).descriptors

    mapped = names[::10]
    index = RetrievalIndex.build([descriptors(name) for name in mapped])
    close = []
    for query in names[5::12]:
        best = T_world_cam[mapped[index.query(descriptors(query), 1)[0][0]]]
        distance = np.linalg.norm(best[:3, 3] - T_world_cam[query][:3, 3])
        angle = se3.rotation_angle_deg(best[:3, :3].T @ T_world_cam[query][:3, :3])
        close.append(distance < 0.8 and angle < 40)
    assert np.mean(close) > 0.9
