"""Attention of windows in Triton: keys and values are read where they lie on their maps.

A program takes a tile of one window's queries, or of one map's keys, and goes through the tiles of
the other side. Weights live in registers, a tile at a time: ``exp2(scores - lse)`` makes them
again in the backward pass, from the logarithm of their sum. No two programs write to one place.

Throughout, ``maps`` holds for each map its keys, their strides, its values, their strides (sample,
row, column, head) and its geometry: height, width, a window's height and width, the margins above
and on the left, height and width of what a window sees. The shape of all windows is their rows,
columns, height and width on the map of the queries. Scores and biases are in units of log(2).
"""

from __future__ import annotations

import triton
import triton.language as tl

_LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def _read(tokens, offsets, there, DIMS: tl.constexpr, BLOCK_D: tl.constexpr):
    """Channels of some tokens, (tokens, BLOCK_D); zeros where there is none."""
    d = tl.arange(0, BLOCK_D)
    mask = there[:, None]
    if DIMS < BLOCK_D:
        mask = mask & (d < DIMS)[None, :]
    return tl.load(tokens + offsets[:, None] + d[None, :], mask=mask, other=0.0)


@triton.jit
def _write(tokens, offsets, there, x, DIMS: tl.constexpr, BLOCK_D: tl.constexpr):
    d = tl.arange(0, BLOCK_D)
    mask = there[:, None]
    if DIMS < BLOCK_D:
        mask = mask & (d < DIMS)[None, :]
    tl.store(tokens + offsets[:, None] + d[None, :], x.to(tokens.dtype.element_ty), mask=mask)


@triton.jit
def _offset(y, x, strides):
    return y * strides[1] + x * strides[2]


@triton.jit
def _of_sample(tokens, sample, head, strides):
    """Where a sample's tokens begin: a batch may have more than 2 ** 31 numbers."""
    return tokens + sample.to(tl.int64) * strides[0] + head * strides[3]


@triton.jit
def _window(number, shape):
    """Row and column of a window."""
    return number // shape[1], number % shape[1]


@triton.jit
def _queries(n, row, column, shape):
    """Places of a window's queries, and whether there are as many."""
    height, width = shape[2], shape[3]
    return row * height + n // width, column * width + n % width, n < height * width


@triton.jit
def _query_tile(shape, heads, BLOCK_M: tl.constexpr):
    """Head, sample and window of this program, and the numbers of its queries in the window."""
    rows, columns, height, width = shape
    tiles = tl.cdiv(height * width, BLOCK_M)
    head = tl.program_id(0) % heads
    rest = tl.program_id(0) // heads
    window = rest // tiles % (rows * columns)
    sample = rest // tiles // (rows * columns)
    return head, sample, window, rest % tiles * BLOCK_M + tl.arange(0, BLOCK_M)


@triton.jit
def _number(y, x, sample, head, heads, shape):
    """Numbers of queries among those of all heads and samples, (samples, heads, H, W)."""
    rows, columns, height, width = shape
    before = (sample.to(tl.int64) * heads + head) * (rows * height * columns * width)
    return before + y * (columns * width) + x


@triton.jit
def _keys(n, row, column, geometry, WRAPS: tl.constexpr):
    """Places of the keys that a window sees on a map, and whether they are there."""
    height, width = geometry[0], geometry[1]
    y = row * geometry[2] - geometry[4] + n // geometry[7]
    x = column * geometry[3] - geometry[5] + n % geometry[7]
    if WRAPS:
        y = tl.where(y < 0, y + height, y)
        y = tl.where(y >= height, y - height, y)
        x = tl.where(x < 0, x + width, x)
        x = tl.where(x >= width, x - width, x)
    on_map = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return y, x, on_map & (n < geometry[6] * geometry[7])


@triton.jit
def _bias_tile(bias, head, n, keys, there, sizes):
    """Biases (queries, keys) of a tile; ``sizes`` are N and the length of a row in memory."""
    rows = bias + (head * sizes[0] + n) * sizes[1]
    return tl.load(rows[:, None] + keys[None, :], mask=there, other=0.0)


@triton.jit
def _scores(
    q, k, scale, bias, head, n, keys, there, sizes, decay, yq, xq, yk, xk, PRECISION: tl.constexpr
):
    """Scores of a tile, with what is added to them; ``decay`` is that of one token's distance."""
    scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    if bias is not None:
        scores += _bias_tile(bias, head, n, keys, there, sizes)
    if decay is not None:
        distance = tl.abs(yq[:, None] - yk[None, :]) + tl.abs(xq[:, None] - xk[None, :])
        scores += decay * distance.to(tl.float32)
    return scores


