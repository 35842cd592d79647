// The forward passes of both families. Compiled once for each instruction set, with its name as HUGINN_ISA.
//
// The rows of a pass are texts x time, time first: row = t * texts + b. Products run over all rows; what is sequential runs over t.
// A decoding step is the same code with one t, so a text's numbers cannot depend on how it is cut, nor on its company.

#include "forward.h"

#include "products.h"
#include "sampler.h"

#ifndef HUGINN_ISA
#error "compile with -DHUGINN_ISA=portable, avx2, ..."
#endif

namespace {

using namespace huginn;

// So many rows make handing them out to two threads worth the while.
constexpr size_t kRowsToShare = 4;

template <class F>
void over_rows(Team* team, size_t rows, const F& each_range) {
  parallel(rows >= kRowsToShare ? team : nullptr, rows, each_range);
}

// Hands out a work space piece by piece; without one it only counts.
class Space {
 public:
  explicit Space(uint8_t* base) : base_(base) {}

  template <class T>
  T* take(size_t count) {
    uint8_t* found = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_up(count * sizeof(T), kLine);
    return reinterpret_cast<T*>(found);
  }

  // Room for rows of operands of up to so many inputs.
  template <class P>
  Rows operands(size_t rows, size_t inputs, size_t inputs_per_line) {
    size_t stride = round_up(round_up(inputs, kPanel) / inputs_per_line * P::kOperand, kLine);
    return {take<uint8_t>(rows * stride), stride, take<float>(rows)};
  }

  size_t used() const { return used_; }

 private:
  uint8_t* base_;
  size_t used_ = 0;
};

const float* floats(const uint8_t* packed, size_t at) { return reinterpret_cast<const float*>(packed + at); }

// A token out of range is read as the nearest one, and a negative one counts from the end, as in a JAX gather.
size_t clamp_token(int32_t token, int64_t vocab) {
  int64_t index = token < 0 ? token + vocab : token;
  return static_cast<size_t>(index < 0 ? 0 : index >= vocab ? vocab - 1 : index);
}

size_t place_of(const Batch& batch, size_t text) { return batch.places == nullptr ? text : batch.places[text]; }

void embed(const Sizes& s, const float* table, const Batch& batch, size_t first_text, size_t texts, size_t first_t,
           size_t length, float* x, size_t stride) {
  for (size_t t = 0; t < length; ++t) {
    for (size_t b = 0; b < texts; ++b) {
      size_t token = clamp_token(batch.tokens[(first_text + b) * batch.length + first_t + t], s.vocab);
      __builtin_memcpy(x + (t * texts + b) * stride, table + token * stride, stride * sizeof(float));
    }
  }
}

void rms_norm(const float* x, const float* scale, size_t width, size_t padded, float* out) {
  F squares = {};
  for (size_t c = 0; c < padded; c += W) {
    F each = load(x + c);
    squares = fma(each, each, squares);
  }
  float mean = sum_of(squares) / static_cast<float>(width);
  F factor = splat(1.0f / __builtin_sqrtf(mean + 1e-6f));
  for (size_t c = 0; c < padded; c += W) store(out + c, load(x + c) * factor * load(scale + c));
}

// Where the logits of a pass's rows go.
struct LogitRows {
  float* logits;
  size_t first_text, texts, first_t, length, vocab;

  float* of(size_t row) const {
    size_t t = row / texts, b = row % texts;
    return logits + ((first_text + b) * length + first_t + t) * vocab;
  }
};

template <class P>
void head(const uint8_t* packed, const Matrix& m, const float* bias, const Rows& operands, size_t rows, Team* team,
          const LogitRows& logits) {
  parallel(team, m.groups, [&](size_t begin, size_t end) {
    for (size_t g = begin; g < end; ++g) {
      size_t channel = m.first_panel(g) * kPanel, count = m.panels_in(g) * kPanel;
      if (channel + count > m.rows) count = m.rows - channel;
      multiply_group<P>(packed, m, g, operands, 0, rows, [&](size_t row, float* tile) {
        float* out = logits.of(row) + channel;
        for (size_t c = 0; c < count; c += W) {
          F y = load(tile + c);
          if (bias != nullptr) y += load(bias + channel + c);
          store_some(out + c, y, count - c);
        }
      });
    }
  });
}

template <class P>
class MinGru {
 public:
  MinGru(const Sizes& s, const Batch& batch, uint8_t* scratch)
      : s_(s), batch_(batch), arrays_(s, [](size_t, const MinGruLayer&) {}), space_(scratch) {
    width_ = round_up(arrays_.width, kPanel);
    hidden_ = round_up(arrays_.hidden, kPanel);
    mlp_ = round_up(arrays_.mlp, kPanel);
    texts_at_once_ = batch.texts < kMaxTexts ? batch.texts : kMaxTexts;
    length_at_once_ = kMaxRows / texts_at_once_;
    if (length_at_once_ > batch.length) length_at_once_ = batch.length;
    size_t rows = texts_at_once_ * length_at_once_;
    x_ = space_.take<float>(rows * width_);
    normed_ = space_.take<float>(rows * width_);
    mixed_ = space_.take<float>(rows * width_);
    h_ = space_.take<float>(rows * hidden_);
    m_ = space_.take<float>(rows * mlp_);
    size_t widest = width_ > hidden_ ? width_ : hidden_;
    if (mlp_ > widest) widest = mlp_;
    operands_ = space_.operands<P>(rows, widest, arrays_.head.inputs_per_line);
  }

