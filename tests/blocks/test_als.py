"""The solver of iALS: by hand (card base/ials), and against brute force over all cells."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import sparse

from vitrail.blocks import als

Y = torch.tensor([[1.0, 0], [0, 1], [1, 1]], dtype=torch.float64)
C = sparse.csr_array(np.array([[3.0, 0, 3]]))  # the second cell has no event: confidence 1, preference 0


def solve(solver, steps=3, start=None):
    start = torch.zeros(1, 2, dtype=torch.float64) if start is None else start
    return als.half_sweep(C, Y, start, torch.tensor([0.5], dtype=torch.float64), solver, steps)[0]


def test_by_hand():
    x = solve("cholesky")
    torch.testing.assert_close(x, torch.tensor([0.888889, 0.074074], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(Y @ x, torch.tensor([0.888889, 0.074074, 0.962963], dtype=torch.float64), atol=1e-6, rtol=0)
    c, p = torch.tensor([3.0, 1, 3], dtype=torch.float64), torch.tensor([1.0, 0, 1], dtype=torch.float64)
    assert (-Y.T @ (c * (p - Y @ x)) + 0.5 * x).abs().max() < 1e-12


def test_conjugate_gradients_by_hand():
    torch.testing.assert_close(solve("cg", 1), torch.tensor([0.705882, 0.352941], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(solve("cg", 2), solve("cholesky"))
    torch.testing.assert_close(solve("cg", 3, start=solve("cholesky")[None]), solve("cholesky"))  # solved already: no 0 / 0


def problem(users=40, items=25, seed=0):
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((users, items)) < 0.3, 1 + 4 * rng.random((users, items)), 0)
    dense[5] = 0
    return sparse.csr_array(dense)


def objective(C, X, Y, ridge_u, ridge_i):
    c = torch.from_numpy(np.where(C.toarray() > 0, C.toarray(), 1.0))
    p = torch.from_numpy((C.toarray() > 0).astype(float))
    return float((c * (p - X @ Y.T) ** 2).sum() + (ridge_u * (X**2).sum(1)).sum() + (ridge_i * (Y**2).sum(1)).sum())


@pytest.mark.parametrize("block", [64, 1 << 19])
def test_every_half_sweep_lowers_the_objective_and_batches_change_nothing(block, monkeypatch):
    monkeypatch.setattr(als, "BLOCK", block)
    C = problem()
    T = sparse.csr_array(C.T)
    torch.manual_seed(0)
    X, Y = torch.rand(40, 4, dtype=torch.float64), torch.rand(25, 4, dtype=torch.float64)
    ridge_u, ridge_i = torch.rand(40, dtype=torch.float64) + 0.1, torch.rand(25, dtype=torch.float64) + 0.1
    values = []
    for _ in range(4):
        X = als.half_sweep(C, Y, X, ridge_u, "cholesky")
        values.append(objective(C, X, Y, ridge_u, ridge_i))
        Y = als.half_sweep(T, X, Y, ridge_i, "cholesky")
        values.append(objective(C, X, Y, ridge_u, ridge_i))
    assert all(b <= a + 1e-9 for a, b in pairwise(values)) and not X[5].any()
    torch.testing.assert_close(als.half_sweep(C, Y, X, ridge_u, "cg", 4), als.half_sweep(C, Y, X, ridge_u, "cholesky"))


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_runs_of_rows_side_by_side_are_the_rows_one_by_one(solver):
    C, (X, Y) = problem(), (torch.rand(40, 4, dtype=torch.float64), torch.rand(25, 4, dtype=torch.float64))
    ridge = torch.rand(40, dtype=torch.float64) + 0.1
    parts = als.runs(C, 3)
    assert [part.rows.start for part in parts][1:] == [part.rows.stop for part in parts][:-1] and parts[-1].rows.stop == 40
    assert max(part.C.nnz for part in parts) < 0.5 * C.nnz
    with ThreadPoolExecutor(2) as pool:
        found = als.half_sweep(parts, Y, X, ridge, solver, pool=pool)
    torch.testing.assert_close(found, als.half_sweep(C, Y, X, ridge, solver))
    assert len(als.runs(sparse.csr_array((4, 5)), 3)) == 1 and not als.half_sweep(sparse.csr_array((4, 25)), Y, X[:4], ridge[:4], solver).any()


@pytest.mark.parametrize("solved", [als.SOLVED, 1e-40])
def test_without_a_number_of_steps_rows_are_solved_and_those_that_resist_exactly(solved, monkeypatch):
    monkeypatch.setattr(als, "SOLVED", solved)
    C, (X, Y) = problem(), (torch.rand(40, 4), torch.rand(25, 4))
    ridge = torch.full((40,), 0.3)
    found = als.half_sweep(C, Y, X, ridge, "cg", None)
    torch.testing.assert_close(found, als.half_sweep(C, Y, X, ridge, "cholesky"), atol=1e-5, rtol=1e-4)


def test_with_equal_confidence_it_is_the_truncated_svd():
    rng = np.random.default_rng(3)
    P = sparse.csr_array((rng.random((30, 12)) < 0.4).astype(float))
    X, Y = torch.rand(30, 3, dtype=torch.float64), torch.rand(12, 3, dtype=torch.float64)
    T, tiny = sparse.csr_array(P.T), 1e-9
    for _ in range(400):
        X = als.half_sweep(P, Y, X, torch.full((30,), tiny, dtype=torch.float64), "cholesky")
        Y = als.half_sweep(T, X, Y, torch.full((12,), tiny, dtype=torch.float64), "cholesky")
    U, s, V = np.linalg.svd(P.toarray(), full_matrices=False)
    np.testing.assert_allclose((X @ Y.T).numpy(), (U[:, :3] * s[:3]) @ V[:3], atol=1e-3)