@triton.jit
def attend(
    q,
    q_strides,
    maps,
    bias,
    bias_sizes,
    valid,
    total,
    decay,
    out,
    out_strides,
    lse,
    shape,
    heads,
    scale,
    WRAPS: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Outputs of a tile of queries, and the logarithm of the sum of their weights."""
    head, sample, window, n = _query_tile(shape, heads, BLOCK_M)
    row, column = _window(window, shape)
    yq, xq, there_q = _queries(n, row, column, shape)
    query = _read(
        _of_sample(q, sample, head, q_strides), _offset(yq, xq, q_strides), there_q, DIMS, BLOCK_D
    )
    slope = None
    if decay is not None:
        slope = tl.load(decay + head)
    largest = tl.full((BLOCK_M,), float('-inf'), tl.float32)
    total_weight = tl.zeros((BLOCK_M,), tl.float32)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    before = 0
    for i in tl.static_range(len(maps)):
        k, k_strides, v, v_strides, geometry = maps[i]
        k, v = _of_sample(k, sample, head, k_strides), _of_sample(v, sample, head, v_strides)
        count = geometry[6] * geometry[7]
        for first in range(0, count, BLOCKS[i]):
            m = first + tl.arange(0, BLOCKS[i])
            yk, xk, there = _keys(m, row, column, geometry, WRAPS[i])
            key = _read(k, _offset(yk, xk, k_strides), there, DIMS, BLOCK_D)
            pairs = there_q[:, None] & there[None, :]
            scores = _scores(
                query,
                key,
                scale,
                bias,
                head,
                n,
                before + m,
                pairs,
                bias_sizes,
                slope,
                yq,
                xq,
                yk,
                xk,
                PRECISION,
            )
            if valid is not None:
                there &= tl.load(valid + window * total + before + m, mask=there, other=0) != 0
            scores = tl.where(there[None, :], scores, float('-inf'))
            larger = tl.maximum(largest, tl.max(scores, 1))
            # Until a key is there, nothing may be taken from minus infinity.
            base = tl.where(larger == float('-inf'), 0.0, larger)
            weights = tl.exp2(scores - base[:, None])
            shrink = tl.exp2(largest - base)
            total_weight = total_weight * shrink + tl.sum(weights, 1)
            value = _read(v, _offset(yk, xk, v_strides), there, DIMS, BLOCK_D)
            sums = sums * shrink[:, None]
            sums += tl.dot(weights.to(value.dtype), value, input_precision=PRECISION)
            largest = larger
        before += count
    none = total_weight == 0.0
    sums = sums / tl.where(none, 1.0, total_weight)[:, None]
    out = _of_sample(out, sample, head, out_strides)
    _write(out, _offset(yq, xq, out_strides), there_q, sums, DIMS, BLOCK_D)
    # Weights are made again as exp2(scores - lse): 0 where no key is there.
    found = tl.where(none, float('inf'), largest + tl.log2(total_weight))
    tl.store(lse + _number(yq, xq, sample, head, heads, shape), found, mask=there_q)


@triton.jit
def gradient_of_queries(
    q,
    q_strides,
    maps,
    bias,
    bias_sizes,
    valid,
    total,
    decay,
    out,
    out_strides,
    lse,
    grad,
    grad_strides,
    grad_q,
    grad_q_strides,
    delta,
    shape,
    heads,
    scale,
    WRAPS: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCKS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of a tile of queries; and ``delta``, the products of outputs and their gradients."""
    head, sample, window, n = _query_tile(shape, heads, BLOCK_M)
    row, column = _window(window, shape)
    yq, xq, there_q = _queries(n, row, column, shape)
    query = _read(
        _of_sample(q, sample, head, q_strides), _offset(yq, xq, q_strides), there_q, DIMS, BLOCK_D
    )
    grad = _of_sample(grad, sample, head, grad_strides)
    slopes = _read(grad, _offset(yq, xq, grad_strides), there_q, DIMS, BLOCK_D)
    out = _of_sample(out, sample, head, out_strides)
    result = _read(out, _offset(yq, xq, out_strides), there_q, DIMS, BLOCK_D)
    mean = tl.sum(result.to(tl.float32) * slopes.to(tl.float32), 1)
    places = _number(yq, xq, sample, head, heads, shape)
    tl.store(delta + places, mean, mask=there_q)
    norm = tl.load(lse + places, mask=there_q, other=float('inf'))
    slope = None
    if decay is not None:
        slope = tl.load(decay + head)
    sums = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    before = 0
    for i in tl.static_range(len(maps)):
        k, k_strides, v, v_strides, geometry = maps[i]
        k, v = _of_sample(k, sample, head, k_strides), _of_sample(v, sample, head, v_strides)
        count = geometry[6] * geometry[7]
        for first in range(0, count, BLOCKS[i]):
            m = first + tl.arange(0, BLOCKS[i])
            yk, xk, there = _keys(m, row, column, geometry, WRAPS[i])
            key = _read(k, _offset(yk, xk, k_strides), there, DIMS, BLOCK_D)
            pairs = there_q[:, None] & there[None, :]
            scores = _scores(
                query,
                key,
                scale,
                bias,
                head,
                n,
                before + m,
                pairs,
                bias_sizes,
                slope,
                yq,
                xq,
                yk,
                xk,
                PRECISION,
            )
            value = _read(v, _offset(yk, xk, v_strides), there, DIMS, BLOCK_D)
            if valid is not None:
                there &= tl.load(valid + window * total + before + m, mask=there, other=0) != 0
            weights = tl.exp2(tl.where(there[None, :], scores, float('-inf')) - norm[:, None])
            of_weights = tl.dot(slopes, tl.trans(value), input_precision=PRECISION)
            of_scores = weights * (of_weights - mean[:, None])
            sums += tl.dot(of_scores.to(key.dtype), key, input_precision=PRECISION)
        before += count
    grad_q = _of_sample(grad_q, sample, head, grad_q_strides)
    sums *= scale * _LN_2
    _write(grad_q, _offset(yq, xq, grad_q_strides), there_q, sums, DIMS, BLOCK_D)


@triton.jit
def gradient_of_keys(
    q,
    q_strides,
    k,
    k_strides,
    v,
    v_strides,
    geometry,
    reach,
    bias,
    bias_sizes,
    valid,
    total,
    before,
    decay,
    lse,
    grad,
    grad_strides,
    delta,
    grad_k,
    grad_k_strides,
    grad_v,
    grad_v_strides,
    shape,
    heads,
    scale,
    span,
    WRAPS: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of a tile of keys and values of one map, summed over all windows that see them.

    A tile is a part of ``span`` windows beside each other. ``reach`` says how far the first and
    last windows that see a window are from it: in rows, then in columns.
    """
    rows, columns, height, width = shape
    key_height, key_width = geometry[2], geometry[3]
    area = key_height * key_width
    tiles, groups = tl.cdiv(span * area, BLOCK_N), tl.cdiv(columns, span)
    head = tl.program_id(0) % heads
    rest = tl.program_id(0) // heads
    group = rest // tiles % groups
    row = rest // tiles // groups % rows
    sample = rest // tiles // groups // rows
    m = rest % tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    column = group * span + m // area
    yk = row * key_height + m % area // key_width
    xk = column * key_width + m % area % key_width
    there_k = (m < span * area) & (column < columns)
    k, v = _of_sample(k, sample, head, k_strides), _of_sample(v, sample, head, v_strides)
    key = _read(k, _offset(yk, xk, k_strides), there_k, DIMS, BLOCK_D)
    value = _read(v, _offset(yk, xk, v_strides), there_k, DIMS, BLOCK_D)
    q, grad = _of_sample(q, sample, head, q_strides), _of_sample(grad, sample, head, grad_strides)
    slope = None
    if decay is not None:
        slope = tl.load(decay + head)
    top, bottom = row + reach[0], row + reach[1]
    left, right = group * span + reach[2], group * span + span - 1 + reach[3]
    if not WRAPS:
        top, bottom = tl.maximum(top, 0), tl.minimum(bottom, rows - 1)
        left, right = tl.maximum(left, 0), tl.minimum(right, columns - 1)
    across, parts = tl.maximum(right - left + 1, 0), tl.cdiv(height * width, BLOCK_M)
    sums_k = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    sums_v = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    for i in range(0, tl.maximum(bottom - top + 1, 0) * across * parts):
        # Of windows beyond the border, if they wrap, the numbers go on.
        beside, above = left + i // parts % across, top + i // parts // across
        y = yk - above * key_height + geometry[4]
        x = xk - beside * key_width + geometry[5]
        seen = there_k & (y >= 0) & (y < geometry[6]) & (x >= 0) & (x < geometry[7])
        if WRAPS:
            beside, above = (beside + columns) % columns, (above + rows) % rows
        n = i % parts * BLOCK_M + tl.arange(0, BLOCK_M)
        yq, xq, there_q = _queries(n, above, beside, shape)
        query = _read(q, _offset(yq, xq, q_strides), there_q, DIMS, BLOCK_D)
        slopes = _read(grad, _offset(yq, xq, grad_strides), there_q, DIMS, BLOCK_D)
        number = before + y * geometry[7] + x
        pairs = there_q[:, None] & seen[None, :]
        scores = _scores(
            query,
            key,
            scale,
            bias,
            head,
            n,
            number,
            pairs,
            bias_sizes,
            slope,
            yq,
            xq,
            yk,
            xk,
            PRECISION,
        )
        if valid is not None:
            window = above * columns + beside
            seen &= tl.load(valid + window * total + number, mask=seen, other=0) != 0
        at = _number(yq, xq, sample, head, heads, shape)
        norm = tl.load(lse + at, mask=there_q, other=float('inf'))
        mean = tl.load(delta + at, mask=there_q, other=0.0)
        weights = tl.exp2(tl.where(seen[None, :], scores, float('-inf')) - norm[:, None])
        sums_v += tl.dot(tl.trans(weights.to(slopes.dtype)), slopes, input_precision=PRECISION)
        of_weights = tl.dot(slopes, tl.trans(value), input_precision=PRECISION)
        of_scores = weights * (of_weights - mean[:, None])
        sums_k += tl.dot(tl.trans(of_scores.to(query.dtype)), query, input_precision=PRECISION)
    grad_k = _of_sample(grad_k, sample, head, grad_k_strides)
    grad_v = _of_sample(grad_v, sample, head, grad_v_strides)
    sums_k *= scale * _LN_2
    _write(grad_k, _offset(yk, xk, grad_k_strides), there_k, sums_k, DIMS, BLOCK_D)
    _write(grad_v, _offset(yk, xk, grad_v_strides), there_k, sums_v, DIMS, BLOCK_D)


@triton.jit
def gradient_of_bias(
    q,
    q_strides,
    k,
    k_strides,
    v,
    v_strides,
    geometry,
    bias,
    bias_sizes,
    valid,
    total,
    before,
    lse,
    grad,
    grad_strides,
    delta,
    partial,
    shape,
    heads,
    scale,
    windows,
    per_group,
    WRAPS: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Of the biases of one map's keys, a tile of them summed over a group of all windows.

    ``partial`` is (groups, heads, N, total); ``windows`` are those of all samples.
    """
    rows, columns, height, width = shape
    count = geometry[6] * geometry[7]
    tiles, key_tiles = tl.cdiv(height * width, BLOCK_M), tl.cdiv(count, BLOCK_N)
    head = tl.program_id(0) % heads
    rest = tl.program_id(0) // heads
    n = rest % tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    m = rest // tiles % key_tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    group = rest // tiles // key_tiles
    there_q, listed = n < height * width, m < count
    pairs = there_q[:, None] & listed[None, :]
    tile = _bias_tile(bias, head, n, before + m, pairs, bias_sizes)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for number in range(group * per_group, tl.minimum((group + 1) * per_group, windows)):
        sample, window = number // (rows * columns), number % (rows * columns)
        row, column = _window(window, shape)
        yq, xq, there_q = _queries(n, row, column, shape)
        yk, xk, there = _keys(m, row, column, geometry, WRAPS)
        query = _read(
            _of_sample(q, sample, head, q_strides),
            _offset(yq, xq, q_strides),
            there_q,
            DIMS,
            BLOCK_D,
        )
        slopes = _read(
            _of_sample(grad, sample, head, grad_strides),
            _offset(yq, xq, grad_strides),
            there_q,
            DIMS,
            BLOCK_D,
        )
        key = _read(
            _of_sample(k, sample, head, k_strides),
            _offset(yk, xk, k_strides),
            there,
            DIMS,
            BLOCK_D,
        )
        value = _read(
            _of_sample(v, sample, head, v_strides),
            _offset(yk, xk, v_strides),
            there,
            DIMS,
            BLOCK_D,
        )
        scores = tile + tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        if valid is not None:
            there &= tl.load(valid + window * total + before + m, mask=there, other=0) != 0
        at = _number(yq, xq, sample, head, heads, shape)
        norm = tl.load(lse + at, mask=there_q, other=float('inf'))
        mean = tl.load(delta + at, mask=there_q, other=0.0)
        weights = tl.exp2(tl.where(there[None, :], scores, float('-inf')) - norm[:, None])
        of_weights = tl.dot(slopes, tl.trans(value), input_precision=PRECISION)
        sums += weights * (of_weights - mean[:, None])
    places = ((group.to(tl.int64) * heads + head) * (height * width) + n) * total
    at = partial + places[:, None] + (before + m)[None, :]
    tl.store(at, sums, mask=(n < height * width)[:, None] & listed[None, :])