  size_t scratch() const { return space_.used(); }

  void run(const uint8_t* packed, Team* team) {
    for (size_t b = 0; b < batch_.texts; b += texts_at_once_) {
      size_t texts = batch_.texts - b < texts_at_once_ ? batch_.texts - b : texts_at_once_;
      for (size_t t = 0; t < batch_.length; t += length_at_once_) {
        size_t length = batch_.length - t < length_at_once_ ? batch_.length - t : length_at_once_;
        pass(packed, team, b, texts, t, length);
      }
    }
  }

 private:
  void pass(const uint8_t* packed, Team* team, size_t first_text, size_t texts, size_t first_t, size_t length) {
    size_t rows = texts * length;
    embed(s_, floats(packed, arrays_.embedding), batch_, first_text, texts, first_t, length, x_, width_);
    MinGruArrays(s_, [&](size_t layer, const MinGruLayer& at) {
      mixer(packed, at, team, first_text, texts, length, layer);
      mlp(packed, at, team, rows);
    });
    normed_operands(floats(packed, arrays_.norm), arrays_.head, team, rows);
    head<P>(packed, arrays_.head, nullptr, operands_, rows, team,
            {batch_.logits, first_text, texts, first_t, batch_.length, static_cast<size_t>(s_.vocab)});
  }

  float* conv_state(size_t text, size_t layer) const {
    size_t layers = static_cast<size_t>(s_.layers);
    return batch_.conv + (place_of(batch_, text) * layers + layer) * (arrays_.taps - 1) * arrays_.width;
  }

  void mixer(const uint8_t* packed, const MinGruLayer& at, Team* team, size_t first_text, size_t texts, size_t length,
             size_t layer) {
    size_t rows = texts * length;
    auto norm = [&](size_t row) {
      rms_norm(x_ + row * width_, floats(packed, at.mixer_norm), arrays_.width, width_, normed_ + row * width_);
    };
    auto conv = [&](size_t row) {
      convolve(packed, at, first_text, texts, row, layer);
      P::convert(mixed_ + row * width_, at.gates, operands_, row);
    };
    auto remember = [&](size_t b) { remember_inputs(first_text, texts, length, layer, b); };
    if (length == 1) {
      over_rows(team, texts, [&](size_t begin, size_t end) {
        for (size_t b = begin; b < end; ++b) norm(b), conv(b), remember(b);
      });
    } else {
      over_rows(team, rows, [&](size_t begin, size_t end) {
        for (size_t row = begin; row < end; ++row) norm(row);
      });
      over_rows(team, rows, [&](size_t begin, size_t end) {
        for (size_t row = begin; row < end; ++row) conv(row);
      });
      for (size_t b = 0; b < texts; ++b) remember(b);
    }
    recur(packed, at, team, first_text, texts, rows, layer);
    operands_of(h_, hidden_, at.out, team, rows);
    add_to_x(packed, at.out, team, rows);
  }

