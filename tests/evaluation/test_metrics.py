"""Every figure against an independent, slow and obvious computation in float64."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from aim.errors import InvalidInput
from aim.evaluation.metrics import (
    Moments,
    Statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    nearest_distances,
    precision_recall,
)


def features(
    count: int, width: int, seed: int = 0, shift: float = 0.0, scale: float = 1.0
) -> Tensor:
    """Correlated, as a network's are."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=g) / width**0.5
    return ((torch.randn(count, width, generator=g) @ mix + shift) * scale).float()


def statistics(vectors: Tensor) -> Statistics:
    moments = Moments()
    moments.add(vectors)
    return moments.statistics()


def of_numpy(vectors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    values = vectors.numpy().astype(np.float64)
    return values.mean(0), np.cov(values, rowvar=False)


def by_sqrtm(a: Tensor, b: Tensor) -> float:
    """As FID's first code has it: SciPy's root of the product, in float64."""
    (m, s), (n, t) = of_numpy(a), of_numpy(b)
    return float((m - n) @ (m - n) + np.trace(s + t - 2 * scipy.linalg.sqrtm(s @ t).real))


def by_eigenvalues(a: Tensor, b: Tensor) -> float:
    """By the eigenvalues of the product, which is not symmetric; where it is singular, SciPy's root
    is not to be trusted.
    """
    (m, s), (n, t) = of_numpy(a), of_numpy(b)
    return float(
        (m - n) @ (m - n)
        + np.trace(s)
        + np.trace(t)
        - 2 * np.sqrt(np.linalg.eigvals(s @ t).astype(complex)).real.sum()
    )


class TestFrechetDistance:
    @pytest.mark.parametrize("width", [2, 16, 64])
    @pytest.mark.parametrize("shift", [0.0, 0.3, 10.0])
    def test_equals_an_independent_computation(self, width: int, shift: float) -> None:
        a, b = features(300, width, 1), features(200, width, 2, shift, 1.5)
        assert frechet_distance(statistics(a), statistics(b)) == pytest.approx(
            by_sqrtm(a, b), rel=1e-9
        )

    @pytest.mark.parametrize(("first", "second"), [(10, 200), (200, 10), (10, 12), (2, 2)])
    def test_of_singular_covariances(self, first: int, second: int) -> None:
        a, b = features(first, 32, 1), features(second, 32, 2, 0.2)
        found = frechet_distance(statistics(a), statistics(b))
        assert found == pytest.approx(by_eigenvalues(a, b), rel=1e-5)
        assert found == pytest.approx(frechet_distance(statistics(b), statistics(a)), rel=1e-6)

    def test_of_covariances_that_commute_is_a_sum_over_axes(self) -> None:
        a = Statistics(
            torch.tensor([1.0, 2.0, 3.0]).double(),
            torch.diag(torch.tensor([4.0, 0.0, 9.0]).double()),
            9,
        )
        b = Statistics(
            torch.tensor([1.0, 0.0, 3.0]).double(),
            torch.diag(torch.tensor([1.0, 5.0, 0.0]).double()),
            9,
        )
        assert frechet_distance(a, b) == pytest.approx(4 + (2 - 1) ** 2 + 5 + 9, abs=1e-12)

    def test_of_a_set_and_itself_is_nothing(self) -> None:
        own = statistics(features(500, 48))
        assert frechet_distance(own, own) == pytest.approx(0, abs=1e-6)

    def test_of_features_far_from_zero(self) -> None:
        a, b = features(300, 8, 1).double(), features(300, 8, 2, 0.5).double()
        near = frechet_distance(statistics(a), statistics(b))
        assert frechet_distance(statistics(a + 1e6), statistics(b + 1e6)) == pytest.approx(
            near, rel=1e-6
        )

    def test_of_other_widths(self) -> None:
        with pytest.raises(
            InvalidInput,
            match="features have 4 and 5 numbers; both sets must be seen by the same network",
        ):
            frechet_distance(statistics(features(9, 4)), statistics(features(9, 5)))

    def test_of_numbers_that_are_none(self) -> None:
        good = statistics(features(9, 4))
        with pytest.raises(InvalidInput, match="not finite"):
            frechet_distance(good, good._replace(covariance=good.covariance / 0))


class TestMoments:
    @pytest.mark.parametrize("batch", [1, 7, 64, 100])
    def test_are_numpy_s_however_they_come(self, batch: int) -> None:
        vectors = features(100, 12, shift=5.0)
        moments = Moments()
        for part in vectors.split(batch):
            moments.add(part)
        moments.add(vectors[:0])
        found, (mean, covariance) = moments.statistics(), of_numpy(vectors)
        assert found.images == 100
        assert found.mean.dtype == found.covariance.dtype == torch.float64
        np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10, atol=1e-13)

    def test_of_one_image(self) -> None:
        with pytest.raises(InvalidInput, match="at least 2 images, and there is 1"):
            statistics(features(1, 4))

    def test_of_a_number_that_is_none(self) -> None:
        with pytest.raises(InvalidInput, match="not finite"):
            Moments().add(torch.tensor([[1.0, float("nan")]]))


