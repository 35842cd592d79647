// Runs the kernel over random shapes with every array as large as it must be and no larger, so that the address sanitizer sees
// a read or a write beside one. Exits with 0 if the laws held, and with the sanitizer's code if it had something to say.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "pack.h"
#include "run.h"
#include "team.h"

using namespace huginn;

namespace {

std::mt19937 random_bits(20261122);

int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_bits); }

std::vector<float> floats(size_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random_bits);
  return values;
}

// A model of random weights, whose arrays are in the kernel's hands only while it packs them.
class Weights {
 public:
  explicit Weights(const Sizes& s) {
    size_t V = size(s.vocab), C = size(s.width), D = size(s.hidden), M = size(s.mlp) * C;
    vector(V * C);
    for (int64_t l = 0; l < s.layers; ++l) {
      if (s.family == 1) {
        matrix(s, 4 * D, l == 0 ? C : D);
        matrix(s, 4 * D, D);
        vector(4 * D);
        vector(4 * D);
      } else {
        vector(C);
        vector(size(s.conv) * C);
        vector(C);
        matrix(s, D, C);
        vector(D);
        matrix(s, D, C);
        matrix(s, C, D);
        vector(C);
        matrix(s, M, C);
        matrix(s, C, M);
      }
    }
    if (s.family == 1) {
      matrix(s, V, D);
      vector(V);
    } else {
      vector(C);
      matrix(s, V, C);
    }
  }

  const Source* sources() const { return sources_.data(); }

 private:
  static size_t size(int64_t n) { return static_cast<size_t>(n); }

  const void* keep(const void* from, size_t bytes) {
    kept_.emplace_back(new uint8_t[bytes]);
    std::memcpy(kept_.back().get(), from, bytes);
    return kept_.back().get();
  }

  void vector(size_t count) {
    std::vector<float> values = floats(count, 0.5f);
    sources_.push_back({keep(values.data(), count * sizeof(float)), nullptr});
  }

  void matrix(const Sizes& s, size_t rows, size_t inputs) {
    std::vector<float> values = floats(rows * inputs, 0.3f);
    if (s.precision == 0) {
      sources_.push_back({keep(values.data(), values.size() * sizeof(float)), nullptr});
    } else if (s.precision == 1) {
      std::vector<uint16_t> halves(values.size());
      for (size_t i = 0; i < values.size(); ++i) {
        uint32_t bits;
        std::memcpy(&bits, &values[i], sizeof bits);
        halves[i] = static_cast<uint16_t>(bits >> 16);
      }
      sources_.push_back({keep(halves.data(), halves.size() * 2), nullptr});
    } else {
      std::vector<int8_t> bytes(values.size());
      for (int8_t& byte : bytes) byte = static_cast<int8_t>(between(-128, 127));
      std::vector<float> scales(rows, 0.004f);
      const void* data = keep(bytes.data(), bytes.size());
      sources_.push_back({data, static_cast<const float*>(keep(scales.data(), rows * sizeof(float)))});
    }
  }

  std::vector<std::unique_ptr<uint8_t[]>> kept_;
  std::vector<Source> sources_;
};

struct Texts {
  size_t texts, length;
  std::vector<int32_t> tokens;
  std::vector<float> logits, conv, hidden, cell;

  Texts(const Sizes& s, size_t texts_, size_t length_) : texts(texts_), length(length_), tokens(texts * length) {
    size_t layers = static_cast<size_t>(s.layers);
    // Some of no token: they are read as the nearest one.
    for (int32_t& token : tokens) token = static_cast<int32_t>(between(-2 * s.vocab, 2 * s.vocab));
    logits.resize(texts * length * static_cast<size_t>(s.vocab));
    conv = floats(texts * layers * static_cast<size_t>((s.conv - 1) * s.width), 1);
    hidden = floats(texts * layers * static_cast<size_t>(s.hidden), 1);
    cell = floats(texts * layers * static_cast<size_t>(s.hidden), 1);
  }

  Batch batch() {
    return {texts, length, nullptr, tokens.data(), logits.data(), conv.data(), hidden.data(), cell.data()};
  }
};

// Texts that go on, by all the ways of drawing.
struct Chunks {
  size_t texts, room, alternatives;
  Texts state;
  std::vector<int32_t> last, position, top_k, forced, forced_length, counts, ids, top_ids;
  std::vector<uint8_t> seen;
  std::vector<uint32_t> keys;
  std::vector<float> token_counts, temperature, top_p, min_p, repetition, presence, frequency, decay, bias, logprobs, top_logprobs;

