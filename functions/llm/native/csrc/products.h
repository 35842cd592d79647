// Products of rows of activations with a group of weights: the inner loops.
//
// Each precision is a struct with
//   Operand   bytes that one line's inputs take in a row of activations
//   kRows     rows that go through a group together: their sums fill the registers
//   convert   makes a row of activations what `multiply` reads
//   multiply  N registers of outputs for R rows
// The order in which an output's products are added is that of its inputs, whatever N, R and the place of the row.
#pragma once

#include "lanes.h"
#include "sizes.h"

namespace {

using huginn::kLine;
using huginn::kPanel;
using huginn::kTile;
using huginn::Matrix;

constexpr int kRegisters = kPanel / W;  // of one panel

// Rows of activations as a matrix product reads them.
struct Rows {
  uint8_t* bytes;
  size_t stride;
  float* scales;  // of each row, in int8
};

// One group of a matrix.
struct Group {
  const uint8_t* lines;
  size_t stride;  // from one input's lines to the next one's
  size_t count;   // of lines of one panel
  const float* scales;
  const int32_t* sums;
};

struct Float32 {
  static constexpr size_t kOperand = 4;
  static constexpr int kRows = 6;

  static void convert(const float* x, const Matrix& m, const Rows& to, size_t row) {
    __builtin_memcpy(to.bytes + row * to.stride, x, m.lines * kOperand);
  }

  template <int N, int R>
  static void multiply(const Group& group, const Rows& rows, size_t row, float* tile) {
    F sums[R][N] = {};
    const float* x[R];
    for (int r = 0; r < R; ++r) x[r] = reinterpret_cast<const float*>(rows.bytes + (row + r) * rows.stride);
    const uint8_t* line = group.lines;
    for (size_t k = 0; k < group.count; ++k, line += group.stride) {
      F w[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) w[n] = load(reinterpret_cast<const float*>(line) + n * W);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        F each = splat(x[r][k]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) sums[r][n] = fma(w[n], each, sums[r][n]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) store(tile + r * kTile + n * W, sums[r][n]);
    }
  }
};

// To the nearest bfloat16, ties to even; a NaN stays one.
inline U bfloat16_bits(F x) {
  U bits = (U)x;
  U rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  U quiet = bits | 0x400000u;
  return (x == x ? rounded : quiet) & 0xffff0000u;
}

#if defined(__AVX512BF16__)

struct Bfloat16 {
  static constexpr size_t kOperand = 4;
  static constexpr int kRows = 6;

  static void convert(const float* x, const Matrix& m, const Rows& to, size_t row) {
    // Rows are padded to whole panels, so writing past the last input stays within the row.
    uint8_t* out = to.bytes + row * to.stride;
    for (size_t k = 0; k < m.inputs; k += 16) {
      __m256i halves = _mm512_cvtepi32_epi16((__m512i)(bfloat16_bits(load(x + k)) >> 16));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 2 * k), halves);
    }
  }

  template <int N, int R>
  static void multiply(const Group& group, const Rows& rows, size_t row, float* tile) {
    __m512 sums[R][N] = {};
    const int32_t* x[R];
    for (int r = 0; r < R; ++r) x[r] = reinterpret_cast<const int32_t*>(rows.bytes + (row + r) * rows.stride);
    const uint8_t* line = group.lines;
    for (size_t k = 0; k < group.count; ++k, line += group.stride) {
      __m512bh w[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) w[n] = (__m512bh)_mm512_loadu_si512(line + n * kLine);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        __m512bh each = (__m512bh)_mm512_set1_epi32(x[r][k]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) sums[r][n] = _mm512_dpbf16_ps(sums[r][n], w[n], each);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) _mm512_storeu_ps(tile + r * kTile + n * kPanel, sums[r][n]);
    }
  }
};

#else

// Without the instruction the operands are rounded all the same, and multiplied as float32.
struct Bfloat16 {
  static constexpr size_t kOperand = 8;
  static constexpr int kRows = W == 16 ? 5 : 4;

  static void convert(const float* x, const Matrix& m, const Rows& to, size_t row) {
    float* out = reinterpret_cast<float*>(to.bytes + row * to.stride);
    for (size_t k = 0; k < m.inputs; k += W) store(out + k, (F)bfloat16_bits(load(x + k)));
  }

  template <int N, int R>
  static void multiply(const Group& group, const Rows& rows, size_t row, float* tile) {
    F sums[R][N] = {};
    const float* x[R];
    for (int r = 0; r < R; ++r) x[r] = reinterpret_cast<const float*>(rows.bytes + (row + r) * rows.stride);
    const uint8_t* line = group.lines;
    for (size_t k = 0; k < group.count; ++k, line += group.stride) {
      F even[N], odd[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        U pair = (U)load(reinterpret_cast<const float*>(line) + n * W);
        even[n] = (F)(pair << 16);
        odd[n] = (F)(pair & 0xffff0000u);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        F first = splat(x[r][2 * k]), second = splat(x[r][2 * k + 1]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) sums[r][n] = fma(odd[n], second, fma(even[n], first, sums[r][n]));
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) store(tile + r * kTile + n * W, sums[r][n]);
    }
  }
};

