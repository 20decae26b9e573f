"""What the CPO and CPS families share: gathering streams, and the convolution over compressed planes.

Layouts are those of native/columns.h; `plan` is jsc.ops.columns.ColumnPlan.
"""

from cython cimport floating
from cython.parallel cimport prange, threadid
from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.string cimport memcpy

from jsc._kernels.cpc cimport band_double, band_float


def gather(
    const unsigned char[:, ::1] regions,  # IN   (P, bytes): a stream at the front of each row
    const int64_t[::1] offset,            # IN   (P + 1,) where each begins in `stream`, in bytes
    unsigned char[::1] stream,            # OUT  one after the other
    int num_threads,
):
    """Streams that follow one another, from regions of equal size."""
    cdef Py_ssize_t n, step = regions.shape[1]
    if regions.shape[0] == 0 or stream.shape[0] == 0:
        return
    cdef const unsigned char *source = &regions[0, 0]
    cdef const int64_t *place = &offset[0]
    cdef unsigned char *target = &stream[0]
    for n in prange(regions.shape[0], nogil=True, num_threads=num_threads, schedule="static"):
        memcpy(target + place[n], source + n * step, place[n + 1] - place[n])


# What task `index` owns: `groups` (of `group_blocks` filter blocks) vary fastest, then strips, then images.
cdef inline void place_task(ColumnTask[floating] *task, Py_ssize_t index, Py_ssize_t strips, Py_ssize_t strip_rows,
                            Py_ssize_t groups, Py_ssize_t group_blocks, Py_ssize_t blocks, Py_ssize_t block,
                            Py_ssize_t Oh) noexcept nogil:
    cdef Py_ssize_t group = index % groups, strip = index // groups % strips, n = index // groups // strips
    cdef Py_ssize_t first = group * group_blocks, C = task.sweep.C, sets = (C + 63) // 64
    task.row0 = strip * strip_rows
    task.out_rows = min(strip_rows, Oh - task.row0)
    task.blocks = min(group_blocks, blocks - first)
    task.values += n * C * task.value_step
    task.rows += n * C * task.plan.columns * task.plan.words()
    task.start += n * C * (task.plan.columns + 1)
    task.sweep.weight += first * sets * task.sweep.Kh * 64 * task.sweep.Kw * block
    if task.sweep.bias != NULL:
        task.sweep.bias += first * block
    task.sweep.out += n * Oh * task.sweep.Ow * task.sweep.K + first * block
    task.sweep.filters = min(task.blocks * block, task.sweep.K - first * block)


def convolve(
    const floating[:, ::1] DA,                  # IN   (N * C, room) values
    const int32_t[:, ::1] start,                # IN   (N * C, columns + 1) places of the columns in DA
    const uint64_t[:, ::1] rows,                # IN   (N * C, columns * words) row masks
    plan,
    const floating[:, :, :, :, :, ::1] weight,  # IN   (K blocks, sets, Kh, 64, Kw, V lanes)
    const floating[::1] bias,                   # IN   (K,) or (0,) for none
    floating[:, :, :, ::1] tile,                # SCRATCH (num_threads, sets, tile rows, row step)
    uint64_t[:, ::1] mask,                      # SCRATCH (num_threads, sets * tile rows * W)
    floating[:, ::1] partial,                   # SCRATCH (num_threads, sweep rows * tile columns * V lanes)
    floating[:, :, :, ::1] out,                 # OUT  (N, Oh, Ow, K)
    g,                                          # ConvGeometry
    cut,                                        # jsc.ops.columns.Tasks
    int V,
    int isa,
    int num_threads,
):
    """Convolution of compressed planes: a task is a strip of output rows for some blocks of filters."""
    cdef ColumnTask[floating] task, mine
    cdef Py_ssize_t i, Oh = g.Oh, blocks = weight.shape[0], block = weight.shape[5]
    cdef Py_ssize_t strip_rows = cut.strip_rows, group_blocks = cut.group_blocks
    cdef Py_ssize_t strips = (Oh + strip_rows - 1) // strip_rows, groups = (blocks + group_blocks - 1) // group_blocks
    task.plan = native_plan(plan)
    task.values, task.value_step, task.start, task.rows = &DA[0, 0], DA.shape[1], &start[0, 0], &rows[0, 0]
    task.tile_rows, task.band_rows, task.sweep_rows = cut.tile_rows, cut.band_rows, cut.sweep_rows
    if floating is float:
        task.band = band_float
    else:
        task.band = band_double
    cdef const floating *first_bias = &bias[0] if bias.shape[0] else NULL
    task.sweep.weight, task.sweep.bias, task.sweep.out = &weight[0, 0, 0, 0, 0, 0], first_bias, &out[0, 0, 0, 0]
    task.sweep.C, task.sweep.H, task.sweep.W, task.sweep.K, task.sweep.Ow = g.C, g.H, g.W, g.K, g.Ow
    task.sweep.Kh, task.sweep.Kw, task.sweep.Sh, task.sweep.Sw = g.Kh, g.Kw, g.Sh, g.Sw
    task.sweep.Ph, task.sweep.Pw, task.sweep.Dh, task.sweep.Dw = g.Ph, g.Pw, g.Dh, g.Dw
    task.sweep.pixel_step, task.sweep.row_step = cut.pixel_step, cut.row_step
    task.sweep.set_step = tile.shape[2] * tile.shape[3]
    cdef floating *first_tile = &tile[0, 0, 0, 0]
    cdef uint64_t *first_mask = &mask[0, 0]
    cdef floating *first_partial = &partial[0, 0]
    cdef Py_ssize_t tiles = tile.shape[1] * task.sweep.set_step, masks = mask.shape[1], partials = partial.shape[1]
    for i in prange(out.shape[0] * strips * groups, nogil=True, num_threads=num_threads, schedule="dynamic"):
        mine = task
        mine.tile = first_tile + threadid() * tiles
        mine.mask = first_mask + threadid() * masks
        mine.sweep.tile = first_partial + threadid() * partials
        place_task(&mine, i, strips, strip_rows, groups, group_blocks, blocks, block, Oh)
        column_strip(isa, V, &mine)
