#!/usr/bin/env python3
"""Breaks the cuda backend on purpose, one mistake at a time. Succeeds only if the parity program on the emulated backend, or a
test of tests/emulated, detects each mistake: a test of the tests.

usage: mutate.py BUILD_DIR [NAME...]     (NAME: only these mistakes)
       mutate.py BUILD_DIR --sample      (the first mistake of each kind; the kind is the name up to the colon. None in headers:
                                          each would compile many kernels anew)
       mutate.py --fit                   (only checks that all of them still fit the sources; immediate)
"""
import functools
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "kernels/cuda"
sys.path.insert(0, str(ROOT / "tests/e2e"))
import environment  # noqa: E402, F401  (drops what the shell exports: tests must not depend on it)

# Name; file; the operation to run parity with, or the program to run; the texts to replace and their replacements.
MISTAKES = (
    ("attention64: no barrier before the keys are read", "attention64.cu", "attention",
     [("        __syncthreads();\n        if (key0 == 0)", "        if (key0 == 0)")]),
    ("attention64: keys are read before they are there", "attention64.cu", "attention",
     [("        gpu_copy_wait<1>(); // queries", "        gpu_copy_wait<2>(); // queries")]),
    ("attention64: keys behind the last one count", "attention64.cu", "attention",
     [("if (key0 + TILE > end || a.causal)", "if (a.causal)")]),
    ("attention64: sums are not shrunk", "attention64.cu", "attention",
     [("            r.sums[n][half * 2 + 1] *= shrink;\n", "")]),
    ("short: keys are read before they are there", "attention64_short.cu", "attention",
     [("    gpu_copy_wait<1>(); // queries", "    gpu_copy_wait<2>(); // queries")]),
    ("short: values are read before they are there", "attention64_short.cu", "attention",
     [("    gpu_copy_wait<0>();\n    __syncthreads();\n", "    __syncthreads();\n")]),
    ("short: no barrier before values are read", "attention64_short.cu", "attention",
     [("    gpu_copy_wait<0>();\n    __syncthreads();\n", "    gpu_copy_wait<0>();\n")]),
    ("short: keys behind the last one count", "attention64_short.cu", "attention",
     [("        mask(s[m], end);\n", "        (void)end;\n")]),
    ("short: rows are stored before all of the warp has them", "attention64_short.cu", "attention",
     [("    __syncwarp(); // all of the tile's", "    // all of the tile's")]),
    ("short: rows behind the span's last are stored", "attention64_short.cu", "attention",
     [("        if (row < n)\n            *reinterpret_cast<uint4", "        if (row <= n)\n            *reinterpret_cast<uint4")]),
    ("short: spans with many keys too", "ops_tokens.c", "attention",
     [("? ATEDM_CUDA_SHORT_KEYS : 0", "? ATEDM_CUDA_SHORT_KEYS + 60 : 0")]),
    ("hopper: tiles are not swizzled", "hopper.c", "attention",
     [("CU_TENSOR_MAP_SWIZZLE_128B", "CU_TENSOR_MAP_SWIZZLE_NONE")]),
    ("hopper: tensors end where nobody's rows do", "hopper.c", "attention",
     [("(cuuint64_t)m->rows}", "(cuuint64_t)m->rows + 4096}")]),
    ("hopper: eights of rows lie too near", "gpu_hopper.cuh", "attention",
     [("constexpr uint64_t eight_rows = 8 * 128;", "constexpr uint64_t eight_rows = 4 * 128;")]),
    ("hopper: keys are read before they are there", "attention64_hopper.cu", "attention",
     [("            gpu_mbarrier_wait(t.k_there[(i + 1) % STAGES], (i + 1) / STAGES & 1);\n", "            (void)0;\n")]),
    ("hopper: values are read before they are there", "attention64_hopper.cu", "attention",
     [("        gpu_mbarrier_wait(t.v_there[last], (i - 1) / STAGES & 1);\n", "")]),
    ("hopper: a wait for the wrong phase", "attention64_hopper.cu", "attention",
     [("(i + 1) / STAGES & 1);", "i / STAGES & 1);")]),
    ("hopper: keys are overwritten while they are read", "attention64_hopper.cu", "attention",
     [("        gpu_mbarrier_wait(t.k_free[stage], before);\n", "")]),
    ("hopper: values are left before the product is done", "attention64_hopper.cu", "attention",
     [("        gpu_wgmma_wait<0>(r.sums);\n        gpu_leave(t.v_free[last]);\n",
       "        gpu_leave(t.v_free[last]);\n        gpu_wgmma_wait<0>(r.sums);\n")]),
    ("hopper: one warp leaves for all", "attention64_hopper.cu", "attention",
     [("    gpu_leave(t.k_free[0]);", "    if (threadIdx.x % GPU_WARPGROUP < 32)\n        gpu_leave(t.k_free[0]);"),
      ("        gpu_leave(t.k_free[stage]);", "        if (threadIdx.x % GPU_WARPGROUP < 32)\n            gpu_leave(t.k_free[stage]);"),
      ("        gpu_leave(t.v_free[last]);", "        if (threadIdx.x % GPU_WARPGROUP < 32)\n            gpu_leave(t.v_free[last]);"),
      ("gpu_mbarrier_init(t.k_free[stage], G::COUNT * WARPS);", "gpu_mbarrier_init(t.k_free[stage], G::COUNT);"),
      ("gpu_mbarrier_init(t.v_free[stage], G::COUNT * WARPS);", "gpu_mbarrier_init(t.v_free[stage], G::COUNT);")]),
    ("hopper: sums are changed while a product goes on", "attention64_hopper.cu", "attention",
     [("        gpu_wgmma_wait<0>(r.sums);\n        gpu_leave", "        gpu_wgmma_wait<1>(r.sums);\n        gpu_leave")]),
    ("hopper: logits are read before the product is done", "attention64_hopper.cu", "attention",
     [("gpu_wgmma_wait<1>(s); // the product with values continues", "gpu_wgmma_wait<2>(s);")]),
    ("hopper: no fence before a product", "attention64_hopper.cu", "attention",
     [("    uint64_t k = gpu_matrix(keys);\n    gpu_wgmma_fence();\n", "    uint64_t k = gpu_matrix(keys);\n")]),
    ("hopper: no fence behind the barriers' start", "attention64_hopper.cu", "attention",
     [("    gpu_mbarrier_fence();\n", "")]),
    ("hopper: keys behind the last one count", "attention64_hopper.cu", "attention",
     [("if (left < KEYS || a.causal)", "if (a.causal)")]),
    ("hopper: a token does not see itself", "attention64_hopper.cu", "attention",
     [("row + half * 8 + 1 - i * KEYS", "row + half * 8 - i * KEYS")]),
    ("hopper: values behind the last key stay", "attention64_hopper.cu", "attention",
     [("        gpu_clear_16(t.v[stage] + i * 8);\n", "        continue;\n")]),
    ("hopper: values are cleared before they are there", "attention64_hopper.cu", "attention",
     [("    gpu_mbarrier_wait(t.last_v_there, 0);\n", "")]),
    ("hopper: no fence behind what is cleared", "attention64_hopper.cu", "attention", [("    gpu_async_fence();\n", "")]),
    ("hopper: sums are not shrunk", "attention64_hopper.cu", "attention", [("        shrink_sums(r, shrink);\n", "")]),
    ("hopper: somebody is told who does not wait", "attention64_hopper.cu", "attention",
     [("if (group < G::COUNT - 1 || i < n_tiles - 1)", "if (i > 0)")]),
    ("hopper: more registers than there are", "attention64_hopper.cu", "attention",
     [("WORKER_REGISTERS = N == 3 ? 160", "WORKER_REGISTERS = N == 3 ? 168")]),
    ("hopper: the second row's sum is the first one's", "attention64_hopper.cu", "attention",
     [("fmaf(r.total[i / 2], ret_shrink[i / 2], s[n][i])", "fmaf(r.total[i / 2], ret_shrink[0], s[n][i])")]),
    ("hopper: biases of the first keys for all", "attention64_hopper.cu", "attention",
     [("add_bias<true>(s, a.bias + p.k0 + i * KEYS, left)", "add_bias<true>(s, a.bias + p.k0, left)")]),
    ("hopper: tensor of the wrong sample", "attention64_hopper.cu", "attention",
     [("row = (int)p.k0 + i * KEYS;", "row = (int)p.q0 + i * KEYS;")]),
    ("attention512: no barrier before a slice is read", "attention512.cu", "attention",
     [("    __syncthreads(); // this slice is there, and no warp reads the last one any more\n", "")]),
    ("attention512: slices are read before they are there", "attention512.cu", "attention",
     [("gpu_copy_wait<STAGES - 2>();", "gpu_copy_wait<STAGES - 1>();")]),
    ("attention512: each half has a largest logit of its own", "attention512.cu", "attention",
     [("fmaxf(t.most[0][row + i * 8], t.most[1][row + i * 8])", "t.most[half][row + i * 8]")]),
    ("attention512: the other half's exponentials are forgotten", "attention512.cu", "attention",
     [("t.total[0][in_tile + i * 8] + t.total[1][in_tile + i * 8]", "2 * t.total[half][in_tile + i * 8]")]),
    ("attention512: keys behind the last one count", "attention512.cu", "attention",
     [("if (key0 + TILE > end || a.causal)", "if (a.causal)")]),
    ("attention512: columns behind the head's are loaded", "attention512.cu", "attention",
     [("bool valid = row >= 0 && column + vector * 8 < head_dim;", "bool valid = row >= 0;")]),
    ("attention512: sums are not shrunk", "attention512.cu", "attention",
     [("                r.sums[slice][n][i * 2 + 1] *= shrink;\n", "")]),
    ("attention: the last tile's keys are overwritten", "attention.cu", "attention",
     [("        __syncthreads(); // the last tile's keys are done with\n", "")]),
    ("attention: log-sum-exp without the largest logit", "attention.cu", "attention",
     [("most + logf(total)", "logf(total)")]),
    ("tile64: rows beyond the span are loaded", "tile64.cuh", "attention",
     [("first + i < end ? first + i : -1", "first + i")]),
    ("rank64: wrong base of the logarithm", "rank64.cu", "rank_tokens",
     [("lse[row] * TILE_LOG2E", "lse[row]")]),
    ("rank64: queries are overwritten while they are read", "rank64.cu", "rank_tokens",
     [("        __syncthreads(); // this tile is there, and the other one is free\n", "")]),
    ("rank, hopper: queries are overwritten while they are read", "rank64_hopper.cu", "rank_tokens",
     [("        gpu_mbarrier_wait(t.free[r.stage], r.phase ^ 1);\n", "")]),
    ("rank, hopper: queries are read before they are there", "rank64_hopper.cu", "rank_tokens",
     [("    gpu_mbarrier_wait(w.t.there[w.next.stage], w.next.phase);\n", "")]),
    ("rank, hopper: keys are read before they are there", "rank64_hopper.cu", "rank_tokens",
     [("    gpu_mbarrier_wait(w.t.k_there, w.k_phase);\n", "")]),
    ("rank, hopper: keys are overwritten while they are read", "rank64_hopper.cu", "rank_tokens",
     [("        gpu_mbarrier_wait(t.k_free, phase);\n", "")]),
    ("rank, hopper: keys are left before they are read", "rank64_hopper.cu", "rank_tokens",
     [("    tile_rows(w.keys, w.t.k[group]);\n", ""), ("    gpu_leave(w.t.k_free);\n", "    gpu_leave(w.t.k_free);\n    tile_rows(w.keys, w.t.k[group]);\n")]),
    ("rank, hopper: no fence behind keys that are read", "rank64_hopper.cu", "rank_tokens",
     [("    gpu_async_fence(); // after this, the next copy may overwrite them\n", "")]),
    ("rank, hopper: spans that have ended go on", "rank64_hopper.cu", "rank_tokens",
     [("lane < a.n && a.last[lane] == 0", "lane < a.n")]),
    ("rank, hopper: a part is nobody's", "rank64_hopper.cu", "rank_tokens",
     [("(int)gridDim.x + atomicAdd", "(int)gridDim.x + 1 + atomicAdd")]),
    ("rank, hopper: parts that were taken once are never there again", "rank.cu", "rank_tokens",
     [("        *a.taken = 0; // for the next iteration\n", "        ;\n")]),
    ("rank, hopper: a ranking begins with a part that is taken", "rank.cu", "rank_tokens",
     [("span == 0)\n        *a.taken = 0;\n", "span == 0)\n        *a.taken = 1;\n")]),
    ("rank, hopper: sums go on from part to part", "rank64_hopper.cu", "rank_tokens",
     [("        total = 0;\n", "        (void)total;\n")]),
    ("rank, hopper: the second column's log-sum-exp is the first one's", "rank64_hopper.cu", "rank_tokens",
     [("before.lse[half]);", "before.lse[0]);")]),
    ("rank, hopper: logits are read before the product is done", "rank64_hopper.cu", "rank_tokens",
     [("    gpu_wgmma_wait<1>(s);\n", "    gpu_wgmma_wait<2>(s);\n")]),
    ("rank, hopper: a stage is left before its offsets are read", "rank64_hopper.cu", "rank_tokens",
     [("    start_next(w, following);\n", "    gpu_mbarrier &early = w.t.free[w.now.stage];\n    start_next(w, following);\n"),
      ("    gpu_wgmma_wait<1>(s);\n", "    gpu_wgmma_wait<1>(s);\n    gpu_leave(early);\n"),
      ("    gpu_leave(w.t.free[w.now.stage]);\n", "")]),
    ("rank, hopper: no fence behind what is read", "rank64_hopper.cu", "rank_tokens",
     [("    gpu_async_fence(); // after this, the next copy may overwrite the offsets\n", "")]),
    ("rank, hopper: one warp leaves for all", "rank64_hopper.cu", "rank_tokens",
     [("gpu_mbarrier_init(t.free[stage], WARPS)", "gpu_mbarrier_init(t.free[stage], 1)")]),
    ("rank, hopper: both groups have the first one's keys", "rank64_hopper.cu", "rank_tokens",
     [("tile_rows(w.keys, w.t.k[group]);", "tile_rows(w.keys, w.t.k[0]);\n    (void)group;")]),
    ("rank, hopper: queries behind the last one count", "rank64_hopper.cu", "rank_tokens",
     [("    if (!is_whole)\n", "    if (!is_whole && w.now.stage > STAGES)\n")]),
    ("rank, hopper: rows of the next sample count", "rank64_hopper.cu", "rank_tokens",
     [("    float offset = -INFINITY;\n", "    float offset = 0;\n")]),
    ("rank, hopper: rows of the next sample count every other time", "rank64_hopper.cu", "rank_tokens",
     [("offsets_at(a, t + 1, head, number)[row]", "offsets_at(a, t, head, number)[row]")]),
    ("rank, hopper: scores of the last iteration but one", "rank64_hopper.cu", "rank_tokens",
     [("        offsets_at(rank, t, p.head, p.span)[key] =", "        offsets_at(rank, t + 1, p.head, p.span)[key] =")]),
    ("rank, hopper: texts' scores stay the first", "rank64_hopper.cu", "rank_tokens", [("t == 1 || rank->cross", "t == 1")]),
    ("rank, hopper: a part's changes are those of its first keys", "rank.cu", "rank_tokens",
     [("warp < a.change_warps; warp++)", "warp < 1; warp++)")]),
    ("rank, hopper: the polynomial is of another degree", "rank64_hopper.cu", "rank_tokens", [("0.6931218f", "0.6951218f")]),
    ("rank, hopper: offsets of another head", "hopper.c", "rank_tokens",
     [("row_bytes = (cuuint64_t)rank->offset_rows * sizeof(float)", "row_bytes = (cuuint64_t)rank->offset_rows * 2 * sizeof(float)")]),
    ("conv, hopper: windows in stages for single pixels", "conv_hopper.cu", "conv",
     [("a.kernel == 1 ? choose<T, 1>", "a.kernel ? choose<T, 1>")]),
    ("conv, hopper: rows at odd addresses are taken", "hopper_conv.c", "conv", [("           rows % 16 == 0 && ", "           rows % 2 == 0 && ")]),
    ("conv, hopper: weights are read before they are there", "conv_hopper.cu", "conv",
     [("                gpu_mbarrier_wait(t.weight_there[weight.stage], weight.phase);\n", "")]),
    ("conv, hopper: pixels are read before they are there", "conv_hopper.cu", "conv",
     [("            gpu_mbarrier_wait(t.slab_there[slab.stage], slab.phase);\n", "")]),
    ("conv, hopper: weights are overwritten while they are read", "conv_hopper.cu", "conv",
     [("gpu_leave(t.weight_free[last_weight]);\n                if", "gpu_leave(t.weight_free[weight.stage]);\n                if"),
      ("    gpu_leave(t.weight_free[last_weight]);\n    gpu_leave(", "    gpu_leave(")]),
    ("conv, hopper: stages are left while a product goes on", "conv_hopper.cu", "conv",
     [("gpu_wgmma_wait_but<1>();", "gpu_wgmma_wait_but<2>();")]),
    ("conv, hopper: one warp leaves for all", "conv_hopper.cu", "conv",
     [("gpu_mbarrier_init(t.slab_free[i], WARPS)", "gpu_mbarrier_init(t.slab_free[i], 1)")]),
    ("conv, hopper: sums are stored before the product is done", "conv_hopper.cu", "conv",
     [("        gpu_wgmma_wait<0>(r.d[i]);", "        gpu_wgmma_wait<1>(r.d[i]);")]),
    ("conv, hopper: a part goes on with the last one's sums", "conv_hopper.cu", "conv",
     [("                                     last_weight < 0);", "                                     false);")]),
    ("conv, hopper: stages of the wrong phase", "gpu_hopper.cuh", "conv", [("    r.phase ^= r.stage == 0;\n", "")]),
    ("conv, hopper: no window in y", "conv_hopper.cu", "conv", [("(row << a.log_width) + worker", "worker")]),
    ("conv, hopper: no window in x", "conv_hopper.cu", "conv", [("p.x + column - pad", "p.x")]),
    ("conv, hopper: weights of the window turned", "conv_hopper.cu", "conv",
     [("(row * a.kernel + column) * a.in", "(column * a.kernel + row) * a.in")]),
    ("conv, hopper: the second half's pixels are the first one's", "conv_hopper.cu", "conv",
     [("worker * S::products * 64;", "0;")]),
    ("conv, hopper: pixels outside the image are stored", "conv_hopper.cu", "conv", [("y < a.h && x < a.w ?", "y < a.h ?")]),
    ("conv, hopper: outputs behind the last one are stored", "conv_hopper.cu", "conv",
     [("if (at[i] >= 0 && own < a.out)", "if (at[i] >= 0)")]),
    ("conv, hopper: residuals of one pixel", "conv_hopper.cu", "conv", [("pair<T>(words[i][n], more)", "pair<T>(words[0][n], more)")]),
    ("conv, hopper: residuals of the next outputs", "conv_hopper.cu", "conv",
     [("        memcpy(words, next, sizeof words);\n        if (first + GPU_GROUP < eights)\n            load_residuals<T, S>(a, at, own + GPU_GROUP * 8, next);\n",
       "        if (first + GPU_GROUP < eights)\n            load_residuals<T, S>(a, at, own + GPU_GROUP * 8, next);\n        memcpy(words, next, sizeof words);\n")]),
    ("conv, hopper: residuals are not exchanged in a quad", "conv_hopper.cu", "conv", [("i < rows && a.residual", "i < 0")]),
    ("conv, hopper: a quad's words stay in place", "gpu_hopper.cuh", "conv", [("high ? low : other, step)", "high ? other : low, step)")]),
    ("conv, hopper: the first sample's value for all", "conv_hopper.cu", "conv",
     [("(int64_t)p.sample * a.out + column)", "column)")]),
    ("conv, hopper: boxes of one row, with windows", "hopper_conv.c", "conv",
     [("bool is_row = conv->h == 1 && conv->kernel == 1;", "bool is_row = conv->h == 1;")]),
    ("conv, hopper: boxes without the window's rows", "hopper_conv.c", "conv", [(" + conv->kernel - 1)", ")")]),
    ("conv, hopper: images without a stride", "hopper_conv.c", "conv", [("image = (cuuint64_t)conv->h * row", "image = row")]),
    ("linear, hopper: tiles are read before they are there", "linear_hopper.cu", "linear",
     [("        gpu_mbarrier_wait(t.there[ring.stage], ring.phase);\n", "")]),
    ("linear, hopper: tiles are overwritten while they are read", "linear_hopper.cu", "linear",
     [("        if (last >= 0)\n            leave(t.free[last], peer);\n", "        leave(t.free[ring.stage], peer);\n"),
      ("    gpu_wgmma_wait<0>(r.d);\n    leave(t.free[last], peer);\n", "    gpu_wgmma_wait<0>(r.d);\n")]),
    ("linear, hopper: stages are left while a product goes on", "linear_hopper.cu", "linear",
     [("gpu_wgmma_wait_but<1>();", "gpu_wgmma_wait_but<2>();")]),
    ("linear, hopper: nobody waits until a stage is free", "linear_hopper.cu", "linear",
     [("        gpu_mbarrier_wait(t.free[r.stage], r.phase ^ 1);\n        gpu_mbarrier_expect", "        gpu_mbarrier_expect")]),
    ("linear, hopper: a stage is free when this block has left it", "linear_hopper.cu", "linear",
     [("lane < count_peers(a) ? find_peer(a, p, lane) : -1", "lane < 1 ? (int)blockIdx.x % (a.down * a.across) : -1"),
      ("GPU_WARPGROUP / 32 * count_peers(a)", "GPU_WARPGROUP / 32")]),
    ("linear, hopper: blocks begin before the others have barriers", "linear_hopper.cu", "linear",
     [("    gpu_cluster_sync(); // no block loads", "    __syncthreads(); // no block loads")]),
    ("linear, hopper: blocks end while others still share with them", "linear_hopper.cu", "linear",
     [("    for (int i = 0; i < S::stages; i++, gpu_advance(r))\n        gpu_mbarrier_wait(t.free[r.stage], r.phase ^ 1);\n}", "}")]),
    ("linear, hopper: every block loads the first slice", "linear_hopper.cu", "linear",
     [("(int)p.row + x_from,", "(int)p.row,")]),
    ("linear, hopper: sums are stored before the product is done", "linear_hopper.cu", "linear",
     [("gpu_wgmma_wait<0>(r.d);", "gpu_wgmma_wait<1>(r.d);")]),
    ("linear, hopper: sums begin with what was there", "linear_hopper.cu", "linear", [("step == 0);", "false);")]),
    ("linear, hopper: the second half's rows are the first one's", "linear_hopper.cu", "linear",
     [("worker * 64 * STEP", "worker * 0")]),
    ("linear, hopper: rows behind the last one are stored", "linear_hopper.cu", "linear",
     [("if (row + i * 8 < a.rows && own < a.out)", "if (own < a.out)")]),
    ("linear, hopper: outputs behind the last one are stored", "linear_hopper.cu", "linear",
     [("if (row + i * 8 < a.rows && own < a.out)", "if (row + i * 8 < a.rows)")]),
    ("linear, hopper: sums behind the last output are stored", "linear_hopper.cu", "linear",
     [("row + i * 8 < a.rows && column < a.out", "row + i * 8 < a.rows")]),
    ("linear, hopper: residuals are not exchanged in a quad", "linear_hopper.cu", "linear",
     [("if (HAS_MORE && a.residual)\n                gpu_quad_transpose(words);\n", "")]),
    ("linear, hopper: a bias without residuals is left out", "linear_hopper.cu", "linear",
     [("if (a.bias || a.residual)", "if (a.residual)")]),
    ("linear, hopper: every tile has the first one's bias", "linear_hopper.cu", "linear",
     [("gpu_load_eight<T>(a.bias, own,", "gpu_load_eight<T>(a.bias, own - output,")]),
    ("linear, hopper: another order of sums", "linear_hopper.cu", "test_linear",
     [("gpu_matrix(x), k * GPU_MMA_K * 2)", "gpu_matrix(x), (3 - k) * GPU_MMA_K * 2)"),
      ("gpu_matrix(w), k * GPU_MMA_K * 2)", "gpu_matrix(w), (3 - k) * GPU_MMA_K * 2)")]),
    ("linear, hopper: another order of what is added", "linear_hopper.cu", "test_linear",
     [("a.bias && a.is_bias_first", "a.bias"), ("a.bias && !a.is_bias_first", "false")]),
    ("linear, hopper: the bias always comes last", "linear_plan.c", "test_linear", [("= order > 0;", "= false;")]),
    ("linear, hopper: few rows are somebody else's", "linear_plan.c", "test_linear",
     [("if (choice == ATEDM_CUDA_LINEAR_HOPPER)", "if (choice == ATEDM_CUDA_LINEAR_HOPPER && rows > 16)")]),
    ("linear, hopper: clusters that the device has no room for", "hopper_linear.c", "test_linear",
     [("            if (!count_fit(hopper, &cut))\n                continue;\n", "")]),
    ("linear, hopper: trials take the first, not the fastest", "trial.c", "test_linear",
     [("if (ms < least) {", "if (ms < INFINITY && fastest < 0) {")]),
    ("linear, hopper: no trial has an own kernel", "linear_plan.c", "test_linear",
     [("n += propose_own(s, &wanted,", "(void)propose_own(s, &wanted,")]),
    ("linear, hopper: an own kernel is not held against the first plan's", "linear_plan.c", "test_linear",
     [("    candidates[n++] = first->algo;", "    (void)first;")]),
    ("linear, hopper: boxes of a whole tile", "hopper_linear.c", "linear", [("cut->rows / cut->across", "cut->rows")]),
    ("linear, hopper: weights without a stride", "hopper_linear.c", "linear", [("key->in, key->weight_stride", "key->in, key->in")]),
    ("linear, hopper: the last columns are forgotten", "hopper_linear.c", "linear",
     [(".steps = (int32_t)divide_up(key->in, ATEDM_CUDA_HOPPER_CHANNELS)", ".steps = (int32_t)((key->in + 32) / ATEDM_CUDA_HOPPER_CHANNELS + (key->in < 32))")]),
    ("rank: never ends early", "rank.cu", "rank_tokens", [("(moving == 0 || t >=", "(t >=")]),
    ("rank: heads stop each by itself", "rank.cu", "rank_tokens",
     [("moving += lane == 0 &&", "moving += lane == 0 && head == 0 &&")]),
    ("select: one too many of the equal", "select.cu", "select_tokens",
     [("equal < s.equals", "equal <= s.equals")]),
    ("select: a bin whose tokens all stay is not taken", "select.cu", "select_tokens",
     [("sum - mine < left && left <= sum", "sum - mine < left && left < sum")]),
    ("select: zeros differ", "select.cu", "select_tokens",
     [("score == 0.0f ? 0 : __float_as_uint(score)", "__float_as_uint(score)")]),
    ("source: ties go to the higher slot", "pruned.cuh", "source_attention",
     [("slot < best.slot)) {\n        best.similarity = similarity;\n        best.slot = slot;\n    }\n}\n\n// Merges",
       "slot > best.slot)) {\n        best.similarity = similarity;\n        best.slot = slot;\n    }\n}\n\n// Merges")]),
    ("source64: tiles are read before they are there", "source64.cu", "source_attention",
     [("gpu_copy_wait<STAGES - 2>();", "gpu_copy_wait<STAGES - 1>();")]),
    ("source64: kept tokens stand where pruned ones do", "source64.cu", "source_attention",
     [("k = find_places(t.kept,", "k = find_places(t.pruned,")]),
    ("source64: positions count from the matrix's start", "source64.cu", "source_attention",
     [("static_cast<const T *>(map.k) + first * map.k_stride", "static_cast<const T *>(map.k)")]),
    ("source64: tiles are overwritten while they are read", "source64.cu", "source_attention",
     [("        __syncthreads(); // this part's tiles are there, and no warp reads the last one's any more\n", "")]),
    ("source64: log-sum-exp of the head before", "source64.cu", "source_attention",
     [("load_lse(lse2, map, head + 1, row);", "load_lse(lse2, map, head, row);")]),
    ("source64: slots of the first tile for all", "source64.cu", "source_attention",
     [("offer(best, p, slot0, span, by);", "offer(best, p, 0, span, by);")]),
    ("source64: a tile that is not full is forgotten", "source64.cu", "source_attention",
     [("tile * TILE < span.keep;", "tile == 0 || (tile + 1) * TILE <= span.keep;")]),
    ("source64: the first 64 channels for all", "source64.cu", "source_cosine",
     [("c, of.c, of.c / TILE}", "c, of.c, 1}")]),
    ("source64: lengths of the first span's tokens for all", "source64.cu", "source_cosine",
     [("by.factor(span.kept_first + slot)", "by.factor(spans.span[0].kept_first + slot)"),
      ("const atedm_prune_span &span, const BY &by)", "const atedm_prune_span &span, const BY &by, const atedm_cuda_prune_spans &spans)"),
      ("offer(best, p, slot0, span, by);", "offer(best, p, slot0, span, by, spans);")]),
    ("source weights: the last token counts again", "source.cu", "source_weights", [(" && i + 32 * j < n)", ")")]),
    ("source weights: the first 32 tokens' numbers for all", "source.cu", "source_weights",
     [("before[span.first + first + 32 * j +", "before[span.first + first +")]),
    ("conv: tiles are read before they are there", "conv.cu", "conv",
     [("gpu_copy_wait<STAGES - 2>();", "gpu_copy_wait<STAGES - 1>();")]),
    ("conv: no barrier between steps", "conv.cu", "conv",
     [("        __syncthreads(); // this step's tiles are there; no warp reads the last step's any more\n", "")]),
    ("conv: padding reads its neighbour", "conv.cuh", "conv", [("x >= 0 && x < p.w;", "x >= 0;")]),
    ("conv: the bias comes twice", "conv.cuh", "conv",
     [("        sum += p.bias[column];", "        sum += 2 * p.bias[column];")]),
    ("conv thin: weights are read before they are there", "conv_thin.cu", "conv",
     [("    gpu_copy_wait<0>();\n    __syncthreads(); // windows", "    __syncthreads(); // windows")]),
    ("conv thin: windows end in what was there before", "conv_thin.cu", "conv",
     [("    while (to < end)\n        *to++ = zero;\n", "    (void)end;\n")]),
    ("conv thin: columns are not exchanged", "conv_thin.cu", "conv",
     [("int in_group = row % 8 / 2 * 8 + row % GROUP / 8 * 2 + row % 2;", "int in_group = row % GROUP;")]),
    ("conv thin: a vector of y is whole though channels are not", "conv_thin.cu", "conv",
     [("return p.out % GPU_VECTOR == 0 && gpu_is_aligned(p.bias)", "return gpu_is_aligned(p.bias)")]),
    ("conv thin: a stride that nobody follows", "conv_thin.cu", "conv", [(" && p->stride == 1 &&", " &&")]),
    ("conv thin: tiles are read before they are there", "conv_thin.cu", "conv",
     [("gpu_copy_wait<STAGES - 2>();", "gpu_copy_wait<STAGES - 1>();")]),
    ("conv thin: products are written while tiles are read", "conv_thin.cu", "conv",
     [("    __syncthreads(); // no warp reads tiles any more; products overwrite them\n", "")]),
    ("conv thin: products are read before they are there", "conv_thin.cu", "conv",
     [("    __syncthreads(); // products are there\n", "")]),
    ("conv thin: channels behind the last one are the next pixel's", "conv_thin.cu", "conv",
     [("bool valid = at[i] >= 0 && channel < p.in;", "bool valid = at[i] >= 0;"),
      ("output < p.out && channel < p.in;", "output < p.out;")]),
    ("cudnn: results that differ each time are right", "dnn_plan.c", "conv",
     [("        CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC,\n", "")]),
    ("cudnn: sums in 16 bits are right", "dnn_plan.c", "conv",
     [("        CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION,\n", "")]),
    ("cudnn: Winograd is right", "dnn_plan.c", "conv",
     [("        CUDNN_NUMERICAL_NOTE_WINOGRAD, // and its tiles: products of sums of act\n"
       "        CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4,\n", "")]),
    ("cudnn: more scratch than there is", "dnn_plan.c", "conv",
     [("workspace > (int64_t)ATEDM_CUDA_DNN_WORKSPACE", "workspace < 0")]),
    ("cudnn: sums on the way in act", "dnn_plan.c", "conv",
     [("is_y ? b->dnn->act : ATEDM_F32", "b->dnn->act")]),
    ("cudnn: the residual is where y is", "dnn.c", "conv",
     [("(args->residual && args->residual == args->y)", "false")]),
    ("cudnn: channel_add is the first sample's", "dnn.c", "conv",
     [("launch_repeat(at(args->channel_add, first + i, shape->out, s->act),", "launch_repeat(args->channel_add,")]),
    ("cudnn: one sample's residual is copied", "dnn.c", "conv", [("scratch, (size_t)n * image);", "scratch, image);")]),
    ("cudnn: batches without a trial", "trial.c", "conv", [(", c->counts) == 0;", ", c->counts) >= 0;")]),
    ("cudnn: one plan for all shapes", "dnn.c", "conv",
     [("a->h == b->h && a->w == b->w && a->in == b->in && a->out == b->out &&\n"
       "           a->kernel == b->kernel && a->stride == b->stride &&\n"
       "           a->weight_stride == b->weight_stride && a->bias", "a->bias")]),
    ("cudnn: engines that have to be compiled", "dnn_plan.c", "conv",
     [(" &&\n           is_ready(behavior, n_behavior)", "")]),
    ("weights: nobody waits until they are there", "weights.c", "linear",
     [("        error = cudaStreamSynchronize(NULL);\n", "        error = cudaSuccess;\n")]),
    ("linear: a bias alone is never rounded for", "linear_plan.c", "linear",
     [("if (plan->found && key->bias && s->head.act", "if (plan->found && key->bias && key->residual && s->head.act")]),
    ("weights: taps and channels exchanged", "weights.c", "conv",
     [("from + (i * taps + t) * element", "from + (t * in + i) * element")]),
    ("linear: trials of nothing but zeros", "trial.c", "linear",
     [("fill(s, x, kind ? plain : x->noise, seed, memory)", "cudaMemsetAsync(memory, 0, operands->weight_at, s->stream)")]),
    ("cudnn: trials of nothing but zeros", "trial.c", "conv",
     [("fill(s, x, kind ? plain : x->noise, seed, memory)", "cudaMemsetAsync(memory, 0, operands->weight_at, s->stream)")]),
    ("linear: algorithms are taken without a trial", "trial.c", "linear",
     [(", c->counts) == 0;", ", c->counts) >= 0;")]),
    ("linear: plans are not told apart by rows", "linear_plan.c", "linear",
     [("for_first.rows = ATEDM_CUDA_PLAN_ROWS;", "for_first.rows = round_rows(rows);")]),
    ("linear: more alignment promised than there is", "linear.c", "linear",
     [("return bits & -bits;", "return bits ? ATEDM_CUDA_LINEAR_ALIGN : 0;")]),
    ("linear: two roundings are one", "linear_plan.c", "linear", [("plan->rounds_twice = !atedm_cuda_rounds_once(s, plan);", ";")]),
    ("linear, padded: residuals of the first rows for all", "linear_padded.c", "test_cuda",
     [("operands->residual + first * p->residual_row", "operands->residual")]),
    ("linear, padded: rows behind the last one are copied", "linear_padded.c", "test_cuda",
     [("(char *)operands->y + first * p->y_row, rows * p->y_row)", "(char *)operands->y + first * p->y_row, ATEDM_CUDA_PLAN_ROWS * p->y_row)")]),
    ("linear, padded: sums lie as elements do", "linear_padded.c", "test_cuda",
     [("p->y, (char *)operands->y + first * p->y_row", "p->y, (char *)operands->y + first * p->x_row / 2")]),
    ("linear: the residual is forgotten", "linear_plan.c", "linear",
     [("beta = key->residual ? 1 : 0", "beta = 0")]),
    ("gelu: a coefficient is another", "gpu.cuh", "geglu", [("0.0905454382f", "0.0905554382f")]),
    ("layer norm: lanes without a vector count", "norm.cu", "layer_norm",
     [("squares += i < mine ? (v[j] - mean)", "squares += i < VECTORS ? (v[j] - mean)")]),
    ("group norm: pieces are merged without their distance", "norm.cu", "group_norm",
     [(" + (float)(pixels_of(s, chunk) * s.part) * d * d;", ";")]),
    ("group norm: the last chunk counts as a whole one", "norm.cu", "group_norm",
     [("return left < s.pixels ? (int)left : s.pixels;", "return s.pixels;")]),
    ("group norm: means are read before they are there", "norm.cu", "group_norm",
     [("    __syncthreads(); // means are there, and no thread reads the sums any more\n", "")]),
    ("group norm: a group's threads add up half of its channels", "norm.cu", "group_norm",
     [("for (int with = s.lanes / 2;", "for (int with = s.lanes / 4;")]),
    ("group norm: merged statistics of the first sample for all", "norm.cu", "group_norm",
     [("s.groups * (s.merges_at_once ? s.pieces : 1);", "s.groups * (s.merges_at_once ? s.pieces : 0);")]),
    ("vectors: alignment is not looked at", "gpu.cuh", "add",
     [("return ((uintptr_t)p & 15) == 0;", "return p != nullptr;")]),
    ("vectors: one element too many", "gpu.cuh", "add", [("        if (i < n)\n", "        if (i <= n)\n")]),
    ("aside: what was enqueued before is not waited for", "aside.c", "test_aside",
     [("order(s, s->stream, s->aside.begun, s->aside.stream)", "true")]),
    ("aside: the join does not wait", "aside.c", "test_aside",
     [("!order(s, s->aside.stream, s->aside.done, s->stream)", "false")]),
    ("aside: a join that nobody makes behind a failure", "aside.c", "test_aside",
     [("if (s->aside.unjoined)", "if (s->aside.unjoined && !head->status)")]),
    ("aside: nothing is ended", "aside.c", "test_aside", [("->aside.open = false;", ";")]),
    ("aside: scratch memory is the main queue's", "ops_tokens.c", "test_aside",
     [("s->aside.open ? ATEDM_CUDA_SCRATCH_ASIDE : ATEDM_CUDA_SCRATCH_SUMS", "ATEDM_CUDA_SCRATCH_SUMS")]),
    ("aside: graphs outlive scratch memory", "graph.c", "test_aside",
     [("    for (atedm_cuda_graph *g = s->graphs.latest; g; g = g->next)\n        drop(s, g);\n    return true;",
       "    return true;")]),
    ("sync: does not wait", "staging.c", "copy",
     [("cudaStreamSynchronize(s->stream), \"waiting\")", "cudaSuccess, \"waiting\")")]),
)

