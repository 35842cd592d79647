// What Python calls through ctypes, and what XLA calls.

#include <algorithm>
#include <cstring>
#include <string>

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

// Puts the state where it is changed, if XLA did not alias it.
template <class In, class Out>
float* in_place(const In& before, Out& after) {
  float* state = after->typed_data();
  const float* from = before.typed_data();
  if (state != from && before.element_count() > 0) {
    std::memcpy(state, from, before.element_count() * sizeof(float));
  }
  return state;
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
  Batch batch{static_cast<size_t>(texts), static_cast<size_t>(tokens.dimensions()[1]), tokens.typed_data(),
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
  Batch batch{static_cast<size_t>(texts), static_cast<size_t>(tokens.dimensions()[1]), tokens.typed_data(),
              logits->typed_data(), nullptr, in_place(hidden, hidden_after), in_place(cell, cell_after)};
  return finish(huginn::run(s, packed.typed_data(), batch));
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