class TestInceptionScore:
    def test_by_the_definition(self) -> None:
        p = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)).double()
        p /= p.sum(1, keepdim=True)
        parts = [part.numpy() for part in (p[:15], p[15:30], p[30:])]
        scores = [
            np.exp(np.mean([(row * np.log(row / part.mean(0))).sum() for row in part]))
            for part in parts
        ]
        mean, spread = inception_score(p, split=15)
        assert mean == pytest.approx(np.mean(scores), rel=1e-12)
        assert spread == pytest.approx(np.std(scores), rel=1e-9)

    def test_is_the_number_of_classes_at_most_and_one_at_least(self) -> None:
        assert inception_score(torch.eye(7).repeat(3, 1)) == (pytest.approx(7), 0)
        assert inception_score(torch.full((9, 7), 1 / 7)) == (pytest.approx(1), 0)

    def test_of_nothing(self) -> None:
        with pytest.raises(InvalidInput, match="at least one image"):
            inception_score(torch.empty(0, 5))


def slow_precision(real: np.ndarray, drawn: np.ndarray, k: int) -> float:
    radii = [np.sort([np.linalg.norm(a - b) for b in real])[k] for a in real]
    return float(
        np.mean(
            [
                any(np.linalg.norm(x - a) <= r for a, r in zip(real, radii, strict=True))
                for x in drawn
            ]
        )
    )


class TestKernelDistance:
    @pytest.mark.parametrize("block", [2, 100])
    def test_by_the_definition(self, block: int) -> None:
        a, b = features(7, 4).double(), features(5, 4, seed=1).double() + 0.5

        def mean(x: Tensor, y: Tensor, same: bool) -> float:
            values = [
                (x[i] @ y[j] / 4 + 1).item() ** 3
                for i in range(len(x))
                for j in range(len(y))
                if not (same and i == j)
            ]
            return sum(values) / len(values)

        wanted = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
        assert kernel_distance(a.float(), b.float(), block) == pytest.approx(wanted, rel=1e-4)

    def test_of_too_few(self) -> None:
        with pytest.raises(InvalidInput, match="needs at least 2 images in each set; there are 1"):
            kernel_distance(features(1, 4), features(5, 4))


class TestPrecisionRecall:
    @pytest.mark.parametrize("block", [3, 16, 4096])
    @pytest.mark.parametrize("k", [1, 3])
    def test_by_the_definition(self, block: int, k: int) -> None:
        real, drawn = features(40, 5, 1), features(30, 5, 2, 0.8)
        precision, recall = precision_recall(real, drawn, k, block)
        assert 0 < precision < 1
        assert 0 < recall < 1
        a, b = (part.numpy().astype(np.float64) for part in (real, drawn))
        assert (precision, recall) == pytest.approx(
            (slow_precision(a, b, k), slow_precision(b, a, k))
        )

    def test_of_equal_and_of_distant_sets(self) -> None:
        real = features(50, 8)
        assert precision_recall(real, real.clone()) == (1, 1)
        assert precision_recall(real, real + 1000) == (0, 0)

    def test_sees_that_all_drawn_images_are_one(self) -> None:
        real = features(50, 8, scale=100.0)
        precision, recall = precision_recall(real, real[7].repeat(20, 1))
        assert (precision, recall) == (1, 1 / 50)  # balls without a radius hold their centre alone

    def test_of_too_few(self) -> None:
        with pytest.raises(InvalidInput, match="more than 3 images in each set; there are 3 and 9"):
            precision_recall(features(3, 4), features(9, 4))


class TestNearestDistances:
    @pytest.mark.parametrize("block", [1, 7, 100])
    def test_by_the_definition(self, block: int) -> None:
        a, b = features(12, 6, 1), features(20, 6, 2)
        wanted = np.sort(
            np.linalg.norm(
                a.numpy().astype(np.float64)[:, None] - b.numpy().astype(np.float64), axis=2
            ),
            axis=1,
        )[:, :4]
        np.testing.assert_allclose(nearest_distances(a, b, 4, block), wanted, rtol=1e-9)

    def test_to_a_copy_is_nothing(self) -> None:
        a = features(12, 6, scale=1e4)
        assert nearest_distances(a, a.flip(0)).max() == 0

    def test_of_too_few(self) -> None:
        with pytest.raises(InvalidInput, match="5 nearest are asked for, and there are 4 images"):
            nearest_distances(features(4, 2), features(4, 2), 5)
