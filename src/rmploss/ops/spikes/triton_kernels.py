"""Spikes as bits, 64 channels a word."""

# What @triton.jit compiles only looks like Python: to pyright a number is no constexpr there.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl


@triton.jit
def pack(x, bits, found, rows, channels, words, BLOCK_R: tl.constexpr):
    """Bits of BLOCK_R rows of one word; `found` [programs, 2]: how many 1, how many neither."""
    lane = tl.arange(0, 64)
    c = tl.program_id(1) * 64 + lane
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = (row < rows)[:, None] & (c < channels)[None, :]
    value = tl.load(x + row[:, None] * channels + c[None, :], mask=inside, other=0.0)
    if value.dtype.primitive_bitwidth == 16:
        value = value.to(tl.float32)
    one = value == 1.0
    other = (value != 0.0) & (value != 1.0)  # NaN too
    # Different bits: their sum is their union.
    word = tl.sum(one.to(tl.int64) << lane.to(tl.int64)[None, :], axis=1)
    tl.store(bits + row * words + tl.program_id(1), word, mask=row < rows)
    program = tl.program_id(0).to(tl.int64) * words + tl.program_id(1)
    tl.store(found + 2 * program, tl.sum(tl.sum(one.to(tl.int64), axis=1), axis=0))
    tl.store(found + 2 * program + 1, tl.sum(tl.sum(other.to(tl.int64), axis=1), axis=0))


@triton.jit(do_not_specialize=["width"])
def pool(bits, x, rows, channels, words, width, BLOCK_R: tl.constexpr):
    """The means of bits over 2x2 squares: rows of x are the pixels of maps of that width."""
    lane = tl.arange(0, 64)
    c = tl.program_id(1) * 64 + lane
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    line = row // width
    corner = line * 4 * width + (row - line * width) * 2
    found = tl.zeros((BLOCK_R, 64), tl.int32)
    for square in tl.static_range(4):
        pixel = corner + square // 2 * 2 * width + square % 2
        word = tl.load(bits + pixel * words + tl.program_id(1), mask=row < rows, other=0)
        found += ((word[:, None] >> lane.to(tl.int64)[None, :]) & 1).to(tl.int32)
    inside = (row < rows)[:, None] & (c < channels)[None, :]
    at = row[:, None] * channels + c[None, :]
    tl.store(x + at, found.to(tl.float32) * 0.25, mask=inside)


@triton.jit
def unpack(bits, x, rows, channels, words, BLOCK_R: tl.constexpr):
    """The inverse of `pack`: 0.0 or 1.0 for every bit."""
    lane = tl.arange(0, 64)
    c = tl.program_id(1) * 64 + lane
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    word = tl.load(bits + row * words + tl.program_id(1), mask=row < rows, other=0)
    value = ((word[:, None] >> lane.to(tl.int64)[None, :]) & 1).to(tl.float32)
    inside = (row < rows)[:, None] & (c < channels)[None, :]
    tl.store(x + row[:, None] * channels + c[None, :], value, mask=inside)