COMMON = ("-O2", "-fPIC", "-I" + str(ROOT), "-isystem", str(ROOT / "tests/emulated/fallback"), "-c")
CPP = ("c++", "-std=c++17", "-fno-strict-aliasing", "-fno-math-errno", "-Wno-psabi", *COMMON, "-x", "c++")
C = ("cc", "-std=c17", *COMMON)
# Ways to run parity: name, dtype, environment.
LATE = {"ATEDM_EMULATED_LATE": "1", "ATEDM_EMULATED_PROTECT": "1", "ATEDM_EMULATED_SCHEDULE": "random:1"}
# For the kernels for compute capability 9.0: small cases, and large ones, which exercise what they do from tile to tile.
HOPPER = {"ATEDM_CUDA_ATTENTION": "hopper", "ATEDM_CUDA_CONV": "hopper", "ATEDM_CUDA_LINEAR": "hopper",
          "ATEDM_EMULATED_SM": "90"}
WAYS = (("bf16", "bf16", {}), ("f32", "f32", {}), ("late", "bf16", LATE),
        ("reverse", "bf16", {"ATEDM_EMULATED_SCHEDULE": "reverse"}))
PROGRAM_WAYS = (("once", "", {}),)  # the program sets its own variables
HOPPER_WAYS = (("large", "bf16", {"LARGE": "1"}),
               ("large late", "f16", {"LARGE": "1", "ATEDM_EMULATED_MULTIPROCESSORS": "3", **LATE}), *WAYS)