  // y_t = bias + sum_k taps[k] x_{t - (K-1) + k}, where what is before the pass stands in the state.
  void convolve(const uint8_t* packed, const MinGruLayer& at, size_t first_text, size_t texts, size_t row, size_t layer) {
    const float* past = conv_state(first_text + row % texts, layer);
    const float* taps = floats(packed, at.taps);
    const float* bias = floats(packed, at.conv_bias);
    size_t t = row / texts, K = arrays_.taps;
    for (size_t c = 0; c < width_; c += W) {
      F y = load(bias + c);
      for (size_t k = 0; k < K; ++k) {
        F x = {};
        if (t + k + 1 >= K) {
          x = load(normed_ + (row - (K - 1 - k) * texts) * width_ + c);
        } else if (c < arrays_.width) {
          x = load_some(past + (t + k) * arrays_.width + c, arrays_.width - c);
        }
        y = fma(x, load(taps + k * width_ + c), y);
      }
      store(mixed_ + row * width_ + c, y);
    }
  }

  // The last K-1 inputs of the convolution are the state of what follows.
  void remember_inputs(size_t first_text, size_t texts, size_t length, size_t layer, size_t b) {
    if (arrays_.taps == 1) return;
    float* past = conv_state(first_text + b, layer);
    size_t count = arrays_.taps - 1, kept = length < count ? count - length : 0;
    __builtin_memmove(past, past + (count - kept) * arrays_.width, kept * arrays_.width * sizeof(float));
    for (size_t i = kept; i < count; ++i) {
      size_t t = length - (count - i);
      __builtin_memcpy(past + i * arrays_.width, normed_ + (t * texts + b) * width_, arrays_.width * sizeof(float));
    }
  }

  // h_t = (1 - z_t) h_{t-1} + z_t c_t with z the sigmoid of the gate: rows are in the order of time.
  void recur(const uint8_t* packed, const MinGruLayer& at, Team* team, size_t first_text, size_t texts, size_t rows,
             size_t layer) {
    const Matrix& m = at.gates;
    const float* bias = floats(packed, at.gate_bias);
    size_t layers = static_cast<size_t>(s_.layers);
    parallel(team, m.groups, [&](size_t begin, size_t end) {
      for (size_t g = begin; g < end; ++g) {
        size_t channel = m.first_panel(g) * kPanel, padded = m.panels_in(g) * kPanel;
        size_t count = channel + padded > m.rows ? m.rows - channel : padded;
        multiply_group<P>(packed, m, g, operands_, 0, rows, [&](size_t row, float* tile) {
          size_t text = first_text + row % texts;
          float* state = batch_.hidden + (place_of(batch_, text) * layers + layer) * arrays_.hidden + channel;
          for (size_t c = 0; c < padded; c += W) {
            F z = sigmoid(load(tile + c) + load(bias + channel + c));
            F before = c < count ? load_some(state + c, count - c) : F{};
            F h = fma(z, load(tile + padded + c), (1.0f - z) * before);
            store(h_ + row * hidden_ + channel + c, h);
            if (c < count) store_some(state + c, h, count - c);
          }
        });
      }
    });
  }

  void mlp(const uint8_t* packed, const MinGruLayer& at, Team* team, size_t rows) {
    normed_operands(floats(packed, at.mlp_norm), at.up, team, rows);
    parallel(team, at.up.groups, [&](size_t begin, size_t end) {
      for (size_t g = begin; g < end; ++g) {
        size_t channel = at.up.first_panel(g) * kPanel, count = at.up.panels_in(g) * kPanel;
        multiply_group<P>(packed, at.up, g, operands_, 0, rows, [&](size_t row, float* tile) {
          for (size_t c = 0; c < count; c += W) store(m_ + row * mlp_ + channel + c, gelu(load(tile + c)));
        });
      }
    });
    operands_of(m_, mlp_, at.down, team, rows);
    add_to_x(packed, at.down, team, rows);
  }

  void operands_of(const float* from, size_t stride, const Matrix& m, Team* team, size_t rows) {
    over_rows(team, rows, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row) P::convert(from + row * stride, m, operands_, row);
    });
  }

  void normed_operands(const float* scale, const Matrix& m, Team* team, size_t rows) {
    over_rows(team, rows, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row) {
        float* normed = normed_ + row * width_;
        rms_norm(x_ + row * width_, scale, arrays_.width, width_, normed);
        P::convert(normed, m, operands_, row);
      }
    });
  }

  void add_to_x(const uint8_t* packed, const Matrix& m, Team* team, size_t rows) {
    parallel(team, m.groups, [&](size_t begin, size_t end) {
      for (size_t g = begin; g < end; ++g) {
        size_t channel = m.first_panel(g) * kPanel, count = m.panels_in(g) * kPanel;
        multiply_group<P>(packed, m, g, operands_, 0, rows, [&](size_t row, float* tile) {
          float* x = x_ + row * width_ + channel;
          for (size_t c = 0; c < count; c += W) store(x + c, load(x + c) + load(tile + c));
        });
      }
    });
  }

  const Sizes& s_;
  const Batch& batch_;
  MinGruArrays arrays_;
  Space space_;
  size_t width_, hidden_, mlp_, texts_at_once_, length_at_once_;
  float *x_, *normed_, *mixed_, *h_, *m_;
  Rows operands_;
};

