// The next token of a text, drawn as functions/llm/inference/sampling.py says: the same order of penalties and filters, the same
// random bits, and the same numbers up to rounding. Here once for each instruction set, as everything that computes.
#pragma once

#include "forward.h"
#include "lanes.h"
#include "sizes.h"

namespace {

using huginn::History;
using huginn::Sampler;

constexpr float kInfinity = __builtin_inff();
constexpr float kTiny = 1.17549435e-38f;  // the least normal number

// Room for the draw of one text.
struct Draw {
  float* scores;   // [V padded]
  uint64_t* heap;  // [V]
};

// log(x) of normal numbers above 0, within 2 ulp. The polynomial is that of Cephes' logf.
inline F log_of(F x) {
  U bits = (U)x;
  // Mantissas from sqrt(1/2) to sqrt(2), whose logarithms are near 0.
  U shifted = bits - 0x3f3504f3u;
  F exponent = __builtin_convertvector((I)shifted >> 23, F);
  F m = (F)((shifted & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  F z = m * m;
  F p = splat(7.0376836292e-2f);
  p = fma(p, m, splat(-1.1514610310e-1f));
  p = fma(p, m, splat(1.1676998740e-1f));
  p = fma(p, m, splat(-1.2420140846e-1f));
  p = fma(p, m, splat(1.4249322787e-1f));
  p = fma(p, m, splat(-1.6668057665e-1f));
  p = fma(p, m, splat(2.0000714765e-1f));
  p = fma(p, m, splat(-2.4999993993e-1f));
  p = fma(p, m, splat(3.3333331174e-1f));
  F y = p * m * z;
  y = fma(exponent, splat(-2.12194440e-4f), y);
  y = fma(z, splat(-0.5f), y);
  return fma(exponent, splat(0.693359375f), m + y);
}

inline float log_of_one(float x) {
  float lanes[W];
  store(lanes, log_of(splat(x)));
  return lanes[0];
}

inline U rotated(U x, int by) { return x << by | x >> (32 - by); }

// Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
inline void threefry(uint32_t key0, uint32_t key1, U& x0, U& x1) {
  const uint32_t keys[3] = {key0, key1, key0 ^ key1 ^ 0x1bd11bdau};
  constexpr int kRotations[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
  x0 += keys[0];
  x1 += keys[1];
#pragma GCC unroll 5
  for (uint32_t round = 0; round < 5; ++round) {
#pragma GCC unroll 4
    for (int by : kRotations[round % 2]) {
      x0 += x1;
      x1 = rotated(x1, by) ^ x0;
    }
    x0 += keys[(round + 1) % 3];
    x1 += keys[(round + 2) % 3] + round + 1;
  }
}

// Standard Gumbel variates of the tokens from `first` on: -log(-log(u)), u uniform from the least normal number to below 1.
inline F gumbel(const uint32_t (&key)[2], U ids) {
  U high = {}, low = ids;
  threefry(key[0], key[1], high, low);
  F u = (F)((high ^ low) >> 9 | 0x3f800000u) - 1.0f;
  u = u > kTiny ? u : splat(kTiny);
  return -log_of(-log_of(u));
}

inline U lane_numbers() {
  U numbers;
  for (uint32_t i = 0; i < W; ++i) numbers[i] = i;
  return numbers;
}

// The highest of many scores, and of equals the one with the lowest id.
class Highest {
 public:
  void see(F scores, U ids) {
    auto higher = scores > scores_;
    scores_ = higher ? scores : scores_;
    ids_ = higher ? ids : ids_;
  }

  uint32_t id() const {
    float best = scores_[0];
    uint32_t found = ids_[0];
    for (int i = 1; i < W; ++i) {
      if (scores_[i] > best || (scores_[i] == best && ids_[i] < found)) best = scores_[i], found = ids_[i];
    }
    return found;
  }

 private:
  F scores_ = splat(-kInfinity);
  U ids_ = {};
};

// Tokens from the highest score down, of equals the lowest id first. What was taken stands behind what is left.
class Descending {
 public:
  Descending(uint64_t* heap, const float* scores, size_t count) : heap_(heap), left_(count) {
    for (size_t i = 0; i < count; ++i) {
      float score = scores[i] + 0.0f;  // -0 is 0
      uint32_t bits;
      __builtin_memcpy(&bits, &score, sizeof bits);
      bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
      heap[i] = uint64_t{bits} << 32 | (0xffffffffu - static_cast<uint32_t>(i));
    }
    for (size_t i = count / 2; i-- > 0;) sift(i);
  }

  uint32_t next() {
    uint64_t top = heap_[0];
    heap_[0] = heap_[--left_];
    if (left_ > 0) sift(0);
    heap_[left_] = top;
    return id_of(top);
  }

  // Of those taken, the n-th.
  uint32_t taken(size_t n, size_t count) const { return id_of(heap_[count - 1 - n]); }

 private:
  static uint32_t id_of(uint64_t entry) { return 0xffffffffu - static_cast<uint32_t>(entry); }

  void sift(size_t at) {
    uint64_t entry = heap_[at];
    for (size_t child; (child = 2 * at + 1) < left_; at = child) {
      if (child + 1 < left_ && heap_[child + 1] > heap_[child]) ++child;
      if (heap_[child] <= entry) break;
      heap_[at] = heap_[child];
    }
    heap_[at] = entry;
  }

  uint64_t* heap_;
  size_t left_;
};

inline float exp_of_one(float x) {
  float lanes[W];
  store(lanes, exp_of(splat(x)));
  return lanes[0];
}

// The last token that top-k and then top-p keep.
inline uint32_t last_in_nucleus(const Sampler& sampler, const float* scaled, size_t vocab, uint64_t* heap) {
  Descending order(heap, scaled, vocab);
  bool has_top_k = sampler.top_k > 0, has_top_p = sampler.top_p < 1.0f;
  size_t most = has_top_k && static_cast<size_t>(sampler.top_k) < vocab ? static_cast<size_t>(sampler.top_k) : vocab;
  float sum = 0;
  if (has_top_k) {
    for (size_t n = 0; n < most; ++n) sum += exp_of_one(scaled[order.next()]);
    if (!has_top_p) return order.taken(most - 1, vocab);
  } else {
    F sums = {};
    for (size_t c = 0; c < vocab; c += W) {
      F each = exp_of(load(scaled + c));
      if (vocab - c < W) each = load_some(reinterpret_cast<const float*>(&each), vocab - c);
      sums += each;
    }
    sum = sum_of(sums);
  }
  // The likeliest, and then those before which less than p was reached.
  uint32_t last = 0;
  float before = 0;
  for (size_t n = 0; n < most && (n == 0 || before < sampler.top_p); ++n) {
    last = has_top_k ? order.taken(n, vocab) : order.next();
    before += exp_of_one(scaled[last]) / sum;
  }
  return last;
}

inline void penalise(const Sampler& sampler, const History& history, const float* logits, size_t vocab, float* scores) {
  float penalty = sampler.repetition_penalty;
  for (size_t i = 0; i < vocab; ++i) {
    float repeated = logits[i] < 0 ? logits[i] * penalty : logits[i] / penalty;
    float score = history.seen[i] ? repeated : logits[i];
    float present = history.counts[i] > 0 ? sampler.presence_penalty : 0.0f;
    scores[i] = score - present - history.counts[i] * sampler.frequency_penalty + sampler.logit_bias[i];
  }
}

// The token at `position` of the whole sequence.
inline uint32_t draw(const Sampler& sampler, const History& history, const float* logits, size_t vocab, uint32_t position,
                     const Draw& space) {
  float* scores = space.scores;
  size_t padded = huginn::round_up(vocab, huginn::kPanel);
  penalise(sampler, history, logits, vocab, scores);
  for (size_t i = vocab; i < padded; ++i) scores[i] = -kInfinity;
  Highest best;
  U ids = lane_numbers();
  for (size_t c = 0; c < padded; c += W, ids += W) {
    F each = load(scores + c);
    best.see(each, ids);
  }
  for (size_t i = 0; i < vocab; ++i) {
    // What is no number is nobody's maximum here, and everybody's in JAX.
    if (scores[i] != scores[i]) return sampler.temperature == 0 ? static_cast<uint32_t>(i) : 0;
  }
  if (sampler.temperature == 0) return best.id();

  float highest = scores[best.id()];
  for (size_t c = 0; c < padded; c += W) store(scores + c, (load(scores + c) - highest) / sampler.temperature);
  float least = sampler.min_p > 0 ? log_of_one(sampler.min_p > kTiny ? sampler.min_p : kTiny) : -kInfinity;
  float last_score = -kInfinity;
  uint32_t last_id = static_cast<uint32_t>(vocab) - 1;
  if (sampler.top_k > 0 || sampler.top_p < 1.0f) {
    last_id = last_in_nucleus(sampler, scores, vocab, space.heap);
    last_score = scores[last_id];
  }
  U none = {}, fold = none + position;
  threefry(sampler.key[0], sampler.key[1], none, fold);
  const uint32_t key[2] = {none[0], fold[0]};
  Highest drawn;
  ids = lane_numbers();
  for (size_t c = 0; c < padded; c += W, ids += W) {
    F each = load(scores + c);
    auto kept = (each > last_score) | ((each == last_score) & (ids <= last_id));
    kept &= each >= least;
    drawn.see(kept ? each + gumbel(key, ids) : splat(-kInfinity), ids);
  }
  return drawn.id();
}

// Log-probabilities of one text by the model alone: no penalty, no temperature.
class LogProbabilities {
 public:
  LogProbabilities(const float* logits, size_t vocab) : logits_(logits), vocab_(vocab) {
    F most = splat(-kInfinity), poison = {}, sums = {};
    for (size_t c = 0; c < vocab; c += W) {
      F each = some(c, -kInfinity);
      most = larger(each, most);
      poison += each == each ? F{} : each;
    }
    highest_ = largest_of(most) + sum_of(poison);
    for (size_t c = 0; c < vocab; c += W) {
      F each = exp_of(some(c, highest_) - highest_);
      sums += vocab - c < W ? load_some(reinterpret_cast<const float*>(&each), vocab - c) : each;
    }
    log_of_sum_ = log_of_one(sum_of(sums)) + sum_of(poison);
  }

  float of(uint32_t id) const { return logits_[id] - highest_ - log_of_sum_; }

  // The likeliest, of equals the lowest id first.
  void top(size_t count, const Draw& space, int32_t* ids, float* values) const {
    for (size_t i = 0; i < vocab_; ++i) space.scores[i] = of(static_cast<uint32_t>(i));
    Descending order(space.heap, space.scores, vocab_);
    for (size_t n = 0; n < count; ++n) {
      uint32_t id = order.next();
      ids[n] = static_cast<int32_t>(id);
      values[n] = space.scores[id];
    }
  }

 private:
  F some(size_t at, float otherwise) const {
    if (vocab_ - at >= W) return load(logits_ + at);
    F each = splat(otherwise);
    __builtin_memcpy(&each, logits_ + at, (vocab_ - at) * sizeof(float));
    return each;
  }

  const float* logits_;
  size_t vocab_;
  float highest_, log_of_sum_;
};

inline void remember(const History& history, uint32_t token, size_t vocab, float decay) {
  if (decay != 1.0f) {
    for (size_t i = 0; i < vocab; ++i) history.counts[i] *= decay;
  }
  history.seen[token] = 1;
  history.counts[token] += 1.0f;
}

}  // namespace
