// What Python calls through ctypes, and what XLA calls.

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "pack.h"
#include "run.h"
#include "xla/ffi/api/ffi.h"

#ifndef HUGINN_DIGEST
#error "compile with -DHUGINN_DIGEST=\"...\": build.py does"
#endif

namespace ffi = xla::ffi;

namespace {

using huginn::Batch;
using huginn::Sizes;

// Found in the file without loading it, too.
constexpr char kDigest[] = "huginn-kernel-digest:" HUGINN_DIGEST;

Sizes sizes_of(ffi::Span<const int64_t> values) {
  Sizes sizes;
  std::memcpy(&sizes, values.begin(), sizeof sizes);
  return sizes;
}

// Puts what a call changes where it is changed, if XLA did not alias it.
template <class In, class Out>
auto* in_place(const In& before, Out& after) {
  auto* changed = after->typed_data();
  if (changed != before.typed_data() && before.size_bytes() > 0) {
    std::memcpy(changed, before.untyped_data(), before.size_bytes());
  }
  return changed;
}

template <class B>
bool has(const B& buffer, std::initializer_list<int64_t> dimensions) {
  auto found = buffer.dimensions();
  return found.size() == dimensions.size() && std::equal(found.begin(), found.end(), dimensions.begin());
}

ffi::Error refuse(const char* what) {
  return ffi::Error(ffi::ErrorCode::kInvalidArgument, std::string("huginn's kernel: ") + what);
}

// XLA has checked nothing of this: a program compiled for another shape must not read past an array.
template <class Packed, class Tokens, class Logits>
ffi::Error check(const Sizes& s, huginn::Family family, const Packed& packed, const Tokens& tokens, const Logits& logits) {
  if (static_cast<huginn::Family>(s.family) != family) return refuse("the sizes are of another family");
  size_t bytes = huginn::packed_bytes(s);
  if (bytes == 0 || packed.element_count() != bytes) return refuse("the packed weights have another size");
  auto shape = tokens.dimensions();
  if (shape.size() != 2) return refuse("tokens must be (B, T)");
  if (!has(logits, {shape[0], shape[1], s.vocab})) return refuse("logits must be (B, T, V)");
  return ffi::Error::Success();
}

ffi::Error finish(bool done) {
  return done ? ffi::Error::Success() : ffi::Error(ffi::ErrorCode::kResourceExhausted, "huginn's kernel: out of memory");
}

ffi::Error mingru(ffi::Span<const int64_t> size_values, ffi::Buffer<ffi::U8> packed, ffi::Buffer<ffi::S32> tokens,
                  ffi::Buffer<ffi::F32> conv, ffi::Buffer<ffi::F32> hidden, ffi::ResultBuffer<ffi::F32> logits,
                  ffi::ResultBuffer<ffi::F32> conv_after, ffi::ResultBuffer<ffi::F32> hidden_after) {
  if (size_values.size() * sizeof(int64_t) != sizeof(Sizes)) return refuse("wrong number of sizes");
  Sizes s = sizes_of(size_values);
  if (auto error = check(s, huginn::Family::kMinGru, packed, tokens, *logits); error.failure()) return error;
  int64_t texts = tokens.dimensions()[0];
  for (const auto& state : {conv, *conv_after}) {
    if (!has(state, {texts, s.layers, s.conv - 1, s.width})) return refuse("conv must be (B, L, K-1, C)");
  }
  for (const auto& state : {hidden, *hidden_after}) {
    if (!has(state, {texts, s.layers, s.hidden})) return refuse("h must be (B, L, D)");
  }
  Batch batch{static_cast<size_t>(texts), static_cast<size_t>(tokens.dimensions()[1]), nullptr, tokens.typed_data(),
              logits->typed_data(), in_place(conv, conv_after), in_place(hidden, hidden_after), nullptr};
  return finish(huginn::run(s, packed.typed_data(), batch));
}

ffi::Error lstm(ffi::Span<const int64_t> size_values, ffi::Buffer<ffi::U8> packed, ffi::Buffer<ffi::S32> tokens,
                ffi::Buffer<ffi::F32> hidden, ffi::Buffer<ffi::F32> cell, ffi::ResultBuffer<ffi::F32> logits,
                ffi::ResultBuffer<ffi::F32> hidden_after, ffi::ResultBuffer<ffi::F32> cell_after) {
  if (size_values.size() * sizeof(int64_t) != sizeof(Sizes)) return refuse("wrong number of sizes");
  Sizes s = sizes_of(size_values);
  if (auto error = check(s, huginn::Family::kLstm, packed, tokens, *logits); error.failure()) return error;
  int64_t texts = tokens.dimensions()[0];
  for (const auto& state : {hidden, *hidden_after, cell, *cell_after}) {
    if (!has(state, {texts, s.layers, s.hidden})) return refuse("h and c must be (B, L, H)");
  }
  Batch batch{static_cast<size_t>(texts), static_cast<size_t>(tokens.dimensions()[1]), nullptr, tokens.typed_data(),
              logits->typed_data(), nullptr, in_place(hidden, hidden_after), in_place(cell, cell_after)};
  return finish(huginn::run(s, packed.typed_data(), batch));
}

ffi::Error decode(ffi::Span<const int64_t> size_values, ffi::Buffer<ffi::U8> packed, ffi::Buffer<ffi::F32> first_state,
                  ffi::Buffer<ffi::F32> second_state, ffi::Buffer<ffi::S32> last_token, ffi::Buffer<ffi::S32> position,
                  ffi::Buffer<ffi::PRED> seen, ffi::Buffer<ffi::F32> token_counts, ffi::RemainingArgs rest,
                  ffi::ResultBuffer<ffi::F32> first_after, ffi::ResultBuffer<ffi::F32> second_after,
                  ffi::ResultBuffer<ffi::S32> last_after, ffi::ResultBuffer<ffi::S32> position_after,
                  ffi::ResultBuffer<ffi::PRED> seen_after, ffi::ResultBuffer<ffi::F32> counts_after,
                  ffi::ResultBuffer<ffi::S32> ids, ffi::ResultBuffer<ffi::F32> logprobs,
                  ffi::ResultBuffer<ffi::S32> top_ids, ffi::ResultBuffer<ffi::F32> top_logprobs) {
  if (size_values.size() * sizeof(int64_t) != sizeof(Sizes)) return refuse("wrong number of sizes");
  Sizes s = sizes_of(size_values);
  size_t bytes = huginn::packed_bytes(s);
  if (bytes == 0 || packed.element_count() != bytes) return refuse("the packed weights have another size");
  auto shape = top_ids->dimensions();
  if (shape.size() != 3) return refuse("top_ids must be (B, N, K)");
  int64_t texts = shape[0], room = shape[1], alternatives = shape[2], vocab = s.vocab;
  if (alternatives > vocab) return refuse("there are fewer tokens than alternatives");
  bool lstm = static_cast<huginn::Family>(s.family) == huginn::Family::kLstm;
  for (const auto& state : {first_state, *first_after}) {
    bool fits = lstm ? has(state, {texts, s.layers, s.hidden}) : has(state, {texts, s.layers, s.conv - 1, s.width});
    if (!fits) return refuse("the first state must be conv (B, L, K-1, C) or h (B, L, H)");
  }
  for (const auto& state : {second_state, *second_after}) {
    if (!has(state, {texts, s.layers, s.hidden})) return refuse("the second state must be h or c (B, L, H)");
  }
  bool fit = true;
  auto expect = [&](const auto& buffer, std::initializer_list<int64_t> dimensions) { fit = fit && has(buffer, dimensions); };
  for (const auto& each : {last_token, *last_after, position, *position_after}) expect(each, {texts});
  for (const auto& each : {seen, *seen_after}) expect(each, {texts, vocab});
  for (const auto& each : {token_counts, *counts_after}) expect(each, {texts, vocab});
  expect(*ids, {texts, room});
  expect(*logprobs, {texts, room});
  expect(*top_logprobs, {texts, room, alternatives});
  // What is only read, in the order of sampling.py's Sampler and of what programs.py adds to it.
  size_t next = 0;
  auto read = [&](auto type, std::initializer_list<int64_t> dimensions) {
    auto buffer = rest.get<ffi::Buffer<decltype(type)::value>>(next++);
    using Data = decltype(buffer->typed_data());
    if (!buffer.has_value() || !has(*buffer, dimensions)) {
      fit = false;
      return static_cast<Data>(nullptr);
    }
    return buffer->typed_data();
  };
  std::integral_constant<ffi::DataType, ffi::F32> f32;
  std::integral_constant<ffi::DataType, ffi::S32> s32;
  std::integral_constant<ffi::DataType, ffi::U32> u32;
  std::integral_constant<ffi::DataType, ffi::PRED> pred;
  huginn::Decoding d{};
  d.texts = static_cast<size_t>(texts), d.room = static_cast<size_t>(room);
  d.alternatives = static_cast<size_t>(alternatives);
  d.temperature = read(f32, {texts});
  d.top_k = read(s32, {texts});
  d.top_p = read(f32, {texts});
  d.min_p = read(f32, {texts});
  d.repetition_penalty = read(f32, {texts});
  d.presence_penalty = read(f32, {texts});
  d.frequency_penalty = read(f32, {texts});
  d.penalty_decay = read(f32, {texts});
  d.logit_bias = read(f32, {texts, vocab});
  d.key = read(u32, {texts, 2});
  d.forced = read(s32, {texts, room});
  d.forced_length = read(s32, {texts});
  d.counts = read(s32, {texts});
  const bool* wants_top = read(pred, {});
  if (!fit || next != rest.size()) return refuse("an array has not the shape or the type that decoding reads");
  d.wants_top = *wants_top;
  float* first = in_place(first_state, first_after);
  float* second = in_place(second_state, second_after);
  if (lstm) {
    d.hidden = first, d.cell = second;
  } else {
    d.conv = first, d.hidden = second;
  }
  d.last_token = in_place(last_token, last_after);
  d.position = in_place(position, position_after);
  d.seen = reinterpret_cast<uint8_t*>(in_place(seen, seen_after));
  d.counts_of_tokens = in_place(token_counts, counts_after);
  d.ids = ids->typed_data(), d.logprobs = logprobs->typed_data();
  d.top_ids = top_ids->typed_data(), d.top_logprobs = top_logprobs->typed_data();
  return finish(huginn::decode(s, packed.typed_data(), d));
}

auto decode_binding() {
  return ffi::Ffi::Bind()
      .Attr<ffi::Span<const int64_t>>("sizes")
      .Arg<ffi::Buffer<ffi::U8>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::Buffer<ffi::S32>>()
      .Arg<ffi::Buffer<ffi::S32>>()
      .Arg<ffi::Buffer<ffi::PRED>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .RemainingArgs()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::S32>>()
      .Ret<ffi::Buffer<ffi::S32>>()
      .Ret<ffi::Buffer<ffi::PRED>>()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::S32>>()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::S32>>()
      .Ret<ffi::Buffer<ffi::F32>>();
}

auto binding() {
  return ffi::Ffi::Bind()
      .Attr<ffi::Span<const int64_t>>("sizes")
      .Arg<ffi::Buffer<ffi::U8>>()
      .Arg<ffi::Buffer<ffi::S32>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Arg<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::F32>>()
      .Ret<ffi::Buffer<ffi::F32>>();
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

XLA_FFI_DEFINE_HANDLER_SYMBOL(huginn_mingru, mingru, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(huginn_lstm, lstm, binding());
XLA_FFI_DEFINE_HANDLER_SYMBOL(huginn_decode, decode, decode_binding());

const char* huginn_digest() { return std::strchr(kDigest, ':') + 1; }

// Bytes of the packed weights; 0 where this library cannot run a model of such sizes.
uint64_t huginn_packed_bytes(const int64_t* sizes) {
  Sizes s;
  std::memcpy(&s, sizes, sizeof s);
  return huginn::packed_bytes(s);
}

void huginn_pack(const int64_t* sizes, const huginn::Source* sources, uint8_t* packed) {
  Sizes s;
  std::memcpy(&s, sizes, sizeof s);
  huginn::pack(s, sources, packed);
}

// Null after the last.
const char* huginn_instruction_set_name(int index) { return huginn::kInstructionSets[index]; }
int huginn_supports(int index) { return huginn::supports(index); }
int huginn_instruction_set() { return huginn::instruction_set(); }
void huginn_use_instruction_set(int index) { huginn::use_instruction_set(index); }

int huginn_threads() { return huginn::threads(); }
void huginn_set_threads(int threads) { huginn::set_threads(threads); }

}  // extern "C"
#pragma GCC visibility pop