  Chunks(const Sizes& s, size_t texts_) : texts(texts_), room(static_cast<size_t>(between(1, 5))), state(s, texts_, 1) {
    size_t vocab = static_cast<size_t>(s.vocab);
    alternatives = static_cast<size_t>(between(1, s.vocab));
    seen.resize(texts * vocab), token_counts.resize(texts * vocab), bias = floats(texts * vocab, 1);
    for (size_t b = 0; b < texts; ++b) {
      last.push_back(static_cast<int32_t>(between(-s.vocab, 2 * s.vocab)));
      position.push_back(static_cast<int32_t>(between(0, 1000)));
      temperature.push_back(static_cast<float>(between(0, 2)) / 2);
      top_k.push_back(static_cast<int32_t>(between(0, 1) * between(1, s.vocab + 3)));
      top_p.push_back(static_cast<float>(between(1, 10)) / 10);
      min_p.push_back(static_cast<float>(between(0, 10)) / 10);
      repetition.push_back(1.2f), presence.push_back(0.3f), frequency.push_back(-0.3f), decay.push_back(0.9f);
      keys.push_back(random_bits()), keys.push_back(random_bits());
      forced_length.push_back(static_cast<int32_t>(between(-1, int64_t(room) + 2)));
      counts.push_back(static_cast<int32_t>(between(-1, int64_t(room))));
      for (size_t n = 0; n < room; ++n) forced.push_back(static_cast<int32_t>(between(-s.vocab, 2 * s.vocab)));
    }
    ids.resize(texts * room), logprobs.resize(texts * room);
    top_ids.resize(texts * room * alternatives), top_logprobs.resize(texts * room * alternatives);
  }

  Decoding decoding() {
    return {texts, room, alternatives, state.conv.data(), state.hidden.data(), state.cell.data(), last.data(),
            position.data(), seen.data(), token_counts.data(), temperature.data(), top_p.data(), min_p.data(),
            repetition.data(), presence.data(), frequency.data(), decay.data(), top_k.data(), bias.data(), keys.data(),
            forced.data(), forced_length.data(), counts.data(), true, ids.data(), logprobs.data(), top_ids.data(),
            top_logprobs.data()};
  }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

Sizes random_sizes() {
  Sizes s{between(0, 1), between(0, 2), between(1, 40), between(1, 70), between(1, 70), between(1, 3), between(1, 5), between(1, 4)};
  if (s.family == 1) s.conv = s.mlp = 1;
  return s;
}

int fail(const char* what, const Sizes& s, int set) {
  std::printf("%s: family %d, precision %d, V %d, C %d, D %d, L %d, K %d, mlp %d, set %s\n", what, int(s.family),
              int(s.precision), int(s.vocab), int(s.width), int(s.hidden), int(s.layers), int(s.conv), int(s.mlp),
              kInstructionSets[set]);
  return 1;
}

int check(const Sizes& s, size_t texts, size_t length) {
  auto packed = std::make_unique<uint8_t[]>(packed_bytes(s));
  pack(s, Weights(s).sources(), packed.get());
  const Texts start(s, texts, length);
  const Chunks chunks(s, texts);
  for (int set = 0; kInstructionSets[set] != nullptr; ++set) {
    if (!supports(set)) continue;
    use_instruction_set(set);
    set_threads(1);
    Texts alone = start;
    if (!run(s, packed.get(), alone.batch())) return fail("no memory", s, set);
    set_threads(2);
    Texts shared = start;
    if (!run(s, packed.get(), shared.batch())) return fail("no memory", s, set);
    if (!same(alone.logits, shared.logits) || !same(alone.hidden, shared.hidden) || !same(alone.conv, shared.conv)) {
      return fail("two threads make another result than one", s, set);
    }
    Chunks drawn = chunks, with_two = chunks;
    set_threads(1);
    if (!decode(s, packed.get(), drawn.decoding())) return fail("no memory", s, set);
    set_threads(2);
    if (!decode(s, packed.get(), with_two.decoding())) return fail("no memory", s, set);
    if (drawn.ids != with_two.ids || !same(drawn.logprobs, with_two.logprobs) ||
        !same(drawn.top_logprobs, with_two.top_logprobs) || !same(drawn.state.hidden, with_two.state.hidden)) {
      return fail("two threads draw another text than one", s, set);
    }
  }
  return 0;
}

// The worker stays behind in the parent; a child must not wait for it.
int check_child(const Sizes& s) {
  pid_t child = fork();
  if (child == 0) _exit(check(s, 3, 2));
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

}  // namespace

int main(int, char** arguments) {
  int rounds = std::atoi(arguments[1]);
  for (int round = 0; round < rounds; ++round) {
    Sizes s = random_sizes();
    if (check(s, static_cast<size_t>(between(1, 20)), static_cast<size_t>(between(1, 12)))) return 1;
    // Beyond what goes through the network at once.
    if (round % 16 == 0 && (check(s, 67, 3) || check(s, 2, 131))) return 1;
    if (round % 16 == 0 && check_child(s)) return 1;
  }
  std::printf("%d shapes\n", rounds);
  return 0;
}