template <class P>
class Lstm {
 public:
  Lstm(const Sizes& s, const Batch& batch, uint8_t* scratch)
      : s_(s), batch_(batch), arrays_(s, [](size_t, const LstmLayer&) {}), space_(scratch) {
    emb_ = round_up(arrays_.emb, kPanel);
    hidden_ = round_up(arrays_.hidden, kPanel);
    texts_at_once_ = batch.texts < kMaxTexts ? batch.texts : kMaxTexts;
    length_at_once_ = kMaxRows / texts_at_once_;
    if (length_at_once_ > batch.length) length_at_once_ = batch.length;
    size_t rows = texts_at_once_ * length_at_once_, per_line = arrays_.head.inputs_per_line;
    x_ = space_.take<float>(rows * emb_);
    h_ = space_.take<float>(rows * hidden_);
    before_ = space_.take<float>(texts_at_once_ * hidden_);
    // One row's worth for each group, in the order of its tile.
    gates_ = space_.take<float>(rows * 4 * hidden_);
    inputs_ = space_.operands<P>(rows, emb_ > hidden_ ? emb_ : hidden_, per_line);
    recurrent_ = space_.operands<P>(texts_at_once_, hidden_, per_line);
  }

  size_t scratch() const { return space_.used(); }

  void run(const uint8_t* packed, Team* team) {
    for (size_t b = 0; b < batch_.texts; b += texts_at_once_) {
      size_t texts = batch_.texts - b < texts_at_once_ ? batch_.texts - b : texts_at_once_;
      for (size_t t = 0; t < batch_.length; t += length_at_once_) {
        size_t length = batch_.length - t < length_at_once_ ? batch_.length - t : length_at_once_;
        pass(packed, team, b, texts, t, length);
      }
    }
  }

 private:
  void pass(const uint8_t* packed, Team* team, size_t first_text, size_t texts, size_t first_t, size_t length) {
    size_t rows = texts * length;
    embed(s_, floats(packed, arrays_.embedding), batch_, first_text, texts, first_t, length, x_, emb_);
    LstmArrays(s_, [&](size_t layer, const LstmLayer& at) {
      bool first = layer == 0;
      operands_of(first ? x_ : h_, first ? emb_ : hidden_, at.input, team, rows, inputs_);
      recur(packed, at, team, first_text, texts, length, layer);
    });
    operands_of(h_, hidden_, arrays_.head, team, rows, inputs_);
    head<P>(packed, arrays_.head, floats(packed, arrays_.head_bias), inputs_, rows, team,
            {batch_.logits, first_text, texts, first_t, batch_.length, static_cast<size_t>(s_.vocab)});
  }

  void operands_of(const float* from, size_t stride, const Matrix& m, Team* team, size_t rows, const Rows& to) {
    over_rows(team, rows, [&](size_t begin, size_t end) {
      for (size_t row = begin; row < end; ++row) P::convert(from + row * stride, m, to, row);
    });
  }

  size_t state_at(size_t text, size_t layer) const {
    return (place_of(batch_, text) * static_cast<size_t>(s_.layers) + layer) * arrays_.hidden;
  }

