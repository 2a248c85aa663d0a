"""Rounds a weight so that what its product computes changes least (GPTQ, Frantar et al. 2023).

Columns are rounded one after the other; the error of each is made up for by those that are still floats, as far as the inputs
that were observed allow. With E the errors so far and H = X^T X = R R^T, R upper triangular, column i becomes
w_i + sum over q < i of E_q R_qi / R_ii: the paper's update without the inverse of H, so that every product is a BLAS call.

Scales are chosen beforehand, so that columns can go in the order of what they weigh in the product ("act-order") wherever
their blocks lie, and in float32 of the float weights, so that last bits of H, which processors do not share, hardly ever
reach the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .schemes.blocks import BLOCK, BlockCodes
from .schemes.scheme import TINY

DAMPING = 0.1  # of the mean of H's diagonal, added to it: what a few texts did not show is not impossible; docs/quantization.md
NOTE = "rounded by GPTQ"
_ROWS = 256  # rows that are rounded together: what a column changes stays in the processor's cache
_BATCH = 128  # columns whose errors reach each other one by one, and later columns in one product
_SHARES = np.linspace(1, 0.5, 21).astype(np.float32)  # of a block's range that its codes may span: clipping few helps many

Wide = NDArray[np.float64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """What is to be known of a product's inputs [tokens, columns]; products that read the same share it."""

    weights: Floats  # [columns], what a column weighs: the square of its inputs
    order: NDArray[np.intp]  # of the columns, the heaviest first
    rates: Wide  # R_qi / R_ii of H in that order

    @classmethod
    def of(cls, x: NDArray[np.floating[Any]]) -> Inputs:
        """From the inputs themselves, each token's brought to one length: the few whose inputs are hundreds of times as large,
        such as the first of a text, would count for all. Summed in float64.
        """
        wide = x.astype(np.float64)
        wide /= np.maximum(np.sqrt(np.square(wide).sum(axis=1, keepdims=True)), TINY)
        diagonal = np.square(wide).sum(axis=0)
        order = np.argsort(-diagonal, kind="stable")
        wide = wide[:, order[::-1]]  # before H is made: that may be gigabytes
        return cls._of(diagonal, order, wide.T @ wide)

    @classmethod
    def of_hessian(cls, hessian: Wide) -> Inputs:
        """From H [columns, columns]."""
        diagonal = np.diagonal(hessian)
        order = np.argsort(-diagonal, kind="stable")
        return cls._of(diagonal, order, hessian[np.ix_(order[::-1], order[::-1])])

    @classmethod
    def _of(cls, diagonal: Wide, order: NDArray[np.intp], backwards: Wide) -> Inputs:
        """`backwards` is H in the opposite of `order`, and is used up."""
        added = DAMPING * float(diagonal.mean()) or 1.0  # of inputs that are all zero any order and rate is right
        backwards[np.diag_indices_from(backwards)] += added
        upper = np.ascontiguousarray(np.linalg.cholesky(backwards)[::-1, ::-1])  # BLAS takes no negative strides
        upper /= np.diagonal(upper).copy()
        return cls((diagonal + added).astype(np.float32), order, upper)


def gptq(weight: Floats, inputs: Inputs, bits: int, *, symmetric: bool = False) -> BlockCodes:
    """Codes of `weight` [rows, columns] in blocks of `BLOCK` columns."""
    rows, columns = weight.shape
    codes = np.empty(weight.shape, np.uint8)
    scale, offset = (np.empty((rows, columns // BLOCK), np.float32) for _ in range(2))
    for start in range(0, rows, _ROWS):
        band = slice(start, start + _ROWS)
        scale[band], offset[band] = choose_scales(weight[band], inputs.weights, bits, symmetric=symmetric)
        codes[band] = _round(weight[band], scale[band], offset[band], inputs, 2**bits - 1)
    return BlockCodes(codes, scale, offset, note=NOTE)


def choose_scales(weight: Floats, weights: Floats, bits: int, *, symmetric: bool) -> tuple[Floats, Floats]:
    """Scale and offset of every block, [rows, blocks]: of some shares of its range that with the least weighted square error.

    Args:
        weights: what an error in a column counts, [columns].
    """
    split, counts = weight.reshape(len(weight), -1, BLOCK), weights.reshape(-1, BLOCK)
    most, middle = np.float32(2**bits - 1), np.float32(2 ** (bits - 1))
    low, high = np.minimum(split.min(axis=2), 0), np.maximum(split.max(axis=2), 0)
    best = np.full(low.shape, np.inf, np.float32)
    scale, zero = np.ones_like(best), np.full_like(best, middle)
    for share in _SHARES:
        if symmetric:
            step, origin = np.maximum(np.maximum(-low, high) * share, TINY) / (middle - 1), np.full_like(best, middle)
        else:
            step = np.maximum((high - low) * share, TINY) / most
            origin = np.clip(np.rint(-low * share / step), 0, most)
        near = np.clip(np.rint(split / step[..., None]) + origin[..., None], 0, most) - origin[..., None]
        near *= step[..., None]
        near -= split
        error = np.einsum("rbc,rbc,bc->rb", near, near, counts)
        better = error < best
        best[better], scale[better], zero[better] = error[better], step[better], origin[better]
    return scale, -zero * scale


def _round(weight: Floats, scale: Floats, offset: Floats, inputs: Inputs, most: int) -> NDArray[np.uint8]:
    """The codes of some rows."""
    rows, columns = weight.shape
    order, rates = inputs.order, inputs.rates
    floats = weight.T[order].astype(np.float64)  # a column is a row here
    steps, lows = scale.T.astype(np.float64), offset.T.astype(np.float64)
    errors, codes = np.empty((columns, rows)), np.empty((columns, rows), np.uint8)
    for start in range(0, columns, _BATCH):
        end = min(start + _BATCH, columns)
        shifts = rates[:start, start:end].T @ errors[:start]
        for i in range(start, end):
            step, low = steps[order[i] // BLOCK], lows[order[i] // BLOCK]
            code = np.clip(np.rint((floats[i] + shifts[i - start] - low) / step), 0, most)
            errors[i] = floats[i] - (code * step + low)
            shifts[i - start + 1 :] += np.outer(rates[i, i + 1 : end], errors[i])
            codes[order[i]] = code
    return np.ascontiguousarray(codes.T)