def definitions(build_dir):
    """The -D options of the build folder for the emulated backend's host code."""
    for entry in json.loads((build_dir / "compile_commands.json").read_text(encoding="utf-8")):
        if "atedm-cuda-emulated.so.p" in entry["output"] and entry["file"].endswith("/backend.c"):
            return tuple(word for word in shlex.split(entry["command"]) if word.startswith("-D"))
    sys.exit("the build folder has no emulated backend")


def mutated_text(file, replacements):
    """The file with the replacements made. Ends the program if one of them does not fit."""
    text = (SOURCES / file).read_text(encoding="utf-8")
    for old, new in replacements:
        if text.count(old) != 1:
            sys.exit(f"{file}: \"{old}\" stands there {text.count(old)} times")
        text = text.replace(old, new)
    return text


def users_of(header):
    """The kernels' files that include the header, directly or through another header."""
    texts = {path: path.read_text(encoding="utf-8") for path in (*SOURCES.glob("*.cu"), *SOURCES.glob("*.cuh"))}
    names, found = [header], set()
    while names:
        name = names.pop()
        more = {path for path, text in texts.items() if f'"kernels/cuda/{name}"' in text} - found
        names += [path.name for path in more]
        found |= more
    return sorted(path for path in found if path.suffix == ".cu")