  void recur(const uint8_t* packed, const LstmLayer& at, Team* team, size_t first_text, size_t texts, size_t length,
             size_t layer) {
    // The input's share of the gates needs no loop over time.
    auto share_of_input = [&](size_t g) {
      const float* bias = floats(packed, at.bias);
      size_t channel = at.input.first_panel(g) * kPanel, count = at.input.panels_in(g) * kPanel;
      multiply_group<P>(packed, at.input, g, inputs_, 0, texts * length, [&](size_t row, float* tile) {
        float* gates = gates_ + row * 4 * hidden_ + 4 * channel;
        for (size_t gate = 0; gate < 4; ++gate) {
          for (size_t c = 0; c < count; c += W) {
            store(gates + gate * count + c, load(tile + gate * count + c) + load(bias + gate * hidden_ + channel + c));
          }
        }
      });
    };
    if (length > 1) {
      parallel(team, at.input.groups, [&](size_t begin, size_t end) {
        for (size_t g = begin; g < end; ++g) share_of_input(g);
      });
    }
    for (size_t b = 0; b < texts; ++b) {
      float* padded = before_ + b * hidden_;
      for (size_t c = 0; c < hidden_; c += W) store(padded + c, F{});
      __builtin_memcpy(padded, batch_.hidden + state_at(first_text + b, layer), arrays_.hidden * sizeof(float));
    }
    operands_of(before_, hidden_, at.hidden, team, texts, recurrent_);
    for (size_t t = 0; t < length; ++t) {
      if (t > 0) operands_of(h_ + (t - 1) * texts * hidden_, hidden_, at.hidden, team, texts, recurrent_);
      parallel(team, at.hidden.groups, [&](size_t begin, size_t end) {
        for (size_t g = begin; g < end; ++g) {
          if (length == 1) share_of_input(g);
          step(packed, at, first_text, texts, t, layer, g);
        }
      });
    }
    for (size_t b = 0; b < texts; ++b) {
      __builtin_memcpy(batch_.hidden + state_at(first_text + b, layer), h_ + ((length - 1) * texts + b) * hidden_,
                       arrays_.hidden * sizeof(float));
    }
  }

  // i, f, o = sigmoid(.), g = tanh(.), c_t = f c_{t-1} + i g, h_t = o tanh(c_t); gates in the order i, f, g, o.
  void step(const uint8_t* packed, const LstmLayer& at, size_t first_text, size_t texts, size_t t, size_t layer, size_t g) {
    const Matrix& m = at.hidden;
    size_t channel = m.first_panel(g) * kPanel, padded = m.panels_in(g) * kPanel;
    size_t count = channel + padded > m.rows ? m.rows - channel : padded;
    multiply_group<P>(packed, m, g, recurrent_, 0, texts, [&](size_t b, float* tile) {
      size_t row = t * texts + b;
      const float* gates = gates_ + row * 4 * hidden_ + 4 * channel;
      float* state = batch_.cell + state_at(first_text + b, layer) + channel;
      for (size_t c = 0; c < padded; c += W) {
        F in = sigmoid(load(gates + c) + load(tile + c));
        F forget = sigmoid(load(gates + padded + c) + load(tile + padded + c));
        F candidate = tanh_of(load(gates + 2 * padded + c) + load(tile + 2 * padded + c));
        F out = sigmoid(load(gates + 3 * padded + c) + load(tile + 3 * padded + c));
        F before = c < count ? load_some(state + c, count - c) : F{};
        F cell = fma(forget, before, in * candidate);
        store(h_ + row * hidden_ + channel + c, out * tanh_of(cell));
        if (c < count) store_some(state + c, cell, count - c);
      }
    });
  }

  const Sizes& s_;
  const Batch& batch_;
  LstmArrays arrays_;
  Space space_;
  size_t emb_, hidden_, texts_at_once_, length_at_once_;
  float *x_, *h_, *before_, *gates_;
  Rows inputs_, recurrent_;
};

// Calls `use` with the pass that the sizes ask for.
template <class Use>
void with_pass(const Sizes& s, const Batch& batch, uint8_t* scratch, Use use) {
  bool lstm = static_cast<Family>(s.family) == Family::kLstm;
  switch (static_cast<Precision>(s.precision)) {
    case Precision::kFloat32: lstm ? use(Lstm<Float32>(s, batch, scratch)) : use(MinGru<Float32>(s, batch, scratch)); break;
    case Precision::kBfloat16:
      lstm ? use(Lstm<Bfloat16>(s, batch, scratch)) : use(MinGru<Bfloat16>(s, batch, scratch));
      break;
    case Precision::kInt8: lstm ? use(Lstm<Int8>(s, batch, scratch)) : use(MinGru<Int8>(s, batch, scratch)); break;
  }
}

size_t scratch(const Sizes& s, const Batch& batch) {
  size_t bytes = 0;
  with_pass(s, batch, nullptr, [&](const auto& pass) { bytes = pass.scratch(); });
  return bytes;
}

void run(const Sizes& s, const uint8_t* packed, const Batch& batch, uint8_t* space, Team* team) {
  with_pass(s, batch, space, [&](auto pass) { pass.run(packed, team); });
}

