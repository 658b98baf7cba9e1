"""The condition of Theorem 1 (support paper, eq. 29)."""

from typing import Any

import numpy as np

from kerasgreedy.analysis.linearity_steps import Array

LOWEST, HIGHEST, MOST_EPSILON = 0.9, 1.1, 0.1


def bounds(u: Array, reached: int) -> dict[str, Any]:
    """Eigenvalues of U^T U against (9/10 + eps) m and (11/10 - eps) m, m the number of rows (the size of y).

    Eq. 30 and 31 show that the paper's `eigenvalues of U` are the singular values.

    Args:
        u: (m, columns).
        reached: columns that can be other than zero for some input and supports.

    Returns:
        rank: eigenvalues above max(m, columns) * 2.2e-16 * the largest; those below cannot be told from 0 in float64.
        zero_columns: that are zero for these examples.
        no_path_columns: that are zero for every input and supports.
        lambda2_min: smallest eigenvalue over all columns, 0 below full column rank. lambda2_min_nonzero, lambda2_max.
        ratio: lambda2_max / lambda2_min, or None.
        lower, upper: 9/10 m and 11/10 m; both ends are out of reach, for eps > 0.
        epsilon: the condition holds for every eps above 0 and below this; 0 where it does not hold.
        holds: the condition.
        scale: factor on the data that puts the eigenvalues best inside the bounds, where the ratio is below 11/9; else None.
        verdict: a sentence.
    """
    m, columns = u.shape
    # U U^T and U^T U have the same eigenvalues but for zeros; the smaller is far cheaper than singular values of a wide U.
    squares = np.linalg.eigvalsh(u @ u.T if m < columns else u.T @ u)[::-1]
    largest = max(float(squares[0]), 0.0)
    rank = int((squares > max(u.shape) * np.finfo(np.float64).eps * largest).sum())
    full = rank == columns
    smallest = float(squares[rank - 1]) if full else 0.0
    slack = min(smallest / m - LOWEST, HIGHEST - largest / m)
    ratio = largest / smallest if full else None
    fits = ratio is not None and ratio < HIGHEST / LOWEST
    found = {
        "m": m,
        "rank": rank,
        "zero_columns": int((~u.any(0)).sum()),
        "no_path_columns": columns - reached,
        "lambda2_min": smallest,
        "lambda2_min_nonzero": float(squares[rank - 1]) if rank else None,
        "lambda2_max": largest,
        "ratio": ratio,
        "lower": LOWEST * m,
        "upper": HIGHEST * m,
        "epsilon": max(min(slack, MOST_EPSILON), 0.0),
        "holds": slack > 0,
        "scale": float(np.sqrt(2 * m / (largest + smallest))) if fits else None,
    }
    return {**found, "verdict": _verdict(found, columns)}


def _verdict(found: dict[str, Any], columns: int) -> str:
    m, ratio, no_path = found["m"], found["ratio"], found["no_path_columns"]
    reasons = []
    if columns > m:
        reasons.append(f"more products of weights ({columns:,}) than outputs ({m:,})")
    if no_path:
        reasons.append(f"{no_path:,} of {columns:,} products lie on no path through the network, whatever the examples")
    if not reasons and ratio is None:
        reasons.append(f"the rank is {found['rank']:,} of {columns:,} columns for these examples")
    if reasons:
        return f"{'; '.join(reasons)}: lambda_min = 0, the theorem does not apply"
    if found["holds"]:
        return f"the condition holds for every eps above 0 and below {found['epsilon']:.4g}"
    if found["scale"] is None:
        return (
            f"lambda_max^2 / lambda_min^2 = {ratio:.4g}; allowed: less than 11/9. The theorem does not apply, whatever the scale"
        )
    return f"outside the bounds, but data scaled by {found['scale']:.4g} would meet them"