def build(build_dir, folder, file, replacements):
    """The backend with the replacements made in one file, as a shared object in `folder`."""
    objects = {path.name: str(path) for path in (build_dir / "tests/emulated/atedm-cuda-emulated.so.p").glob("*.o")}
    # The compiler looks into this folder first, so that it finds a changed header before the real one.
    mutated = folder / "kernels/cuda" / file
    mutated.parent.mkdir(parents=True, exist_ok=True)
    mutated.write_text(mutated_text(file, replacements), encoding="utf-8")
    for source in users_of(file) if file.endswith(".cuh") else [mutated]:
        if source.suffix == ".c":
            command, name = (*C, *definitions(build_dir)), f"_.._kernels_cuda_{source.name}.o"
        else:
            command, name = CPP, f"_emulated_{source.stem}.cpp.o"
        target = folder / (source.stem + ".o")
        subprocess.run((*command[:1], "-I" + str(folder), *command[1:], str(source), "-o", str(target)), check=True,
                       capture_output=True)
        replaced = [key for key in objects if key.endswith(name)]
        if len(replaced) != 1:
            sys.exit(f"the build folder has {len(replaced)} objects of {source.name}")
        objects[replaced[0]] = str(target)
    shared = folder / "atedm-cuda-emulated.so"
    subprocess.run(("c++", "-shared", "-o", str(shared), *objects.values(),
                    str(build_dir / "tests/emulated/libcuda_emulated.a"), str(build_dir / "core/base/libbase.a"),
                    "-lpthread", "-lm"), check=True)
    return shared


