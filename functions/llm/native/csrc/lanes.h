// Registers of floats, as wide as the instruction set has them, and the functions of a network over them.
//
// Compiled once for each instruction set. Everything is in an unnamed namespace: an inline function that two of those
// objects shared might be the one with the instructions that this CPU lacks.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float F __attribute__((vector_size(W * 4)));
typedef int32_t I __attribute__((vector_size(W * 4)));
typedef uint32_t U __attribute__((vector_size(W * 4)));

inline F load(const float* from) {
  F x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}

inline void store(float* to, F x) { __builtin_memcpy(to, &x, sizeof x); }

// The first `count` of W, zeros after them.
inline F load_some(const float* from, size_t count) {
  if (count >= W) return load(from);
  F x = {};
  __builtin_memcpy(&x, from, count * sizeof(float));
  return x;
}

inline void store_some(float* to, F x, size_t count) {
  __builtin_memcpy(to, &x, (count < W ? count : W) * sizeof(float));
}

inline F splat(float x) {
#if defined(__AVX512F__)
  return (F)_mm512_set1_ps(x);
#elif defined(__AVX2__)
  return (F)_mm256_set1_ps(x);
#else
  return F{x, x, x, x};
#endif
}

// The sources are compiled without contraction: a product and a sum are one rounding here, and nowhere else.
inline F fma(F a, F b, F c) {
#if defined(__AVX512F__)
  return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
  return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

// b where one of them is no number.
inline F larger(F a, F b) {
#if defined(__AVX512F__)
  return (F)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
  return (F)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return a > b ? a : b;
#endif
}

inline F absolute(F x) { return (F)((U)x & 0x7fffffffu); }

inline float sum_of(F x) {
  float lanes[W];
  store(lanes, x);
  for (int width = W / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lanes[i] += lanes[i + width];
  }
  return lanes[0];
}

inline float largest_of(F x) {
  float lanes[W];
  store(lanes, x);
  float found = lanes[0];
  for (int i = 1; i < W; ++i) found = lanes[i] > found ? lanes[i] : found;
  return found;
}

// Added to a float below 2^22 this leaves the nearest whole number in the low bits, NaN stays NaN, and nothing is converted.
constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
constexpr uint32_t kRoundBits = 0x4b400000;

// e^x within 2 ulp from -87 to 88, and the values at these ends beyond them. The polynomial is that of Cephes' expf.
inline F exp_of(F x) {
  x = x > 88.0f ? splat(88.0f) : x;
  x = x < -87.0f ? splat(-87.0f) : x;
  F shifted = fma(x, splat(1.44269504088896341f), splat(kRound));
  F n = shifted - kRound;
  F r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  F p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  U exponent = ((U)shifted - kRoundBits + 127u) << 23;
  return p * (F)exponent;
}

inline F sigmoid(F x) { return 1.0f / (1.0f + exp_of(-x)); }

// Near 0 the polynomial of Cephes' tanhf, where 1 - 2 / (e^2x + 1) would lose its digits.
inline F tanh_of(F x) {
  F size = absolute(x);
  F far = 1.0f - 2.0f / (exp_of(size + size) + 1.0f);
  far = (F)((U)far | ((U)x & 0x80000000u));
  F z = x * x;
  F p = splat(-5.70498872745e-3f);
  p = fma(p, z, splat(2.06390887954e-2f));
  p = fma(p, z, splat(-5.37397155531e-2f));
  p = fma(p, z, splat(1.33314422036e-1f));
  p = fma(p, z, splat(-3.33332819422e-1f));
  F near = fma(p * z, x, x);
  return size < 0.625f ? near : far;
}

// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the approximation that jax.nn.gelu makes; (1 + tanh u) / 2 = sigmoid(2u).
inline F gelu(F x) {
  F cubic = fma(x * x * 0.044715f, x, x);
  return x * sigmoid(cubic * 1.59576912160573f);
}

}  // namespace