#endif

// Activations are 16-bit integers with a scale for each row, as large as lets the whole sum fit into 32 bits: sums of products
// are exact, and the same on every CPU. Rounding to them is 1/100 of what rounding the weights to int8 costs, or less.
inline float largest_activation(size_t inputs) {
  size_t fits = 0x7fffffff / (128 * inputs);
  return static_cast<float>(fits < 32767 ? fits : 32767);
}

// Calls `put(k, integers)` for each register of the row, and stores the row's scale.
template <class Put>
inline void quantize(const float* x, const Matrix& m, float* scale, Put put) {
  F most = {}, poison = {};
  for (size_t k = 0; k < m.inputs; k += W) {
    F each = load(x + k);
    most = larger(absolute(each), most);
    // 0 for every number; NaN for what is none, which a comparison would drop.
    poison += each * 0.0f;
  }
  float largest = largest_of(most), limit = largest_activation(m.inputs);
  // What is so small is 0: its reciprocal would overflow.
  bool vanishes = !(largest > 1e-30f);
  F factor = splat(vanishes ? 0.0f : limit / largest);
  *scale = (vanishes ? 0.0f : largest / limit) + sum_of(poison);
  for (size_t k = 0; k < m.inputs; k += W) {
    put(k, (I)((U)fma(load(x + k), factor, splat(kRound)) - kRoundBits));
  }
}

template <int N, int R>
inline void store_scaled(const I (&sums)[R][N], const Group& group, const Rows& rows, size_t row, float* tile) {
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    F scale = splat(rows.scales[row + r]);
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) {
      F sum = __builtin_convertvector(sums[r][n], F);
      store(tile + r * kTile + n * W, sum * load(group.scales + n * W) * scale);
    }
  }
}

#if defined(__AVX512VNNI__)

// Each integer is 256 high + low - 32768 with two unsigned bytes; a row of weights' sum undoes the 32768.
struct Int8 {
  static constexpr size_t kOperand = 8;
  static constexpr int kRows = 3;

  static void convert(const float* x, const Matrix& m, const Rows& to, size_t row) {
    uint8_t* out = to.bytes + row * to.stride;
    // The inputs of a line stand in the order 0, 2, 1, 3; see pack.cpp.
    const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
    quantize(x, m, to.scales + row, [&](size_t k, I integers) {
      U shifted = (U)integers + 32768u;
      __m128i low = _mm_shuffle_epi8(_mm512_cvtepi32_epi8((__m512i)shifted), order);
      __m128i high = _mm_shuffle_epi8(_mm512_cvtepi32_epi8((__m512i)(shifted >> 8)), order);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * k), _mm_unpacklo_epi32(high, low));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * k + 16), _mm_unpackhi_epi32(high, low));
    });
  }

  template <int N, int R>
  static void multiply(const Group& group, const Rows& rows, size_t row, float* tile) {
    // Not __m512i, whose elements are 64 bits wide: GCC would store each sum at each step.
    I high[R][N] = {}, low[R][N] = {};
    const int32_t* x[R];
    for (int r = 0; r < R; ++r) x[r] = reinterpret_cast<const int32_t*>(rows.bytes + (row + r) * rows.stride);
    const uint8_t* line = group.lines;
    for (size_t k = 0; k < group.count; ++k, line += group.stride) {
      __m512i w[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        w[n] = _mm512_loadu_si512(line + n * kLine);
        // Kept in a register: GCC would read it from memory for each of its products.
        asm("" : "+v"(w[n]));
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        __m512i high_bytes = _mm512_set1_epi32(x[r][2 * k]), low_bytes = _mm512_set1_epi32(x[r][2 * k + 1]);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          high[r][n] = (I)_mm512_dpbusd_epi32((__m512i)high[r][n], high_bytes, w[n]);
          low[r][n] = (I)_mm512_dpbusd_epi32((__m512i)low[r][n], low_bytes, w[n]);
        }
      }
    }
    I sums[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        // Modulo 2^32 all along; the result itself fits.
        U weights;
        __builtin_memcpy(&weights, group.sums + n * W, sizeof weights);
        sums[r][n] = (I)(((U)high[r][n] << 8) + (U)low[r][n] - (weights << 15));
      }
    }
    store_scaled<N, R>(sums, group, rows, row, tile);
  }
};

#else