// One step after the other for the texts that still have something to make; the others are left out of it.
class Decoder {
 public:
  Decoder(const Sizes& s, const Decoding& d, uint8_t* base) : s_(s), d_(d), vocab_(static_cast<size_t>(s.vocab)), space_(base) {
    padded_ = round_up(vocab_, kPanel);
    tokens_ = space_.take<int32_t>(d.texts);
    places_ = space_.take<uint32_t>(d.texts);
    logits_ = space_.take<float>(d.texts * vocab_);
    scores_ = space_.take<float>(d.texts * padded_);
    heaps_ = space_.take<uint64_t>(d.texts * vocab_);
    pass_ = base == nullptr ? nullptr : base + space_.used();
  }

  size_t scratch() const { return space_.used() + ::scratch(s_, batch(d_.texts)); }

  void run(const uint8_t* packed, Team* team) {
    clear();
    for (size_t step = 0; step < d_.room; ++step) {
      size_t texts = 0;
      for (size_t b = 0; b < d_.texts; ++b) {
        if (static_cast<int64_t>(step) >= d_.counts[b]) continue;
        places_[texts] = static_cast<uint32_t>(b);
        tokens_[texts++] = d_.last_token[b];
      }
      if (texts == 0) return;
      ::run(s_, packed, batch(texts), pass_, team);
      over_rows(team, texts, [&](size_t begin, size_t end) {
        for (size_t n = begin; n < end; ++n) go_on(n, step);
      });
    }
  }

 private:
  Batch batch(size_t texts) const { return {texts, 1, places_, tokens_, logits_, d_.conv, d_.hidden, d_.cell}; }

  void clear() {
    size_t places = d_.texts * d_.room;
    __builtin_memset(d_.ids, 0, places * sizeof *d_.ids);
    __builtin_memset(d_.logprobs, 0, places * sizeof *d_.logprobs);
    __builtin_memset(d_.top_ids, 0, places * d_.alternatives * sizeof *d_.top_ids);
    __builtin_memset(d_.top_logprobs, 0, places * d_.alternatives * sizeof *d_.top_logprobs);
  }

  // The n-th of the texts that were read makes its next token.
  void go_on(size_t n, size_t step) {
    size_t b = places_[n], at = b * d_.room + step;
    const float* logits = logits_ + n * vocab_;
    Draw space{scores_ + n * padded_, heaps_ + n * vocab_};
    History history{d_.seen + b * vocab_, d_.counts_of_tokens + b * vocab_};
    uint32_t token;
    if (static_cast<int64_t>(step) < d_.forced_length[b]) {
      // The prompt's tokens are in the history already, and are not counted.
      token = static_cast<uint32_t>(clamp_token(d_.forced[at], s_.vocab));
    } else {
      Sampler sampler = sampler_of(b);
      token = draw(sampler, history, logits, vocab_, static_cast<uint32_t>(d_.position[b]) + 1, space);
      remember(history, token, vocab_, sampler.penalty_decay);
    }
    LogProbabilities scored(logits, vocab_);
    d_.ids[at] = static_cast<int32_t>(token);
    d_.logprobs[at] = scored.of(token);
    if (d_.wants_top) {
      scored.top(d_.alternatives, space, d_.top_ids + at * d_.alternatives, d_.top_logprobs + at * d_.alternatives);
    }
    d_.last_token[b] = static_cast<int32_t>(token);
    d_.position[b] += 1;
  }

  Sampler sampler_of(size_t b) const {
    return {d_.temperature[b],        d_.top_k[b],
            d_.top_p[b],              d_.min_p[b],
            d_.repetition_penalty[b], d_.presence_penalty[b],
            d_.frequency_penalty[b],  d_.penalty_decay[b],
            d_.logit_bias + b * vocab_, {d_.key[2 * b], d_.key[2 * b + 1]}};
  }

  const Sizes& s_;
  const Decoding& d_;
  size_t vocab_, padded_;
  Space space_;
  int32_t* tokens_;
  uint32_t* places_;
  float *logits_, *scores_;
  uint64_t* heaps_;
  uint8_t* pass_;
};

size_t scratch_of_decoding(const Sizes& s, const Decoding& decoding) { return Decoder(s, decoding, nullptr).scratch(); }

void decode(const Sizes& s, const uint8_t* packed, const Decoding& decoding, uint8_t* space, Team* team) {
  Decoder(s, decoding, space).run(packed, team);
}

}  // namespace

namespace huginn::HUGINN_ISA {
extern const Forward kForward;
const Forward kForward{scratch, run, scratch_of_decoding, decode};
}  // namespace huginn::HUGINN_ISA