def run_parity(build_dir, shared, operation, dtype, more):
    """Whether parity passes."""
    large = ("--large",) if "LARGE" in more else ()
    iterations = ("40" if operation == "linear" else "12") if large else "120" if more.get("ATEDM_CUDA_CONV") == "cudnn" else "40"
    more = {"ATEDM_CUDA_CONV": "own", "ATEDM_CUDNN": str(build_dir / "tests/emulated/cudnn-emulated.so"), **more}
    result = subprocess.run((str(build_dir / "tests/parity/parity"), "--backend", "cuda", "--required", "--dtype", dtype, "--op",
                             operation, "--iterations", iterations, *large),
                            env={**os.environ, "ATEDM_CUDA_BACKEND": str(shared), **more}, capture_output=True,
                            timeout=300, check=False)
    return result.returncode == 0


def run_program(build_dir, shared, name):
    """Whether the program of tests/emulated passes, without its tests of whole requests."""
    result = subprocess.run((str(build_dir / "tests/emulated" / name), "--filter", f"{name.removeprefix('test_')}/*"),
                            env={**os.environ, "ATEDM_CUDA_BACKEND": str(shared), "ATEDM_CUDA_CONV": "own"},
                            capture_output=True, timeout=300, check=False)
    return result.returncode == 0