// Pairs of 16-bit integers, multiplied and added to 32 bits.
inline I multiply_pairs(I a, I b) {
#if defined(__AVX512BW__)
  return (I)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && !defined(HUGINN_NO_INTRINSICS)
  return (I)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
  return ((I)((U)a << 16) >> 16) * ((I)((U)b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// Of four bytes the first and third, and the second and fourth, as pairs of 16-bit integers.
inline void widen(I bytes, I& first, I& second) {
#if defined(__AVX512BW__)
  first = (I)_mm512_srai_epi16(_mm512_slli_epi16((__m512i)bytes, 8), 8);
  second = (I)_mm512_srai_epi16((__m512i)bytes, 8);
#elif defined(__AVX2__)
  first = (I)_mm256_srai_epi16(_mm256_slli_epi16((__m256i)bytes, 8), 8);
  second = (I)_mm256_srai_epi16((__m256i)bytes, 8);
#else
  typedef int16_t H __attribute__((vector_size(W * 4)));
  typedef uint16_t HU __attribute__((vector_size(W * 4)));
  first = (I)((H)((HU)bytes << 8) >> 8);
  second = (I)((H)bytes >> 8);
#endif
}

struct Int8 {
  static constexpr size_t kOperand = 8;
  static constexpr int kRows = 4;

  static void convert(const float* x, const Matrix& m, const Rows& to, size_t row) {
    int16_t* out = reinterpret_cast<int16_t*>(to.bytes + row * to.stride);
    quantize(x, m, to.scales + row, [&](size_t k, I integers) {
      for (int i = 0; i < W; ++i) out[k + static_cast<size_t>(i)] = static_cast<int16_t>(integers[i]);
    });
  }

  template <int N, int R>
  static void multiply(const Group& group, const Rows& rows, size_t row, float* tile) {
    I sums[R][N] = {};
    const uint8_t* x[R];
    for (int r = 0; r < R; ++r) x[r] = rows.bytes + (row + r) * rows.stride;
    const uint8_t* line = group.lines;
    for (size_t k = 0; k < group.count; ++k, line += group.stride) {
      I first[N], second[N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        widen((I)load(reinterpret_cast<const float*>(line) + n * W), first[n], second[n]);
      }
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        int32_t pairs[2];
        __builtin_memcpy(pairs, x[r] + k * kOperand, sizeof pairs);
        I left = I{} + pairs[0], right = I{} + pairs[1];
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          U more = (U)multiply_pairs(first[n], left) + (U)multiply_pairs(second[n], right);
          sums[r][n] = (I)((U)sums[r][n] + more);
        }
      }
    }
    store_scaled<N, R>(sums, group, rows, row, tile);
  }
};

#endif

// How many registers of outputs a pass over a group takes. AVX-512 has registers for a whole group of several rows; with 16 of them
// it is a whole group of one row, or one panel of several.
constexpr size_t panels_at_once(int rows) { return W == 16 || (W == 8 && rows == 1) ? huginn::kGroup : 1; }

template <class P, int R>
inline void multiply_panels(size_t panels, const Group& group, const Rows& rows, size_t row, float* tile) {
  if constexpr (panels_at_once(R) == 1) {
    for (size_t p = 0; p < panels; ++p) {
      Group one{group.lines + p * kLine, group.stride, group.count, group.scales + p * kPanel, group.sums + p * kPanel};
      P::template multiply<kRegisters, R>(one, rows, row, tile + p * kPanel);
    }
  } else {
    switch (panels) {
      case 1: P::template multiply<1 * kRegisters, R>(group, rows, row, tile); break;
      case 2: P::template multiply<2 * kRegisters, R>(group, rows, row, tile); break;
      case 3: P::template multiply<3 * kRegisters, R>(group, rows, row, tile); break;
      default: P::template multiply<4 * kRegisters, R>(group, rows, row, tile); break;
    }
  }
}

// Calls `use(row, tile)` for every row in [begin, end), in order; the tile has the group's outputs, in the order of its lines.
template <class P, class Use>
inline void multiply_group(const uint8_t* packed, const Matrix& m, size_t group_index, const Rows& rows, size_t begin,
                           size_t end, Use use) {
  size_t panels = m.panels_in(group_index) * m.sources;
  Group group{packed + m.group_at(group_index), panels * kLine, m.lines,
              reinterpret_cast<const float*>(packed + m.scales) + m.row_at(group_index),
              reinterpret_cast<const int32_t*>(packed + m.sums) + m.row_at(group_index)};
  alignas(64) float tiles[P::kRows * kTile];
  size_t row = begin;
  while (row < end) {
    // Blocks of nearly the same height: 16 rows are 6, 5 and 5, not 6, 6 and 4.
    size_t left = end - row, blocks = (left + P::kRows - 1) / P::kRows, height = (left + blocks - 1) / blocks;
    switch (height) {
      case 1: multiply_panels<P, 1>(panels, group, rows, row, tiles); break;
      case 2: multiply_panels<P, 2>(panels, group, rows, row, tiles); break;
      case 3: multiply_panels<P, 3>(panels, group, rows, row, tiles); break;
      case 4: if constexpr (P::kRows >= 4) multiply_panels<P, 4>(panels, group, rows, row, tiles); break;
      case 5: if constexpr (P::kRows >= 5) multiply_panels<P, 5>(panels, group, rows, row, tiles); break;
      default: if constexpr (P::kRows >= 6) multiply_panels<P, 6>(panels, group, rows, row, tiles); break;
    }
    for (size_t r = 0; r < height; ++r) use(row + r, tiles + r * kTile);
    row += height;
  }
}

}  // namespace