def run(build_dir, shared, operation, dtype, more):
    """Whether parity or the program passes, which means that it does not detect the mistake."""
    if operation.startswith("test_"):
        return run_program(build_dir, shared, operation)
    return run_parity(build_dir, shared, operation, dtype, more)


def is_hopper(name, file):
    """Whether the mistake concerns compute capability 9.0 only."""
    return "hopper" in name or "hopper" in file


def ways_of(name, file, operation):
    """The ways to run parity or the program in which to look for the mistake."""
    return PROGRAM_WAYS if operation.startswith("test_") else HOPPER_WAYS if is_hopper(name, file) else WAYS


def main(build_dir, names):
    unseen = 0
    mistakes = [m for m in MISTAKES if not names or any(name in m[0] for name in names)]
    if names == ["--sample"]:
        mistakes = list({m[0].partition(":")[0]: m for m in reversed(MISTAKES) if not m[1].endswith(".cuh")}.values())
    intact = functools.cache(lambda operation, dtype, more: run(
        build_dir, build_dir / "tests/emulated/atedm-cuda-emulated.so", operation, dtype, dict(more)))
    for name, file, operation, replacements in mistakes:
        chosen = {"ATEDM_CUDA_CONV": "cudnn"} if name.startswith("cudnn") else HOPPER if is_hopper(name, file) else {}
        with tempfile.TemporaryDirectory() as folder:
            shared = build(build_dir, pathlib.Path(folder), file, replacements)
            seen = None
            for way, dtype, more in ways_of(name, file, operation):
                more = {**more, **chosen}
                if run(build_dir, shared, operation, dtype, more):
                    continue
                # A failure counts only if the unchanged backend passes.
                seen = way if intact(operation, dtype, tuple(more.items())) else None
                break
        print(f"ok   {name}: seen, {seen}" if seen else f"FAIL {name}: not seen", flush=True)
        unseen += not seen
    print(f"{len(mistakes) - unseen} passed, {unseen} failed")
    return 1 if unseen else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if sys.argv[1] == "--fit":
        for _, changed, _, changes in MISTAKES:
            mutated_text(changed, changes)
        sys.exit(0)
    sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]))
